"""Tiles in, write units out: what a `Stitcher` and `predict` have in common."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial, reduce
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError, ModeError
from microtome.regions import ImageRegionData
from microtome.storage import Box
from microtome.tiling import TilePlan

from ._blend import AxisShares, Blend, shares_of
from ._mosaic import Mosaic, Unit
from ._output import checked_maps, place_of, verify_finite

__all__ = ["Canvas", "Made", "Target", "scaled_shape"]

# Units that are written while tiles come: one is encoded while the next fills up.
_WRITES = 1


@dataclass(frozen=True, slots=True)
class Made:
    """What a model makes of an image, known from its first batch.

    Parameters
    ----------
    channels
        Their number.
    dtype
        Of a pixel.
    scale
        Pixels of the output for one of the input along (Z)YX.
    shape
        Of the picture along (Z)YX.
    """

    channels: int
    dtype: np.dtype[Any]
    scale: tuple[Fraction, ...]
    shape: tuple[int, ...]


class Target(Protocol):
    """Where the pictures are written."""

    @property
    def unit(self) -> tuple[int, ...]:
        """Write unit along (Z)YX."""
        ...

    def is_done(self, unit: Unit, /) -> bool:
        """Whether a unit was written before, and takes nothing more."""
        ...

    def write(self, unit: Unit, box: Box, pixels: NDArray[Any], /) -> None:
        """Write a unit; called in one thread at a time, and not that of the tiles."""
        ...


class Canvas:
    """The pictures of one image, put together from tiles.

    Parameters
    ----------
    where
        Name of what is made, for messages.
    plan
        The tiles.
    samples
        Number of pictures.
    shape
        Of the level that the tiles were cut from, along (Z)YX.
    begin
        Called with what the model makes when the first batch comes.
    blend
        What is done where tiles overlap.
    kept
        Which tiles come, (samples, tiles); None for all.
    fill
        Value of the pixels of tiles that do not come.
    allow_nan
        Whether NaN and infinity may be written.
    spill
        Directory of what waits on disk.
    """

    def __init__(  # noqa: PLR0913 - keyword-only after the geometry
        self,
        where: str,
        plan: TilePlan,
        samples: int,
        shape: Sequence[int],
        begin: Callable[[Made], Target],
        *,
        blend: Blend = "crop",
        kept: NDArray[np.bool_] | None = None,
        fill: float = 0,
        allow_nan: bool = False,
        spill: Path | None = None,
    ) -> None:
        self._where = where
        self._plan = plan
        self._samples = samples
        self._shape = tuple(shape)
        self._begin = begin
        self._blend: Blend = blend
        self._kept = kept
        self._fill = fill
        self._allow_nan = allow_nan
        self._spill = spill
        self._seen = np.zeros((samples, *plan.grid), np.bool_)
        self._starts = _axis_starts(plan)
        self._begun: _Begun | None = None

    @property
    def made(self) -> Made | None:
        """What the model makes; None before the first batch."""
        return None if self._begun is None else self._begun.made

    @property
    def tiles_done(self) -> int:
        """Number of tiles that have come."""
        return int(self._seen.sum())

    @property
    def tiles_planned(self) -> int:
        """Number of tiles that come in all."""
        return self._seen.size if self._kept is None else int(self._kept.sum())

    def missing(self) -> tuple[int, tuple[int, ...]] | None:
        """Return how many tiles are missing, and the place of the first; None where none is."""
        wanted = np.ones_like(self._seen)
        if self._kept is not None:
            wanted = self._kept.reshape(self._seen.shape)
        left = wanted & ~self._seen
        if not left.any():
            return None
        first = np.argwhere(left)[0][1:]
        at = tuple(int(s[i]) for s, i in zip(self._starts, first, strict=True))
        return int(left.sum()), at

    def start(self, made: Made) -> None:
        """Begin the pictures of a model whose answers are known."""
        self._begin_with(made)

    def add(self, batch: ImageRegionData[Any]) -> None:
        """Put the tiles of a batch in their places; errors as of `Stitcher.add`."""
        begun = self._begun
        data, scale = checked_maps(batch, None if begun is None else begun.made.scale)
        if begun is None:
            made = Made(data.shape[1], data.dtype, scale, scaled_shape(self._shape, scale))
            begun = self._begin_with(made)
        elif (data.shape[1], data.dtype) != (begun.made.channels, begun.made.dtype):
            msg = (
                f"the model returned {data.shape[1]} channels of {data.dtype} from "
                f"{place_of(batch, 0)}, before that {begun.made.channels} of {begun.made.dtype}"
            )
            raise InvalidInputError(msg)
        spec = cast("dict[str, Any]", batch.region_spec)
        coords = np.asarray(spec["coords"], np.int64)
        samples = np.asarray(spec.get("sample_idx", np.zeros(len(data))), np.int64)
        for row, tile in enumerate(data):
            sample = int(samples[row])
            at = self._mark(batch, row, sample, coords[row])
            start, part = self._share(begun, tile, at, partial(place_of, batch, row))
            begun.mosaic.paste(sample, start, part, done=begun.target.is_done)

    def needed(self) -> NDArray[np.bool_]:
        """Return which tiles have a share of a unit that is not done, (samples, tiles).

        The others count as come.
        """
        begun = self._started()
        needed = np.zeros_like(self._seen)
        for unit in self._units():
            if not begun.target.is_done(unit):
                needed[(unit[0], *self._tiles_of(unit))] = True
        if self._kept is not None:
            needed &= self._kept.reshape(needed.shape)
        return needed.reshape(self._samples, -1)

    def finish(self) -> None:
        """Write what has no tile of its own, and wait until all is written.

        Raises
        ------
        InvalidInputError
            If units are missing.
        """
        begun = self._started()
        for unit in self._units() if self._kept is not None else ():
            if not begun.target.is_done(unit) and not self._expected(unit):
                box = begun.mosaic.box(unit)
                shape = [stop - start for start, stop in box]
                self._write(unit, box, np.full(shape, self._fill, begun.made.dtype))
        begun.settle()
        left = [unit for unit in self._units() if not begun.target.is_done(unit)]
        if left:
            msg = f"{self._where}: {len(left)} parts are incomplete, the first at {left[0]}"
            raise InvalidInputError(msg)

    def _units(self) -> Iterator[Unit]:
        begun = self._started()
        counts = [
            range(-(-length // unit))
            for length, unit in zip(begun.made.shape, begun.target.unit, strict=True)
        ]
        return product(range(self._samples), *counts)

    def settle(self) -> None:
        """Wait until all that is complete is written."""
        if self._begun is not None:
            self._begun.settle()

    def close(self) -> None:
        """End, and let go of what is incomplete; nothing is being written any more."""
        begun, self._begun = self._begun, None
        if begun is not None:
            begun.writer.shutdown(wait=True, cancel_futures=True)
            begun.mosaic.close()

    def _begin_with(self, made: Made) -> _Begun:
        shares = shares_of(self._plan, self._blend, made.scale, made.shape)
        target = self._begin(made)
        adding = shares[0].weights is not None
        counts = tuple(s.touching(unit) for s, unit in zip(shares, target.unit, strict=True))
        writer = ThreadPoolExecutor(1, thread_name_prefix="microtome-write")
        mosaic = Mosaic(
            (made.channels, *made.shape),
            target.unit,
            self._expected,
            self._write,
            dtype=_sum_type(made.dtype) if adding else made.dtype,
            adding=adding,
            partial=None if self._kept is None else lambda unit: self._left_out(unit) > 0,
            fill=self._fill,
            spill=self._spill,
        )
        self._begun = _Begun(made, shares, counts, target, mosaic, writer)
        return self._begun

    def _share(
        self, begun: _Begun, tile: NDArray[Any], at: tuple[int, ...], place: Callable[[], str]
    ) -> tuple[list[int], NDArray[Any]]:
        """Return the part of a tile that goes into the picture, and where it goes."""
        along = list(zip(begun.shares, at, strict=True))
        window = tuple(
            slice(*(shares.low[i], shares.high[i]) - shares.starts[i]) for shares, i in along
        )
        part = tile[(slice(None), *window)]
        if not self._allow_nan and part.dtype.kind == "f":
            verify_finite(part, place)
        start = [int(shares.low[i]) for shares, i in along]
        weights = [s.weights[i] for s, i in along if s.weights is not None]
        if not weights:
            return start, part
        kind = _sum_type(part.dtype)
        if self._fill:
            part = part.astype(kind) - kind.type(self._fill)
        factors = [
            weight[inside].astype(kind) for weight, inside in zip(weights, window, strict=True)
        ]
        return start, np.multiply(part, reduce(np.multiply.outer, factors), dtype=kind)

    def _mark(
        self, batch: ImageRegionData[Any], row: int, sample: int, coords: NDArray[np.int64]
    ) -> tuple[int, ...]:
        """Tick a tile off; it must be one of the plan that has not come before."""
        at = tuple(
            min(int(np.searchsorted(starts, value)), len(starts) - 1)
            for starts, value in zip(self._starts, coords, strict=True)
        )
        spec = cast("dict[str, Any]", batch.region_spec)
        stated = [
            tuple(int(value) for value in spec[key][row])
            for key in ("coords", "patch_size", "stitch_coords", "crop_size")
        ]
        number = int(np.ravel_multi_index(at, self._plan.grid))
        tile = self._plan.take([number])
        places = [tuple(c[0].tolist()) for c in (tile.coords, tile.stitch, tile.crop_size)]
        planned = [places[0], self._plan.tile_size, *places[1:]]
        if stated != planned or not 0 <= sample < self._samples:
            msg = f"{place_of(batch, row)} keeps {stated[3]} pixels for {stated[2]}: not a tile of the plan"
            raise InvalidInputError(msg)
        if self._seen[(sample, *at)]:
            msg = f"{place_of(batch, row)} came twice"
            raise InvalidInputError(msg)
        if self._kept is not None and not self._kept[sample, number]:
            msg = f"{place_of(batch, row)} was to be left out"
            raise InvalidInputError(msg)
        self._seen[(sample, *at)] = True
        return at

    def _expected(self, unit: Unit) -> int:
        counts = self._started().counts
        pieces = prod(int(count[i]) for count, i in zip(counts, unit[1:], strict=True))
        return pieces if self._kept is None else pieces - self._left_out(unit)

    def _left_out(self, unit: Unit) -> int:
        if self._kept is None:
            return 0
        kept = self._kept[unit[0]].reshape(self._plan.grid)
        return int((~kept[self._tiles_of(unit)]).sum())

    def _tiles_of(self, unit: Unit) -> tuple[slice, ...]:
        """Return which tiles, along each axis of the plan's grid, have a share of a unit."""
        begun = self._started()
        spans: list[slice] = []
        for shares, step, number in zip(begun.shares, begun.target.unit, unit[1:], strict=True):
            low, high = number * step, min((number + 1) * step, shares.length)
            touching = np.flatnonzero((shares.low < high) & (shares.high > low))
            spans.append(slice(int(touching[0]), int(touching[-1]) + 1))
        return tuple(spans)

    def _write(self, unit: Unit, box: Box, pixels: NDArray[Any]) -> None:
        begun = self._started()
        begun.settle(_WRITES - 1)
        begun.writes.append(begun.writer.submit(begun.write, unit, box, pixels))

    def _started(self) -> _Begun:
        if self._begun is None:
            msg = f"{self._where} was not begun"
            raise ModeError(msg)
        return self._begun


@dataclass(frozen=True, slots=True)
class _Begun:
    """What there is from the first batch on."""

    made: Made
    shares: tuple[AxisShares, ...]
    counts: tuple[NDArray[np.int64], ...]
    target: Target
    mosaic: Mosaic
    writer: ThreadPoolExecutor
    writes: deque[Future[None]] = field(default_factory=deque[Future[None]])

    def settle(self, most: int = 0) -> None:
        """Wait until no more than so many units are being written."""
        while len(self.writes) > most:
            self.writes.popleft().result()

    def write(self, unit: Unit, box: Box, pixels: NDArray[Any]) -> None:
        """Write a unit, in the writer's thread."""
        self.target.write(unit, box, _rounded(pixels, self.made.dtype))
        self.mosaic.reuse(pixels)


def scaled_shape(shape: Sequence[int], scale: Sequence[Fraction]) -> tuple[int, ...]:
    """Return the shape of what is made of a picture; a part of a pixel counts as one."""
    return tuple(
        -(-size * factor.numerator // factor.denominator)
        for size, factor in zip(shape, scale, strict=True)
    )


def _axis_starts(plan: TilePlan) -> tuple[NDArray[np.int64], ...]:
    grid = plan.grid
    steps = [prod(grid[axis + 1 :]) for axis in range(len(grid))]
    return tuple(
        plan.take(np.arange(count) * step).coords[:, axis]
        for axis, (count, step) in enumerate(zip(grid, steps, strict=True))
    )


def _sum_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type that shares are added up in: float32 where that holds every value."""
    small = dtype.itemsize <= 2 or dtype == np.float32
    return np.dtype(np.float32 if small else np.float64)


def _rounded(pixels: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return sums as values of the model's own type."""
    if pixels.dtype == dtype:
        return pixels
    if dtype.kind == "f":
        return pixels.astype(dtype)
    limits = np.iinfo(dtype)
    np.rint(pixels, out=pixels)
    # A mean of values of the type lies between them, but for what the sum was rounded by.
    return np.clip(pixels, limits.min, limits.max, out=pixels).astype(dtype)
