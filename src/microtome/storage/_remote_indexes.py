"""Indexes of remote shards, which stay in memory: where the chunks of each lie, and which one it is."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from itertools import count

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from microtome.errors import FormatError

from ._shard_files import MISSING, ShardIndex

__all__ = ["INDEXES", "KnownIndexes", "KnownShard", "entries_of"]

# Of all arrays of a process together. An index has 16 bytes for each chunk of its shard: some
# thousand shards of an image in our layout.
_MOST_BYTES = 64 * 2**20
# What an entry takes beside its numbers, about.
_OVERHEAD = 400
_CRC_BYTES = 4
_NO_ETAG = 2
"""Generations of fewer bytes say nothing: the server told none."""


@dataclass(frozen=True, slots=True, eq=False)
class KnownShard:
    """What is known of a shard.

    Parameters
    ----------
    entries
        (chunks, 2) offset and length of every chunk; (-1, -1) for one that was never written.
    generation
        Which one it is, as the store says.
    number
        Its number in the cache on disk; None where it is not kept there.
    look
        Number of the look at the store that told of it.
    """

    entries: NDArray[np.int64]
    generation: bytes
    number: int | None
    look: int

    @property
    def is_named(self) -> bool:
        """Whether the store tells one from another: else nothing of it outlives the opening."""
        return len(self.generation) >= _NO_ETAG

    @property
    def stamp(self) -> tuple[int, int, int]:
        """Which one it is, as a `Shard` has it."""
        if not self.is_named:
            # Nobody could tell it from what another look sees.
            return self.look, len(self.entries), 1
        digest = hashlib.blake2b(self.generation, digest_size=8).digest()
        return int.from_bytes(digest, "little", signed=True), len(self.entries), 0


class KnownIndexes:
    """Indexes of any number of arrays, each of which has a number; those used least recently go first.

    Parameters
    ----------
    most
        Bytes of all together.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._bytes = 0
        self._known: OrderedDict[tuple[int, tuple[int, ...]], KnownShard | None] = OrderedDict()
        self._lock = threading.Lock()
        self._numbers = count()

    @property
    def bytes(self) -> int:
        """How many bytes they take."""
        return self._bytes

    def new(self) -> int:
        """Return the number of an array, of which nothing is known yet."""
        return next(self._numbers)

    def get(self, number: int, at: tuple[int, ...]) -> KnownShard | None:
        """Return what is known of a shard, None for one that is not there; else a KeyError."""
        with self._lock:
            found = self._known[number, at]
            self._known.move_to_end((number, at))
            return found

    def put(self, number: int, at: tuple[int, ...], shard: KnownShard | None) -> None:
        """Know a shard from here on."""
        with self._lock:
            if (number, at) in self._known:
                self._bytes -= _bytes_of(self._known.pop((number, at)))
            self._known[number, at] = shard
            self._bytes += _bytes_of(shard)
            while self._bytes > self._most and self._known:
                _, gone = self._known.popitem(last=False)
                self._bytes -= _bytes_of(gone)


def _bytes_of(shard: KnownShard | None) -> int:
    return _OVERHEAD + (0 if shard is None else shard.entries.nbytes)


INDEXES = KnownIndexes(_MOST_BYTES)


def entries_of(data: bytes, index: ShardIndex, longest: int, where: str) -> NDArray[np.int64]:
    """Return where chunks lie, as the index of a shard says.

    Parameters
    ----------
    data
        The index; of a file that is one chunk, the file.
    index
        How it is stored.
    longest
        Bytes of a chunk at most: an index without a checksum may say anything.
    where
        The file, for messages.

    Raises
    ------
    FormatError
        If it is damaged.
    """
    if index.whole:
        return np.asarray([[0, len(data)]], np.int64)
    if len(data) != index.size:
        msg = f"{where} is damaged: it is shorter than the index of a shard"
        raise FormatError(msg)
    table = data[:-_CRC_BYTES] if index.checked else data
    if index.checked and google_crc32c.value(table) != int.from_bytes(data[-_CRC_BYTES:], "little"):
        msg = f"{where} is damaged: the checksum of its index is wrong"
        raise FormatError(msg)
    entries = np.frombuffer(table, "<u8").reshape(-1, 2)
    missing = (entries == MISSING).all(axis=1)
    fits = (entries[:, 0] < 2**62) & (entries[:, 1] <= longest)
    if not (missing | fits).all():
        msg = f"{where} is damaged: its index names chunks that cannot be"
        raise FormatError(msg)
    return entries.astype(np.int64)
