"""Opening an OME-Zarr directory: its metadata and its arrays, held against each other."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from microtome.coordinates import MPP_SOURCES, Mpp, MppSource
from microtome.errors import FormatError, ModeError, NoResolutionError
from microtome.storage import ImageStore, Place, StorageOptions, open_store

from ._attributes import OURS, level_keys
from ._level import Level
from ._ngff import ImageMetadata, Kind, read_metadata

__all__ = ["StoredImage", "read_image", "stated_image"]


@dataclass(frozen=True, slots=True)
class StoredImage:
    """What an image on disk is: the arguments of a `MultiscaleImage`."""

    levels: tuple[Level, ...]
    channel_names: tuple[str, ...] | None
    mpp: Mpp | None
    kind: Kind
    name: str
    metadata: Mapping[str, Any]
    store: ImageStore


def stated_image(
    uri: str | os.PathLike[str] | Place,
    *,
    writable: bool = False,
    at: str | int | datetime | None = None,
    context: StorageOptions | None = None,
) -> tuple[ImageStore, ImageMetadata]:
    """Return where an image lies, and what its metadata say; parameters as for `read_image`."""
    store = open_store(uri, writable=writable, at=at, context=context)
    return store, read_metadata(store.attributes(), where=store.uri)


def read_image(
    uri: str | os.PathLike[str] | Place,
    *,
    writable: bool = False,
    at: str | int | datetime | None = None,
    context: StorageOptions | None = None,
) -> StoredImage:
    """Read what an OME-Zarr image says about itself; no pixels, and nothing is written.

    Parameters
    ----------
    uri
        Directory of the image, its address, or its place in a store.
    writable
        Whether it will be changed.
    at
        For a store with a history: the snapshot, tag or time to read it at.
    context
        How stores are reached.

    Raises
    ------
    NotFoundError
        If there is no Zarr group, or an array of it is not there.
    FormatError
        If it is no image that can be read, or its arrays do not fit each other or its metadata.
    ModeError
        If it cannot be changed, and is to be.
    NoResolutionError
        If it states a pixel size that cannot be.
    """
    store, found = stated_image(uri, writable=writable, at=at, context=context)
    if writable:
        _verify_changeable(found, store.uri)
    ours = found.attributes.get(OURS)
    keys = level_keys(dict(found.attributes), len(found.datasets))
    levels = tuple(
        Level(
            key,
            entry.path,
            store.open_array(entry.path),
            found.axes,
            entry.scale,
            entry.translation,
        )
        for key, entry in zip(keys, found.datasets, strict=True)
    )
    for level in levels:
        _verify(level, levels[0], store.uri)
    return StoredImage(
        levels=levels,
        channel_names=_channel_names(found, levels[0], store.uri),
        mpp=_mpp(found, levels[0], ours if isinstance(ours, dict) else {}, store.uri),
        kind=found.kind,
        name=found.name
        if isinstance(found.name, str)
        else store.uri.rstrip("/").rsplit("/", 1)[-1].split(".")[0],
        metadata=found.attributes,
        store=store,
    )


def _verify_changeable(found: ImageMetadata, where: str) -> None:
    # What is changed is written as 0.5; half of an image in another version would be of neither.
    ome = found.attributes.get("ome")
    version = str(cast("dict[str, Any]", ome).get("version")) if isinstance(ome, dict) else "0.4"
    if version.split("-")[0] not in {"0.5", "0.5.0", "0.5.1", "0.5.2"}:
        msg = f"{where} is OME-Zarr {version}; only 0.5 is changed, others are read: copy it"
        raise ModeError(msg)


def _verify(level: Level, base: Level, path: str) -> None:
    if len(level.shape) != len(level.axes):
        msg = f"{path}: level {level.path!r} has shape {level.shape} but axes {level.axes!r}"
        raise FormatError(msg)
    # Only y and x (and z) may be coarser: channels and time are what the finest level has.
    kept = [place for place, axis in enumerate(level.axes) if axis in "tc"]
    if level.dtype != base.dtype or any(level.shape[i] != base.shape[i] for i in kept):
        msg = (
            f"{path}: level {level.path!r} holds {level.shape} {level.dtype}, but level "
            f"{base.path!r} {base.shape} {base.dtype}: not levels of one image"
        )
        raise FormatError(msg)


def _channel_names(found: ImageMetadata, base: Level, path: str) -> tuple[str, ...] | None:
    if "c" not in found.axes:
        return None
    count = base.shape[found.axes.index("c")]
    if found.channel_names is None:
        return tuple(f"channel {i}" for i in range(count))
    if len(found.channel_names) != count:
        msg = f"{path} names {len(found.channel_names)} channels {found.channel_names}, but holds {count}"
        raise FormatError(msg)
    return found.channel_names


def _mpp(found: ImageMetadata, base: Level, ours: Mapping[str, Any], path: str) -> Mpp | None:
    if not found.has_unit:
        return None
    stated = ours.get("mpp_source")
    source: MppSource = stated if stated in MPP_SOURCES else "metadata"
    try:
        return Mpp(base.scale[-2], base.scale[-1], source)
    except NoResolutionError as error:
        msg = f"{path}: {error}"
        raise NoResolutionError(msg) from error
