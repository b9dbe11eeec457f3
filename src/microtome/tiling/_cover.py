"""Tiles that cover a tissue mask: greedy cover with a stop rule, and the fixed grid.

The rules are those of SPORA's `best_mask_tiling_try_to_stop` and `get_grid_tile`, so that a tiling
made there can be made again here, tile for tile. Shares are compared as the decimals they are
written as: `tolerance=0.85` keeps a tile of which exactly 15 % is tissue, although the float
`1 - 0.85` is a little more than 0.15.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from math import ceil

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.errors import InvalidInputError
from microtome.image import MultiscaleImage
from microtome.progress import Progress, silent

from ._aligned import aligned_starts
from ._cells import Axis, reduce_mask
from ._greedy import Greedy, StopRule, choose
from ._mask import MaskBands, open_mask
from ._rule import (
    TileRule,
    covered_tissue,
    first_gains,
    overlapping_tissue,
    read_share,
    select,
    tiling_stats,
)
from ._stats import TileStats
from ._tile import TileSelection

__all__ = ["best_mask_tiling_try_to_stop", "cover", "get_grid_tile", "grid_of"]

_log = logging.getLogger(__name__)
_LOG_EVERY = 500  # tiles


def best_mask_tiling_try_to_stop(  # noqa: PLR0913, PLR0917 (the seed's own signature)
    mask: ArrayLike | MultiscaleImage,
    tile_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    tolerance: float = 0.2,
    coverage_goal: float = 0.99,
    min_gain_ratio: float = 0.05,
    max_tiles: int | None = None,
    allow_overlap: bool = True,  # noqa: FBT001, FBT002 (the seed's own signature)
    progress: bool | Progress = False,  # noqa: FBT001, FBT002 (the seed's own signature)
) -> tuple[TileSelection, TileStats, NDArray[np.bool_]]:
    """Cover a tissue mask with tiles, always taking the one that adds the most tissue.

    Candidates start at multiples of the stride, plus one per axis that ends exactly at the far
    edge; those with too little tissue are left out. Of equal ones the first in row-major order
    wins. It stops

    - once the goal is met and the best tile would add less than `min_gain_ratio` of its area
      (`adaptive_stop`). A goal of 1 counts as met from the start: only the gain decides;
    - once the goal is met, where `min_gain_ratio` is 0 (`coverage_goal`). SPORA documents this
      and runs on to exhaustion;
    - at `max_tiles`, when nothing new can be added (`no_gain`), when every candidate is taken or
      ruled out (`candidates_exhausted`), or because there is no tissue (`empty_mask`).

    Parameters
    ----------
    mask
        (height, width) True on tissue: an array, or an image of labels, which is read band by
        band. A side shorter than the tile is padded with background.
    tile_size
        Pixels; one int or (height, width).
    stride
        Pixels between candidates, one int or (down, across); by default the tile size.
    tolerance
        Largest share of a tile that may be background, in [0, 1).
    coverage_goal
        Share of the tissue to cover, in (0, 1]. It may be out of reach: thin tissue has no
        candidate within the tolerance. The statistics say what was reached.
    min_gain_ratio
        Least new tissue as a share of the tile's area, in [0, 1).
    max_tiles
        Most tiles to choose; by default as many as it takes.
    allow_overlap
        Whether tiles may overlap; if not, every candidate that touches a chosen tile is ruled out.
    progress
        Called with tissue pixels covered and in all; True writes log lines instead.

    Returns
    -------
    tiles
        In the order they were chosen.
    stats
        A row of the tile statistics table; `tiling_method` is `"default"`.
    covered
        (height, width) True on tissue that at least one tile covers.

    Raises
    ------
    InvalidInputError
        If a parameter is outside its range.

    Examples
    --------
    >>> import numpy as np
    >>> mask = np.zeros((8, 8), bool)
    >>> mask[2:6, 1:7] = True
    >>> tiles, stats, covered = best_mask_tiling_try_to_stop(mask, 4, 2, tolerance=0.5)
    >>> [(tile.row, tile.col, tile.gain) for tile in tiles]
    [(2, 2, 16), (2, 0, 4), (2, 4, 4)]
    >>> stats["coverage_ratio"], stats["stop_reason"]
    (1.0, 'no_gain')
    """
    tissue = open_mask(mask)
    selection, stats = cover(
        tissue,
        TileRule.read(tile_size, stride, tolerance),
        coverage_goal,
        min_gain_ratio,
        max_tiles=max_tiles,
        allow_overlap=allow_overlap,
        progress=_read_progress(progress),
    )
    return selection, stats, covered_tissue(tissue, selection)


def cover(
    tissue: MaskBands,
    rule: TileRule,
    coverage_goal: float,
    min_gain_ratio: float,
    *,
    max_tiles: int | None = None,
    allow_overlap: bool = True,
    align: tuple[int, int] | None = None,
    progress: Progress = silent,
) -> tuple[TileSelection, TileStats]:
    """Do as `best_mask_tiling_try_to_stop`, and hold no more than a band of the mask.

    Where `align` gives the size of a chunk, candidates begin as `aligned_starts` says.
    """
    goal = read_share(coverage_goal, "coverage_goal", above_zero=True)
    gain_ratio = read_share(min_gain_ratio, "min_gain_ratio")
    if max_tiles is not None and max_tiles < 1:
        raise InvalidInputError(f"max_tiles must be at least 1, got {max_tiles}")
    starts = (
        map(_clamped_starts, tissue.shape, rule.size, rule.stride)
        if align is None
        else (
            aligned_starts(length, size, chunk, apart=False)
            for length, size, chunk in zip(tissue.shape, rule.size, align, strict=True)
        )
    )
    grid = reduce_mask(tissue, *map(Axis.from_starts, starts, rule.size))
    counts = grid.candidate_counts()
    kept = (counts > 0) & (counts >= rule.least_tissue)
    total = int(grid.counts.sum())
    stop = StopRule(
        goal=ceil(goal * total),
        least_gain=ceil(gain_ratio * rule.area),
        gain_only=goal == 1 and gain_ratio > 0,
        most_tiles=max_tiles,
    )
    picks, gains, reason = choose(
        Greedy(grid, kept),
        stop,
        total,
        overlap=allow_overlap,
        progress=progress,
    )
    starts = grid.rows.starts[picks[:, 0]], grid.cols.starts[picks[:, 1]]
    selection = select(tissue, rule, starts, counts[picks[:, 0], picks[:, 1]], gains)
    counted = total, overlapping_tissue(grid, picks)
    stats = tiling_stats(tissue, rule, selection, counted, reason)
    stats["candidate_count"] = int(kept.sum())
    stats["coverage_goal"] = float(coverage_goal)
    stats["min_gain_ratio"] = float(min_gain_ratio)
    return selection, stats


def get_grid_tile(
    mask: ArrayLike | MultiscaleImage,
    tile_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    tolerance: float = 0.85,
) -> tuple[TileSelection, TileStats]:
    """Tiles of a fixed grid that hold enough tissue, in row-major order.

    The grid starts at the top-left pixel and is as small as covers the mask, so its last tiles may
    hang over the far edges; they keep their true position, and what hangs over is background.

    Parameters
    ----------
    mask
        (height, width) True on tissue: an array, or an image of labels, which is read band by
        band.
    tile_size
        Pixels; one int or (height, width).
    stride
        Pixels between tiles, one int or (down, across); by default the tile size.
    tolerance
        Largest share of a whole tile that may be background, in [0, 1).

    Returns
    -------
    tiles
        Row by row. The gain of a tile is the tissue that no tile before it covers.
    stats
        A row of the tile statistics table; `tiling_method` is `"grid"`, `grid_candidate_count`
        the tiles of the whole grid, `candidate_count` those with enough tissue, and the goals,
        which do not apply, are None.

    Raises
    ------
    InvalidInputError
        If a parameter is outside its range.
    """
    return grid_of(open_mask(mask), TileRule.read(tile_size, stride, tolerance))


def grid_of(
    tissue: MaskBands, rule: TileRule, *, align: tuple[int, int] | None = None
) -> tuple[TileSelection, TileStats]:
    """Do as `get_grid_tile`; where `align` gives the size of a chunk, begin as it says."""
    starts = (
        map(_lattice_starts, tissue.shape, rule.size, rule.stride)
        if align is None
        else (
            aligned_starts(length, size, chunk, apart=True)
            for length, size, chunk in zip(tissue.shape, rule.size, align, strict=True)
        )
    )
    rows, cols = map(Axis.from_starts, starts, rule.size)
    grid = reduce_mask(tissue, rows, cols)
    counts = grid.candidate_counts()
    picks = np.argwhere((counts > 0) & (counts >= rule.least_tissue))
    selection = select(
        tissue,
        rule,
        (rows.starts[picks[:, 0]], cols.starts[picks[:, 1]]),
        counts[picks[:, 0], picks[:, 1]],
        first_gains(grid, picks),
    )
    counted = int(grid.counts.sum()), overlapping_tissue(grid, picks)
    stats = tiling_stats(tissue, rule, selection, counted, "fixed_grid_complete")
    stats["candidate_count"] = len(selection)
    stats["tiling_method"] = "grid"
    stats["grid_candidate_count"] = counts.size
    stats["padded_height"] = int(rows.edges[-1])
    stats["padded_width"] = int(cols.edges[-1])
    return selection, stats


def _clamped_starts(length: int, size: int, step: int) -> NDArray[np.int64]:
    if length <= size:
        return np.zeros(1, np.int64)
    return np.union1d(np.arange(0, length - size + 1, step), [length - size]).astype(np.int64)


def _lattice_starts(length: int, size: int, step: int) -> NDArray[np.int64]:
    return np.arange(1 + max(0, -((size - length) // step)), dtype=np.int64) * step


def _read_progress(progress: Progress | bool, /) -> Progress:  # noqa: FBT001 (the seed's type)
    if callable(progress):
        return progress
    return _LogLines() if progress else silent


class _LogLines:
    """What `progress=True` means in a library that never prints."""

    def __init__(self) -> None:
        self._calls = 0

    def __call__(self, job: str, done: int, total: int, /) -> None:
        self._calls += 1
        if self._calls % _LOG_EVERY == 0 or done == total:
            _log.info("%s: %d tiles cover %.1f %%", job, self._calls, 100 * done / total)
