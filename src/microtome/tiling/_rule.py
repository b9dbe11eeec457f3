"""What the planners share: what a tile must be, what tiles add up to, and how it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from numbers import Real

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError

from ._cells import CellGrid
from ._mask import MaskBands
from ._stats import StopReason, TileStats, size_text
from ._tile import TileSelection, read_size

__all__ = [
    "TileRule",
    "covered_tissue",
    "first_gains",
    "inside_area",
    "overlapping_tissue",
    "read_share",
    "select",
    "tiling_stats",
]


@dataclass(frozen=True, slots=True)
class TileRule:
    """What all planners ask of a tile."""

    size: tuple[int, int]
    stride: tuple[int, int]
    tolerance: float
    least_tissue: int

    @classmethod
    def read(
        cls,
        tile_size: int | Sequence[int],
        stride: int | Sequence[int] | None,
        tolerance: float,
    ) -> TileRule:
        """Check what the caller gave."""
        size = read_size(tile_size, "tile_size")
        step = size if stride is None else read_size(stride, "stride")
        background = read_share(tolerance, "tolerance")
        return cls(size, step, float(tolerance), ceil((1 - background) * size[0] * size[1]))

    @property
    def area(self) -> int:
        """Pixels of a tile."""
        return self.size[0] * self.size[1]


def first_gains(grid: CellGrid, picks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Tissue that each pick covers first, when they are taken in the given order."""
    owner = np.full(grid.counts.shape, -1, np.int64)
    rows, cols = grid.rows, grid.cols
    for pick in range(len(picks) - 1, -1, -1):
        row, col = picks[pick]
        owner[rows.first[row] : rows.last[row], cols.first[col] : cols.last[col]] = pick
    owned = owner >= 0
    gains = np.zeros(len(picks), np.int64)
    np.add.at(gains, owner[owned], grid.counts[owned])
    return gains


def overlapping_tissue(grid: CellGrid, picks: NDArray[np.int64]) -> int:
    """Tissue that two or more of the picks cover; background that they share is not counted."""
    times = np.zeros((grid.counts.shape[0] + 1, grid.counts.shape[1] + 1), np.int64)
    top, bottom = grid.rows.first[picks[:, 0]], grid.rows.last[picks[:, 0]]
    left, right = grid.cols.first[picks[:, 1]], grid.cols.last[picks[:, 1]]
    for rows, cols, step in (
        (top, left, 1),
        (bottom, right, 1),
        (top, right, -1),
        (bottom, left, -1),
    ):
        np.add.at(times, (rows, cols), step)
    covers = times.cumsum(axis=0).cumsum(axis=1)[:-1, :-1]
    return int(grid.counts[covers > 1].sum())


def covered_tissue(mask: MaskBands, tiles: TileSelection) -> NDArray[np.bool_]:
    """(height, width) True on tissue that at least one tile covers."""
    covered = np.zeros(mask.shape, np.bool_)
    height, width = tiles.tile_size
    for row, col in zip(tiles.row.tolist(), tiles.col.tolist(), strict=True):
        covered[row : row + height, col : col + width] = True
    for top, band in mask.bands():
        covered[top : top + len(band)] &= band
    return covered


def select(
    mask: MaskBands,
    rule: TileRule,
    starts: tuple[NDArray[np.int64], NDArray[np.int64]],
    tissue: NDArray[np.int64],
    gain: NDArray[np.int64],
    cell_id: NDArray[np.int64] | None = None,
) -> TileSelection:
    """Return tiles (first row and column of each) with what is known of them."""
    return TileSelection(
        *starts,
        (tissue / rule.area).astype(np.float32),
        gain,
        rule.size,
        (tissue / inside_area(mask.shape, starts, rule.size)).astype(np.float32),
        cell_id,
    )


def inside_area(
    shape: tuple[int, int],
    starts: tuple[NDArray[np.int64], NDArray[np.int64]],
    size: tuple[int, int],
) -> NDArray[np.int64]:
    """(n,) pixels of each tile that lie inside the image, at least 1."""
    height, width = (
        np.minimum(start + side, length) - np.maximum(start, 0)
        for start, side, length in zip(starts, size, shape, strict=True)
    )
    return np.maximum(height, 1) * np.maximum(width, 1)


def tiling_stats(
    mask: MaskBands,
    rule: TileRule,
    tiles: TileSelection,
    counted: tuple[int, int],
    reason: StopReason,
) -> TileStats:
    """Return a row of the tile statistics table; what only one planner knows is to be added.

    `counted` are the tissue pixels in all, and those that two or more tiles cover.
    """
    covered = int(tiles.gain.sum())
    total, overlap = counted
    return TileStats(
        mask_height=mask.shape[0],
        mask_width=mask.shape[1],
        tissue_mask_frac=total / (mask.shape[0] * mask.shape[1]),
        num_tiles=len(tiles),
        coverage_ratio=covered / total if total else 1.0,
        covered_valid_pixels=covered,
        total_valid_pixels=total,
        candidate_count=0,
        stop_reason=reason,
        tile_size=size_text(rule.size),
        stride=size_text(rule.stride),
        tolerance=rule.tolerance,
        coverage_goal=None,
        min_gain_ratio=None,
        tiling_method="default",
        overlap_valid_pixels=overlap,
        tile_bound=-(-covered // rule.area),
    )


def read_share(value: float, name: str, *, above_zero: bool = False) -> Fraction:
    """Read a share as the decimal it is written as."""
    if not isinstance(value, Real):
        raise InvalidInputError(f"{name} must be a number, got {value!r}")
    if above_zero:
        if not 0 < value <= 1:
            raise InvalidInputError(f"{name} must be above 0 and at most 1, got {value}")
    elif not 0 <= value < 1:
        raise InvalidInputError(f"{name} must be at least 0 and below 1, got {value}")
    return Fraction(repr(float(value)))
