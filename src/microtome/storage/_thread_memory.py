"""What each thread uses again from one batch of chunks to the next."""

from __future__ import annotations

import ctypes
import threading

import numpy as np
from numpy.typing import NDArray

__all__ = ["MEMORY"]


class _Memory(threading.local):
    """What each thread uses again: a chunk, a row of one, and the state of ZSTD."""

    def __init__(self) -> None:
        self.scratch = np.empty(0, np.uint8)
        self._context: _Context | None = None

    def chunk(self, size: int) -> NDArray[np.uint8]:
        if len(self.scratch) < size:
            self.scratch = np.empty(size, np.uint8)
        return self.scratch

    def context(self, calls: NDArray[np.int64]) -> int:
        if self._context is None:
            self._context = _Context(int(calls[3]), int(calls[4]))
        return self._context.address


class _Context:
    """The state of ZSTD, which is given back with its thread."""

    def __init__(self, create: int, free: int) -> None:
        self.address = int(ctypes.CFUNCTYPE(ctypes.c_void_p)(create)() or 0)
        self._free = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p)(free)

    def __del__(self) -> None:
        self._free(self.address)


MEMORY = _Memory()
