"""Vectors of tiles that a killed run left: a file a block of tiles, until all of them are there."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from microtome.errors import ExistsError
from microtome.storage import replace_file, storage_errors

from ._output import as_array
from ._resuming import Claim, verify_settings

__all__ = ["BLOCK", "Parts", "checksums", "sampled_rows"]

BLOCK = 1024
"""Tiles whose vectors are kept together; what a kill costs at most."""

_VERSION = 2
# Of each block that is there so many tiles are read again, to see whether they are still the same.
_LOOKED_AT = 8
_PIXELS = b"pixels"


class Parts:
    """A hidden directory beside a table of vectors, with those that are there.

    Parameters
    ----------
    out
        Where the table will be.
    settings
        What the vectors depend on.
    resume
        Whether what is there is gone on with.

    Raises
    ------
    BusyError
        If another process makes the same table.
    ExistsError
        If vectors of other settings are there, and `resume` is true.
    StorageError
        If the disk refuses.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
        self._out = out
        self._settings = dict(settings)
        self.path = out.parent / f".{out.name}.embedding"
        self._claim = Claim(out, self.path)
        try:
            with storage_errors(out):
                self._take_up(resume=resume)
        except BaseException:
            self._claim.release()
            raise

    @property
    def there(self) -> list[int]:
        """Numbers of the blocks whose vectors are there."""
        return sorted(int(path.stem) for path in self.path.glob("[0-9]*.arrow"))

    def read(self, number: int) -> pa.Table:
        """Return the rows of a block."""
        with storage_errors(self._out), pa.OSFile(str(self._file(number))) as file:
            return pa.ipc.open_file(file).read_all()

    def write(self, number: int, table: pa.Table, pixels: Sequence[int]) -> None:
        """Keep the rows of a block.

        Parameters
        ----------
        number
            Of the block.
        table
            Its rows.
        pixels
            Checksums of those of its tiles that are looked at when the run is gone on with.
        """
        noted = table.replace_schema_metadata({_PIXELS: json.dumps(list(pixels)).encode()})
        with storage_errors(self._out):
            if not self.path.is_dir():
                self.path.mkdir()
                with replace_file(self._journal) as temporary:
                    temporary.write_text(json.dumps(self._document(), indent=1), encoding="utf-8")
            with (
                replace_file(self._file(number)) as temporary,
                pa.OSFile(str(temporary), "wb") as file,
                pa.ipc.new_file(file, noted.schema) as writer,
            ):
                writer.write_table(noted)

    def verify(self, number: int, table: pa.Table, pixels: Sequence[int]) -> None:
        """Refuse to go on where a block is of other tiles.

        Parameters
        ----------
        number
            Of the block.
        table
            What some of its tiles are called and where they lie, as the columns of the block have it.
        pixels
            Their checksums.

        Raises
        ------
        ExistsError
            If they are not what they were.
        """
        found = self.read(number)
        rows = sampled_rows(found.num_rows)
        before = found.select(table.column_names).take(pa.array(rows))
        if before.num_rows == table.num_rows and before.replace_schema_metadata().equals(table):
            if json.loads((found.schema.metadata or {}).get(_PIXELS, b"[]")) == list(pixels):
                return
            what = "the pixels of its tiles are others"
        else:
            what = f"its tiles are others: {before.slice(0, 1).to_pylist()} then, {table.slice(0, 1).to_pylist()} now"
        msg = f"vectors of other tiles were left at {self.path}, block {number}: {what}; start over with resume=False"
        raise ExistsError(msg)

    def close(self, *, keep: bool) -> None:
        """Leave what is there to the next run, if it is anything, or remove it."""
        if not (keep and self.there):
            shutil.rmtree(self.path, ignore_errors=True)
        self._claim.release()

    @property
    def _journal(self) -> Path:
        return self.path / "journal.json"

    def _file(self, number: int) -> Path:
        return self.path / f"{number}.arrow"

    def _document(self) -> dict[str, Any]:
        return {"version": _VERSION, "settings": self._settings}

    def _take_up(self, *, resume: bool) -> None:
        try:
            document: Any = json.loads(self._journal.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            document = None  # nothing was left, or a journal that was being written
        if not resume or not isinstance(document, dict) or document.get("version") != _VERSION:
            if self.path.exists():
                shutil.rmtree(self.path)
            return
        verify_settings(self.path, document["settings"], self._settings)


def sampled_rows(count: int) -> NDArray[np.int64]:
    """Return which tiles of a block are looked at again."""
    return np.unique(np.linspace(0, count - 1, min(count, _LOOKED_AT)).astype(np.int64))


def checksums(data: Any) -> Iterator[int]:
    """Yield a checksum of the pixels of each tile of a batch."""
    for tile in as_array(data):
        pixels = np.ascontiguousarray(tile)
        yield zlib.crc32(
            pixels.reshape(-1).view(np.uint8).data, zlib.crc32(str(pixels.dtype).encode())
        )
