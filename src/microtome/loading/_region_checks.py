"""What a dataset of patches is not made of, refused when it is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from microtome.augmentation import Augmentation, Draws
from microtome.errors import InvalidInputError
from microtome.image import Channels, MultiscaleImage
from microtome.normalization import Normalization
from microtome.patching import Patching
from microtome.regions import Stack, Windows, data_shape_of, valid_windows

__all__ = ["verified_normalization", "verified_patching", "verify_named_alike", "verify_patches"]


def verify_patches(
    images: Sequence[Stack],
    patching: Patching,
    augmentations: Sequence[Augmentation],
    *,
    level: int,
    seed: int,
    channels: int,
) -> None:
    """Refuse what no patch could be read with, and patches of other images.

    Parameters
    ----------
    images, patching, augmentations, level, seed
        As of `RegionDataset`.
    channels
        Number of channels that are read.

    Raises
    ------
    InvalidInputError
        If there is no patch, or patches do not fit the images, their level or the augmentations.
    OutOfRangeError
        If there is no such level, or the patching speaks of images that are not there.
    """
    count = patching.n_patches
    if not count:
        msg = "the patching has no patches"
        raise InvalidInputError(msg)
    ends = np.unique([0, count - 1])
    found = patching.windows(ends)
    if found.level not in {0, level}:
        msg = f"patches lie on level {found.level}, and level {level} is read; give level={found.level}"
        raise InvalidInputError(msg)
    valid_windows(images, Windows(found.image, found.start, found.size, level, found.sample))
    patching.verify_shapes([data_shape_of(image, level=level) for image in images])
    for number, augmentation in enumerate(augmentations):
        augmentation.draw(ends, Draws(seed, 0, number), (channels, *patching.patch_size))


def verify_named_alike(images: Sequence[Stack], channels: Channels | None) -> None:
    """Refuse images whose channels have other names, or another order, where nobody chose among them.

    Parameters
    ----------
    images, channels
        As of `RegionDataset`. Images that name no channels are taken at their word.

    Raises
    ------
    InvalidInputError
        If two differ.
    """
    if channels is not None:
        return
    first: tuple[str, tuple[str, ...]] | None = None
    for image in images:
        names: tuple[str, ...] | None = getattr(image, "channel_names", None)
        if names is None or all(name in (str(i), f"channel {i}") for i, name in enumerate(names)):
            continue  # numbers, which is how channels without a name are written
        where = image.uri if isinstance(image, MultiscaleImage) else str(image.source)
        named = where, tuple(names)
        first = first or named
        if named[1] != first[1]:
            msg = (
                f"images of one dataset have the same channels: those of {first[0]} are "
                f"{_shown(first[1])}, those of {named[0]} {_shown(named[1])}; choose by name those that "
                "all have, or by number what is the same under other names, with channels= "
                "(target_channels= of targets)"
            )
            raise InvalidInputError(msg)


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f", ... {len(names)} in all" if names[8:] else "")


def verified_patching(patching: Any) -> Patching:
    """Return a patching.

    Raises
    ------
    InvalidInputError
        If it is none.
    """
    if not isinstance(patching, Patching):
        msg = (
            "patching is a Patching, for example RandomPatching([data_shape_of(image) for image in "
            f"images], (64, 64)); got {patching!r}"
        )
        raise InvalidInputError(msg)
    return patching


def verified_normalization(normalization: Any, name: str = "normalization") -> Normalization | None:
    """Return a normalization, or None.

    Parameters
    ----------
    normalization
        What was given.
    name
        As what it was given.

    Raises
    ------
    InvalidInputError
        If it is neither.
    """
    # By what is called: one of a user's own need have no more.
    one = not isinstance(normalization, type) and hasattr(normalization, "normalize")
    if normalization is None or one:
        return cast("Normalization | None", normalization)
    msg = (
        f"{name} is a Normalization, which fit_normalization(kind, images) makes, or None; got "
        f"{normalization!r}"
    )
    raise InvalidInputError(msg)
