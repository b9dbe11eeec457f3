"""Resampling onto a pixel grid of another size, the same whole or in pieces.

All grids of an image share its top-left corner. Pixel `j` of a grid with ratio `r` (source pixels
an output pixel) covers the source interval `[j r, (j + 1) r)`, whatever window of it is asked for:
reading a box whole therefore equals the mosaic of reading it in pieces. Coarser grids take the
area-weighted mean of what a pixel covers, finer ones interpolate linearly between centres, labels
take the pixel under the centre.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from microtome.errors import InvalidInputError

__all__ = ["Interpolation", "Taps", "grid_size", "interpolation_at", "resample", "taps"]

Interpolation = Literal["auto", "area", "linear", "nearest"]
"""`auto`: nearest for labels, else area towards coarser grids and linear towards finer ones."""

# Pixel sizes come from decimal text and divisions: 0.2500001 um is 0.25 um. An edge within this
# part of a pixel of a grid line lies on it.
_SNAP = 1e-6
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Taps:
    """Which source pixels make which output pixels along one axis.

    Parameters
    ----------
    start
        First source pixel that is needed.
    stop
        One past the last.
    index
        Source pixel relative to `start`, (n, k).
    weight
        Its weight, (n, k), rows summing to one; unused places weigh 0.
    """

    start: int
    stop: int
    index: NDArray[np.intp]
    weight: NDArray[np.float64]


def grid_size(size: int, ratio: float) -> int:
    """Return how many output pixels of `ratio` source pixels cover `size` source pixels."""
    return max(1, math.ceil(size / ratio - _SNAP))


def interpolation_at(ratio: float, wanted: Interpolation, *, labels: bool) -> Interpolation:
    """Return how an axis is resampled, with `auto` resolved.

    Parameters
    ----------
    ratio
        Source pixels an output pixel.
    wanted
        What was asked for.
    labels
        Whether the pixels are labels.

    Raises
    ------
    InvalidInputError
        If labels were to be averaged, or there is no such method.
    """
    if wanted not in ("auto", "area", "linear", "nearest"):
        msg = f"interpolation must be 'auto', 'area', 'linear' or 'nearest', got {wanted!r}"
        raise InvalidInputError(msg)
    if labels and wanted in ("area", "linear"):
        msg = f"labels are never averaged: interpolation must be 'nearest', got {wanted!r}"
        raise InvalidInputError(msg)
    if wanted != "auto":
        return wanted
    return "nearest" if labels else "area" if ratio >= 1 else "linear"


def taps(size: int, ratio: float, start: int, stop: int, method: Interpolation) -> Taps:
    """Work out the weights along one axis.

    Parameters
    ----------
    size
        Source pixels along the axis.
    ratio
        Source pixels an output pixel.
    start, stop
        Output pixels wanted, inside `[0, grid_size(size, ratio))`.
    method
        ``"area"``, ``"linear"`` or ``"nearest"``.
    """
    out = np.arange(start, stop, dtype=np.float64)
    if method == "area":
        low, high = out * ratio, np.minimum((out + 1) * ratio, size)
        # A level may end a little before the image does: what lies past its end is its last pixel.
        low, high = _snapped(np.minimum(low, size - 1.0)), _snapped(high)
        first = np.floor(low).astype(np.intp)
        count = int((np.ceil(high).astype(np.intp) - first).max())
        index = first[:, None] + np.arange(count)
        weight = np.clip(
            np.minimum(high[:, None], index + 1.0) - np.maximum(low[:, None], index), 0.0, None
        )
    elif method == "linear":
        center = np.clip((out + 0.5) * ratio - 0.5, 0.0, size - 1.0)
        first = np.minimum(np.floor(center).astype(np.intp), max(size - 2, 0))
        index = first[:, None] + np.arange(min(2, size))
        part = center - first
        weight = np.stack([1.0 - part, part], axis=1)[:, : index.shape[1]]
        if size == 1:
            weight = np.ones_like(weight)
    elif method == "nearest":
        index = np.minimum(_snapped((out + 0.5) * ratio).astype(np.intp), size - 1)[:, None]
        weight = np.ones(index.shape)
    else:
        msg = f"interpolation must be 'area', 'linear' or 'nearest', got {method!r}"
        raise InvalidInputError(msg)
    used = weight > 0
    index = np.where(used, np.minimum(index, size - 1), index[:, :1])
    weight = np.where(used, weight, 0.0) / weight.sum(axis=1, keepdims=True)
    begin, end = int(index.min()), int(index.max()) + 1
    return Taps(begin, end, index - begin, weight)


def resample(
    pixels: NDArray[Any], y: Taps, x: Taps, dtype: DTypeLike | None = None
) -> NDArray[Any]:
    """Apply weights along the last two axes.

    Parameters
    ----------
    pixels
        (..., y.stop - y.start, x.stop - x.start).
    y, x
        Weights along the last but one and the last axis.
    dtype
        Type of the result; that of the pixels by default.

    Returns
    -------
    (..., ny, nx); integers rounded half up.
    """
    kind = pixels.dtype if dtype is None else np.dtype(dtype)
    if y.weight.shape[1] == 1 and x.weight.shape[1] == 1:
        return pixels[..., y.index[:, 0], :][..., x.index[:, 0]].astype(kind, copy=False)
    rows, columns = _matrix(y), _matrix(x)
    out = np.empty((*pixels.shape[:-2], rows.shape[0], columns.shape[0]), kind)
    for plane in np.ndindex(pixels.shape[:-2]):
        # Both products run along rows in memory, so the plane is turned before and after.
        half = columns @ np.ascontiguousarray(pixels[plane].T).astype(np.float64)
        out[plane] = _rounded(rows @ np.ascontiguousarray(half.T), kind)
    return out


def _matrix(weights: Taps) -> Any:
    """Return the weights as a sparse matrix (output pixels, source pixels).

    A row is summed in the order of its entries whatever else is in the product, so that a pixel
    comes out the same in every window that holds it.
    """
    from scipy.sparse import csr_array

    count, width = weights.index.shape
    starts = np.arange(0, count * width + 1, width)
    shape = (count, weights.stop - weights.start)
    matrix = csr_array((weights.weight.ravel(), weights.index.ravel(), starts), shape=shape)
    matrix.eliminate_zeros()  # an infinite pixel times a place that is not used would be NaN
    return matrix


def _rounded(values: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    # Sums of weights are 1 only to rounding: 2.4999999999999996 means 2.5.
    if dtype.kind == "b":
        return values >= 0.5 - _ROUNDING
    if dtype.kind in "iu":
        values += 0.5 + _ROUNDING
        np.floor(values, out=values)
        limits = np.iinfo(dtype)
        # The largest 64-bit integers round up to a float that is past them, and would wrap.
        highest = float(limits.max)
        if int(highest) > limits.max:
            highest = float(np.nextafter(highest, 0.0))
        np.clip(values, limits.min, highest, out=values)
    return values.astype(dtype)


def _snapped(edges: NDArray[np.float64]) -> NDArray[np.float64]:
    nearest = np.rint(edges)
    return np.where(np.abs(edges - nearest) < _SNAP, nearest, edges)
