"""`filter_map`: what a filter says of every place that patches are drawn from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError, UnknownNameError
from microtome.jobs import run_each
from microtome.regions import Stack, data_shape_of

from ._filter_cache import KeptStatistics
from ._filters import PatchFilter
from ._measuring import (
    Block,
    Measurement,
    Places,
    blocks_of,
    coarse_level,
    factor_between,
    measured,
)
from ._patching import Patching
from ._random import RandomPatching
from ._regular import SequentialPatching
from ._selected import SelectedPatching
from ._stratified import StratifiedPatching

__all__ = ["FilterMap", "filter_map"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class FilterMap:
    """What a filter says of each cell of a stratified patching, or of each patch of another one.

    Parameters
    ----------
    patching
        Whose cells or patches they are.
    patch_filter
        The filter.
    image, sample
        Where each lies, (n,).
    start, stop
        First pixel and one past the last along (Z)YX, (n, d), on the level that patches are counted
        in.
    values
        Statistics, (n, statistics), in the order of `names`; NaN outside of the image.
    kept
        Which are not background, (n,).
    levels
        For each image that has some, the level that was looked at.
    grids
        Number of cells or patches along each axis of each sample, for `grid`; None where they lie in
        no grid.
    """

    patching: Patching
    patch_filter: PatchFilter
    image: NDArray[np.int64]
    sample: NDArray[np.int64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    values: NDArray[np.float64]
    kept: NDArray[np.bool_]
    levels: dict[int, int]
    grids: tuple[tuple[int, ...], ...] | None

    def __len__(self) -> int:
        return len(self.image)

    def __repr__(self) -> str:
        kept = np.count_nonzero(self.kept)
        return f"FilterMap({type(self.patch_filter).__name__} keeps {kept} of {len(self)} places)"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the statistics."""
        return self.patch_filter.names

    def statistic(self, name: str | None = None) -> NDArray[np.float64]:
        """Return one statistic, (n,); the first by default.

        Raises
        ------
        UnknownNameError
            If there is none of that name.
        """
        if name is not None and name not in self.names:
            msg = f"there is no statistic {name!r}, only {list(self.names)}"
            raise UnknownNameError(msg)
        return self.values[:, 0 if name is None else self.names.index(name)]

    def grid(
        self, image: int = 0, sample: int = 0, *, statistic: str | None = None
    ) -> NDArray[np.float64]:
        """Return a statistic of a sample as a picture of its grid, a value a cell: ((Z), Y, X).

        Raises
        ------
        InvalidInputError
            If the patches lie in no grid, or there is no such sample.
        UnknownNameError
            If there is no such statistic.
        """
        if self.grids is None:
            msg = f"patches of {type(self.patching).__name__} lie in no grid; take statistic()"
            raise InvalidInputError(msg)
        rows = np.flatnonzero((self.image == image) & (self.sample == sample))
        if not rows.size:
            msg = f"no sample {sample} of image {image} has patches"
            raise InvalidInputError(msg)
        # Samples of images in order, as cells are.
        pairs = np.unique(np.stack([self.image, self.sample], axis=1), axis=0)
        at = int(np.flatnonzero((pairs == (image, sample)).all(axis=1))[0])
        return self.statistic(statistic)[rows].reshape(self.grids[at])

    def weighted(self, filtered_patch_prob: float = 0.1) -> StratifiedPatching:
        """Return the stratified patching with background drawn more rarely.

        Parameters
        ----------
        filtered_patch_prob
            By what the probability of a cell that is not kept is multiplied, from 0 (never drawn)
            to 1.

        Raises
        ------
        InvalidInputError
            If the patching is not stratified, the share is none, or nothing is left.
        """
        if not isinstance(self.patching, StratifiedPatching):
            msg = (
                f"{type(self.patching).__name__} has no probabilities to change; selected() leaves "
                "background out of it"
            )
            raise InvalidInputError(msg)
        if not 0 <= filtered_patch_prob <= 1:
            msg = f"filtered_patch_prob is from 0 to 1, got {filtered_patch_prob}"
            raise InvalidInputError(msg)
        share = np.where(self.kept, 1.0, filtered_patch_prob)
        return self.patching.with_probabilities(self.patching.probabilities * share)

    def selected(self) -> Patching:
        """Return the patching without background.

        Raises
        ------
        InvalidInputError
            If nothing is left.
        """
        if isinstance(self.patching, StratifiedPatching):
            return self.weighted(0)
        if not self.kept.any():
            msg = f"{self.patch_filter!r} keeps none of {len(self)} patches"
            raise InvalidInputError(msg)
        return SelectedPatching(self.patching, np.flatnonzero(self.kept))


def filter_map(
    images: Stack | Sequence[Stack],
    patching: Patching,
    patch_filter: PatchFilter,
    *,
    level: int | None = None,
    mpp: float | None = None,
    executor: Executor | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> FilterMap:
    """Measure every place that patches are drawn from, and say which are background.

    Cells of a stratified patching are measured, in which a patch may lie anywhere, and patches of
    any other that has the same ones each epoch. Pixels are those of a coarse level, whose values
    thresholds are about; they are read block by block.

    Parameters
    ----------
    images
        The images or stacks of the patching; a single one need not be a list.
    patching
        What is measured.
    patch_filter
        What is asked: `MaskFilter`, `MaxFilter`, `MeanStdFilter`, `ShannonFilter`, `TissueFilter`,
        or a `PatchFilter` of your own.
    level
        Index of the level that is looked at (of a mask, its own levels). By default the coarsest on
        which a patch is at least 16 pixels high and wide; a stack has one.
    mpp
        Instead of `level`: the coarsest whose pixels are not larger, in micrometres.
    executor
        Where blocks of all images are measured; here by default. One of processes needs images that travel:
        OME-Zarr and arrays do, files of other formats are for threads.
    cache
        Folder in which statistics are kept, made if need be. They are found again for the same
        pixels, places, level and filter, whatever its thresholds that decide only at the end.

    Returns
    -------
    The statistics, and what they say.

    Raises
    ------
    InvalidInputError
        If the patching draws others each epoch or is of other images, there is not a mask for each,
        or one does not cover its image.
    OutOfRangeError
        If there is no such level.
    NoResolutionError
        If `mpp` is given and an image states none.
    """
    many = images if isinstance(images, list | tuple) else [images]
    given = cast("list[Stack]", list(many))
    image, sample, start, stop, of = _boxes(patching)
    patching.verify_shapes([data_shape_of(stack, level=of) for stack in given], touching=False)
    masks = _masks(patch_filter, len(given))
    values = np.full((len(image), len(patch_filter.names)), np.nan)
    levels: dict[int, int] = {}
    parts: list[_Part] = []
    for number, rows in _by_image(image):
        places = Places(sample[rows], start[rows], stop[rows])
        stack = given[number] if masks is None else masks[number]
        # A flat mask of a volume is that of every plane.
        rank = min(start.shape[1], len(data_shape_of(stack)) - 2)
        first = of if masks is None else 0
        factor = factor_between(given[number], of, stack, first, rank)
        patch = np.asarray(patching.patch_size[-rank:]) / factor
        levels[number] = coarse_level(stack, patch, first, level, mpp)
        factor = factor_between(given[number], of, stack, levels[number], rank)
        about = Measurement(stack, levels[number], factor, patch_filter)
        kept = KeptStatistics(cache, places, about)
        if kept.values is None:
            parts.append(_Part(rows, kept, list(blocks_of(places, about))))
        else:
            values[rows] = kept.values
    _measure(parts, values, executor)
    keeps = patch_filter.keeps(values, start.shape[1])
    return FilterMap(
        patching, patch_filter, image, sample, start, stop, values, keeps, levels, _grids(patching)
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """What is to be measured of an image: which places, and block by block which of these."""

    rows: NDArray[np.int64]
    kept: KeptStatistics
    blocks: list[tuple[NDArray[np.int64], Block]]


def _measure(
    parts: Sequence[_Part], values: NDArray[np.float64], executor: Executor | None
) -> None:
    """Measure the blocks of all images as one job, and keep each image when it is done."""
    blocks = [block for part in parts for _, block in part.blocks]
    with closing(run_each(measured, blocks, executor)) as answers:
        for part in parts:
            for rows, _ in part.blocks:
                values[part.rows[rows]] = next(answers)
            part.kept.keep(values[part.rows])


def _by_image(image: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield each image and its places, in their order."""
    order = np.argsort(image, kind="stable")
    numbers, first = np.unique(image[order], return_index=True)
    yield from zip(numbers.tolist(), np.split(order, first[1:]), strict=True)


def _boxes(patching: Patching) -> tuple[*tuple[NDArray[np.int64], ...], int]:
    """Return image, sample, start and stop of everything that is measured, and its level."""
    if isinstance(patching, StratifiedPatching):
        cells = patching.cells
        return cells.image, cells.sample, cells.start, cells.stop, 0
    if isinstance(patching, RandomPatching):
        msg = (
            "patches of RandomPatching are others each epoch; filter StratifiedPatching, whose "
            "cells stay"
        )
        raise InvalidInputError(msg)
    windows = patching.windows(np.arange(len(patching)))
    sample = np.zeros_like(windows.image) if windows.sample is None else windows.sample
    return windows.image, sample, windows.start, windows.start + windows.size, windows.level


def _grids(patching: Patching) -> tuple[tuple[int, ...], ...] | None:
    if isinstance(patching, StratifiedPatching):
        return patching.cells.grid
    return patching.grid if isinstance(patching, SequentialPatching) else None


def _masks(patch_filter: PatchFilter, count: int) -> Sequence[Stack] | None:
    masks = patch_filter.masks
    if masks is not None and len(masks) != count:
        msg = f"{count} images have a mask each, got {len(masks)}"
        raise InvalidInputError(msg)
    return masks
