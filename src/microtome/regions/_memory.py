"""Memory of batches, used again: what is touched for the first time costs more than decoding into it.

A new batch of 64 MiB is zeroed by the system page by page, which takes as long as half of reading
it. What a batch that nobody holds any more leaves is therefore given to the next of its size.
"""

from __future__ import annotations

import ctypes
import math
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["batch_memory"]

# Smaller ones numpy and the allocator keep themselves.
_LEAST = 1 << 22
# Bytes that wait to be used again, in all.
_MOST = 1 << 28

# Appending and taking are atomic: memory is given back by whatever thread drops a batch last, which
# may be one that is in the middle of taking some.
_FREE: deque[NDArray[np.uint8]] = deque()


def batch_memory(shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
    """Return a new array of arbitrary values, as `numpy.empty` does.

    Its memory is given to another when the array, every view of it and every tensor that shares it
    are gone.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < _LEAST:
        return np.empty(shape, dtype)
    memory = _taken(size)
    # Views of an array skip it and hold on to what has the memory: that has to be what is watched.
    buffer: Any = memory  # which ctypes takes any of
    owner: Any = (ctypes.c_ubyte * size).from_buffer(buffer)
    weakref.finalize(owner, _give, memory).atexit = False
    return np.frombuffer(owner, dtype).reshape(shape)


def _taken(size: int) -> NDArray[np.uint8]:
    """Return memory of a size: some that is free, or new."""
    for _ in range(len(_FREE)):
        try:
            memory = _FREE.popleft()
        except IndexError:  # another thread took the last
            break
        if len(memory) == size:
            return memory
        _FREE.append(memory)
    return np.empty(size, np.uint8)


def _give(memory: NDArray[np.uint8]) -> None:
    """Keep memory that is free now, and drop what was not wanted for longest."""
    _FREE.append(memory)
    while sum([len(kept) for kept in list(_FREE)]) > _MOST:
        try:
            _FREE.popleft()
        except IndexError:
            return
