"""A resolution of a TIFF in place, a segment (tile or strip) at a time.

tifffile finds the pages and knows every compression; we keep the table of segments and read only
those that a window touches. Segments are fetched with `pread`, so that one open file serves any
number of threads.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from operator import index
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from microtome.errors import FormatError
from microtome.storage import READ, Box, Pending

from ._jpeg_parts import NOTES, JpegParts
from ._segment_reads import begin
from ._segments import SEGMENTS, new_owner
from ._shared_file import SharedFile
from ._tiff_pages import Plane, planes_of
from ._tiff_plain import PlainRows
from ._ycc import APERIO_YCC, holds_ycc, rgb_of_ycc

__all__ = ["CHANNEL_LETTERS", "TiffArray"]

# Letters of tifffile for an axis that nobody named are channels here: planes of one picture.
CHANNEL_LETTERS = frozenset("CIQS")
_ORDER = "tczyx"

# PlanarConfiguration 2: a page holds its samples one plane after the other.
_SEPARATE = 2

# What decoding one segment may allocate: a small file can claim a huge one.
_LARGEST = 2**31

# What is read at once of a picture that needs no decoding; less is no faster.
_ROWS_BYTES = 1 << 18


class _Window(NamedTuple):
    """What is asked for of a page: half-open intervals."""

    samples: tuple[int, int]
    rows: tuple[int, int]
    columns: tuple[int, int]


class _Segment(NamedTuple):
    """A tile or strip of a page, and where its pixels go."""

    page: int
    number: int
    sample: int | None
    """None where it holds all samples of a pixel."""
    top: int
    left: int
    target: NDArray[Any]
    """What is asked for of the page, (samples, rows, columns)."""


class _Part(NamedTuple):
    """What a window shows of a segment, in pixels of the picture."""

    segment: _Segment
    window: _Window
    rows: tuple[int, int]
    columns: tuple[int, int]


class TiffArray:
    """One resolution of a TIFF as a `PixelArray`.

    Parameters
    ----------
    path
        The file.
    series
        The `tifffile.TiffPageSeries` of this resolution.
    one_channel
        Whether there is an axis of one channel, which tifffile leaves out.

    Raises
    ------
    FormatError
        If it has axes that cannot be read, or its segments are not all there.
    """

    def __init__(self, path: Path, series: Any, *, one_channel: bool = False) -> None:
        self._path = path
        key = series.keyframe
        if key.imagedepth != 1:
            msg = f"{path}: volumes stored in one page (depth {key.imagedepth}) cannot be read"
            raise FormatError(msg)
        # Both read from the file when first asked for, and it is open only now.
        self._decoder = key.decode
        self._samples = "S" in series.axes
        self._separate = self._samples and key.planarconfig == _SEPARATE
        # A damaged tag may hold 70.0: then it is no size.
        height, width = index(key.imagelength), index(key.imagewidth)
        leads = _leading_axes(path, series) + ([("c", 1, 1)] if one_channel else [])
        sizes = {letter: size for letter, size, _ in leads} | {"y": height, "x": width}
        if self._samples:
            sizes["c"] = index(key.samplesperpixel)
        self.axes = "".join(axis for axis in _ORDER if axis in sizes)
        self._shape = tuple(sizes[axis] for axis in self.axes)
        # The axes that pages lie along, and how many pages a step along each is.
        self._strides = {letter: stride for letter, _, stride in leads}
        self._lead_places = [i for i, a in enumerate(self.axes) if a in self._strides]
        self._dtype = np.dtype(series.dtype).newbyteorder("=")
        self._of_bits = self._dtype.kind == "b" and key.bitspersample == 1
        if self._of_bits:
            self._dtype = np.dtype(np.uint8)  # a mask, and as labels numbers are wanted
        if self._dtype.kind not in "iuf":
            msg = f"{path}: pixels of type {self._dtype} cannot be read"
            raise FormatError(msg)
        self._segment = (
            (index(key.tilelength), index(key.tilewidth))
            if key.is_tiled
            else (min(index(key.rowsperstrip) or height, height), width)
        )
        self._plain = PlainRows.of(key)
        self._jpeg = JpegParts.of(key)
        self._ycc = key.compression == APERIO_YCC and self._dtype == np.uint8
        self._planes = planes_of(path, series, math.prod(size for _, size, _ in leads))
        files = {plane.file for plane in self._planes}
        self._files = {file: SharedFile(file) for file in files}
        self._owner = new_owner()
        self._check_complete()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in pixels, in the order of `axes`."""
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel, in the machine's byte order."""
        return self._dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """A tile or strip; of a strip that needs no decoding, some rows."""
        height, width = self._segment
        if self._plain is not None and width == self._shape[-1]:
            height = min(height, max(_ROWS_BYTES // self._plain.row_bytes, 1))
            # They can be cut anywhere, and who reads them in order does so at powers of two.
            height = 1 << height.bit_length() - 1
        together = "c" if self._samples else ""
        lead = [n if a in together else 1 for a, n in zip(self.axes, self._shape, strict=True)]
        return (*lead[:-2], height, width)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that its pixels are in; of an OME-TIFF there can be several."""
        return tuple(self._files)

    def step_along(self, axis: str) -> int:
        """Return how many pages lie between two steps along an axis, in the order of the file."""
        return self._strides.get(axis, 1)

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box."""
        out = np.empty([stop - start for start, stop in box], self._dtype)
        self.read_into(box, out).result()
        return out

    def read_into(self, box: Box, out: NDArray[Any]) -> Pending:
        """Begin to decode the segments that a box touches and to copy what is inside.

        What was begun in one thread is done together when the first of it is waited for.
        """
        if not out.size:
            return READ  # neither memory nor the file can be cut into no pixels
        samples = box[self.axes.index("c")] if self._samples else (0, 1)
        window = _Window(samples, *box[-2:])
        return begin(
            ((self._owner, segment.page, segment.number), self._fill, (segment, window))
            for page, target in self._pages(box, out)
            for segment in self._touched(page, window, target)
        )

    def _pages(self, box: Box, out: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
        """Find the pages that a box needs, and what of a buffer each fills: (samples, rows, columns)."""
        places = self._lead_places
        rest = [place for place in range(len(box)) if place not in places]
        turned = out.transpose(*places, *rest)
        strides = [self._strides[self.axes[place]] for place in places]
        for at in np.ndindex(turned.shape[: len(places)]):
            page = sum(
                (box[place][0] + step) * stride
                for place, step, stride in zip(places, at, strides, strict=True)
            )
            target = turned[at]
            yield page, target if self._samples else target[None]

    def _touched(self, page: int, window: _Window, target: NDArray[Any]) -> Iterator[_Segment]:
        """Find the segments of a page that a window needs."""
        height, width = self._segment
        across, per_plane = self._counts()
        for y in range(window.rows[0] // height, -(-window.rows[1] // height)):
            for x in range(window.columns[0] // width, -(-window.columns[1] // width)):
                position = y * across + x
                corner = (y * height, x * width)
                if not self._separate:
                    sample = None if self._samples else 0
                    yield _Segment(page, position, sample, *corner, target)
                    continue
                for sample in range(*window.samples):
                    number = position + sample * per_plane
                    yield _Segment(page, number, sample, *corner, target)

    def _fill(self, needs: Sequence[tuple[_Segment, _Window]]) -> None:
        """Read a segment for all windows that show some of it."""
        height, width = self._segment
        parts: list[_Part] = []
        for segment, window in needs:
            y0, x0 = max(window.rows[0], segment.top), max(window.columns[0], segment.left)
            y1 = min(window.rows[1], segment.top + height)
            x1 = min(window.columns[1], segment.left + width)
            part = _Part(segment, window, (y0, y1), (x0, x1))
            if self._plain is None:
                parts.append(part)
            elif not self._read_straight(segment, window, *part[2:]):
                # What is read of plain rows stays in the nearest caches until it is copied.
                step = max(_ROWS_BYTES // self._plain.row_bytes, 1)
                for top in range(y0, y1, step):
                    self._copy([part._replace(rows=(top, min(top + step, y1)))])
        if parts:
            self._copy(parts)

    def _read_straight(
        self,
        segment: _Segment,
        window: _Window,
        rows: tuple[int, int],
        columns: tuple[int, int],
    ) -> bool:
        """Read plain rows to where they go; False where they lie otherwise there, or not in the file."""
        plain, plane = self._plain, self._planes[segment.page]
        first, last = rows[0] - segment.top, rows[1] - segment.top
        if (
            plain is None
            or segment.sample is None
            or columns != (segment.left, segment.left + plain.width)
            or plane.counts[segment.number] < last * plain.row_bytes
        ):
            return False
        target = segment.target[
            segment.sample - window.samples[0],
            rows[0] - window.rows[0] : rows[1] - window.rows[0],
            columns[0] - window.columns[0] : columns[1] - window.columns[0],
        ]
        start = plane.offsets[segment.number] + first * plain.row_bytes
        return plain.read_into(self._files[plane.file], start, target)

    def _copy(self, parts: Sequence[_Part]) -> None:
        """Copy parts of one segment to where they go."""
        first = parts[0].segment
        top, bottom = min(p.rows[0] for p in parts), max(p.rows[1] for p in parts)
        left, right = min(p.columns[0] for p in parts), max(p.columns[1] for p in parts)
        pixels = self._part(
            first, (top - first.top, bottom - first.top), (left - first.left, right - first.left)
        )
        for segment, window, (y0, y1), (x0, x1) in parts:
            sample = slice(None) if segment.sample is None else segment.sample - window.samples[0]
            target = segment.target[
                sample,
                y0 - window.rows[0] : y1 - window.rows[0],
                x0 - window.columns[0] : x1 - window.columns[0],
            ]
            if pixels is None:
                # A sparse segment was never written: the format says it reads as zero.
                target[...] = 0
                continue
            part = pixels[y0 - top : y1 - top, x0 - left : x1 - left]
            if segment.sample is None:
                target[...] = part[..., slice(*window.samples)].transpose(2, 0, 1)
            else:
                target[...] = part[..., 0]

    def _part(
        self, segment: _Segment, rows: tuple[int, int], columns: tuple[int, int]
    ) -> NDArray[Any] | None:
        """Return part of a segment as (rows, columns, samples), None where nothing was written.

        It may be of this thread's own memory, which its next call uses again.
        """
        plain, plane = self._plain, self._planes[segment.page]
        if plain is not None and plane.counts[segment.number] >= rows[1] * plain.row_bytes:
            start = plane.offsets[segment.number]
            found = plain.read(self._files[plane.file], start, rows, columns)
            if found is not None:
                return found
        key = (self._owner, segment.page, segment.number)
        pixels = SEGMENTS.get(key)
        if pixels is None:
            kernels = None if self._jpeg is None else self._jpeg.calls(key, rows, columns)
            if self._jpeg is not None and kernels is not None:
                data = self._files[plane.file].read(
                    plane.offsets[segment.number], plane.counts[segment.number]
                )
                tables = plane.jpeg_tables
                found = self._jpeg.part(key, data, tables, rows, columns, kernels=kernels)
                if found is not None:
                    return found
            pixels = self._decode(segment.page, segment.number)
            if pixels is None:
                return None
            SEGMENTS.keep(key, pixels)
        return pixels[slice(*rows), slice(*columns)]

    def _decode(self, page: int, segment: int) -> NDArray[Any] | None:
        """Return a segment as (height, width, samples), None where nothing was written."""
        plane = self._planes[page]
        offset, size = plane.offsets[segment], plane.counts[segment]
        if size == 0:
            return None
        data = self._files[plane.file].read(offset, size)
        try:
            decoded = self._decoder(data, segment, jpegtables=plane.jpeg_tables)[0]
        except Exception as error:
            # imagecodecs has an error class for every codec, all plain RuntimeErrors below.
            msg = f"{self._path}: segment {segment} of plane {page} is damaged: {error}"
            raise FormatError(msg) from error
        if decoded is None:
            return None
        pixels = np.asarray(decoded)
        if self._of_bits and pixels.dtype.kind != "b":
            msg = f"{self._path}: segment {segment} of plane {page} holds {pixels.dtype}, not bits"
            raise FormatError(msg)
        pixels = pixels.reshape(pixels.shape[-3:])
        return rgb_of_ycc(pixels) if self._ycc and holds_ycc(data) else pixels

    def _counts(self) -> tuple[int, int]:
        """Return how many segments lie side by side, and how many make up a plane."""
        height, width = self._segment
        across = -(-self._shape[-1] // width)
        return across, across * -(-self._shape[-2] // height)

    def _check_complete(self) -> None:
        """Refuse an empty picture, a table of too few segments, and a file that ends before them."""
        if min(*self._shape, *self._segment) < 1:
            msg = f"{self._path}: a picture of {self._shape} pixels in segments of {self._segment} cannot be read"
            raise FormatError(msg)
        samples = self._shape[self.axes.index("c")] if self._samples else 1
        taken = math.prod(self._segment) * self._dtype.itemsize
        taken *= 1 if self._separate else samples
        if self._plain is None and taken > _LARGEST:
            msg = (
                f"{self._path}: a segment would take {taken >> 30} GiB in memory, more than "
                f"{_LARGEST >> 30}; convert it to a tiled TIFF"
            )
            raise FormatError(msg)
        sizes = {file: file.stat().st_size for file in self._files}
        needed = self._counts()[1] * (samples if self._separate else 1)
        for plane in self._planes:
            if len(plane.offsets) < needed:
                msg = f"{self._path} lists {len(plane.offsets)} segments of a picture that has {needed}"
                raise FormatError(msg)
            _check_inside(plane, sizes[plane.file])

    def __del__(self) -> None:
        if hasattr(self, "_owner"):
            SEGMENTS.forget(self._owner)
            NOTES.forget(self._owner)

    def __reduce__(self) -> tuple[Any, ...]:
        return next(iter(self._files.values())).__reduce__()


def _leading_axes(path: Path, series: Any) -> list[tuple[str, int, int]]:
    """Return the axes that pages lie along: our letter, the size, and how many pages a step is."""
    stated: str = series.axes
    found: list[tuple[str, int, int]] = []
    stride = 1
    for letter, size in reversed(list(zip(stated, series.shape, strict=True))):
        if letter in "YXS":
            continue
        found.append(("c" if letter in CHANNEL_LETTERS else letter.lower(), int(size), stride))
        stride *= int(size)
    letters = [letter for letter, _, _ in found] + (["c"] if "S" in stated else [])
    if (
        stated.replace("S", "")[-2:] != "YX"
        or len(set(letters)) != len(letters)
        or not set(letters) <= set("tcz")
    ):
        msg = f"{path}: axes {stated!r} of shape {series.shape} cannot be read; each of time, channel and z can once, besides y and x"
        raise FormatError(msg)
    return found


def _are_inside(plane: Plane, size: int) -> bool:
    """Whether all segments lie in the file; False as well where a number is none."""
    try:
        offsets, counts = (
            np.frombuffer(array("q", numbers), np.int64)
            for numbers in (plane.offsets, plane.counts)
        )
    except (TypeError, OverflowError):
        return False
    if len(offsets) != len(counts) or not len(offsets):
        return False
    # Neither is more than the size, or their sum could be more than 64 bits hold.
    most = max(offsets.max(), counts.max())
    return bool(
        min(offsets.min(), counts.min()) >= 0 and most <= size and (offsets + counts).max() <= size
    )


def _check_inside(plane: Plane, size: int) -> None:
    # A slide has more than a hundred thousand, and is looked at while somebody waits.
    if _are_inside(plane, size):
        return
    for offset, count in zip(plane.offsets, plane.counts, strict=True):
        if min(index(offset), index(count)) < 0:
            msg = f"{plane.file}: a segment of {count} bytes at {offset} cannot be"
            raise FormatError(msg)
        if offset + count > size:
            msg = f"{plane.file} is cut short: a segment ends at byte {offset + count}, the file at {size}"
            raise FormatError(msg)
