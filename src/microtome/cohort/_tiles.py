"""`tile`: tissue masks become tables of tiles."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from microtome.coordinates import Resolution
from microtome.errors import ExistsError, FormatError, InvalidInputError
from microtome.progress import Progress, silent
from microtome.storage import locked
from microtome.tiling import (
    TileStats,
    TileTable,
    best_mask_tiling_try_to_stop,
    get_grid_tile,
    get_strip_tiles,
    write_tile_stats,
)

from ._images import open_tissue_image, read_tissue_mask, tissues_with_images
from ._layout import CohortLayout
from ._tables import read_parquet

__all__ = ["TilingMethod", "open_tiles", "tile"]

_log = logging.getLogger(__name__)

TilingMethod = Literal["cover", "grid", "strips"]
"""`cover`: `best_mask_tiling_try_to_stop`, the seed's greedy cover. `grid`: `get_grid_tile`.
`strips`: `get_strip_tiles`, which needs the fewest tiles."""

_STRATEGIES = {"cover": "default", "grid": "grid", "strips": "strips"}


def tile(  # noqa: PLR0913 - the seed's parameters
    cohort: str | os.PathLike[str],
    *,
    tile_size: int | tuple[int, int] = 224,
    method: TilingMethod = "cover",
    strategy: str | None = None,
    stride: int | tuple[int, int] | None = None,
    tolerance: float = 0.85,
    coverage_goal: float = 1.0,
    min_gain_ratio: float = 0.05,
    tissues: Sequence[str] | None = None,
    resolution: float | str | tuple[float, float] | Resolution | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> TileTable:
    """Choose tiles on every tissue mask and write the table with its statistics.

    Parameters
    ----------
    cohort
        Directory of the cohort.
    tile_size
        Pixels of the cohort's resolution: one int for a square, or (height, width).
    method
        ``"cover"``, ``"grid"`` or ``"strips"``.
    strategy
        Name of the directory; ``"default"`` for the cover, else the method.
    stride
        Pixels between candidates; half the tile for the cover, the tile for the grid, a 28th of
        the tile for strips.
    tolerance
        Largest share of a tile that may be background, in [0, 1).
    coverage_goal, min_gain_ratio
        When the cover stops, see `best_mask_tiling_try_to_stop`; how much strips cover, see
        `get_strip_tiles`. The defaults are those of the seed's script, not of its function.
    tissues
        Which tissues; None for all. What a table that is there says of others stays.
    resolution
        Which resolution; may be left out where the cohort has one.
    overwrite
        Replace a table that is there, or what it says of the tissues given.
    progress
        Called with the tissues done and to do.

    Returns
    -------
    The table, tissue after tissue.

    Raises
    ------
    ExistsError
        If the table is there and `overwrite` is false.
    NotFoundError
        If a tissue has no mask.
    """
    layout = CohortLayout.open(cohort)
    target = layout.resolution(resolution)
    size = tile_size if isinstance(tile_size, tuple) else (tile_size, tile_size)
    if method not in _STRATEGIES:
        msg = f"method must be one of {', '.join(map(repr, _STRATEGIES))}, got {method!r}"
        raise InvalidInputError(msg)
    name = strategy or _STRATEGIES[method]
    text = f"{size[0]}" if size[0] == size[1] else f"{size[0]}x{size[1]}"
    path = layout.tile_coordinates(target, name, text)
    chosen = tissues_with_images(layout, target, tissues=tissues)
    before = _Before.read(layout, target, name, size) if path.exists() else None
    if before is not None and not overwrite and (tissues is None or before.has(chosen)):
        msg = (
            f"{path} exists; replace it with --overwrite (overwrite=True) or name another strategy"
        )
        raise ExistsError(msg)
    step = stride
    if step is None and method == "cover":
        step = (max(1, size[0] // 2), max(1, size[1] // 2))
    tables: list[TileTable] = []
    stats: dict[str, TileStats] = {}
    for done, (tissue_id, modalities) in enumerate(chosen.items(), start=1):
        shape = open_tissue_image(layout, modalities[0], target, tissue_id).level_shape(0)
        tissue = read_tissue_mask(layout, target, tissue_id, (shape[-2], shape[-1]))
        if method == "grid":
            tiles, found = get_grid_tile(tissue, size, step, tolerance)
        elif method == "strips":
            tiles, found = get_strip_tiles(
                tissue, size, step, tolerance, coverage_goal, min_gain_ratio
            )
        else:
            tiles, found, _ = best_mask_tiling_try_to_stop(
                tissue, size, step, tolerance, coverage_goal, min_gain_ratio
            )
        stats[tissue_id] = found
        tables.append(
            TileTable.from_tiles(tissue_id, tiles, strategy=name, resolution=target.directory)
        )
        if len(tiles) == 0:
            _log.warning("%s", _no_tiles(tissue_id, tissue, size, tolerance))
        progress("tile", done, len(chosen))
    with locked(layout.lock, what=f"the cohort {layout.root}"):
        if tissues is not None and path.exists():
            # Only these were asked for: what the table says of others stays.
            before = _Before.read(layout, target, name, size)
            tables.insert(0, before.without(chosen))
            stats = {**{t: s for t, s in before.stats.items() if t not in chosen}, **stats}
        table = TileTable.concat(tables)
        # The statistics first: a table that is there has them.
        write_tile_stats(layout.tile_stats(target, name, text), stats)
        table.write(path)
    return table


@dataclass(frozen=True, slots=True)
class _Before:
    """A tiling that is there, with its statistics."""

    tiles: TileTable
    stats: dict[str, TileStats]

    @classmethod
    def read(
        cls, layout: CohortLayout, resolution: Resolution, strategy: str, size: tuple[int, int]
    ) -> _Before:
        text = f"{size[0]}" if size[0] == size[1] else f"{size[0]}x{size[1]}"
        stats: dict[str, TileStats] = {}
        if layout.tile_stats(resolution, strategy, text).is_file():
            for row in tile_statistics(layout, resolution, strategy, text):
                tissue_id = str(row.pop("tissue_id"))
                stats[tissue_id] = cast("TileStats", row)
        return cls(open_tiles(layout, resolution, strategy, size), stats)

    def has(self, tissues: Iterable[str]) -> bool:
        """Whether any of these tissues has been tiled."""
        return not ({*self.stats, *self.tiles.tissue_ids}).isdisjoint(tissues)

    def without(self, tissues: Iterable[str]) -> TileTable:
        """Return the tiles of all other tissues."""
        column = self.tiles.table["tissue_id"].cast(pa.string())
        others = pc.invert(pc.is_in(column, value_set=pa.array(list(tissues), pa.string())))
        return TileTable(
            self.tiles.table.filter(others),
            self.tiles.tile_size,
            self.tiles.strategy,
            self.tiles.resolution,
        )


def _no_tiles(
    tissue_id: str, tissue: NDArray[np.bool_], size: tuple[int, int], tolerance: float
) -> str:
    """Say why a tissue has no tiles; not an error, but nothing that anybody wants."""
    height, width = tissue.shape
    told = f"{tissue_id}: no tile of {size[0]} x {size[1]} pixels"
    if not tissue.any():
        return f"{told}: its mask is empty"
    small = height < size[0] or width < size[1]
    why = f"its image has {height} x {width}; use smaller tiles" if small else "its tissue is thin"
    return f"{told} is tissue to more than {1 - tolerance:.0%}: {why}, or allow more background"


def open_tiles(
    layout: CohortLayout, resolution: Resolution, strategy: str, tile_size: int | tuple[int, int]
) -> TileTable:
    """Open a table of tiles, ours or spora_io's.

    Raises
    ------
    InvalidInputError
        If there is none; the message says which there are.
    """
    size = tile_size if isinstance(tile_size, tuple) else (tile_size, tile_size)
    text = f"{size[0]}" if size[0] == size[1] else f"{size[0]}x{size[1]}"
    path = layout.tile_coordinates(resolution, strategy, text)
    if not path.is_file():
        there = ", ".join(f"{s} {t}" for s, t in layout.tilings(resolution)) or "none"
        msg = f"{layout.root} has no tiles {strategy} {text} at {resolution} um per pixel; it has {there}. Make some with `microtome tile`"
        raise InvalidInputError(msg)
    table = TileTable.read(path, tile_size=size)
    if table.resolution not in {None, resolution.directory}:
        msg = f"{path} speaks of tiles at {table.resolution}"
        raise FormatError(msg)
    return TileTable(table.table, table.tile_size, strategy, resolution.directory)


def tile_statistics(
    layout: CohortLayout, resolution: Resolution, strategy: str, size: str
) -> list[dict[str, Any]]:
    """Return the rows of a tile statistics table."""
    table = read_parquet(layout.tile_stats(resolution, strategy, size), [])
    return cast("list[dict[str, Any]]", table.to_pylist())
