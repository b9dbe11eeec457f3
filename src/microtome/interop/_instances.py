"""Instances of a region element: where their centres lie, and how large they are.

Every kind of region comes down to the same columns: identifiers, centres, and the radius of the
circle that has the instance's area. Labels are counted in one streaming pass over their runs, so
that neither their number nor how large their values are matters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.errors import DependencyError, InvalidInputError
from microtome.image import MultiscaleImage

__all__ = ["Instances", "instances_of_geometries", "instances_of_labels"]

# Pixels of labels that are looked at together: some 100 MB with all that is worked out of them.
_BAND = 1 << 22


@dataclass(frozen=True, slots=True, eq=False)
class Instances:
    """The instances of a region element, in its own coordinates.

    Parameters
    ----------
    ids
        Identifier of each: label value, or entry of the index of shapes, (n,).
    centres
        Centroids (x, y), (n, 2).
    radii
        Radius of the circle of the same area, (n,); None for points, which have no area.
    """

    ids: NDArray[Any]
    centres: NDArray[np.float64]
    radii: NDArray[np.float64] | None

    def __post_init__(self) -> None:
        if not len(self.ids):
            msg = "a region without instances has no tiles"
            raise InvalidInputError(msg)
        if not np.isfinite(self.centres).all():
            lost = self.ids[~np.isfinite(self.centres).all(axis=1)]
            msg = f"{len(lost)} instances have no finite centre, among them {lost[:3].tolist()}"
            raise InvalidInputError(msg)


def instances_of_labels(image: MultiscaleImage) -> Instances:
    """Count labels, band by band: centroids, and areas as radii; 0 is background.

    Parameters
    ----------
    image
        Labels over (Y, X) or (Z, Y, X); of several levels the finest is counted.

    Returns
    -------
    The instances, by ascending label. With a depth their centres are those of the volume seen from
    above, and they have no radii: nothing says how far apart planes are.

    Raises
    ------
    InvalidInputError
        If there is nothing but background.
    """
    level = image.level(0)
    height, width = level.shape[-2:]
    chunks = [max(1, size) for size in level.array.chunks]
    # Whole chunks, so that each is decoded once.
    deep = chunks[0] if "z" in level.axes else 1
    rows = max(1, _BAND // (width * chunks[-2] * deep)) * chunks[-2]
    depths = range(0, level.shape[0], deep) if "z" in level.axes else [None]
    parts: list[tuple[NDArray[Any], ...]] = []
    for first in depths:
        lead = () if first is None else ((first, min(first + deep, level.shape[0])),)
        for top in range(0, height, rows):
            band = level.array.read((*lead, (top, min(top + rows, height)), (0, width)))
            parts += [_counted(plane, top) for plane in band.reshape(-1, *band.shape[-2:])]
    values = np.concatenate([part[0] for part in parts])
    ids, place = np.unique(values, return_inverse=True)
    area, sum_x, sum_y = (
        np.bincount(place, np.concatenate([part[i] for part in parts]), len(ids)) for i in (1, 2, 3)
    )
    with np.errstate(invalid="ignore"):  # of no labels at all, refused by `Instances`
        centres = np.stack([sum_x / area, sum_y / area], axis=1)
    return Instances(ids, centres, None if "z" in level.axes else np.sqrt(area / np.pi))


def _counted(band: NDArray[Any], top: int) -> tuple[NDArray[Any], ...]:
    """Return (label, area, sum of x, sum of y) of the labels in some rows of an image."""
    width = band.shape[1]
    change = np.empty(band.shape, np.bool_)
    change[:, 0] = True
    np.not_equal(band[:, 1:], band[:, :-1], out=change[:, 1:])
    starts = np.flatnonzero(change)
    values = band.reshape(-1)[starts]
    lengths = np.diff(starts, append=band.size)
    kept = values != 0
    values, starts, lengths = values[kept], starts[kept], lengths[kept].astype(np.float64)
    row, column = np.divmod(starts, width)
    ids, place = np.unique(values, return_inverse=True)
    return (
        ids,
        np.bincount(place, lengths, len(ids)),
        np.bincount(place, lengths * (column + lengths / 2), len(ids)),
        np.bincount(place, lengths * (row + (top + 0.5)), len(ids)),
    )


def instances_of_geometries(
    ids: NDArray[Any], geometries: NDArray[Any], radii: NDArray[Any] | None
) -> Instances:
    """Describe shapes: circles where they have radii, else areas.

    Parameters
    ----------
    ids
        Identifiers, (n,).
    geometries
        shapely's, (n,), or the centres of circles as numbers, (n, 2 or 3).
    radii
        Radii, for circles.

    Raises
    ------
    InvalidInputError
        If a geometry is empty, a line, or no circle though it is a point.
    """
    if geometries.dtype != object:
        return Instances(ids, geometries[:, :2].astype(np.float64), _radii(ids, radii))
    shapely = imported_shapely()
    if radii is not None:
        points = np.stack([shapely.get_x(geometries), shapely.get_y(geometries)], axis=1)
        return Instances(ids, points, _radii(ids, radii))
    centroids = shapely.centroid(geometries)
    centres = np.stack([shapely.get_x(centroids), shapely.get_y(centroids)], axis=1)
    return Instances(ids, centres, _radii(ids, np.sqrt(shapely.area(geometries) / np.pi)))


def _radii(ids: NDArray[Any], radii: NDArray[Any] | None) -> NDArray[np.float64] | None:
    if radii is None:
        return None
    found = np.asarray(radii, np.float64)
    bad = ~(np.isfinite(found) & (found > 0))
    if bad.any():
        shown = dict(zip(ids[bad][:3].tolist(), found[bad][:3].tolist(), strict=True))
        msg = f"{int(bad.sum())} instances have no area, among them (id: radius) {shown}"
        raise InvalidInputError(msg)
    return found


def imported_shapely() -> Any:
    """Return shapely.

    Raises
    ------
    DependencyError
        If it is not installed.
    """
    try:
        import shapely
    except ImportError as error:
        msg = "polygons need shapely: pip install 'microtome[geometry]'"
        raise DependencyError(msg) from error
    return shapely
