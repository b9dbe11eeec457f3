"""The common case of a spatial read: a box, in pixels of the reference level, of a plane as it is.

Training reads millions of them, a third of a millisecond each; the general way, with its spaces
and compositions of transforms, takes longer than that before it comes to the pixels.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

from numpy.typing import NDArray

from microtome.coordinates import (
    AffineTransform,
    CoordinateTransform,
    IdentityTransform,
    ScaleTransform,
    TranslationTransform,
)
from microtome.storage import StoredArray

from ._channels import Channels, wanted_channels
from ._window import read_window

if TYPE_CHECKING:
    from ._levels import LevelStack

__all__ = ["AXES", "SNAP", "read_plain"]

AXES = ("x", "y")
"""Axes of a plane, in the order of coordinates."""

SNAP = 1e-6
"""An edge within this part of a pixel of a grid line lies on it: the rest is rounding."""

# Farther out, floats no longer count pixels.
_FAR = 2.0**52
# What is larger is asked about in the general way, which knows what memory can hold.
_MOST_PIXELS = 2**32


def read_plain(
    image: LevelStack, level: int | str, region: object, channels: Channels | None, *, clip: bool
) -> tuple[NDArray[Any], CoordinateTransform] | None:
    """Read a box that is given in pixels of the reference level.

    Parameters
    ----------
    image
        The image.
    level
        Index or key of the level that is read.
    region
        The box (x0, y0, x1, y1).
    channels
        Channels; None for all.
    clip
        Whether what lies outside the image is left away, or is a case for the general way.

    Returns
    -------
    Pixels, and the transform from them to the reference level's; None for what is no such box, or
    a wrong one: the general way reads it, or says what is wrong.
    """
    chosen, reference = image.level(level), image.level(0)
    axes = chosen.axes
    if type(region) not in {tuple, list} or "z" in axes:
        return None
    try:
        x0, y0, x1, y1 = map(float, cast("tuple[float, ...]", region))
    except (TypeError, ValueError, OverflowError):
        return None
    # From the stated scales, not from shapes: 2967 -> 1484 rows is a factor of exactly 2.
    fy = fx = 1.0
    if chosen is not reference:
        fy, fx = (chosen.scale[i] / reference.scale[i] for i in (-2, -1))
    shape = chosen.shape
    columns = _pixels(x0, x1, 1.0 / fx, shape[-1], clip=clip)
    rows = _pixels(y0, y1, 1.0 / fy, shape[-2], clip=clip)
    if columns is None or rows is None:
        return None
    left, top = columns[0], rows[0]
    if (columns[1] - left) * (rows[1] - top) > _MOST_PIXELS:
        return None
    if channels is None and isinstance(chosen.array, StoredArray):
        lead = [(0, size) for size in shape[:-2]]
        data = chosen.array.read((*lead, rows, columns))
    else:
        data = read_window(chosen, (rows, columns), wanted_channels(image, channels), padding=False)
    return data, _to_reference((fx, fy), (left, top), same=chosen is reference)


def _pixels(
    low: float, high: float, per_pixel: float, size: int, *, clip: bool
) -> tuple[int, int] | None:
    """Return the pixels of a level that an interval of the reference level touches."""
    if not low < high:
        return None
    low, high = low * per_pixel, high * per_pixel
    if not -_FAR < low <= high < _FAR:
        return None
    start = math.floor(low + SNAP)
    # An interval however small lies in some pixel.
    stop = max(math.ceil(high - SNAP), start + 1)
    if start >= 0 and stop <= size:
        return start, stop
    start, stop = max(start, 0), min(stop, size)
    return (start, stop) if clip and start < stop else None


def _to_reference(
    factors: tuple[float, float], start: tuple[int, int], *, same: bool
) -> CoordinateTransform:
    """Return what composing the level's scale with the shift to the first pixel would give."""
    if same:
        return (
            TranslationTransform(AXES, AXES, start) if any(start) else IdentityTransform(AXES, AXES)
        )
    if not any(start):
        return ScaleTransform(AXES, AXES, factors)
    (fx, fy), (left, top) = factors, start
    return AffineTransform(AXES, AXES, [[fx, 0.0, fx * left], [0.0, fy, fy * top]])
