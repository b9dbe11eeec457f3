"""How much each tile says at each pixel: along every axis the shares of all tiles sum to one.

Tiles lie on a grid, so the share of a tile is a product of one number an axis, and what sums to one
along each axis sums to one everywhere. Nothing is divided after the tiles were added up, and no
second picture of weights is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError
from microtome.tiling import TilePlan

__all__ = ["AxisShares", "Blend", "checked_blend", "shares_of"]

Blend = Literal["crop", "linear", "gaussian", "none"]
"""What is done where tiles overlap.

`crop`: a pixel is taken from the tile whose border is farther away (CAREamics' rule). `none`: from
the last tile, in the order of the plan, that covers it. `linear` and `gaussian`: the mean of all
tiles that cover it, weighted by a ramp as long as the overlap, or by a bell whose standard deviation
is an eighth of the tile."""

_BELL = 8
# Whose values are means where tiles overlap; the others cut the picture into parts.
_MEANS = ("linear", "gaussian")


@dataclass(frozen=True, slots=True)
class AxisShares:
    """The tiles of a plan along one axis of the picture that is made.

    Parameters
    ----------
    starts
        First pixel of each tile, increasing, (n,).
    low, high
        First pixel that each tile has a share of, and one past the last, (n,).
    weights
        (n, tile) the share at each pixel of each tile; None where a tile has all of its
        pixels to itself.
    length
        Of the picture.
    """

    starts: NDArray[np.int64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    weights: NDArray[np.float64] | None
    length: int

    def touching(self, unit: int) -> NDArray[np.int64]:
        """Count the tiles that have a share of each part of `unit` pixels, (parts,)."""
        edges = np.arange(0, self.length, unit)
        stops = np.minimum(edges + unit, self.length)
        return np.asarray(
            [
                int(((self.low < stop) & (self.high > start)).sum())
                for start, stop in zip(edges.tolist(), stops.tolist(), strict=True)
            ],
            np.int64,
        )


def checked_blend(blend: Any) -> Blend:
    """Return a blend that there is.

    Raises
    ------
    InvalidInputError
        If there is none of that name.
    """
    if blend not in get_args(Blend):
        msg = f"blend must be one of {', '.join(get_args(Blend))}, got {blend!r}"
        raise InvalidInputError(msg)
    return blend


def shares_of(
    plan: TilePlan, blend: Blend, scale: Sequence[Fraction], shape: Sequence[int]
) -> tuple[AxisShares, ...]:
    """Return the shares of a plan's tiles along each axis of the picture.

    Parameters
    ----------
    plan
        The tiles, in pixels of the model's input.
    blend
        What is done where they overlap.
    scale
        Pixels of the output for one of the input, an axis.
    shape
        Of the picture, spatial axes only; no larger than the plan, scaled.

    Raises
    ------
    InvalidInputError
        If a tile or a seam lies between two pixels of the output.
    """
    grid = plan.grid
    shares: list[AxisShares] = []
    for axis, (factor, length) in enumerate(zip(scale, shape, strict=True)):
        step = int(np.prod(grid[axis + 1 :], dtype=np.int64))
        tiles = plan.take(np.arange(grid[axis]) * step)
        starts = _scaled(tiles.coords[:, axis], factor, "start")
        seams = _scaled(tiles.stitch[:, axis], factor, "seam")
        tile = int(plan.tile_size[axis] * factor)
        ends = np.minimum(starts + tile, length)
        if blend in _MEANS:
            ramp = max(1, int(plan.overlap[axis] * factor))
            weights = _weights(starts, tile, length, _profile(blend, tile, ramp))
            shares.append(AxisShares(starts, starts, ends, weights, length))
        else:
            # A seam may lie in what the level was padded with.
            low = np.minimum(starts if blend == "none" else seams, length)
            high = np.minimum(np.append(low[1:], length), ends)
            shares.append(AxisShares(starts, low, high, None, length))
    return tuple(shares)


def _scaled(values: NDArray[np.int64], factor: Fraction, what: str) -> NDArray[np.int64]:
    scaled = values * factor.numerator
    wrong = np.flatnonzero(scaled % factor.denominator)
    if wrong.size:
        msg = (
            f"the model makes one pixel of {factor.denominator}, and the {what} of a tile at "
            f"{int(values[wrong[0]])} lies inside one; plan with "
            f"plan_for(..., multiple_of={factor.denominator})"
        )
        raise InvalidInputError(msg)
    return scaled // factor.denominator


def _profile(blend: str, tile: int, ramp: int) -> NDArray[np.float64]:
    at = np.arange(tile, dtype=np.float64)
    if blend == "linear":
        return np.minimum(np.minimum(at + 1, tile - at), ramp)
    return np.exp(-0.5 * ((at - (tile - 1) / 2) * _BELL / tile) ** 2)


def _weights(
    starts: NDArray[np.int64], tile: int, length: int, profile: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Divide each tile's profile by the sum of all at the same pixel."""
    total = np.zeros(int(max(length, starts[-1] + tile)), np.float64)
    for start in starts.tolist():
        total[start : start + tile] += profile
    return np.stack([profile / total[start : start + tile] for start in starts.tolist()])
