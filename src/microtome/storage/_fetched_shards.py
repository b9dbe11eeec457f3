"""Shards of which some chunks were fetched, in memory: read as those of local arrays are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from ._chunks import ChunkReader
from ._remote_indexes import KnownShard
from ._shard_files import MISSING, Shard, ShardIndex

__all__ = ["FetchedShards", "ShardInMemory"]

_CRC_BYTES = 4


class ShardInMemory:
    """Chunks of a shard that were fetched, one behind the other: what of a `Shard` is asked for."""

    __slots__ = ("bytes", "entries", "stamp")

    def __init__(
        self, known: KnownShard, parts: Mapping[int, bytes], grid: tuple[int, ...]
    ) -> None:
        # Of one that is not here, no byte: nobody may take it for one that was never written.
        entries = np.where(known.entries < 0, -1, 0)
        at = 0
        for part in sorted(parts):
            entries[part] = at, len(parts[part])
            at += len(parts[part])
        self.bytes = np.frombuffer(b"".join(parts[part] for part in sorted(parts)), np.uint8)
        self.entries = entries.reshape(*grid, 2)
        self.stamp = known.stamp

    def announce(self, offsets: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
        """Do nothing: it is in memory."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill a buffer; ValueError where the bytes end before."""
        part = self.bytes[offset : offset + len(buffer)]
        if len(part) != len(buffer):
            msg = "the shard ends before its chunks do"
            raise ValueError(msg)
        buffer[:] = part.data

    def file(self, index: ShardIndex) -> bytes:
        """Return it as a file, in which nothing was written but what is here."""
        if index.whole:
            return self.bytes.tobytes()
        entries = self.entries.copy()
        there = (entries[..., 1] > 0) & (entries[..., 0] >= 0)
        if not index.at_end:
            entries[there, 0] += index.size
        numbers = entries.astype("<u8")
        numbers[~there] = MISSING
        table = numbers.tobytes()
        if index.checked:
            table += google_crc32c.value(table).to_bytes(_CRC_BYTES, "little")
        data = self.bytes.tobytes()
        return data + table if index.at_end else table + data


class FetchedShards(ChunkReader):
    """A reader of what was fetched for one read, and of nothing else."""

    shards: dict[tuple[int, ...], ShardInMemory | None]

    def shard_at(self, place: Sequence[int]) -> Shard | None:
        """Return a shard that was fetched; KeyError for another."""
        return self.shards[tuple(place)]  # pyright: ignore[reportReturnType] - has what is asked of one
