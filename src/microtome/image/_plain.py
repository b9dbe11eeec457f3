"""The common case of a spatial read: a box, in pixels of the reference level, of a plane as it is.

Training reads millions of them, a third of a millisecond each; the general way, with its spaces
and compositions of transforms, takes longer than that before it comes to the pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from numpy.typing import NDArray

from microtome.coordinates import (
    AffineTransform,
    CoordinateSpace,
    CoordinateTransform,
    IdentityTransform,
    ScaleTransform,
    TranslationTransform,
)
from microtome.storage import StoredArray

from ._level import Level
from ._window import read_window

__all__ = ["SNAP", "ResultOrder", "SpatialRead", "read_plain"]

_AXES = ("x", "y")
_PLANE = CoordinateSpace.from_axis_names(_AXES)
_SEQUENCES = (tuple, list)
_UNMOVED = IdentityTransform(_AXES, _AXES)

SNAP = 1e-6
"""An edge within this part of a pixel of a grid line lies on it: the rest is rounding."""

# Farther out, floats no longer count pixels.
_FAR = 2.0**52
# What is larger is asked about in the general way, which knows what memory can hold.
_MOST_PIXELS = 2**32


ResultOrder = Literal["row-major", "column-major"]
"""Whether the axes of the data come in their order or in the opposite one; memory stays the same."""


@dataclass(frozen=True, slots=True)
class SpatialRead:
    """Pixels, and where they lie.

    Parameters
    ----------
    data
        The pixels.
    data_coordinate_space
        Space of the data's own pixel grid: (x, y), or (x, y, z).
    output_coordinate_space
        Space that the region was given in.
    coordinate_transform
        From pixel edges of `data` to the output space: pixel `(i, j)` covers
        `[i, i + 1) x [j, j + 1)`, and its centre is at `(i + 0.5, j + 0.5)`.
    data_axis_order
        Names of the axes of `data`, one letter each.
    """

    data: NDArray[Any]
    data_coordinate_space: CoordinateSpace
    output_coordinate_space: CoordinateSpace
    coordinate_transform: CoordinateTransform
    data_axis_order: tuple[str, ...]


def read_plain(
    chosen: Level, reference: Level, region: object, channels: Sequence[int] | None, *, clip: bool
) -> SpatialRead | None:
    """Read a box that is given in pixels of the reference level.

    Parameters
    ----------
    chosen
        The level that is read.
    reference
        The reference level.
    region
        The box (x0, y0, x1, y1).
    channels
        Channels by number; None for all.
    clip
        Whether what lies outside the image is left away, or is a case for the general way.

    Returns
    -------
    None for what is no such box, or a wrong one: the general way reads it, or says what is wrong.
    """
    axes, array = chosen.axes, chosen.array
    if type(region) not in _SEQUENCES or "z" in axes:
        return None
    height, width = array.shape[-2:]
    try:
        x0, y0, x1, y1 = cast("Sequence[Any]", region)
        if (
            chosen is reference
            and type(x0) is type(y0) is type(x1) is type(y1) is int
            and 0 <= x0 < x1 <= width
            and 0 <= y0 < y1 <= height
        ):
            rows, columns = (y0, y1), (x0, x1)
        else:
            fx, fy = (1.0, 1.0) if chosen is reference else _factors(chosen, reference)
            columns = _pixels(float(x0), float(x1), 1.0 / fx, width, clip=clip)
            rows = _pixels(float(y0), float(y1), 1.0 / fy, height, clip=clip)
    except (TypeError, ValueError, OverflowError):
        return None
    if rows is None or columns is None:
        return None
    (top, bottom), (left, right) = rows, columns
    if (right - left) * (bottom - top) > _MOST_PIXELS:
        return None
    if channels is None and isinstance(array, StoredArray):
        data = array.read_plane(rows, columns)
    else:
        data = read_window(chosen, (rows, columns), channels, padding=False)
    if chosen is reference:
        where = TranslationTransform.by_pixels(_AXES, (left, top)) if left or top else _UNMOVED
    else:
        where = _to_reference(_factors(chosen, reference), (left, top))
    return SpatialRead(data, _PLANE, _PLANE, where, tuple(axes))


def _factors(chosen: Level, reference: Level) -> tuple[float, float]:
    # From the stated scales, not from shapes: 2967 -> 1484 rows is a factor of exactly 2.
    return chosen.scale[-1] / reference.scale[-1], chosen.scale[-2] / reference.scale[-2]


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


def _to_reference(factors: tuple[float, float], start: tuple[int, int]) -> CoordinateTransform:
    """Return what composing the level's scale with the shift to the first pixel would give."""
    if not any(start):
        return ScaleTransform(_AXES, _AXES, factors)
    (fx, fy), (left, top) = factors, start
    return AffineTransform(_AXES, _AXES, [[fx, 0.0, fx * left], [0.0, fy, fy * top]])
