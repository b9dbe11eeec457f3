"""Pixels of a TIFF that lie in the file as they are: read by rows, not by segments.

Most programs write a picture without compression as one strip a page, so that a small read by
segments would take the whole page from the disk.
"""

from __future__ import annotations

import os
import threading
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ._shared_file import SharedFile

__all__ = ["PlainRows"]

_UNCOMPRESSED, _NO_PREDICTOR, _HIGH_BITS_FIRST, _SEPARATE = 1, 1, 1, 2

# A narrow read takes its rows one by one; of wider ones, the columns between cost less than calls.
_NARROW = 4


class PlainRows(NamedTuple):
    """How the rows of every segment lie in the file.

    Parameters
    ----------
    dtype
        Type of a sample, in the file's byte order.
    width
        Pixels in a row of a segment.
    samples
        Samples that lie together in a pixel.
    """

    dtype: np.dtype[Any]
    width: int
    samples: int

    @classmethod
    def of(cls, page: Any) -> Self | None:
        """Return how a page's rows lie; None where they have to be decoded.

        Parameters
        ----------
        page
            The `tifffile.TiffPage`, of an open file.
        """
        dtype = page.dtype
        if (
            dtype is None
            or page.compression != _UNCOMPRESSED
            or page.predictor != _NO_PREDICTOR
            or page.fillorder != _HIGH_BITS_FIRST
            or page.bitspersample != 8 * dtype.itemsize
            or page.is_subsampled
        ):
            return None
        samples = 1 if page.planarconfig == _SEPARATE else int(page.samplesperpixel)
        width = page.tilewidth if page.is_tiled else page.imagewidth
        return cls(dtype.newbyteorder(page.parent.byteorder), int(width), samples)

    @property
    def row_bytes(self) -> int:
        """Size of a row of a segment."""
        return self.width * self.samples * self.dtype.itemsize

    def read(
        self, file: SharedFile, start: int, rows: tuple[int, int], columns: tuple[int, int]
    ) -> NDArray[Any] | None:
        """Read a part of a segment.

        Parameters
        ----------
        file
            The file.
        start
            Where in the file the segment begins.
        rows, columns
            Half-open intervals in the segment.

        Returns
        -------
        The pixels, (rows, columns, samples), in memory that the next call of this thread uses again;
        None where the file ends before them.

        Raises
        ------
        StorageError
            If the disk refuses.
        """
        with file.reading() as number:
            return self._read(number, start, rows, columns)

    def read_into(self, file: SharedFile, start: int, out: NDArray[Any]) -> bool:
        """Read whole rows to where they are wanted.

        Parameters
        ----------
        file, start
            Where the first row begins.
        out
            Of single samples, (rows, columns).

        Returns
        -------
        False where that cannot be: they lie otherwise in `out`, or the file ends before them.

        Raises
        ------
        StorageError
            If the disk refuses.
        """
        if self.samples != 1 or out.dtype != self.dtype or not out.flags.c_contiguous:
            return False
        with file.reading() as number:
            return os.preadv(number, [out.data.cast("B")], start) == out.nbytes

    def _read(
        self, file: int, start: int, rows: tuple[int, int], columns: tuple[int, int]
    ) -> NDArray[Any] | None:
        count, taken = rows[1] - rows[0], columns[1] - columns[0]
        at = start + rows[0] * self.row_bytes
        if taken * _NARROW >= self.width:
            data = _memory(count * self.row_bytes)
            if os.preadv(file, [data], at) < len(data):
                return None
            whole = np.frombuffer(data, self.dtype).reshape(count, self.width, self.samples)
            return whole[:, slice(*columns)]
        part = np.empty((count, taken, self.samples), self.dtype)
        at += columns[0] * self.samples * self.dtype.itemsize
        for row in part:
            if os.preadv(file, [row.data.cast("B")], at) < row.nbytes:
                return None
            at += self.row_bytes
        return part


_KEPT = threading.local()
# Of what is read at once; a single row may be longer.
_MOST_KEPT = 1 << 20


def _memory(size: int) -> memoryview:
    """Return memory to read into: fresh pages cost as much as what is read into them."""
    if size > _MOST_KEPT:
        return memoryview(bytearray(size))
    kept: bytearray | None = getattr(_KEPT, "rows", None)
    if kept is None or len(kept) < size:
        kept = _KEPT.rows = bytearray(size)
    return memoryview(kept)[:size]
