"""What `ingest` reads: the channels of a source, in the order of the panel, on the cohort's grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from microtome.coordinates import Mpp
from microtome.image import MultiscaleImage, channel_runs
from microtome.storage import READ, Box, Pending

__all__ = ["IngestSource"]

# Pixel sizes are decimal numbers, and their ratios rounded: equal to this part of one is equal.
_SAME = 1e-9


class IngestSource:
    """The image that will be stored, (C, Y, X), as a `PixelArray` that is read once.

    Parameters
    ----------
    image
        The source.
    target
        Pixel size of the grid.
    channels
        Numbers of the source's channels, in the order in which they are stored.
    dtype
        Type of a stored pixel.
    level
        Level to resample from; None for the best.
    """

    def __init__(
        self,
        image: MultiscaleImage,
        target: Mpp,
        channels: Sequence[int],
        *,
        dtype: DTypeLike,
        level: int | None,
    ) -> None:
        self._image = image
        self._target = target
        self._channels = list(channels)
        self._dtype = np.dtype(dtype)
        self._level = level
        self._shape = (len(self._channels), *image.grid_at(target))
        own = image.require_mpp()
        self._ratio = target.y / own.y, target.x / own.x
        self._as_it_is = self._is_as_it_is()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in pixels, (C, Y, X)."""
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel."""
        return self._dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """About what the grid covers of one chunk of the source."""
        base = self._image.level(0)
        *_, height, width = base.array.chunks
        # Colours lie together: who reads one of them decodes all. Many channels of few rows are
        # resampled in no less memory than few of many.
        axis = base.axes.find("c")
        together = not self._as_it_is or (axis >= 0 and base.array.chunks[axis] > 1)
        return (
            self._shape[0] if together else 1,
            max(1, round(height / self._ratio[0])),
            max(1, round(width / self._ratio[1])),
        )

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box."""
        out = np.empty([stop - start for start, stop in box], self._dtype)
        self.read_into(box, out)
        return out

    def read_into(self, box: Box, out: NDArray[Any]) -> Pending:
        """Read a box into a buffer, without another copy where the source's pixels are stored as they are."""
        (first, last), y, x = box
        wanted = self._channels[first:last]
        if self._as_it_is:
            array = self._image.level(0).array
            for low, high, place in channel_runs(wanted):
                array.read_into(((low, high), y, x), out[place : place + high - low]).result()
        else:
            pixels = self._image.read_grid(
                self._target, y, x, channels=wanted, dtype=self._dtype, level=self._level
            )
            out[...] = pixels.reshape(out.shape)
        return READ

    def _is_as_it_is(self) -> bool:
        """Whether what is stored are the pixels of the source's finest level."""
        base = self._image.level(0)
        same = all(abs(ratio - 1) < _SAME for ratio in self._ratio)
        finest = self._level == 0 or self._image.best_level(self._target) == 0
        alike = (base.axes, base.dtype, base.shape[1:]) == ("cyx", self._dtype, self._shape[1:])
        return same and finest and alike
