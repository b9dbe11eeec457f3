"""What tiles hold, counted pixel by pixel in one pass over the mask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ._mask import MaskBands

__all__ = ["Measured", "measure_tiles"]

_PIXELS = 1 << 22


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Tissue of tiles that may overlap and hang over the edge."""

    tissue: NDArray[np.int64]
    """(n,) tissue pixels of each tile."""
    gain: NDArray[np.int64]
    """(n,) those that no tile before it covers."""
    total: int
    """Tissue pixels of the mask."""
    overlap: int
    """Tissue pixels that two or more tiles cover."""


def _cut(mask: MaskBands, least: int) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Yield bands that take little memory, and cut few tiles."""
    step = max(least, _PIXELS // mask.shape[1])
    for top, band in mask.bands():
        for first in range(0, len(band), step):
            yield top + first, band[first : first + step]


def measure_tiles(
    mask: MaskBands, rows: NDArray[np.int64], cols: NDArray[np.int64], size: tuple[int, int]
) -> Measured:
    """Count what each tile holds, and how much of it is new in the order of the tiles.

    Parameters
    ----------
    mask
        Read once, from the top.
    rows, cols
        (n,) top-left pixels.
    size
        (height, width) of a tile.
    """
    height, width = size
    tissue, gain = np.zeros(rows.size, np.int64), np.zeros(rows.size, np.int64)
    total = overlap = 0
    left, right = np.clip(cols, 0, mask.shape[1]), np.clip(cols + width, 0, mask.shape[1])
    for top, band in _cut(mask, height):
        bottom = top + band.shape[0]
        total += int(np.count_nonzero(band))
        once, twice = np.zeros_like(band), np.zeros_like(band)
        for tile in np.flatnonzero((rows < bottom) & (rows + height > top)).tolist():
            window = (
                slice(max(int(rows[tile]) - top, 0), min(int(rows[tile]) + height, bottom) - top),
                slice(int(left[tile]), int(right[tile])),
            )
            own, seen = band[window], once[window]
            count = int(np.count_nonzero(own))
            again = seen & own
            tissue[tile] += count
            gain[tile] += count - int(np.count_nonzero(again))
            twice[window] |= again
            seen |= own
        overlap += int(np.count_nonzero(twice))
    return Measured(tissue, gain, total, overlap)
