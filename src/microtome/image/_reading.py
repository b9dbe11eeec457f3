"""Reading the pixels of an image: whole ones of a level, a region of space, a pixel size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from microtome.coordinates import CoordinateSpace, CoordinateTransform, Mpp
from microtome.errors import InvalidInputError

from ._affine import Resampling
from ._channels import Channels, channel_indices, wanted_channels
from ._level import as_index, read_box
from ._levels import LevelStack
from ._plain import ResultOrder, SpatialRead, read_plain
from ._resample import Interpolation
from ._resolved import best_level, grid_at, read_at, read_grid
from ._spatial import read_spatial_region
from ._window import Padding

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

__all__ = ["ReadableImage"]


class ReadableImage(LevelStack):
    """Levels whose pixels can be read, by index, by region and by pixel size."""

    def _verify_readable(self) -> None:
        """Raise an error where pixels can no longer be read."""

    def read(
        self,
        level: int | str,
        y: tuple[int, int],
        x: tuple[int, int],
        *,
        channels: Channels | None = None,
    ) -> NDArray[Any]:
        """Read whole pixels of a level.

        Parameters
        ----------
        level
            Index or key.
        y, x
            Half-open intervals inside the level; of an empty one no pixels are returned.
        channels
            Channels by number or name; None for all. The channel axis stays.

        Returns
        -------
        Pixels in the order of the axes.

        Raises
        ------
        InvalidInputError
            If an interval is not inside the level.
        """
        self._verify_readable()
        chosen = self.level(level)
        box = [(0, size) for size in chosen.shape]
        try:
            edges = [as_index(edge) for pair in (y, x) for edge in pair]
        except TypeError:
            edges = []
        if len(edges) != 4 or len(y) != 2 or None in edges:
            msg = (
                f"{self._uri}: rows and columns are two whole numbers each, the first and one past "
                f"the last, got y={y!r} and x={x!r}; (0, {chosen.height}) and (0, {chosen.width}) "
                "are all of them"
            )
            raise InvalidInputError(msg)
        if y[0] > y[1] or x[0] > x[1]:
            msg = (
                f"{self._uri}: rows and columns are half-open, the first before the last, got "
                f"{y} and {x}"
            )
            raise InvalidInputError(msg)
        if not (0 <= y[0] <= y[1] <= chosen.height and 0 <= x[0] <= x[1] <= chosen.width):
            msg = (
                f"{self._uri}: rows {y} and columns {x} do not lie inside the {chosen.height} x "
                f"{chosen.width} pixels of level {chosen.key!r}"
            )
            raise InvalidInputError(msg)
        box[-2:] = [y, x]
        if channels is None:
            return read_box(chosen.array, tuple(box))
        picked = channel_indices(channels, self._channel_names, self.nchannels)
        if not self.has_channel_axis:
            if len(picked) != 1:
                # There is no axis along which none, or several, could be returned.
                msg = f"{self._uri} has one channel and no axis of channels, got channels={channels!r}"
                raise InvalidInputError(msg)
            return read_box(chosen.array, tuple(box))
        axis = self.axes.index("c")
        low, high = min(picked, default=0), max(picked, default=-1) + 1
        box[axis] = (low, high)
        # One slice, then a selection in memory: fancy indexing in the engine costs far more.
        within = np.asarray(picked, dtype=np.intp) - low
        return np.take(read_box(chosen.array, tuple(box)), within, axis=axis)

    def read_spatial_region(  # noqa: PLR0913 - the seed's arguments, and those that it lacks
        self,
        level: int | str,
        region: Sequence[float] | BaseGeometry | None = None,
        *,
        channel_coords: Channels | None = None,
        region_transform: CoordinateTransform | None = None,
        region_coord_space: CoordinateSpace | None = None,
        result_order: ResultOrder = "row-major",
        data_axis_order: Sequence[str] | None = None,
        pad: Padding = False,
        mask_geometry: bool = False,
        resample: Resampling | None = None,
        grid_shape: Sequence[int] | None = None,
        spacing: float | Sequence[float] | None = None,
        dtype: DTypeLike | None = None,
    ) -> SpatialRead:
        """Read a region of one level.

        Without `resample`, every pixel that the region's bounding box touches is read as it is.
        Boxes are half-open: neighbours whose common edge is an edge of the level's pixels share
        none and leave none out, and a pixel that the edge runs through is in both. (In tiledbsoma
        both ends are inclusive, so that all neighbours overlap.)

        Parameters
        ----------
        level
            Index or key of the level.
        region
            Half-open box (x0, y0, x1, y1) in pixels of the reference level, or in the space that
            `region_transform` starts from; (x0, y0, z0, x1, y1, z1) for an image with a z axis,
            where four numbers mean all of z. Or a shapely geometry with an area. None for the
            whole level.
        channel_coords
            Channels by number, name, list or slice; None for all. The channel axis stays.
        region_transform
            From the region's space to pixels of the reference level: (x, y), or (x, y, z). In an
            image with a z axis, one that leads to (x, y) reads all of z.
        region_coord_space
            The region's space, where `region_transform` is given; named after its axes otherwise.
        result_order
            ``"column-major"`` returns the axes in the opposite order.
        data_axis_order
            Names of the image's axes in the order wanted, before `result_order` turns it about.
        pad
            What stands outside the image, so that a region always has the shape that it asks for:
            a number, ``"edge"`` (the nearest pixel) or ``"reflect"`` (the mirror image, in which
            the pixel on the edge is not repeated). False
            returns the part of the region that lies in the image; a resampled grid stays whole,
            with 0 outside.
        mask_geometry
            Whether pixels whose centre lies outside the geometry become `pad`, or 0 where that is
            no number. A pixel whose centre lies on an outline is inside, on both sides of it.
        resample
            None returns pixels of the level. ``"nearest"``, ``"linear"`` and ``"area"`` resample
            them onto a regular grid along the axes of the region's space, rotated and sheared
            regions included; ``"area"`` is the mean of what a pixel covers, for grids coarser than
            the level.
        grid_shape
            Shape of that grid, rows before columns; it fills the region exactly.
        spacing
            Pixel size of that grid in the region's space: one number, or (x, y) or (x, y, z). The
            grid begins at (x0, y0) and may hang over (x1, y1). By default, that of the level.
        dtype
            A floating type for resampled pixels, which else are rounded to the level's own type
            where that is of integers: of counts below one half a mean is then 0.

        Returns
        -------
        The pixels, and the transform from their edges to the region's space.

        Raises
        ------
        InvalidInputError
            If the region is empty, not finite, reversed, or outside the image with nothing to pad
            it with; if axes do not fit each other, or a transform has no inverse; if `dtype` is no
            floating type, or nothing is resampled.
        UnknownNameError, OutOfRangeError
            If there is no such level or channel.
        """
        self._verify_readable()
        # The common case by itself, because what it takes besides the pixels is felt.
        if (
            region_transform is region_coord_space is data_axis_order is resample is None
            and grid_shape is spacing is dtype is None
            and result_order == "row-major"
            and not mask_geometry
            and (pad is False or (type(pad) is int and pad == 0))
        ):
            picked = None if channel_coords is None else wanted_channels(self, channel_coords)
            levels = self._levels
            if type(level) is int and 0 <= level < len(levels):
                chosen = levels[level]
            else:
                chosen = self.level(level)
            read = read_plain(chosen, levels[0], region, picked, clip=pad is False)
            if read is not None:
                return read
        return read_spatial_region(
            self,
            level,
            region,
            channel_coords=channel_coords,
            region_transform=region_transform,
            region_coord_space=region_coord_space,
            result_order=result_order,
            data_axis_order=data_axis_order,
            pad=pad,
            mask_geometry=mask_geometry,
            resample=resample,
            grid_shape=grid_shape,
            spacing=spacing,
            dtype=dtype,
        )

    def read_at(
        self,
        *,
        mpp: float | tuple[float, float] | Mpp,
        region: Sequence[float] | None = None,
        channels: Channels | None = None,
        interpolation: Interpolation = "auto",
        dtype: DTypeLike | None = None,
    ) -> NDArray[Any]:
        """Read at exactly a pixel size.

        Parameters
        ----------
        mpp
            Micrometres per pixel wanted: one number or (y, x).
        region
            Box (x0, y0, x1, y1) in micrometres from the image's top-left corner; None for all.
            All pixels of the wanted grid that it touches are returned; what of it lies outside the
            image is left away.
        channels
            Channels by number or name; None for all.
        interpolation
            How to resample, see `Interpolation`.
        dtype
            Type of the result; the image's by default, to which means of integers are rounded. A
            floating type keeps their fractions.

        Returns
        -------
        Pixels in the order of the axes. A box read whole equals the mosaic of its pieces.

        Raises
        ------
        NoResolutionError
            If the image does not state its pixel size.
        InvalidInputError
            If the region is empty, not finite or outside the image.
        """
        self._verify_readable()
        return read_at(
            self, mpp, region, channels=channels, interpolation=interpolation, dtype=dtype
        )

    def grid_at(self, mpp: Mpp) -> tuple[int, int]:
        """Return the (height, width) of the whole image at a pixel size."""
        return grid_at(self, mpp)

    def best_level(self, mpp: Mpp) -> int:
        """Return the coarsest level that is not coarser than `mpp`; 0 where none is fine enough.

        A level that ends a whole pixel of its own or more before the image does is passed over.
        """
        return best_level(self, mpp)

    def read_grid(
        self,
        mpp: Mpp,
        y: tuple[int, int],
        x: tuple[int, int],
        *,
        channels: Channels | None = None,
        interpolation: Interpolation = "auto",
        dtype: DTypeLike | None = None,
        level: int | None = None,
    ) -> NDArray[Any]:
        """Read pixels `y` x `x` of the grid that has the pixel size `mpp`; see `read_at`.

        Parameters
        ----------
        mpp, channels, interpolation, dtype
            As for `read_at`.
        y, x
            Half-open intervals of the grid's pixels.
        level
            Level to resample from; the best by default.

        Raises
        ------
        InvalidInputError
            If an interval is empty or outside the grid, or labels were to be averaged.
        """
        self._verify_readable()
        return read_grid(
            self,
            mpp,
            y,
            x,
            channels=channels,
            interpolation=interpolation,
            dtype=dtype,
            level=level,
        )
