"""How many pixels of a slide one of a table of tiles is: as it is said, or as both state it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from microtome.coordinates import Resolution
from microtome.errors import InvalidInputError
from microtome.image import MultiscaleImage
from microtome.tiling import TileTable

__all__ = ["checked_scale", "scale_of"]


def scale_of(
    tiles: TileTable, slide: MultiscaleImage | None, scale: float | Sequence[float] | None
) -> NDArray[np.float64]:
    """Return how many pixels of a slide's finest level one of a table is, (x, y).

    Parameters
    ----------
    tiles
        The table.
    slide
        The slide, where it is known.
    scale
        What is said of it: one positive number or two (y, x). By default the resolution that the
        table states by the pixel size that the slide states.

    Raises
    ------
    InvalidInputError
        If nothing is said, and one of them does not state its own; or what is said is no scale.
    """
    if scale is not None:
        return checked_scale(scale)
    if tiles.resolution is None:
        msg = (
            f"the table of {tiles.strategy} tiles does not say at which resolution they lie; pass "
            "scale=, pixels of the slide's finest level in a pixel of the table: 1 where it counts these"
        )
        raise InvalidInputError(msg)
    coarse = Resolution.parse(tiles.resolution).mpp
    if slide is None:
        msg = (
            f"the tiles count pixels of {tiles.resolution}, and nothing says how large those of the "
            "picture are; pass slide=, or scale=, pixels of its finest level in a pixel of the table"
        )
        raise InvalidInputError(msg)
    if slide.mpp is None:
        msg = (
            f"the tiles count pixels of {tiles.resolution}, and {slide.uri} does not state how large "
            "its own are; open it with mpp=, or pass scale=, pixels of its finest level in a pixel of the table"
        )
        raise InvalidInputError(msg)
    return checked_scale((coarse[0] / slide.mpp.y, coarse[1] / slide.mpp.x))


def checked_scale(given: float | Sequence[float]) -> NDArray[np.float64]:
    """Return how much coarser pixels are, (x, y).

    Raises
    ------
    InvalidInputError
        If it is not one positive number or two (y, x).
    """
    factor = np.asarray(given, np.float64)
    if factor.shape not in {(), (2,)} or not (np.isfinite(factor) & (factor > 0)).all():
        msg = f"scale must be one positive number or two (y, x), got {given!r}"
        raise InvalidInputError(msg)
    return np.broadcast_to(factor, (2,))[::-1]
