"""What a model may answer: an array of the batch's own grid, and what is refused, by place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError
from microtome.regions import ImageRegionData

__all__ = ["as_array", "checked_maps", "place_of"]

_STORABLE = "iuf"


def as_array(output: Any) -> NDArray[Any]:
    """Return a model's output as a numpy array that can be stored.

    Parameters
    ----------
    output
        A tensor on any device, or anything numpy takes for an array. Integers and floating types
        stay as they are; booleans become uint8 and bfloat16 float32, which have no type on disk.

    Raises
    ------
    InvalidInputError
        If it is something else.
    """
    if hasattr(output, "detach"):
        from ._torch import tensor_to_numpy

        array = tensor_to_numpy(output)
    else:
        try:
            array = np.asarray(output)
        except (TypeError, ValueError) as error:
            msg = f"the model must return one array, got {type(output).__name__}: {error}"
            raise InvalidInputError(msg) from error
    if array.dtype == np.bool_:
        return array.view(np.uint8)
    if array.dtype.kind not in _STORABLE:
        msg = (
            f"the model must return one array of integers or floating numbers, got "
            f"{type(output).__name__} ({array.dtype}); wrap it so that it returns the one to keep"
        )
        raise InvalidInputError(msg)
    return array


def place_of(batch: ImageRegionData[Any], row: int) -> str:
    """Say where a tile of a batch lies, for messages."""
    spec = cast("dict[str, Any]", batch.region_spec)
    start = [int(value) for value in spec["coords"][row]]
    size = [int(value) for value in spec["patch_size"][row]]
    return f"the tile at (row, col) {tuple(start)} of {tuple(size)} pixels in {batch.source[row]}"


def checked_maps(batch: ImageRegionData[Any]) -> NDArray[Any]:
    """Return the data of a batch that a model has answered, one map a tile.

    Parameters
    ----------
    batch
        A collated batch of tiles whose data are the model's output.

    Returns
    -------
    (B, C', Y, X) with the tiles' own Y and X.

    Raises
    ------
    InvalidInputError
        If it has another shape.
    """
    spec = cast("dict[str, Any]", batch.region_spec)
    missing = {"stitch_coords", "crop_coords", "crop_size"} - spec.keys()
    if missing or isinstance(batch.source, str):
        msg = f"not a collated batch of tiles: its specification lacks {sorted(missing) or 'a batch axis'}"
        raise InvalidInputError(msg)
    data = as_array(batch.data)
    count = len(batch.source)
    size = _one_size(spec["patch_size"])
    if data.ndim != 2 + len(size) or data.shape[0] != count or data.shape[2:] != size:
        wanted = f"({count}, C, {', '.join(map(str, size))})"
        msg = (
            f"the model must return {wanted} for a batch of {count}, got {data.shape}, from "
            f"{place_of(batch, 0)}"
        )
        raise InvalidInputError(msg)
    if not data.shape[1]:
        msg = f"the model returned no channel, {data.shape}, for {place_of(batch, 0)}"
        raise InvalidInputError(msg)
    return data


def _one_size(sizes: Sequence[Sequence[int]]) -> tuple[int, ...]:
    return tuple(int(value) for value in sizes[0])
