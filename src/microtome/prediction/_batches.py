"""The tiles of a plan as batches, each input chunk decoded about once."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError
from microtome.image import Channels, Level, MultiscaleImage, channel_indices
from microtome.regions import ImageRegionData, TileSpecs, Windows, read_regions, region_batch
from microtome.tiling import PlannedTiles, TilePlan

__all__ = ["iter_tile_batches", "level_index", "plane_level"]

# Tiles are visited block by block, blocks of each size inside those of the size before, so that
# the output's shards (2048 or 1024 pixels wide, see `microtome.storage`) fill up one by one.
_BLOCKS = (2048, 1024, 512)
# The largest block below this is read at once, two are in memory. Tiles of 512 and an overlap of 64
# decode each chunk of 128 pixels 1.2 times on average in blocks of 2048 pixels, 1.4 in blocks of
# 1024, and twice if read tile by tile; chunks of 1024 pixels 2.2, 3.3 and 11 times.
_BLOCK_BYTES = 32 * 2**20


def iter_tile_batches(
    image: MultiscaleImage,
    plan: TilePlan,
    *,
    level: int = 0,
    channels: Channels | None = None,
    batch_size: int = 8,
) -> Generator[ImageRegionData[TileSpecs]]:
    """Read the tiles of a plan as collated batches.

    Tiles come in the order in which a `Stitcher` can write soonest: shard by shard of the default
    layout, along the shorter side of the image. The next block of the image is read by a thread
    while the caller works on this one.

    Parameters
    ----------
    image
        The image, over c, y, x or y, x.
    plan
        Tiles of the level, from `microtome.tiling.plan_tiles(shape, tile_size, overlap)`.
    level
        Index of the level.
    channels
        Channels by number or name; None for all.
    batch_size
        Tiles a batch; the last has what is left.

    Yields
    ------
    Batches whose data, (n, C, tile height, tile width) of the image's dtype, belong to the
    caller. What hangs over the edge of a small image is 0.

    Raises
    ------
    InvalidInputError
        If the image has other axes, the plan another shape, no channel is left or `batch_size` is
        not positive.
    UnknownNameError, OutOfRangeError
        If there is no such level or channel.
    """
    chosen = plane_level(image, level)
    if plan.shape != chosen.shape[-2:]:
        msg = (
            f"the plan covers {plan.shape}, level {level} of {image.uri} is {chosen.shape[-2:]} "
            "pixels; plan the tiles of this level"
        )
        raise InvalidInputError(msg)
    picked = channel_indices(channels, image.channel_names, image.nchannels)
    if not picked:
        msg = f"channels={channels!r} leaves none of the {image.nchannels} channels of {image.uri}"
        raise InvalidInputError(msg)
    if batch_size < 1:
        msg = f"batch_size must be at least 1, got {batch_size}"
        raise InvalidInputError(msg)
    return _batches(image, plan, level_index(image, level), picked, batch_size)


def plane_level(image: MultiscaleImage, level: int) -> Level:
    """Return a level of an image that has planes only.

    Raises
    ------
    InvalidInputError
        If it is no image, or one with time or depth.
    """
    # A path is what people try first, and what would fail far from here.
    if not isinstance(image, MultiscaleImage):  # pyright: ignore[reportUnnecessaryIsInstance]
        msg = f"image must be a MultiscaleImage (microtome.open_image(path)), got {image!r}"
        raise InvalidInputError(msg)
    if image.axes not in {"cyx", "yx"}:
        msg = (
            f"{image.uri} has the axes {image.axes!r}; tiles are predicted on images over 'cyx' or "
            "'yx': take one time point and one depth first"
        )
        raise InvalidInputError(msg)
    return image.level(level)


def level_index(image: MultiscaleImage, level: int) -> int:
    """Return the index, from 0, of a level that exists."""
    return level % image.level_count


def _batches(
    image: MultiscaleImage, plan: TilePlan, level: int, channels: list[int], size: int
) -> Generator[ImageRegionData[TileSpecs]]:
    tiles, ends = _in_order(plan, _block_edge(len(channels) * image.dtype.itemsize))
    height, width = plan.tile_size
    # A list that is emptied when its batch goes out: memory is then one batch, not two.
    filling: list[NDArray[Any]] = []
    at = 0
    for (first, last), origin, pixels in _blocks(image, level, channels, tiles, ends, plan):
        for row, col in (tiles.coords[first:last] - origin).tolist():
            if not filling:
                shape = (min(size, len(tiles) - at), len(channels), height, width)
                filling.append(np.empty(shape, image.dtype))
            filling[0][at % size] = pixels[:, row : row + height, col : col + width]
            at += 1
            if at % size == 0 or at == len(tiles):
                rows = slice(at - len(filling[0]), at)
                yield _described(image, plan, level, channels, filling.pop(), tiles, rows)


def _in_order(plan: TilePlan, edge: int) -> tuple[PlannedTiles, list[int]]:
    """Sort a plan's tiles into blocks; return them and where each block of `edge` pixels ends."""
    stitch = plan.stitch
    # Rows of blocks lie along the shorter side: what waits for the next row of shards is less.
    sides = (0, 1) if plan.shape[1] <= plan.shape[0] else (1, 0)
    keys = [stitch[:, side] // block for block in _BLOCKS for side in sides]
    # Inside a block row by row whatever the sweep, as the pixels lie in memory.
    order = np.lexsort([stitch[:, 1], stitch[:, 0], *reversed(keys)])
    blocks = stitch[order] // edge
    ends = np.flatnonzero((blocks[1:] != blocks[:-1]).any(axis=1)) + 1
    return plan.take(order), [*ends.tolist(), len(order)]


def _block_edge(pixel_bytes: int) -> int:
    return next((b for b in _BLOCKS if b * b * pixel_bytes <= _BLOCK_BYTES), _BLOCKS[-1])


def _blocks(
    image: MultiscaleImage,
    level: int,
    channels: list[int],
    tiles: PlannedTiles,
    ends: list[int],
    plan: TilePlan,
) -> Iterator[tuple[tuple[int, int], NDArray[np.int64], NDArray[Any]]]:
    """Read blocks one ahead: which tiles each is for, its first pixel, and its pixels."""
    spans = list(zip([0, *ends], ends, strict=False))
    corners = [
        (tiles.coords[a:b].min(axis=0), tiles.coords[a:b].max(axis=0) + plan.tile_size)
        for a, b in spans
    ]
    largest = max(int(np.prod(high - low)) for low, high in corners) * len(channels)
    # Touching memory for the first time costs as much as decoding into it, so blocks take turns.
    buffers = [np.empty(largest, image.dtype) for _ in spans[:2]]

    def read(block: int) -> NDArray[Any]:
        low, high = corners[block]
        shape = (1, len(channels), *(high - low).tolist())
        out = buffers[block % 2][: int(np.prod(shape))].reshape(shape)
        windows = Windows.of(0, low[None], shape[2:], level)
        return read_regions([image], windows, channels=channels, out=out)[0]

    with ThreadPoolExecutor(1, thread_name_prefix="microtome-read") as reader:
        ahead = reader.submit(read, 0)
        for block, span in enumerate(spans):
            pixels = ahead.result()
            if block + 1 < len(spans):
                ahead = reader.submit(read, block + 1)
            yield span, corners[block][0], pixels


def _described(
    image: MultiscaleImage,
    plan: TilePlan,
    level: int,
    channels: list[int],
    data: NDArray[Any],
    tiles: PlannedTiles,
    rows: slice,
) -> ImageRegionData[TileSpecs]:
    windows = Windows.of(0, tiles.coords[rows], plan.tile_size, level)
    specs = {
        "crop_coords": tiles.crop[rows],
        "crop_size": tiles.crop_size[rows],
        "stitch_coords": tiles.stitch[rows],
        "total_tiles": np.full(len(windows), len(plan), np.int64),
    }
    batch = region_batch([image], windows, data, channels=channels, specs=specs)
    return cast("ImageRegionData[TileSpecs]", batch)
