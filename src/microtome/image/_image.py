"""`MultiscaleImage`: the levels of one picture and the transforms between pixels and space."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal, Self

from microtome.coordinates import CoordinateSpace, Mpp
from microtome.errors import ConflictError, InvalidInputError, ModeError, NotFoundError
from microtome.storage import ImageStore, Layout, Place, StorageOptions

from ._editing import EditableImage
from ._history import At, ImageHistory
from ._html import image_html
from ._level import Level, ReadOnly
from ._metadata import Metadata
from ._ngff import Kind

__all__ = ["Mode", "MultiscaleImage"]

Mode = Literal["r", "w", "d"]
"""What an image is open for: reading, reading and writing, or reading and removing levels."""


class MultiscaleImage(ImageHistory, EditableImage):
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
        What else is known about it, or a function that reads it when it is asked for.
    store
        Where the image lies, for one that can be opened again.
    mode
        What it is open for.
    layout
        Chunks, shards and codec of new levels; the measured defaults where None.
    context
        How it was reached.
    new
        Whether it was created, and does not appear before it is closed.
    """

    def __init__(  # noqa: PLR0913 - what an image is, keyword-only; users call open and create
        self,
        levels: Sequence[Level],
        *,
        uri: str,
        channel_names: Sequence[str] | None,
        mpp: Mpp | None,
        kind: Kind = "intensity",
        name: str = "image",
        metadata: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
        store: ImageStore | None = None,
        mode: Mode = "r",
        layout: Layout | None = None,
        context: StorageOptions | None = None,
        new: bool = False,
    ) -> None:
        super().__init__(
            levels, uri=uri, channel_names=channel_names, mpp=mpp, kind=kind, name=name
        )
        self._store = store
        self._mode: Mode = mode
        self._layout = layout
        self._context = context
        self._closed = False
        self._new = new
        self._metadata = Metadata(
            {} if metadata is None else metadata, self.verify_open_for_writing, where=uri
        )

    # -- life cycle

    @classmethod
    def create(  # noqa: PLR0913 - the seed's arguments, and what it cannot state
        cls,
        uri: str | os.PathLike[str],
        *,
        type: Any,  # noqa: A002 - the seed's name
        level_shape: Sequence[int],
        level_key: str = "level0",
        level_uri: str | None = None,
        coordinate_space: Sequence[str] | CoordinateSpace | None = None,
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
            Directory of the OME-Zarr image, or ``memory://`` and a name.
        type
            Type of a pixel, anything `numpy.dtype` takes.
        level_shape
            Shape of the finest level in the order of the axes, channels included.
        level_key
            Name of the finest level.
        level_uri
            Path of its array inside the image; ``"0"`` by default.
        coordinate_space
            The spatial axes, ``("x", "y")`` or ``("x", "y", "z")``; by default those of
            `data_axis_order`, else ``("x", "y")``.
        data_axis_order
            Names of the array's axes, one letter each; channels, then the spatial axes from last to
            first, by default. They must follow the order of OME-NGFF: t, c, z, y, x.
        has_channel_axis
            Whether there is a channel axis.
        channel_names
            One a channel; ``"channel 0"``, ... by default.
        mpp
            Micrometres per pixel of the finest level: one number or (y, x). Without it the image
            states no pixel size, and what needs one (`read_at`, `ingest`...) refuses it.
        **options
            `kind`, `layout`, `overwrite`, `name`, `metadata`, `translation`, `z_spacing`, `rgb`,
            `versioned`, `context`: see `microtome.image.begin_image`.

        Raises
        ------
        ExistsError
            If there is an image at `uri`.
        InvalidInputError
            If shape, axes, names or type do not fit each other.
        """
        from ._writer import begin_image, order_of_axes

        return begin_image(
            uri,
            dtype=type,
            shape=level_shape,
            axes=order_of_axes(uri, coordinate_space, data_axis_order, channels=has_channel_axis),
            channel_names=channel_names,
            mpp=None if mpp is None else Mpp.from_user(mpp),
            key=level_key,
            path=level_uri,
            **options,
        )

    @classmethod
    def open(
        cls,
        uri: str | os.PathLike[str] | Place,
        mode: Mode = "r",
        *,
        at: At | None = None,
        context: StorageOptions | None = None,
    ) -> MultiscaleImage:
        """Open an OME-Zarr image; for reading by default, which never writes anything.

        Parameters
        ----------
        uri
            Where the image is, OME-Zarr 0.4, 0.5 or 0.6: a directory, a zip file (``.ozx``), or
            an address ``s3://``, ``http://``, ``https://`` or ``memory://``.
        mode
            ``"r"`` to read; ``"w"`` to read and write pixels, levels and metadata of an OME-Zarr
            0.5 directory; ``"d"`` to read and remove levels.
        at
            For an image with a history: the snapshot, tag or time to read it at.
        context
            How stores are reached, and what is kept in memory; one object serves many images.

        Raises
        ------
        NotFoundError
            If there is no Zarr group.
        StorageError
            If the store cannot be reached.
        FormatError
            If it is not an image that can be read.
        ModeError
            If it cannot be changed, and `mode` asks for that.
        NoResolutionError
            If it states a pixel size that cannot be.
        """
        image = cls.__new__(cls)
        image._load(uri, mode, at, context)  # noqa: SLF001 - its own
        return image

    @classmethod
    def exists(
        cls,
        uri: str | os.PathLike[str] | Place,
        *,
        at: At | None = None,
        context: StorageOptions | None = None,
    ) -> bool:
        """Whether there is an OME-Zarr image at `uri`; parameters as for `open`."""
        from ._open import stated_image

        try:
            stated_image(uri, at=at, context=context)
        except (NotFoundError, ValueError, KeyError):
            return False
        return True

    def reopen(self, mode: Mode = "r", *, at: At | None = None) -> Self:
        """Close the image, and open it again in place.

        Parameters
        ----------
        mode, at
            As for `open`.

        Raises
        ------
        ModeError
            If it is no image that is stored: an array, or another format read in place.
        """
        store, context = self._store, self._context
        if store is None:
            msg = f"{self._uri} is read in place; open its source again"
            raise ModeError(msg)
        _verify_mode(mode)
        self.close()
        self._load(self._uri, mode, at, context)
        return self

    def _load(
        self,
        uri: str | os.PathLike[str] | Place,
        mode: Mode,
        at: At | None,
        context: StorageOptions | None,
    ) -> None:
        from ._open import read_image

        _verify_mode(mode)
        found = read_image(uri, writable=mode != "r", at=at, context=context)
        # Who may only remove levels writes no pixels either.
        levels = [replace(v, array=ReadOnly(v.array)) for v in found.levels]
        self.__init__(
            levels if mode == "d" else found.levels,
            uri=found.store.uri,
            channel_names=found.channel_names,
            mpp=found.mpp,
            kind=found.kind,
            name=found.name,
            metadata=found.metadata,
            store=found.store,
            mode=mode,
            context=context,
        )

    def close(self) -> None:
        """Release the image; one that was created appears at its place.

        From then on it is not read, and nothing of one that was written is: `reopen` it.

        Raises
        ------
        StorageError
            If the disk refuses; of an image that was created nothing is left.
        ExistsError
            If another process made one at its place meanwhile; nothing of this one is left.
        ConflictError
            If another writer committed changes of the same pixels or metadata; the image stays
            open, with what was written.
        """
        if self._closed:
            return
        try:
            if self._store is not None and self._mode != "r":
                self._finish(self._store)
                self._store.close()
        except ConflictError:
            # What was written is there to be read still, and to be done again; `discard` drops it.
            raise
        except BaseException:
            self.discard()
            raise
        self._closed = True

    def discard(self) -> None:
        """Close the image and drop what does not appear yet: an image that was created is removed."""
        if not self._closed and self._mode != "r" and self._store is not None:
            self._store.discard()
        self._closed = True

    def _finish(self, store: ImageStore) -> None:
        """State what only the finished pixels tell."""
        if self._new and self.kind == "intensity":
            from ._writer import state_windows

            state_windows(store, self._levels[-1])

    def _verify_readable(self) -> None:
        if self._closed:
            again = "open its source again" if self._store is None else "reopen() it to read"
            msg = f"{self._uri} is closed; {again}"
            raise ModeError(msg)

    def verify_open_for_writing(self) -> ImageStore:
        """Return where the image lies.

        Raises
        ------
        ModeError
            If the image is closed or not open for writing.
        """
        return self._verify_mode("w")

    def _verify_open_for_removing(self) -> ImageStore:
        return self._verify_mode("w", "d")

    def _verify_mode(self, *modes: Mode) -> ImageStore:
        if not self._closed and self._store is not None and self._mode in modes:
            return self._store
        names = {"r": "reading", "w": "writing", "d": "removing levels"}
        state = "closed" if self._closed else f"open for {names[self._mode]}"
        msg = f"{self._uri} is {state}; open it for {names[modes[0]]} with mode={modes[0]!r}"
        raise ModeError(msg)

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
    def mode(self) -> Mode:
        """``"r"``, ``"w"`` or ``"d"``."""
        return self._mode

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def context(self) -> StorageOptions:
        """How the image is reached, and what is kept of it in memory."""
        return self._context or StorageOptions()

    @property
    def metadata(self) -> Metadata:
        """Further attributes, stored with the image; see `Metadata`."""
        return self._metadata

    def __repr__(self) -> str:
        shape = self._levels[0].shape
        return f"MultiscaleImage({self._uri!r}, {shape} {self.dtype}, {self.level_count} levels)"

    def _repr_html_(self) -> str:
        return image_html(self)


def _verify_mode(mode: object) -> None:
    if mode not in ("r", "w", "d"):
        msg = f"mode must be 'r', 'w' or 'd', got {mode!r}; use create to make a new image"
        raise InvalidInputError(msg)
