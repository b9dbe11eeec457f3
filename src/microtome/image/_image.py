"""`MultiscaleImage`: the levels of one picture and the transforms between pixels and space."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from microtome.coordinates import (
    Mpp,
)
from microtome.errors import (
    InvalidInputError,
    ModeError,
    NoResolutionError,
    NotFoundError,
)
from microtome.progress import Progress, silent
from microtome.storage import Place, StorageOptions, place_of, read_group

from ._level import Level
from ._ngff import Kind, read_metadata
from ._reading import ReadableImage

if TYPE_CHECKING:
    from ._writer import ImageWriter

__all__ = ["MultiscaleImage"]


class MultiscaleImage(ReadableImage):
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
    def open(
        cls,
        uri: str | os.PathLike[str] | Place,
        mode: Literal["r"] = "r",
        *,
        context: StorageOptions | None = None,
    ) -> MultiscaleImage:
        """Open an OME-Zarr image for reading; nothing is ever written.

        Parameters
        ----------
        uri
            Where the image is, OME-Zarr 0.4, 0.5 or 0.6: a directory, a zip file (``.ozx``), or
            an address ``s3://``, ``http://``, ``https://`` or ``memory://``.
        mode
            ``"r"``. Images are written once, by `create`, and not changed afterwards.
        context
            How remote stores are reached.

        Raises
        ------
        NotFoundError
            If there is no Zarr group.
        StorageError
            If the store cannot be reached.
        FormatError
            If it is not an image that can be read.
        NoResolutionError
            If it states a pixel size that cannot be.
        """
        from ._open import read_image

        if mode != "r":
            msg = f"mode must be 'r', got {mode!r}; use create to write a new image"
            raise InvalidInputError(msg)
        place = place_of(uri, context)
        found = read_image(place)
        return cls(
            found.levels,
            uri=str(place),
            channel_names=found.channel_names,
            mpp=found.mpp,
            kind=found.kind,
            name=found.name,
            metadata=found.metadata,
        )

    @classmethod
    def exists(
        cls, uri: str | os.PathLike[str] | Place, *, context: StorageOptions | None = None
    ) -> bool:
        """Whether there is an OME-Zarr image at `uri`; parameters as for `open`."""
        try:
            read_metadata(read_group(place_of(uri, context)), where=str(uri))
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

    def __repr__(self) -> str:
        shape = self._levels[0].shape
        return f"MultiscaleImage({self._uri!r}, {shape} {self.dtype}, {self.level_count} levels)"
