"""What a dataset of patches is not made of, refused when it is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from microtome.augmentation import Augmentation, Draws
from microtome.errors import InvalidInputError
from microtome.normalization import Normalization
from microtome.patching import Patching
from microtome.regions import Stack, Windows, data_shape_of, valid_windows

__all__ = ["verified_normalization", "verified_patching", "verify_patches"]


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
