"""The tables of a cohort, and that of its tissues.

Rows are added under the cohort's lock by reading, changing and replacing the whole file, so that
a reader sees the old table or the new one. Columns that we do not know (clinical data, another
tool's) are kept as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from microtome.errors import (
    FormatError,
    InvalidInputError,
    NotFoundError,
    StorageError,
)
from microtome.storage import locked, replace_file

from ._columns import verify_filled, verify_flat, verify_named_once, verify_text
from ._layout import CohortLayout
from ._modality import Modality
from ._partial import sweep

__all__ = [
    "TISSUES_SCHEMA",
    "add_tissue",
    "add_tissues",
    "read_parquet",
    "read_tissues",
    "tissue_row",
    "write_parquet",
]

TISSUES_SCHEMA = pa.schema(
    [
        ("tissue_id", pa.string()),
        ("dataset", pa.string()),
        ("patient_id", pa.string()),
        ("specimen_id", pa.string()),
        ("modality", pa.string()),
        ("split", pa.string()),
        # Of the source, not of the cohort's images, whose pixel size is their directory's name.
        ("mpp", pa.float64()),
        ("mpp_source", pa.string()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("source", pa.string()),
        ("sha256", pa.string()),
    ]
)


def read_parquet(path: Path, required: Sequence[str]) -> pa.Table:
    """Read a table.

    Parameters
    ----------
    path
        The file.
    required
        Columns that must be there.

    Raises
    ------
    NotFoundError
        If there is no file.
    FormatError
        If it is no parquet file, lacks a column or has two of one name.
    """
    if not path.is_file():
        msg = f"{path} does not exist"
        raise NotFoundError(msg)
    try:
        # One handle: `pq.read_table` opens a path twice, and a writer may replace the file between.
        with path.open("rb") as file:
            table = pq.ParquetFile(file).read()
        # Text that is none would be met by whoever reads it first.
        table.validate(full=True)
    except StorageError:
        raise  # of a store that cannot be reached, which says nothing of the file
    # Of names of columns that are no text, Arrow says nothing itself.
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        msg = f"{path} is not a parquet file that can be read: {error}"
        raise FormatError(msg) from error
    missing = [name for name in required if name not in table.column_names]
    if missing:
        msg = f"{path} lacks the columns {missing}; it has {table.column_names}"
        raise FormatError(msg)
    verify_named_once(table, path)
    for name in required:
        verify_flat(table, name, path)
    return table


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a table in one step; under the cohort's lock."""
    sweep(path)
    with replace_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_tissues(layout: CohortLayout) -> pa.Table:
    """Return the table of tissues.

    Raises
    ------
    FormatError
        If a column or a value of it is missing, modalities are no text, or a (tissue_id, modality)
        is there twice.
    """
    if not layout.tissues.is_file() and layout.manifest.is_file():
        return TISSUES_SCHEMA.empty_table()
    table = read_parquet(layout.tissues, ["tissue_id", "modality"])
    for name in ("tissue_id", "modality"):
        verify_filled(table, name, layout.tissues)
    verify_text(table, "modality", layout.tissues)
    keys = (
        table.select(["tissue_id", "modality"])
        .group_by(["tissue_id", "modality"])
        .aggregate([([], "count_all")])
    )
    twice = keys.filter(pc.greater(keys["count_all"], 1))
    if twice.num_rows:
        row = twice.slice(0, 1).to_pylist()[0]
        msg = f"{layout.tissues}: tissue {row['tissue_id']!r} has {row['count_all']} rows for modality {row['modality']!r}"
        raise FormatError(msg)
    return table


def tissue_row(layout: CohortLayout, tissue_id: str, modality: Modality) -> dict[str, Any] | None:
    """Return the row of a tissue and modality, or None."""
    table = read_tissues(layout)
    found = table.filter(
        pc.and_(
            pc.equal(table["tissue_id"].cast(pa.string()), tissue_id),
            pc.equal(table["modality"].cast(pa.string()), modality.name),
        )
    )
    return found.to_pylist()[0] if found.num_rows else None


def add_tissue(layout: CohortLayout, row: Mapping[str, Any]) -> None:
    """Add or replace the row of a (tissue_id, modality)."""
    add_tissues(layout, [row])


def add_tissues(layout: CohortLayout, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add or replace rows, in their order; the table is written once, and not if nothing is new.

    Parameters
    ----------
    layout
        The cohort.
    rows
        With `tissue_id` and `modality`. What one says nothing of stays as it was, and so does the
        place of a row that is there.
    """
    with locked(layout.lock, what=f"the cohort {layout.root}"):
        # Another process may have begun the cohort, failed, and undone that.
        layout.write_manifest()
        table = read_tissues(layout)
        ids, modalities = (
            table[name].cast(pa.string()).to_pylist() for name in ("tissue_id", "modality")
        )
        places = {key: place for place, key in enumerate(zip(ids, modalities, strict=True))}
        fields = {field.name: field.type for field in [*TISSUES_SCHEMA, *table.schema]}
        order = list(range(table.num_rows))
        added: list[pa.Table] = []
        for row in rows:
            place = places.get((row["tissue_id"], row["modality"]))
            old = {} if place is None else table.slice(place, 1).to_pylist()[0]
            known = {**old, **{k: v for k, v in row.items() if v is not None}}
            if place is not None:
                if known == old:
                    continue
                # Where the old one was: the order of tissues is that of epochs.
                order[place] = table.num_rows + len(added)
            else:
                order.append(table.num_rows + len(added))
            added.append(
                pa.table(
                    {
                        name: _column(layout.tissues, name, known.get(name), kind)
                        for name, kind in fields.items()
                    }
                )
            )
        if not added:
            return
        merged = pa.concat_tables([table, *added], promote_options="default")
        merged = merged.combine_chunks().take(pa.array(order, pa.int64()))
        write_parquet(merged.replace_schema_metadata(None), layout.tissues)


def _column(path: Path, name: str, value: Any, kind: pa.DataType) -> pa.Array:
    """Return a column of one value, of the type that the column has in a table made elsewhere."""
    try:
        return pa.array([value], type=kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        try:
            return pa.array([value]).cast(kind)
        except (pa.ArrowException, ValueError):
            msg = f"{path}: column {name!r} holds {kind}, which {value!r} is not"
            raise InvalidInputError(msg) from error
