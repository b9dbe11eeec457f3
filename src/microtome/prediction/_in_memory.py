"""Tiles put together in memory, by the same rules as on disk."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError
from microtome.regions import ImageRegionData
from microtome.storage import Box
from microtome.tiling import TilePlan

from ._blend import Blend
from ._canvas import Canvas, Made, scaled_shape
from ._mosaic import Unit
from ._output import checked_maps, place_of

__all__ = ["stitched"]


def stitched(
    batches: Iterable[ImageRegionData[Any]], plan: TilePlan | None, blend: Blend
) -> NDArray[Any]:
    """Put tiles together; see `stitch_tiles`."""
    begun: _Parts | _Planned | None = None
    for batch in batches:
        if begun is None:
            begun = _Parts() if plan is None else _Planned(plan, blend, batch)
        begun.add(batch)
    if begun is None:
        msg = "tiles are missing: there is not one"
        raise InvalidInputError(msg)
    return begun.finish()


class _Place:
    """Which image the tiles are of: all of one."""

    def __init__(self) -> None:
        self._known: tuple[Any, ...] | None = None

    def check(self, batch: ImageRegionData[Any], data: NDArray[Any], like: NDArray[Any]) -> None:
        spec = cast("dict[str, Any]", batch.region_spec)
        sources = set(zip(batch.source, np.asarray(spec["data_idx"]).tolist(), strict=True))
        self._known = self._known or next(iter(sources))
        channels = like.shape[1]
        if sources != {self._known} or data.shape[1] != channels or data.dtype != like.dtype:
            msg = (
                f"tiles of one image are stitched, all with {channels} channels of {like.dtype}; "
                f"got {data.shape[1]} of {data.dtype} from {sorted(sources)}"
            )
            raise InvalidInputError(msg)


class _Parts:
    """The kept parts that tiles state of themselves."""

    def __init__(self) -> None:
        self._canvas: NDArray[Any] | None = None
        self._covered = np.zeros((0,), np.bool_)
        self._scale: tuple[Any, ...] | None = None
        self._place = _Place()

    def add(self, batch: ImageRegionData[Any]) -> None:
        data, scale = checked_maps(batch, self._scale)
        if self._canvas is None:
            samples, shape = _shape_of(batch)
            self._scale = scale
            made = scaled_shape(shape, scale)
            self._canvas = np.empty((samples, data.shape[1], *made), data.dtype)
            self._covered = np.zeros((samples, *made), np.bool_)
        self._place.check(batch, data, self._canvas)
        spec = cast("dict[str, Any]", batch.region_spec)
        for row, tile in enumerate(data):
            sample = int(spec["sample_idx"][row])
            start, size, crop = (
                [
                    _scaled(int(value), factor)
                    for value, factor in zip(spec[key][row], scale, strict=True)
                ]
                for key in ("stitch_coords", "crop_size", "crop_coords")
            )
            stops = [
                min(a + s, n) for a, s, n in zip(start, size, self._covered.shape[1:], strict=True)
            ]
            target = tuple(map(slice, start, stops))
            within = tuple(slice(c, c + b - a) for c, a, b in zip(crop, start, stops, strict=True))
            covered = self._covered[(sample, *target)]
            if covered.any():
                msg = f"{place_of(batch, row)} covers pixels that another tile has covered"
                raise InvalidInputError(msg)
            covered[...] = True
            self._canvas[(sample, slice(None), *target)] = tile[(slice(None), *within)]

    def finish(self) -> NDArray[Any]:
        if self._canvas is None or not self._covered.all():
            msg = f"tiles are missing: {int(self._covered.sum())} of {self._covered.size} pixels are covered"
            raise InvalidInputError(msg)
        return self._canvas if len(self._canvas) > 1 else self._canvas[0]


class _Planned:
    """The shares that a plan and a blend give to tiles."""

    def __init__(self, plan: TilePlan, blend: Blend, first: ImageRegionData[Any]) -> None:
        samples, shape = _shape_of(first)
        self._samples = samples
        self._out: NDArray[Any] | None = None
        self._place = _Place()
        self._canvas = Canvas("an array", plan, samples, shape, self._begin, blend=blend)

    def add(self, batch: ImageRegionData[Any]) -> None:
        self._canvas.add(batch)
        if self._out is not None:
            self._place.check(batch, np.asarray(batch.data), self._out)

    def finish(self) -> NDArray[Any]:
        missing = self._canvas.missing()
        if missing is not None or self._out is None:
            self._canvas.close()
            msg = f"tiles are missing: {missing and missing[0]}, the first at {missing and missing[1]}"
            raise InvalidInputError(msg)
        self._canvas.settle()
        self._canvas.close()
        return self._out if self._samples > 1 else self._out[0]

    def _begin(self, made: Made) -> _ArrayInMemory:
        self._out = np.empty((self._samples, made.channels, *made.shape), made.dtype)
        return _ArrayInMemory(self._out)


class _ArrayInMemory:
    """An array that is written in one piece."""

    def __init__(self, out: NDArray[Any]) -> None:
        self._out = out

    @property
    def unit(self) -> tuple[int, ...]:
        return self._out.shape[2:]

    def is_done(self, unit: Unit, /) -> bool:
        del unit
        return False

    def write(self, unit: Unit, box: Box, pixels: NDArray[Any], /) -> None:
        self._out[(unit[0], *(slice(*span) for span in box))] = pixels


def _shape_of(batch: ImageRegionData[Any]) -> tuple[int, tuple[int, ...]]:
    spec = cast("dict[str, Any]", batch.region_spec)
    rank = len(spec["patch_size"][0])
    shape = [int(sizes[0]) for sizes in batch.data_shape]
    return shape[0], tuple(shape[-rank:])


def _scaled(value: int, factor: Any) -> int:
    scaled = value * factor
    if scaled.denominator != 1:
        msg = (
            f"a tile is kept from pixel {value}, which lies inside one of the model's pixels of "
            f"{factor.denominator}; plan tiles and overlaps that are multiples of it"
        )
        raise InvalidInputError(msg)
    return int(scaled)
