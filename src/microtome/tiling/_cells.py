"""The mask reduced to the cells that tile edges cut it into: exact for any tile size and stride.

Every candidate tile is a union of whole cells, so how much tissue it has, and how much of that is
new, depends on the mask only through the tissue count of each cell. With a stride that divides the
tile the cells are stride x stride; a 20,000-pixel mask at stride 112 becomes a 180 x 180 table.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.errors import InvalidInputError

__all__ = ["Axis", "CellGrid", "read_mask", "reduce_mask"]


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """Where candidate tiles start along one axis, in pixels and in cells."""

    starts: NDArray[np.int64]
    """(n,) first pixel of each candidate, ascending."""
    size: int
    """Length of a tile in pixels."""
    edges: NDArray[np.int64]
    """Pixels where cells begin, ascending; the last one is where the last cell ends."""
    first: NDArray[np.int64]
    """(n,) first cell of each candidate."""
    last: NDArray[np.int64]
    """(n,) one past its last cell."""

    @classmethod
    def from_starts(cls, starts: NDArray[np.int64], size: int) -> Axis:
        """Cut the axis at both ends of every candidate."""
        edges = np.union1d(starts, starts + size)
        return cls(
            starts,
            size,
            edges,
            np.searchsorted(edges, starts),
            np.searchsorted(edges, starts + size),
        )

    def overlapping(self, index: int) -> slice:
        """Candidates that share at least one pixel with a candidate, itself included."""
        start = self.starts[index]
        return slice(
            int(np.searchsorted(self.starts, start - self.size, side="right")),
            int(np.searchsorted(self.starts, start + self.size, side="left")),
        )


@dataclass(frozen=True, slots=True, eq=False)
class CellGrid:
    """Tissue pixels in every cell, and the candidates along both axes."""

    counts: NDArray[np.int64]
    """(cells down, cells across)."""
    rows: Axis
    cols: Axis

    def candidate_counts(self) -> NDArray[np.int64]:
        """(candidates down, candidates across) tissue pixels in every candidate tile."""
        table = summed_area(self.counts)
        top, bottom = self.rows.first[:, None], self.rows.last[:, None]
        left, right = self.cols.first, self.cols.last
        return table[bottom, right] - table[top, right] - table[bottom, left] + table[top, left]


def summed_area(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sums of everything above and to the left, with a first row and column of zeros."""
    table = np.zeros((counts.shape[0] + 1, counts.shape[1] + 1), np.int64)
    np.cumsum(counts, axis=0, out=table[1:, 1:])
    np.cumsum(table[1:, 1:], axis=1, out=table[1:, 1:])
    return table


def reduce_mask(mask: NDArray[np.bool_], rows: Axis, cols: Axis) -> CellGrid:
    """Count the tissue in every cell; cells and parts of cells outside the mask have none.

    The tiles of the two axes together must reach the far edges of the mask.
    """
    height, width = mask.shape
    counts = np.zeros((rows.edges.size - 1, cols.edges.size - 1), np.int64)
    # A cell that begins inside the mask but ends outside simply ends with the mask.
    inside = cols.edges[cols.edges < width]
    for index, (top, bottom) in enumerate(zip(rows.edges[:-1], rows.edges[1:], strict=True)):
        if top >= height:
            break
        band = mask[top:bottom].sum(axis=0, dtype=np.int32)
        counts[index, : inside.size] = np.add.reduceat(band, inside, dtype=np.int64)
    return CellGrid(counts, rows, cols)


def read_mask(mask: ArrayLike) -> NDArray[np.bool_]:
    """Return a tissue mask as a bool array.

    Raises
    ------
    InvalidInputError
        If it is not two-dimensional, is empty, or holds anything but bools and integers.
    """
    array = np.asarray(mask)
    if array.ndim != 2 or array.size == 0:
        raise InvalidInputError(
            f"a tissue mask has (height, width) pixels, got shape {array.shape}"
        )
    if array.dtype.kind not in "bui":
        raise InvalidInputError(f"a tissue mask holds bools or integers, got {array.dtype}")
    return array if array.dtype == np.bool_ else array != 0
