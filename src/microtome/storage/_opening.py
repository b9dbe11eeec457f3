"""Which kind of store an image lies in."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from microtome.errors import InvalidInputError

from ._hierarchy import DirectoryStore, DraftStore
from ._place_store import PlaceStore
from ._remote import Place, StorageOptions, place_of
from ._store import ImageStore
from ._versions import VersionedStore, is_versioned

__all__ = ["begin_store", "open_store"]


def open_store(
    uri: str | os.PathLike[str] | Place,
    *,
    writable: bool = False,
    at: str | int | datetime | None = None,
    context: StorageOptions | None = None,
) -> ImageStore:
    """Open what an image lies in.

    Parameters
    ----------
    uri
        A path or an address, see `place_of`.
    writable
        Whether anything will be changed.
    at
        For a store with a history: the snapshot, tag or time to read it at.
    context
        How stores are reached.

    Raises
    ------
    NotFoundError
        If there is no group.
    ModeError
        If it cannot be written, and is to be.
    InvalidInputError
        If `at` is given for a store without a history.
    """
    place = place_of(uri, context)
    if isinstance(place, Path) and is_versioned(place):
        return VersionedStore.open(place, writable=writable, at=at)
    if at is not None:
        msg = (
            f"{place} has no history, so it cannot be opened at {at!r}; an image created with "
            "versioned=True has one"
        )
        raise InvalidInputError(msg)
    if isinstance(place, Place):
        return PlaceStore(place, writable=writable)
    return DirectoryStore(place, writable=writable, options=context)


def begin_store(
    uri: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    versioned: bool = False,
    context: StorageOptions | None = None,
) -> ImageStore:
    """Begin what a new image will lie in; nothing of it is there before it is closed.

    Parameters
    ----------
    uri
        A path, or an address of ``memory://``.
    overwrite
        Whether an image that is there may be replaced.
    versioned
        Whether it keeps its history, in an Icechunk repository.
    context
        How stores are reached.

    Raises
    ------
    ExistsError
        If something is at `uri` that may not be replaced.
    ModeError
        If the store cannot be written.
    """
    place = place_of(uri, context)
    if str(place).endswith((".zip", ".ozx")):
        msg = f"{place}: a zip file is read, not written; write a directory and zip it"
        raise InvalidInputError(msg)
    if isinstance(place, Place):
        if versioned:
            msg = f"{place}: a history is kept in local directories only"
            raise InvalidInputError(msg)
        return PlaceStore.begin(place, overwrite=overwrite)
    if versioned:
        return VersionedStore.create(place, overwrite=overwrite)
    return DraftStore(place, overwrite=overwrite)
