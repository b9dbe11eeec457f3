"""Shards of local arrays: their files kept open, a bounded number of them, and their indexes checked.

A shard is a file of chunks with an index at one end: where each chunk lies in it, and a checksum of
that. A file is never changed in place, by us or by the engine, but replaced: one that is open stays
what it was, and a look at its name tells whether it is still the one that is there.
"""

from __future__ import annotations

import math
import mmap
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import google_crc32c
import numpy as np
from numpy.typing import NDArray

try:
    import resource
except ImportError:  # Windows
    resource = None

__all__ = ["MISSING", "SHARDS", "Shard", "ShardIndex"]

MISSING = 2**64 - 1
"""Offset of a chunk that was never written."""

# Shards that are open at once, in all: a process may open a thousand files, and has other use for
# them.
_MOST_OPEN = 256
# Of shards that were read lately, whose pages count as this process's although the system keeps them
# for all and could take them back: half of them belongs to those read last, half to those before.
# Pages that were given back are found again at twice the price of what is decoded from them.
_LEAST_RESIDENT = 256 << 20
_RESIDENT_SHARE = 8
_CRC_BYTES = 4
_CLOSE = 1 << 16
_MAPPING = threading.Lock()


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """How the index of a shard is stored.

    Parameters
    ----------
    grid
        Chunks along each axis of a shard.
    at_end
        Whether it lies at the end of the file, or at its beginning.
    checked
        Whether a checksum (CRC32C) follows it.
    whole
        Whether there is none: the file is one chunk.
    """

    grid: tuple[int, ...]
    at_end: bool
    checked: bool
    whole: bool = False

    @property
    def size(self) -> int:
        """Bytes of the index, its checksum included."""
        return 16 * math.prod(self.grid) + _CRC_BYTES * self.checked


class Shard:
    """A shard that is open for reading.

    Parameters
    ----------
    path
        The file.
    index
        How its index is stored.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is no such shard: too short, a wrong checksum, chunks that lie outside of it.
    """

    __slots__ = ("_file", "_mapped", "_memory", "entries", "index", "stamp")

    def __init__(self, path: str, index: ShardIndex) -> None:
        self._file = -1
        self._mapped: NDArray[np.uint8] | None = None
        self._memory: mmap.mmap | None = None
        self._file = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        status = os.fstat(self._file)
        self.stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
        self.index = index
        self.entries: NDArray[np.int64] = self._read_entries(status.st_size, index)
        """(grid..., 2) offset and length of every chunk; (-1, -1) for one that is missing."""

    @property
    def bytes(self) -> NDArray[np.uint8]:
        """The whole file as it is mapped into memory.

        What is read of it was compared with the size of the file, and files are replaced, not cut.
        """
        if self._mapped is None:
            # One thread at a time: a second mapping in the place of the first would end it under
            # whoever reads there, by an address that keeps nothing.
            with _MAPPING:
                if self._mapped is None:
                    self._memory = mmap.mmap(self._file, self.stamp[1], access=mmap.ACCESS_READ)
                    if hasattr(mmap, "MADV_RANDOM"):
                        # Of a file that is not in memory, the system would read many times what is
                        # wanted.
                        self._memory.madvise(mmap.MADV_RANDOM)
                    self._mapped = np.frombuffer(self._memory, np.uint8)
        return self._mapped

    def announce(self, offsets: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
        """Have the system begin to read parts of the file, all at once, that are wanted next."""
        if self._memory is None or not hasattr(mmap, "MADV_WILLNEED") or not len(offsets):
            return
        order = np.argsort(offsets)
        first, last = offsets[order], (offsets + lengths)[order]
        # One call for what lies close together.
        ends = np.flatnonzero(first[1:] > last[:-1] + _CLOSE)
        starts = first[np.append(0, ends + 1)] // mmap.PAGESIZE * mmap.PAGESIZE
        stops = np.maximum.accumulate(last)[np.append(ends, len(last) - 1)]
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            self._memory.madvise(mmap.MADV_WILLNEED, start, stop - start)

    def release(self) -> None:
        """Give the pages that were read back to the system, which keeps the file as it likes.

        Whoever reads there meanwhile finds them again.
        """
        memory = self._memory
        if memory is not None and hasattr(mmap, "MADV_DONTNEED"):
            memory.madvise(mmap.MADV_DONTNEED)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with bytes of the file; ValueError where it ends before."""
        if os.preadv(self._file, [buffer], offset) != len(buffer):
            msg = "the file ends before its chunks do"
            raise ValueError(msg)

    def _read_entries(self, size: int, index: ShardIndex) -> NDArray[np.int64]:
        if index.whole:
            if not size:
                msg = "the file of a chunk is empty"
                raise ValueError(msg)
            return np.asarray([0, size], np.int64).reshape(*index.grid, 2)
        if size < index.size:
            msg = "the file is shorter than its index"
            raise ValueError(msg)
        data = bytearray(index.size)
        self.read_into(size - index.size if index.at_end else 0, memoryview(data))
        numbers = data[:-_CRC_BYTES] if index.checked else data
        if index.checked and google_crc32c.value(bytes(numbers)) != int.from_bytes(
            data[-_CRC_BYTES:], "little"
        ):
            msg = "the index of the shard is damaged"
            raise ValueError(msg)
        entries = np.frombuffer(numbers, "<u8").reshape(*index.grid, 2)
        offsets, lengths = entries[..., 0], entries[..., 1]
        missing = (offsets == MISSING) & (lengths == MISSING)
        # Not offset + length, which may be more than 64 bits hold.
        inside = (offsets <= size) & (lengths <= size - np.minimum(offsets, size))
        if not (missing | inside).all():
            msg = "chunks of the shard lie outside of its file"
            raise ValueError(msg)
        return entries.astype(np.int64)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        # By the last who holds it: a reader on another thread may be using what the cache dropped.
        # `close` is bound here, since modules are gone when a process ends.
        if self._file >= 0:
            close(self._file)


class _Shards:
    """The shards that are open, those used least recently closed first.

    Parameters
    ----------
    most
        How many.
    resident
        Bytes of those whose pages are kept, most of the time: less than all for a large image.
    """

    def __init__(self, most: int, resident: int) -> None:
        self._most = most
        self._most_young = resident // 2
        self._open: OrderedDict[str, Shard] = OrderedDict()
        self._young: dict[str, Shard] = {}
        self._old: dict[str, Shard] = {}
        self._young_bytes = 0
        self._lock = threading.Lock()

    def get(self, path: str, index: ShardIndex) -> Shard | None:
        """Return a shard as it is now, None where there is no file; errors as for `Shard`."""
        try:
            status = os.stat(path)  # noqa: PTH116 - for every shard of every read
        except FileNotFoundError:
            return None
        stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
        with self._lock:
            shard = self._open.get(path)
            # The array may state other chunks than it did, of a file that is what it was.
            if shard is not None and shard.stamp == stamp and shard.index == index:
                self._open.move_to_end(path)
                rested = self._used(path, shard)
            else:
                shard, rested = None, []
        if shard is None:
            try:
                shard = Shard(path, index)
            except FileNotFoundError:
                return None
            with self._lock:
                self._open[path] = shard
                self._open.move_to_end(path)
                many = len(self._open) - self._most
                dropped = [self._open.popitem(last=False) for _ in range(many)]
                for name, _ in dropped:
                    self._young.pop(name, None)
                    self._old.pop(name, None)
                rested = self._used(path, shard)
            del dropped  # closed after the lock is free, unless somebody reads them still
        for each in rested:
            each.release()
        return shard

    def _used(self, path: str, shard: Shard) -> list[Shard]:
        """Note that a shard is read; return those that have not been for long."""
        if self._young.get(path) is shard:
            return []
        if self._young_bytes + shard.stamp[1] > self._most_young and self._young:
            rested = [old for name, old in self._old.items() if name not in self._young]
            self._old, self._young, self._young_bytes = self._young, {}, 0
        else:
            rested = []
        self._young[path] = shard
        self._young_bytes += shard.stamp[1]
        return [each for each in rested if each is not shard]

    def __len__(self) -> int:
        return len(self._open)


def _most_open() -> int:
    """Return how many shards are open at once: each takes two files, where it is mapped as well."""
    if resource is None:
        return _MOST_OPEN
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return _MOST_OPEN
    # Half of what a process may open, which on some systems is no more than 256.
    return max(1, min(_MOST_OPEN, allowed // 4))


def _most_resident() -> int:
    """Return of how many bytes of shards the pages are kept: an eighth of the machine's memory."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows, or a system that does not say
        return _LEAST_RESIDENT
    return max(_LEAST_RESIDENT, memory // _RESIDENT_SHARE)


SHARDS = _Shards(_most_open(), _most_resident())


def chunk_grid(shard: Sequence[int], chunk: Sequence[int]) -> tuple[int, ...]:
    """Return how many chunks a shard has along each axis."""
    return tuple(whole // part for whole, part in zip(shard, chunk, strict=True))
