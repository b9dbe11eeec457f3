"""`open_stacks`: arrays with their axes in any order, files, folders, images, into one list."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

from microtome.coordinates import Mpp
from microtome.errors import InvalidInputError, NotFoundError
from microtome.image import ArrayStack, ImageStack, MultiscaleImage, stack_axes
from microtome.storage import StorageOptions, place_of

from ._array import pixel_array
from ._choice import SeveralImagesError
from ._formats import FORMATS
from ._lazy import is_from
from ._recipe import Recipe, traveling_stack
from ._registry import open_image
from ._tiff_stack import tiff_stack
from ._xarray import is_xarray
from ._zarr_stacks import zarr_stacks

__all__ = ["open_stacks"]

_PATTERN = "*?["
_HEAD = 16
_TIFF_STACK = f"{tiff_stack.__module__}:{tiff_stack.__name__}"
_TIFF = next(known for known in FORMATS if known.name == "TIFF")


def open_stacks(
    sources: Any,
    axes: str | None = None,
    *,
    suffix: str | None = None,
    mpp: float | tuple[float, float] | Mpp | None = None,
    channel_names: Sequence[str] | None = None,
    storage_options: StorageOptions | None = None,
) -> list[MultiscaleImage | ImageStack]:
    """Open whatever regions are read from; no pixel is read.

    Parameters
    ----------
    sources
        One source or a list of them, of any kinds: an array of numpy, torch, dask or zarr-python;
        whatever `open_image` opens, which is one image however many levels it has; a Zarr array, or
        a group of arrays that is no image, each of which is a stack; an image or a stack, returned
        as it is; the path of a folder, with `suffix`; a path with ``*``, ``?`` or ``[``, of which
        nothing exists by just that name. What a folder, a group or a pattern holds is sorted by
        name.
    axes
        Axes of the arrays, one letter of SCTZYX each in the arrays' own order; (Y, X) by default
        for two of them, and what a Zarr array states. Of a TIFF they name the axes that the file
        leaves unnamed, in its order, and may call its moments samples. Other images and stacks know
        theirs, and what has others is refused.
    suffix
        How the names in a folder end, for example ``".tif"``.
    mpp, channel_names, storage_options
        As for `open_image`; of what is opened here, not of images and stacks.

    Returns
    -------
    One image or stack a source, in order; of a folder, a group or a pattern one for each in it.

    Raises
    ------
    NotFoundError
        If paths are not there; the message names all of them.
    FormatError
        If one is damaged, or no format that can be read.
    InvalidInputError
        If there is no source, the axes do not fit an array or are not a file's, nothing in a folder
        ends so, or a file holds several images: open with `open_image` those that are meant.

    Examples
    --------
    >>> import numpy as np
    >>> [stack] = open_stacks(np.zeros((2, 64, 48, 3), np.uint8), "TYXC")
    >>> stack.data_shape
    (2, 3, 64, 48)
    """
    given = Mpp.from_user(mpp) if mpp is not None else None
    one = not isinstance(sources, list | tuple)
    listed = [sources] if one else list(cast("Iterable[Any]", sources))
    found = _existing(listed, suffix)
    if not found:
        msg = "there is nothing to open: the list of sources is empty"
        raise InvalidInputError(msg)
    opened: list[MultiscaleImage | ImageStack] = []
    for source in found:
        plain = _plain(source, axes, given, channel_names, storage_options)
        if plain is not None:
            opened.extend(plain)
        elif isinstance(source, MultiscaleImage) or _is_stack(source):
            opened.append(source)
        elif isinstance(source, str | os.PathLike) or _names_its_own(source):
            image = _only_image(source, given, channel_names, storage_options)
            _verify_axes(image, axes)
            opened.append(image)
        else:
            opened.append(_array_stack(source, axes, given, channel_names))
    return opened


def _plain(
    source: Any,
    axes: str | None,
    mpp: Mpp | None,
    names: Sequence[str] | None,
    storage: StorageOptions | None,
) -> Sequence[ArrayStack] | None:
    """Open a path that is no image, or not the one that the axes make of it; None for others."""
    place = place_of(source, storage) if isinstance(source, str | os.PathLike) else None
    if not isinstance(place, Path):
        return None
    if place.is_dir():
        return zarr_stacks(place, axes, mpp=mpp, channel_names=names, options=storage)
    if axes is None:
        return None
    with place.open("rb") as file:
        if not _TIFF.matches(place, file.read(_HEAD)):
            return None
    options: dict[str, Any] = {"axes": axes, "mpp": mpp, "channel_names": names}
    stack = tiff_stack(place, **options)
    if stack is None:
        return None
    return [traveling_stack(stack, Recipe(_TIFF_STACK, place, options, stack))]


def _only_image(
    source: Any, mpp: Mpp | None, names: Sequence[str] | None, storage: StorageOptions | None
) -> MultiscaleImage:
    """Open what is one image."""
    try:
        return open_image(source, mpp=mpp, channel_names=names, storage_options=storage)
    except SeveralImagesError as error:
        place = f"open_image({str(source)!r}, image=name)"
        msg = (
            f"{error.where} holds several images, and each of the sources is one; give those that you "
            f"mean in a list of {place}: {error.listed}"
        )
        raise InvalidInputError(msg) from error


def _is_stack(source: Any) -> bool:
    # By the one method: a protocol's data members may cost something to look at.
    return callable(getattr(source, "extract_patch", None))


def _names_its_own(source: Any) -> bool:
    return (
        is_xarray(source)
        or is_from(source, "zarr", "Group")
        or is_from(source, "spatialdata", "SpatialData")
    )


def _verify_axes(image: MultiscaleImage, axes: str | None) -> None:
    """Refuse a file of other axes: its channels would be taken for samples, or the reverse."""
    if axes is None:
        return
    level = image.level(0)
    needed = {axis for axis, size in zip(level.axes, level.shape, strict=True) if size > 1}
    if not needed | set("yx") <= set(axes.lower()) <= set(level.axes):
        msg = (
            f"{image.uri} has axes {level.axes.upper()!r} of {level.shape}, not {axes!r}; leave "
            "axes out for what knows its own"
        )
        raise InvalidInputError(msg)


def _array_stack(
    source: Any, axes: str | None, mpp: Mpp | None, names: Sequence[str] | None
) -> ArrayStack:
    array, stated = pixel_array(source)
    letters = axes or stated or ("yx" if len(array.shape) == 2 else "")
    where = f"array of type {type(source).__name__}"
    stack_axes(letters, array.shape, where)
    return ArrayStack(array, letters, mpp=mpp, channel_names=names)


def _existing(sources: Sequence[Any], suffix: str | None) -> list[Any]:
    """Return every source, folders and patterns as what they hold, if all paths are there."""
    found: list[Any] = []
    missing: list[str] = []
    for source in sources:
        place = place_of(source) if isinstance(source, str | os.PathLike) else None
        if not isinstance(place, Path):
            found.append(source)
        elif place.is_dir() and suffix is not None and not place.name.endswith(suffix):
            found.extend(_in_folder(place, suffix))
        elif place.exists():
            found.append(source)
        elif any(letter in str(place) for letter in _PATTERN):
            matched = sorted(glob.glob(str(place)))  # noqa: PTH207 - of any folder, absolute or not
            found.extend(Path(name) for name in matched)
            missing.extend([] if matched else [str(place)])
        else:
            missing.append(str(place))
    if missing:
        verb = "does" if len(missing) == 1 else "do"
        msg = f"{', '.join(missing)} {verb} not exist"
        raise NotFoundError(msg)
    return found


def _in_folder(folder: Path, suffix: str) -> list[Path]:
    matched = sorted(path for path in folder.iterdir() if path.name.endswith(suffix))
    if not matched:
        msg = f"nothing in the folder {folder} ends in {suffix!r}"
        raise InvalidInputError(msg)
    return matched
