"""The tiles of a plan as batches, each input chunk decoded about once."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.errors import InvalidInputError
from microtome.image import Channels, Level, MultiscaleImage, channel_indices
from microtome.jobs import read_ahead
from microtome.regions import ImageRegionData, TileSpecs, Windows, read_regions, region_batch
from microtome.tiling import TilePlan

from ._order import TileOrder

__all__ = [
    "TileReading",
    "iter_tile_batches",
    "level_index",
    "planned_level",
    "sample_count",
    "spatial_shape",
]


def iter_tile_batches(
    image: MultiscaleImage,
    plan: TilePlan,
    *,
    level: int = 0,
    channels: Channels | None = None,
    batch_size: int = 8,
    tiles: ArrayLike | None = None,
) -> Generator[ImageRegionData[TileSpecs]]:
    """Read the tiles of a plan as collated batches.

    Tiles come in the order in which a `Stitcher` can write soonest: shard by shard of the default
    layout, along the shorter side of the image, one sample (time point) after the other. The next
    block of the image is read by a thread while the caller works on this one. Order and batches
    depend on the plan alone.

    Parameters
    ----------
    image
        The image, over t, c, z, y, x or fewer of them.
    plan
        Tiles of the level, from `microtome.tiling.plan_tiles(shape, tile_size, overlap)`: of
        (Y, X), or of (Z, Y, X) where the image has planes. Its shape may be up to a tile larger
        than the level, which is padded with 0.
    level
        Index of the level.
    channels
        Channels by number or name; None for all.
    batch_size
        Tiles a batch; the last of a sample has what is left.
    tiles
        Which tiles there are, (samples, tiles) or (tiles,) booleans; None for all.

    Yields
    ------
    Batches whose data, (n, C, (Z), tile height, tile width) of the image's dtype, belong to the
    caller. What hangs over the edge of a small image is 0.

    Raises
    ------
    InvalidInputError
        If the image has other axes, the plan another shape, no channel is left or `batch_size` is
        not positive.
    UnknownNameError, OutOfRangeError
        If there is no such level or channel.
    """
    reading = TileReading.of(image, plan, level, channels, batch_size)
    kept = None if tiles is None else reading.mask_of(tiles)
    return reading.batches(kept)


def planned_level(image: MultiscaleImage, level: int, plan: TilePlan | None = None) -> Level:
    """Return a level whose tiles can be planned, and are by this plan.

    Raises
    ------
    InvalidInputError
        If it is no image, or the plan is of something else.
    """
    # A path is what people try first, and what would fail far from here.
    if not isinstance(image, MultiscaleImage):  # pyright: ignore[reportUnnecessaryIsInstance]
        msg = f"image must be a MultiscaleImage (microtome.open_image(path)), got {image!r}"
        raise InvalidInputError(msg)
    chosen = image.level(level)
    if plan is None:
        return chosen
    shape = spatial_shape(chosen)
    if len(plan.shape) != len(shape):
        msg = (
            f"{image.uri} has the axes {image.axes!r}: its tiles have {len(shape)} sizes along "
            f"{'zyx'[-len(shape) :]}, the plan has {plan.shape}"
        )
        raise InvalidInputError(msg)
    if not all(
        size <= planned < size + tile
        for size, planned, tile in zip(shape, plan.shape, plan.tile_size, strict=True)
    ):
        msg = (
            f"the plan covers {plan.shape}, level {level} of {image.uri} is {shape} pixels; plan "
            "the tiles of this level"
        )
        raise InvalidInputError(msg)
    return chosen


def spatial_shape(level: Level) -> tuple[int, ...]:
    """Return the shape of a level along (Z)YX; a single plane is no axis."""
    sizes = dict(zip(level.axes, level.shape, strict=True))
    return tuple(sizes[axis] for axis in ("zyx" if sizes.get("z", 1) > 1 else "yx"))


def sample_count(level: Level) -> int:
    """Return how many pictures a level holds: its time points."""
    return dict(zip(level.axes, level.shape, strict=True)).get("t", 1)


def level_index(image: MultiscaleImage, level: int) -> int:
    """Return the index, from 0, of a level that exists."""
    return level % image.level_count


@dataclass(frozen=True, slots=True)
class TileReading:
    """The tiles of one level, and how they are read.

    Parameters
    ----------
    image, plan
        What is read.
    level
        Index of the level, from 0.
    channels
        Numbers of the channels.
    batch_size
        Tiles a batch.
    samples
        Number of pictures.
    """

    image: MultiscaleImage
    plan: TilePlan
    level: int
    channels: list[int]
    batch_size: int
    samples: int

    @classmethod
    def of(
        cls,
        image: MultiscaleImage,
        plan: TilePlan,
        level: int,
        channels: Channels | None,
        batch_size: int,
    ) -> TileReading:
        """Check what is asked for; errors as of `iter_tile_batches`."""
        chosen = planned_level(image, level, plan)
        picked = channel_indices(channels, image.channel_names, image.nchannels)
        if not picked:
            msg = f"channels={channels!r} leaves none of the {image.nchannels} channels of {image.uri}"
            raise InvalidInputError(msg)
        if batch_size < 1:
            msg = f"batch_size must be at least 1, got {batch_size}"
            raise InvalidInputError(msg)
        at = level_index(image, level)
        return cls(image, plan, at, picked, batch_size, sample_count(chosen))

    def mask_of(self, tiles: ArrayLike) -> NDArray[np.bool_]:
        """Return which tiles there are, (samples, tiles)."""
        mask = np.asarray(tiles)
        wanted = (self.samples, len(self.plan))
        if mask.dtype != np.bool_ or mask.shape not in {wanted, wanted[1:]}:
            msg = f"tiles must be {wanted} booleans, one a tile, got {mask.shape} {mask.dtype}"
            raise InvalidInputError(msg)
        return np.broadcast_to(mask, wanted)

    def batches(
        self, kept: NDArray[np.bool_] | None = None, needed: NDArray[np.bool_] | None = None
    ) -> Generator[ImageRegionData[TileSpecs]]:
        """Read batches of the tiles that are kept, those only that hold one that is needed."""
        pixel_bytes = len(self.channels) * self.image.dtype.itemsize
        buffers = _Buffers(self.image.dtype)
        for sample in range(self.samples):
            order = TileOrder.of(
                self.plan,
                pixel_bytes,
                self.batch_size,
                kept=None if kept is None else kept[sample],
                needed=None if needed is None else needed[sample],
            )
            if len(order.indices):
                yield from self._of_sample(sample, order, buffers)

    def _of_sample(
        self, sample: int, order: TileOrder, buffers: _Buffers
    ) -> Generator[ImageRegionData[TileSpecs]]:
        count, size = len(order.indices), self.plan.tile_size
        # A list that is emptied when its batch goes out: memory is then one batch, not two.
        filling: list[NDArray[Any]] = []
        at = 0
        for (first, last), origin, pixels in self._blocks(sample, order, buffers):
            for start in (order.tiles.coords[first:last] - origin).tolist():
                if not filling:
                    shape = (min(self.batch_size, count - at), len(self.channels), *size)
                    filling.append(np.empty(shape, self.image.dtype))
                window = tuple(slice(a, a + s) for a, s in zip(start, size, strict=True))
                filling[0][at % self.batch_size] = pixels[(slice(None), *window)]
                at += 1
                if at % self.batch_size == 0 or at == count:
                    rows = slice(at - len(filling[0]), at)
                    yield self._described(sample, order, filling.pop(), rows)

    def _blocks(
        self, sample: int, order: TileOrder, buffers: _Buffers
    ) -> Iterator[tuple[tuple[int, int], NDArray[np.int64], NDArray[Any]]]:
        """Read blocks one ahead: which tiles each is for, its first pixel, and its pixels."""
        coords = order.tiles.coords
        spans = list(zip([0, *order.ends], order.ends, strict=False))
        corners = [
            (coords[a:b].min(axis=0), coords[a:b].max(axis=0) + self.plan.tile_size)
            for a, b in spans
        ]
        largest = max(int(np.prod(high - low)) for low, high in corners) * len(self.channels)

        def read(block: int) -> NDArray[Any]:
            low, high = corners[block]
            shape = (1, len(self.channels), *(high - low).tolist())
            out = buffers.get(block % 2, largest)[: int(np.prod(shape))].reshape(shape)
            windows = self._windows(sample, low[None], shape[2:])
            return read_regions([self.image], windows, channels=self.channels, out=out)[0]

        # Of one block nothing is read ahead.
        ahead = read_ahead(
            read, range(len(spans)), prefetch=min(1, len(spans) - 1), name="microtome-read"
        )
        with closing(ahead) as blocks:
            for span, (low, _), pixels in zip(spans, corners, blocks, strict=True):
                yield span, low, pixels

    def _windows(self, sample: int, start: NDArray[np.int64], size: tuple[int, ...]) -> Windows:
        windows = Windows.of(0, start, size, self.level)
        if self.samples == 1:
            return windows
        samples = np.full(len(windows), sample, np.int64)
        return Windows(windows.image, windows.start, windows.size, self.level, samples)

    def _described(
        self, sample: int, order: TileOrder, data: NDArray[Any], rows: slice
    ) -> ImageRegionData[TileSpecs]:
        tiles = order.tiles
        windows = self._windows(sample, tiles.coords[rows], self.plan.tile_size)
        specs = {
            "crop_coords": tiles.crop[rows],
            "crop_size": tiles.crop_size[rows],
            "stitch_coords": tiles.stitch[rows],
            "total_tiles": np.full(len(windows), len(self.plan) * self.samples, np.int64),
        }
        batch = region_batch([self.image], windows, data, channels=self.channels, specs=specs)
        return cast("ImageRegionData[TileSpecs]", batch)


class _Buffers:
    """Two blocks that take turns: touching memory for the first time costs as much as decoding."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._held: dict[int, NDArray[Any]] = {}

    def get(self, turn: int, size: int) -> NDArray[Any]:
        held = self._held.get(turn)
        if held is None or held.size < size:
            held = self._held[turn] = np.empty(size, self._dtype)
        return held
