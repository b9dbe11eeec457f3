"""Blocks of pixels as the streaming statistics take them: (channels, pixels)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.errors import FormatError, InvalidInputError

__all__ = ["read_block", "refuse_nan", "refuse_not_finite"]


def read_block(
    values: NDArray[Any], channels: Sequence[int] | None, count: int
) -> tuple[NDArray[Any], list[int]]:
    """Return the block and the channel of each of its rows.

    Raises
    ------
    InvalidInputError
        If it is not (channels, pixels) of real numbers, or a channel does not exist or comes twice.
    """
    if values.ndim != 2 or values.dtype.kind not in "buif":
        raise InvalidInputError(
            f"a block holds (channels, pixels) of real numbers, got shape {values.shape} of "
            f"{values.dtype}"
        )
    places = list(range(count)) if channels is None else [int(place) for place in channels]
    if len(places) != len(values):
        raise InvalidInputError(f"a block of {len(values)} rows for {len(places)} channels")
    if len(set(places)) < len(places) or any(not 0 <= place < count for place in places):
        raise InvalidInputError(
            f"channels must be different numbers from 0 to {count - 1}, got {places}"
        )
    return values, places


def refuse_nan(block: NDArray[Any], places: list[int], where: str) -> None:
    """Raise a `FormatError` that names the first NaN."""
    if block.dtype.kind == "f":
        _refuse(np.isnan(block), block, places, where)


def refuse_not_finite(block: NDArray[Any], places: list[int], where: str) -> None:
    """Raise a `FormatError` that names the first NaN or infinity."""
    if block.dtype.kind == "f":
        _refuse(~np.isfinite(block), block, places, where)


def _refuse(wrong: NDArray[np.bool_], block: NDArray[Any], places: list[int], where: str) -> None:
    if wrong.any():
        row, pixel = (int(index[0]) for index in np.nonzero(wrong))
        raise FormatError(
            f"{where or 'the pixels'}: channel {places[row]} is {block[row, pixel]} at pixel "
            f"{pixel} of the block; {int(wrong.sum())} such values cannot be counted"
        )
