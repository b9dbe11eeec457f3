"""Part of a JPEG, without decoding the whole: the same pixels, in less time.

A window of a slide that lies between its tiles touches four of them and needs a quarter of each. A
smaller JPEG of the blocks that it needs is made of a tile's codes, and the decoder of all others makes
the pixels. On the way past the codes it is noted where they are: the next window of the tile is there
at once. With Numba only: without, tiles are decoded whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from microtome.storage import Compiled, Compiler

from ._jpeg_frame import Frame, frame_of, header_size
from ._segments import Segments

__all__ = ["KERNELS", "NOTES", "JpegParts", "compiled_walk"]

_JPEG = 7
_CONTIGUOUS, _RGB, _YCBCR = 1, 2, 6
_CHANNELS = 3

# Of the pixels of a tile, that part from which on the whole costs no more.
_MOST = 0.5
# A smaller tile is decoded before a part of it is found.
_LEAST_PIXELS = 96 * 96

# Kinds of headers that the tiles of a file have; where each has tables of its own, as encoders make
# that count how often each code comes, to expand them would cost more than it saves.
_MOST_KINDS = 16

# Bytes of pixels of which parts are asked for, before it pays to load Numba.
_WORTH = 1 << 26

# What notes take at most, about 2 KB a tile, and how lately a tile has to have been asked for that
# the next one who asks has it decoded whole, for those that follow.
_NOTES_BYTES = 32 << 20
_LATELY_BYTES = 8 << 20

_Key = tuple[int, int, int]


@dataclass(slots=True)
class _Notes:
    """Where the codes of a tile are, as far as that is known."""

    marks: NDArray[np.int32]
    known: int = 0
    """Rows of units."""

    @property
    def nbytes(self) -> int:
        """What they take in memory."""
        return self.marks.nbytes


NOTES: Segments[_Notes] = Segments(_NOTES_BYTES)


class _Asked(NamedTuple):
    """That a tile was asked for."""

    nbytes: int
    """What it takes decoded."""


_LATELY: Segments[_Asked] = Segments(_LATELY_BYTES)


def compiled_walk() -> Compiled | None:
    """Return the calls that walk through codes, compiled; None where Numba is told to compile nothing."""
    if import_module("numba").config.DISABLE_JIT:
        return None
    kernels: Any = import_module("microtome.sources._compiled_jpeg")
    _compile(kernels)
    return Compiled(kernels, np.empty(0, np.int64))


KERNELS = Compiler(compiled_walk, _WORTH)
"""Compiling them, once for an installation, takes some ten seconds."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """What tiles of one header have in common."""

    frame: Frame
    groups: NDArray[np.uint16]
    """Of several codes together, and of those of levels, by what bits begin with: see `group_codes`."""
    short: NDArray[np.uint16]
    size: int
    """Bytes of the header."""


@dataclass(slots=True)
class JpegParts:
    """Cuts parts out of the tiles of a picture.

    Parameters
    ----------
    shape
        Rows and columns of a tile.
    colorspace
        What the colours of a tile are, if it does not say so itself.
    """

    shape: tuple[int, int]
    colorspace: int | None
    _kinds: dict[tuple[bytes | None, bytes], _Kind | None] = field(default_factory=dict)
    _last: tuple[bytes | None, bytes] | None = None

    @classmethod
    def of(cls, page: Any) -> JpegParts | None:
        """Return one for the tiles of a page of tifffile's, None where they are of another kind."""
        if (
            page.compression != _JPEG
            or not page.is_tiled
            or page.samplesperpixel != _CHANNELS
            or page.bitspersample != 8
            or page.planarconfig != _CONTIGUOUS
            or page.photometric not in {_RGB, _YCBCR}
            or page.extrasamples
            or page.tilelength * page.tilewidth < _LEAST_PIXELS
        ):
            return None
        # As tifffile has it: Aperio's tiles are RGB and do not say so.
        told = page.photometric != _RGB or page.is_jfif
        return cls((page.tilelength, page.tilewidth), None if told else _RGB)

    def calls(self, key: _Key, rows: tuple[int, int], columns: tuple[int, int]) -> Any:
        """Return the calls where part of a tile costs less than the whole; else, or asked for anew, None."""
        height, width = self.shape
        asked = (rows[1] - rows[0]) * (columns[1] - columns[0])
        if asked > _MOST * height * width:
            return None
        found = KERNELS.after(_CHANNELS * height * width)
        if found is None or _LATELY.get(key) is not None:
            return None
        _LATELY.keep(key, _Asked(_CHANNELS * height * width))
        return found.kernel

    def part(
        self,
        key: _Key,
        data: bytes,
        tables: bytes | None,
        rows: tuple[int, int],
        columns: tuple[int, int],
        *,
        kernels: Any,
    ) -> NDArray[np.uint8] | None:
        """Return part of a tile as (rows, columns, 3).

        Parameters
        ----------
        key
            What names the tile.
        data
            The tile.
        tables
            What all tiles of the file have in common.
        rows, columns
            First pixel and one past the last.
        kernels
            The compiled calls.

        Returns
        -------
        None where it has to be decoded whole: it is of another kind, or damaged.
        """
        kind = self._kind(kernels, data, tables)
        end = data.rfind(b"\xff\xd9")
        if kind is None or end < kind.size:
            return None
        frame = kind.frame
        (top, bottom), (left, right) = (
            (max(a // unit - more, 0), min(-(-b // unit) + more, count))
            for (a, b), unit, more, count in zip(
                (rows, columns), frame.unit, frame.margin, frame.units, strict=True
            )
        )
        notes = NOTES.get(key) or _Notes(_no_marks(kernels, frame))
        words = np.empty((end - kind.size) // 4 + 3, np.uint32)
        # Of what is noted it is known how far it is needed.
        wanted = int(notes.marks[bottom, 0, 0]) if bottom <= notes.known else 8 * end
        bits = kernels.spread(np.frombuffer(data, np.uint8), kind.size, end, wanted, words)
        if bits < 0:
            return None
        across = frame.units[1]
        scan = frame.blocks, frame.codes, kind.groups, kind.short
        if notes.known < bottom:
            if not kernels.extend(words, bits, notes.marks, notes.known, bottom, across, *scan):
                return None
            notes.known = bottom
            NOTES.keep(key, notes)
        out = np.empty(2 * len(data) + 4096, np.uint8)
        box = (top, bottom), (left, right), across
        size = kernels.cut(words, bits, notes.marks, *box, *scan, frame.written, out)
        if size < 0:
            return None
        y, x = top * frame.unit[0], left * frame.unit[1]
        height = min(bottom * frame.unit[0], frame.height) - y
        width = min(right * frame.unit[1], frame.width) - x
        small = frame.header(height, width, right - left) + out[:size].tobytes()
        try:
            pixels = imagecodecs.jpeg8_decode(
                small, tables=tables, colorspace=self.colorspace, outcolorspace=_RGB
            )
        except imagecodecs.Jpeg8Error:
            # What is wrong with the tile is told of the whole.
            return None
        return pixels[rows[0] - y : rows[1] - y, columns[0] - x : columns[1] - x]

    def _kind(self, kernels: Any, data: bytes, tables: bytes | None) -> _Kind | None:
        """Return what is known of all tiles with the header of this one, None if it is no use."""
        last = self._last
        if last is not None and last[0] == tables and data.startswith(last[1]):
            return self._kinds[last]
        key = tables, data[: header_size(data)]
        if key not in self._kinds:
            if len(self._kinds) >= _MOST_KINDS:
                return None
            frame = frame_of(*key)
            fits = frame is not None and (frame.height, frame.width) == self.shape
            self._kinds[key] = _kind_of(kernels, frame) if frame is not None and fits else None
        self._last = key if key[1] else None
        return self._kinds[key]


def _kind_of(kernels: Any, frame: Frame) -> _Kind:
    look = kernels.LOOK
    groups = np.zeros((len(frame.codes), 1 << look), np.uint16)
    for codes, grouped in zip(frame.codes, groups, strict=True):
        kernels.group_codes(codes, grouped)
    short = frame.codes[:, :: 1 << kernels.ALL_BITS - look]
    # What a longer code begins with begins others too.
    short = np.where(short >> 8 <= look, short, 0).astype(np.uint16)
    return _Kind(frame, groups, short, len(frame.head) + len(frame.scan))


def _no_marks(kernels: Any, frame: Frame) -> NDArray[np.int32]:
    rows, across = frame.units
    point = max(kernels.POINT // len(frame.blocks), 1)
    return np.zeros((rows + 1, -(-across // point), 1 + _CHANNELS), np.int32)


def _compile(kernels: Any) -> None:
    """Call everything once, as it will be called."""
    pixels = np.arange(32 * 32 * _CHANNELS, dtype=np.uint32).reshape(32, 32, _CHANNELS) * 2654435761
    data = imagecodecs.jpeg8_encode((pixels >> 16).astype(np.uint8), level=80)
    parts = JpegParts((32, 32), None)
    parts.part((-1, 0, 0), bytes(data), None, (0, 16), (0, 16), kernels=kernels)
    NOTES.forget(-1)
