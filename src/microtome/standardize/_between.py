"""Quantiles between two neighbouring ranks, by the rule of `numpy.quantile`."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.errors import InvalidInputError

__all__ = ["between", "neighbours", "quantiles_of_counts", "read_quantiles"]


def read_quantiles(wanted: ArrayLike) -> NDArray[np.float64]:
    """Return wanted quantiles as numbers.

    Raises
    ------
    InvalidInputError
        If they are not a list of numbers from 0 to 1.
    """
    numbers = np.asarray(wanted, np.float64)
    if numbers.ndim != 1 or not numbers.size:
        raise InvalidInputError(f"quantiles must be a list of numbers, got {wanted!r}")
    if not bool(np.all((numbers >= 0) & (numbers <= 1))):
        raise InvalidInputError(f"quantiles are from 0 to 1, got {wanted!r}")
    return numbers


def neighbours(wanted: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """(2 x quantiles,) ranks below and above each quantile."""
    if not total:
        return np.zeros(0, np.int64)
    below = np.floor((total - 1) * wanted).astype(np.int64)
    return np.concatenate([below, np.minimum(below + 1, total - 1)])


def between(
    below: NDArray[np.float64], above: NDArray[np.float64], wanted: NDArray[np.float64], total: int
) -> NDArray[np.float64]:
    """Interpolate as NumPy's "linear" does, operation by operation, so that the last bit agrees."""
    place = (total - 1) * wanted
    weight = place - np.floor(place)
    with np.errstate(invalid="ignore", over="ignore"):  # between infinities
        step = above - below
        mixed = np.where(weight < 0.5, below + step * weight, above - step * (1 - weight))
    return np.where((below == above) | (weight == 0), below, mixed)


def quantiles_of_counts(
    values: NDArray[np.float64], counts: NDArray[np.int64], wanted: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Quantiles of values, at least one and ascending, that occur many times."""
    upto = np.cumsum(counts)
    ranks = neighbours(wanted, int(upto[-1]))
    below, above = values[np.searchsorted(upto, ranks, side="right")].reshape(2, -1)
    return between(below, above, wanted, int(upto[-1]))
