"""What a `SporaDataset` can draw and has drawn, as Arrow tables without an object a row."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from microtome.regions import columns_fingerprint
from microtome.sampling import CohortSampler
from microtome.storage import replace_file

from ._spora_index import CohortIndex, dictionary

__all__ = [
    "Draws",
    "described",
    "draws_fingerprint",
    "tile_table",
    "tissue_table",
    "write_drawn",
]

_AT_ONCE = 1 << 16
# Of all tiles together so many are looked at: who resumes waits for it.
_LOOKED_AT = 1 << 22


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """What is drawn at some positions of an epoch."""

    dataset: NDArray[np.int64]
    """Number of the dataset, (n,)."""
    row: NDArray[np.int64]
    """Row in its table of tiles, or the number of the tissue in it, (n,)."""

    def __len__(self) -> int:
        return self.row.size


def draws_fingerprint(cohorts: Sequence[CohortIndex], sampler: CohortSampler, unit: str) -> str:
    """Describe in 16 letters what is drawn in every epoch.

    Parameters
    ----------
    cohorts
        What is drawn from.
    sampler
        The rule and the seed; its epoch plays no part.
    unit
        ``"tiles"`` or ``"tissues"``.
    """
    total = sum(len(cohort.tiles) for cohort in cohorts if cohort.tiles is not None)
    step = max(1, -(-total // _LOOKED_AT))
    parts: list[object] = [unit, sampler.seed, str(sampler.rule)]
    for cohort in cohorts:
        groups = cohort.tile_rows if unit == "tiles" else cohort.tissue_rows
        about: list[object] = [cohort.name, *cohort.tissues.items()]
        # Whose a stretch of rows is decides in which order they are drawn.
        columns = [*groups.runs, groups.sizes]
        if unit == "tiles" and cohort.tiles is not None:
            tiles = cohort.tiles
            about += [*tiles.tile_size, *tiles.tissue_ids]
            found = tiles.rows(slice(None, None, step))
            columns += [found.tissue, found.row, found.col]
        about += [column.size for column in columns]
        parts.append(columns_fingerprint(about, *columns))
    return columns_fingerprint(parts)


def tissue_table(cohorts: Sequence[CohortIndex]) -> pa.Table:
    """Return one row a tissue: whose it is, and how it was imaged."""
    parts: list[pa.Table] = []
    names = [cohort.name for cohort in cohorts]
    for number, cohort in enumerate(cohorts):
        ids = cohort.tissue_ids
        parts.append(
            pa.table(
                {
                    "dataset_name": dictionary(names, np.full(len(ids), number)),
                    "tissue_id": pa.array(ids, pa.string()),
                    "patient_id": pa.array(list(cohort.patients.values()), pa.string()),
                    "modalities": pa.array(
                        [list(kinds) for kinds in cohort.tissues.values()], pa.list_(pa.string())
                    ),
                }
            )
        )
    return pa.concat_tables(parts)


def first_tiles(cohorts: Sequence[CohortIndex]) -> list[int]:
    """Return the global number of each cohort's first tile: those of a table follow one another."""
    counts = [len(cohort.tiles) if cohort.tiles is not None else 0 for cohort in cohorts]
    return [sum(counts[:number]) for number in range(len(counts))]


def tile_table(cohorts: Sequence[CohortIndex]) -> pa.Table:
    """Return one row a tile that may be drawn, cohort after cohort in the order of their tables."""
    names = [cohort.name for cohort in cohorts]
    parts: list[pa.Table] = []
    for number, (cohort, first) in enumerate(zip(cohorts, first_tiles(cohorts), strict=True)):
        tiles = cohort.tiles
        if tiles is None:
            continue
        table = tiles.table.select(["tissue_id", "tile_id", "row", "col"])
        rows = np.arange(first, first + len(tiles))
        inside = np.asarray([tissue in cohort.tissues for tissue in tiles.tissue_ids], np.bool_)
        if not inside.all():
            mine = np.flatnonzero(inside[tiles.rows().tissue])
            table, rows = table.take(pa.array(mine)), rows[mine]
        table = table.add_column(0, "global_tile_id", pa.array(rows))
        owner = dictionary(names, np.full(table.num_rows, number))
        parts.append(table.add_column(1, "dataset_name", owner).replace_schema_metadata(None))
    return pa.concat_tables(parts)


def described(cohorts: Sequence[CohortIndex], draws: Draws, *, tiles: bool) -> pa.Table:
    """Return draws with the names of what was drawn, in their order.

    Parameters
    ----------
    cohorts
        The datasets by number.
    draws
        What was drawn.
    tiles
        Whether the rows are of tiles; else they are numbers of tissues.
    """
    count = len(draws)
    place = np.zeros(count, np.int64)
    numbers = {name: np.zeros(count, np.int64) for name in ("tile_id", "row", "col")}
    known: list[str] = []
    first = np.asarray(first_tiles(cohorts), np.int64)
    for dataset in np.unique(draws.dataset).tolist():
        cohort, mine = cohorts[dataset], np.flatnonzero(draws.dataset == dataset)
        if tiles and cohort.tiles is not None:
            found, ids = cohort.tiles.rows(draws.row[mine]), cohort.tiles.tissue_ids
            for name, column in numbers.items():
                column[mine] = getattr(found, name)
            own = found.tissue.astype(np.int64)
        else:
            own, ids = draws.row[mine], cohort.tissue_ids
        # Only the names that occur: a cohort may have very many.
        used, code = np.unique(own, return_inverse=True)
        place[mine] = code + len(known)
        known += [ids[i] for i in used.tolist()]
    columns: dict[str, Any] = {
        "dataset_name": dictionary([cohort.name for cohort in cohorts], draws.dataset),
        "tissue_id": dictionary(known, place),
    }
    if tiles:
        columns["global_tile_id"] = pa.array(first[draws.dataset] + draws.row)
        columns |= {name: pa.array(values) for name, values in numbers.items()}
    return pa.table(columns)


def write_drawn(
    path: str | os.PathLike[str],
    draw: Callable[[int, int], pa.Table],
    count: int,
    note: Mapping[str, Any],
) -> None:
    """Write what an epoch draws, position after position, in one step and in bounded memory.

    Parameters
    ----------
    path
        A parquet file; replaced if it is there.
    draw
        Returns what is drawn at positions start ... stop - 1, as `described` does.
    count
        Positions of the epoch.
    note
        What the draws depend on; goes into the file's metadata.
    """
    schema = pa.schema([("position", pa.int64())])
    for field in draw(0, 0).schema:
        kind = pa.string() if pa.types.is_dictionary(field.type) else field.type
        schema = schema.append(pa.field(field.name, kind))
    schema = schema.with_metadata({b"microtome": json.dumps(dict(note)).encode()})
    with (
        replace_file(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        for start in range(0, count, _AT_ONCE):
            stop = min(start + _AT_ONCE, count)
            position = pa.array(np.arange(start, stop))
            table = draw(start, stop).add_column(0, "position", position)
            writer.write_table(table.cast(schema))
