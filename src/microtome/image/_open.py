"""Opening an OME-Zarr directory: its metadata and its arrays, held against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from microtome.coordinates import MPP_SOURCES, Mpp, MppSource
from microtome.errors import FormatError, NoResolutionError
from microtome.storage import Place, open_array, read_group

from ._level import Level
from ._ngff import ImageMetadata, Kind, read_metadata

__all__ = ["StoredImage", "read_image"]


@dataclass(frozen=True, slots=True)
class StoredImage:
    """What an image on disk is: the arguments of a `MultiscaleImage`."""

    levels: tuple[Level, ...]
    channel_names: tuple[str, ...] | None
    mpp: Mpp | None
    kind: Kind
    name: str
    metadata: Mapping[str, Any]


def read_image(path: Path | Place) -> StoredImage:
    """Read what an OME-Zarr image says about itself; no pixels, and nothing is written.

    Parameters
    ----------
    path
        Directory of the image, or its place in a store.

    Raises
    ------
    NotFoundError
        If there is no Zarr group, or an array of it is not there.
    FormatError
        If it is no image that can be read, or its arrays do not fit each other or its metadata.
    NoResolutionError
        If it states a pixel size that cannot be.
    """
    found = read_metadata(read_group(path), where=str(path))
    ours = found.attributes.get("microtome")
    if not isinstance(ours, dict):
        ours = {}
    keys = _level_keys(cast("dict[str, Any]", ours), len(found.datasets))
    levels = tuple(
        Level(
            key,
            entry.path,
            open_array(path / entry.path),
            found.axes,
            entry.scale,
            entry.translation,
        )
        for key, entry in zip(keys, found.datasets, strict=True)
    )
    for level in levels:
        _verify(level, levels[0], path)
    return StoredImage(
        levels=levels,
        channel_names=_channel_names(found, levels[0], path),
        mpp=_mpp(found, levels[0], cast("dict[str, Any]", ours), path),
        kind=found.kind,
        name=found.name
        if isinstance(found.name, str)
        else str(path).rstrip("/").rsplit("/", 1)[-1].split(".")[0],
        metadata=found.attributes,
    )


def _level_keys(ours: Mapping[str, Any], count: int) -> Sequence[str]:
    keys = ours.get("level_keys")
    if isinstance(keys, list):
        names = [str(key) for key in cast("list[object]", keys)]
        if len(names) == count == len(set(names)):
            return names
    # Written by somebody else, or edited: levels have no names in OME-NGFF.
    return [f"level{i}" for i in range(count)]


def _verify(level: Level, base: Level, path: Path | Place) -> None:
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


def _channel_names(found: ImageMetadata, base: Level, path: Path | Place) -> tuple[str, ...] | None:
    if "c" not in found.axes:
        return None
    count = base.shape[found.axes.index("c")]
    if found.channel_names is None:
        return tuple(f"channel {i}" for i in range(count))
    if len(found.channel_names) != count:
        msg = f"{path} names {len(found.channel_names)} channels {found.channel_names}, but holds {count}"
        raise FormatError(msg)
    return found.channel_names


def _mpp(
    found: ImageMetadata, base: Level, ours: Mapping[str, Any], path: Path | Place
) -> Mpp | None:
    if not found.has_unit:
        return None
    stated = ours.get("mpp_source")
    source: MppSource = stated if stated in MPP_SOURCES else "metadata"
    try:
        return Mpp(base.scale[-2], base.scale[-1], source)
    except NoResolutionError as error:
        msg = f"{path}: {error}"
        raise NoResolutionError(msg) from error
