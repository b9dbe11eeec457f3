"""What a tiling does to tissues, in numbers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from microtome.cohort import CohortLayout
from microtome.coordinates import Resolution

from ._inventory import Tiling, open_tiling

__all__ = ["TileNumbers", "TilingNumbers", "tile_numbers", "tiling_numbers", "tiling_of"]


@dataclass(frozen=True, slots=True)
class TileNumbers:
    """Tiles of one tissue, or of all; None where the tables do not say."""

    tiles: int
    coverage: float | None
    """Share of the tissue that lies in at least one tile."""
    overlap: float | None
    """Share of the tissue in tiles that is read more than once: what tiles hold together, less
    what they cover, of what they hold. Background that several tiles share does not count."""
    tissue: float | None
    """Mean share of a tile that is tissue."""
    waste: float | None
    """Share of all pixels in tiles that is background."""


@dataclass(frozen=True, slots=True)
class TilingNumbers:
    """A tiling of a cohort, all of it and tissue by tissue."""

    total: TileNumbers
    """Of all tissues together: a large one weighs more."""
    tissues: Mapping[str, TileNumbers]
    """By tissue; those that were tiled, also where no tile came of it."""


def tile_numbers(tiling: Tiling, tissue_id: str) -> TileNumbers:
    """Count the tiles of a tissue and what they cover.

    Parameters
    ----------
    tiling
        The tiling; a tissue without tiles has 0.
    tissue_id
        The tissue.
    """
    count = tiling.count(tissue_id)
    row = tiling.row(tissue_id)
    ratio = row.get("coverage_ratio")
    coverage = None if ratio is None else float(ratio)
    if not count:
        return TileNumbers(0, coverage, None, None, None)
    tissue = None
    if "tissue_frac" in tiling.table.table.column_names:
        shares = tiling.table.column("tissue_frac")[tiling.table.positions(tissue_id)]
        mean = float(np.mean(shares, dtype=np.float64))
        tissue = mean if np.isfinite(mean) else None
    overlap = None
    covered = row.get("covered_valid_pixels")
    if tissue and covered is not None:
        height, width = tiling.table.tile_size
        held = tissue * count * height * width
        # Shares are stored as float32: nothing in common may come out a hair below nothing.
        overlap = max(0.0, 1.0 - float(covered) / held)
    return TileNumbers(count, coverage, overlap, tissue, None if tissue is None else 1.0 - tissue)


def tiling_of(tiling: Tiling) -> TilingNumbers:
    """Count the tiles of a tiling and what they cover, in all and tissue by tissue.

    A number of all tissues together is None unless every tissue that counts for it states its part.
    """
    names = dict.fromkeys([*tiling.statistics, *tiling.table.tissue_ids])
    found = {name: tile_numbers(tiling, name) for name in names}
    rows = [tiling.row(name) for name in names]
    covered = _sum(rows, "covered_valid_pixels")
    there = _sum(rows, "total_valid_pixels")
    coverage = overlap = tissue = None
    if covered is not None and there:
        coverage = covered / there
    tiled = [numbers for numbers in found.values() if numbers.tiles]
    shares = [numbers.tissue for numbers in tiled]
    if tiled and None not in shares:
        tissue = sum((n.tissue or 0.0) * n.tiles for n in tiled) / tiling.tiles
        height, width = tiling.table.tile_size
        held = tissue * tiling.tiles * height * width
        if held and covered is not None:
            overlap = max(0.0, 1.0 - covered / held)
    waste = None if tissue is None else 1.0 - tissue
    return TilingNumbers(TileNumbers(tiling.tiles, coverage, overlap, tissue, waste), found)


def _sum(rows: list[dict[str, Any]], column: str) -> float | None:
    """Add up a column; None where a row does not state it."""
    values = [row.get(column) for row in rows]
    if any(value is None or not np.isfinite(value) for value in values):
        return None
    return float(sum(value for value in values if value is not None))


def tiling_numbers(
    cohort: str | os.PathLike[str],
    tile_size: int | tuple[int, int],
    *,
    strategy: str = "default",
    resolution: float | str | tuple[float, float] | Resolution | None = None,
) -> TilingNumbers:
    """Count the tiles of a tiling, how much of the tissue they cover and how much they waste.

    Parameters
    ----------
    cohort
        Directory of the cohort; only tables are read.
    tile_size
        Side of the tiles in pixels, or (height, width).
    strategy
        Name of the tiling.
    resolution
        Micrometres per pixel; may be left out where the cohort has one.

    Raises
    ------
    NotFoundError, FormatError
        If there is no cohort, or a table is damaged.
    InvalidInputError
        If there is no such resolution or tiling.
    """
    layout = CohortLayout.open(Path(cohort))
    size = tile_size if isinstance(tile_size, tuple) else (tile_size, tile_size)
    return tiling_of(open_tiling(layout, layout.resolution(resolution), strategy, size))
