"""What stands before the codes of a JPEG: its size, its components, its tables of codes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Frame", "frame_of", "header_size"]

# Markers (ITU T.81, table B.1): start of image, frames that are coded one block after the other,
# tables of codes, restart interval, start of scan. What follows others matters to decoders only.
_IMAGE, _SCAN, _CODES, _RESTART = 0xD8, 0xDA, 0xC4, 0xDD
_PLAIN = (0xC0, 0xC1)
# Frames of other kinds, and restarts, which would have to be gone past.
_OTHERS = {*range(0xC0, 0xD0), _RESTART} - {*_PLAIN, _CODES}

_BLOCK = 8
_ALL_BITS = 16
_COMPONENTS = 3
_MOST_BLOCKS = 10  # of a unit
_COEFFICIENTS = 16  # among the kinds of tables, those that are for coefficients


class Frame(NamedTuple):
    """A JPEG of three components, whose blocks are coded in one go."""

    height: int
    width: int
    unit: tuple[int, int]
    """Rows and columns of the smallest rectangle of whole blocks of all components."""
    margin: tuple[int, int]
    """Units around a rectangle that its pixels depend on: colours of several pixels are smoothed."""
    blocks: NDArray[np.int64]
    """Of each block of a unit: its component, its table of levels, and that of coefficients."""
    codes: NDArray[np.int32]
    """What 16 bits begin with, (tables, 2^16): 256 times the length of a code, and what it means; 0
    where it is none."""
    written: NDArray[np.int64]
    """What codes a meaning below 16, (tables, 16): 32 times the code, and its length."""
    head: bytes
    """What stands before the codes, up to the scan."""
    size_at: int
    """Where in it height and width are."""
    scan: bytes
    """The head of the scan."""

    @property
    def units(self) -> tuple[int, int]:
        """How many units lie below and beside each other."""
        return -(-self.height // self.unit[0]), -(-self.width // self.unit[1])

    def header(self, height: int, width: int, restart: int) -> bytes:
        """Return what stands before the codes of a JPEG of another size, with restarts in it."""
        size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
        at = self.size_at
        every = bytes((0xFF, _RESTART, 0, 4)) + restart.to_bytes(2, "big")
        return self.head[:at] + size + self.head[at + 4 :] + every + self.scan


def header_size(data: bytes) -> int:
    """Return how many bytes stand before the codes, 0 where none follow."""
    for marker, at, body in _segments(data):
        if marker == _SCAN:
            return at + len(body)
    return 0


def frame_of(tables: bytes | None, header: bytes) -> Frame | None:
    """Understand what stands before the codes; None where it is of a kind that is not walked through.

    Parameters
    ----------
    tables
        What a TIFF has once for all its tiles: a JPEG of tables alone.
    header
        What a tile begins with, as far as its codes.
    """
    found: dict[int, tuple[bytes, bytes]] = {}
    sizes, size_at, scan_at, scan = b"", 0, 0, b""
    for marker, at, body in [*_segments(tables or b""), *_segments(header)]:
        if marker in _OTHERS or (sizes and marker in _PLAIN):
            return None
        if marker == _CODES:
            found |= _tables(body)
        elif marker in _PLAIN:
            sizes, size_at = body, at + 1
        elif marker == _SCAN:
            scan_at, scan = at - 4, body
    height, width = (int.from_bytes(sizes[i : i + 2], "big") for i in (1, 3))
    steps = _steps(sizes, scan)
    blocks = _blocks(steps, scan, sorted(found))
    codes = [_expanded(*found[kind]) for kind in sorted(found)]
    whole = [one for one in codes if one is not None]
    if not blocks or len(whole) < len(codes) or min(height, width) < 1:
        return None
    if header[size_at - 1 : size_at + len(sizes) - 1] != sizes:  # it stands among the tables
        return None
    across, down = max(x for x, _ in steps), max(y for _, y in steps)
    return Frame(
        height,
        width,
        (_BLOCK * down, _BLOCK * across),
        (int(any(y != down for _, y in steps)), int(any(x != across for x, _ in steps))),
        np.asarray(blocks, np.int64),
        np.stack([one[0] for one in whole]),
        np.stack([one[1] for one in whole]),
        header[:scan_at],
        size_at,
        header[scan_at:],
    )


def _steps(sizes: bytes, scan: bytes) -> list[tuple[int, int]]:
    """Return how many blocks across and down a unit has of each component; none of other kinds.

    Parameters
    ----------
    sizes
        The frame: bits, height, width, and of each component its name, steps and quantization.
    scan
        The head of the scan: of each component its name and tables; and that it has all coefficients.
    """
    plain = len(sizes) == 6 + 3 * _COMPONENTS and sizes[0] == 8 and sizes[5] == _COMPONENTS
    one = len(scan) == 4 + 2 * _COMPONENTS and scan[0] == _COMPONENTS and scan[-3:] == b"\0\x3f\0"
    if not plain or not one or scan[1:-3:2] != sizes[6::3] or len(set(sizes[6::3])) < _COMPONENTS:
        return []
    steps = [(step >> 4, step & 15) for step in sizes[7::3]]
    few = sum(x * y for x, y in steps) <= _MOST_BLOCKS
    return steps if few and min(map(min, steps)) >= 1 else []


def _blocks(
    steps: list[tuple[int, int]], scan: bytes, kinds: list[int]
) -> list[tuple[int, int, int]]:
    """Return component and tables of each block of a unit, by number in `kinds`; none if they lack."""
    blocks: list[tuple[int, int, int]] = []
    for component, (x, y) in enumerate(steps):
        pair = scan[2 + 2 * component]
        levels, coefficients = pair >> 4, _COEFFICIENTS | pair & 15
        if levels not in kinds or coefficients not in kinds:
            return []
        blocks += [(component, kinds.index(levels), kinds.index(coefficients))] * (x * y)
    return blocks


def _segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield each marker, where what follows it begins, and that, as far as the first scan."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        # Markers without length (restarts, an end) stand in no header.
        if length < 2 or len(body) != length - 2 or 0xD0 <= marker <= 0xD9 or marker < 0xC0:
            return
        yield marker, at + 4, body
        if marker == _SCAN:
            return
        at += 2 + length


def _tables(body: bytes) -> dict[int, tuple[bytes, bytes]]:
    """Return tables of codes by kind and number: how many codes of each length, and what they mean."""
    found: dict[int, tuple[bytes, bytes]] = {}
    at = 0
    while at + 17 <= len(body):
        counts = body[at + 1 : at + 17]
        end = at + 17 + sum(counts)
        found[body[at]] = counts, body[at + 17 : end]
        at = end
    return found


def _expanded(counts: bytes, meanings: bytes) -> tuple[NDArray[np.int32], NDArray[np.int64]] | None:
    """Return what every 16 bits begin with, and how small meanings are coded."""
    codes = np.zeros(1 << _ALL_BITS, np.int32)
    written = np.zeros(16, np.int64)
    if sum(counts) != len(meanings):
        return None
    at, code, number = 0, 0, 0
    for length, count in enumerate(counts, 1):
        for meaning in meanings[number : number + count]:
            end = at + (1 << _ALL_BITS - length)
            # Decoders want a code of ones to be left free; more codes than there is room for are none.
            if end > len(codes):
                return None
            codes[at:end] = length << 8 | meaning
            if meaning < len(written):
                written[meaning] = code << 5 | length
            at, code = end, code + 1
        number += count
        code <<= 1
    return codes, written
