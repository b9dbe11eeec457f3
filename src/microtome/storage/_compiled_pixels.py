"""Pixels of a decoded chunk on their way into a batch: brought together, made float32, laid down.

Imported only with the compiled call that decodes chunks.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from ._compiled_calls import compiled, copy, pointer
from ._compiled_lines import (
    LINE,
    WIDE,
    put_bytes,
    put_pairs,
    put_words,
    stream_bytes,
    stream_line,
    stream_pairs,
    stream_words,
)
from ._compiler import TURNED_ROWS as ROWS

__all__ = [
    "change",
    "copy_pairs",
    "copy_pixels",
    "copy_rows",
    "lay",
    "send",
    "send_pairs",
    "send_rows",
    "to_float",
]

numba: Any = import_module("numba")

CLIP, SUBTRACT, DIVIDE, MULTIPLY, ADD = 0, 1, 2, 3, 4


@compiled
def copy_pixels(source: int, apart: int, gap: int, item: int, count: int, target: int) -> None:
    """Copy pixels side by side; `gap` is from a byte of a pixel to its next, where they are apart."""
    if not apart:
        copy(target, source, count * item)
        return
    a = numba.carray(pointer(source), count, np.uint8)
    b = numba.carray(pointer(source + gap), count, np.uint8)
    if item == 2:
        pairs = numba.carray(pointer(target), count, np.uint16)
        for i in range(count):
            pairs[i] = np.uint16(a[i]) | np.uint16(b[i]) << np.uint16(8)
        return
    c = numba.carray(pointer(source + 2 * gap), count, np.uint8)
    d = numba.carray(pointer(source + 3 * gap), count, np.uint8)
    if item == 4:
        fours = numba.carray(pointer(target), count, np.uint32)
        for i in range(count):
            fours[i] = (
                np.uint32(a[i])
                | np.uint32(b[i]) << np.uint32(8)
                | np.uint32(c[i]) << np.uint32(16)
                | np.uint32(d[i]) << np.uint32(24)
            )
        return
    bytes_ = numba.carray(pointer(target), count * item, np.uint8)
    for part in range(item):
        one = numba.carray(pointer(source + part * gap), count, np.uint8)
        for i in range(count):
            bytes_[i * item + part] = one[i]


@compiled
def _pairs(low: int, high: int, target: int, count: int) -> None:
    """Make float32 of fewer than 16 pixels whose two bytes are apart."""
    at = 0
    if count & 8:
        put_pairs(low, high, target, 8)
        at = 8
    if count & 4:
        put_pairs(low + at, high + at, target + 4 * at, 4)
        at += 4
    if count & 2:
        put_pairs(low + at, high + at, target + 4 * at, 2)
        at += 2
    if count & 1:
        put_pairs(low + at, high + at, target + 4 * at, 1)


@compiled
def _words(source: int, target: int, count: int) -> None:
    """Make float32 of fewer than 16 pixels of two bytes."""
    at = 0
    if count & 8:
        put_words(source, target, 8)
        at = 8
    if count & 4:
        put_words(source + 2 * at, target + 4 * at, 4)
        at += 4
    if count & 2:
        put_words(source + 2 * at, target + 4 * at, 2)
        at += 2
    if count & 1:
        put_words(source + 2 * at, target + 4 * at, 1)


@compiled
def _bytes(source: int, target: int, count: int) -> None:
    """Make float32 of fewer than 16 pixels of one byte."""
    at = 0
    if count & 8:
        put_bytes(source, target, 8)
        at = 8
    if count & 4:
        put_bytes(source + at, target + 4 * at, 4)
        at += 4
    if count & 2:
        put_bytes(source + at, target + 4 * at, 2)
        at += 2
    if count & 1:
        put_bytes(source + at, target + 4 * at, 1)


@compiled
def copy_pairs(
    low: int,
    high: int,
    pitch: int,
    rows: int,
    width: int,
    target: int,
    stride: int,
    floats: bool,  # noqa: FBT001 - compiled
) -> None:
    """Copy rows of pixels whose two bytes are apart, and make float32 of them where asked."""
    tail = width // WIDE * WIDE
    for row in range(rows):
        first, second, goes = low + row * pitch, high + row * pitch, target + row * stride
        if floats:
            for i in range(0, tail, WIDE):
                put_pairs(first + i, second + i, goes + 4 * i, WIDE)
            _pairs(first + tail, second + tail, goes + 4 * tail, width - tail)
        else:
            a = numba.carray(pointer(first), width, np.uint8)
            b = numba.carray(pointer(second), width, np.uint8)
            pairs = numba.carray(pointer(goes), width, np.uint16)
            for i in range(width):
                pairs[i] = np.uint16(a[i]) | np.uint16(b[i]) << np.uint16(8)


@compiled
def copy_rows(
    source: int, pitch: int, rows: int, width: int, target: int, stride: int, kind: int
) -> None:
    """Make float32 of rows of pixels of one byte or two that lie side by side."""
    tail = width // WIDE * WIDE
    for row in range(rows):
        comes, goes = source + row * pitch, target + row * stride
        if kind == 1:
            for i in range(0, tail, WIDE):
                put_words(comes + 2 * i, goes + 4 * i, WIDE)
            _words(comes + 2 * tail, goes + 4 * tail, width - tail)
        else:
            for i in range(0, tail, WIDE):
                put_bytes(comes + i, goes + 4 * i, WIDE)
            _bytes(comes + tail, goes + 4 * tail, width - tail)


@compiled
def _to_line(target: int, width: int) -> int:
    """Return how many float32 there are before a line begins, at most `width`."""
    return min(width, (-target & (LINE - 1)) >> 2)


@compiled
def send_pairs(
    low: int, high: int, pitch: int, rows: int, width: int, target: int, stride: int
) -> None:
    """Do as `copy_pairs` past the caches; `target` is on a multiple of 4."""
    for row in range(rows):
        first, second, goes = low + row * pitch, high + row * pitch, target + row * stride
        head = _to_line(goes, width)
        tail = head + (width - head) // WIDE * WIDE
        _pairs(first, second, goes, head)
        for i in range(head, tail, WIDE):
            stream_pairs(first + i, second + i, goes + 4 * i)
        _pairs(first + tail, second + tail, goes + 4 * tail, width - tail)


@compiled
def send_rows(
    source: int, pitch: int, rows: int, width: int, target: int, stride: int, kind: int
) -> None:
    """Do as `copy_rows` past the caches; `target` is on a multiple of 4."""
    for row in range(rows):
        comes, goes = source + row * pitch, target + row * stride
        head = _to_line(goes, width)
        tail = head + (width - head) // WIDE * WIDE
        if kind == 1:
            _words(comes, goes, head)
            for i in range(head, tail, WIDE):
                stream_words(comes + 2 * i, goes + 4 * i)
            _words(comes + 2 * tail, goes + 4 * tail, width - tail)
        else:
            _bytes(comes, goes, head)
            for i in range(head, tail, WIDE):
                stream_bytes(comes + i, goes + 4 * i)
            _bytes(comes + tail, goes + 4 * tail, width - tail)


@compiled
def send(target: int, source: int, size: int) -> None:
    """Copy bytes past the caches."""
    head = min(size, -target & (LINE - 1))
    tail = head + (size - head) // LINE * LINE
    if head:
        copy(target, source, head)
    for at in range(head, tail, LINE):
        stream_line(source + at, target + at)
    if tail < size:
        copy(target + tail, source + tail, size - tail)


@compiled
def _cast(pixels: Any, out: Any) -> None:
    for i in range(out.size):
        out[i] = np.float32(pixels[i])


@compiled
def to_float(source: int, kind: int, count: int, target: int) -> None:
    """Turn pixels, numbered as in `_batches`, into float32."""
    out = numba.carray(pointer(target), count, np.float32)
    if kind == 0:
        _cast(numba.carray(pointer(source), count, np.uint8), out)
    elif kind == 1:
        _cast(numba.carray(pointer(source), count, np.uint16), out)
    elif kind == 2:
        _cast(numba.carray(pointer(source), count, np.int8), out)
    elif kind == 3:
        _cast(numba.carray(pointer(source), count, np.int16), out)
    elif kind == 4:
        _cast(numba.carray(pointer(source), count, np.int32), out)
    else:
        _cast(numba.carray(pointer(source), count, np.uint32), out)


@compiled
def change(target: int, count: int, steps: Any, first: Any, second: Any, channel: int) -> None:
    """Take a row of one channel through the steps, in the order and the precision of NumPy."""
    out = numba.carray(pointer(target), count, np.float32)
    for step in range(steps.size):
        kind, a, b = steps[step], first[step, channel], second[step, channel]
        if kind == CLIP:
            # What is no number stays none.
            for i in range(count):
                value = out[i]
                value = a if value < a else value  # noqa: FURB136 - max() makes a number of none
                out[i] = b if value > b else value  # noqa: FURB136 - as above
        elif kind == SUBTRACT:
            for i in range(count):
                out[i] = out[i] - a
        elif kind == DIVIDE:
            for i in range(count):
                out[i] = out[i] / a
        elif kind == MULTIPLY:
            for i in range(count):
                out[i] = out[i] * a
        else:
            for i in range(count):
                out[i] = out[i] + a


@compiled
def lay(source: int, rows: int, width: int, target: int, down: int, right: int) -> None:
    """Lay rows of float32, at most `ROWS` side by side, where they go in a window that is turned."""
    # Counted without a sign: else each index is compared with zero, and no loop is vectorized.
    wide, last = np.uint64(width), np.uint64(width - 1)
    if right == -4:
        for row in range(rows):
            reals = numba.carray(pointer(source + row * width * 4), width, np.float32)
            places = numba.carray(pointer(target + row * down - (width - 1) * 4), width, np.float32)
            for i in range(wide):
                places[last - i] = reals[i]
        return
    # What was a column is a row: each line of the buffer is touched once.
    reals = numba.carray(pointer(source), rows * width, np.float32)
    back = 0 if down > 0 else (rows - 1) * 4
    lines = np.uint64(rows)
    for i in range(wide):
        places = numba.carray(pointer(target + np.int64(i) * right - back), rows, np.float32)
        if down > 0 and rows == ROWS:
            for row in range(np.uint64(ROWS)):
                places[row] = reals[row * wide + i]
        elif rows == ROWS:
            for row in range(np.uint64(ROWS)):
                places[np.uint64(ROWS - 1) - row] = reals[row * wide + i]
        elif down > 0:
            for row in range(lines):
                places[row] = reals[row * wide + i]
        else:
            for row in range(lines):
                places[lines - np.uint64(1) - row] = reals[row * wide + i]
