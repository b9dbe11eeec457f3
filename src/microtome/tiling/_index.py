"""An index of a table of tiles: its positions, checked once and opened since without a look at them.

A parquet file is decoded and checked row by row whenever it is opened, which takes time and memory
in proportion to its tiles. The index beside it is an Arrow file of the four columns that place a
tile, memory-mapped, and states what was checked when it was made: how many tiles each tissue has,
and of which parquet file. That it is about this file still is seen from the file's size, time and
footer.

It is written in bounded memory. Arrow puts a column down in one piece only if it holds it in one,
so the file is laid out with columns of zeros that were never in memory, which leave holes in it,
and the holes are filled as the parquet file is read.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from microtome.errors import ConflictError, FormatError, InvalidInputError
from microtome.storage import replace_file

from ._columns import TILE_SCHEMA, TileRows, canonical_table, tile_columns, tissue_names
from ._files import Stated, table_errors

__all__ = ["Indexed", "index_path", "read_index", "write_index"]

_log = logging.getLogger(__name__)

_KEY = b"microtome.tile_index"
_VERSION = 1
_BATCH = 1 << 18
# Of the end of a parquet file: the length of its footer, and "PAR1".
_TAIL = 8


@dataclass(frozen=True, slots=True, eq=False)
class Indexed:
    """What an index holds."""

    table: pa.Table
    stated: Stated
    rows: TileRows
    tissue_ids: tuple[str, ...]
    offsets: NDArray[np.int64]
    """First row of each tissue, and the number of rows, (tissues + 1,)."""


def index_path(path: Path) -> Path:
    """Return where the index of a parquet file lies."""
    return path.with_suffix(".arrow")


def read_index(path: Path, *, validate: bool = False) -> Indexed | None:
    """Open the index of a parquet file; None if there is none, or one of another file.

    Parameters
    ----------
    path
        The parquet file.
    validate
        Check every row again, in time proportional to their number.

    Raises
    ------
    FormatError
        If it is damaged.
    """
    place = index_path(path)
    if not place.is_file():
        return None
    with table_errors(place):
        with pa.memory_map(str(place)) as source:
            table = pa.ipc.open_file(source).read_all()
        note = _note(table)
        if note is None or note["source"] != _source(path):
            _log.info("%s is no index of %s as it is now; index it anew", place, path)
            return None
        stated = Stated.from_note(table.schema.metadata)
        counts = np.asarray(note["counts"], np.int64)
        _verify(table, counts)
        if validate:
            table.validate(full=True)
        names = tissue_names(table)
        if len(names) != counts.size:
            raise ValueError(f"it names {len(names)} tissues and counts {counts.size}")
        offsets = np.concatenate([[0], np.cumsum(counts)])
        rows = tile_columns(table)
        if validate:
            if not np.array_equal(rows.tissue, np.repeat(np.arange(counts.size), counts)):
                raise ValueError("its tiles are not those that it counts")
            try:
                canonical_table(table)
            except InvalidInputError as error:
                raise FormatError(f"{place}: {error}") from error
    # Without the note: it is true of this file, not of what is made of the table.
    plain = table.replace_schema_metadata(stated.note())
    return Indexed(plain, stated, rows, tuple(names), offsets)


def _note(table: pa.Table) -> dict[str, Any] | None:
    text = (table.schema.metadata or {}).get(_KEY)
    note = None if text is None else json.loads(text)
    return note if note is not None and note["version"] == _VERSION else None


def _verify(table: pa.Table, counts: NDArray[np.int64]) -> None:
    """Check what can be seen without the rows; the columns' lengths Arrow has compared itself."""
    if table.num_rows != counts.sum() or (counts < 1).any():
        raise ValueError(f"it has {table.num_rows} rows and counts {counts.sum()}")
    if not table.schema.equals(TILE_SCHEMA):
        raise ValueError(f"its columns are {table.schema.remove_metadata()}")
    if any(column.num_chunks != 1 or column.null_count for column in table.columns):
        raise ValueError("its columns do not lie in one piece")


def write_index(path: Path, stated: Stated) -> Path:
    """Write the index of a parquet file in one step, in bounded memory; replaces the one there.

    Parameters
    ----------
    path
        The parquet file. Its tiles lie tissue after tissue.
    stated
        What it states about itself.

    Returns
    -------
    Where the index is.

    Raises
    ------
    FormatError
        If the columns do not make a tile table; names the first wrong row.
    InvalidInputError
        If the tiles of a tissue lie in two places, or there are none.
    ConflictError
        If the parquet file is replaced meanwhile.
    """
    place = index_path(path)
    with table_errors(path):
        source = _source(path)
        names, counts = _tissues(path)
        note = {"version": _VERSION, "source": source, "counts": counts}
        metadata = {**stated.note(), _KEY: json.dumps(note).encode()}
    with replace_file(place) as temporary:
        at = _laid_out(temporary, names, sum(counts), metadata)
        with table_errors(path), temporary.open("r+b", buffering=0) as file:
            for start, rows in _checked(path):
                for name, values in rows.items():
                    offset = at[name] + start * values.itemsize
                    _fill(file, offset, np.ascontiguousarray(values).data.cast("B"))
        if _source(path) != source:
            raise ConflictError(f"{path} was replaced while it was indexed; index it again")
    return place


def _source(path: Path) -> dict[str, Any]:
    """Say which parquet file this is, without reading its rows."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        file.seek(max(0, status.st_size - _TAIL))
        length = int.from_bytes(file.read(4), "little")
        file.seek(max(0, status.st_size - _TAIL - length))
        footer = hashlib.sha256(file.read()).hexdigest()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "footer_sha256": footer}


def _batches(path: Path, columns: list[str] | None) -> Generator[tuple[int, pa.Table], None, None]:
    """Read a parquet file in pieces, with the number of each one's first row."""
    start = 0
    with pq.ParquetFile(path, memory_map=True, read_dictionary=["tissue_id"]) as file:
        there = file.schema_arrow.names
        missing = [name for name in TILE_SCHEMA.names if name not in there]
        if missing:
            raise FormatError(f"{path}: no column {', '.join(map(repr, missing))}; it has {there}")
        for batch in file.iter_batches(_BATCH, columns=columns):
            yield start, pa.Table.from_batches([batch])
            start += batch.num_rows


def _tissues(path: Path) -> tuple[list[str], list[int]]:
    """Return the tissues in the order of their tiles, and how many each has."""
    counts: dict[str, int] = {}
    last: str | None = None
    for start, table in _batches(path, ["tissue_id"]):
        column: Any = table["tissue_id"].combine_chunks()
        if not pa.types.is_dictionary(column.type):
            raise FormatError(f"{path}: column 'tissue_id' must hold strings, got {column.type}")
        if column.null_count:
            row = start + int(column.is_null().to_numpy(zero_copy_only=False).argmax())
            raise FormatError(f"{path}: column 'tissue_id' has no value in row {row}")
        codes: NDArray[Any] = column.indices.to_numpy(zero_copy_only=False)
        edges = np.flatnonzero(np.diff(codes, prepend=codes[:1] - 1))
        lengths = np.diff(edges, append=codes.size)
        known = column.dictionary.to_pylist()
        for edge, length in zip(edges.tolist(), lengths.tolist(), strict=True):
            name = known[int(codes[edge])]
            if name in counts and name != last:
                raise InvalidInputError(
                    f"{path}: the tiles of tissue {name!r} go on in row {start + edge} after those "
                    "of others; an index needs them tissue after tissue: sort the table"
                )
            counts[name] = counts.get(name, 0) + length
            last = name
    if not counts:
        raise InvalidInputError(f"{path} has no tiles to index")
    return list(counts), list(counts.values())


def _checked(path: Path) -> Generator[tuple[int, dict[str, NDArray[Any]]], None, None]:
    """Read the columns in pieces, each checked as a table of tiles is."""
    names: dict[str, int] = {}
    own: list[NDArray[np.int64]] = []  # ids of the last tissue, which may go on in the next piece
    for start, piece in _batches(path, TILE_SCHEMA.names):
        try:
            table = canonical_table(piece)
        except InvalidInputError as error:
            raise FormatError(f"{path}, rows from {start}: {error}") from error
        rows, known = tile_columns(table), tissue_names(table)
        goes_on = bool(names) and known[0] == next(reversed(names))
        codes = np.asarray([names.setdefault(name, len(names)) for name in known], np.int32)
        for number, name in enumerate(known):
            if number or not goes_on:
                own = []
            if 0 < number < len(known) - 1:
                continue  # begins and ends here: checked with the piece
            own.append(rows.tile_id[rows.tissue == number])
            if len(own) > 1:
                _refuse_repeated(path, name, np.concatenate(own))
        yield (
            start,
            {
                "tissue_id": codes[rows.tissue],
                "tile_id": rows.tile_id,
                "row": rows.row,
                "col": rows.col,
            },
        )


def _refuse_repeated(path: Path, name: str, ids: NDArray[np.int64]) -> None:
    ordered = np.sort(ids)
    again = ordered[1:][ordered[1:] == ordered[:-1]]
    if again.size:
        raise FormatError(
            f"{path}: column 'tile_id' repeats {again[0]} of tissue {name!r}; a tile id occurs once "
            "in a tissue"
        )


class _Holed(io.RawIOBase):
    """A file in which buffers of zeros become holes."""

    def __init__(self, file: io.RawIOBase, zeros: pa.Buffer) -> None:
        super().__init__()
        self._file, self._zeros = file, zeros

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if isinstance(data, pa.Buffer) and size and data.address == self._zeros.address:
            self._file.seek(size, os.SEEK_CUR)
            return size
        _write_all(self._file, memoryview(data).cast("B"))
        return size


def _laid_out(
    path: Path, names: list[str], count: int, metadata: dict[bytes, bytes]
) -> dict[str, int]:
    """Write an Arrow file of so many rows, and return where in it each column begins."""
    zeros = pa.py_buffer(np.zeros(count, np.int64))  # never touched, so never in memory
    codes = pa.Array.from_buffers(pa.int32(), count, [None, zeros.slice(0, 4 * count)])
    tissue = pa.DictionaryArray.from_arrays(codes, pa.array(names, pa.string()), safe=False)
    number = pa.Array.from_buffers(pa.int64(), count, [None, zeros])
    schema = TILE_SCHEMA.with_metadata(metadata)
    batch = pa.RecordBatch.from_arrays([tissue, number, number, number], schema=schema)
    with path.open("wb", buffering=0) as file:
        sink = pa.PythonFile(_Holed(file, zeros), mode="w")
        with pa.ipc.new_file(sink, schema) as writer:
            writer.write_batch(batch)
        file.truncate()
    with pa.memory_map(str(path)) as source:
        begin = source.read_buffer(1).address
        source.seek(0)
        columns = pa.ipc.open_file(source).get_batch(0).columns
        return {
            name: _values(column).address - begin
            for name, column in zip(TILE_SCHEMA.names, columns, strict=True)
        }


def _values(column: Any) -> pa.Buffer:
    plain = column.indices if isinstance(column, pa.DictionaryArray) else column
    return plain.buffers()[1]


def _fill(file: io.FileIO, offset: int, data: memoryview) -> None:
    file.seek(offset)
    _write_all(file, data)


def _write_all(file: Any, data: memoryview) -> None:
    while data:
        data = data[file.write(data) :]
