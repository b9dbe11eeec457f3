"""Which squares of which coordinate systems are tiles, and where they lie in the images: columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError

from ._elements import Picture, Region, flat_matrix

__all__ = ["Pair", "TilePlan", "fixed_size", "plan_tiles", "raster_size"]

# An edge of a tile within this part of a pixel of a pixel's centre lies on it.
_SNAP = 1e-9
_SIZES = ("target_unit_to_pixels", "target_width", "target_height", "target_depth")


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A region, the image that its tiles are cut from, and the system in which they are squares.

    Parameters
    ----------
    region
        Name of the region.
    system
        Name of the coordinate system.
    picture
        The image.
    to_pixels
        Augmented matrix over (x, y) from the system to pixels of the finest level.
    """

    region: str
    system: str
    picture: Picture
    to_pixels: NDArray[np.float64]

    @property
    def unit(self) -> float:
        """How many pixels of the finest level a unit of the system is long, where it is shortest."""
        return float(np.linalg.svd(self.to_pixels[:2, :2], compute_uv=False)[-1])

    @property
    def depth(self) -> tuple[int, ...]:
        """Planes of the image, of which a tile has all; () for a flat one."""
        image = self.picture.image
        return (image.level(0).shape[image.axes.index("z")],) if "z" in image.axes else ()

    @property
    def channels(self) -> int:
        """Channels of the image, 1 for labels."""
        return self.picture.image.nchannels

    def level_for(self, pixel: float) -> int:
        """Return the coarsest level that is not coarser than pixels of a size in the system."""
        image = self.picture.image
        if image.level_count == 1:
            return 0
        wanted = pixel * self.unit * (1 + _SNAP)
        fine = [i for i in range(image.level_count) if max(image.level(i).scale[-2:]) <= wanted]
        return max(fine, default=0)

    def to_level(self, level: int) -> NDArray[np.float64]:
        """Return the matrix from the system to pixels of a level."""
        y, x = self.picture.image.level(level).scale[-2:]
        return np.diag([1 / x, 1 / y, 1.0]) @ self.to_pixels


@dataclass(frozen=True, slots=True, eq=False)
class TilePlan:
    """The tiles, in order.

    Parameters
    ----------
    region
        Number of each tile's region, (n,).
    ids
        Identifier of its instance, (n,).
    centres
        Centre (x, y) in the region's coordinate system, (n, 2).
    extent
        Side in its units, (n,), or one for all.
    """

    region: NDArray[np.unsignedinteger[Any]]
    ids: NDArray[Any]
    centres: NDArray[np.float64]
    extent: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.region)

    def instance(self, row: int) -> Any:
        """Return the identifier of a tile's instance, as a number or text of Python."""
        own = self.ids[row]
        return own.item() if isinstance(own, np.generic) else own

    def side(self, row: int) -> float:
        """Return the side of a tile."""
        return float(self.extent[row] if self.extent.ndim else self.extent)

    def box(self, row: int) -> tuple[float, float, float, float]:
        """Return a tile as (min x, min y, max x, max y)."""
        x, y = self.centres[row].tolist()
        half = self.side(row) / 2
        return x - half, y - half, x + half, y + half

    def window(self, row: int, pair: Pair) -> list[tuple[int, int]]:
        """Return the pixels (y, x) whose centres lie in a tile's bounding box on the pixel grid.

        Both ends belong to it, as in `spatialdata.bounding_box_query`; clipped to the image.
        """
        linear, shift = pair.to_pixels[:2, :2], pair.to_pixels[:2, 2]
        middle = linear @ self.centres[row] + shift
        reach = np.abs(linear).sum(axis=1) * (self.side(row) / 2)
        window: list[tuple[int, int]] = []
        sizes = pair.picture.image.level(0).shape[-2:]
        for axis, size in ((1, sizes[0]), (0, sizes[1])):
            low, high = float(middle[axis] - reach[axis]), float(middle[axis] + reach[axis])
            start = max(math.ceil(low - 0.5 - _SNAP), 0)
            stop = min(math.floor(high - 0.5 + _SNAP) + 1, size)
            if start >= stop:
                msg = (
                    f"tile {row}, of instance {self.instance(row)!r} of {pair.region!r}, lies outside "
                    f"image {pair.picture.name!r}: {low:g} to {high:g} of {size} pixels along "
                    f"{'xy'[axis]}"
                )
                raise InvalidInputError(msg)
            window.append((start, stop))
        return window


def plan_tiles(
    regions: Sequence[Region],
    pairs: Sequence[Pair],
    *,
    tile_scale: float,
    tile_dim_in_units: float | None,
) -> TilePlan:
    """Place a tile around every instance.

    Parameters
    ----------
    regions, pairs
        The regions and what they are read from, in the same order.
    tile_scale
        Side in diameters of the circle that has the instance's area in the coordinate system.
    tile_dim_in_units
        Side in units of the coordinate system, instead.

    Raises
    ------
    InvalidInputError
        If a size is not positive, or none is given for points.
    """
    given = tile_scale if tile_dim_in_units is None else tile_dim_in_units
    what = "tile_scale" if tile_dim_in_units is None else "tile_dim_in_units"
    number = isinstance(given, int | float | np.number) and not isinstance(given, bool)  # pyright: ignore[reportUnnecessaryIsInstance] - whatever the caller gave
    if not (number and 0 < given < math.inf):
        msg = f"{what} must be a positive number, got {given!r}"
        raise InvalidInputError(msg)
    centres: list[NDArray[np.float64]] = []
    sides: list[NDArray[np.float64]] = []
    for region, pair in zip(regions, pairs, strict=True):
        own = region.instances
        matrix = flat_matrix(
            region.to_systems[pair.system], f"the transform of {pair.region!r} to {pair.system!r}"
        )
        centres.append(own.centres @ matrix[:2, :2].T + matrix[:2, 2])
        if tile_dim_in_units is None:
            if own.radii is None:
                msg = f"the instances of {pair.region!r} have no size in the plane: give tile_dim_in_units"
                raise InvalidInputError(msg)
            # Areas grow by the determinant, so diameters by its root, whatever the directions.
            growth = math.sqrt(abs(float(np.linalg.det(matrix[:2, :2]))))
            sides.append(own.radii * (2 * float(tile_scale) * growth))
    # As small as it can be: it travels to every worker.
    kind = np.min_scalar_type(len(regions))
    numbers = [np.full(len(r.instances.ids), i, kind) for i, r in enumerate(regions)]
    extent = np.concatenate(sides) if sides else np.asarray(float(given))
    return TilePlan(
        np.concatenate(numbers),
        _joined([r.instances.ids for r in regions]),
        np.concatenate(centres),
        extent,
    )


def raster_size(options: Mapping[str, Any], extent: float) -> int:
    """Return how many pixels wide and high a rasterized tile is.

    Parameters
    ----------
    options
        Exactly one of `target_unit_to_pixels`, `target_width` and `target_height`, as for
        `spatialdata.rasterize`.
    extent
        Side of the tile in units.

    Raises
    ------
    InvalidInputError
        If it is another option, or no positive number.
    """
    given = {key: value for key, value in options.items() if value is not None}
    unknown = sorted(set(given) - set(_SIZES[:3]))
    if unknown or len(given) != 1:
        msg = (
            f"rasterize=True needs rasterize_kwargs with exactly one of {', '.join(_SIZES[:3])}, got "
            f"{dict(options)}"
        )
        raise InvalidInputError(msg)
    ((key, value),) = given.items()
    pixels = float(value) * extent if key == "target_unit_to_pixels" else float(value)
    if not 1 <= round(pixels) <= 1 << 20:
        msg = f"{key}={value!r} makes tiles of {pixels:g} pixels a side"
        raise InvalidInputError(msg)
    # To even, as numpy does, and with it the peer.
    return int(np.round(pixels))


def fixed_size(
    tile_size: int | tuple[int, int] | None,
    pixel_size: float | None,
    raster: Mapping[str, Any] | None,
    plan: TilePlan,
) -> tuple[int, int]:
    """Return the size of every tile in pixels."""
    positive = isinstance(pixel_size, int | float | np.number) and 0 < pixel_size < math.inf
    if pixel_size is not None and (isinstance(pixel_size, bool) or not positive):
        msg = f"pixel_size is a positive number of units of the system, got {pixel_size!r}"
        raise InvalidInputError(msg)
    if pixel_size is not None and raster is not None:
        msg = (
            f"pixel_size={pixel_size!r} chooses the level of tiles that are not rasterized; "
            "rasterized ones have the pixels that tile_size divides them into"
        )
        raise InvalidInputError(msg)
    if tile_size is None and raster and not plan.extent.ndim:
        side = raster_size(raster, plan.side(0))
        return side, side
    if tile_size is None:
        msg = "output='region' has tiles of one size in pixels: give tile_size"
        raise InvalidInputError(msg)
    sizes: tuple[Any, ...] = tile_size if isinstance(tile_size, tuple) else (tile_size, tile_size)
    if len(sizes) != 2 or any(
        isinstance(s, bool) or not isinstance(s, int | np.integer) or s < 1 for s in sizes
    ):
        msg = f"tile_size is one or two positive integers (y, x), got {tile_size!r}"
        raise InvalidInputError(msg)
    return int(sizes[0]), int(sizes[1])


def _joined(ids: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Join identifiers of several regions, each of which stays what it is."""
    if len({i.dtype.kind for i in ids}) > 1:
        return np.concatenate([i.astype(object) for i in ids])
    joined = np.concatenate(list(ids))
    if joined.dtype.kind in "iu":  # small, since it travels to every worker
        return joined.astype(
            np.result_type(np.min_scalar_type(joined.min()), np.min_scalar_type(joined.max()))
        )
    return joined
