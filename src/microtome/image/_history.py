"""The history of an image: commits, names for them, and plain copies for training."""

from __future__ import annotations

import os
from abc import abstractmethod
from datetime import datetime
from pathlib import Path

from microtome.errors import InvalidInputError
from microtome.progress import Progress, silent
from microtome.storage import (
    Box,
    ImageStore,
    Snapshot,
    VersionedStore,
    WritableArray,
    begin_store,
    default_layout,
)

from ._attributes import OURS
from ._level import Level
from ._levels import LevelStack
from ._pyramid import blocks_of

__all__ = ["At", "ImageHistory"]

At = str | int | datetime
"""When: the id of a snapshot, a tag, a time with a time zone, or milliseconds since the epoch."""


class ImageHistory(LevelStack):
    """What an image created with ``versioned=True`` remembers.

    Its pixels, levels and metadata change together, at each commit; whoever opens it at a snapshot,
    a tag or a time sees the same for ever. Plain OME-Zarr directories have no history, and say so.
    """

    _store: ImageStore | None

    def history(self) -> list[Snapshot]:
        """Return the commits that led to what is open, newest first.

        Raises
        ------
        InvalidInputError
            If the image has no history.
        """
        return self._versions().history()

    def commit(self, message: str) -> str:
        """Make what was changed visible to others, all of it at once.

        Parameters
        ----------
        message
            What was done, for those who read the history.

        Returns
        -------
        The id of the snapshot.

        Raises
        ------
        InvalidInputError
            If the image has no history, nothing was changed, or the message is empty.
        ConflictError
            If another writer committed changes of the same pixels or metadata meanwhile.
        """
        versions = self._versions()
        self._finish(versions)
        return versions.commit(message)

    def tag(self, name: str) -> None:
        """Name the snapshot that is open, so that it can be opened by that name, and is kept.

        Raises
        ------
        ExistsError
            If there is a tag of that name.
        InvalidInputError
            If the image has no history, or changes that are not committed.
        """
        self._versions().tag(name)

    def tags(self) -> dict[str, str]:
        """Return `{name: id of the snapshot}`."""
        return self._versions().tags()

    def freeze(
        self,
        tag: str,
        uri: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        progress: Progress = silent,
    ) -> None:
        """Copy one snapshot into a plain OME-Zarr image, which reads fastest.

        Parameters
        ----------
        tag
            A tag or the id of a snapshot.
        uri
            Directory of the copy; it appears whole.
        overwrite
            Whether an image that is there may be replaced.
        progress
            Called with the blocks done and to do.

        Raises
        ------
        InvalidInputError
            If the image has no history.
        UnknownNameError
            If there is no such snapshot.
        ExistsError
            If there is something at `uri`.
        """
        from ._image import MultiscaleImage

        versions = self._versions()
        if os.path.realpath(uri) == os.path.realpath(versions.uri):
            msg = f"{uri} is the image itself; a copy in its place would drop its history"
            raise InvalidInputError(msg)
        with MultiscaleImage.open(versions.uri, at=tag) as image:
            origin = {"uri": versions.uri, "at": str(tag), "snapshot": image.history()[0].id}
            _copy(image, uri, origin, overwrite=overwrite, progress=progress)

    @abstractmethod
    def _finish(self, store: ImageStore) -> None:
        """State what only the finished pixels tell."""

    def _versions(self) -> VersionedStore:
        if isinstance(self._store, VersionedStore):
            return self._store
        msg = f"{self._uri} has no history; an image created with versioned=True has one"
        raise InvalidInputError(msg)


def _copy(
    image: ImageHistory,
    uri: str | os.PathLike[str],
    origin: dict[str, str],
    *,
    overwrite: bool,
    progress: Progress,
) -> None:
    """Copy an image with all levels and attributes."""
    source = image._versions()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of its own kind
    store = begin_store(Path(uri), overwrite=overwrite)
    try:
        copies: list[tuple[Level, WritableArray, Box]] = []
        for level in image.values():
            layout = default_layout(image.kind, image.axes, level.shape)
            array = store.create_array(
                level.path, shape=level.shape, dtype=level.dtype, layout=layout, axes=image.axes
            )
            copies.extend(
                (level, array, block) for block in blocks_of(level.shape, array.write_unit)
            )
        for done, (level, array, block) in enumerate(copies, 1):
            array.write(block, level.array.read(block))
            progress("freeze", done, len(copies))
        with store.changing(adding=[level.path for level in image.values()]) as attributes:
            attributes.update(source.attributes())
            attributes.setdefault(OURS, {})["frozen_from"] = origin
        store.close()
    except BaseException:
        store.discard()
        raise
