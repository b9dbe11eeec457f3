"""What a region is: a half-open box, or a shapely geometry, in a space of the caller's choice."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

__all__ = ["Region", "checked_region", "parse_region", "pixels_inside"]

_NUMBERS = {2: "four", 3: "six"}
# Pixels a side of the blocks that a geometry is asked about before it is asked about pixels.
_BLOCK = 64


@dataclass(frozen=True, slots=True)
class Region:
    """Where to read.

    Parameters
    ----------
    box
        Lower corner, then upper corner, in the order of the space's axes.
    geometry
        The geometry that the box bounds, None for a plain box.
    """

    box: tuple[float, ...]
    geometry: BaseGeometry | None = None


def parse_region(region: object, axes: Sequence[str], *, depth: float | None, mask: bool) -> Region:
    """Return what the caller gave as a region.

    Parameters
    ----------
    region
        A box or a geometry.
    axes
        Axes of the space that it lies in, two or three.
    depth
        Extent along the third axis of what is given along the first two only; None where that
        means nothing, because the planes of the space are not those of the image.
    mask
        Whether the outline of a geometry will be followed.

    Raises
    ------
    InvalidInputError
        If it is neither, not finite, or empty; or there is no outline to follow.
    """
    geometry = _geometry(region)
    if mask:
        _verify_outline(geometry, region)
    flat = geometry.bounds if geometry is not None else region
    if len(axes) == 3 and (geometry is not None or _length(region) == 4):
        if depth is None:
            msg = (
                f"a region of two axes says nothing about {axes[2]!r} of the space {tuple(axes)}; "
                "give a box of six numbers (x0, y0, z0, x1, y1, z1)"
            )
            raise InvalidInputError(msg)
        x0, y0, x1, y1 = checked_region(flat)
        return Region((x0, y0, 0.0, x1, y1, depth), geometry)
    return Region(checked_region(flat, axes), geometry)


def checked_region(region: object, axes: Sequence[str] = ("x", "y")) -> tuple[float, ...]:
    """Return a box as floats.

    Parameters
    ----------
    region
        Lower corner, then upper corner: (x0, y0, x1, y1), or (x0, y0, z0, x1, y1, z1).
    axes
        Axes of its space, two or three.

    Raises
    ------
    InvalidInputError
        If it is not twice as many finite numbers as there are axes, or not lower before upper:
        a box with its corners exchanged is more often two mistaken numbers than meant.
    """
    rank = len(axes)
    names = ", ".join([f"{axis}0" for axis in axes] + [f"{axis}1" for axis in axes])
    try:
        box = tuple(float(value) for value in region)  # pyright: ignore[reportGeneralTypeIssues] - whatever the caller gave
    except (TypeError, ValueError, OverflowError):
        box = ()
    if len(box) != 2 * rank or not all(math.isfinite(value) for value in box):
        msg = f"a region is {_NUMBERS[rank]} finite numbers ({names}), got {region!r}"
        raise InvalidInputError(msg)
    if not all(low < high for low, high in zip(box[:rank], box[rank:], strict=True)):
        ordered = " and ".join(f"{axis}0 < {axis}1" for axis in axes)
        msg = f"a region is half-open with {ordered}, got {box}"
        raise InvalidInputError(msg)
    return box


def pixels_inside(
    geometry: BaseGeometry,
    linear: NDArray[np.float64],
    offset: NDArray[np.float64],
    shape: tuple[int, int],
) -> NDArray[np.bool_]:
    """Return which pixels of a grid have their centre in a geometry or on its boundary.

    Parameters
    ----------
    geometry
        A valid polygon, or several.
    linear, offset
        From pixel edges (x, y) of the grid to the geometry's space, (2, 2) and (2,).
    shape
        Rows and columns of the grid.

    Returns
    -------
    (rows, columns).
    """
    import shapely

    # A copy, because preparing leaves a cache in the geometry, and other threads may hold it.
    own = shapely.from_wkb(shapely.to_wkb(geometry))
    shapely.prepare(own)
    inside = np.zeros(shape, np.bool_)
    starts = [np.arange(0, size, _BLOCK) for size in shape]
    top, left = (grid.ravel() for grid in np.meshgrid(*starts, indexing="ij"))
    bottom, right = np.minimum(top + _BLOCK, shape[0]), np.minimum(left + _BLOCK, shape[1])
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float64)
    blocks = shapely.polygons(corners.transpose(2, 0, 1) @ linear.T + offset)
    # Whole blocks first: only those that the outline runs through are looked at pixel by pixel.
    touched = np.atleast_1d(shapely.intersects(own, blocks))
    whole = np.atleast_1d(shapely.covers(own, blocks))
    for i in np.flatnonzero(touched):
        window = slice(top[i], bottom[i]), slice(left[i], right[i])
        if whole[i]:
            inside[window] = True
            continue
        x, y = np.meshgrid(np.arange(left[i], right[i]) + 0.5, np.arange(top[i], bottom[i]) + 0.5)
        points = np.stack([x, y], axis=-1) @ linear.T + offset
        inside[window] = shapely.intersects_xy(own, points[..., 0], points[..., 1])
    return inside


def _geometry(region: object) -> BaseGeometry | None:
    # Who has a geometry has imported shapely; for everybody else it need not be installed.
    shapely: Any = sys.modules.get("shapely")
    if shapely is None or not isinstance(region, shapely.Geometry):
        return None
    geometry: Any = region
    if not np.isfinite(shapely.get_coordinates(geometry)).all():
        msg = f"a geometry needs finite coordinates, got {geometry.wkt[:200]}"
        raise InvalidInputError(msg)
    if not geometry.area > 0:
        msg = (
            f"a geometry with an area is needed, got {geometry.wkt[:200]}; give points and lines "
            "a width with .buffer()"
        )
        raise InvalidInputError(msg)
    return geometry


def _verify_outline(geometry: BaseGeometry | None, region: object) -> None:
    if geometry is None:
        msg = f"mask_geometry needs a shapely geometry as the region, got {region!r}"
        raise InvalidInputError(msg)
    if not geometry.is_valid:
        from shapely.validation import explain_validity

        msg = (
            f"the geometry is not valid: {explain_validity(geometry)}; mend it with "
            "shapely.make_valid"
        )
        raise InvalidInputError(msg)


def _length(region: object) -> int:
    return len(region) if isinstance(region, Sequence | np.ndarray) else 0
