"""TIFF and its relatives (SVS, OME-TIFF, QPTIFF, ImageJ) in place, a segment at a time.

tifffile finds the pages and knows every compression; we keep the table of segments and read only
those that a window touches. Segments are fetched with `pread`, so that one open file serves any
number of threads.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from operator import index
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray

from microtome.coordinates import Mpp
from microtome.errors import (
    FormatError,
    InvalidInputError,
    MicrotomeError,
    NoResolutionError,
    StorageError,
)
from microtome.image import MultiscaleImage
from microtome.storage import Box, Pending

from ._array import image_from_levels
from ._tiff_metadata import channel_names, pixel_size, verify_description
from ._tiff_pages import segment_tables, verify_pages
from ._tiff_plain import PlainRows

__all__ = ["TiffArray", "open_tiff"]

# Letters of tifffile for an axis that nobody named are channels here: planes of one picture.
_CHANNEL_LETTERS = frozenset("CIQS")
_ORDER = "tczyx"


# PlanarConfiguration 2: a page holds its samples one plane after the other.
_SEPARATE = 2

# Decoding fewer segments than this costs less than handing them to other threads.
_INLINE = 3

# What is read at once of a picture that needs no decoding; less is no faster.
_ROWS_BYTES = 1 << 18


class _Window(NamedTuple):
    """What is asked for: half-open intervals."""

    planes: tuple[int, int]
    rows: tuple[int, int]
    columns: tuple[int, int]


class _Segment(NamedTuple):
    """A tile or strip of a page."""

    page: int
    number: int
    plane: int | None
    """None where it holds all samples of a pixel."""
    top: int
    left: int


class _Finished:
    """A read that was done at once."""

    __slots__ = ()

    def result(self, timeout: float | None = None) -> object:
        del timeout
        return None


class TiffArray:
    """One resolution of a TIFF as a `PixelArray`.

    Parameters
    ----------
    path
        The file.
    series
        The `tifffile.TiffPageSeries` of this resolution.
    """

    def __init__(self, path: Path, series: Any) -> None:
        self._path = path
        letters = series.axes
        self._samples = "S" in letters
        leading = [axis for axis in letters if axis not in "YXS"]
        if (
            letters.replace("S", "")[-2:] != "YX"
            or len(leading) > 1
            or (leading and self._samples)
            or (leading and leading[0] not in _CHANNEL_LETTERS | {"Z", "T"})
        ):
            msg = f"{path}: axes {letters!r} of shape {series.shape} cannot be read; one channel, z or time axis besides y and x can"
            raise FormatError(msg)
        key = series.keyframe
        if key.imagedepth != 1:
            msg = f"{path}: volumes stored in one page (depth {key.imagedepth}) cannot be read"
            raise FormatError(msg)
        # Both read from the file when first asked for, and it is open only now.
        self._decoder = key.decode
        planes = series.shape[letters.index(leading[0])] if leading else 1
        self._segments, self._tables = segment_tables(path, series, planes)
        self._separate = self._samples and key.planarconfig == _SEPARATE
        # A damaged tag may hold 70.0: then it is no size.
        height, width = index(key.imagelength), index(key.imagewidth)
        if self._samples:
            self.axes, self._shape = "cyx", (index(key.samplesperpixel), height, width)
        elif leading:
            letter = "c" if leading[0] in _CHANNEL_LETTERS else leading[0].lower()
            self.axes, self._shape = f"{letter}yx", (planes, height, width)
        else:
            self.axes, self._shape = "yx", (height, width)
        self._dtype = np.dtype(series.dtype).newbyteorder("=")
        if self._dtype.kind not in "iuf":
            msg = f"{path}: pixels of type {self._dtype} cannot be read"
            raise FormatError(msg)
        self._segment = (
            (index(key.tilelength), index(key.tilewidth))
            if key.is_tiled
            else (min(index(key.rowsperstrip) or height, height), width)
        )
        self._plain = PlainRows.of(key)
        self._file: int | None = None
        self._guard = threading.Lock()
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
        lead = {"yx": (), "cyx": (self._shape[0],)}.get(self.axes, (1,))
        return (*(lead if self._samples else lead and (1,)), height, width)

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box."""
        out = np.empty([stop - start for start, stop in box], self._dtype)
        self.read_into(box, out)
        return out

    def read_into(self, box: Box, out: NDArray[Any]) -> Pending:
        """Decode the segments that a box touches and copy what is inside."""
        *lead, rows, columns = box
        window = _Window(lead[0] if lead else (0, 1), rows, columns)
        target = out if lead else out[None]
        segments = list(self._touched(window))
        if len(segments) > _INLINE:
            list(_pool().map(lambda segment: self._copy(segment, window, target), segments))
        else:
            for segment in segments:
                self._copy(segment, window, target)
        return _Finished()

    def _touched(self, window: _Window) -> Iterator[_Segment]:
        """Find the segments that a window needs."""
        height, width = self._segment
        across, per_plane = self._counts()
        separate = self._separate
        for y in range(window.rows[0] // height, -(-window.rows[1] // height)):
            for x in range(window.columns[0] // width, -(-window.columns[1] // width)):
                position = y * across + x
                corner = (y * height, x * width)
                if self._samples and not separate:
                    yield _Segment(0, position, None, *corner)
                elif separate:
                    for plane in range(*window.planes):
                        yield _Segment(0, position + plane * per_plane, plane, *corner)
                else:
                    for plane in range(*window.planes):
                        yield _Segment(plane, position, plane, *corner)

    def _copy(self, segment: _Segment, window: _Window, out: NDArray[Any]) -> None:
        height, width = self._segment
        y0 = max(window.rows[0], segment.top)
        y1 = min(window.rows[1], segment.top + height)
        x0 = max(window.columns[0], segment.left)
        x1 = min(window.columns[1], segment.left + width)
        within = (y0 - segment.top, y1 - segment.top), (x0 - segment.left, x1 - segment.left)
        part = self._part(segment, *within)
        plane = slice(None) if segment.plane is None else segment.plane - window.planes[0]
        target = out[
            plane,
            y0 - window.rows[0] : y1 - window.rows[0],
            x0 - window.columns[0] : x1 - window.columns[0],
        ]
        if part is None:
            # A sparse segment was never written: the format says it reads as zero.
            target[...] = 0
        elif segment.plane is None:
            target[...] = part[..., slice(*window.planes)].transpose(2, 0, 1)
        else:
            target[...] = part[..., 0]

    def _part(
        self, segment: _Segment, rows: tuple[int, int], columns: tuple[int, int]
    ) -> NDArray[Any] | None:
        """Return part of a segment as (rows, columns, samples), None where nothing was written."""
        plain, (offsets, sizes) = self._plain, self._segments[segment.page]
        size = sizes[segment.number]
        if plain is not None and size >= rows[1] * plain.row_bytes:
            with self._reading():
                found = plain.read(self._descriptor(), offsets[segment.number], rows, columns)
            if found is not None:
                return found
        pixels = self._decode(segment.page, segment.number)
        return None if pixels is None else pixels[slice(*rows), slice(*columns)]

    def _decode(self, page: int, segment: int) -> NDArray[Any] | None:
        """Return a segment as (height, width, samples), None where nothing was written."""
        offsets, sizes = self._segments[page]
        offset, size = offsets[segment], sizes[segment]
        if size == 0:
            return None
        with self._reading():
            data = os.pread(self._descriptor(), size, offset)
        try:
            decoded = self._decoder(data, segment, jpegtables=self._tables[page])[0]
        except Exception as error:
            # imagecodecs has an error class for every codec, all plain RuntimeErrors below.
            msg = f"{self._path}: segment {segment} of plane {page} is damaged: {error}"
            raise FormatError(msg) from error
        if decoded is None:
            return None
        pixels = np.asarray(decoded)
        return pixels.reshape(pixels.shape[-3:])

    def _counts(self) -> tuple[int, int]:
        """Return how many segments lie side by side, and how many make up a plane."""
        height, width = self._segment
        across = -(-self._shape[-1] // width)
        return across, across * -(-self._shape[-2] // height)

    @contextmanager
    def _reading(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            msg = f"{self._path} cannot be read: {error.strerror}"
            raise StorageError(msg) from error

    def _descriptor(self) -> int:
        with self._guard:
            if self._file is None:
                self._file = os.open(self._path, os.O_RDONLY)
            return self._file

    def _check_complete(self) -> None:
        """Refuse an empty picture, a table of too few segments, and a file that ends before them."""
        if min(*self._shape, *self._segment) < 1:
            msg = f"{self._path}: a picture of {self._shape} pixels in segments of {self._segment} cannot be read"
            raise FormatError(msg)
        size = self._path.stat().st_size
        needed = self._counts()[1] * (self._shape[0] if self._separate else 1)
        for offsets, counts in self._segments:
            if len(offsets) < needed:
                msg = f"{self._path} lists {len(offsets)} segments of a picture that has {needed}"
                raise FormatError(msg)
            for offset, count in zip(offsets, counts, strict=True):
                if min(index(offset), index(count)) < 0:
                    msg = f"{self._path}: a segment of {count} bytes at {offset} cannot be"
                    raise FormatError(msg)
                if offset + count > size:
                    msg = f"{self._path} is cut short: a segment ends at byte {offset + count}, the file at {size}"
                    raise FormatError(msg)

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            os.close(self._file)  # type: ignore[arg-type]

    def __reduce__(self) -> tuple[Any, ...]:
        msg = f"{self._path}: open the file in the other process instead of sending it there"
        raise InvalidInputError(msg)


def _stated_size(path: Path, tiff: Any, page: Any) -> Mpp | None:
    try:
        return pixel_size(tiff, page)
    except NoResolutionError as error:
        msg = f"{path}: {error}"
        raise NoResolutionError(msg) from error


def open_tiff(path: Path, *, mpp: Mpp | None) -> MultiscaleImage:
    """Open the main picture of a TIFF with all its resolutions.

    Parameters
    ----------
    path
        The file.
    mpp
        Pixel size instead of what the file states.

    Raises
    ------
    FormatError
        If the file is damaged, cut short, or of a shape that cannot be read.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            verify_description(tiff)
            verify_pages(path, tiff)
            if not tiff.series:
                msg = f"{path} holds no image"
                raise FormatError(msg)
            series = tiff.series[0]
            if tiff.is_imagej and series.kind != "imagej":
                # tifffile takes what the description does not fit for a picture of fewer planes.
                msg = f"{path} is cut short: it does not hold what its ImageJ description promises"
                raise FormatError(msg)
            arrays = [TiffArray(path, level) for level in series.levels]
            base = arrays[0]
            count = base.shape[0] if base.axes == "cyx" else 1
            names = None if "S" in series.axes else channel_names(tiff, list(series.pages), count)
            size = mpp or _stated_size(path, tiff, series.keyframe)
            metadata = {"description": series.keyframe.description}
            associated = [s.name for s in tiff.series[1:]]
    except MicrotomeError:
        raise
    except Exception as error:
        # A damaged tag can be of any type and size, and so is what tifffile stumbles over then.
        if isinstance(error, OSError) and error.errno not in {None, errno.EINVAL}:
            msg = f"{path} cannot be read: {error.strerror}"
            raise StorageError(msg) from error
        msg = f"{path} is a damaged TIFF: {error}"
        raise FormatError(msg) from error
    return image_from_levels(
        arrays,
        base.axes,
        mpp=size,
        channel_names=names,
        uri=str(path),
        name=path.name.split(".")[0],
        metadata={**metadata, "associated_images": associated},
    )


_POOL: dict[int, ThreadPoolExecutor] = {}


def _pool() -> ThreadPoolExecutor:
    pid = os.getpid()
    if pid not in _POOL:
        _POOL[pid] = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="microtome-tiff")
    return _POOL[pid]
