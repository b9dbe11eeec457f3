"""Chunks decoded and cut into a batch by one compiled call, outside Python's lock.

Imported only where Numba is there and enough is read that compiling pays. What decodes are the
libraries that imagecodecs brings; what is done here is to find the streams in a Blosc chunk, to
decode only what is asked for of them, and to bring their bytes back into order, not in a buffer of
their own but on the way to the batch. Blosc's format is that of c-blosc 1 (README_CHUNK_FORMAT):
every number that is read of a chunk is compared with how long it is before it is believed.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from ._compiled_calls import (
    call_blosc,
    call_clock,
    call_lz4,
    call_lz4_part,
    call_zstd,
    compiled,
    copy,
    pointer,
)
from ._compiled_lines import LINE, end_streams
from ._compiled_pixels import (
    change,
    copy_pairs,
    copy_pixels,
    copy_rows,
    lay,
    send,
    send_pairs,
    send_rows,
    to_float,
)
from ._compiler import TURNED_ROWS as ROWS

__all__ = ["read_chunks"]

numba: Any = import_module("numba")
_types: Any = import_module("numba.core.types")

RAW, BLOSC, ZSTD = 0, 1, 2
# Float32 among the types, which stays what it is.
FLOAT = 6

_HEADER = 16
_LZ4, _ZSTD = 1, 4  # formats of a Blosc chunk
_MOST_SPLITS, _LEAST_SPLIT = 16, 128


@compiled
def _number(data: Any, at: int) -> Any:
    return (
        np.int64(data[at])
        | np.int64(data[at + 1]) << 8
        | np.int64(data[at + 2]) << 16
        | np.int64(data[at + 3]) << 24
    )


@compiled
def _decode_stream(
    codec: int, at: int, length: int, target: int, wanted: int, room: int, calls: Any, context: int
) -> bool:
    """Decode the first `wanted` bytes of a stream that has `room` bytes."""
    if length == room:
        copy(target, at, wanted)
        return True
    if codec == _ZSTD:
        return call_zstd(calls[2], context, target, room, at, length) == room
    if wanted == room:
        return call_lz4(calls[0], at, target, np.int32(length), np.int32(room)) == room
    found = call_lz4_part(calls[1], at, target, np.int32(length), np.int32(wanted), np.int32(room))
    return found >= wanted


@compiled
def _decode_blosc(  # noqa: C901, PLR0911, PLR0912, PLR0913, PLR0917 - each thing that may be wrong is one
    at: int, length: int, size: int, item: int, begin: int, end: int, scratch: int,
    calls: Any, context: int, told: Any,
) -> bool:  # fmt: skip
    """Decode at least the pixels from `begin` to `end` of a chunk.

    `told` then says where pixels are, how many a block has, whether their bytes are apart, and,
    of a single block of two bytes a pixel, where the first bytes of all are and where the second;
    this only where its last number is not 0 before.
    """
    told[0], told[1], told[2] = scratch, size // item, 0
    direct = told[4]
    # Decoders count in 32 bits with a sign; of more, their formats have none.
    if length < _HEADER or length > 0x7FFFFFFF:
        return False
    data = numba.carray(pointer(at), length, np.uint8)
    flags, typesize, block = np.int64(data[2]), np.int64(data[3]), _number(data, 8)
    # What decodes believes its header: that must be true of what is in our hands.
    if _number(data, 4) != size or _number(data, 12) != length:
        return False
    codec = flags >> 5
    odd = data[0] != 2 or data[1] != 1 or typesize != item or flags & 8 or block < item
    if (
        odd
        or block > size
        or block % item
        or not (flags & 2 or codec in (_LZ4, _ZSTD))
        or flags & 4
    ):
        # The library's own matter, or damage that it tells.
        return call_blosc(calls[5], at, scratch, size, np.int32(1)) == size
    if flags & 2:  # stored as it is
        told[0] = at + _HEADER
        return length == size + _HEADER
    blocks, left = -(-size // block), size % block
    apart = flags & 1 and item > 1
    told[1], told[2] = block // item, apart
    streams = _HEADER + 4 * blocks
    if streams > length:
        return False
    for number in range(begin * item // block, -(-end * item // block)):
        whole = number < blocks - 1 or not left
        count = block if whole else left
        split = not flags & 16 and item <= _MOST_SPLITS and block // item >= _LEAST_SPLIT and whole
        parts = item if split else 1
        each = count // parts
        wanted = each
        if split and apart:
            # Of the streams no more than the last pixel needs.
            wanted = min(each, end - number * (block // item))
        place = _number(data, _HEADER + 4 * number)
        if place < streams:
            return False
        for part in range(parts):
            if place + 4 > length:
                return False
            stored = _number(data, place)
            place += 4
            if stored > length - place or stored < 1:
                return False
            target = scratch + number * block + part * each
            if direct and blocks == 1 and parts == 2 and apart:
                # A stream that could not be compressed, as the noise of a camera, lies there as it is.
                told[3 + part] = at + place if stored == each else target
                if stored == each:
                    place += stored
                    continue
            if not _decode_stream(codec, at + place, stored, target, wanted, each, calls, context):
                return False
            place += stored
    return True


@compiled
def _now(calls: Any, told: Any) -> Any:
    """Return nanoseconds of the system's clock."""
    call_clock(calls[6], np.int32(calls[7]), told.ctypes.data)
    return told[0] * 1_000_000_000 + told[1]


@compiled
def _put_in_order(told: Any, whole: int, item: int, target: int) -> None:
    """Copy all pixels of a chunk, as `_decode_blosc` tells where they are, side by side."""
    base, block = told[0], told[1]
    if not told[2]:
        copy(target, base, whole * item)
        return
    for begin in range(0, whole, block):
        count = min(block, whole - begin)
        copy_pixels(base + begin * item, 1, count, item, count, target + begin * item)


def _read_chunks(  # noqa: C901, PLR0912, PLR0913, PLR0915, PLR0917 - compiled: no object to hold them
    chunks: Any,
    source: Any,
    length: Any,
    first: Any,
    start: Any,
    size: Any,
    target: Any,
    channel: Any,
    sides: Any,
    strides: Any,
    pitch: Any,
    facts: Any,
    fill: Any,
    scratch: Any,
    calls: Any,
    steps: Any,
    values: Any,
    seconds: Any,
    keep: Any,
    spent: Any,
) -> int:
    """Decode some of the chunks of a plan and copy what is asked for of them.

    Parameters
    ----------
    chunks
        The first and one past the last of them.
    source, length
        Address of each chunk's bytes, 0 for one that was never written, and how many there are; -1
        for pixels as they are, which were decoded before.
    first, start, size, target
        As of `ChunkPlan`, with five axes; `target` an address.
    channel
        Of the batch, of each copy's first pixel.
    sides, strides
        Of a chunk in pixels, and of the buffer in bytes, five of each.
    pitch
        Bytes of the buffer from a pixel to the next along the last two axes, of each copy: others
        than in `strides` where it is turned.
    facts
        Bytes of a pixel; how chunks are compressed; the axis that channels are counted along, 5
        for none; number of the pixels' type in `_batches`, -1 where they stay what they are; ZSTD's
        context; whether pixels go past the caches.
    fill
        Bytes of a pixel that was never written.
    scratch
        Memory for one chunk, for a row of one, and for `ROWS` of float32 or one as it is.
    calls
        Addresses of the decoders.
    steps, values, seconds
        What is done to float pixels: kinds, and one number a step and channel for each of both.
    keep
        Address of memory for the pixels of each chunk, which stay there; 0 where they do not.
    spent
        One number, to which the nanoseconds of decoding are added.

    Returns
    -------
    -1, or the number of the first chunk that is damaged.
    """
    item, packed, along, kind, context = facts[0], facts[1], facts[2], facts[3], facts[4]
    streams, written = facts[5] != 0, item if kind < 0 else 4
    whole = sides[0] * sides[1] * sides[2] * sides[3] * sides[4]
    told = np.zeros(5, np.int64)
    clock = np.zeros(2, np.int64)
    place = scratch.ctypes.data
    row = place + whole * item
    straight = (row + sides[4] * item + 7) // 8 * 8
    s3, s2 = sides[4], sides[4] * sides[3]
    s1, s0 = s2 * sides[2], s2 * sides[2] * sides[1]
    for chunk in range(chunks[0], chunks[1]):
        at = source[chunk]
        told[0], told[1], told[2], told[3] = at, whole, 0, 0
        told[4] = kind < 2 and not keep[chunk]
        if at and length[chunk] >= 0:
            began = _now(calls, clock) if packed else np.int64(0)
            begin, end = whole, np.int64(0)
            for k in range(first[chunk], first[chunk + 1]):
                low = start[k, 0] * s0 + start[k, 1] * s1 + start[k, 2] * s2
                low += start[k, 3] * s3 + start[k, 4]
                high = low + (size[k, 0] - 1) * s0 + (size[k, 1] - 1) * s1
                high += (size[k, 2] - 1) * s2 + (size[k, 3] - 1) * s3 + size[k, 4]
                begin, end = min(begin, low), max(end, high)
            if keep[chunk]:
                begin, end = np.int64(0), whole
            if packed == BLOSC:
                if not _decode_blosc(
                    at, length[chunk], whole * item, item, begin, end, place, calls, context, told
                ):
                    return chunk
            elif packed == ZSTD:
                told[0] = place
                if (
                    call_zstd(calls[2], context, place, whole * item, at, length[chunk])
                    != whole * item
                ):
                    return chunk
            elif length[chunk] != whole * item:
                return chunk
            if keep[chunk]:
                _put_in_order(told, whole, item, keep[chunk])
                told[0], told[2], told[3] = keep[chunk], 0, 0
            if packed:
                spent[0] += _now(calls, clock) - began
        base, block, apart = told[0], told[1], told[2]
        pairs = told[3] != 0 and kind < 2
        # Pixels of the commonest types, side by side, become float32 from where they lie.
        plain = at and not apart and 0 <= kind <= 1 and base % item == 0
        for k in range(first[chunk], first[chunk + 1]):
            width, down, right = size[k, 4], pitch[k, 0], pitch[k, 1]
            # Rows that are turned are made side by side first, and then laid where they go.
            turned, lies = right != strides[4], target[k]
            # So are those that go past the caches, but of what is nothing but made float32.
            aside = streams and not turned and width * written >= LINE
            straight_on = aside and (pairs or plain) and kind >= 0 and not steps.size
            for i0 in range(size[k, 0]):
                for i1 in range(size[k, 1]):
                    for i2 in range(size[k, 2]):
                        if (pairs or plain) and not turned and (straight_on or not aside):
                            pixel = (start[k, 0] + i0) * s0 + (start[k, 1] + i1) * s1
                            pixel += (start[k, 2] + i2) * s2 + start[k, 3] * s3 + start[k, 4]
                            goes = target[k] + i0 * strides[0] + i1 * strides[1] + i2 * strides[2]
                            if straight_on and pairs:
                                send_pairs(
                                    told[3] + pixel, told[4] + pixel, s3, size[k, 3], width, goes,
                                    down,
                                )  # fmt: skip
                            elif straight_on:
                                send_rows(
                                    base + pixel * item, s3 * item, size[k, 3], width, goes,
                                    down, kind,
                                )  # fmt: skip
                            elif pairs:
                                copy_pairs(
                                    told[3] + pixel, told[4] + pixel, s3, size[k, 3], width, goes,
                                    down, kind == 1,
                                )  # fmt: skip
                            else:
                                copy_rows(
                                    base + pixel * item, s3 * item, size[k, 3], width, goes,
                                    down, kind,
                                )  # fmt: skip
                            if kind < 0 or not steps.size:
                                continue
                        for i3 in range(size[k, 3]):
                            pixel = (start[k, 0] + i0) * s0 + (start[k, 1] + i1) * s1
                            pixel += (start[k, 2] + i2) * s2 + (start[k, 3] + i3) * s3 + start[k, 4]
                            goes = target[k] + i0 * strides[0] + i1 * strides[1]
                            goes += i2 * strides[2] + i3 * down
                            if turned:
                                if i3 % ROWS == 0:
                                    lies = goes
                                goes = straight + i3 % ROWS * width * 4
                            elif aside:
                                lies, goes = goes, straight
                            out = goes if kind < 0 or kind == FLOAT else row
                            if (turned or aside) and pairs:
                                copy_pairs(
                                    told[3] + pixel, told[4] + pixel, s3, 1, width, goes, 0,
                                    kind == 1,
                                )  # fmt: skip
                            elif (turned or aside) and plain:
                                copy_rows(base + pixel * item, 0, 1, width, goes, 0, kind)
                            elif pairs or plain:
                                pass
                            elif not at:
                                for i in range(width):
                                    copy(out + i * item, fill.ctypes.data, item)
                            elif not apart and aside and out == straight and not steps.size:
                                send(lies, base + pixel * item, width * item)
                                continue
                            elif not apart:
                                copy(out, base + pixel * item, width * item)
                            elif block == whole:
                                copy_pixels(base + pixel, apart, whole, item, width, out)
                            else:
                                done = np.int64(0)
                                while done < width:
                                    # A row may begin in one block and end in the next.
                                    number = (pixel + done) // block
                                    within = pixel + done - number * block
                                    gap = min(block, whole - number * block)
                                    count = min(width - done, gap - within)
                                    copy_pixels(
                                        base + number * block * item + within,
                                        apart, gap, item, count, out + done * item,
                                    )  # fmt: skip
                                    done += count
                            if kind >= 0:
                                if not pairs and not plain and kind != FLOAT:
                                    to_float(row, kind, width, goes)
                                if steps.size:
                                    mine = channel[k]
                                    mine += i0 if along == 0 else 0
                                    mine += i1 if along == 1 else 0
                                    mine += i2 if along == 2 else 0
                                    mine += i3 if along == 3 else 0
                                    change(goes, width, steps, values, seconds, mine)
                            if aside:
                                send(lies, straight, width * written)
                            elif turned and (i3 % ROWS == ROWS - 1 or i3 == size[k, 3] - 1):
                                lay(straight, i3 % ROWS + 1, width, lies, down, right)
    if streams:
        end_streams()
    return -1


_numbers = _types.int64[::1]
_table = _types.int64[:, ::1]
_floats = _types.float32[:, ::1]
read_chunks = compiled(
    _read_chunks,
    _types.int64(
        _numbers, _numbers, _numbers, _numbers, _table, _table, _numbers, _numbers, _numbers,
        _numbers, _table, _numbers, _types.uint8[::1], _types.uint8[::1], _numbers, _numbers, _floats,
        _floats, _numbers, _numbers,
    ),
)  # fmt: skip
"""`_read_chunks`, compiled when this module is imported and not when it is first called."""
