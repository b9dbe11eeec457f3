"""The mask reduced to the cells that tile edges cut it into: exact for any tile size and stride.

Every candidate tile is a union of whole cells, so how much tissue it has, and how much of that is
new, depends on the mask only through the tissue count of each cell. With a stride that divides the
tile the cells are stride x stride; a 20,000-pixel mask at stride 112 becomes a 180 x 180 table.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ._mask import MaskBands

__all__ = ["Axis", "CellGrid", "reduce_mask", "summed_area"]


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


def reduce_mask(mask: MaskBands, rows: Axis, cols: Axis) -> CellGrid:
    """Count the tissue in every cell; cells and parts of cells outside the mask have none.

    The tiles of the two axes together must reach the far edges of the mask. The mask is read once,
    band by band.
    """
    width = mask.shape[1]
    counts = np.zeros((rows.edges.size - 1, cols.edges.size - 1), np.int64)
    # A cell that begins inside the mask but ends outside simply ends with the mask.
    inside = cols.edges[cols.edges < width]
    for top, band in mask.bands():
        bottom = top + len(band)
        # The first cell may have begun in the band before.
        begun = int(np.searchsorted(rows.edges, top, side="right")) - 1
        for index in range(max(begun, 0), len(counts)):
            first, last = int(rows.edges[index]), int(rows.edges[index + 1])
            if first >= bottom:
                break
            columns = _column_sums(band[max(first - top, 0) : last - top])
            counts[index, : inside.size] += np.add.reduceat(columns, inside, dtype=np.int64)
    return CellGrid(counts, rows, cols)


def _column_sums(rows: NDArray[np.bool_]) -> NDArray[np.int64] | NDArray[np.uint8]:
    # Bytes that cannot overflow are added several times as fast as anything wider.
    if len(rows) <= 255:
        return np.add.reduce(rows.view(np.uint8), axis=0, dtype=np.uint8)
    return rows.sum(axis=0, dtype=np.int64)
