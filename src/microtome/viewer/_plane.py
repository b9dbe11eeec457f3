"""Affine maps of the plane as (3, 3) matrices: from pixels of an image to micrometres.

A pixel's number is that of its upper left edge: its centre is half a pixel further.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.coordinates import Mpp
from microtome.image import MultiscaleImage

__all__ = ["Plane", "corner_of", "level_to_base", "pixels_to_um", "scaling", "shifting"]

Plane = NDArray[np.float64]


def scaling(x: float, y: float) -> Plane:
    """Return the map that multiplies."""
    return np.diag([x, y, 1.0])


def shifting(x: float, y: float) -> Plane:
    """Return the map that adds."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def corner_of(image: MultiscaleImage) -> tuple[float, float]:
    """Return the upper left corner (x, y) of an image in micrometres, as it states it.

    Raises
    ------
    NoResolutionError
        If the image does not state its pixel size.
    """
    own, base = image.require_mpp(), image.level(0)
    # OME-NGFF's translation speaks of the centre of the first pixel.
    return base.translation[-1] - own.x / 2, base.translation[-2] - own.y / 2


def pixels_to_um(image: MultiscaleImage, corner: tuple[float, float]) -> Plane:
    """Return the map from pixels (x, y) of level 0 to micrometres.

    Parameters
    ----------
    image
        The image.
    corner
        Where its upper left corner lies.
    """
    own: Mpp = image.require_mpp()
    return shifting(*corner) @ scaling(own.x, own.y)


def level_to_base(image: MultiscaleImage, level: int) -> Plane:
    """Return the map from pixels of a level to those of level 0."""
    chosen, base = image.level(level), image.level(0)
    factors: list[Any] = [chosen.scale[axis] / base.scale[axis] for axis in (-1, -2)]
    return scaling(*factors)
