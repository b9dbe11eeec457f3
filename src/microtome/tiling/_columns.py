"""What a table of tiles must hold, and the one form in which it is kept.

In that form `tissue_id` is a dictionary of strings in order of first appearance, positions and ids
are int64, and every column lies in one piece, so that NumPy sees it without a copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from microtome.errors import InvalidInputError

__all__ = [
    "TILE_SCHEMA",
    "TileRows",
    "as_array",
    "canonical_table",
    "count_within",
    "repeated",
    "tile_columns",
    "tissue_names",
]

_INTEGERS = ("tile_id", "row", "col")
_TISSUE = pa.dictionary(pa.int32(), pa.string())

TILE_SCHEMA = pa.schema([("tissue_id", _TISSUE), *((name, pa.int64()) for name in _INTEGERS)])
"""The columns that place a tile, in the one form."""


@dataclass(frozen=True, slots=True, eq=False)
class TileRows:
    """Rows of a tile table as NumPy columns, read-only; views of the table where it was sliced."""

    tissue: NDArray[np.int32]
    """(n,) index into the table's `tissue_ids`."""
    tile_id: NDArray[np.int64]
    row: NDArray[np.int64]
    """(n,) top-left pixels."""
    col: NDArray[np.int64]

    def __len__(self) -> int:
        return self.row.size


def canonical_table(table: pa.Table) -> pa.Table:
    """Return the same rows in the one form; no copy where they are in it already.

    Raises
    ------
    InvalidInputError
        If a column is missing, has another type or a null, or a tile id occurs twice in a tissue.
        Names the column and the first row (from 0).
    """
    missing = [name for name in ("tissue_id", *_INTEGERS) if name not in table.column_names]
    if missing:
        raise InvalidInputError(
            f"no column {', '.join(map(repr, missing))}; a tile table has tissue_id, tile_id, row "
            f"and col, this one has {', '.join(table.column_names) or 'none'}"
        )
    repeated = {name for name in table.column_names if table.column_names.count(name) > 1}
    if repeated:
        raise InvalidInputError(f"column {min(repeated)!r} occurs more than once")
    table = _replace(table, "tissue_id", _tissue_column(table["tissue_id"]))
    for name in _INTEGERS:
        table = _replace(table, name, _cast(table[name], name, pa.int64()))
        _refuse_nulls(table[name], name)
    if "tissue_frac" in table.column_names:
        table = _replace(
            table, "tissue_frac", _cast(table["tissue_frac"], "tissue_frac", pa.float32())
        )
    if "gain" in table.column_names:
        kind = pa.int64() if pa.types.is_integer(table["gain"].type) else pa.float64()
        table = _replace(table, "gain", _cast(table["gain"], "gain", kind))
    if any(column.num_chunks != 1 for column in table.columns):
        table = table.combine_chunks()
    _refuse_duplicates(table)
    return table


def tile_columns(table: pa.Table) -> TileRows:
    """Columns of a table in the one form, without a copy."""
    tissue: Any = table["tissue_id"].chunk(0)
    return TileRows(
        tissue.indices.to_numpy(zero_copy_only=True),
        *(table[name].chunk(0).to_numpy(zero_copy_only=True) for name in _INTEGERS),
    )


def tissue_names(table: pa.Table) -> list[str]:
    """Tissues of a table in the one form, in order of their first row."""
    tissue: Any = table["tissue_id"].chunk(0)
    return tissue.dictionary.to_pylist()


def _tissue_column(column: pa.ChunkedArray[Any]) -> pa.ChunkedArray[Any]:
    if len(column) == 0:
        return pa.chunked_array([pa.array([], _TISSUE)])
    kind: Any = column.type
    values = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (
        pa.types.is_string(values)
        or pa.types.is_large_string(values)
        or pa.types.is_string_view(values)
    ):
        raise InvalidInputError(f"column 'tissue_id' must hold strings, got {kind}")
    _refuse_nulls(column, "tissue_id")
    if kind != _TISSUE:
        column = _encode(column)
    column = column.unify_dictionaries()
    array: Any = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
    if len(pc.unique(array.dictionary)) != len(array.dictionary):
        array = _encode(column).combine_chunks()
    appearance: NDArray[np.int32] = pc.unique(array.indices).to_numpy()
    if not np.array_equal(appearance, np.arange(len(array.dictionary))):
        place = np.zeros(len(array.dictionary), np.int32)
        place[appearance] = np.arange(appearance.size, dtype=np.int32)
        array = pa.DictionaryArray.from_arrays(
            place[array.indices.to_numpy()], array.dictionary.take(appearance)
        )
    return pa.chunked_array([array])


def _encode(column: pa.ChunkedArray[Any]) -> pa.ChunkedArray[Any]:
    return column.cast(pa.string()).dictionary_encode().unify_dictionaries()


def _cast(column: pa.ChunkedArray[Any], name: str, kind: pa.DataType) -> pa.ChunkedArray[Any]:
    if len(column) == 0:  # an empty column may have any type, "null" above all
        return pa.chunked_array([pa.array([], kind)])
    floating = pa.types.is_floating(kind)
    if pa.types.is_integer(column.type) or (floating and pa.types.is_floating(column.type)):
        try:
            return column if column.type == kind else column.cast(kind)
        except pa.ArrowInvalid as error:
            raise InvalidInputError(f"column {name!r} does not fit {kind}: {error}") from error
    what = "numbers" if floating else "integers"
    raise InvalidInputError(f"column {name!r} must hold {what}, got {column.type}")


def _refuse_nulls(column: pa.ChunkedArray[Any], name: str) -> None:
    if pa.types.is_dictionary(column.type):
        column = column.cast(pa.string())  # the null may be in the dictionary itself
    if column.null_count:
        row = column.is_null().to_numpy().argmax()
        raise InvalidInputError(f"column {name!r} has no value in row {row}")


def _refuse_duplicates(table: pa.Table) -> None:
    rows = tile_columns(table)
    same_tissue = rows.tissue[1:] == rows.tissue[:-1]
    in_order = bool(np.all(rows.tissue[1:] >= rows.tissue[:-1]))
    # The usual table, tissue after tissue with ascending ids, needs no sorting.
    if in_order and bool(np.all((rows.tile_id[1:] > rows.tile_id[:-1]) | ~same_tissue)):
        return
    order = np.lexsort((rows.tile_id, rows.tissue))
    tissue, tile_id = rows.tissue[order], rows.tile_id[order]
    again = order[1:][(tissue[1:] == tissue[:-1]) & (tile_id[1:] == tile_id[:-1])]
    if again.size:
        row = int(again.min())
        name = table["tissue_id"][row].as_py()
        raise InvalidInputError(
            f"column 'tile_id' repeats {rows.tile_id[row]} of tissue {name!r} in row {row}; "
            "a tile id occurs once in a tissue"
        )


def _replace(table: pa.Table, name: str, column: pa.ChunkedArray[Any]) -> pa.Table:
    if column is table[name]:
        return table
    return table.set_column(table.column_names.index(name), name, column)


def as_array(values: Any) -> pa.Array[Any]:
    """Return values as an Arrow array."""
    return pa.array(values)


def repeated(tissue_id: str, count: int) -> pa.DictionaryArray[Any, Any]:
    """Return one name for so many rows."""
    codes = as_array(np.zeros(count, np.int32))
    return pa.DictionaryArray.from_arrays(codes, pa.array([tissue_id], pa.string()))


def count_within(tissue: pa.ChunkedArray[Any]) -> NDArray[np.int64]:
    """0, 1, ... in every tissue, in the order of the rows."""
    if not len(tissue):
        return np.zeros(0, np.int64)
    # Through strings, because a dictionary may hold a name twice.
    encoded: Any = tissue.cast(pa.string()).combine_chunks().dictionary_encode()
    codes: NDArray[np.int32] = encoded.indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes)
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    counted = np.empty(codes.size, np.int64)
    counted[order] = np.arange(codes.size) - starts
    return counted
