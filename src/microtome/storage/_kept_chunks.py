"""Chunks that stay decoded from one batch to the next, in memory of a stated size."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["HeldChunks", "KeptChunks"]

# Chunks of a shard are counted in fewer bits than this.
_LOCAL = 40
# What an entry takes beside its pixels, about.
_OVERHEAD = 256


@dataclass(slots=True, eq=False)
class HeldChunks:
    """What a batch found decoded, and memory for what it decodes; holds on to both.

    Parameters
    ----------
    address
        Where in memory the pixels of each chunk are, (chunks,); 0 for one that is not kept.
    goes
        Where the pixels of each chunk are to be put when it is decoded, (chunks,); 0 for one that is
        kept already, was never written, or has no room.
    memory
        Memory by the chunk's place in the batch.
    """

    address: NDArray[np.int64]
    goes: NDArray[np.int64]
    memory: dict[int, NDArray[np.uint8]] = field(default_factory=dict[int, NDArray[np.uint8]])
    keys: dict[int, int] = field(default_factory=dict[int, int])


class KeptChunks:
    """Decoded chunks of any number of arrays, shared between threads.

    A file that is replaced is another file: of what is kept nothing is seen of it.

    Parameters
    ----------
    limit
        Bytes that are kept at most, those included that are being decoded.
    evicts
        Whether what was used least recently makes room for more. Where all is read once before any
        of it is read again, as in epochs of a shuffled order, that would drop what is wanted next,
        and the first that come stay.
    """

    def __init__(self, limit: int, *, evicts: bool) -> None:
        self._limit = limit
        self._evicts = evicts
        self._lock = threading.Lock()
        # With its address, which takes longer to ask for than to copy the pixels of a crop.
        self._kept: OrderedDict[int, tuple[NDArray[np.uint8], int]] = OrderedDict()
        self._files: dict[tuple[str, tuple[int, int, int]], int] = {}
        self._bytes = 0

    @property
    def limit(self) -> int:
        """Bytes that are kept at most."""
        return self._limit

    @property
    def bytes(self) -> int:
        """Bytes that are kept, and those that are being decoded to be."""
        return self._bytes

    def hold(
        self,
        files: Sequence[tuple[str, tuple[int, int, int]] | None],
        file: NDArray[np.int64],
        local: NDArray[np.int64],
        there: NDArray[np.bool_],
        chunk_bytes: int,
    ) -> HeldChunks:
        """Look chunks up, and take memory for those that are not there; `give` has to follow.

        Parameters
        ----------
        files
            Path and stamp of each file; None for one that is not there.
        file
            Place of each chunk's file in these, (chunks,).
        local
            Number of each chunk in its file, (chunks,).
        there
            Which were ever written, (chunks,).
        chunk_bytes
            Of a decoded chunk.
        """
        held = HeldChunks(np.zeros(len(local), np.int64), np.zeros(len(local), np.int64))
        size = chunk_bytes + _OVERHEAD
        with self._lock:
            numbers = np.asarray(
                [
                    -1 if one is None else self._files.setdefault(one, len(self._files))
                    for one in files
                ],
                np.int64,
            )
            places = np.flatnonzero(there)
            keys = ((numbers[file[places]] << _LOCAL) + local[places]).tolist()
            found = list(map(self._kept.get, keys))
            if self._evicts:
                for key, one in zip(keys, found, strict=True):
                    if one is not None:
                        self._kept.move_to_end(key)
            lookups = list(zip(places.tolist(), keys, found, strict=True))
            missing = [(at, key) for at, key, one in lookups if one is None]
            # A batch of more than is kept in all: the last of it would push out the first.
            taken = missing[: self._room(len(missing) * size) // size]
            self._bytes += len(taken) * size
        held.address[places] = [0 if one is None else one[1] for one in found]
        held.memory = {at: one[0] for at, _, one in lookups if one is not None}
        for at, key in taken:
            held.keys[at] = key
            held.memory[at] = np.empty(chunk_bytes, np.uint8)
            held.goes[at] = _address(held.memory[at])
        return held

    def give(self, held: HeldChunks, *, decoded: bool) -> None:
        """Keep what was decoded; or where it was not, nothing of it."""
        with self._lock:
            for at, key in held.keys.items():
                memory = held.memory[at]
                # Another batch may have decoded the same meanwhile.
                if decoded and key not in self._kept:
                    self._kept[key] = memory, int(held.goes[at])
                else:
                    self._bytes -= memory.nbytes + _OVERHEAD

    def _room(self, wanted: int) -> int:
        """Return how many bytes may be taken, after room was made for so many."""
        if self._evicts:
            while self._kept and self._bytes + wanted > self._limit:
                _, (memory, _) = self._kept.popitem(last=False)
                self._bytes -= memory.nbytes + _OVERHEAD
        return max(self._limit - self._bytes, 0)

    def __len__(self) -> int:
        return len(self._kept)

    def __reduce__(self) -> tuple[Any, ...]:
        # In another process nothing is kept yet.
        return _empty, (self._limit, self._evicts)


def _empty(limit: int, evicts: bool) -> KeptChunks:  # noqa: FBT001 - pickle calls it by position
    return KeptChunks(limit, evicts=evicts)


def _address(memory: NDArray[np.uint8]) -> int:
    return int(memory.__array_interface__["data"][0])
