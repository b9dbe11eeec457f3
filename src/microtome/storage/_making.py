"""Arrays made and opened."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import DTypeLike

from ._array import StoredArray
from ._facts import array_document
from ._handles import create_handle
from ._layout import Layout
from ._options import StorageOptions
from ._remote import Place

__all__ = ["create_array", "open_array"]


def create_array(
    path: str | os.PathLike[str] | Place,
    *,
    shape: Sequence[int],
    dtype: DTypeLike,
    layout: Layout,
    axes: str,
    options: StorageOptions | None = None,
) -> StoredArray:
    """Create an empty Zarr v3 array; unwritten pixels read as 0.

    Parameters
    ----------
    path
        Directory to create, or a place in a store that can be written.
    shape
        Shape in pixels, every size positive.
    dtype
        Type of a pixel.
    layout
        Chunks, shards and codec; shards are shrunk to what the shape can fill.
    axes
        Names of the axes, stored as the array's dimension names.
    options
        As for `StoredArray`.

    Raises
    ------
    InvalidInputError
        If a size is not positive, ranks differ, or a pixel is no number that Zarr can hold.
    ExistsError
        If there is an array.
    StorageError
        If the disk refuses.
    """
    place = path if isinstance(path, Place) else Path(path)
    metadata = array_document(shape, dtype, layout, axes, where=place)
    known = place.options if options is None and isinstance(place, Place) else options
    create_handle(place, known, metadata)
    return StoredArray(place, writable=True, options=options)


def open_array(
    path: str | os.PathLike[str] | Place,
    *,
    writable: bool = False,
    document: Mapping[str, Any] | None = None,
    options: StorageOptions | None = None,
) -> StoredArray:
    """Open a Zarr v2 or v3 array; parameters as for `StoredArray`."""
    return StoredArray(path, writable=writable, document=document, options=options)
