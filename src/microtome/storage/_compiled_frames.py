"""Rows of chunks laid apart and compressed by one compiled call: the frames of `_blosc_frames`.

What a thread has just read goes from where it lies, padded where the array ends, into streams that
stay in the caches, and from there into the file's bytes; nothing is copied chunk by chunk before.
Imported only where enough is written that it pays.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from ._blosc_frames import HEADER, OVERHEAD
from ._compiled_calls import (
    call_lz4_begin,
    call_lz4_fast,
    call_lz4_search,
    call_lz4_state,
    compiled,
    copy,
    pointer,
)

__all__ = ["make_frames"]

numba: Any = import_module("numba")
_types: Any = import_module("numba.core.types")


@compiled
def _part_bytes(source: int, count: int, target: int) -> Any:
    pixels = numba.carray(pointer(source), count, np.uint8)
    out = numba.carray(pointer(target), count, np.uint8)
    seen = np.uint8(0)
    for i in range(count):
        seen |= pixels[i]
        out[i] = pixels[i]
    return np.uint64(seen)


@compiled
def _part_pairs(source: int, count: int, target: int, gap: int) -> Any:
    pixels = numba.carray(pointer(source), count, np.uint16)
    low = numba.carray(pointer(target), count, np.uint8)
    high = numba.carray(pointer(target + gap), count, np.uint8)
    seen = np.uint16(0)
    for i in range(count):
        pixel = pixels[i]
        seen |= pixel
        low[i] = np.uint8(pixel)
        high[i] = np.uint8(pixel >> np.uint16(8))
    return np.uint64(seen)


@compiled
def _part_fours(source: int, count: int, target: int, gap: int) -> Any:
    pixels = numba.carray(pointer(source), count, np.uint32)
    first = numba.carray(pointer(target), count, np.uint8)
    second = numba.carray(pointer(target + gap), count, np.uint8)
    third = numba.carray(pointer(target + 2 * gap), count, np.uint8)
    fourth = numba.carray(pointer(target + 3 * gap), count, np.uint8)
    seen = np.uint32(0)
    for i in range(count):
        pixel = pixels[i]
        seen |= pixel
        first[i] = np.uint8(pixel)
        second[i] = np.uint8(pixel >> np.uint32(8))
        third[i] = np.uint8(pixel >> np.uint32(16))
        fourth[i] = np.uint8(pixel >> np.uint32(24))
    return np.uint64(seen)


@compiled
def _part_eights(source: int, count: int, target: int, gap: int) -> Any:
    pixels = numba.carray(pointer(source), count, np.uint64)
    seen = np.uint64(0)
    for i in range(count):
        seen |= pixels[i]
    for byte in range(8):
        out = numba.carray(pointer(target + byte * gap), count, np.uint8)
        for i in range(count):
            out[i] = np.uint8(pixels[i] >> np.uint64(8 * byte))
    return seen


@compiled
def _part(source: int, item: int, count: int, target: int, gap: int) -> Any:
    """Lay the bytes of pixels apart, `gap` from each other; return what is not 0 in all of them."""
    if item == 1:
        return _part_bytes(source, count, target)
    if item == 2:
        return _part_pairs(source, count, target, gap)
    if item == 4:
        return _part_fours(source, count, target, gap)
    return _part_eights(source, count, target, gap)


@compiled
def _clear(target: int, count: int) -> None:
    out = numba.carray(pointer(target), count, np.uint8)
    for i in range(count):
        out[i] = 0


@compiled
def _put(target: int, value: int) -> None:
    out = numba.carray(pointer(target), 4, np.uint8)
    for i in range(4):
        out[i] = np.uint8(value >> (8 * i))


@compiled
def _compress(stream: int, each: int, target: int, room: int, how: Any, calls: Any) -> int:
    """Compress a stream; 0 if it does not fit."""
    if room <= 0:
        return 0
    size, most = np.int32(each), np.int32(room)
    found = call_lz4_fast(calls[0], stream, target, size, most, np.int32(how[1]))
    if found and how[2]:
        call_lz4_state(calls[2], how[3], np.int32(how[2]))
        found = call_lz4_search(calls[3], how[3], stream, target, size, most)
    return int(found)


@compiled
def _frame(apart: int, size: int, how: Any, calls: Any, target: int) -> int:
    """Make a frame of a chunk whose bytes lie apart; its length, or 0 if it has to be stored."""
    item = how[0]
    each, most = size // item, size + OVERHEAD
    at = HEADER + 4
    for number in range(item):
        stream, start = apart + number * each, at + 4
        length = _compress(stream, each, target + start, min(each, most - start), how, calls)
        if length == 0 or length == each:  # noqa: PLR1714 - compiled
            if start + each > most:
                return 0
            copy(target + start, stream, each)
            length = each
        _put(target + at, length)
        at = start + length
    return at


@compiled
def _begin(target: int, item: int, size: int, length: int, stored: int) -> None:
    head = numba.carray(pointer(target), 4, np.uint8)
    # As in `_blosc_frames`: versions; shuffled, LZ4, stored or not; bytes of a pixel.
    head[0], head[1], head[2], head[3] = 2, 1, 1 | 1 << 5 | stored, item
    _put(target + 4, size)
    _put(target + 8, size)
    _put(target + 12, length)


def make_frames(  # noqa: PLR0913, PLR0917 - called once, by `ChunkEncoder`
    source: int, step: int, rows: int, columns: int,
    height: int, width: int, how: Any, calls: Any, apart: int, target: int, lengths: Any,
) -> int:  # fmt: skip
    """Make the frames of chunks that lie side by side; return how many bytes they take.

    Parameters
    ----------
    source, step, rows, columns
        Address of the first pixel, bytes from a row to the next, and how many pixels there are.
    height, width
        Of a chunk in pixels; what is missing is 0.
    how
        Bytes of a pixel; acceleration of LZ4; level of LZ4HC, or 0; address of its state.
    calls
        Addresses of the functions of `Lz4`.
    apart, target
        Addresses of a chunk's bytes of room, and of where the frames go.
    lengths
        Of each frame; 0 where all of a chunk is 0.
    """
    item = how[0]
    each = height * width
    size = each * item
    if how[2]:
        call_lz4_begin(calls[1], how[3], calls[4])
    at = 0
    for number in range(len(lengths)):
        first = number * width
        count = min(width, columns - first)
        if rows < height or count < width:
            _clear(apart, size)
        seen = np.uint64(0)
        for row in range(rows):
            begin = source + row * step + first * item
            seen |= _part(begin, item, count, apart + row * width, each)
        if seen == 0:
            lengths[number] = 0
            continue
        length = _frame(apart, size, how, calls, target + at)
        if length:
            _put(target + at + HEADER, HEADER + 4)
            _begin(target + at, item, size, length, 0)
        else:
            length = size + OVERHEAD
            _begin(target + at, item, size, length, 2)
            if rows < height or count < width:
                _clear(target + at + HEADER, size)
            for row in range(rows):
                begin = source + row * step + first * item
                copy(target + at + HEADER + row * width * item, begin, count * item)
        lengths[number] = length
        at += length
    return at


_whole, _numbers = _types.int64, _types.int64[::1]
make_frames = compiled(
    make_frames, _whole(*[_whole] * 6, _numbers, _numbers, _whole, _whole, _numbers)
)
