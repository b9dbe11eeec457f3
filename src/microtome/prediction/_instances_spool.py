"""Labels of tiles in one file, compressed: a slide's do not fit into memory.

Tiles are appended as they come. A record says how long it is and what its bytes sum up to, so that
of a file whose writer was killed all is read but the record that it was writing.
"""

from __future__ import annotations

import json
import os
import struct
import tempfile
import uuid
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from microtome.storage import storage_errors

from ._merge import label_type
from ._resuming import Claim, verify_settings

__all__ = ["InstanceWorkplace", "Spool"]

# Of the facts, of the labels, and the checksum of both.
_HEAD = struct.Struct("<IQI")
# Of labels that are held decoded: a row of tiles of a slide 100,000 pixels wide takes 90 MiB.
_CACHE_BYTES = 192 << 20
_VERSION = 1


class Spool:
    """Pieces in a file, read back by number.

    Parameters
    ----------
    file
        Open for reading and writing, at its end.
    path
        What it is called in messages.
    """

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file = file
        self._path = path
        self._codec: Any = pa.Codec("zstd", compression_level=1)
        self._records: list[tuple[int, int, tuple[int, ...], np.dtype[Any]]] = []
        self._decoded: OrderedDict[int, NDArray[Any]] = OrderedDict()
        self._bytes = 0
        self._end = file.seek(0, os.SEEK_END)

    def __len__(self) -> int:
        return len(self._records)

    @classmethod
    def temporary(cls, out: Path) -> Spool:
        """Begin one beside what it is for; the system removes it, whatever becomes of the process."""
        with storage_errors(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            file = tempfile.TemporaryFile(dir=out.parent, prefix=f".{out.name}.")  # noqa: SIM115 - closed by close
        return cls(cast("IO[bytes]", file), out)

    def append(self, facts: NDArray[np.int64], labels: NDArray[Any], /) -> None:
        """Keep a piece."""
        told = np.ascontiguousarray(facts, "<i8").tobytes()
        held = np.ascontiguousarray(labels, labels.dtype.newbyteorder("<"))
        packed = self._codec.compress(held.tobytes(), asbytes=True)
        head = _HEAD.pack(len(told), len(packed), zlib.crc32(packed, zlib.crc32(told)))
        with storage_errors(self._path):
            self._file.seek(self._end)
            self._file.write(head + told + packed)
            self._file.flush()
        self._count(facts, len(told), len(packed))

    def labels(self, number: int, /) -> NDArray[Any]:
        """Return the labels of a piece; read-only."""
        found = self._decoded.get(number)
        if found is not None:
            self._decoded.move_to_end(number)
            return found
        offset, length, shape, dtype = self._records[number]
        self._file.seek(offset)
        packed = self._file.read(length)
        size = int(np.prod(shape)) * dtype.itemsize
        made = np.frombuffer(self._codec.decompress(packed, size), dtype).reshape(shape)
        self._decoded[number] = made
        self._bytes += made.nbytes
        while self._bytes > _CACHE_BYTES and len(self._decoded) > 1:
            self._bytes -= self._decoded.popitem(last=False)[1].nbytes
        return made

    def recover(self, start: int) -> list[NDArray[np.int64]]:
        """Find the records of an earlier process, and cut off what is no whole one.

        Parameters
        ----------
        start
            Where the first record begins.

        Returns
        -------
        What is known of each.
        """
        found: list[NDArray[np.int64]] = []
        self._end = self._file.seek(start)
        while True:
            head = self._file.read(_HEAD.size)
            if len(head) < _HEAD.size:
                break
            of_facts, of_labels, checksum = _HEAD.unpack(head)
            told, packed = self._file.read(of_facts), self._file.read(of_labels)
            if len(packed) < of_labels or zlib.crc32(packed, zlib.crc32(told)) != checksum:
                break
            facts = np.frombuffer(told, "<i8").astype(np.int64)
            self._count(facts, of_facts, of_labels)
            found.append(facts)
        with storage_errors(self._path):
            self._file.truncate(self._end)
        return found

    def close(self) -> None:
        """Close the file."""
        self._decoded.clear()
        self._file.close()

    def _count(self, facts: NDArray[np.int64], of_facts: int, of_labels: int) -> None:
        rank = len(facts) // 5
        start, stop = facts[1 + rank : 1 + 2 * rank], facts[1 + 2 * rank : 1 + 3 * rank]
        kind = label_type(int(facts[-1]), smallest=True).newbyteorder("<")
        offset = self._end + _HEAD.size + of_facts
        self._records.append((offset, of_labels, tuple((stop - start).tolist()), kind))
        self._end = offset + of_labels


class InstanceWorkplace:
    """What a run that was killed leaves behind, held by one process.

    A hidden file beside `out`: a line of JSON, then pieces. Parameters and errors are those of the
    `Workplace` that dense maps have.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
        self.path = out.parent / f".{out.name}.instances"
        self.run = uuid.uuid4().hex[:12]
        self.found: list[NDArray[np.int64]] = []
        self._claim = Claim(out, self.path)
        try:
            with storage_errors(out):
                self.spool = self._opened(json.loads(json.dumps(settings)), resume=resume)
        except BaseException:
            self._claim.release()
            raise

    def close(self, *, keep: bool) -> None:
        """Leave the file to the next run, or remove it."""
        self.spool.close()
        if not (keep and len(self.spool)):
            self.path.unlink(missing_ok=True)
        self._claim.release()

    def _opened(self, settings: dict[str, Any], *, resume: bool) -> Spool:
        left = _first_line(self.path) if resume else None
        if left is not None:
            document, start = left
            verify_settings(self.path, document["settings"], settings)
            self.run = document["run"]
            spool = Spool(self.path.open("r+b"), self.path)
            self.found = spool.recover(start)
            return spool
        file = self.path.open("w+b")
        document = {"version": _VERSION, "run": self.run, "settings": settings}
        file.write(json.dumps(document).encode() + b"\n")
        file.flush()
        return Spool(file, self.path)


def _first_line(path: Path) -> tuple[dict[str, Any], int] | None:
    """Return the document of a run that was left, and where its records begin."""
    try:
        with path.open("rb") as file:
            line = file.readline()
        document: Any = json.loads(line)
    except (FileNotFoundError, ValueError):
        return None
    if not line.endswith(b"\n") or document.get("version") != _VERSION:
        return None
    return document, len(line)
