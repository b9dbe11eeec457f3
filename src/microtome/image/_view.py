"""An image at another pixel size, as an image: pixels are resampled when they are read."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from microtome.coordinates import Mpp
from microtome.errors import InvalidInputError
from microtome.storage import READ, Box, Pending

from ._image import MultiscaleImage
from ._level import Level
from ._resolved import level_for_means

__all__ = ["image_at"]


class _ResampledArray:
    """The grid of an image at a pixel size as a `PixelArray`.

    Parameters
    ----------
    image
        Whose pixels.
    mpp
        Pixel size of the grid.
    dtype
        Type of its pixels.
    level
        Index of the level that they are made of; None for one that has the means of the finest.
    """

    def __init__(
        self, image: MultiscaleImage, mpp: Mpp, dtype: np.dtype[Any], level: int | None
    ) -> None:
        self._image = image
        self._mpp = mpp
        self._dtype = dtype
        self._level = level_for_means(image, mpp) if level is None else level
        base = image.level(0)
        own = image.require_mpp()
        self._shape = (*base.shape[:-2], *image.grid_at(mpp))
        factors = (*(1.0,) * (base.ndim - 2), mpp.y / own.y, mpp.x / own.x)
        self._chunks = tuple(
            max(1, round(chunk / factor))
            for chunk, factor in zip(base.array.chunks, factors, strict=True)
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in pixels."""
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel."""
        return self._dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """About what one chunk of the finest level covers."""
        return self._chunks

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box."""
        *lead, y, x = box
        if any(start == stop for start, stop in box):
            return np.empty([stop - start for start, stop in box], self._dtype)
        channels = list(range(*lead[0])) if lead else None
        pixels = self._image.read_grid(
            self._mpp, y, x, channels=channels, dtype=self._dtype, level=self._level
        )
        # What an array in memory returns may be a view of it.
        return np.array(pixels, self._dtype)

    def read_into(self, box: Box, out: NDArray[Any]) -> Pending:
        """Read a box into a buffer."""
        out[...] = self.read(box)
        return READ


def image_at(
    image: MultiscaleImage,
    mpp: Mpp,
    *,
    dtype: DTypeLike | None = None,
    level: int | None = None,
) -> MultiscaleImage:
    """View an image at a pixel size as a read-only image of one level.

    Both share their top-left corner. A pixel is the same whatever window it is read in: the
    area-weighted mean of what it covers towards coarser sizes, linear between centres towards
    finer ones, and for labels what lies under its centre.

    Parameters
    ----------
    image
        The image; axes (C)YX.
    mpp
        Micrometres per pixel of the view.
    dtype
        Type of its pixels; by default that of the image, in which means are rounded half up.
    level
        Index of the level that pixels are made of; by default the coarsest whose means are those of
        the finest: of a level of 2 um for 4 um, but not for 3.3. For labels the finest.

    Raises
    ------
    NoResolutionError
        If nothing states the image's pixel size.
    InvalidInputError
        If the image has other axes.
    """
    own, base = image.require_mpp(), image.level(0)
    if image.axes not in {"cyx", "yx"}:
        msg = f"{image.uri} has axes {image.axes!r}; only (C)YX are viewed at another pixel size"
        raise InvalidInputError(msg)
    array = _ResampledArray(image, mpp, np.dtype(dtype or image.dtype), level)
    lead = len(image.axes) - 2
    # Of the centre of its first pixel, whose corner is that of the image.
    shift = (*(0.0,) * lead, (mpp.y - own.y) / 2, (mpp.x - own.x) / 2)
    return MultiscaleImage(
        [
            Level(
                "level0",
                "level0",
                array,
                image.axes,
                (*(1.0,) * lead, mpp.y, mpp.x),
                tuple(a + b for a, b in zip(base.translation, shift, strict=True)),
            )
        ],
        uri=image.uri,
        channel_names=image.channel_names,
        mpp=mpp,
        kind=image.kind,
        name=image.name,
    )
