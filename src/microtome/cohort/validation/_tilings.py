"""Checks of tables of tiles."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from microtome.cohort._merge import listed
from microtome.cohort._tables import read_parquet
from microtome.coordinates import Resolution
from microtome.tiling import TileTable

from ._images import resolution_of
from ._survey import Survey, repeated

__all__ = ["check_tilings"]

_TILES = "_tile_coordinates.parquet"
_SIZE = re.compile(r"([1-9][0-9]*)(?:x([1-9][0-9]*))?")


def check_tilings(survey: Survey) -> None:
    """Check every tiling of every resolution."""
    for path in sorted(survey.layout.root.glob(f"tiling/*/*/*{_TILES}")):
        if path.name.startswith("."):
            continue
        resolution = resolution_of(survey, path.parents[1])
        if resolution is not None and survey.wanted(resolution):
            _check_tiling(survey, path, resolution)


def _check_tiling(survey: Survey, path: Path, resolution: Resolution) -> None:
    match = _SIZE.fullmatch(path.name.removesuffix(_TILES))
    if match is None:
        what = "is not named after the size of its tiles, such as 224 or 224x112"
        survey.report("error", "tiling-name", path, what, "rename it")
        return
    size = (int(match[1]), int(match[2] or match[1]))
    integers = ("tile_id", "row", "col")
    table = survey.table(
        path,
        {"tissue_id": "text", **dict.fromkeys(integers, "integer")},
        keys=("tissue_id", *integers),
    )
    if table is None:
        return
    table = table.set_column(
        table.column_names.index("tissue_id"), "tissue_id", table["tissue_id"].cast(pa.string())
    )
    before = len(survey.findings)
    twice = repeated(table, ["tissue_id", "tile_id"])
    if twice:
        what = f"{len(twice)} tile ids are there more than once: {listed(twice)}"
        survey.report("error", "duplicate-tile", path, what, "tile again with --overwrite")
    _check_places(survey, path, table, size, resolution)
    _check_counts(survey, path, table)
    if len(survey.findings) == before:
        with survey.guarded("tiles-damaged", path, "tile again with --overwrite"):
            TileTable.read(path, tile_size=size)
    survey.infinite_values(path, table)


def _check_places(
    survey: Survey, path: Path, table: pa.Table, size: tuple[int, int], resolution: Resolution
) -> None:
    """Check that every tile is of a tissue that exists, and touches it."""
    codes: Any = table["tissue_id"].combine_chunks().dictionary_encode()
    names: list[str] = codes.dictionary.to_pylist()
    known = set(survey.tissues())
    unknown = [name for name in names if name not in known]
    if unknown:
        what = f"has tiles of {len(unknown)} tissues without a row in the table of tissues: {listed(unknown)}"
        survey.report("error", "unknown-tissue", path, what, "ingest them, or tile again")
    # Of an image that does not open nothing is known; that was told.
    endless = (np.iinfo(np.int64).max,) * 2
    limits = np.array(
        [survey.size_at(name, resolution) or endless for name in names], np.int64
    ).reshape(-1, 2)[codes.indices.to_numpy()]
    corners = np.stack([table["row"].to_numpy(), table["col"].to_numpy()], axis=1)
    # A tile may hang over the edge, but one without a pixel of the image shows nothing.
    outside = ((corners >= limits) | (corners + np.array(size) <= 0)).any(axis=1)
    if outside.any():
        rows = table.take(pa.array(np.flatnonzero(outside)[:3])).to_pylist()
        shown = [
            f"{r['tissue_id']} {r['tile_id']} at ({r['row']}, {r['col']}) of {survey.size_at(r['tissue_id'], resolution)}"
            for r in rows
        ]
        what = (
            f"{int(outside.sum())} tiles lie outside the image of their tissue: {', '.join(shown)}"
        )
        survey.report("error", "tile-outside", path, what, "tile again with --overwrite")


def _check_counts(survey: Survey, path: Path, table: pa.Table) -> None:
    """Check that the statistics beside a table speak of its tiles."""
    stats = path.with_name(path.name.replace("_tile_coordinates", "_tile_stats"))
    if not stats.is_file():
        return
    found: pa.Table | None = None
    with survey.guarded("table-damaged", stats, "tile again with --overwrite"):
        found = read_parquet(stats, ["num_tiles"])
    if found is None:
        return
    index = next(
        (name for name in ("tissue_id", "__index_level_0__") if name in found.column_names), None
    )
    if index is None:
        what = f"lacks the columns ['tissue_id']; it has {found.column_names}"
        survey.report("error", "column-missing", stats, what, "tile again with --overwrite")
        return
    counts = {
        str(c["values"]): int(c["counts"]) for c in table["tissue_id"].value_counts().to_pylist()
    }
    stated = {
        str(row[index]): row["num_tiles"] for row in found.select([index, "num_tiles"]).to_pylist()
    }
    wrong = [
        f"{tissue} {stated.get(tissue, 'nothing')} (there are {counts.get(tissue, 0)})"
        for tissue in [*stated, *(t for t in counts if t not in stated)]
        if stated.get(tissue) != counts.get(tissue, 0)
    ]
    if wrong:
        what = f"says of the tiles of {len(wrong)} tissues: {listed(wrong)}"
        survey.report("error", "tile-counts", stats, what, "tile again with --overwrite")
