"""Tiles for prediction: overlapping windows whose kept parts partition the image exactly.

Coordinates follow CAREamics' tiled patching, number for number, for even overlaps; odd overlaps,
where it writes one line of pixels twice, are exact here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.errors import InvalidInputError, OutOfRangeError

from ._tile import per_axis

__all__ = ["PlannedTiles", "TilePlan", "plan_tiles"]


@dataclass(frozen=True, slots=True, eq=False)
class PlannedTiles:
    """Some tiles of a plan as columns; d is the number of spatial axes."""

    coords: NDArray[np.int64]
    """(n, d) first pixel of each tile in the image."""
    stitch: NDArray[np.int64]
    """(n, d) where its kept part goes in the image."""
    crop: NDArray[np.int64]
    """(n, d) where its kept part starts in the tile."""
    crop_size: NDArray[np.int64]
    """(n, d) size of its kept part."""

    def __len__(self) -> int:
        return len(self.coords)


@dataclass(frozen=True, slots=True)
class _AxisPlan:
    """The plan along one axis: tiles start at `coords` and keep `[seams[i], seams[i + 1])`."""

    coords: NDArray[np.int64]
    seams: NDArray[np.int64]

    @classmethod
    def of(cls, length: int, tile: int, overlap: int) -> _AxisPlan:
        if length <= tile:
            return cls(np.zeros(1, np.int64), np.array([0, length], np.int64))
        # Tiles step by what they do not share, and the last is moved back to end with the image.
        # A seam lies half an overlap inside the tile to its right; as both neighbours know the
        # same seam, kept parts meet without a gap and without writing a line twice.
        coords = np.arange(0, length - overlap, tile - overlap, dtype=np.int64)
        seams = np.append(coords + overlap // 2, length)
        seams[0] = 0
        coords[-1] = length - tile
        return cls(coords, seams)


@dataclass(frozen=True, slots=True, eq=False)
class TilePlan:
    """Tiles that cover an image, in row-major order of their places.

    Only the places along each axis are kept, so a plan of a million tiles is a few kilobytes;
    `take` computes any of them. The columns of all tiles (`coords`, `stitch`, `crop`,
    `crop_size`) are computed when first asked for.
    """

    shape: tuple[int, ...]
    """Of the image, spatial axes only."""
    tile_size: tuple[int, ...]
    overlap: tuple[int, ...]
    _axes: tuple[_AxisPlan, ...] = field(repr=False)
    _all: list[PlannedTiles] = field(init=False, repr=False, default_factory=list[PlannedTiles])

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of tiles along each axis."""
        return tuple(axis.coords.size for axis in self._axes)

    def __len__(self) -> int:
        return prod(self.grid)

    def take(self, indices: slice | ArrayLike) -> PlannedTiles:
        """Columns of some tiles.

        Parameters
        ----------
        indices
            A slice, or integers from 0 to the number of tiles.

        Raises
        ------
        OutOfRangeError
            If an index is outside the plan.
        """
        if isinstance(indices, slice):
            chosen = np.arange(*indices.indices(len(self)), dtype=np.int64)
        else:
            chosen = _integers(indices)
        wrong = chosen[(chosen < 0) | (chosen >= len(self))]
        if wrong.size:
            raise OutOfRangeError(f"tile {wrong[0]} of a plan of {len(self)}")
        places = np.unravel_index(chosen, self.grid)
        pairs = list(zip(self._axes, places, strict=True))
        coords = np.stack([axis.coords[place] for axis, place in pairs], axis=-1)
        stitch = np.stack([axis.seams[place] for axis, place in pairs], axis=-1)
        ends = np.stack([axis.seams[place + 1] for axis, place in pairs], axis=-1)
        return PlannedTiles(coords, stitch, stitch - coords, ends - stitch)

    @property
    def coords(self) -> NDArray[np.int64]:
        """(n, d) first pixel of every tile; only where the image is smaller does it hang over."""
        return self._whole().coords

    @property
    def stitch(self) -> NDArray[np.int64]:
        """(n, d) where the kept part of every tile goes in the image."""
        return self._whole().stitch

    @property
    def crop(self) -> NDArray[np.int64]:
        """(n, d) where the kept part starts in every tile."""
        return self._whole().crop

    @property
    def crop_size(self) -> NDArray[np.int64]:
        """(n, d) size of the kept part of every tile."""
        return self._whole().crop_size

    def _whole(self) -> PlannedTiles:
        if not self._all:
            self._all.append(self.take(slice(None)))
        return self._all[0]


def plan_tiles(
    shape: Sequence[int], tile_size: int | Sequence[int], overlap: int | Sequence[int]
) -> TilePlan:
    """Cover an image with overlapping tiles of one size, each keeping the part nearest to it.

    The kept parts cover every pixel exactly once, and between two tiles each keeps at least
    `overlap // 2` pixels away from its own border. Along an axis longer than the tile every tile
    lies inside the image: the last one is moved back. Along a shorter axis there is one tile,
    which hangs over the far edge and keeps the whole axis.

    Parameters
    ----------
    shape
        Spatial shape of the image, (height, width) or (depth, height, width).
    tile_size
        Pixels; one int for every axis, or one per axis.
    overlap
        Pixels that neighbouring tiles share, at least 0 and below the tile size; one int for
        every axis, or one per axis. May be odd.

    Raises
    ------
    InvalidInputError
        If a number is outside its range, or there is not one per axis.

    Examples
    --------
    >>> plan = plan_tiles((100, 65), 64, 16)
    >>> plan.grid
    (2, 2)
    >>> plan.coords.tolist()
    [[0, 0], [0, 1], [36, 0], [36, 1]]
    >>> plan.stitch.tolist()
    [[0, 0], [0, 56], [56, 0], [56, 56]]
    >>> plan.crop_size.tolist()
    [[56, 56], [56, 9], [44, 56], [44, 9]]
    """
    lengths = per_axis(shape, None, "shape", least=1)
    sizes = per_axis(tile_size, len(lengths), "tile_size", least=1)
    shared = per_axis(overlap, len(lengths), "overlap", least=0)
    if any(over >= size for over, size in zip(shared, sizes, strict=True)):
        raise InvalidInputError(
            f"overlap must be smaller than the tile on every axis, got {shared} with tiles {sizes}; "
            "give overlap= less, or tile_size= more"
        )
    axes = tuple(map(_AxisPlan.of, lengths, sizes, shared))
    return TilePlan(lengths, sizes, shared, axes)


def _integers(indices: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(indices)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise InvalidInputError(
            f"tile indices must be a list of integers, got shape {array.shape} of {array.dtype}"
        )
    return array.astype(np.int64)
