"""TIFF and its relatives (SVS, OME-TIFF, QPTIFF, ImageJ) in place, a segment at a time.

tifffile finds the pages and knows every compression; we keep the table of segments and read only
those that a window touches. Segments are fetched with `pread`, so that one open file serves any
number of threads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray

from microtome.coordinates import Mpp
from microtome.errors import FormatError, InvalidInputError
from microtome.image import MultiscaleImage
from microtome.storage import Box, Pending

from ._array import image_from_levels
from ._tiff_metadata import channel_names, pixel_size

__all__ = ["TiffArray", "open_tiff"]

# Letters of tifffile for an axis that nobody named are channels here: planes of one picture.
_CHANNEL_LETTERS = frozenset("CIQS")
_ORDER = "tczyx"


# PlanarConfiguration 2: a page holds its samples one plane after the other.
_SEPARATE = 2

# Decoding fewer segments than this costs less than handing them to other threads.
_INLINE = 3


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
        self._pages = list(series.pages)
        if any(page is None for page in self._pages):
            msg = f"{path}: {self._pages.count(None)} of {len(self._pages)} planes are missing"
            raise FormatError(msg)
        key = series.keyframe
        if key.imagedepth != 1:
            msg = f"{path}: volumes stored in one page (depth {key.imagedepth}) cannot be read"
            raise FormatError(msg)
        self._key = key
        # Both read from the file when first asked for, and it is open only now.
        self._decoder = key.decode
        self._segments = [(page.dataoffsets, page.databytecounts) for page in self._pages]
        self._tables = [getattr(page, "jpegtables", None) for page in self._pages]
        height, width = key.imagelength, key.imagewidth
        if self._samples:
            self.axes, self._shape = "cyx", (key.samplesperpixel, height, width)
        elif leading:
            letter = "c" if leading[0] in _CHANNEL_LETTERS else leading[0].lower()
            self.axes, self._shape = f"{letter}yx", (len(self._pages), height, width)
        else:
            self.axes, self._shape = "yx", (height, width)
        self._dtype = np.dtype(series.dtype).newbyteorder("=")
        if self._dtype.kind not in "iuf":
            msg = f"{path}: pixels of type {self._dtype} cannot be read"
            raise FormatError(msg)
        self._segment = (
            (key.tilelength, key.tilewidth)
            if key.is_tiled
            else (min(key.rowsperstrip or height, height), width)
        )
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
        """A tile or strip."""
        lead = {"yx": (), "cyx": (self._shape[0],)}.get(self.axes, (1,))
        return (*(lead if self._samples else lead and (1,)), *self._segment)

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
        across = -(-self._shape[-1] // width)
        per_plane = across * -(-self._shape[-2] // height)
        separate = self._samples and self._key.planarconfig == _SEPARATE
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
        pixels = self._decode(segment.page, segment.number)
        plane = slice(None) if segment.plane is None else segment.plane - window.planes[0]
        target = out[
            plane,
            y0 - window.rows[0] : y1 - window.rows[0],
            x0 - window.columns[0] : x1 - window.columns[0],
        ]
        if pixels is None:
            # A sparse segment was never written: the format says it reads as zero.
            target[...] = 0
            return
        part = pixels[y0 - segment.top : y1 - segment.top, x0 - segment.left : x1 - segment.left]
        if segment.plane is None:
            target[...] = part[..., slice(*window.planes)].transpose(2, 0, 1)
        else:
            target[...] = part[..., 0]

    def _decode(self, page: int, segment: int) -> NDArray[Any] | None:
        """Return a segment as (height, width, samples), None where nothing was written."""
        offsets, sizes = self._segments[page]
        offset, size = offsets[segment], sizes[segment]
        if size == 0:
            return None
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

    def _descriptor(self) -> int:
        with self._guard:
            if self._file is None:
                self._file = os.open(self._path, os.O_RDONLY)
            return self._file

    def _check_complete(self) -> None:
        """Refuse a file that ends before its last segment."""
        size = self._path.stat().st_size
        for offsets, counts in self._segments:
            for offset, count in zip(offsets, counts, strict=True):
                if offset + count > size:
                    msg = f"{self._path} is cut short: a segment ends at byte {offset + count}, the file at {size}"
                    raise FormatError(msg)

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            os.close(self._file)  # type: ignore[arg-type]

    def __reduce__(self) -> tuple[Any, ...]:
        msg = f"{self._path}: open the file in the other process instead of sending it there"
        raise InvalidInputError(msg)


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
            if not tiff.series:
                msg = f"{path} holds no image"
                raise FormatError(msg)
            series = tiff.series[0]
            arrays = [TiffArray(path, level) for level in series.levels]
            base = arrays[0]
            count = base.shape[0] if base.axes == "cyx" else 1
            names = None if "S" in series.axes else channel_names(tiff, list(series.pages), count)
            size = mpp or pixel_size(tiff, series.keyframe)
            metadata = {"description": series.keyframe.description}
            associated = [s.name for s in tiff.series[1:]]
    except FormatError:
        raise
    except (tifffile.TiffFileError, ValueError, IndexError, KeyError, OverflowError) as error:
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
