"""Zarr without the metadata of an image: an array, or a group of arrays, each of them a stack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from microtome.coordinates import Mpp
from microtome.errors import InvalidInputError, NotFoundError
from microtome.image import ArrayStack, stack_axes
from microtome.storage import (
    StorageOptions,
    array_metadata,
    is_group,
    is_versioned,
    open_array,
    read_group,
)

__all__ = ["zarr_stacks"]

# Attributes by which a group says that it is an image, or a plate or a series of them.
_OME = ("ome", "multiscales", "plate", "well", "bioformats2raw.layout", "spatialdata_attrs")


def zarr_stacks(
    path: Path,
    axes: str | None,
    *,
    mpp: Mpp | None,
    channel_names: Sequence[str] | None,
    options: StorageOptions | None,
) -> list[ArrayStack] | None:
    """Open a Zarr array, or every array of a group that is no image, by name.

    Parameters
    ----------
    path
        Directory of the array or the group; nested ones by their own path.
    axes
        Axes of every array, one letter of SCTZYX each in its order; by default those that an array
        states, and (Y, X) for two.
    mpp, channel_names, options
        As of `open_stacks`.

    Returns
    -------
    None if it is neither.

    Raises
    ------
    InvalidInputError
        If the axes do not fit an array, or a group holds none.
    """
    if is_versioned(path):
        return None
    document = _array(path)
    if document is not None:
        return [_stack(path, document, axes, mpp, channel_names, options)]
    if not is_group(path):
        return None
    attributes = read_group(path)
    if any(name in attributes for name in _OME):
        return None
    inside = sorted(child for child in path.iterdir() if child.is_dir())
    arrays = [(child, document) for child in inside if (document := _array(child)) is not None]
    if not arrays:
        groups = [child.name for child in inside if is_group(child)]
        msg = (
            f"the Zarr group {path} holds no array and is no image"
            f"{f'; name one of its groups: {groups[:8]}' if groups else ''}"
        )
        raise InvalidInputError(msg)
    return [
        _stack(child, document, axes, mpp, channel_names, options) for child, document in arrays
    ]


def _array(path: Path) -> dict[str, Any] | None:
    """Return the metadata of an array, None where there is none."""
    try:
        document = array_metadata(path)
    except NotFoundError:
        return None
    return document if document.get("node_type", "array") == "array" else None


def _stack(
    path: Path,
    document: dict[str, Any],
    axes: str | None,
    mpp: Mpp | None,
    names: Sequence[str] | None,
    options: StorageOptions | None,
) -> ArrayStack:
    array = open_array(path, options=options)
    stated = document.get("dimension_names")
    known = "".join(cast("list[str]", stated)) if _letters(stated) else ""
    letters = axes or known or ("yx" if len(array.shape) == 2 else "")
    stack_axes(letters, array.shape, str(path))
    return ArrayStack(array, letters, source=str(path), mpp=mpp, channel_names=names)


def _letters(names: Any) -> bool:
    return isinstance(names, list) and all(
        isinstance(name, str) and len(name) == 1 for name in cast("list[Any]", names)
    )
