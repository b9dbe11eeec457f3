"""A tissue mask that is read band by band, so that a mask of a slide is never held whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.errors import InvalidInputError
from microtome.image import MultiscaleImage

__all__ = ["MaskBands", "open_mask"]

# Pixels of a mask that are held at a time, about.
_BAND = 1 << 25

Rows = Callable[[int, int], NDArray[np.bool_]]


@dataclass(frozen=True, slots=True, eq=False)
class MaskBands:
    """A tissue mask as bands of whole rows, from the top."""

    shape: tuple[int, int]
    """(height, width) in pixels."""
    read: Rows
    """Called with the first row and one past the last; returns (rows, width), True on tissue."""
    band: int
    """Rows of a band."""

    def bands(self) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        """Yield the first row of each band and its pixels."""
        height = self.shape[0]
        for top in range(0, height, self.band):
            yield top, self.read(top, min(top + self.band, height))

    def within(self, inside: Rows) -> MaskBands:
        """Return the tissue that also lies inside something that is drawn band by band."""
        height = max(1, min(self.band, _BAND // self.shape[1]))
        return MaskBands(
            self.shape,
            lambda top, bottom: self.read(top, bottom) & inside(top, bottom),
            height,
        )


def open_mask(mask: ArrayLike | MultiscaleImage | MaskBands) -> MaskBands:
    """Return an array or an image of labels as bands.

    Raises
    ------
    InvalidInputError
        If it is not two-dimensional, is empty, or holds anything but bools and integers.
    """
    if isinstance(mask, MaskBands):
        return mask
    if isinstance(mask, MultiscaleImage):
        return _of_image(mask)
    array = np.asarray(mask)
    _verify(array.shape, array.dtype)
    tissue = array if array.dtype == np.bool_ else array != 0
    height, width = tissue.shape
    return MaskBands((height, width), lambda top, bottom: tissue[top:bottom], height)


def _of_image(image: MultiscaleImage) -> MaskBands:
    level = image.level(0)
    _verify(level.shape, np.dtype(level.dtype))
    height, width = level.shape
    # Whole rows of chunks, so that none is decoded twice, unless one row of them is too much.
    chunk, most = max(1, level.array.chunks[0]), max(1, _BAND // width)
    band = most // chunk * chunk or most

    def read(top: int, bottom: int) -> NDArray[np.bool_]:
        pixels: NDArray[Any] = level[top:bottom, :]
        return pixels if pixels.dtype == np.bool_ else pixels != 0

    return MaskBands((height, width), read, band)


def _verify(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if len(shape) != 2 or 0 in shape:
        raise InvalidInputError(f"a tissue mask has (height, width) pixels, got shape {shape}")
    if dtype.kind not in "bui":
        raise InvalidInputError(f"a tissue mask holds bools or integers, got {dtype}")
