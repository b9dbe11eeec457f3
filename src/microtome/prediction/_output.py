"""What a model may answer: an array of the batch's own grid, and what is refused, by place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError
from microtome.regions import ImageRegionData

__all__ = ["as_array", "checked_maps", "place_of", "scale_of", "verify_finite"]

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


def verify_finite(values: NDArray[Any], place: Callable[[], str]) -> None:
    """Refuse what a model returned where a number is NaN, or so large that its type has none for it.

    Raises
    ------
    InvalidInputError
        If one is; the message says where `place` is.
    """
    finite = np.isfinite(values)
    if finite.all():
        return
    what = "NaN" if np.isnan(values).any() else "infinity"
    msg = (
        f"the model returned {what} for {place()}, in {int((~finite).sum())} of {values.size} values; "
        "allow_nan=True stores it"
    )
    raise InvalidInputError(msg)


def place_of(batch: ImageRegionData[Any], row: int) -> str:
    """Say where a tile of a batch lies, for messages."""
    spec = cast("dict[str, Any]", batch.region_spec)
    start = [int(value) for value in spec["coords"][row]]
    size = [int(value) for value in spec["patch_size"][row]]
    axes = "(row, col)" if len(start) == 2 else "(plane, row, col)"
    sample = int(spec["sample_idx"][row]) if "sample_idx" in spec else 0
    of_sample = f" of sample {sample}" if sample else ""
    return f"the tile at {axes} {tuple(start)} of {tuple(size)} pixels{of_sample} in {batch.source[row]}"


def checked_maps(
    batch: ImageRegionData[Any],
    scale: Sequence[Fraction] | None = None,
) -> tuple[NDArray[Any], tuple[Fraction, ...]]:
    """Return the data of a batch that a model has answered, one map a tile.

    Parameters
    ----------
    batch
        A collated batch of tiles whose data are the model's output.
    scale
        Pixels of the output for one of the input, an axis, where that is known; else what the batch
        says.

    Returns
    -------
    (B, C', (Z'), Y', X'), and its scale.

    Raises
    ------
    InvalidInputError
        If it has another shape, or a scale that is neither a whole number nor one over it.
    """
    spec = cast("dict[str, Any]", batch.region_spec)
    missing = {"stitch_coords", "crop_coords", "crop_size"} - spec.keys()
    if missing or isinstance(batch.source, str):
        msg = f"not a collated batch of tiles: its specification lacks {sorted(missing) or 'a batch axis'}"
        raise InvalidInputError(msg)
    data = as_array(batch.data)
    count = len(batch.source)
    size = tuple(int(value) for value in spec["patch_size"][0])
    if data.ndim == 2 + len(size) and data.shape[0] == count:
        found = scale_of(size, data.shape[2:])
        if found is not None and scale in (None, found):
            if not data.shape[1]:
                msg = f"the model returned no channel, {data.shape}, for {place_of(batch, 0)}"
                raise InvalidInputError(msg)
            return data, found
    known = scale or (Fraction(1),) * len(size)
    wanted = f"({count}, C, {', '.join(str(int(s * f)) for s, f in zip(size, known, strict=True))})"
    hint = (
        ""
        if scale
        else "; rows and columns may both be the same whole number of times as many or as few"
    )
    msg = (
        f"the model must return {wanted} for a batch of {count}, got {data.shape}, from "
        f"{place_of(batch, 0)}{hint}"
    )
    raise InvalidInputError(msg)


def scale_of(given: Sequence[int], made: Sequence[int]) -> tuple[Fraction, ...] | None:
    """Return how many pixels a model makes of one, an axis; None where that is no model of maps.

    A row and a column are scaled alike, so that pixels stay as square as they are, and planes stay
    where they are. 508 of 512 is not a scale but a border that was lost.
    """
    if not all(made):
        return None
    scale = tuple(Fraction(out, size) for out, size in zip(made, given, strict=True))
    whole = all(1 in (factor.numerator, factor.denominator) for factor in scale)
    return scale if whole and scale[-1] == scale[-2] and set(scale[:-2]) <= {1} else None
