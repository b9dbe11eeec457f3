"""A TIFF whose axes somebody names who knows them better than the file does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from microtome.coordinates import Mpp
from microtome.image import ArrayStack
from microtome.storage import READ, Box, Pending

from ._tiff import tiff_images
from ._tiff_array import TiffArray
from ._tiff_metadata import pixel_size

__all__ = ["tiff_stack"]

# Letters by which a file says what an axis is; by others tifffile says that nobody named it.
_NAMED = frozenset("TCZYX")
# Series and moments are both samples.
_ALIKE = frozenset("ST")
_UNNAMED = frozenset("IQ")


def tiff_stack(
    path: Path, axes: str, *, mpp: Mpp | None, channel_names: Sequence[str] | None
) -> ArrayStack | None:
    """View the first picture of a TIFF with other axes than the file states.

    Parameters
    ----------
    path
        The file.
    axes
        One letter of SCTZYX an axis, in the order of the file.
    mpp
        Pixel size instead of what the file states.
    channel_names
        One a channel, or None.

    Returns
    -------
    None where the file states these axes itself, or others by name: as an image it tells more, or
    tells that they differ.

    Raises
    ------
    FormatError
        If the file is damaged.
    InvalidInputError
        If the axes are none of a stack, or do not fit the names of channels.
    """
    tiff_images(path)  # whatever is wrong with the file is told here
    with tifffile.TiffFile(path) as tiff:
        series = tiff.series[0]
        page = series.keyframe
        shape, stated, letters = tuple(map(int, series.shape)), series.axes, axes.upper()
        lead = len(shape) - len(page.shape)
        if len(letters) != len(stated) or lead < 0 or shape[lead:] != page.shape:
            return None
        # Samples of a pixel are no axis of pages, and nobody's but channels.
        known = [
            "C" if at >= lead and page.axes[at - lead] == "S" else letter
            for at, letter in enumerate(stated)
        ]
        differs = [(a, b) for a, b in zip(known, letters, strict=True) if a in _NAMED and a != b]
        if any(not {a, b} <= _ALIKE for a, b in differs):
            return None
        # What nobody named, an image takes for channels; it has no samples.
        if "S" not in known and all(
            a == b or (a in _UNNAMED and b == "C") for a, b in zip(known, letters, strict=True)
        ):
            return None
        pages = _Pages(
            series,
            ("T" if lead else "") + page.axes,
            (math.prod(shape[:lead]), *page.shape) if lead else page.shape,
        )
        array = _Unfolded(TiffArray(path, pages), shape, lead, page.axes)
        return ArrayStack(
            array,
            letters,
            source=str(path),
            mpp=mpp or pixel_size(tiff, 0),
            channel_names=channel_names,
        )


class _Pages:
    """A picture of a TIFF as its pages one after the other, whatever they are called.

    Parameters
    ----------
    series
        The `tifffile.TiffPageSeries`.
    axes, shape
        What it is seen as.
    """

    def __init__(self, series: Any, axes: str, shape: tuple[int, ...]) -> None:
        self._series = series
        self.axes = axes
        self.shape = shape

    def __getattr__(self, name: str) -> Any:
        return getattr(self._series, name)


class _Unfolded:
    """Pages of a TIFF as an array of as many axes as the file says, in its order.

    Parameters
    ----------
    pages
        The pages, along t.
    shape
        Shape of the file.
    lead
        Number of axes that pages lie along.
    page
        Axes of a page, letters of tifffile.
    """

    def __init__(self, pages: TiffArray, shape: tuple[int, ...], lead: int, page: str) -> None:
        self._pages = pages
        self._shape = shape
        self._lead = lead
        # The axes of a page in the order of `pages`: samples first.
        self._order = [page.index(letter) for letter in "SYX" if letter in page]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in the order of the file."""
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel."""
        return self._pages.dtype

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that its pixels are in."""
        return self._pages.files

    @property
    def chunks(self) -> tuple[int, ...]:
        """Smallest part that is decoded."""
        within = self._pages.chunks[-len(self._order) :]
        turned = [within[self._order.index(at)] for at in range(len(self._order))]
        return (*(1 for _ in range(self._lead)), *turned)

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box."""
        out = np.empty([stop - start for start, stop in box], self.dtype)
        self.read_into(box, out)
        return out

    def read_into(self, box: Box, out: NDArray[Any]) -> Pending:
        """Read a box into a buffer, page by page."""
        lead, within = box[: self._lead], box[self._lead :]
        inner = tuple(within[at] for at in self._order)
        if not lead:
            self._pages.read_into(inner, out.transpose(self._order)).result()
            return READ
        for at in product(*(range(start, stop) for start, stop in lead)):
            page = int(np.ravel_multi_index(at, self._shape[: self._lead]))
            target = out[tuple(i - start for i, (start, _) in zip(at, lead, strict=True))]
            part = target.transpose(self._order)[None]
            self._pages.read_into(((page, page + 1), *inner), part).result()
        return READ
