"""Pixels of tiles: windows of a level's pixel grid, or grids along a coordinate system's axes."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from microtome.coordinates import AffineTransform
from microtome.image import Resampling
from microtome.regions import (
    ImageRegionData,
    Padding,
    Windows,
    collate_regions,
    decollate_regions,
    read_regions,
    region_batch,
)
from microtome.storage import Conversion

from ._plan import Pair, TilePlan

__all__ = ["GridReader", "rasterized"]

# Of a pixel: a grid this close to whole pixels of a level is those pixels.
_SAME = 1e-6

_Places = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]


class _Scratch(threading.local):
    """Memory of each thread for pixels as they are stored: used again, it costs nothing to touch."""

    pixels: NDArray[Any] | None = None


_SCRATCH = _Scratch()


def rasterized(
    plan: TilePlan, pair: Pair, row: int, size: tuple[int, int], method: Resampling
) -> NDArray[Any]:
    """Return a tile resampled onto `size` pixels (y, x), 0 outside the image."""
    levels, starts, whole = _grids(plan, pair, np.array([row]), size, method)
    if not whole[0]:
        return _resampled(pair, plan.box(row), size, method, 0)
    image, depth = pair.picture.image, pair.depth
    start = [*(0 for _ in depth), *starts[0].tolist()]
    read = read_regions([image], Windows.of(0, start, (*depth, *size), int(levels[0])))
    return read[0] if "c" in image.axes else read[0, 0]


def _resampled(
    pair: Pair,
    box: tuple[float, float, float, float],
    size: tuple[int, int],
    method: Resampling,
    padding: Padding,
    dtype: DTypeLike | None = None,
) -> NDArray[Any]:
    """Resample a box of a coordinate system onto `size` pixels, from the level that suits them."""
    level = pair.level_for(min((box[3] - box[1]) / size[0], (box[2] - box[0]) / size[1]))
    read = pair.picture.image.read_spatial_region(
        level,
        box,
        region_transform=AffineTransform(("x", "y"), ("x", "y"), pair.to_pixels),
        resample=method,
        grid_shape=size,
        pad=padding,
        dtype=dtype,
    )
    return read.data


@dataclass(frozen=True, slots=True)
class GridReader:
    """Reads tiles of one size, many at once.

    Integers that are resampled to other values than there are become float32: rounded, of counts
    below one half nothing would be left.

    Parameters
    ----------
    plan
        The tiles.
    pairs
        What each region's are read from.
    size
        Pixels (y, x) of every tile.
    rasterize
        Whether tiles are resampled into the coordinate system; else they are windows around the
        centres on the pixel grid of the level that suits `pixel`.
    method, padding
        How they are resampled, and what stands outside the image.
    pixel
        Pixel size that was asked for, in units of the coordinate system; None for the finest level.
    """

    plan: TilePlan
    pairs: Sequence[Pair]
    size: tuple[int, int]
    rasterize: bool
    method: Resampling
    padding: Padding
    pixel: float | None

    def read(
        self, rows: NDArray[np.int64], facts: Sequence[dict[str, Any]]
    ) -> ImageRegionData[Any]:
        """Read tiles into one collated batch of the stored type, or float32; see the class.

        Parameters
        ----------
        rows
            Which tiles, in the order wanted.
        facts
            What else is known of each of them.
        """
        return self._read(rows, facts, None, convert=Conversion.of() if self._mixes else None)

    @property
    def _mixes(self) -> bool:
        stored = self.pairs[0].picture.image.dtype
        return self.rasterize and self.method != "nearest" and stored.kind != "f"

    def read_as(
        self, rows: NDArray[np.int64], facts: Sequence[dict[str, Any]], dtype: np.dtype[Any]
    ) -> ImageRegionData[Any]:
        """Read tiles into one collated batch of another type."""
        first = self.pairs[0]
        stored = first.picture.image.dtype
        if dtype == stored:
            return self._read(rows, facts, None)
        if dtype == np.float32 and (self._mixes or _holds(stored, self.padding)):
            # Converted while a chunk's pixels are at hand: another array costs more than the read.
            return self._read(rows, facts, None, convert=Conversion.of())
        count = len(rows) * first.channels * math.prod((*first.depth, *self.size))
        scratch, _SCRATCH.pixels = _SCRATCH.pixels, None  # nobody else's while it is written to
        if scratch is None or scratch.dtype != stored or len(scratch) < count:
            scratch = np.empty(count, stored)
        batch = self._read(rows, facts, scratch[:count])
        converted = batch._replace(data=batch.data.astype(dtype))
        _SCRATCH.pixels = scratch
        return converted

    def _read(
        self,
        rows: NDArray[np.int64],
        facts: Sequence[dict[str, Any]],
        buffer: NDArray[Any] | None,
        *,
        convert: Conversion | None = None,
    ) -> ImageRegionData[Any]:
        levels, starts, whole = self._windows(rows)
        if not self.rasterize:
            for one, box in zip(facts, self._boxes(rows, levels, starts), strict=True):
                one["box"] = box
        images = [pair.picture.image for pair in self.pairs]
        numbers = self.plan.region[rows].astype(np.int64)
        first = self.pairs[int(numbers[0])]
        size = (*first.depth, *self.size)
        starts = np.concatenate([np.zeros((len(rows), len(first.depth)), np.int64), starts], axis=1)
        shape = (len(rows), first.channels, *size)
        target = None if buffer is None else buffer.reshape(shape)
        if whole.all() and (levels == levels[0]).all():
            # One request for all of them; a new batch is memory that an earlier one has left.
            windows = Windows.of(numbers, starts, size, int(levels[0]))
            pixels = read_regions(
                images, windows, out=target, padding=self.padding, convert=convert
            )
            return region_batch(images, windows, pixels, metadata=facts)
        dtype = first.picture.image.dtype if convert is None else np.float32
        out = np.empty(shape, dtype) if target is None else target
        told: list[ImageRegionData[Any]] = []
        order: list[NDArray[np.intp]] = []
        for level in np.unique(levels).tolist():
            mine = np.flatnonzero(levels == level)
            windows = Windows.of(numbers[mine], starts[mine], size, level)
            if whole[mine].all():
                out[mine] = read_regions(images, windows, padding=self.padding, convert=convert)
            else:
                for at in mine.tolist():
                    row = int(rows[at])
                    pair = self.pairs[int(self.plan.region[row])]
                    box = self.plan.box(row)
                    kind = np.float32 if self._mixes else None
                    out[at] = _resampled(pair, box, self.size, self.method, self.padding, kind)
            own = [facts[at] for at in mine.tolist()]
            if len(mine) == len(rows):
                return region_batch(images, windows, out, metadata=own)
            told.append(region_batch(images, windows, out[mine], metadata=own))
            order.append(mine)
        regions = [region for batch in told for region in decollate_regions(batch)]
        back = np.argsort(np.concatenate(order))
        return collate_regions([regions[at] for at in back.tolist()])

    def _boxes(
        self, rows: NDArray[np.int64], levels: NDArray[np.int64], starts: NDArray[np.int64]
    ) -> list[tuple[float, ...]]:
        """Return where in the system windows lie that are cut from the pixel grid, as bounding boxes."""
        height, width = self.size
        corners = np.array([[0, 0], [width, 0], [0, height], [width, height]])
        found: list[tuple[float, ...]] = []
        for row, level, start in zip(rows.tolist(), levels.tolist(), starts, strict=True):
            back = np.linalg.inv(self.pairs[int(self.plan.region[row])].to_level(level))
            places = (corners + start[::-1]) @ back[:2, :2].T + back[:2, 2]
            found.append((*places.min(axis=0).tolist(), *places.max(axis=0).tolist()))
        return found

    def _windows(self, rows: NDArray[np.int64]) -> _Places:
        """Return each tile's level, first pixel (y, x) in it, and whether it is those pixels."""
        levels = np.zeros(len(rows), np.int64)
        starts = np.zeros((len(rows), 2), np.int64)
        whole = np.ones(len(rows), np.bool_)
        for number in np.unique(self.plan.region[rows]).tolist():
            pair = self.pairs[number]
            mine = np.flatnonzero(self.plan.region[rows] == number)
            if self.rasterize:
                found = _grids(self.plan, pair, rows[mine], self.size, self.method)
                levels[mine], starts[mine], whole[mine] = found
                continue
            level = 0 if self.pixel is None else pair.level_for(self.pixel)
            matrix = pair.to_level(level)
            middle = self.plan.centres[rows[mine]] @ matrix[:2, :2].T + matrix[:2, 2]
            levels[mine] = level
            starts[mine] = np.floor(middle[:, ::-1] - np.asarray(self.size) / 2 + 0.5)
        return levels, starts, whole


def _holds(dtype: np.dtype[Any], padding: Padding) -> bool:
    """Return whether what stands outside is a value of pixels as they are stored."""
    if isinstance(padding, str) or dtype.kind == "f":
        return True
    with np.errstate(invalid="ignore"):  # of what does not fit
        return bool(np.asarray(padding).astype(dtype) == padding)


def _grids(
    plan: TilePlan, pair: Pair, rows: NDArray[np.int64], size: tuple[int, int], method: Resampling
) -> _Places:
    """Return the levels that suit tiles divided into pixels, and which of their grids are those."""
    sides = np.broadcast_to(plan.extent, len(plan))[rows]
    corners = plan.centres[rows] - sides[:, None] / 2
    levels = np.zeros(len(rows), np.int64)
    starts = np.zeros((len(rows), 2), np.int64)
    whole = np.zeros(len(rows), np.bool_)
    steps = sides[:, None] / np.asarray(size[::-1])
    kinds, kind = np.unique(steps.min(axis=1), return_inverse=True)
    levels[:] = np.array([pair.level_for(float(step)) for step in kinds], np.int64)[kind]
    for level in np.unique(levels).tolist():
        mine = levels == level
        matrix = pair.to_level(level)
        grid = matrix[:2, :2] * steps[mine][:, None, :]
        first = corners[mine] @ matrix[:2, :2].T + matrix[:2, 2]
        near = np.floor(first + 0.5 + _SAME)
        drift = np.abs(grid - np.eye(2)).max(axis=(1, 2)) * max(size)
        # The nearest pixel of a shifted grid is the same for all; in between it is none.
        fits = (method == "nearest") | (np.abs(first - near).max(axis=1) <= _SAME)
        whole[mine] = (drift < _SAME) & fits
        starts[mine] = near[:, ::-1]
    return levels, starts, whole
