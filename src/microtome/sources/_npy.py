"""Arrays that numpy saved: read where they lie, row by row. Pickled objects are refused."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.coordinates import Mpp
from microtome.errors import FormatError
from microtome.image import MultiscaleImage
from microtome.storage import Box

from ._array import image_from_levels, ordered_axes
from ._fetched import FetchedArray
from ._npy_header import npy_header
from ._shared_file import SharedFile

__all__ = ["open_npy"]

# A header of numpy's own takes a hundred bytes; it refuses to evaluate more than 10,000.
_HEADER = 1 << 15


def open_npy(path: Path, *, mpp: Mpp | None, axes: str | None) -> MultiscaleImage:
    """Open a `.npy` file.

    Parameters
    ----------
    path
        The file.
    mpp
        Pixel size; the file states none.
    axes
        Names of its axes; (Y, X) by default for two of them.

    Raises
    ------
    FormatError
        If it is damaged, cut short, or holds no numbers.
    InvalidInputError
        If the axes do not fit it.
    """
    with path.open("rb") as file:
        head = io.BytesIO(file.read(_HEADER))
    try:
        shape, fortran, dtype = npy_header(head)
    except Exception as error:
        # numpy reads the header as Python, and stumbles in as many ways over what is none.
        msg = f"{path} is a damaged .npy file: {error}"
        raise FormatError(msg) from error
    if dtype.kind not in "biuf" or dtype.hasobject:
        msg = f"{path} holds {dtype}, an image holds numbers"
        raise FormatError(msg)
    if not shape or 0 in shape:
        msg = f"{path} has no pixels: its shape is {shape}"
        raise FormatError(msg)
    needed = head.tell() + math.prod(shape) * dtype.itemsize
    if path.stat().st_size < needed:
        msg = f"{path} is cut short: {shape} {dtype} takes {needed} bytes, it has {path.stat().st_size}"
        raise FormatError(msg)
    ordered, order = ordered_axes(axes, shape)
    pixels = _Pixels(SharedFile(path), head.tell(), shape, dtype, fortran=fortran, order=order)
    return image_from_levels(
        [FetchedArray([shape[i] for i in order], dtype, pixels.chunks, pixels.fetch)],
        ordered,
        mpp=mpp,
        channel_names=None,
        uri=str(path),
        name=path.name.split(".")[0],
    )


class _Pixels:
    """An array in a file, of which one row after the other is read."""

    def __init__(
        self,
        file: SharedFile,
        start: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        *,
        fortran: bool,
        order: tuple[int, ...],
    ) -> None:
        # An array in Fortran's order is the transpose of one in C's.
        self._turn = range(len(shape))[::-1] if fortran else range(len(shape))
        self._shape = tuple(shape[i] for i in self._turn)
        self._file, self._start, self._dtype = file, start, dtype
        # Of each axis of the image, which one of the file's it is.
        self._places = tuple(list(self._turn).index(i) for i in order)
        stored = (1,) * (len(shape) - 2) + self._shape[-2:]
        self.chunks = tuple(stored[place] for place in self._places)

    def fetch(self, box: Box) -> NDArray[Any]:
        """Read a box."""
        wanted: list[tuple[int, int]] = [(0, 0)] * len(box)
        for place, interval in zip(self._places, box, strict=True):
            wanted[place] = interval
        # All of the trailing axes that are wanted whole lie in one piece with the axis before them.
        split = len(wanted) - 1
        while split > 0 and wanted[split] == (0, self._shape[split]):
            split -= 1
        found = np.empty([b - a for a, b in wanted], self._dtype)
        inner = math.prod(self._shape[split + 1 :])
        first, last = wanted[split]
        for index in np.ndindex(*found.shape[:split]):
            at = 0
            for axis, number in enumerate(index):
                at = at * self._shape[axis] + wanted[axis][0] + number
            at = (at * self._shape[split] + first) * inner * self._dtype.itemsize
            size = (last - first) * inner * self._dtype.itemsize
            data = self._file.read(self._start + at, size)
            found[index] = np.frombuffer(data, self._dtype).reshape(found.shape[split:])
        return found.transpose(self._places)
