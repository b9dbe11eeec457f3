"""Whole shards of local arrays, written without the engine: the same bytes, in memory that is used again.

The engine encodes every chunk into memory of its own, which costs as much in page faults as the
encoding itself. What it would write is encoded here a row of chunks at a time, by any number of
threads, and appended to files in the order in which the engine has them. Arrays that are too odd
are left to the engine.
"""

from __future__ import annotations

import os
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from ._buffers import Buffers
from ._chunk_encoder import SHUFFLES, ChunkEncoder, Run
from ._files import storage_errors, sync_directory
from ._shard_files import MISSING, chunk_grid
from ._sharding import Sharding
from ._transfers import Box

__all__ = ["ShardDraft", "ShardWriter"]


class _Memory(threading.local):
    def __init__(self) -> None:
        self.buffers = Buffers()


_MEMORY = _Memory()


@dataclass(frozen=True, slots=True)
class ShardWriter:
    """Writes whole shards of one array.

    Parameters
    ----------
    path
        Directory of the array.
    shape, chunk, shard
        Sizes in pixels.
    dtype
        Type of a pixel.
    options
        How a chunk is compressed, as `ChunkEncoder` has it.
    """

    path: Path
    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    shard: tuple[int, ...]
    dtype: np.dtype[Any]
    options: Mapping[str, Any]
    _encoder: ChunkEncoder = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_encoder", ChunkEncoder(self.chunk, self.dtype, self.options))

    @classmethod
    def of(cls, path: Path, document: Mapping[str, Any]) -> ShardWriter | None:
        """Return a writer of the array that a metadata document describes, None if it is too odd."""
        try:
            return cls._of(path, document)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            return None

    @classmethod
    def _of(cls, path: Path, document: Mapping[str, Any]) -> ShardWriter | None:
        found = Sharding.of(document)
        if found is None:
            return None
        _, blosc = found.codecs
        how = blosc["configuration"]
        if (
            sys.byteorder != "little"
            or blosc["name"] != "blosc"
            or how["shuffle"] not in SHUFFLES
            or not (found.has_checksum and found.index_at_end)
            or found.fill not in (0, False)
        ):
            return None
        options = {
            "level": how["clevel"],
            "compressor": how["cname"],
            "shuffle": SHUFFLES[how["shuffle"]],
            "typesize": how["typesize"],
            "blocksize": how["blocksize"],
            "numthreads": 1,
        }
        return cls(path, found.shape, found.chunk, found.shard, found.dtype, options)

    def takes(self, box: Box, pixels: NDArray[Any]) -> bool:
        """Whether these are the pixels of one whole shard, as far as it lies inside the array."""
        whole = all(
            start % step == 0 and stop == min(start + step, size)
            for (start, stop), step, size in zip(box, self.shard, self.shape, strict=True)
        )
        shape = tuple(stop - start for start, stop in box)
        return whole and pixels.shape == shape and pixels.dtype == self.dtype

    def write(self, box: Box, pixels: NDArray[Any]) -> None:
        """Write a shard; it appears whole, or not at all. One without a pixel that is not 0 is no file.

        Parameters
        ----------
        box, pixels
            What `takes` takes.

        Raises
        ------
        StorageError
            If the disk refuses.
        """
        buffers = _MEMORY.buffers
        draft = ShardDraft(self, box, buffers)
        try:
            for at, part in self.rows_of(pixels):
                draft.add(at, self.encode(part, buffers))
            draft.finish()
        finally:
            draft.discard()

    def rows_of(self, pixels: NDArray[Any]) -> Iterator[tuple[tuple[int, ...], NDArray[Any]]]:
        """Cut pixels that begin where a chunk does into rows of chunks: where each is, and its pixels."""
        steps = self.chunk[:-1]
        counts = [-(-size // step) for size, step in zip(pixels.shape[:-1], steps, strict=True)]
        for at in product(*map(range, counts)):
            yield (
                at,
                pixels[tuple(slice(i * n, (i + 1) * n) for i, n in zip(at, steps, strict=True))],
            )

    def encode(self, pixels: NDArray[Any], buffers: Buffers) -> Run:
        """Encode chunks that lie side by side along the last axis, as `ChunkEncoder.encode` does."""
        return self._encoder.encode(pixels, buffers)


class ShardDraft:
    """A shard that rows of chunks are added to; it appears when it is finished.

    Parameters
    ----------
    writer
        Of the array.
    box
        The shard, as far as it lies inside the array.
    buffers
        Where memory of what was added goes.

    Raises
    ------
    StorageError
        If the disk refuses, here and in all that follows.
    """

    def __init__(self, writer: ShardWriter, box: Box, buffers: Buffers) -> None:
        self._path = writer.path
        self._buffers = buffers
        self._index = np.full((*chunk_grid(writer.shard, writer.chunk), 2), MISSING, "<u8")
        counts = [
            -(-(stop - start) // step)
            for (start, stop), step in zip(box, writer.chunk, strict=True)
        ]
        # Threads encode rows in any order; on disk they have one.
        self._order = product(*map(range, counts[:-1]))
        self._next: tuple[int, ...] | None = next(self._order)
        self._waiting: dict[tuple[int, ...], Run] = {}
        self._offset = 0
        numbers = [start // step for (start, _), step in zip(box, writer.shard, strict=True)]
        self._final = writer.path.joinpath("c", *map(str, numbers))
        self._temporary = self._final.with_name(
            f".{self._final.name}.{uuid.uuid4().hex[:12]}.partial"
        )
        with storage_errors(self._path):
            self._final.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._temporary.open("wb", buffering=0)

    def add(self, at: tuple[int, ...], run: Run) -> None:
        """Add a row of chunks, each once, in any order; from one thread.

        Parameters
        ----------
        at
            Its place among the chunks of the shard, along every axis but the last.
        run
            The row.
        """
        self._waiting[at] = run
        with storage_errors(self._path):
            while self._next is not None and self._next in self._waiting:
                found = self._waiting.pop(self._next)
                self._append(self._next, found)
                self._next = next(self._order, None)

    def finish(self) -> None:
        """Let the shard appear, in the place of one that is there; all rows were added."""
        with storage_errors(self._path):
            try:
                numbers = self._index.tobytes()
                self._write(numbers + google_crc32c.value(numbers).to_bytes(4, "little"))
                os.fsync(self._file.fileno())
                self._file.close()
                if self._offset:
                    self._temporary.replace(self._final)
                else:
                    self._final.unlink(missing_ok=True)
            finally:
                self.discard()
            sync_directory(self._final.parent)

    def discard(self) -> None:
        """Leave nothing behind, unless it was finished."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)

    def _append(self, at: tuple[int, ...], run: Run) -> None:
        lengths = np.array(run.lengths, np.uint64)
        there = lengths > 0
        entries = self._index[at][: len(lengths)]
        ends = np.cumsum(lengths)
        entries[there, 0] = (ends - lengths)[there] + np.uint64(self._offset)
        entries[there, 1] = lengths[there]
        self._write(run.bytes.data)
        self._offset += len(run.bytes)
        self._buffers.give(run.bytes)

    def _write(self, data: bytes | memoryview) -> None:
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) or 0 :]
