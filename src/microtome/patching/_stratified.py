"""Patches spread evenly: one from each cell of the places where a patch may lie."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.errors import InvalidInputError
from microtome.regions import Windows

from ._cells import Cells, left_of
from ._patching import Patching, uniform
from ._random import checked_seed
from ._samples import Samples, checked_rows, read_patch_size, read_shapes

__all__ = ["PatchCells", "StratifiedPatching"]

# Weights add up in floating point: a sum that is a whole number up to this is one.
_ROUNDING = 1e-9
# Numbers that one byte tells apart.
_FEW = 256


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
        self._shapes = read_shapes(data_shapes)
        self._size = read_patch_size(patch_size)
        self._samples = Samples.of(self._shapes, len(self._size))
        if not pad:
            self._samples.verify_hold(self._size)
        self._pad = pad
        self._seed = checked_seed(seed)
        self._exclude = exclude
        self._cells = Cells.of(self._samples, self._size)
        self._probabilities = _read_probabilities(probabilities, len(self._cells))
        strata = left_of(self._cells, self._size, exclude)
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
        self._strata = strata.take(some)
        self._owner = self._cells.boxes(self._strata.cell)[0]
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
        owner, low, high = self._cells.boxes(np.arange(len(self._cells)))
        return PatchCells(
            self._samples.image[owner],
            self._samples.sample[owner],
            low,
            high - 1 + self._size,
            tuple(tuple(grid) for grid in self._cells.count.tolist()),
        )

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Probability of each cell, (cells,)."""
        return self._probabilities.copy()

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

    def __getstate__(self) -> dict[str, Any]:
        # What it was made of: boxes of a million cells are computed faster than they travel to a
        # worker. Probabilities are few numbers as a rule, 1 and that of background.
        values, codes = np.unique(self._probabilities, return_inverse=True)
        plain = bool((values == 1).all())
        few = len(values) <= _FEW and not plain
        return {
            "data_shapes": self._shapes,
            "patch_size": self._size,
            "seed": self._seed,
            "pad": self._pad,
            "exclude": self._exclude,
            "values": None if plain else values if few else self._probabilities,
            "codes": codes.astype(np.uint8) if few else None,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        made = dict(state)
        values, codes = made.pop("values"), made.pop("codes")
        self.__init__(**made, probabilities=values if codes is None else values[codes])

    def windows(self, rows: ArrayLike, *, epoch: int = 0) -> Windows:
        """Return where patches lie; see `Patching.windows`."""
        chosen = checked_rows(rows, self._count)
        number = checked_seed(epoch, "epoch")
        at = self._stratum(chosen, number)
        owner = self._owner[at]
        start = uniform(
            chosen, self._strata.low[at], self._strata.high[at], seed=self._seed, epoch=number
        )
        return Windows(
            self._samples.image[owner], start, self._size, sample=self._samples.sample[owner]
        )

    def verify_shapes(self, data_shapes: Sequence[Sequence[int]], *, touching: bool = True) -> None:
        """Refuse images of other shapes; see `Patching.verify_shapes`."""
        del touching
        self._samples.verify_same(data_shapes)

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
        bounds = [
            int(np.searchsorted(self._owner, sample)) for sample in self._samples.span(data_idx)
        ]

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
