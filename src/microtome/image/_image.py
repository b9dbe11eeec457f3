"""`MultiscaleImage`: the levels of one picture and the transforms between pixels and space."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from microtome.coordinates import (
    CoordinateSpace,
    CoordinateTransform,
    Mpp,
)
from microtome.errors import (
    InvalidInputError,
    ModeError,
    NoResolutionError,
    NotFoundError,
)
from microtome.progress import Progress, silent
from microtome.storage import read_group

from ._affine import Resampling
from ._level import Level
from ._levels import LevelStack
from ._ngff import Kind, read_metadata
from ._resample import Interpolation
from ._resolved import best_level, grid_at, read_at, read_grid
from ._spatial import (
    Channels,
    ResultOrder,
    SpatialRead,
    channel_indices,
    read_spatial_region,
)
from ._window import Padding

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from ._writer import ImageWriter

__all__ = ["MultiscaleImage"]


class MultiscaleImage(LevelStack):
    """The levels of one picture, finest first, and where their pixels lie.

    It is the only thing that pixels are read from, whatever they are stored in. Users get one from
    `open`, `create` or `microtome.open_image`, not from the constructor.

    Parameters
    ----------
    levels
        Finest first; the first is the reference level and stays it.
    uri
        Where the image is: a path, or ``"array"``.
    channel_names
        One a channel; None where there is no channel axis.
    mpp
        Pixel size of the reference level, None where nothing states it.
    kind
        Intensities or labels; labels are never averaged.
    name
        Name of the image.
    metadata
        What else is known about it.
    writer
        The draft that writes go to, for an image open for writing.
    """

    def __init__(
        self,
        levels: Sequence[Level],
        *,
        uri: str,
        channel_names: Sequence[str] | None,
        mpp: Mpp | None,
        kind: Kind = "intensity",
        name: str = "image",
        metadata: Mapping[str, Any] | None = None,
        writer: ImageWriter | None = None,
    ) -> None:
        super().__init__(
            levels, uri=uri, channel_names=channel_names, mpp=mpp, kind=kind, name=name
        )
        self._metadata: dict[str, Any] = dict(metadata or {})
        self._writer = writer
        self._closed = False

    # -- life cycle

    @classmethod
    def create(
        cls,
        uri: str | os.PathLike[str],
        *,
        type: Any,  # noqa: A002 - the seed's name
        level_shape: Sequence[int],
        level_key: str = "level0",
        data_axis_order: Sequence[str] | None = None,
        has_channel_axis: bool = True,
        channel_names: Sequence[str] | None = None,
        mpp: float | tuple[float, float] | Mpp | None = None,
        **options: Any,
    ) -> MultiscaleImage:
        """Begin a new image; it appears at `uri`, whole, when it is closed without an error.

        Parameters
        ----------
        uri
            Directory of the OME-Zarr image.
        type
            Type of a pixel, anything `numpy.dtype` takes.
        level_shape
            Shape of the finest level in the order of the axes, channels included.
        level_key
            Name of the finest level.
        data_axis_order
            Names of the axes, one letter each; ``("c", "y", "x")``, or ``("y", "x")`` without
            channels, by default. They must follow the order of OME-NGFF: t, c, z, y, x.
        has_channel_axis
            Whether there is a channel axis.
        channel_names
            One a channel; ``"channel 0"``, ... by default.
        mpp
            Micrometres per pixel of the finest level: one number or (y, x).
        **options
            `kind`, `layout`, `overwrite`, `name`, `metadata`, `translation`, `rgb`: see
            `microtome.image.begin_image`.

        Raises
        ------
        ExistsError
            If there is an image at `uri`.
        InvalidInputError
            If shape, axes, names or type do not fit each other.
        NoResolutionError
            If `mpp` is missing: a scale of 1 would claim a micrometre that nobody measured.
        """
        from ._writer import begin_image

        if mpp is None:
            msg = f"{uri}: an image needs its pixel size; give mpp= in micrometres per pixel"
            raise NoResolutionError(msg)
        return begin_image(
            uri,
            dtype=type,
            shape=level_shape,
            axes="".join(data_axis_order or (("c", "y", "x") if has_channel_axis else ("y", "x"))),
            channel_names=channel_names,
            mpp=Mpp.from_user(mpp),
            key=level_key,
            **options,
        )

    @classmethod
    def open(cls, uri: str | os.PathLike[str], mode: Literal["r"] = "r") -> MultiscaleImage:
        """Open an OME-Zarr image for reading; nothing is ever written.

        Parameters
        ----------
        uri
            Directory of the image, OME-Zarr 0.4, 0.5 or 0.6.
        mode
            ``"r"``. Images are written once, by `create`, and not changed afterwards.

        Raises
        ------
        NotFoundError
            If there is no Zarr group.
        FormatError
            If it is not an image that can be read.
        NoResolutionError
            If it states a pixel size that cannot be.
        """
        from ._open import read_image

        if mode != "r":
            msg = f"mode must be 'r', got {mode!r}; use create to write a new image"
            raise InvalidInputError(msg)
        found = read_image(Path(uri))
        return cls(
            found.levels,
            uri=str(Path(uri)),
            channel_names=found.channel_names,
            mpp=found.mpp,
            kind=found.kind,
            name=found.name,
            metadata=found.metadata,
        )

    @classmethod
    def exists(cls, uri: str | os.PathLike[str]) -> bool:
        """Whether there is an OME-Zarr image at `uri`."""
        try:
            read_metadata(read_group(uri), where=str(uri))
        except (NotFoundError, ValueError):
            return False
        return True

    def build_levels(self, *, progress: Progress = silent) -> None:
        """Compute the coarser levels by the pyramid rule.

        Parameters
        ----------
        progress
            Called with the blocks done and to do.

        Raises
        ------
        ModeError
            If the image is not open for writing.
        """
        self._levels[1:] = self.verify_open_for_writing().build_levels(
            self._levels[0], progress=progress
        )

    def close(self) -> None:
        """Release the image; one that was open for writing appears at its place.

        From then on the levels of one that was written are neither read nor written: open it.

        Raises
        ------
        StorageError
            If the disk refuses; nothing of the image is left.
        ExistsError
            If another process made one at its place meanwhile; nothing of this one is left.
        """
        writer = None if self._closed else self._writer
        self._closed = True
        if writer is not None:
            try:
                writer.publish(self)
            finally:
                writer.release(self._levels)

    def discard(self) -> None:
        """Close an image that was open for writing and remove what was written."""
        if not self._closed and self._writer is not None:
            self._writer.release(self._levels)
        self._closed = True

    def verify_open_for_writing(self) -> ImageWriter:
        """Return the writer.

        Raises
        ------
        ModeError
            If the image is closed or open for reading.
        """
        if self._closed or self._writer is None:
            msg = f"{self._uri} is {'closed' if self._closed else 'open for reading'}"
            raise ModeError(msg)
        return self._writer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # An exception must not publish half an image.
        if error is None:
            self.close()
        else:
            self.discard()

    @property
    def mode(self) -> str:
        """``"r"`` or ``"w"``."""
        return "r" if self._writer is None else "w"

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def metadata(self) -> dict[str, Any]:
        """Further attributes, stored with the image."""
        return self._metadata

    # -- pixels

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
            Half-open intervals inside the level.
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
        chosen = self.level(level)
        box = [(0, size) for size in chosen.shape]
        if not (0 <= y[0] <= y[1] <= chosen.height and 0 <= x[0] <= x[1] <= chosen.width):
            msg = (
                f"{self._uri}: rows {y} and columns {x} do not lie inside the {chosen.height} x "
                f"{chosen.width} pixels of level {chosen.key!r}"
            )
            raise InvalidInputError(msg)
        box[-2:] = [y, x]
        if channels is None:
            return chosen.array.read(tuple(box))
        picked = channel_indices(channels, self._channel_names, self.nchannels)
        if not self.has_channel_axis:
            return chosen.array.read(tuple(box))
        axis = self.axes.index("c")
        low, high = min(picked, default=0), max(picked, default=-1) + 1
        box[axis] = (low, high)
        # One slice, then a selection in memory: fancy indexing in the engine costs far more.
        within = np.asarray(picked, dtype=np.intp) - low
        return np.take(chosen.array.read(tuple(box)), within, axis=axis)

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
            a number, ``"edge"`` (the nearest pixel) or ``"reflect"`` (the mirror image). False
            returns the part of the region that lies in the image; a resampled grid stays whole,
            with 0 outside.
        mask_geometry
            Whether pixels whose centre lies outside the geometry become `pad`, or 0 where that is
            no number.
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

        Returns
        -------
        The pixels, and the transform from their edges to the region's space.

        Raises
        ------
        InvalidInputError
            If the region is empty, not finite, reversed, or outside the image with nothing to pad
            it with; if axes do not fit each other, or a transform has no inverse.
        UnknownNameError, OutOfRangeError
            If there is no such level or channel.
        """
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
        )

    def read_at(
        self,
        *,
        mpp: float | tuple[float, float] | Mpp,
        region: Sequence[float] | None = None,
        channels: Channels | None = None,
        interpolation: Interpolation = "auto",
    ) -> NDArray[Any]:
        """Read at exactly a pixel size.

        Parameters
        ----------
        mpp
            Micrometres per pixel wanted: one number or (y, x).
        region
            Box (x0, y0, x1, y1) in micrometres from the image's top-left corner; None for all.
            All pixels of the wanted grid that it touches are returned.
        channels
            Channels by number or name; None for all.
        interpolation
            How to resample, see `Interpolation`.

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
        return read_at(self, mpp, region, channels=channels, interpolation=interpolation)

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
    ) -> NDArray[Any]:
        """Read pixels `y` x `x` of the grid that has the pixel size `mpp`; see `read_at`.

        Raises
        ------
        InvalidInputError
            If an interval is empty or outside the grid, or labels were to be averaged.
        """
        return read_grid(self, mpp, y, x, channels=channels, interpolation=interpolation)

    def __repr__(self) -> str:
        shape = self._levels[0].shape
        return f"MultiscaleImage({self._uri!r}, {shape} {self.dtype}, {self.level_count} levels)"
