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
    axes = chosen.axes
    if type(region) not in {tuple, list} or "z" in axes:
        return None
    try:
        x0, y0, x1, y1 = map(float, cast("tuple[float, ...]", region))
    except (TypeError, ValueError, OverflowError):
        return None
    # From the stated scales, not from shapes: 2967 -> 1484 rows is a factor of exactly 2.
    fx = fy = 1.0
    if chosen is not reference:
        fx, fy = chosen.scale[-1] / reference.scale[-1], chosen.scale[-2] / reference.scale[-2]
    shape = chosen.shape
    columns = _pixels(x0, x1, 1.0 / fx, shape[-1], clip=clip)
    rows = _pixels(y0, y1, 1.0 / fy, shape[-2], clip=clip)
    if columns is None or rows is None:
        return None
    (left, right), (top, bottom) = columns, rows
    if (right - left) * (bottom - top) > _MOST_PIXELS:
        return None
    if channels is None and isinstance(chosen.array, StoredArray):
        lead = [(0, size) for size in shape[:-2]]
        data = chosen.array.read((*lead, rows, columns))
    else:
        data = read_window(chosen, (rows, columns), channels, padding=False)
    where = _to_reference((fx, fy), (left, top), same=chosen is reference)
    return SpatialRead(data, _PLANE, _PLANE, where, tuple(axes))


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
            TranslationTransform(_AXES, _AXES, start)
            if any(start)
            else IdentityTransform(_AXES, _AXES)
        )
    if not any(start):
        return ScaleTransform(_AXES, _AXES, factors)
    (fx, fy), (left, top) = factors, start
    return AffineTransform(_AXES, _AXES, [[fx, 0.0, fx * left], [0.0, fy, fy * top]])
