"""Which format a path holds, decided by what is in it and not by its name."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from microtome.coordinates import Mpp
from microtome.errors import (
    FormatError,
    InvalidInputError,
    MicrotomeError,
    NotFoundError,
    StorageError,
)
from microtome.image import MultiscaleImage
from microtome.storage import Place, StorageOptions, is_versioned, place_of

from ._array import image_from_array
from ._lazy import is_from
from ._xarray import is_xarray, open_xarray
from ._zarr import open_zarr, open_zarr_group

__all__ = ["SourceFormat", "open_image", "register_source", "source_formats"]

_HEAD = 16


@dataclass(frozen=True, slots=True)
class SourceFormat:
    """A file format that images can be read from in place.

    Parameters
    ----------
    name
        Short name for people.
    matches
        Whether a path holds the format, given the path and its first 16 bytes (empty for a
        directory).
    opener
        ``"module:function"``, imported when first needed so that a format's reader costs nothing
        until then. The function takes the path and `mpp`, None or an `Mpp` that overrides what
        the file says.
    suffixes
        Usual ends of its names: used in messages only.
    """

    name: str
    matches: Callable[[Path, bytes], bool]
    opener: str
    suffixes: tuple[str, ...]

    def open(self, path: Path, mpp: Mpp | None) -> MultiscaleImage:
        """Open a path as this format."""
        module, _, function = self.opener.partition(":")
        return getattr(importlib.import_module(module), function)(path, mpp=mpp)


def _is_zarr(path: Path, head: bytes) -> bool:
    roots = ("zarr.json", ".zgroup", ".zattrs")
    return not head and (any((path / name).is_file() for name in roots) or is_versioned(path))


_TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_OME_ZARR = SourceFormat("OME-Zarr", _is_zarr, "microtome.sources._zarr:open_zarr", (".zarr",))

_FORMATS: list[SourceFormat] = [
    _OME_ZARR,
    SourceFormat(
        "TIFF",
        lambda _, head: head[:4] in _TIFF_HEADS,
        "microtome.sources._tiff:open_tiff",
        (".tif", ".tiff", ".svs", ".qptiff", ".btf", ".ome.tif"),
    ),
    SourceFormat(
        "PNG or JPEG",
        lambda _, head: head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")),
        "microtome.sources._raster:open_raster",
        (".png", ".jpg", ".jpeg"),
    ),
]


def register_source(source: SourceFormat) -> None:
    """Add a format; it is asked before those that are there.

    Parameters
    ----------
    source
        The format.
    """
    _FORMATS.insert(0, source)


def source_formats() -> tuple[SourceFormat, ...]:
    """Return the formats, in the order in which they are asked."""
    return tuple(_FORMATS)


def open_image(
    source: Any,
    *,
    mpp: float | tuple[float, float] | Mpp | None = None,
    axes: str | None = None,
    channel_names: Sequence[str] | None = None,
    storage_options: StorageOptions | None = None,
) -> MultiscaleImage:
    """Open anything as a read-only multiscale image; pixels are read when asked for.

    Parameters
    ----------
    source
        A path (OME-Zarr, also zipped as ``.ozx``, TIFF and its relatives SVS, OME-TIFF and
        QPTIFF, PNG, JPEG), the address of an OME-Zarr image (``s3://``, ``http(s)://``), an
        array of numpy, torch, dask, xarray or zarr-python, an image or labels of SpatialData, an
        OME-Zarr group of zarr-python, or a `MultiscaleImage`, which is returned as it is.
    mpp
        Micrometres per pixel, one number or (y, x), instead of what the source states.
    axes
        Names of an array's axes, for example ``"yxc"``; not needed for a plain (Y, X) array, or
        one that names its axes itself.
    channel_names
        Names of the channels, instead of what a file states.
    storage_options
        How remote stores are reached, and what is kept of OME-Zarr images in memory.

    Raises
    ------
    NotFoundError
        If the path is not there.
    FormatError
        If it is damaged, or no format that can be read.
    InvalidInputError
        If an array's axes are missing or do not fit it.
    """
    given = Mpp.from_user(mpp) if mpp is not None else None
    if isinstance(source, MultiscaleImage):
        if given is not None or axes is not None or channel_names is not None:
            msg = "an open image keeps its own mpp, axes and channel names; open its source with others"
            raise InvalidInputError(msg)
        return source
    if not isinstance(source, str | os.PathLike):
        return _open_object(source, axes, given, channel_names)
    if axes is not None:
        msg = f"{source}: axes are read from a file, they are given for arrays only"
        raise InvalidInputError(msg)
    place = place_of(source, storage_options)
    image = (
        open_zarr(place, mpp=given, context=storage_options)
        if isinstance(place, Place)
        else _open_path(place, given, storage_options)
    )
    return image if channel_names is None else _renamed(image, channel_names)


def _open_object(
    source: Any, axes: str | None, mpp: Mpp | None, names: Sequence[str] | None
) -> MultiscaleImage:
    """Open what another library has in its hands."""
    if is_xarray(source):
        return open_xarray(source, axes=axes, mpp=mpp, channel_names=names)
    if is_from(source, "zarr", "Group"):
        if axes is not None:
            msg = "an OME-Zarr group names its axes itself; axes are given for arrays only"
            raise InvalidInputError(msg)
        image = open_zarr_group(source, mpp=mpp)
        return image if names is None else _renamed(image, names)
    if is_from(source, "spatialdata", "SpatialData"):
        msg = "a SpatialData object holds many elements; open one of them: sdata['name']"
        raise InvalidInputError(msg)
    return image_from_array(source, axes=axes, mpp=mpp, channel_names=names)


def _open_path(path: Path, mpp: Mpp | None, options: StorageOptions | None) -> MultiscaleImage:
    head = _head(path)
    for candidate in _FORMATS:
        if candidate.matches(path, head):
            if candidate is _OME_ZARR:  # the one format that the options are for
                return open_zarr(path, mpp=mpp, context=options)
            return candidate.open(path, mpp)
    raise FormatError(_unknown(path, head))


def _renamed(image: MultiscaleImage, names: Sequence[str]) -> MultiscaleImage:
    return MultiscaleImage(
        [image.level(i) for i in range(image.level_count)],
        uri=image.uri,
        channel_names=names if image.has_channel_axis else None,
        mpp=image.mpp,
        kind=image.kind,
        name=image.name,
        metadata=image.metadata,
    )


def _head(path: Path) -> bytes:
    try:
        if path.is_dir():
            return b""
        if path.exists() and not path.is_file():
            # A pipe would be waited on for ever.
            msg = f"{path} is neither a file nor a directory"
            raise FormatError(msg)
        with path.open("rb") as file:
            return file.read(_HEAD) or b"\0"
    except MicrotomeError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        msg = f"{path} does not exist"
        raise NotFoundError(msg) from error
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise StorageError(msg) from error
    except ValueError as error:
        msg = f"{str(path)!r} is no path: {error}"
        raise InvalidInputError(msg) from error


def _unknown(path: Path, head: bytes) -> str:
    known = ", ".join(f"{f.name} ({' '.join(f.suffixes)})" for f in _FORMATS)
    if path.is_dir():
        return f"{path} is a directory but no OME-Zarr image; formats that can be read: {known}"
    named = [f.name for f in _FORMATS if path.name.lower().endswith(f.suffixes)]
    start = f"it starts with {head[:8]!r}" if head != b"\0" else "it is empty"
    if named:
        return f"{path} is named like {named[0]} but is none: {start}. Is it damaged or cut short?"
    return f"{path} is no format that can be read: {start}. Formats: {known}"
