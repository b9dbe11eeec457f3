"""Which format a path holds, decided by what is in it and not by its name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from microtome.coordinates import Mpp
from microtome.errors import (
    FormatError,
    InvalidInputError,
    MicrotomeError,
    NotFoundError,
    StorageError,
    UnknownNameError,
)
from microtome.image import Kind, MultiscaleImage
from microtome.storage import Place, StorageOptions, place_of

from ._array import image_from_array
from ._format import SourceFormat
from ._formats import FORMATS, OME_ZARR
from ._lazy import is_from
from ._plugins import plugged_in
from ._restated import restated
from ._xarray import is_xarray, open_xarray
from ._zarr import open_zarr, open_zarr_group

__all__ = ["image_names", "open_image", "register_source", "source_formats"]

_HEAD = 16

_FORMATS: list[SourceFormat] = [*FORMATS]


def register_source(source: SourceFormat) -> None:
    """Add a format; it is asked before those that are there.

    Parameters
    ----------
    source
        The format.
    """
    _FORMATS.insert(0, source)


def source_formats() -> tuple[SourceFormat, ...]:
    """Return the formats, in the order in which they are asked; those of plug-ins come last."""
    return (*_FORMATS, *plugged_in())


def image_names(
    source: str | os.PathLike[str],
    *,
    format: str | None = None,  # noqa: A002 - the word for it
) -> tuple[str, ...]:
    """Return the names of the images that a file or directory holds, for `image=` of `open_image`.

    Parameters
    ----------
    source
        A path.
    format
        Name of its format, as for `open_image`.

    Raises
    ------
    NotFoundError
        If the path is not there.
    FormatError
        If it is damaged, or no format that can be read.
    """
    place = place_of(source, None)
    if isinstance(place, Place):
        msg = f"{source}: images are listed of local paths only; open one by its address"
        raise InvalidInputError(msg)
    return _format_of(place, format).image_names(place)


def open_image(
    source: Any,
    *,
    mpp: float | tuple[float, float] | Mpp | None = None,
    axes: str | None = None,
    channel_names: Sequence[str] | None = None,
    storage_options: StorageOptions | None = None,
    image: str | int | None = None,
    kind: Kind | None = None,
    format: str | None = None,  # noqa: A002 - the word for it
) -> MultiscaleImage:
    """Open anything as a read-only multiscale image; pixels are read when asked for.

    Parameters
    ----------
    source
        A path (of any of `source_formats`), the address of an OME-Zarr image (``s3://``,
        ``http(s)://``), an array of numpy, torch, dask, xarray or zarr-python, an image or labels
        of SpatialData, an OME-Zarr group of zarr-python, or a `MultiscaleImage`, which is returned
        as it is.
    mpp
        Micrometres per pixel, one number or (y, x), instead of what the source states.
    axes
        Names of the axes of an array or of a `.npy` file, for example ``"yxc"``; not needed for a
        plain (Y, X) array, or one that names its axes itself.
    channel_names
        Names of the channels, instead of what a file states.
    storage_options
        How remote stores are reached, and what is kept of OME-Zarr images in memory.
    image
        Which of the images in a file or directory, by name or number: see `image_names`. Needed
        where there are several and none is the main one.
    kind
        ``"labels"`` where pixels are the numbers of objects, which most files cannot say of
        themselves; ``"intensity"`` where they are not. By default what the source states.
    format
        Name of the format to read a path as, of those in `source_formats`; by default the first
        that knows it.

    Raises
    ------
    NotFoundError
        If the path is not there.
    FormatError
        If it is damaged, or no format that can be read.
    UnknownNameError
        If there is no such image in it, or no such format.
    InvalidInputError
        If an array's axes are missing or do not fit it, if there are several images and none is
        named, or if labels are no whole numbers.
    DependencyError
        If the format needs a package that is not installed.
    """
    given = Mpp.from_user(mpp) if mpp is not None else None
    if isinstance(source, MultiscaleImage):
        if any(option is not None for option in (given, axes, channel_names, image, kind, format)):
            msg = "an open image keeps its own mpp, axes, channel names and kind; open its source with others"
            raise InvalidInputError(msg)
        return source
    if isinstance(source, str | os.PathLike):
        opened = _open_path(source, given, axes, image, format, storage_options)
    elif image is not None or format is not None:
        msg = f"image= and format= are for paths, got a {type(source).__name__}"
        raise InvalidInputError(msg)
    else:
        opened = _open_object(source, axes, given, channel_names)
        channel_names = None
    if channel_names is None and kind in {None, opened.kind}:
        return opened
    return restated(opened, channel_names=channel_names, kind=kind)


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
        group = open_zarr_group(source, mpp=mpp)
        return group if names is None else restated(group, channel_names=names)
    if is_from(source, "spatialdata", "SpatialData"):
        msg = "a SpatialData object holds many elements; open one of them: sdata['name']"
        raise InvalidInputError(msg)
    return image_from_array(source, axes=axes, mpp=mpp, channel_names=names)


def _open_path(
    source: str | os.PathLike[str],
    mpp: Mpp | None,
    axes: str | None,
    image: str | int | None,
    name: str | None,
    options: StorageOptions | None,
) -> MultiscaleImage:
    place = place_of(source, options)
    if isinstance(place, Place):
        if axes is not None or image is not None or name is not None:
            msg = f"{source}: an address leads to one OME-Zarr image, which states its axes"
            raise InvalidInputError(msg)
        return open_zarr(place, mpp=mpp, context=options)
    found = _format_of(place, name)
    if found is OME_ZARR and axes is None:  # the one that the options are for
        return open_zarr(place, mpp=mpp, context=options, image=image)
    return found.open(place, mpp, image=image, axes=axes)


def _format_of(path: Path, name: str | None) -> SourceFormat:
    head = _head(path)
    if name is not None:
        known = source_formats()
        found = next((f for f in known if f.name.lower() == name.lower()), None)
        if found is None:
            msg = f"there is no format {name!r}; there are {', '.join(f.name for f in known)}"
            raise UnknownNameError(msg)
        return found
    for candidate in _FORMATS:
        if candidate.matches(path, head):
            return candidate
    # Plug-ins are imported only for what nobody here knows.
    for candidate in plugged_in():
        if candidate.matches(path, head):
            return candidate
    raise FormatError(_unknown(path, head))


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
    formats = source_formats()
    known = ", ".join(f"{f.name} ({' '.join(f.suffixes)})" for f in formats if f.suffixes)
    if path.is_dir():
        whole = ", ".join(f.name for f in formats if not f.suffixes)
        return f"{path} is a directory but no OME-Zarr image, nor one of these: {whole}"
    named = [f.name for f in formats if f.suffixes and path.name.lower().endswith(f.suffixes)]
    start = f"it starts with {head[:8]!r}" if head != b"\0" else "it is empty"
    if named:
        return f"{path} is named like {named[0]} but is none: {start}. Is it damaged or cut short?"
    return f"{path} is no format that can be read: {start}. Formats: {known}"
