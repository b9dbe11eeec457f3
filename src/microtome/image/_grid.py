"""A regular grid of pixels in a region's space, onto which pixels are resampled."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from microtome.coordinates import CoordinateTransform, ScaleTransform, TranslationTransform
from microtome.errors import InvalidInputError

from ._window import checked_size

__all__ = ["PIXEL_AXES", "Grid", "plan_grid"]

PIXEL_AXES = ("x", "y", "z")
"""Names of the axes of a pixel grid, in the order of coordinates."""

# An extent that exceeds a whole number of pixels by rounding only needs no further pixel.
_SNAP = 1e-6


@dataclass(frozen=True, slots=True)
class Grid:
    """A regular grid; pixel `i` covers `[origin + i spacing, origin + (i + 1) spacing)`.

    Parameters
    ----------
    origin
        Lower corner of its first pixel, in the order of the space's axes.
    spacing
        Size of a pixel along them.
    shape
        Number of pixels along them; a numpy shape has the opposite order.
    """

    origin: tuple[float, ...]
    spacing: tuple[float, ...]
    shape: tuple[int, ...]

    def transform(self, axes: Sequence[str]) -> CoordinateTransform:
        """Return the transform from pixel edges of the grid to the space with these axes."""
        scale = ScaleTransform(PIXEL_AXES[: len(self.shape)], axes, self.spacing)
        if not any(self.origin):
            return scale
        return TranslationTransform(axes, axes, self.origin) @ scale


def plan_grid(
    box: Sequence[float],
    to_level: CoordinateTransform,
    *,
    shape: Sequence[int] | None,
    spacing: float | Sequence[float] | None,
) -> Grid:
    """Choose the grid that covers a box.

    Parameters
    ----------
    box
        Lower corner, then upper corner.
    to_level
        From the box's space to pixels of the level that will be resampled.
    shape
        Number of pixels in the order of a numpy shape, (Z)YX, which fill the box exactly.
    spacing
        Size of a pixel: one number, or one an axis in the order of the space's axes. The grid
        begins at the box's lower corner and may hang over its upper one. By default such that a
        step from pixel to pixel is one pixel of the level long.

    Raises
    ------
    InvalidInputError
        If both are given, or numbers are not positive.
    """
    rank = len(box) // 2
    low, extent = box[:rank], [b - a for a, b in zip(box[:rank], box[rank:], strict=True)]
    if shape is not None:
        if spacing is not None:
            msg = f"give grid_shape or spacing, not both, got {shape!r} and {spacing!r}"
            raise InvalidInputError(msg)
        counts = _counts(shape, rank)
        steps = tuple(length / count for length, count in zip(extent, counts, strict=True))
    else:
        steps = _level_steps(to_level) if spacing is None else _steps(spacing, rank)
        ratios = [length / step for length, step in zip(extent, steps, strict=True)]
        if not all(math.isfinite(ratio) for ratio in ratios):
            msg = f"a spacing of {steps} does not divide an extent of {tuple(extent)} into pixels"
            raise InvalidInputError(msg)
        counts = tuple(max(1, math.ceil(ratio - _SNAP)) for ratio in ratios)
    return Grid(tuple(low), steps, checked_size(counts))


def _counts(shape: Sequence[int], rank: int) -> tuple[int, ...]:
    try:
        counts = tuple(operator.index(size) for size in shape)
    except TypeError:
        counts = ()
    if len(counts) != rank or min(counts) < 1:
        msg = f"grid_shape is {rank} positive integers, rows before columns, got {shape!r}"
        raise InvalidInputError(msg)
    return counts[::-1]


def _steps(spacing: float | Sequence[float], rank: int) -> tuple[float, ...]:
    try:
        # One number stands for all axes. Text, which numpy would read, is refused with the rest.
        given = np.multiply(spacing, 1.0)
        steps = tuple(np.broadcast_to(given, (rank,)).tolist())
    except (TypeError, ValueError):
        steps = ()
    if not steps or not all(0 < step < math.inf for step in steps):
        msg = f"spacing is one or {rank} positive numbers, x before y, got {spacing!r}"
        raise InvalidInputError(msg)
    return steps


def _level_steps(to_level: CoordinateTransform) -> tuple[float, ...]:
    lengths = np.linalg.norm(to_level.linear, axis=0)
    if not lengths.all():
        msg = f"{to_level!r} maps an axis onto a point; give the grid with spacing or grid_shape"
        raise InvalidInputError(msg)
    return tuple((1 / lengths).tolist())
