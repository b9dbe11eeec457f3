"""Walking through the Huffman codes of a JPEG without making pixels, and cutting a rectangle out of it.

Imported only where Numba is there. Most of what decoding a JPEG takes are its codes, one after the
other; who wants a part of a picture must go past all codes before it, but needs neither their
coefficients nor their pixels. Here several codes are passed with one look into a table.

A place is a bit of the codes without the zeros that follow each byte of 255 in the file (ITU T.81,
B.1.1.5), which are none.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from microtome.storage import jit

__all__ = ["ALL_BITS", "LOOK", "POINT", "cut", "extend", "group_codes", "spread"]

ALL_BITS = 16
"""The longest code."""

LOOK = 13
"""Bits that are looked at together: tables of more do not fit the nearest cache."""

POINT = 24
"""Blocks between noted places, about; a unit, the smallest rectangle of whole blocks of all components,
has three to ten."""

_LAST = 64  # coefficients of a block
_END = 1 << 12
_MOST_SIZE = 11  # bits of a level's difference

# Each byte's lowest and highest bit.
_LOW, _HIGH = np.uint32(0x01010101), np.uint32(0x80808080)


@jit
def group_codes(single: Any, grouped: Any) -> None:
    """Sum up how far all whole codes of some bits lead, for each value that these bits can have.

    An entry has the bits that they take, 32 times the coefficients, and whether they end the block;
    0 where not even one code is whole.
    """
    for value in range(1 << LOOK):
        used, passed, ends = 0, 0, 0
        while True:
            entry = int(single[(value << used & (1 << LOOK) - 1) << ALL_BITS - LOOK])
            size, run = entry & 15, entry >> 4 & 15
            length = entry >> 8
            if not length or used + length + size > LOOK or (size == 0 and 0 < run < 15):
                break
            if size == 0 and run == 0:
                used, ends = used + length, _END
                break
            if passed + run + 1 >= _LAST:
                break
            used, passed = used + length + size, passed + run + 1
        grouped[value] = used | passed << 5 | ends


@jit
def spread(data: Any, start: Any, stop: Any, wanted: Any, words: Any) -> int:
    """Write codes as words, without the zeros that are none; return how many bits.

    Parameters
    ----------
    data, start, stop
        The file, and where in it they begin and end.
    wanted
        Bits that are enough.
    words
        Where they go; room for two more than they fill.

    Returns
    -------
    Bits, -1 where there is something else among the codes.
    """
    at, held, count, word = start, np.uint64(0), 0, 0
    wanted = min(wanted, 8 * (stop - start))
    while at < stop and word << 5 < wanted:
        if at + 4 <= stop:
            first = np.uint64(at)
            four = (
                np.uint32(data[first]) << np.uint32(24)
                | np.uint32(data[first + np.uint64(1)]) << np.uint32(16)
                | np.uint32(data[first + np.uint64(2)]) << np.uint32(8)
                | np.uint32(data[first + np.uint64(3)])
            )
            # Whether a byte of its complement is zero.
            if ((~four - _LOW) & four & _HIGH) == np.uint32(0):
                held = held << np.uint64(32) | np.uint64(four)
                words[word] = held >> np.uint64(count)
                at, word = at + 4, word + 1
                continue
        byte = data[at]
        held = held << np.uint64(8) | np.uint64(byte)
        count += 8
        at += 1
        if byte == 255:
            if at == stop or data[at] != 0:
                return -1
            at += 1
        if count == 32:
            words[word] = held
            word, count = word + 1, 0
    words[word] = held << np.uint64(32 - count)
    words[word + 1] = 0
    return 32 * word + count


@jit
def _filled(words: Any, bits: Any, left: Any, at: Any) -> Any:
    """Return more than 32 bits, how many, and the word that follows them."""
    if left <= 32:
        word = np.uint64(words[min(at, np.uint64(len(words) - 1))])
        return bits | word << np.uint64(32 - left), left + 32, at + np.uint64(1)
    return bits, left, at


@jit
def _begun(words: Any, place: Any) -> Any:
    """Start reading at a place."""
    at, skipped = np.uint64(place >> 5), place & 31
    bits, left, at = _filled(words, np.uint64(0), 0, at)
    bits, left, at = _filled(words, bits, left, at)
    return bits << np.uint64(skipped), left - skipped, at


@jit
def _walk(
    words: Any, state: Any, blocks: Any, first: Any, count: Any, codes: Any, groups: Any, short: Any
) -> bool:
    """Go past blocks.

    Parameters
    ----------
    words
        The codes, 32 bits a word.
    state
        The bit where they begin, and the level of each component before; moved on.
    blocks
        Of each block of a unit: its component, its table of levels, and that of coefficients.
    first, count
        Which block of the unit comes first, and how many there are to go past.
    codes, groups, short
        All codes by 16 bits; groups of them, and those of levels, by fewer.
    """
    bits, left, at = _begun(words, state[0])
    block = first
    for _ in range(count):
        component, levels, table = blocks[block, 0], blocks[block, 1], blocks[block, 2]
        block = block + 1 if block + 1 < len(blocks) else 0
        bits, left, at = _filled(words, bits, left, at)
        entry = np.int64(short[levels, bits >> np.uint64(64 - LOOK)])
        if entry == 0:
            entry = np.int64(codes[levels, bits >> np.uint64(64 - ALL_BITS)])
        length, size = entry >> 8, entry & 255
        if length == 0 or size > _MOST_SIZE:
            return False
        bits <<= np.uint64(length)
        if size:
            more = np.int64(bits >> np.uint64(64 - size))
            state[1 + component] += more if more >> (size - 1) else more - (1 << size) + 1
            bits <<= np.uint64(size)
        left -= length + size
        passed = 1
        while passed < _LAST:
            bits, left, at = _filled(words, bits, left, at)
            entry = np.int64(groups[table, bits >> np.uint64(64 - LOOK)])
            on = passed + (entry >> 5 & 127)
            if entry and on < _LAST:
                bits <<= np.uint64(entry & 31)
                left -= entry & 31
                passed = on
                if entry & _END:
                    break
                continue
            # One by one: a long code, or the last ones of a block that has no end of its own.
            entry = np.int64(codes[table, bits >> np.uint64(64 - ALL_BITS)])
            length, size, run = entry >> 8, entry & 15, entry >> 4 & 15
            bits <<= np.uint64(length + size)
            left -= length + size
            if size == 0 and run == 0 and length:
                break
            passed += run + 1
            if length == 0 or passed > _LAST or (size == 0 and run != 15):
                return False
    state[0] = np.int64(at << np.uint64(5)) - left
    return True


@jit
def _point(marks: Any, width: Any) -> int:
    """Return how many units lie between noted places."""
    return (width + marks.shape[1] - 1) // marks.shape[1]


@jit
def extend(  # noqa: PLR0913, PLR0917 - what a scan is made of
    words: Any, length: Any, marks: Any, known: Any, wanted: Any, width: Any, blocks: Any,
    codes: Any, groups: Any, short: Any,
) -> bool:  # fmt: skip
    """Note where units lie, a number of them apart, of more rows.

    Parameters
    ----------
    words, length
        The codes, and their bits.
    marks
        Places and levels, (rows + 1, places, 1 + components); the first of row `known` is there.
    known, wanted
        Rows that are noted, and that shall be.
    width
        Units of a row.
    blocks, codes, groups, short
        As of `_walk`.

    Returns
    -------
    False where codes are wrong, or end too early.
    """
    state = marks[known, 0].astype(np.int64)
    point = _point(marks, width)
    for row in range(known, wanted):
        for place in range(marks.shape[1]):
            marks[row, place] = state
            units = min(point, width - place * point)
            if not _walk(words, state, blocks, 0, units * len(blocks), codes, groups, short):
                return False
        if state[0] > length:
            return False
        marks[row + 1, 0] = state
    return True


@jit
def _put(out: Any, at: Any, held: Any, count: Any, value: Any, size: Any) -> Any:
    """Append bits; what makes whole bytes is written, with a zero after each that is 255."""
    held = held << np.uint64(size) | value
    count += size
    while count >= 8:
        count -= 8
        byte = held >> np.uint64(count) & np.uint64(255)
        out[at] = byte
        at += 1
        if byte == np.uint64(255):
            out[at] = 0
            at += 1
    return at, held, count


@jit
def _copy(words: Any, start: Any, stop: Any, out: Any, at: Any, held: Any, count: Any) -> Any:
    """Append the bits between two places."""
    bits, left, word = _begun(words, start)
    while start + 32 <= stop:
        held = held << np.uint64(32) | bits >> np.uint64(32)
        four = np.uint32(held >> np.uint64(count) & np.uint64(0xFFFFFFFF))
        if ((~four - _LOW) & four & _HIGH) == np.uint32(0):
            first = np.uint64(at)
            out[first] = four >> np.uint32(24)
            out[first + np.uint64(1)] = four >> np.uint32(16) & np.uint32(255)
            out[first + np.uint64(2)] = four >> np.uint32(8) & np.uint32(255)
            out[first + np.uint64(3)] = four & np.uint32(255)
            at += 4
        else:
            at, held, count = _put(out, at, held, count + 32, np.uint64(0), 0)
        bits, left, word = _filled(words, bits << np.uint64(32), left - 32, word)
        bits, left, word = _filled(words, bits, left, word)
        start += 32
    size = stop - start
    if size:
        at, held, count = _put(out, at, held, count, bits >> np.uint64(64 - size), size)
    return at, held, count


@jit
def _reach(
    words: Any, marks: Any, unit: Any, point: Any, blocks: Any, codes: Any, groups: Any, short: Any
) -> Any:
    """Return place and levels before a unit of a row; the place is -1 where codes are wrong."""
    place = min(unit // point, len(marks) - 1)
    state = marks[place].astype(np.int64)
    count = (unit - place * point) * len(blocks)
    if not _walk(words, state, blocks, 0, count, codes, groups, short):
        state[0] = -1
    return state


@jit
def _first_unit(  # noqa: PLR0913, PLR0917 - what a scan is made of
    words: Any, state: Any, blocks: Any, codes: Any, groups: Any, short: Any,
    written: Any, out: Any, at: Any, held: Any, count: Any,
) -> Any:  # fmt: skip
    """Append a unit whose levels are told as differences from 0, and move on; -1 where codes are wrong."""
    seen = 0
    for block in range(len(blocks)):
        component, levels = blocks[block, 0], blocks[block, 1]
        begun = state[0]
        bits, _, _ = _begun(words, begun)
        if not _walk(words, state, blocks, block, 1, codes, groups, short):
            return -1, held, count
        if seen >> component & 1 == 0:
            seen |= 1 << component
            entry = np.int64(codes[levels, bits >> np.uint64(64 - ALL_BITS)])
            level = state[1 + component]
            size, rest = 0, abs(level)
            while rest:
                size, rest = size + 1, rest >> 1
            code = written[levels, min(size, _MOST_SIZE)]
            if size > _MOST_SIZE or code == 0:
                return -1, held, count
            value = level if level > 0 else level + (1 << size) - 1
            at, held, count = _put(out, at, held, count, np.uint64(code >> 5), code & 31)
            at, held, count = _put(out, at, held, count, np.uint64(value), size)
            begun += (entry >> 8) + (entry & 255)
        at, held, count = _copy(words, begun, state[0], out, at, held, count)
    return at, held, count


@jit
def cut(  # noqa: PLR0913, PLR0917 - what a scan is made of
    words: Any, length: Any, marks: Any, rows: Any, columns: Any, width: Any, blocks: Any, codes: Any,
    groups: Any, short: Any, written: Any, out: Any,
) -> int:  # fmt: skip
    """Write the codes of a rectangle of units, and a restart after each row but the last.

    Parameters
    ----------
    words, length, marks
        As of `extend`; noted up to the last row.
    rows, columns
        First and one past the last.
    width
        Units of a row.
    blocks, codes, groups, short
        As of `_walk`.
    written
        The code of each size of a level, by table: 32 times the code, and its length.
    out
        Where they go.

    Returns
    -------
    The bytes written, -1 where codes are wrong or a level has no code.
    """
    at = 0
    point = _point(marks, width)
    for row in range(rows[0], rows[1]):
        state = _reach(words, marks[row], columns[0], point, blocks, codes, groups, short)
        end = _reach(words, marks[row], columns[1], point, blocks, codes, groups, short)[0]
        if state[0] < 0 or end < state[0] or end > length:
            return -1
        # The worst that bits can become: each byte followed by a zero.
        if at + (end - state[0]) // 4 + 64 * len(blocks) > len(out):
            return -1
        at, held, count = _first_unit(
            words, state, blocks, codes, groups, short, written, out, at, np.uint64(0), 0
        )
        if at < 0:
            return -1
        at, held, count = _copy(words, state[0], end, out, at, held, count)
        if count:
            size = 8 - count
            at, held, count = _put(out, at, held, count, np.uint64((1 << size) - 1), size)
        out[at] = 255
        out[at + 1] = 217 if row + 1 == rows[1] else 208 + (row - rows[0]) % 8
        at += 2
    return at
