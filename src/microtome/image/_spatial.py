"""Spatial reads: a region in some space in, pixels and where they lie out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from microtome.coordinates import (
    CoordinateSpace,
    CoordinateTransform,
    IdentityTransform,
    ScaleTransform,
    TranslationTransform,
)
from microtome.errors import InvalidInputError

from ._affine import Resampling, resample_level
from ._channels import Channels, wanted_channels
from ._grid import PIXEL_AXES, plan_grid
from ._level import Level
from ._plain import SNAP, ResultOrder, SpatialRead
from ._region import Region, parse_region, pixels_inside
from ._window import Padding, checked_padding, fill_value, read_window

if TYPE_CHECKING:
    from ._reading import ReadableImage

__all__ = ["read_spatial_region"]


@dataclass(frozen=True, slots=True)
class _Frame:
    """One level, and the space that a region of it is given in.

    Parameters
    ----------
    level
        The level.
    reference
        The reference level.
    space
        The region's space.
    to_reference
        From that space to pixels of the reference level, over (x, y) or (x, y, z).
    own
        Whether that space is the image's, so that planes of the one are planes of the other.
    """

    level: Level
    reference: Level
    space: CoordinateSpace
    to_reference: CoordinateTransform
    own: bool

    @property
    def axes(self) -> tuple[str, ...]:
        """Axes of the pixels, in the order of coordinates."""
        return self.to_reference.output_axes

    @property
    def sizes(self) -> tuple[int, ...]:
        """Pixels of the level along them."""
        return tuple(self.level.shape[self.level.axes.index(axis)] for axis in self.axes)

    @property
    def extent(self) -> tuple[int, ...]:
        """Pixels of the reference level along them."""
        return tuple(self.reference.shape[self.level.axes.index(axis)] for axis in self.axes)

    @property
    def from_level(self) -> CoordinateTransform:
        """From pixels of the level to those of the reference level."""
        if self.level is self.reference:
            return IdentityTransform(self.axes, self.axes)
        # From the stated scales, not from shapes: 2967 -> 1484 rows is a factor of exactly 2.
        place = [self.level.axes.index(axis) for axis in self.axes]
        factors = [self.level.scale[i] / self.reference.scale[i] for i in place]
        return ScaleTransform(self.axes, self.axes, factors)

    @property
    def to_level(self) -> CoordinateTransform:
        """From the region's space to pixels of the level."""
        return self.from_level.inverse_transform() @ self.to_reference

    @property
    def to_space(self) -> CoordinateTransform:
        """From pixels of the level to the region's space, by the inverse that a transform states."""
        return self.to_reference.inverse_transform() @ self.from_level


def read_spatial_region(  # noqa: PLR0913 - the seed's arguments, and those that it lacks
    image: ReadableImage,
    level: int | str,
    region: object,
    *,
    channel_coords: Channels | None,
    region_transform: CoordinateTransform | None,
    region_coord_space: CoordinateSpace | None,
    result_order: ResultOrder,
    data_axis_order: Sequence[str] | None,
    pad: Padding,
    mask_geometry: bool,
    resample: Resampling | None,
    grid_shape: Sequence[int] | None,
    spacing: float | Sequence[float] | None,
    dtype: DTypeLike | None = None,
) -> SpatialRead:
    """Read a region of one level; see `MultiscaleImage.read_spatial_region`."""
    frame = _frame(image, level, region_transform, region_coord_space)
    channels = wanted_channels(image, channel_coords)
    order = _wanted_order(image, data_axis_order)
    if result_order not in ("row-major", "column-major"):
        msg = f"result_order must be 'row-major' or 'column-major', got {result_order!r}"
        raise InvalidInputError(msg)
    kind = None if dtype is None else np.dtype(dtype)
    if kind is not None and (kind.kind != "f" or resample is None):
        msg = f"dtype={dtype!r} is for resampled pixels, a floating type; resample is {resample!r}"
        raise InvalidInputError(msg)
    padding = checked_padding(pad, image.dtype if kind is None else kind)
    wanted: Region | None = None
    if region is not None or mask_geometry:
        depth = float(frame.extent[2]) if frame.own and len(frame.axes) == 3 else None
        wanted = parse_region(region, frame.space.axis_names, depth=depth, mask=mask_geometry)
    if resample is None:
        if grid_shape is not None or spacing is not None:
            msg = "grid_shape and spacing say what is resampled onto; give resample= with them"
            raise InvalidInputError(msg)
        data, transform = _read_pixels(frame, wanted, channels, padding)
    else:
        _verify_resampling(resample, image)
        box = _region_box(frame, wanted)
        grid = plan_grid(box, frame.to_level, shape=grid_shape, spacing=spacing)
        transform = grid.transform(frame.space.axis_names)
        if padding is False:
            _clipped(frame, _pixel_box(frame, box))
        data = resample_level(
            frame.level,
            frame.to_level @ transform,
            grid.shape[::-1],
            resample,
            channels=channels,
            padding=padding,
            dtype=kind,
        )
    if mask_geometry and wanted is not None and wanted.geometry is not None:
        inside = pixels_inside(
            wanted.geometry,
            transform.linear[:2, :2],
            transform.offset[:2],
            (data.shape[-2], data.shape[-1]),
        )
        data[..., ~inside] = fill_value(padding)
    data = np.ascontiguousarray(data.transpose([image.axes.index(axis) for axis in order]))
    if result_order == "column-major":
        data, order = data.T, order[::-1]
    return SpatialRead(
        data=data,
        data_coordinate_space=CoordinateSpace.from_axis_names(transform.input_axes),
        output_coordinate_space=frame.space,
        coordinate_transform=transform,
        data_axis_order=order,
    )


def _frame(
    image: ReadableImage,
    level: int | str,
    region_transform: CoordinateTransform | None,
    region_coord_space: CoordinateSpace | None,
) -> _Frame:
    axes = tuple(axis for axis in PIXEL_AXES if axis in image.axes)
    chosen, reference = image.level(level), image.level(0)
    if region_transform is None:
        if region_coord_space is not None:
            msg = "region_coord_space says what region_transform starts from; give both or neither"
            raise InvalidInputError(msg)
        space = CoordinateSpace.from_axis_names(axes)
        return _Frame(chosen, reference, space, IdentityTransform(axes, axes), own=True)
    if not isinstance(region_transform, CoordinateTransform):  # pyright: ignore[reportUnnecessaryIsInstance] - whatever the caller gave
        msg = f"region_transform is a CoordinateTransform, got {region_transform!r}"
        raise InvalidInputError(msg)
    # A plane may stand for a whole stack: then all of it is read.
    if region_transform.output_axes not in {axes, axes[:2]}:
        msg = (
            f"cannot compose {region_transform!r} with the pixels of {image.uri}: region_transform "
            f"must lead to their axes {axes}"
        )
        raise InvalidInputError(msg)
    space = region_coord_space
    if space is None:
        space = CoordinateSpace.from_axis_names(region_transform.input_axes)
    if not isinstance(space, CoordinateSpace):  # pyright: ignore[reportUnnecessaryIsInstance] - whatever the caller gave
        msg = f"region_coord_space is a CoordinateSpace, got {space!r}"
        raise InvalidInputError(msg)
    if space.axis_names != region_transform.input_axes:
        msg = (
            f"region_coord_space has axes {space.axis_names}, region_transform starts from "
            f"{region_transform.input_axes}"
        )
        raise InvalidInputError(msg)
    return _Frame(chosen, reference, space, region_transform, own=False)


def _wanted_order(image: ReadableImage, data_axis_order: Sequence[str] | None) -> tuple[str, ...]:
    order = tuple(image.axes if data_axis_order is None else data_axis_order)
    if sorted(map(str, order)) != sorted(image.axes):
        msg = f"data_axis_order must be some order of {image.data_axis_order}, got {order}"
        raise InvalidInputError(msg)
    return order


def _verify_resampling(method: str, image: ReadableImage) -> None:
    if method not in ("area", "linear", "nearest"):
        msg = f"resample must be None, 'nearest', 'linear' or 'area', got {method!r}"
        raise InvalidInputError(msg)
    if image.kind == "labels" and method != "nearest":
        msg = f"labels are never averaged: resample must be 'nearest', got {method!r}"
        raise InvalidInputError(msg)


def _read_pixels(
    frame: _Frame, wanted: Region | None, channels: Sequence[int] | None, padding: Padding
) -> tuple[NDArray[Any], CoordinateTransform]:
    """Read whole pixels of the level, none of them changed."""
    back = frame.to_space
    if wanted is None:
        box = [(0, size) for size in frame.sizes]
    else:
        box = _pixel_box(frame, wanted.box)
        if padding is False:
            box = _clipped(frame, box)
    corner: CoordinateTransform = IdentityTransform(frame.axes, frame.axes)
    if any(start for start, _ in box):
        corner = TranslationTransform(frame.axes, frame.axes, [start for start, _ in box])
    return read_window(frame.level, box[::-1], channels, padding), back @ corner


def _region_box(frame: _Frame, wanted: Region | None) -> tuple[float, ...]:
    if wanted is not None:
        return wanted.box
    whole = (*(0.0 for _ in frame.extent), *map(float, frame.extent))
    return frame.to_reference.inverse_transform().apply_box(whole)


def _pixel_box(frame: _Frame, box: Sequence[float]) -> list[tuple[int, int]]:
    """Return the pixels of the level that a box touches, an interval an axis."""
    with np.errstate(over="ignore", invalid="ignore"):
        mapped = frame.to_level.apply_box(box)
    if not all(math.isfinite(value) for value in mapped):
        msg = f"the region {tuple(box)} is too large: {mapped} in pixels of the level"
        raise InvalidInputError(msg)
    rank = len(box) // 2
    pixels: list[tuple[int, int]] = []
    for low, high in zip(mapped[:rank], mapped[rank:], strict=True):
        start = math.floor(low + SNAP)
        # A box however small lies in some pixel.
        pixels.append((start, max(math.ceil(high - SNAP), start + 1)))
    return pixels


def _clipped(frame: _Frame, box: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    clipped = [
        (max(start, 0), min(stop, size))
        for (start, stop), size in zip(box, frame.sizes, strict=True)
    ]
    if any(start >= stop for start, stop in clipped):
        msg = (
            f"the region covers {list(box)} along {frame.axes} in pixels of level "
            f"{frame.level.key!r}, and does not overlap its {frame.sizes}; give pad= to read "
            "outside an image"
        )
        raise InvalidInputError(msg)
    return clipped
