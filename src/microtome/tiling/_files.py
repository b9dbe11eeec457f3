"""Tables of tiles on disk, and what a file states about itself."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from microtome.errors import (
    FormatError,
    InvalidInputError,
    MicrotomeError,
    NotFoundError,
    StorageError,
)
from microtome.storage import StorePath, file_source, replace_file

from ._tile import read_size

__all__ = ["Stated", "read_stated", "read_table", "table_errors", "write_arrow", "write_parquet"]

_KEY = b"microtome"
_FORMAT = "tile-table"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Stated:
    """What a file of tiles states about itself beside the columns; None where it says nothing."""

    tile_size: tuple[int, int] | None = None
    strategy: str | None = None
    resolution: str | None = None

    def merge(self, other: Stated, path: Path) -> Stated:
        """Fill what is not stated from another; where both state it they must agree."""
        for name in ("tile_size", "strategy", "resolution"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours is not None and theirs not in {None, ours}:
                raise InvalidInputError(f"{path} has {name} {ours!r}, not {theirs!r}")
        return Stated(
            self.tile_size or other.tile_size,
            self.strategy or other.strategy,
            self.resolution or other.resolution,
        )

    def note(self) -> dict[bytes, bytes]:
        """Metadata for the Arrow schema."""
        content = {"format": _FORMAT, "version": _VERSION, **asdict(self)}
        return {_KEY: json.dumps(content).encode()}

    @classmethod
    def from_note(cls, metadata: Mapping[bytes, bytes] | None) -> Stated:
        """What the metadata of an Arrow schema say; nothing in a file that is not ours."""
        text = (metadata or {}).get(_KEY)
        if text is None:
            return cls()
        note = json.loads(text)
        if not isinstance(note, dict):
            raise TypeError(f"its note is {note!r}, no object")
        if note.get("format") != _FORMAT or note.get("version", 0) > _VERSION:
            raise ValueError(
                f"it is a microtome {note.get('format')} of version {note.get('version')}, and "
                f"this microtome reads {_FORMAT} up to version {_VERSION}"
            )
        strategy, resolution = note["strategy"], note["resolution"]
        if not isinstance(strategy, str | None) or not isinstance(resolution, str | None):
            raise TypeError(
                f"its strategy is {strategy!r} and its resolution {resolution!r}, no names"
            )
        return cls(read_size(note["tile_size"], "tile_size"), strategy, resolution)


@contextmanager
def table_errors(path: Path) -> Generator[None]:
    """Turn what Arrow and the system say of a file of tiles into our errors.

    Raises
    ------
    NotFoundError
        If there is no such file.
    FormatError
        If it is damaged, or not a table.
    StorageError
        If it may not be read.
    """
    try:
        yield
    except MicrotomeError:
        raise
    except FileNotFoundError:
        raise NotFoundError(f"{path} does not exist") from None
    except PermissionError as error:
        raise StorageError(f"not allowed to read {path}") from error
    except (
        pa.ArrowException,
        OSError,
        ValueError,
        TypeError,
        KeyError,
        RecursionError,
    ) as error:
        raise FormatError(f"{path} is not a table of tiles: {error}") from error


def read_table(path: Path) -> tuple[pa.Table, Stated]:
    """Open an `.arrow` or parquet file memory-mapped; parquet is decoded.

    Raises
    ------
    NotFoundError, FormatError, StorageError
        As `table_errors` says.
    """
    with table_errors(path):
        table = _read_arrow(path) if path.suffix == ".arrow" else _read_parquet(path)
        return table, Stated.from_note(table.schema.metadata)


def read_stated(path: Path) -> Stated:
    """What a parquet file states about itself, without its rows; errors as of `read_table`."""
    with table_errors(path):
        return Stated.from_note(pq.read_schema(file_source(path)).metadata)


def _read_arrow(path: Path) -> pa.Table:
    stored = isinstance(path, StorePath)
    with pa.BufferReader(path.read_bytes()) if stored else pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
    # A damaged file could point outside its own buffers; parquet is decoded and cannot.
    table.validate(full=True)
    return table


def _read_parquet(path: Path) -> pa.Table:
    with pq.ParquetFile(file_source(path), memory_map=True, read_dictionary=["tissue_id"]) as file:
        return file.read()


def write_parquet(table: pa.Table, path: str | os.PathLike[str]) -> None:
    """Write a parquet file, replacing the one that is there."""
    with replace_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def write_arrow(table: pa.Table, path: str | os.PathLike[str]) -> None:
    """Write an uncompressed Arrow file, which opens memory-mapped; replaces the one there."""
    with replace_file(path) as temporary, pa.ipc.new_file(temporary, table.schema) as writer:
        writer.write_table(table)
