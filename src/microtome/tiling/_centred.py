"""Tiles around cells: one on the centre of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.coordinates import MicrometreGrid
from microtome.errors import InvalidInputError
from microtome.image import MultiscaleImage

from ._mask import MaskBands, open_mask
from ._measure import measure_tiles
from ._rule import TileRule, select, tiling_stats
from ._stats import TileStats
from ._tile import TileSelection

__all__ = ["EdgePolicy", "get_cell_tiles"]

EdgePolicy = Literal["overhang", "move", "drop"]
"""What becomes of a tile that would hang over the edge of the image: it does, and what lies outside
is filled when it is read; it is moved inside, and its cell is off its centre; or its cell has no
tile."""
_POLICIES = ("overhang", "move", "drop")


def get_cell_tiles(
    centroids: ArrayLike,
    tile_size: int | Sequence[int],
    *,
    mpp: float | tuple[float, float],
    mask: ArrayLike | MultiscaleImage | MaskBands,
    cell_ids: ArrayLike | None = None,
    edge: EdgePolicy = "overhang",
    tolerance: float | None = None,
) -> tuple[TileSelection, TileStats]:
    """Put one tile on the centre of each cell.

    Parameters
    ----------
    centroids
        (n, 2) centre of each cell (y, x) in micrometres from the upper left edge of the image, as
        in a cohort's table of cells.
    tile_size
        Pixels; one int or (height, width). The centre lies in the middle of the tile to half a
        pixel; where two places are as good, the one further down and right is taken.
    mpp
        Micrometres per pixel of the grid that the tiles lie on, one number or (y, x).
    mask
        (height, width) True on tissue, on that grid: an array, or an image of labels.
    cell_ids
        (n,) ids of the cells; by default 0, 1, ...
    edge
        What becomes of a tile that would hang over the edge of the image: ``"overhang"``, it
        does; ``"move"``, it is moved inside; ``"drop"``, its cell has no tile.
    tolerance
        Largest share of a tile that may be background, in [0, 1); None keeps a tile without any
        tissue, too.

    Returns
    -------
    tiles
        In the order of the cells, with their `cell_id`.
    stats
        A row of the tile statistics table; `tiling_method` is ``"cells"``, `candidate_count` the
        number of cells, and `tiles_outside` how many of them have no tile because of the edge.

    Raises
    ------
    InvalidInputError
        If a parameter is outside its range, or a cell outside the image; names the cell.

    Examples
    --------
    >>> import numpy as np
    >>> tiles, stats = get_cell_tiles(
    ...     [[10.0, 20.0], [1.0, 30.0]], 8, mpp=0.5, mask=np.ones((60, 80), bool), cell_ids=[7, 9]
    ... )
    >>> tiles.row.tolist(), tiles.col.tolist(), tiles.cell_id.tolist()
    ([16, -2], [36, 56], [7, 9])
    """
    tissue = open_mask(mask)
    if edge not in _POLICIES:
        raise InvalidInputError(f"edge must be one of {', '.join(_POLICIES)}, got {edge!r}")
    rule = TileRule.read(tile_size, 1, 0.0 if tolerance is None else tolerance)
    centres, ids = _cells(centroids, cell_ids)
    grid = MicrometreGrid.from_mpp(mpp)
    pixels = grid.to_pixels(centres)
    outside = ~((pixels >= 0) & (pixels <= tissue.shape)).all(axis=1)
    if outside.any():
        first = int(outside.argmax())
        y, x = centres[first]
        raise InvalidInputError(
            f"cell {ids[first]} lies at y {y:g}, x {x:g} um, outside an image of "
            f"{tissue.shape[0]} x {tissue.shape[1]} pixels of {mpp} um ({int(outside.sum())} of "
            f"{len(ids)} cells do); centroids are micrometres, not pixels"
        )
    starts = grid.windows(centres, rule.size)
    room = np.maximum(np.array(tissue.shape) - rule.size, 0)
    moved = np.clip(starts, 0, room)
    # A tile that is larger than the image hangs over wherever it lies.
    over = (starts != moved).any(axis=1) | (np.array(rule.size) > tissue.shape).any()
    if edge == "move":
        starts = moved
    kept = ~over if edge == "drop" else np.ones(len(ids), np.bool_)
    dropped = len(ids) - int(kept.sum())
    rows, cols, ids = starts[kept, 0], starts[kept, 1], ids[kept]
    found = measure_tiles(tissue, rows, cols, rule.size)
    if tolerance is not None and (found.tissue < max(1, rule.least_tissue)).any():
        full = found.tissue >= max(1, rule.least_tissue)
        rows, cols, ids = rows[full], cols[full], ids[full]
        found = measure_tiles(tissue, rows, cols, rule.size)
    selection = select(tissue, rule, (rows, cols), found.tissue, found.gain, ids)
    stats = tiling_stats(tissue, rule, selection, (found.total, found.overlap), "each_cell")
    stats["candidate_count"] = len(centres)
    stats["tiling_method"] = "cells"
    stats["tiles_outside"] = dropped
    return selection, stats


def _cells(
    centroids: ArrayLike, cell_ids: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    try:
        centres = np.asarray(centroids, np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"centroids must be numbers: {error}") from error
    if centres.size == 0:
        centres = centres.reshape(0, 2)
    if centres.ndim != 2 or centres.shape[1] != 2:
        raise InvalidInputError(f"centroids have shape (n, 2), (y, x), got {centres.shape}")
    ids = np.arange(len(centres)) if cell_ids is None else np.asarray(cell_ids)
    if ids.size and ids.dtype.kind not in "iu":
        raise InvalidInputError(f"cell_ids must be integers, got {ids.dtype}")
    ids = ids.astype(np.int64)
    if ids.shape != (len(centres),):
        raise InvalidInputError(f"{len(centres)} centroids, but cell_ids of shape {ids.shape}")
    lost = ~np.isfinite(centres).all(axis=1)
    if lost.any():
        raise InvalidInputError(
            f"cell {ids[int(lost.argmax())]} has no centroid ({int(lost.sum())} cells have none)"
        )
    return centres, ids
