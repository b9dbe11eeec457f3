"""Patches spread evenly: one from each cell of the places where a patch may lie."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.errors import InvalidInputError
from microtome.regions import Windows

from ._patching import Patching, uniform
from ._random import checked_seed
from ._samples import Samples, checked_rows, read_patch_size

__all__ = ["PatchCells", "StratifiedPatching"]

# Weights add up in floating point: a sum that is a whole number up to this is one.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class PatchCells:
    """The cells of a stratified patching, sample by sample, row by row; (n,) or (n, d) each."""

    image: NDArray[np.int64]
    """Number of each cell's image."""
    sample: NDArray[np.int64]
    """Number of its sample."""
    start: NDArray[np.int64]
    """First pixel that a patch of the cell can hold."""
    stop: NDArray[np.int64]
    """One past the last pixel that a patch of the cell can hold."""
    grid: tuple[tuple[int, ...], ...]
    """Number of cells along each axis of each sample."""

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True, slots=True, eq=False)
class _Strata:
    """Boxes of first pixels from which patches are drawn; several where a cell is cut up."""

    cell: NDArray[np.int64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    share: NDArray[np.float64]
    """What is left of the cell in each box."""


class StratifiedPatching(Patching):
    """One patch from each cell of a grid, anywhere in the cell, elsewhere each epoch.

    The places where a patch can begin are cut into cells of about a patch; so every place is
    possible, patches of neighbouring cells may overlap, and no part of an image is left out by
    chance. A cell of probability `p` is drawn from in a share `p` of the epochs, times what the sum of
    all is rounded up by: an epoch has a whole number of patches. Patches are numbered by place, so
    training shuffles them.

    Parameters
    ----------
    data_shapes
        Shape of each image in SC(Z)YX.
    patch_size
        (height, width) or (depth, height, width), in pixels.
    seed
        Chooses the draw, at least 0.
    pad
        Whether an image may be smaller than a patch, which then hangs over.
    exclude
        Windows that no patch may touch, of any one size: those of a validation set.
    probabilities
        Of each cell, (cells,), from 0 to 1, in the order of `cells`; 1 by default.

    Raises
    ------
    InvalidInputError
        If an image has other axes than the patch, or is smaller and `pad` is False; if
        probabilities are out of range or not one a cell; or if nothing is left to draw from.
    """

    def __init__(
        self,
        data_shapes: Sequence[Sequence[int]],
        patch_size: Sequence[int],
        *,
        seed: int = 0,
        pad: bool = False,
        exclude: Windows | None = None,
        probabilities: ArrayLike | None = None,
    ) -> None:
        self._shapes = [tuple(shape) for shape in data_shapes]
        self._size = read_patch_size(patch_size)
        self._samples = Samples.of(self._shapes, len(self._size))
        if not pad:
            self._samples.verify_hold(self._size)
        self._pad = pad
        self._seed = checked_seed(seed)
        self._exclude = exclude
        cut = _cut(self._samples, self._size)
        self._owner, self._grids = cut.owner, cut.grids
        self._low, self._high = cut.low, cut.high
        self._probabilities = _read_probabilities(probabilities, len(self._owner))
        strata = self._left(exclude)
        weight = strata.share * self._probabilities[strata.cell]
        some = weight > 0
        if not some.any():
            why = (
                "every cell has probability 0"
                if not self._probabilities.any()
                else (
                    f"{0 if exclude is None else len(exclude)} excluded windows touch every patch"
                )
            )
            msg = f"no patch of {self._size} is left to draw from: {why}"
            raise InvalidInputError(msg)
        self._strata = _Strata(
            strata.cell[some], strata.low[some], strata.high[some], strata.share[some]
        )
        self._sums = np.cumsum(weight[some])
        self._count = max(ceil(float(self._sums[-1]) - _ROUNDING), 1)

    @property
    def patch_size(self) -> tuple[int, ...]:
        """Size of a patch along (Z)YX, in pixels."""
        return self._size

    @property
    def n_patches(self) -> int:
        """Number of patches of an epoch: the sum of what the cells are drawn from, rounded up."""
        return self._count

    @property
    def cells(self) -> PatchCells:
        """The cells, whatever their probability."""
        return PatchCells(
            self._samples.image[self._owner],
            self._samples.sample[self._owner],
            self._low.copy(),
            self._high - 1 + self._size,
            self._grids,
        )

    def with_probabilities(self, probabilities: ArrayLike) -> StratifiedPatching:
        """Return the same with other probabilities of the cells, (cells,).

        Raises
        ------
        InvalidInputError
            As when it is made.
        """
        return StratifiedPatching(
            self._shapes,
            self._size,
            seed=self._seed,
            pad=self._pad,
            exclude=self._exclude,
            probabilities=probabilities,
        )

    def windows(self, rows: ArrayLike, *, epoch: int = 0) -> Windows:
        """Return where patches lie; see `Patching.windows`."""
        chosen = checked_rows(rows, self._count)
        number = checked_seed(epoch, "epoch")
        at = self._stratum(chosen, number)
        owner = self._owner[self._strata.cell[at]]
        start = uniform(
            chosen, self._strata.low[at], self._strata.high[at], seed=self._seed, epoch=number
        )
        return Windows(
            self._samples.image[owner], start, self._size, sample=self._samples.sample[owner]
        )

    def get_patch_indices(self, data_idx: int, *, epoch: int = 0) -> range:
        """Return the numbers of the patches that come from an image in an epoch.

        Where probabilities are not 0 or 1, a patch at the border between two images may come from
        either, by turns.

        Raises
        ------
        OutOfRangeError
            If there is no such image.
        """
        number = checked_seed(epoch, "epoch")
        owners = self._owner[self._strata.cell]
        bounds = [int(np.searchsorted(owners, sample)) for sample in self._samples.span(data_idx)]

        def stratum(row: int) -> int:
            return int(self._stratum(np.asarray([row]), number)[0])

        first, last = (bisect_left(range(self._count), bound, key=stratum) for bound in bounds)
        return range(first, last)

    def _stratum(self, rows: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
        """Say which box each patch is drawn from.

        Systematic sampling (Madow, 1949): evenly spaced steps along the summed weights, begun
        anywhere; a box of weight 1 is met once where all weights are 0 or 1.
        """
        key = np.random.SeedSequence(self._seed, spawn_key=(epoch, 1)).generate_state(1, np.uint64)
        begin = float(key[0] >> np.uint64(11)) * 2.0**-53
        along = (rows + begin) * (float(self._sums[-1]) / self._count)
        return np.minimum(np.searchsorted(self._sums, along, side="right"), len(self._sums) - 1)

    def _left(self, exclude: Windows | None) -> _Strata:
        """Return what is left of the cells when no patch may touch the excluded windows."""
        cells = np.arange(len(self._owner))
        if exclude is None or not len(exclude):
            return _Strata(cells, self._low, self._high, np.ones(len(cells)))
        self._verify_excluded(exclude)
        sample = np.zeros_like(exclude.image) if exclude.sample is None else exclude.sample
        first = np.searchsorted(self._samples.image, exclude.image)
        # A patch that begins in this box touches the window.
        bottom = exclude.start - self._size + 1
        top = exclude.start + exclude.size
        cut: dict[int, list[_Box]] = {}
        for owner, low, high in zip((first + sample).tolist(), bottom, top, strict=True):
            begin, end = np.searchsorted(self._owner, [owner, owner + 1])
            met = (self._low[begin:end] < high).all(1) & (self._high[begin:end] > low).all(1)
            for cell in (np.flatnonzero(met) + begin).tolist():
                boxes = cut.setdefault(
                    cell, [(tuple(self._low[cell].tolist()), tuple(self._high[cell].tolist()))]
                )
                hole = tuple(low.tolist()), tuple(high.tolist())
                cut[cell] = [part for box in boxes for part in _without(box, hole)]
        kept = np.ones(len(cells), np.bool_)
        kept[list(cut)] = False
        pieces = [(cell, *box) for cell in sorted(cut) for box in cut[cell]]
        rank = len(self._size)
        cell = np.concatenate([cells[kept], np.asarray([p[0] for p in pieces], np.int64)])
        low = np.concatenate([self._low[kept], _rows([p[1] for p in pieces], rank)])
        high = np.concatenate([self._high[kept], _rows([p[2] for p in pieces], rank)])
        order = np.argsort(cell, kind="stable")
        cell, low, high = cell[order], low[order], high[order]
        whole = np.prod(self._high[cell] - self._low[cell], axis=1, dtype=np.float64)
        return _Strata(cell, low, high, np.prod(high - low, axis=1, dtype=np.float64) / whole)

    def _verify_excluded(self, exclude: Windows) -> None:
        if len(exclude.size) != len(self._size):
            msg = f"excluded windows have {len(exclude.size)} axes, the patch {len(self._size)}"
            raise InvalidInputError(msg)
        images = int(self._samples.image[-1]) + 1
        samples = np.bincount(self._samples.image, minlength=images)
        number = np.zeros_like(exclude.image) if exclude.sample is None else exclude.sample
        wrong = (exclude.image < 0) | (exclude.image >= images)
        wrong[~wrong] = (number[~wrong] < 0) | (number[~wrong] >= samples[exclude.image[~wrong]])
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            msg = (
                f"excluded window {row} lies in sample {number[row]} of image {exclude.image[row]}, "
                f"which is not one of the {images} images"
            )
            raise InvalidInputError(msg)


_Box = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class _Cut:
    owner: NDArray[np.int64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    grids: tuple[tuple[int, ...], ...]


def _cut(samples: Samples, patch: tuple[int, ...]) -> _Cut:
    """Cut the places where a patch can begin into cells of about a patch, each in one cell."""
    grids: list[tuple[int, ...]] = [()] * len(samples)
    boxes: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
    for size, rows in samples.by_size():
        lows: list[NDArray[np.int64]] = []
        highs: list[NDArray[np.int64]] = []
        for length, step in zip(size, patch, strict=True):
            room = length - step
            first, places = min(room, 0), abs(room) + 1
            count = -(-places // step)
            edges = first + np.arange(count + 1) * places // count
            lows.append(edges[:-1])
            highs.append(edges[1:])
        grid = tuple(len(axis) for axis in lows)
        low = np.stack(np.meshgrid(*lows, indexing="ij"), axis=-1).reshape(-1, len(patch))
        high = np.stack(np.meshgrid(*highs, indexing="ij"), axis=-1).reshape(-1, len(patch))
        for row in rows.tolist():
            grids[row], boxes[row] = grid, (low, high)
    counts = [len(boxes[row][0]) for row in range(len(samples))]
    return _Cut(
        np.repeat(np.arange(len(samples)), counts),
        np.concatenate([boxes[row][0] for row in range(len(samples))]),
        np.concatenate([boxes[row][1] for row in range(len(samples))]),
        tuple(grids),
    )


def _without(box: _Box, hole: _Box) -> list[_Box]:
    """Return boxes that together are a box less a hole."""
    (low, high), (bottom, top) = box, hole
    inner = tuple(map(max, low, bottom)), tuple(map(min, high, top))
    if any(a >= b for a, b in zip(*inner, strict=True)):
        return [box]
    parts: list[_Box] = []
    first, last = list(low), list(high)
    for axis in range(len(low)):
        edges = first[axis], inner[0][axis], inner[1][axis], last[axis]
        for place, (a, b) in enumerate(pairwise(edges)):
            if place != 1 and a < b:
                parts.append(
                    (
                        (*first[:axis], a, *first[axis + 1 :]),
                        (*last[:axis], b, *last[axis + 1 :]),
                    )
                )
        first[axis], last[axis] = inner[0][axis], inner[1][axis]
    return parts


def _rows(values: list[tuple[int, ...]], rank: int) -> NDArray[np.int64]:
    return np.asarray(values, np.int64).reshape(-1, rank)


def _read_probabilities(given: ArrayLike | None, count: int) -> NDArray[np.float64]:
    if given is None:
        return np.ones(count)
    values = np.asarray(given, np.float64)
    if values.shape != (count,):
        msg = f"there are {count} cells, one probability each, got shape {values.shape}"
        raise InvalidInputError(msg)
    wrong = np.flatnonzero(~((values >= 0) & (values <= 1)))
    if wrong.size:
        msg = f"probabilities are from 0 to 1, cell {wrong[0]} has {values[wrong[0]]}"
        raise InvalidInputError(msg)
    return values
