"""Memory of batches, used again: what is touched for the first time costs more than decoding into it.

A new batch of 64 MiB is zeroed by the system page by page, which takes as long as half of reading
it. What a batch that nobody holds any more leaves is therefore given to the next that it is large
enough for. Memory that a device copies from is locked into place once, and stays so.
"""

from __future__ import annotations

import ctypes
import math
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["batch_memory", "claim_memory", "lock_memory"]

# Smaller ones numpy and the allocator keep themselves.
_LEAST = 1 << 22
# Bytes that wait to be used again, in all, where nobody claims more.
_MOST = 1 << 28
# The most that one owner may claim.
_MOST_CLAIMED = 1 << 30
# Bytes of a line of the processor's caches.
_LINE = 64
# How many times the size of a batch its memory may have.
_ROOMY = 4


class _Block:
    """Memory of one batch after the other."""

    __slots__ = ("__weakref__", "address", "memory", "size", "unlock")

    def __init__(self, size: int) -> None:
        # First: it is asked for at the end, which comes too where there is no memory.
        self.unlock: Callable[[int], object] | None = None
        """Undoes what locked it into place; None while it is not."""
        self.size = size
        memory = np.empty(size + _LINE, np.uint8)
        # Rows of most sizes then fill lines of the caches, which is how they are written fastest.
        first = -memory.ctypes.data % _LINE
        self.memory = memory[first : first + size]
        self.address = self.memory.ctypes.data

    def __del__(self) -> None:
        # Before the memory itself goes, which the device knows by its address.
        if self.unlock is not None:
            self.unlock(self.address)


# Appending and taking are atomic: memory is given back by whatever thread drops a batch last, which
# may be one that is in the middle of taking some.
_FREE: deque[_Block] = deque()
_CLAIMS: dict[int, int] = {}
_BLOCKS: weakref.WeakSet[_Block] = weakref.WeakSet()


def batch_memory(shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
    """Return a new array of arbitrary values, as `numpy.empty` does.

    Its memory is given to another when the array, every view of it and every tensor that shares it
    are gone.
    """
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    if size < _LEAST:
        return np.empty(shape, dtype)
    block = _taken(size)
    # Views of an array skip it and hold on to what has the memory: that has to be what is watched.
    buffer: Any = block.memory  # which ctypes takes any of
    owner: Any = (ctypes.c_ubyte * block.size).from_buffer(buffer)
    weakref.finalize(owner, _give, block).atexit = False
    return np.frombuffer(owner, kind, size // kind.itemsize).reshape(shape)


def claim_memory(owner: object, size: int) -> None:
    """Keep more memory for batches to come, as long as an object lives.

    What an owner has in use at once is all free between two of its epochs, and without a claim it
    would be given back then and zeroed anew.

    Parameters
    ----------
    owner
        Whoever reads the batches; what it claimed before is replaced.
    size
        Bytes of those that it has in use at once; at most 1 GiB counts.
    """
    if id(owner) not in _CLAIMS:
        weakref.finalize(owner, _unclaim, id(owner)).atexit = False
    _CLAIMS[id(owner)] = min(size, _MOST_CLAIMED)


def lock_memory(
    batch: NDArray[Any], lock: Callable[[int, int], Callable[[int], object] | None]
) -> bool:
    """Lock the memory of a batch into place, for as long as it is used by one batch after another.

    Parameters
    ----------
    batch
        An array of `batch_memory`, or a view of one.
    lock
        Called with address and size in bytes, once in the life of the memory. Returns what is called
        with the address before the memory is given back, None where it could not lock it.

    Returns
    -------
    Whether it is locked; False for an array that lies elsewhere.
    """
    at = batch.ctypes.data
    for block in list(_BLOCKS):
        if block.address <= at < block.address + block.size:
            if block.unlock is None:
                block.unlock = lock(block.address, block.size)
            return block.unlock is not None
    return False


def _taken(size: int) -> _Block:
    """Return memory for a size: the smallest that is free and not much too large, or new."""
    while True:
        waiting = [block for block in list(_FREE) if size <= block.size <= _ROOMY * size]
        if not waiting:
            break
        block = min(waiting, key=lambda block: block.size)
        try:
            _FREE.remove(block)
        except (ValueError, IndexError):  # another thread took it, or took one while this looked
            continue
        return block
    block = _Block(size)
    _BLOCKS.add(block)
    return block


def _give(block: _Block) -> None:
    """Keep memory that is free now, and drop what was not wanted for longest."""
    _FREE.append(block)
    _trim()


def _unclaim(owner: int) -> None:
    del _CLAIMS[owner]
    _trim()


def _trim() -> None:
    while sum([kept.size for kept in list(_FREE)]) > max(_MOST, sum(list(_CLAIMS.values()))):
        try:
            _FREE.popleft()
        except IndexError:
            return
