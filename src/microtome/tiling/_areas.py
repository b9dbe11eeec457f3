"""Areas that somebody drew: polygons of a GeoJSON file, as QuPath exports annotations."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError, UnknownNameError

from ._geojson import class_of_feature, multipolygon, object_type, polygon_rings, read_features

__all__ = ["Area", "AreaSet", "read_areas"]

_log = logging.getLogger(__name__)

# How far an area may reach over the edge of the image, as a share of the image's side: hands slip.
_OVER = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Area:
    """A polygon with holes, or several that belong together."""

    name: str | None
    """Its class; None where it has none."""
    rings: tuple[tuple[NDArray[np.float64], ...], ...]
    """Of each polygon the outline, then its holes: (n, 2) corners (x, y), the last the first."""
    _bounds: tuple[tuple[float, float], ...] = field(init=False)
    """Least and largest y of each polygon."""

    def __post_init__(self) -> None:
        bounds = tuple((part[0][:, 1].min(), part[0][:, 1].max()) for part in self.rings)
        object.__setattr__(self, "_bounds", bounds)

    def near(self, top: int, bottom: int) -> Iterator[tuple[NDArray[np.float64], ...]]:
        """Yield the rings of the polygons that reach into some rows."""
        for part, (upper, lower) in zip(self.rings, self._bounds, strict=True):
            if upper < bottom and lower > top:
                yield part


@dataclass(frozen=True, slots=True, eq=False)
class AreaSet:
    """Areas of one tissue."""

    areas: tuple[Area, ...]
    source: str
    """Where they were read, for messages."""
    _left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.areas)

    @property
    def names(self) -> list[str]:
        """Classes of the areas, sorted."""
        return sorted({area.name for area in self.areas if area.name is not None})

    @property
    def all_names(self) -> list[str]:
        """Classes of the areas, and of those that were left out when some were chosen, sorted."""
        return sorted({*self.names, *self._left_out})

    def of_classes(self, classes: Sequence[str]) -> Self:
        """Return the areas of some classes.

        Raises
        ------
        UnknownNameError
            If no area has one of the classes; lists those there are.
        """
        unknown = sorted(set(classes) - set(self.names))
        if unknown:
            there = ", ".join(map(repr, self.names)) or "none"
            msg = f"{self.source} has no area of class {', '.join(map(repr, unknown))}; it has {there}"
            raise UnknownNameError(msg)
        kept = tuple(area for area in self.areas if area.name in set(classes))
        return type(self)(kept, self.source, tuple(self.all_names))

    def scaled(self, y: float, x: float) -> Self:
        """Return the areas with every coordinate multiplied."""
        factor = np.array([x, y])
        return type(self)(
            tuple(
                Area(area.name, tuple(tuple(ring * factor for ring in part) for part in area.rings))
                for area in self.areas
            ),
            self.source,
            self._left_out,
        )

    def verify_inside(self, shape: tuple[int, int]) -> None:
        """Refuse areas that reach out of an image: their coordinates are of another.

        Raises
        ------
        InvalidInputError
            If one reaches more than a hundredth of the image's side, or a pixel, over its edge.
        """
        height, width = shape
        over = np.array([max(1.0, _OVER * width), max(1.0, _OVER * height)])
        for number, area in enumerate(self.areas):
            corners = np.concatenate([ring for part in area.rings for ring in part])
            low, high = corners.min(axis=0), corners.max(axis=0)
            if (low < -over).any() or (high > np.array([width, height]) + over).any():
                msg = (
                    f"{self.source}: area {number} ({area.name or 'no class'}) reaches from "
                    f"x {low[0]:.1f}, y {low[1]:.1f} to x {high[0]:.1f}, y {high[1]:.1f} pixels, "
                    f"but the image has {width} x {height}; are its coordinates of another image, "
                    "or in other units? Say how many micrometres one of them is (annotation_mpp)"
                )
                raise InvalidInputError(msg)

    def contains(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which points (n, 2), (y, x) from the upper left edge, lie inside an area."""
        import shapely

        inside = np.zeros(len(points), np.bool_)
        for area in self.areas:
            whole = multipolygon(area.rings)
            shapely.prepare(whole)
            inside |= shapely.contains_xy(whole, points[:, 1], points[:, 0])
        return inside

    def rows(self, width: int, top: int, bottom: int) -> NDArray[np.bool_]:
        """Return which pixels of some rows of an image have their centre inside an area.

        Parameters
        ----------
        width
            Columns of the image.
        top, bottom
            First row and one past the last.

        Returns
        -------
        (bottom - top, width).
        """
        inside = np.zeros((bottom - top, width), np.bool_)
        for area in self.areas:
            for part in area.near(top, bottom):
                _fill(inside, part, top)
        return inside


def _fill(inside: NDArray[np.bool_], rings: tuple[NDArray[np.float64], ...], top: int) -> None:
    """Add a polygon to rows of an image: a pixel is inside after an odd number of edges.

    Of an edge the upper end counts and the lower does not, so that a row through a corner crosses
    one edge there; of a centre that lies on an edge, those on the left edge are inside.
    """
    corners = np.concatenate(rings)
    (left, upper), (right, lower) = corners.min(axis=0), corners.max(axis=0)
    first = max(int(np.ceil(upper - 0.5)) - top, 0)
    last = min(int(np.ceil(lower - 0.5)) - top, inside.shape[0])
    begin = min(max(int(np.ceil(left - 0.5)), 0), inside.shape[1])
    end = max(min(int(np.ceil(right - 0.5)), inside.shape[1]), begin)
    if first >= last or begin == end:
        return
    crossed = np.zeros((last - first, end - begin + 1), np.int32)
    for ring in rings:
        start, stop = ring[:-1], ring[1:]
        down = start[:, 1] <= stop[:, 1]
        low, high = np.where(down[:, None], start, stop), np.where(down[:, None], stop, start)
        begins = np.clip(np.ceil(low[:, 1] - 0.5).astype(np.int64) - top, first, last)
        counts = np.clip(np.ceil(high[:, 1] - 0.5).astype(np.int64) - top, first, last) - begins
        edge = np.repeat(np.arange(counts.size), counts)
        within = np.arange(edge.size) - np.repeat(np.cumsum(counts) - counts, counts)
        row = begins[edge] + within
        share = (row + top + 0.5 - low[edge, 1]) / (high[edge, 1] - low[edge, 1])
        x = low[edge, 0] + share * (high[edge, 0] - low[edge, 0])
        col = np.clip(np.ceil(x - 0.5).astype(np.int64), begin, end) - begin
        np.add.at(crossed, (row - first, col), 1)
    inside[first:last, begin:end] |= (np.cumsum(crossed, axis=1)[:, :-1] & 1).astype(np.bool_)


def read_areas(
    path: str | os.PathLike[str],
    *,
    classes: Sequence[str] | None = None,
    missing_ok: bool = False,
) -> AreaSet:
    """Read the polygons of a GeoJSON file.

    Features of QuPath that are no annotations (cells, detections) are left out; any other feature
    must be a `Polygon` or `MultiPolygon`. The class is `properties.classification.name`.

    Parameters
    ----------
    path
        A FeatureCollection, one Feature, or, as older versions of QuPath write, a list of them.
    classes
        Only areas of these classes; None for all.
    missing_ok
        Whether the file may lack some or all of the classes.

    Returns
    -------
    The areas in the coordinates of the file: QuPath's are pixels of the finest level, from the
    upper left edge of the image.

    Raises
    ------
    FormatError
        If the file is no GeoJSON, or an area is no valid polygon; names the feature.
    UnknownNameError
        If no area has one of the classes.
    InvalidInputError
        If there is no area, or `classes` is a text.
    DependencyError
        If shapely is not installed.
    """
    if isinstance(classes, str):
        msg = f"classes is a list of names, got the text {classes!r}; for one class [{classes!r}]"
        raise InvalidInputError(msg)
    place = Path(path)
    found: list[Area] = []
    for number, feature in enumerate(read_features(place)):
        kind = object_type(feature)
        if kind not in {"annotation", "tile", None}:
            _log.info("%s: feature %d is a %s, no annotation", place, number, kind)
            continue
        name = class_of_feature(feature)
        if classes is None or name in classes:
            rings = polygon_rings(feature.get("geometry"), f"{place}: feature {number}")
            found.append(Area(name, rings))
        else:
            # What was not asked for need not be valid.
            found.append(Area(name, ()))
    areas = AreaSet(tuple(found), str(place))
    if not len(areas):
        msg = f"{place} has no annotations"
        raise InvalidInputError(msg)
    if classes is None:
        return areas
    there = [name for name in classes if name in areas.names] if missing_ok else classes
    return areas.of_classes(there)
