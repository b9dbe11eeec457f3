"""Cells: where a patch can begin, cut into parts of about a patch; and what is left of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError
from microtome.regions import Windows

from ._samples import Samples, counted

__all__ = ["Cells", "Strata", "left_of"]

_Box = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class Strata:
    """Boxes of first pixels from which patches are drawn; several where a cell is cut up."""

    cell: NDArray[np.int64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    share: NDArray[np.float64]
    """What is left of the cell in each box."""

    def take(self, rows: NDArray[np.bool_]) -> Strata:
        """Return some of them."""
        return Strata(self.cell[rows], self.low[rows], self.high[rows], self.share[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """The places where a patch can begin, in cells of about a patch; each place in one cell.

    Cell `i` of an axis begins at ``first + i * places // count``, so that which one holds a place
    is a division and nothing is searched.

    Parameters
    ----------
    samples
        What patches are cut from.
    first, places, count
        First place along each axis of each sample, number of places, number of cells, (m, d).
    ends
        One past the last cell of each sample, (m,).
    """

    samples: Samples
    first: NDArray[np.int64]
    places: NDArray[np.int64]
    count: NDArray[np.int64]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, samples: Samples, patch: tuple[int, ...]) -> Cells:
        """Cut the samples; one that is smaller than a patch has the places that hold all of it."""
        room = samples.size - patch
        places = np.abs(room) + 1
        count = -(-places // np.asarray(patch))
        return cls(samples, np.minimum(room, 0), places, count, np.cumsum(count.prod(axis=1)))

    def __len__(self) -> int:
        return int(self.ends[-1])

    def boxes(self, cells: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
        """Return the sample of each cell, (n,), and its first place and one past its last, (n, d)."""
        owner, rest = counted(cells, self.ends)
        place = np.empty((len(cells), self.count.shape[1]), np.int64)
        for axis in reversed(range(place.shape[1])):
            rest, place[:, axis] = np.divmod(rest, self.count[owner, axis])
        first, places, count = self.first[owner], self.places[owner], self.count[owner]
        return owner, first + place * places // count, first + (place + 1) * places // count

    def met(
        self, owner: NDArray[np.int64], low: NDArray[np.int64], high: NDArray[np.int64]
    ) -> Iterator[tuple[int, int]]:
        """Yield (number of a box, number of a cell) for the cells that boxes of places reach into.

        Parameters
        ----------
        owner
            Sample of each box, (n,).
        low, high
            First place and one past the last, (n, d).
        """
        first, places, count = self.first[owner], self.places[owner], self.count[owner]
        begin, end = np.maximum(low - first, 0), np.minimum(high - first, places)
        some = (begin < end).all(axis=1)
        lowest, highest = (((at + 1) * count - 1) // places for at in (begin, end - 1))
        for row in np.flatnonzero(some).tolist():
            sample = int(owner[row])
            grid = self.count[sample].tolist()
            base = int(self.ends[sample - 1]) if sample else 0
            spans = zip(lowest[row].tolist(), highest[row].tolist(), strict=True)
            for place in product(*(range(a, b + 1) for a, b in spans)):
                number = 0
                for at, length in zip(place, grid, strict=True):
                    number = number * length + at
                yield row, base + number


def left_of(cells: Cells, patch: tuple[int, ...], exclude: Windows | None) -> Strata:
    """Return what is left of the cells when no patch may touch the excluded windows.

    Raises
    ------
    InvalidInputError
        If a window lies in no sample, or has other axes than the patch.
    """
    every = np.arange(len(cells))
    _, low, high = cells.boxes(every)
    if exclude is None or not len(exclude):
        return Strata(every, low, high, np.ones(len(every)))
    owner = _owners(cells.samples, exclude, patch)
    # A patch that begins in this box touches the window.
    bottom = exclude.start - patch + 1
    top = exclude.start + exclude.size
    holes = [(tuple(a), tuple(b)) for a, b in zip(bottom.tolist(), top.tolist(), strict=True)]
    cut: dict[int, list[_Box]] = {}
    for row, cell in cells.met(owner, bottom, top):
        whole_cell = tuple(low[cell].tolist()), tuple(high[cell].tolist())
        boxes = cut.setdefault(cell, [whole_cell])
        cut[cell] = [part for box in boxes for part in _without(box, holes[row])]
    kept = np.ones(len(every), np.bool_)
    kept[list(cut)] = False
    pieces = [(cell, *box) for cell in sorted(cut) for box in cut[cell]]
    rank = len(patch)
    cell = np.concatenate([every[kept], np.asarray([p[0] for p in pieces], np.int64)])
    bottom = np.concatenate([low[kept], _rows([p[1] for p in pieces], rank)])
    top = np.concatenate([high[kept], _rows([p[2] for p in pieces], rank)])
    order = np.argsort(cell, kind="stable")
    cell, bottom, top = cell[order], bottom[order], top[order]
    whole = np.prod(high[cell] - low[cell], axis=1, dtype=np.float64)
    return Strata(cell, bottom, top, np.prod(top - bottom, axis=1, dtype=np.float64) / whole)


def _owners(samples: Samples, exclude: Windows, patch: tuple[int, ...]) -> NDArray[np.int64]:
    """Return which of the samples each window lies in, (n,)."""
    if len(exclude.size) != len(patch):
        msg = f"excluded windows have {len(exclude.size)} axes, the patch {len(patch)}"
        raise InvalidInputError(msg)
    return samples.places(exclude)


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
