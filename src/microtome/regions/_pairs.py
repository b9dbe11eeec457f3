"""Inputs and targets that lie on each other, pixel for pixel."""

from __future__ import annotations

from collections.abc import Sequence

from microtome.errors import InvalidInputError

from ._stacks import Stack, pixels_of

__all__ = ["paired"]

# Two tools that write one pixel size agree to this; another is that of another picture.
_SAME_SIZE = 1e-3


def paired(
    images: Sequence[Stack],
    targets: Sequence[Stack] | None,
    *,
    level: int = 0,
    labels: bool = False,
) -> None:
    """Refuse targets that do not lie on their images; a pair is then read with the same windows.

    Channels and dtypes may differ. With no targets there is nothing to refuse: the image is its own
    (self-supervised).

    Parameters
    ----------
    images
        The inputs: images or stacks.
    targets
        One an input, or None.
    level
        Index of the level that both are read at.
    labels
        Whether the targets hold labels, which are integers.

    Raises
    ------
    InvalidInputError
        If a pair has other samples, sizes, axes or pixel sizes, or labels are no integers; the
        message names both.

    Examples
    --------
    >>> import numpy as np
    >>> from microtome.image import ArrayStack, MemoryArray
    >>> image = ArrayStack(MemoryArray(np.zeros((3, 64, 64), np.uint16)), "CYX", source="a.tif")
    >>> cells = ArrayStack(MemoryArray(np.zeros((50, 50), np.int32)), "YX", source="b.tif")
    >>> paired([image], [cells], labels=True)
    Traceback (most recent call last):
        ...
    microtome.errors.InvalidInputError: image 0, a.tif, has 1 sample of 64 x 64 pixels, its target \
b.tif 1 sample of 50 x 50; a target has one pixel for each of its image
    """
    if targets is None:
        return
    if len(images) != len(targets):
        msg = f"{len(images)} images have a target each, got {len(targets)}"
        raise InvalidInputError(msg)
    for number, (image, target) in enumerate(zip(images, targets, strict=True)):
        one, other = pixels_of(image, level), pixels_of(target, level)
        if one.shape[:1] + one.shape[2:] != other.shape[:1] + other.shape[2:]:
            msg = (
                f"image {number}, {one.source}, has {_told(one.shape)} pixels, its target "
                f"{other.source} {_told(other.shape)}; a target has one pixel for each of its image"
            )
            raise InvalidInputError(msg)
        if labels and other.dtype.kind not in "iub":
            msg = f"{other.source}: labels are integers, got {other.dtype}"
            raise InvalidInputError(msg)
        _verify_pixel_size(number, image, target)


def _told(shape: tuple[int, ...]) -> str:
    samples = f"{shape[0]} sample{'s' if shape[0] > 1 else ''}"
    return f"{samples} of {' x '.join(map(str, shape[2:]))}"


def _verify_pixel_size(number: int, image: Stack, target: Stack) -> None:
    one, other = getattr(image, "mpp", None), getattr(target, "mpp", None)
    if one is None or other is None:  # a mask often states none
        return
    if any(abs(a - b) > _SAME_SIZE * a for a, b in ((one.y, other.y), (one.x, other.x))):
        msg = (
            f"image {number} has pixels of {one}, its target of {other}: as many, but not of the "
            "same place"
        )
        raise InvalidInputError(msg)
