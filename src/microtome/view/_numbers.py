"""What a tiling does to a tissue, in numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ._inventory import Tiling

__all__ = ["TileNumbers", "tile_numbers"]


@dataclass(frozen=True, slots=True)
class TileNumbers:
    """Tiles of one tissue; None where the tables do not say."""

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
