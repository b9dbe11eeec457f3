"""What regions are read from: one level of an image, or a stack, seen as the same thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from microtome.errors import InvalidInputError, OutOfRangeError
from microtome.image import (
    ArrayStack,
    Channels,
    ImageStack,
    MultiscaleImage,
    PixelArray,
    channel_indices,
)

__all__ = ["Pixels", "Stack", "data_shape_of", "pixels_of", "source_of"]

Stack = MultiscaleImage | ImageStack
"""Whatever regions can be read from."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """The samples of an image's level, or of a stack.

    Parameters
    ----------
    source
        Where they are from.
    shape
        SC(Z)YX.
    dtype
        Type of a pixel.
    axes
        Axes of the array as it is stored, lower case.
    array
        The array; None for a stack that only cuts patches.
    channel_names
        One a channel, or None.
    """

    source: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    axes: str
    array: PixelArray | None
    channel_names: tuple[str, ...] | None

    def picked(self, channels: Channels | None) -> list[int]:
        """Return channels by number."""
        return channel_indices(channels, self.channel_names, self.shape[1])


def pixels_of(image: Stack, level: int = 0) -> Pixels:
    """Look at an image's level, or at a stack.

    Raises
    ------
    OutOfRangeError
        If there is no such level; a stack has one.
    InvalidInputError
        If it is neither, or a stack does not state what it has to.
    """
    if isinstance(image, MultiscaleImage):
        chosen = image.level(level)
        sizes = dict(zip(chosen.axes, chosen.shape, strict=True))
        spatial = tuple(sizes[axis] for axis in "zyx" if axis in sizes)
        return Pixels(
            image.uri,
            (sizes.get("t", 1), sizes.get("c", 1), *spatial),
            chosen.dtype,
            chosen.axes,
            chosen.array,
            image.channel_names,
        )
    if not isinstance(image, ArrayStack) and not hasattr(image, "extract_patch"):
        msg = (
            f"regions are read from images and stacks, got a {type(image).__name__}; open it with "
            "open_image or open_stacks"
        )
        raise InvalidInputError(msg)
    if level not in {0, -1}:
        msg = f"{image.source} is a stack, which has one level, no level {level}"
        raise OutOfRangeError(msg)
    if isinstance(image, ArrayStack):
        return Pixels(
            image.source,
            image.data_shape,
            image.data_dtype,
            image.axes,
            image.array,
            image.channel_names,
        )
    return _stated(image)


def _stated(stack: ImageStack) -> Pixels:
    """Read what a stack of somebody else's says of itself."""
    shape = tuple(int(size) for size in stack.data_shape)
    if len(shape) not in {4, 5} or min(shape) < 1:
        msg = f"{stack.source}: a stack's data_shape is SC(Z)YX, each at least 1, got {shape}"
        raise InvalidInputError(msg)
    names = getattr(stack, "channel_names", None)
    return Pixels(
        str(stack.source),
        shape,
        np.dtype(stack.data_dtype),
        str(stack.original_axes).lower(),
        None,
        None if names is None else tuple(names),
    )


def source_of(image: Stack) -> str:
    """Return where an image or a stack is from."""
    return image.uri if isinstance(image, MultiscaleImage) else str(image.source)


def data_shape_of(
    image: Stack, *, level: int = 0, channels: Channels | None = None
) -> tuple[int, ...]:
    """Return the shape of an image or a stack in SC(Z)YX.

    Parameters
    ----------
    image
        An image, whose time points are its samples, or a stack.
    level
        Index of the level; a stack has one.
    channels
        Channels by number or name, which are then what is counted; None for all.

    Raises
    ------
    OutOfRangeError
        If there is no such level or channel.
    UnknownNameError
        If there is no channel of a name.

    Examples
    --------
    >>> import numpy as np
    >>> from microtome.image import ArrayStack, MemoryArray
    >>> stack = ArrayStack(MemoryArray(np.zeros((2, 64, 48, 3), np.uint8)), "TYXC")
    >>> data_shape_of(stack, channels=[0, 2])
    (2, 2, 64, 48)
    """
    pixels = pixels_of(image, level)
    if channels is None:
        return pixels.shape
    samples, _, *spatial = pixels.shape
    return (samples, len(pixels.picked(channels)), *spatial)
