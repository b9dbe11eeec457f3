"""Spatial reads: a box in some space in, pixels and where they lie out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from microtome.coordinates import (
    AffineTransform,
    CoordinateSpace,
    CoordinateTransform,
    ScaleTransform,
)
from microtome.errors import InvalidInputError, OutOfRangeError, UnknownNameError

from ._level import as_index

if TYPE_CHECKING:
    from ._image import MultiscaleImage

__all__ = ["Channels", "SpatialRead", "channel_indices", "read_spatial_region"]

Channels = int | str | slice | Sequence[int] | Sequence[str]
"""A channel by number or name, several by a list or a slice; the channel axis always stays."""


@dataclass(frozen=True, slots=True)
class SpatialRead:
    """Pixels, and where they lie.

    Parameters
    ----------
    data
        Pixels in the order of the image's axes.
    data_coordinate_space
        Space of the data's own pixel grid.
    output_coordinate_space
        Space that the region was given in.
    coordinate_transform
        From pixel edges of `data` (x, y) to the output space: pixel `(i, j)` covers
        `[i, i + 1) x [j, j + 1)`.
    """

    data: NDArray[Any]
    data_coordinate_space: CoordinateSpace
    output_coordinate_space: CoordinateSpace
    coordinate_transform: CoordinateTransform


def channel_indices(
    channels: Channels | None, names: Sequence[str] | None, count: int
) -> list[int]:
    """Resolve channels given by number, name, list or slice.

    Parameters
    ----------
    channels
        What the caller asked for; None for all.
    names
        Names of the image's channels, or None where there is no channel axis.
    count
        Number of channels.

    Raises
    ------
    UnknownNameError
        If a name is not there, or there twice.
    OutOfRangeError
        If a number is.
    InvalidInputError
        If it is none of these; a boolean mask would read as channels 0 and 1.
    """
    if channels is None:
        return list(range(count))
    if isinstance(channels, slice):
        return list(range(*channels.indices(count)))
    wanted = [channels] if isinstance(channels, int | str | np.integer) else list(channels)
    return [_channel_index(item, names, count) for item in wanted]


def _channel_index(item: int | str, names: Sequence[str] | None, count: int) -> int:
    if isinstance(item, str):
        found = [i for i, name in enumerate(names or ()) if name == item]
        if len(found) != 1:
            msg = f"channel {item!r} is there {len(found)} times in {list(names or ())}"
            raise UnknownNameError(msg)
        return found[0]
    index = as_index(item)
    if index is None:
        msg = f"channels are given by number or name, got {item!r}"
        raise InvalidInputError(msg)
    if not -count <= index < count:
        msg = f"channel {index} is outside the {count} channels of the image"
        raise OutOfRangeError(msg)
    return index % count


def read_spatial_region(
    image: MultiscaleImage,
    level: int | str,
    region: Sequence[float] | None,
    *,
    channel_coords: Channels | None,
    region_transform: CoordinateTransform | None,
    region_coord_space: CoordinateSpace | None,
) -> SpatialRead:
    """Read a half-open box of one level; see `MultiscaleImage.read_spatial_region`."""
    chosen = image.level(level)
    to_level = image.get_transform_to_level(level)
    space = image.coordinate_space
    if region_transform is not None:
        to_level = to_level @ region_transform
        space = region_coord_space or CoordinateSpace.from_axis_names(region_transform.input_axes)
        if space.axis_names != region_transform.input_axes:
            msg = (
                f"region_coord_space has axes {space.axis_names}, region_transform starts from "
                f"{region_transform.input_axes}"
            )
            raise InvalidInputError(msg)
    elif region_coord_space is not None:
        msg = "region_coord_space says what region_transform starts from; give both or neither"
        raise InvalidInputError(msg)
    if region is None:
        x0, y0, x1, y1 = 0, 0, chosen.width, chosen.height
    else:
        x0, y0, x1, y1 = _pixel_box(
            to_level.apply_box(_checked(region)), chosen.width, chosen.height
        )
    data = image.read(level, (y0, y1), (x0, x1), channels=channel_coords)
    corner = AffineTransform(("x", "y"), ("x", "y"), [[1, 0, x0], [0, 1, y0]])
    moved: CoordinateTransform = corner
    if x0 == 0 and y0 == 0:
        moved = ScaleTransform(("x", "y"), ("x", "y"), [1, 1])
    return SpatialRead(
        data=data,
        data_coordinate_space=CoordinateSpace.from_axis_names(("x", "y")),
        output_coordinate_space=space,
        coordinate_transform=to_level.inverse_transform() @ moved,
    )


def _checked(region: Sequence[float]) -> tuple[float, ...]:
    box = tuple(float(value) for value in region)
    if len(box) != 4 or not all(math.isfinite(value) for value in box):
        msg = f"a region is four finite numbers (x0, y0, x1, y1), got {region!r}"
        raise InvalidInputError(msg)
    if box[2] <= box[0] or box[3] <= box[1]:
        msg = f"a region is half-open with x0 < x1 and y0 < y1, got {box}"
        raise InvalidInputError(msg)
    return box


def _pixel_box(box: Sequence[float], width: int, height: int) -> tuple[int, int, int, int]:
    """Return the pixels that a box touches, clipped to the level."""
    # A corner computed through two scales misses its grid line by rounding only.
    x0, y0 = (math.floor(value + 1e-9) for value in box[:2])
    x1, y1 = (math.ceil(value - 1e-9) for value in box[2:])
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    if x0 >= x1 or y0 >= y1:
        msg = f"region {tuple(box)} (in pixels of the level) does not overlap its {width} x {height} pixels"
        raise InvalidInputError(msg)
    return x0, y0, x1, y1
