"""Blosc frames of LZ4, made here: noise is stored as it is, not searched through for nothing.

The format is that of c-blosc 1 (README_CHUNK_FORMAT). With LZ4 the frames are, byte for byte, those
of the library. With LZ4HC they differ in one rule: where LZ4 itself does not make a stream smaller,
LZ4HC does not try. On the low bytes of counted photons it would take most of its time to save less
than a hundredth.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["HEADER", "OVERHEAD", "FrameMaker", "Lz4", "lz4"]

HEADER = 16
"""Bytes before the streams' places."""
OVERHEAD = 16
"""What Blosc adds to bytes that it cannot compress. With more room than this it writes other bytes."""

_SHUFFLED, _STORED, _LZ4_FORMAT = 1, 2, 1 << 5
_VERSIONS = 2, 1  # of the format of Blosc, and of LZ4 in it
_TRIAL = 5


class Lz4(NamedTuple):
    """The library's functions, by their addresses."""

    fast: int
    """LZ4_compress_fast."""
    begin: int
    """LZ4_initStreamHC."""
    again: int
    """LZ4_resetStreamHC_fast."""
    search: int
    """LZ4_compress_HC_continue."""
    state: int
    """Bytes of a stream of LZ4HC."""


@cache
def lz4() -> Lz4 | None:
    """Return the functions of the LZ4 that imagecodecs brings; None where it is built without."""
    names = (
        "LZ4_compress_fast",
        "LZ4_initStreamHC",
        "LZ4_resetStreamHC_fast",
        "LZ4_compress_HC_continue",
    )
    try:
        library = ctypes.CDLL(import_module("imagecodecs._lz4").__file__)
        found = [ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 for name in names]
        size = int(library.LZ4_sizeofStateHC())
    except (ImportError, OSError, AttributeError):
        return None
    fast, begin, again, search = found
    return Lz4(fast, begin, again, search, size)


@dataclass(frozen=True, slots=True)
class FrameMaker:
    """Makes frames of chunks that Blosc compresses in one block, a stream for each byte of a pixel.

    Parameters
    ----------
    size
        Bytes of a chunk.
    item
        Bytes of a pixel, 1 to 16.
    level
        Of compression, 1 to 9.
    high
        Whether by LZ4HC.
    """

    size: int
    item: int
    level: int
    high: bool

    @classmethod
    def like(cls, frame: NDArray[np.uint8], level: int, *, high: bool) -> FrameMaker | None:
        """Return what makes frames as the library made this one; None if it does something else."""
        if lz4() is None:
            return None
        flags, item = frame[2:4].tolist()
        size, block, _ = frame[4:HEADER].view("<u4").tolist()
        # Other flags say that it is in another format, stored, or one stream for all bytes.
        fits = size == block and flags == _SHUFFLED | _LZ4_FORMAT and size % item == 0
        return cls(size, item, level, high) if fits else None

    @property
    def acceleration(self) -> int:
        """Of LZ4, as Blosc has it; of its trial before LZ4HC, that of level 5."""
        return _TRIAL if self.high else 10 - self.level

    def make(self, chunk: NDArray[np.uint8], out: NDArray[np.uint8]) -> int:
        """Make the frame of a chunk.

        Parameters
        ----------
        chunk
            (size,).
        out
            Where it goes, with room for `size` and the overhead.

        Returns
        -------
        Its length.
        """
        each, most = self.size // self.item, self.size + OVERHEAD
        apart = np.ascontiguousarray(chunk.reshape(each, self.item).T)
        at = HEADER + 4
        for stream in apart:
            start = at + 4
            length = self._compress(stream, out[start : min(start + each, most)])
            if length in {0, each}:
                if start + each > most:
                    return self._stored(chunk, out)
                out[start : start + each] = stream
                length = each
            out[at:start] = _number(length)
            at = start + length
        self._begin(out, at, 0)
        out[HEADER : HEADER + 4] = _number(HEADER + 4)
        return at

    def _compress(self, stream: NDArray[np.uint8], room: NDArray[np.uint8]) -> int:
        """Compress one stream; 0 if it does not fit."""
        if not len(room):
            return 0
        fast, search = _functions()
        length = fast(stream, room, self.acceleration)
        return search(stream, room, self.level) if length and self.high else length

    def _stored(self, chunk: NDArray[np.uint8], out: NDArray[np.uint8]) -> int:
        end = self.size + OVERHEAD
        self._begin(out, end, _STORED)
        out[HEADER:end] = chunk
        return end

    def _begin(self, out: NDArray[np.uint8], length: int, stored: int) -> None:
        out[:4] = [*_VERSIONS, _SHUFFLED | _LZ4_FORMAT | stored, self.item]
        out[4:HEADER].view("<u4")[:] = self.size, self.size, length


def _number(value: int) -> NDArray[np.uint8]:
    return np.array([value], "<u4").view(np.uint8)


_Compress = Callable[[NDArray[np.uint8], NDArray[np.uint8], int], int]


@cache
def _functions() -> tuple[_Compress, _Compress]:
    """Return what compresses a stream into some room, by LZ4 and by LZ4HC: its length, 0 if too long."""
    found = lz4()
    if found is None:
        msg = "imagecodecs was built without a library of LZ4"
        raise RuntimeError(msg)
    number, place = ctypes.c_int, ctypes.c_void_p
    compress = ctypes.CFUNCTYPE(number, place, place, number, number, number)(found.fast)
    begin = ctypes.CFUNCTYPE(place, place, ctypes.c_size_t)(found.begin)
    again = ctypes.CFUNCTYPE(None, place, number)(found.again)
    go_on = ctypes.CFUNCTYPE(number, place, place, place, number, number)(found.search)

    def fast(stream: NDArray[np.uint8], room: NDArray[np.uint8], acceleration: int) -> int:
        return compress(stream.ctypes.data, room.ctypes.data, len(stream), len(room), acceleration)

    def search(stream: NDArray[np.uint8], room: NDArray[np.uint8], level: int) -> int:
        state = np.empty(found.state // 8 + 1, np.uint64).ctypes
        begin(state.data, found.state)
        again(state.data, level)
        return go_on(state.data, stream.ctypes.data, room.ctypes.data, len(stream), len(room))

    return fast, search
