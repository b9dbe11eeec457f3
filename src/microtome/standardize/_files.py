"""One table of channel statistics as a parquet file that pandas, and so spora_io, can read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from microtome.errors import FormatError, NotFoundError, StorageError
from microtome.storage import file_source, replace_file

from ._spec import Level

__all__ = ["StoredTable", "read_note", "read_table", "write_table"]

_KEY = b"microtome"
_INDEX = "tissue_id"


@dataclass(frozen=True, slots=True, eq=False)
class StoredTable:
    """What is in a file: a float32 column per channel, and at image level a row per tissue."""

    channel_names: tuple[str, ...]
    values: NDArray[np.float32]
    """(rows, C)."""
    tissue_ids: tuple[str, ...] | None
    """None at global level, which has one row."""
    note: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What we say beside the numbers; empty in a file that is not ours."""


def write_table(table: StoredTable, path: Path) -> None:
    """Write a file in one step: beside, then renamed.

    Raises
    ------
    StorageError
        If the disk refuses.
    """
    columns = dict(zip(table.channel_names, table.values.T, strict=True))
    arrow = pa.table({name: pa.array(column) for name, column in columns.items()})
    if table.tissue_ids is not None:
        arrow = arrow.append_column(_INDEX, pa.array(table.tissue_ids, pa.string()))
    metadata = {
        b"pandas": _pandas_note(arrow),
        _KEY: json.dumps(dict(table.note)).encode(),
    }
    with replace_file(path) as temporary:
        pq.write_table(arrow.replace_schema_metadata(metadata), temporary)


def read_note(path: Path) -> dict[str, Any]:
    """Return what we say in a file beside the numbers, without these; empty if it is not ours.

    Raises
    ------
    NotFoundError
        If there is no such file.
    FormatError
        If it is damaged.
    """
    try:
        metadata: dict[bytes, bytes] = pq.read_schema(file_source(path)).metadata or {}
        return dict(json.loads(metadata.get(_KEY, b"{}")))
    except FileNotFoundError:
        raise NotFoundError(f"{path} does not exist") from None
    except (pa.ArrowException, OSError, ValueError, TypeError, RecursionError) as error:
        raise FormatError(f"{path} is not a table of statistics: {error}") from error


def read_table(path: Path, level: Level) -> StoredTable:
    """Read a file, ours or one that pandas wrote.

    Raises
    ------
    NotFoundError
        If there is no such file.
    FormatError
        If it is damaged or holds something else; names the column.
    StorageError
        If it may not be read.
    """
    try:
        with pq.ParquetFile(file_source(path)) as file:
            arrow = file.read()
        metadata: dict[bytes, bytes] = arrow.schema.metadata or {}
        note = dict(json.loads(metadata.get(_KEY, b"{}")))
        index = _index_column(arrow.column_names, dict(json.loads(metadata.get(b"pandas", b"{}"))))
    except FileNotFoundError:
        raise NotFoundError(f"{path} does not exist") from None
    except PermissionError as error:
        raise StorageError(f"not allowed to read {path}") from error
    except (pa.ArrowException, OSError, ValueError, TypeError, RecursionError) as error:
        raise FormatError(f"{path} is not a table of statistics: {error}") from error
    _verify_named_once(arrow.column_names, path)
    names = tuple(name for name in arrow.column_names if name != index)
    tissues = _tissues(arrow, index, path) if level == "image" else None
    if level == "global" and arrow.num_rows != 1:
        raise FormatError(
            f"{path} must have one row, for all tissues together; got {arrow.num_rows}"
        )
    values = np.empty((arrow.num_rows, len(names)), np.float32)
    for place, name in enumerate(names):
        kind = arrow.schema.field(name).type
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            raise FormatError(f"{path}: channel {name!r} must hold numbers, got {kind}")
        # pandas writes NaN as "no value"; both are NaN here.
        values[:, place] = arrow.column(name).to_numpy()
    for what, keys in (("channel", names), ("tissue", tissues or ())):
        if len(set(keys)) < len(keys):
            again = next(key for place, key in enumerate(keys) if key in keys[:place])
            raise FormatError(f"{path}: {what} {again!r} comes more than once")
    return StoredTable(names, values, tissues, note)


def _verify_named_once(names: Sequence[str], path: Path) -> None:
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None:
        raise FormatError(f"{path}: column {twice!r} comes more than once")


def _tissues(arrow: pa.Table, index: str | None, path: Path) -> tuple[str, ...]:
    kind = None if index is None else arrow.schema.field(index).type
    if index is None or not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise FormatError(f"{path} must have an index of tissue ids, got {kind or 'none'}")
    if arrow.column(index).null_count:
        row = int(arrow.column(index).is_null().to_numpy().argmax())
        raise FormatError(f"{path} has no tissue id in row {row}")
    return tuple(arrow.column(index).to_pylist())


def _index_column(names: list[str], note: Mapping[str, Any]) -> str | None:
    """Column that is the index: what pandas noted, else by name; a range has none."""
    noted = [name for name in note.get("index_columns", ()) if isinstance(name, str)]
    if len(noted) > 1:
        raise ValueError(f"its index has several columns: {', '.join(noted)}")
    candidates = (*noted, _INDEX, "__index_level_0__")
    return next((name for name in candidates if name in names), None)


def _pandas_note(arrow: pa.Table) -> bytes:
    """What tells pandas that tissue_id is the index."""
    names = {"name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object"}
    indexed = _INDEX in arrow.column_names
    note = {
        "index_columns": [_INDEX]
        if indexed
        else [{"kind": "range", "name": None, "start": 0, "stop": 1, "step": 1}],
        "column_indexes": [{**names, "metadata": {"encoding": "UTF-8"}}],
        "columns": [
            {
                "name": name,
                "field_name": name,
                "pandas_type": "unicode" if name == _INDEX else "float32",
                "numpy_type": "object" if name == _INDEX else "float32",
                "metadata": None,
            }
            for name in arrow.column_names
        ],
        "pandas_version": "2.0.0",
    }
    return json.dumps(note).encode()
