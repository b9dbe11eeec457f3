"""A validation set out of the images that are trained on, where there are no others."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index

import numpy as np

from microtome.errors import InvalidInputError
from microtome.regions import Windows
from microtome.sampling import KEYS, permute

from ._random import FixedPatching, checked_seed
from ._samples import Samples, read_patch_size
from ._stratified import StratifiedPatching

__all__ = ["validation_split"]


def validation_split(
    data_shapes: Sequence[Sequence[int]],
    patch_size: Sequence[int],
    n_val_patches: int,
    *,
    seed: int = 0,
) -> tuple[StratifiedPatching, FixedPatching]:
    """Set patches aside for validation, which no patch of the training touches.

    Parameters
    ----------
    data_shapes
        Shape of each image in SC(Z)YX.
    patch_size
        (height, width) or (depth, height, width), in pixels.
    n_val_patches
        How many; spread over the samples in proportion to the patches that fit side by side.
    seed
        Chooses them, and what is drawn in training.

    Returns
    -------
    The training's patches, and those of the validation.

    Raises
    ------
    InvalidInputError
        If there are not so many patches, or none is left to train on.
    """
    size = read_patch_size(patch_size)
    samples = Samples.of(data_shapes, len(size))
    samples.verify_hold(size)
    grids = samples.size // size
    counts = np.prod(grids, axis=1)
    total, wanted = int(counts.sum()), index(n_val_patches)
    if not 1 <= wanted <= total:
        msg = f"n_val_patches must be from 1 to {total}, as many as fit, got {n_val_patches}"
        raise InvalidInputError(msg)
    # Evenly spread numbers fall to each sample in proportion to what it has.
    spread = (np.arange(wanted) * total + total // 2) // wanted
    owner = np.searchsorted(np.cumsum(counts), spread, side="right")
    first = np.searchsorted(owner, owner)
    keys = np.random.SeedSequence(checked_seed(seed), spawn_key=(0, 2))
    cell = permute(
        (np.arange(wanted) - first).astype(np.uint64),
        counts[owner].astype(np.uint64),
        keys.generate_state(KEYS, np.uint64).astype(np.uint64, copy=False),
        owner.astype(np.uint64),
    ).astype(np.int64)
    start = np.empty((wanted, len(size)), np.int64)
    for axis in reversed(range(len(size))):
        cell, start[:, axis] = np.divmod(cell, grids[owner, axis])
    aside = Windows(samples.image[owner], start * size, size, sample=samples.sample[owner])
    training = StratifiedPatching(data_shapes, size, seed=seed, exclude=aside)
    return training, FixedPatching(aside, data_shapes=data_shapes)
