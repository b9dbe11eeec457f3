"""Resampling a level onto a grid that lies anywhere: shifted, scaled, mirrored, rotated, sheared.

A pixel of the result lies in the level as a parallelogram. What it becomes:

* ``nearest``: the pixel under its centre;
* ``linear``: interpolated between the centres of the 2 x 2 (x 2) pixels around its centre;
* ``area``: the mean of what it covers. Where the axes stay parallel, each pixel of the level weighs
  exactly as much as it is covered. Else the mean is taken over a lattice of samples in the
  parallelogram, at least 4 a side and at most a third of a pixel of the level apart (but no more
  than 256 a side, 32 in three dimensions: read from a level that is not much finer than the grid).
  In an image of noise alone, that differs from the exact mean by 1 % of its range.

Outside the level is padding. With a number, a result whose centre (for ``area``: all of whose
samples) lies outside is that number, and others are made of the level's pixels alone, so that the
edge of an image is neither darkened nor brightened.

Weights are the entries of a sparse matrix with a row for each pixel of the result. Its rows are
summed in their own order and positions are counted from the whole grid's corner, so a result does
not depend on the blocks in which it is computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from microtome.coordinates import CoordinateTransform
from microtome.storage import Box

from ._level import Level
from ._resample import _rounded  # pyright: ignore[reportPrivateUsage] - one rule of rounding
from ._window import Padding, allocated, checked_size, fill_value, read_window

__all__ = ["Resampling", "resample_level"]

Resampling = Literal["area", "linear", "nearest"]
"""How pixels are made from others; see the module."""

# What a block may hold at once: pixels of the level, of all channels, and weights. Bounds the
# memory of a call beyond its result to some 300 MB, except where a single pixel covers more.
_MOST_SOURCE, _MOST_WEIGHTS = 2**23, 2**21
_SIDE = {2: 512, 3: 64}
_MOST_SAMPLES = {2: 256, 3: 32}
# Edges and centres that miss a grid line by rounding lie on it, as in `_resample`.
_SNAP = 1e-6


@dataclass(frozen=True, slots=True)
class _Weights:
    """Which pixels of a window make which pixels of a block.

    Parameters
    ----------
    index
        Pixel of the window, flattened, (n, k).
    weight
        Its weight, (n, k); rows sum to one, or to zero where there is nothing to be made of.
    """

    index: NDArray[np.intp]
    weight: NDArray[np.float64]

    def matrix(self, size: int) -> Any:
        """Return them as a sparse matrix (n, size) to multiply a flattened window with."""
        from scipy.sparse import csr_array

        count, width = self.index.shape
        starts = np.arange(0, count * width + 1, width)
        entries = self.weight.ravel(), self.index.ravel(), starts
        matrix = csr_array(entries, (count, size))
        matrix.eliminate_zeros()  # NaN or infinity times a place that is not used would be NaN
        return matrix


@dataclass(frozen=True, slots=True)
class _Placement:
    """Where the pixels of a grid lie in a level; all in the order of numpy's axes.

    Parameters
    ----------
    linear, offset
        From pixel edges of the grid to those of the level, (d, d) and (d,).
    sizes
        Pixels of the level, (d,).
    bounded
        Whether there is nothing outside the level; else it goes on in all directions.
    """

    linear: NDArray[np.float64]
    offset: NDArray[np.float64]
    sizes: tuple[int, ...]
    bounded: bool

    def window(self, block: Box) -> Box:
        """Return the pixels of the level that a block can need; empty where it lies outside."""
        low, high = self.extent(np.array(block, np.float64))
        window: list[tuple[int, int]] = []
        for first, last, size in zip(low.tolist(), high.tolist(), self.sizes, strict=True):
            start, stop = math.floor(first) - 1, math.ceil(last) + 1
            if self.bounded:
                start, stop = min(max(start, 0), size), min(max(stop, 0), size)
            window.append((start, stop))
        return tuple(window)

    def extent(self, block: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the bounding box in the level of a block, (d, 2), of the grid."""
        grows, shrinks = np.maximum(self.linear, 0.0), np.minimum(self.linear, 0.0)
        low = grows @ block[:, 0] + shrinks @ block[:, 1] + self.offset
        high = grows @ block[:, 1] + shrinks @ block[:, 0] + self.offset
        return low, high

    def points(self, block: Box, samples: Sequence[int]) -> list[NDArray[np.float64]]:
        """Return where points of a block lie, an array for each axis of the level.

        Parameters
        ----------
        block
            Pixels of the grid.
        samples
            Points a pixel, evenly spaced along each axis of the grid; 1 is its centre.
        """
        rank = len(block)
        found = [np.full((1,) * rank, shift) for shift in self.offset]
        for axis, ((start, stop), count) in enumerate(zip(block, samples, strict=True)):
            at = (np.arange(start * count, stop * count) + 0.5) / count
            at = at.reshape([-1 if other == axis else 1 for other in range(rank)])
            found = [sums + self.linear[row, axis] * at for row, sums in enumerate(found)]
        return [_snapped(array) for array in np.broadcast_arrays(*found)]

    def inside(self, points: Sequence[NDArray[np.float64]]) -> NDArray[np.bool_]:
        """Whether points lie in the level."""
        inside = np.ones(points[0].shape, np.bool_)
        if self.bounded:
            for at, size in zip(points, self.sizes, strict=True):
                inside &= (at >= 0) & (at < size)
        return inside

    def flat(self, indices: Sequence[NDArray[np.float64]], window: Box) -> NDArray[np.intp]:
        """Return whole numbers, an array an axis, as places in a flattened window of the level.

        What lies outside the window is clipped to it: to the edge of the level.
        """
        total = np.zeros((1,) * len(window), np.intp)
        for at, (start, stop) in zip(indices, window, strict=True):
            total = total * (stop - start) + (np.clip(at, start, stop - 1) - start).astype(np.intp)
        return total


def resample_level(
    level: Level,
    to_level: CoordinateTransform,
    shape: Sequence[int],
    method: Resampling,
    *,
    channels: Sequence[int] | None,
    padding: Padding,
    dtype: np.dtype[Any] | None = None,
) -> NDArray[Any]:
    """Resample a level onto a grid.

    Parameters
    ----------
    level
        The level; its last axes are those of the grid.
    to_level
        From pixel edges of the grid to those of the level, over (x, y) or (x, y, z).
    shape
        Pixels of the grid in the order of numpy's axes, (Z)YX.
    method
        How.
    channels
        Channels by number; None for all.
    padding
        What stands outside the level; False for 0.
    dtype
        Floating type of the result; by default the level's.

    Returns
    -------
    Pixels in the order of the level's axes; integers rounded half up.
    """
    rank = len(shape)
    lead = list(level.shape[:-rank])
    if channels is not None:
        lead[level.axes.index("c")] = len(channels)
    place = _Placement(
        to_level.linear[::-1, ::-1],
        to_level.offset[::-1],
        level.shape[-rank:],
        bounded=not isinstance(padding, str),
    )
    out = allocated(
        checked_size([*lead, *shape]), level.dtype if dtype is None else np.dtype(dtype)
    )
    out[...] = fill_value(padding)
    samples = _samples(place, method)
    for block in _blocks(shape, _side(place, shape, math.prod(lead), math.prod(samples))):
        window = place.window(block)
        if out.size and all(start < stop for start, stop in window):
            pixels = read_window(level, window, channels, padding if not place.bounded else False)
            target = out[(..., *(slice(*part) for part in block))]
            _fill(target, pixels, place, block, window, method, samples)
    return out


def _fill(
    out: NDArray[Any],
    pixels: NDArray[Any],
    place: _Placement,
    block: Box,
    window: Box,
    method: Resampling,
    samples: Sequence[int],
) -> None:
    """Make a block of the result from a window of the level."""
    rank = len(block)
    if method == "nearest":
        points = place.points(block, samples)
        inside = place.inside(points)
        index = place.flat([np.floor(at) for at in points], window)
        taken = pixels.reshape(*pixels.shape[:-rank], -1)[..., index]
        np.copyto(out, taken, where=inside)
        return
    if method == "area" and _parallel(place):
        along = [_overlaps(place, axis, block[axis], window[axis]) for axis in range(rank)]
        inside = reduce(np.logical_and.outer, [part.weight.any(axis=1) for part in along])
        matrices = [part.matrix(b - a) for part, (a, b) in zip(along, window, strict=True)]
        for plane in np.ndindex(pixels.shape[:-rank]):
            values = pixels[plane]
            for axis, matrix in enumerate(matrices):
                values = _along(matrix, values, axis)
            np.copyto(out[plane], _rounded(values, out.dtype), where=inside)
        return
    make = _between if method == "linear" else _beneath
    weights = make(place, block, window, samples)
    inside = weights.weight.any(axis=1).reshape(out.shape[-rank:])
    matrix = weights.matrix(math.prod(pixels.shape[-rank:]))
    for plane in np.ndindex(pixels.shape[:-rank]):
        values = _rounded(matrix @ pixels[plane].ravel().astype(np.float64), out.dtype)
        np.copyto(out[plane], values.reshape(inside.shape), where=inside)


def _between(place: _Placement, block: Box, window: Box, samples: Sequence[int]) -> _Weights:
    """Weights of the pixels whose centres lie around each centre."""
    points = place.points(block, samples)
    centers = [_snapped(at - 0.5) for at in points]
    first = [np.floor(at) for at in centers]
    part = [at - low for at, low in zip(centers, first, strict=True)]
    inside = place.inside(points)
    index: list[NDArray[np.intp]] = []
    weight: list[NDArray[np.float64]] = []
    for corner in product((0, 1), repeat=len(block)):
        near = [p if step else 1 - p for p, step in zip(part, corner, strict=True)]
        weight.append(math.prod(near, start=inside.astype(np.float64)))
        index.append(
            place.flat([low + step for low, step in zip(first, corner, strict=True)], window)
        )
    return _Weights(_rows(index), _rows(weight))


def _beneath(place: _Placement, block: Box, window: Box, samples: Sequence[int]) -> _Weights:
    """Weights of the pixels that lie under the samples of each pixel."""
    points = place.points(block, samples)
    inside = place.inside(points)
    index = _by_pixel(place.flat([np.floor(at) for at in points], window), block, samples)
    hits = _by_pixel(inside, block, samples).astype(np.float64)
    return _Weights(index, hits / np.maximum(hits.sum(axis=1, keepdims=True), 1))


def _overlaps(
    place: _Placement, axis: int, block: tuple[int, int], window: tuple[int, int]
) -> _Weights:
    """Weights along one axis of the pixels that each pixel covers, by how much it covers them."""
    edges = _snapped(
        np.arange(block[0], block[1] + 1) * place.linear[axis, axis] + place.offset[axis]
    )
    low, high = np.minimum(edges[:-1], edges[1:]), np.maximum(edges[:-1], edges[1:])
    low, high = np.clip(low, *window), np.clip(high, *window)
    first = np.floor(low)
    width = max(1, int((np.ceil(high) - first).max()))
    index = first[:, None] + np.arange(width)
    covered = np.minimum(high[:, None], index + 1) - np.maximum(low[:, None], index)
    weight = np.clip(covered, 0.0, None)
    total = weight.sum(axis=1, keepdims=True)
    index = np.clip(index, window[0], window[1] - 1).astype(np.intp) - window[0]
    return _Weights(index, weight / np.where(total > 0, total, 1))


def _along(matrix: Any, values: NDArray[Any], axis: int) -> NDArray[np.float64]:
    """Multiply along one axis."""
    turned = np.moveaxis(values, axis, 0)
    columns = np.ascontiguousarray(turned.reshape(len(turned), -1), np.float64)
    return np.moveaxis((matrix @ columns).reshape(-1, *turned.shape[1:]), 0, axis)


def _samples(place: _Placement, method: Resampling) -> tuple[int, ...]:
    """Return how many points of a pixel are looked at along each axis of the grid."""
    rank = len(place.sizes)
    if method != "area" or _parallel(place):
        return (1,) * rank
    steps = np.linalg.norm(place.linear, axis=0).tolist()
    return tuple(min(max(4, 3 * math.ceil(step - _SNAP)), _MOST_SAMPLES[rank]) for step in steps)


def _parallel(place: _Placement) -> bool:
    """Whether the axes of the grid are those of the level."""
    return not (place.linear - np.diag(np.diag(place.linear))).any()


def _side(place: _Placement, shape: Sequence[int], planes: int, weights: int) -> int:
    """Return how long the blocks are in which a grid is computed."""
    side = _SIDE[len(shape)]
    while side > 1:
        block = [min(side, size) for size in shape]
        low, high = place.extent(np.array([(0, size) for size in block], np.float64))
        source = float(np.prod(high - low + 3)) * max(planes, 1)
        if source <= _MOST_SOURCE and math.prod(block) * weights <= _MOST_WEIGHTS:
            break
        side //= 2
    return side


def _blocks(shape: Sequence[int], side: int) -> Iterator[Box]:
    cuts = [[(start, min(start + side, size)) for start in range(0, size, side)] for size in shape]
    yield from product(*cuts)


def _rows(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.stack([array.ravel() for array in arrays], axis=1)


def _by_pixel(array: NDArray[Any], block: Box, samples: Sequence[int]) -> NDArray[Any]:
    """Bring the samples of a pixel, which lie in all axes, together in one row."""
    rank = len(block)
    sizes = [stop - start for start, stop in block]
    parts = array.reshape([n for pair in zip(sizes, samples, strict=True) for n in pair])
    order = [*range(0, 2 * rank, 2), *range(1, 2 * rank, 2)]
    return parts.transpose(order).reshape(math.prod(sizes), -1)


def _snapped(values: NDArray[np.float64]) -> NDArray[np.float64]:
    nearest = np.rint(values)
    return np.where(np.abs(values - nearest) < _SNAP, nearest, values)
