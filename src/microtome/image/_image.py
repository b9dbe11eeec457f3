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
from microtome.storage import open_array, read_group

from ._level import Level
from ._levels import LevelStack
from ._ngff import Kind, read_metadata
from ._resample import Interpolation, grid_size, resample, taps
from ._spatial import Channels, SpatialRead, channel_indices, read_spatial_region

if TYPE_CHECKING:
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
        """
        if mode != "r":
            msg = f"mode must be 'r', got {mode!r}; use create to write a new image"
            raise InvalidInputError(msg)
        path = Path(uri)
        found = read_metadata(read_group(path), where=str(path))
        ours = found.attributes.get("microtome", {})
        keys = ours.get("level_keys", [f"level{i}" for i in range(len(found.datasets))])
        levels: list[Level] = []
        for key, entry in zip(keys, found.datasets, strict=True):
            array = open_array(path / entry.path)
            if len(array.shape) != len(found.axes):
                msg = (
                    f"{path}: level {entry.path!r} has shape {array.shape} but axes {found.axes!r}"
                )
                raise InvalidInputError(msg)
            levels.append(Level(key, entry.path, array, found.axes, entry.scale, entry.translation))
        mpp = None
        if found.has_unit:
            source = ours.get("mpp_source", "metadata")
            mpp = Mpp(levels[0].scale[-2], levels[0].scale[-1], source)
        names = found.channel_names if "c" in found.axes else None
        if "c" in found.axes and names is None:
            names = tuple(f"channel {i}" for i in range(levels[0].shape[found.axes.index("c")]))
        return cls(
            levels,
            uri=str(path),
            channel_names=names,
            mpp=mpp,
            kind=found.kind,
            name=found.name or path.name.split(".")[0],
            metadata=found.attributes,
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
        """Release the image; one that was open for writing appears at its place."""
        if not self._closed and self._writer is not None:
            self._writer.publish(self)
        self._closed = True

    def discard(self) -> None:
        """Close an image that was open for writing and remove what was written."""
        if not self._closed and self._writer is not None:
            self._writer.draft.discard()
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
        """
        chosen = self.level(level)
        box = [(0, size) for size in chosen.shape]
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
        return np.take(chosen.array.read(tuple(box)), [i - low for i in picked], axis=axis)

    def read_spatial_region(
        self,
        level: int | str,
        region: Sequence[float] | None = None,
        *,
        channel_coords: Channels | None = None,
        region_transform: CoordinateTransform | None = None,
        region_coord_space: CoordinateSpace | None = None,
    ) -> SpatialRead:
        """Read a box of one level.

        Parameters
        ----------
        level
            Index or key of the level.
        region
            Half-open box (x0, y0, x1, y1) in pixels of the reference level, or in the space that
            `region_transform` starts from; None for the whole level. Every pixel that the box
            touches is read, clipped to the image. (In tiledbsoma both ends are inclusive, so
            that neighbouring boxes overlap; here they do not.)
        channel_coords
            Channels by number, name, list or slice; None for all.
        region_transform
            From the region's space to pixels of the reference level.
        region_coord_space
            The region's space, where `region_transform` is given.

        Raises
        ------
        InvalidInputError
            If the region is empty, not finite or outside the image.
        """
        return read_spatial_region(
            self,
            level,
            region,
            channel_coords=channel_coords,
            region_transform=region_transform,
            region_coord_space=region_coord_space,
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
        """
        wanted = Mpp.from_user(mpp)
        height, width = self.grid_at(wanted)
        if region is None:
            y, x = (0, height), (0, width)
        else:
            x0, y0, x1, y1 = (float(value) for value in region)
            y = (int(np.floor(y0 / wanted.y + 1e-6)), int(np.ceil(y1 / wanted.y - 1e-6)))
            x = (int(np.floor(x0 / wanted.x + 1e-6)), int(np.ceil(x1 / wanted.x - 1e-6)))
            y, x = (max(y[0], 0), min(y[1], height)), (max(x[0], 0), min(x[1], width))
            if y[0] >= y[1] or x[0] >= x[1]:
                msg = f"{self._uri}: region {tuple(region)} um does not overlap the image"
                raise InvalidInputError(msg)
        return self.read_grid(wanted, y, x, channels=channels, interpolation=interpolation)

    def grid_at(self, mpp: Mpp) -> tuple[int, int]:
        """Return the (height, width) of the whole image at a pixel size."""
        own, base = self.require_mpp(), self._levels[0]
        return grid_size(base.height, mpp.y / own.y), grid_size(base.width, mpp.x / own.x)

    def best_level(self, mpp: Mpp) -> int:
        """Return the coarsest level that is not coarser than `mpp`; 0 where none is fine enough."""
        own, best = self.require_mpp(), 0
        for index in range(1, len(self._levels)):
            fx, fy = self._factors(index)
            if own.y * fy <= mpp.y * (1 + 1e-9) and own.x * fx <= mpp.x * (1 + 1e-9):
                best = index
        return best

    def read_grid(
        self,
        mpp: Mpp,
        y: tuple[int, int],
        x: tuple[int, int],
        *,
        channels: Channels | None = None,
        interpolation: Interpolation = "auto",
    ) -> NDArray[Any]:
        """Read pixels `y` x `x` of the grid that has the pixel size `mpp`; see `read_at`."""
        level = self.best_level(mpp)
        own, chosen = self.level_mpp(level), self._levels[level]
        ratio = mpp.y / own.y, mpp.x / own.x
        if abs(ratio[0] - 1) < 1e-9 and abs(ratio[1] - 1) < 1e-9:
            return self.read(level, y, x, channels=channels)
        if interpolation == "auto":
            down = ratio[0] >= 1 and ratio[1] >= 1
            interpolation = "nearest" if self._kind == "labels" else "area" if down else "linear"
        rows = taps(chosen.height, ratio[0], *y, interpolation)
        columns = taps(chosen.width, ratio[1], *x, interpolation)
        pixels = self.read(
            level, (rows.start, rows.stop), (columns.start, columns.stop), channels=channels
        )
        return resample(pixels, rows, columns)

    def __repr__(self) -> str:
        return f"MultiscaleImage({self._uri!r}, {self._levels[0].shape} {self.dtype}, {self.level_count} levels)"
