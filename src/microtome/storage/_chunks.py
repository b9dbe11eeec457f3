"""Reading local Zarr v3 arrays without the engine: chunk by chunk, straight into a buffer.

For the layouts that we write, and those of others with the same codecs or none, this takes a third of the engine's
processor time for a tile: a file is opened once and not for every read, its index is parsed once,
chunks that lie side by side are read together, and each is decoded into the same scratch memory,
which never leaves the cache, and copied from there.

It is a shortcut and nothing else. Whatever is not exactly as expected, in the metadata or in a
file, is left to the engine, which reads it or says what is wrong with it.
"""

from __future__ import annotations

import math
import os
import struct
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from microtome.errors import NotFoundError

from ._inventory import Inventory
from ._kept_chunks import HeldChunks, KeptChunks
from ._mounts import is_mappable
from ._plain_chunks import PlainChunks
from ._plans import ChunkPlan
from ._shard_files import SHARDS, Shard, ShardIndex, chunk_grid
from ._sharding import Sharding

__all__ = ["ChunkReader", "layout_of"]

Box = tuple[tuple[int, int], ...]
_Compression = Literal["blosc", "zstd"] | None

_BLOSC_HEADER = 16
# Bytes of the chunk, and of what it is compressed to.
_BLOSC_SIZES = struct.Struct("<4xI4xI")
_DAMAGED = "the chunk is damaged"
# Of chunks that are files of their own: larger ones the engine decodes on all processors, where they
# are not read for a batch.
_LARGEST_PLAIN = 1 << 19
# Chunks of a row are read together where no more than this lies between them.
_GAP = 1 << 14
_MOST_COUNTED = 1 << 62


@dataclass(frozen=True, slots=True)
class _Part:
    """The part of one chunk along one axis that a box asks for."""

    chunk: int
    """Its number in the shard."""
    inside: slice
    """What is asked for of the chunk."""
    target: slice
    """Where it goes in the box."""


class _Scratch(threading.local):
    """Memory that is used again by each thread: what was touched before costs least to touch."""

    def __init__(self) -> None:
        self.decoded = np.empty(0, np.uint8)
        self._encoded = bytearray()

    def encoded(self, size: int) -> memoryview:
        """Return memory for bytes as they are in a file."""
        if len(self._encoded) < size:
            self._encoded = bytearray(size)
        return memoryview(self._encoded)[:size]


_SCRATCH = _Scratch()


class ChunkReader:
    """Reads boxes of one array.

    Parameters
    ----------
    path
        Directory of the array.
    shape, chunk, shard
        Sizes in pixels.
    dtype
        Type of a pixel.
    index
        How the index of a shard is stored; where it says that there is none, a shard is a chunk.
    compression
        How a chunk is compressed.
    fill
        Value of pixels that were never written.
    lead, separator
        What the names of shards begin with, and what lies between their numbers.
    """

    def __init__(  # noqa: PLR0913 - what metadata say of an array
        self,
        path: str,
        *,
        shape: tuple[int, ...],
        chunk: tuple[int, ...],
        shard: tuple[int, ...],
        dtype: np.dtype[Any],
        index: ShardIndex,
        compression: _Compression,
        fill: float,
        lead: str = "c/",
        separator: str = "/",
    ) -> None:
        self.prefix = f"{path}/{lead}"
        self._separator = separator
        self.is_mappable = is_mappable(path)
        self.shape = shape
        self.chunk = chunk
        self.shard = shard
        self.dtype = dtype
        self.index = index
        self.compression: _Compression = compression
        self.fill = fill
        self.chunk_bytes = math.prod(chunk) * dtype.itemsize
        self.inventory: Inventory | None = None
        """Which files are to be there, where that is known."""
        self.held: HeldChunks | None = None
        """What is decoded already of the one read that this is `ready` for, where that was looked up."""

    def memory(self, kept: KeptChunks | None) -> KeptChunks | None:
        """Return where its chunks stay decoded, where somebody has memory for them."""
        # What is not compressed lies in memory as the system has it.
        return None if self.compression is None else kept

    def ready(self, plan: ChunkPlan, kept: KeptChunks | None) -> ChunkReader:
        """Return what reads that: itself, unless chunks have to be brought here first."""
        del plan, kept
        return self

    @classmethod
    def of(cls, path: str, document: Mapping[str, Any]) -> ChunkReader | None:
        """Return a reader of the array that a metadata document describes, None if it is too odd."""
        if not hasattr(os, "preadv"):  # Windows
            return None
        try:
            return cls._of(path, document)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            return None

    @classmethod
    def _of(cls, path: str, document: Mapping[str, Any]) -> ChunkReader | None:
        found = layout_of(document)
        if found is None or found["compression"] == "other":
            return None
        shape, chunk, shard = found["shape"], found["chunk"], found["shard"]
        dtype = found["dtype"].newbyteorder("<")
        if (
            # Bytes of a chunk, and numbers of chunks, are counted in 64 bits.
            math.prod(chunk) * dtype.itemsize >= _MOST_COUNTED
            or math.prod(-(-n // s) * (s // c) for n, s, c in zip(shape, shard, chunk, strict=True))
            >= _MOST_COUNTED
        ):
            return None
        return cls(path, **{**found, "dtype": dtype})

    def shard_at(self, place: Sequence[int]) -> Shard | None:
        """Return a shard by its number along each axis, None where there is none."""
        return SHARDS.get(self.shard_path(place), self.index)

    def shard_path(self, place: Sequence[int]) -> str:
        """Return the file of a shard, whether it is there or not."""
        return self.prefix + self._separator.join([str(at) for at in place])

    def read_into(self, box: Box, out: NDArray[Any]) -> bool:
        """Read a box into a buffer.

        Parameters
        ----------
        box
            Half-open interval an axis, inside the array.
        out
            Buffer of the box's shape, and of the array's type in this machine's byte order.

        Returns
        -------
        False where something is not as expected, and `out` holds nothing of use.
        """
        if not out.size:
            return True
        if self.index.whole and self.chunk_bytes > _LARGEST_PLAIN:
            return False
        axes = [
            _shards_along(start, stop, whole, part)
            for (start, stop), whole, part in zip(box, self.shard, self.chunk, strict=True)
        ]
        try:
            for places in product(*axes):
                shard = self.shard_at([number for number, _ in places])
                parts = [along for _, along in places]
                if shard is None:
                    if self.inventory is not None:
                        self.inventory.verify_absent([number for number, _ in places])
                    target = tuple(slice(p[0].target.start, p[-1].target.stop) for p in parts)
                    out[target] = self.fill
                else:
                    self._read_shard(shard, parts, out)
        except NotFoundError:
            raise
        except (OSError, ValueError, RuntimeError):
            # RuntimeError is what decoders raise.
            return False
        return True

    def _read_shard(
        self, shard: Shard, parts: Sequence[Sequence[_Part]], out: NDArray[Any]
    ) -> None:
        if len(_SCRATCH.decoded) != self.chunk_bytes:
            _SCRATCH.decoded = np.empty(self.chunk_bytes, np.uint8)
        scratch = _SCRATCH.decoded
        pixels = scratch.view(self.dtype).reshape(self.chunk)
        *outer, last = parts
        first, stop = last[0].chunk, last[-1].chunk + 1
        for row in product(*outer):
            entries = shard.entries[(*(part.chunk for part in row), slice(first, stop))].tolist()
            target = tuple(part.target for part in row)
            inside = tuple(part.inside for part in row)
            for part, data in zip(last, _row_data(shard, entries), strict=True):
                if data is None:
                    out[(*target, part.target)] = self.fill
                    continue
                self.decode(data, scratch)
                out[(*target, part.target)] = pixels[(*inside, part.inside)]

    def decode(self, data: memoryview, scratch: NDArray[np.uint8]) -> None:
        """Decode a chunk into memory of its size; ValueError or RuntimeError where it is damaged."""
        size = self.chunk_bytes
        if self.compression == "blosc":
            # The decoder believes its header: that must be true of what is in our hands.
            if len(data) < _BLOSC_HEADER or _BLOSC_SIZES.unpack_from(data) != (size, len(data)):
                raise ValueError(_DAMAGED)
            done = imagecodecs.blosc_decode(data, out=scratch)  # pyright: ignore[reportArgumentType] - takes any buffer
            found = len(done)
        elif self.compression == "zstd":
            done = imagecodecs.zstd_decode(data, out=scratch)  # pyright: ignore[reportArgumentType] - as above
            found = len(done)
        else:
            found = len(data)
            if found == size:
                scratch[:] = np.frombuffer(data, np.uint8)
        if found != size:
            raise ValueError(_DAMAGED)


def _row_data(shard: Shard, entries: Sequence[tuple[int, int]]) -> list[memoryview | None]:
    """Return the bytes of chunks side by side, None for missing ones, in one read if sensible."""
    low, high, used = 1 << 63, 0, 0
    for offset, length in entries:
        if offset >= 0:
            low, high, used = min(low, offset), max(high, offset + length), used + length
    if high - low <= used + _GAP:
        if not high:
            return [None] * len(entries)
        buffer = _SCRATCH.encoded(high - low)
        shard.read_into(low, buffer)
        return [
            buffer[offset - low : offset - low + length] if offset >= 0 else None
            for offset, length in entries
        ]
    buffer = _SCRATCH.encoded(used)
    found: list[memoryview | None] = []
    for offset, length in entries:
        if offset < 0:
            found.append(None)
            continue
        part, buffer = buffer[:length], buffer[length:]
        shard.read_into(offset, part)
        found.append(part)
    return found


def _shards_along(start: int, stop: int, shard: int, chunk: int) -> list[tuple[int, list[_Part]]]:
    """Return the shards that an interval lies in along one axis, with its parts of their chunks."""
    found: list[tuple[int, list[_Part]]] = []
    for number in range(start // shard, -(-stop // shard)):
        origin = number * shard
        low, high = max(start - origin, 0), min(stop - origin, shard)
        parts = [
            _Part(
                at,
                slice(max(low - at * chunk, 0), min(high - at * chunk, chunk)),
                slice(
                    max(low, at * chunk) + origin - start,
                    min(high, (at + 1) * chunk) + origin - start,
                ),
            )
            for at in range(low // chunk, -(-high // chunk))
        ]
        found.append((number, parts))
    return found


def known_layout(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return as `layout_of`, None too for a document that is damaged."""
    try:
        return layout_of(document)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return None


def layout_of(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a reader has to know of an array, by the names of its arguments."""
    if document["zarr_format"] == 3 and document["codecs"][0]["name"] == "sharding_indexed":
        shards = Sharding.of(document)
        if shards is None:
            return None
        grid = chunk_grid(shards.shard, shards.chunk)
        return {
            "shape": shards.shape,
            "chunk": shards.chunk,
            "shard": shards.shard,
            "dtype": shards.dtype,
            "index": ShardIndex(grid, shards.index_at_end, shards.has_checksum),
            "compression": _compression(shards.codecs),
            "fill": shards.fill,
        }
    plain = PlainChunks.of(document)
    if plain is None:
        return None
    return {
        "shape": plain.shape,
        "chunk": plain.chunk,
        "shard": plain.chunk,
        "dtype": plain.dtype,
        "index": ShardIndex((1,) * len(plain.chunk), at_end=False, checked=False, whole=True),
        "compression": plain.codec if plain.codec in {None, "blosc", "zstd"} else "other",
        "fill": plain.fill,
        "lead": plain.lead,
        "separator": plain.separator,
    }


def _compression(codecs: Sequence[Mapping[str, Any]]) -> str | None:
    """Return how chunks are compressed; ``"other"`` for what only the engine reads."""
    _, *rest = codecs
    if not rest:
        return None
    name = rest[0]["name"]
    return name if len(rest) == 1 and name in {"blosc", "zstd"} else "other"
