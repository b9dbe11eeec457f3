"""How a tissue was tiled: one row of `<size>_tile_stats.parquet`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Literal, NotRequired, TypedDict

import pyarrow as pa

from ._files import write_parquet

__all__ = ["StopReason", "TileStats", "size_text", "tile_stats_table", "write_tile_stats"]

StopReason = Literal[
    "adaptive_stop",
    "candidates_exhausted",
    "coverage_goal",
    "each_cell",
    "empty_mask",
    "fixed_grid_complete",
    "max_tiles",
    "no_gain",
]


class TileStats(TypedDict):
    """Columns of the table, as SPORA datasets name them."""

    mask_height: int
    mask_width: int
    tissue_mask_frac: float
    num_tiles: int
    coverage_ratio: float
    covered_valid_pixels: int
    total_valid_pixels: int
    candidate_count: int
    stop_reason: StopReason
    tile_size: int | str
    stride: int | str
    tolerance: float
    coverage_goal: float | None
    min_gain_ratio: float | None
    tiling_method: str
    overlap_valid_pixels: int
    """Tissue that two or more tiles cover; shared background is none of it."""
    tile_bound: int
    """No tiling of any kind covers as much with fewer tiles."""
    grid_candidate_count: NotRequired[int]
    padded_height: NotRequired[int]
    padded_width: NotRequired[int]
    chunks_touched: NotRequired[int]
    """Chunks that reading every tile once decodes, each as often as a tile needs it."""
    tiles_outside: NotRequired[int]
    """Cells without a tile: their tile would hang over the edge."""


_TYPES: dict[str, pa.DataType] = {
    "mask_height": pa.int64(),
    "mask_width": pa.int64(),
    "tissue_mask_frac": pa.float64(),
    "num_tiles": pa.int64(),
    "coverage_ratio": pa.float64(),
    "covered_valid_pixels": pa.int64(),
    "total_valid_pixels": pa.int64(),
    "candidate_count": pa.int64(),
    "stop_reason": pa.string(),
    "tile_size": pa.int64(),
    "stride": pa.int64(),
    "tolerance": pa.float64(),
    "coverage_goal": pa.float64(),
    "min_gain_ratio": pa.float64(),
    "tiling_method": pa.string(),
    "overlap_valid_pixels": pa.int64(),
    "tile_bound": pa.int64(),
    "grid_candidate_count": pa.int64(),
    "padded_height": pa.int64(),
    "padded_width": pa.int64(),
    "chunks_touched": pa.int64(),
    "tiles_outside": pa.int64(),
}


def size_text(size: tuple[int, int]) -> int | str:
    """Side of a square as the int that SPORA stores; `"HxW"` for any other rectangle."""
    height, width = size
    return height if height == width else f"{height}x{width}"


def tile_stats_table(stats: Mapping[str, TileStats]) -> pa.Table:
    """One row a tissue, indexed by tissue id for pandas.

    Parameters
    ----------
    stats
        Statistics of each tissue by its id, as the tiling functions return them.
    """
    rows = list(stats.values())
    names = [name for name in _TYPES if not rows or any(name in row for row in rows)]
    columns: dict[str, pa.Array[Any]] = {}
    for name in names:
        values = [row.get(name) for row in rows]
        text = any(isinstance(value, str) for value in values)
        kind = pa.string() if text else _TYPES[name]
        columns[name] = pa.array([str(v) for v in values] if text else values, kind)
    columns["tissue_id"] = pa.array(list(stats), pa.string())
    table = pa.table(columns)
    return table.replace_schema_metadata({b"pandas": _pandas_note(table.schema)})


def write_tile_stats(path: str | os.PathLike[str], stats: Mapping[str, TileStats]) -> None:
    """Write `tile_stats_table(stats)` as parquet, in one step.

    Raises
    ------
    StorageError
        If the disk refuses.
    """
    write_parquet(tile_stats_table(stats), path)


_PANDAS_TYPES = {
    "string": ("unicode", "object"),
    "int64": ("int64", "int64"),
    "double": ("float64", "float64"),
}


def _pandas_note(schema: pa.Schema) -> bytes:
    """What tells pandas, and with it spora_io, that tissue_id is the index."""
    names = {"name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object"}
    columns = [
        {
            "name": field.name,
            "field_name": field.name,
            "pandas_type": _PANDAS_TYPES[str(field.type)][0],
            "numpy_type": _PANDAS_TYPES[str(field.type)][1],
            "metadata": None,
        }
        for field in schema
    ]
    note = {
        "index_columns": ["tissue_id"],
        "column_indexes": [{**names, "metadata": {"encoding": "UTF-8"}}],
        "columns": columns,
        "pandas_version": "2.0.0",
    }
    return json.dumps(note).encode()
