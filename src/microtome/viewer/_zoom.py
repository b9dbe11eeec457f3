"""The pyramid of tiles that a page sees, whatever levels an image has.

Zoom `max_zoom` is the image's finest level, each lower one half as large, rounded up, as in Deep
Zoom (Microsoft's format, which OpenSeadragon speaks). The pyramid rule of our own images is the
same, so that a zoom is a level; of others, what lies between two levels is the mean of the finer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.coordinates import Mpp
from microtome.errors import InvalidInputError, OutOfRangeError
from microtome.image import MultiscaleImage, channel_runs

__all__ = ["TILE_SIZE", "Window", "max_zoom", "read_tile", "window_of"]

TILE_SIZE = 256
# Source pixels that one tile is made of at most, all channels together: an image without coarser
# levels is not read whole again and again.
_MOST_PIXELS = 1 << 27
# Source pixels a tile's channel that are read at a time.
_BAND = 1 << 24
# A power of two, so that ratios stay exact.
_TINY = 2.0**-6


@dataclass(frozen=True, slots=True)
class Window:
    """A tile's place: pixels of a zoom, and how many of level 0 one of them covers."""

    zoom: int
    step: int
    y: tuple[int, int]
    x: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns, less than `TILE_SIZE` where the image ends."""
        return self.y[1] - self.y[0], self.x[1] - self.x[0]


def max_zoom(height: int, width: int) -> int:
    """Return the zoom of level 0: the least at which zoom 0 is one tile."""
    zoom = 0
    while max(height, width) > TILE_SIZE << zoom:
        zoom += 1
    return zoom


def window_of(height: int, width: int, zoom: int, col: int, row: int) -> Window:
    """Return the place of a tile.

    Parameters
    ----------
    height, width
        Of level 0.
    zoom, col, row
        Which tile.

    Raises
    ------
    OutOfRangeError
        If there is no such tile.
    """
    last = max_zoom(height, width)
    if not 0 <= zoom <= last:
        msg = f"there is no zoom {zoom}: this image has 0 to {last}"
        raise OutOfRangeError(msg)
    step = 1 << (last - zoom)
    rows, columns = math.ceil(height / step), math.ceil(width / step)
    top, left = row * TILE_SIZE, col * TILE_SIZE
    if not (0 <= top < rows and 0 <= left < columns):
        msg = (
            f"there is no tile in column {col} and row {row}: zoom {zoom} has "
            f"{math.ceil(columns / TILE_SIZE)} columns and {math.ceil(rows / TILE_SIZE)} rows"
        )
        raise OutOfRangeError(msg)
    return Window(
        zoom,
        step,
        (top, min(top + TILE_SIZE, rows)),
        (left, min(left + TILE_SIZE, columns)),
    )


def read_tile(
    image: MultiscaleImage, window: Window, channels: Sequence[int] | None = None
) -> NDArray[Any]:
    """Read a tile.

    Parameters
    ----------
    image
        The image, over c, y, x or y, x.
    window
        Which tile of it.
    channels
        Channels by number, in any order; None for all.

    Returns
    -------
    (C, rows, columns) in the image's dtype where the zoom is a level, else float: means of a finer
    level.

    Raises
    ------
    InvalidInputError
        If the image has no level near the zoom, and the tile were made of too many pixels.
    """
    image = _counted(image)
    mpp = image.require_mpp().scaled(window.step, window.step)
    picked = list(range(image.nchannels)) if channels is None else list(channels)
    index = image.best_level(mpp)
    level, base = image.level(index), image.level(0)
    fine = (
        window.step * base.scale[-2] / level.scale[-2],
        window.step * base.scale[-1] / level.scale[-1],
    )
    rows, columns = window.shape
    weight = len(picked) * rows * columns * max(1.0, fine[0]) * max(1.0, fine[1])
    if weight > _MOST_PIXELS:
        msg = (
            f"{image.uri} has no level near zoom {window.zoom}: a tile would be made of "
            f"{weight:.2g} pixels; give it coarser levels: ingest it, or use build_levels()"
        )
        raise InvalidInputError(msg)
    exact = max(abs(f - 1) for f in fine) < 1e-9
    dtype = None if exact else np.float64 if image.dtype.itemsize > 2 else np.float32
    height = rows if exact else max(1, int(_BAND / (columns * fine[0] * fine[1])))
    parts: list[NDArray[Any]] = []
    for first, stop, _ in channel_runs(picked):
        bands = [
            image.read_grid(
                mpp,
                (top, min(top + height, window.y[1])),
                window.x,
                channels=range(first, stop),
                dtype=dtype,
                level=index,
            )
            for top in range(window.y[0], window.y[1], height)
        ]
        whole = bands[0] if len(bands) == 1 else np.concatenate(bands, axis=-2)
        parts.append(whole.reshape(stop - first, rows, columns))
    if not parts:
        return np.empty((0, rows, columns), image.dtype)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _counted(image: MultiscaleImage) -> MultiscaleImage:
    """View an image as if its pixels were very small: zooms know pixels, and no micrometres.

    A pixel size has a bound, which the coarsest zoom of a wide image of large pixels is beyond.
    """
    return MultiscaleImage(
        [image.level(i) for i in range(image.level_count)],
        uri=image.uri,
        channel_names=image.channel_names,
        mpp=Mpp(_TINY, _TINY, "user"),
        kind=image.kind,
        name=image.name,
    )
