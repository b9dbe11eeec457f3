"""Memory that is used again: fresh pages cost as much as decoding what is put into them."""

from __future__ import annotations

import math
import threading
from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Buffers"]

# What is more than this many times too large is left for whoever needs as much.
_WASTE = 4


class Buffers:
    """Arrays that are taken and given back, by any number of threads."""

    def __init__(self) -> None:
        self._free: list[NDArray[np.uint8]] = []  # smallest first
        self._lock = threading.Lock()

    def take(self, shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return an array of whatever values; it is the taker's until it is given back."""
        size = math.prod(shape) * dtype.itemsize
        memory = self._found(size)
        if memory is None:
            memory = np.empty(size, np.uint8)
        return memory[:size].view(dtype).reshape(shape)

    def give(self, array: NDArray[Any]) -> None:
        """Take back an array that nobody reads or writes any more."""
        while isinstance(array.base, np.ndarray):
            array = array.base
        with self._lock:
            insort(self._free, array, key=_size)

    def _found(self, size: int) -> NDArray[np.uint8] | None:
        with self._lock:
            place = bisect_left(self._free, size, key=_size)
            if place == len(self._free) or self._free[place].nbytes > _WASTE * size:
                return None
            return self._free.pop(place)


def _size(array: NDArray[np.uint8]) -> int:
    return array.nbytes
