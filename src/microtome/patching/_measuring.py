"""Places of patches measured on a coarse level, block by block, never the whole image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError, OutOfRangeError
from microtome.image import MultiscaleImage
from microtome.regions import Stack, Windows, data_shape_of, read_regions

from ._filters import PatchFilter

__all__ = [
    "Block",
    "Measurement",
    "Places",
    "blocks_of",
    "coarse_level",
    "factor_between",
    "measured",
]

# Side of a patch on the level that is looked at: statistics of fewer pixels say little.
_LEAST_SIDE = 16
# Pixels that are read at once, and that are copied place by place at once.
_BLOCK = 1 << 24
_GATHERED = 1 << 22
# Sides of a mask and of its image may differ by this many mask pixels after scaling.
_ROUNDING = 1.5


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Boxes in one image, in pixels of the level that patches are counted in.

    Parameters
    ----------
    sample
        Number of each one's sample, (n,).
    start, stop
        First pixel and one past the last along (Z)YX, (n, d).
    """

    sample: NDArray[np.int64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.sample)


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """What is read of an image, and what is asked of it.

    Parameters
    ----------
    stack, level
        The image, or a mask of it, and which of its levels.
    factor
        Pixels of the level that patches are counted in to one of this level, along its axes.
    patch_filter
        What is asked.
    """

    stack: Stack
    level: int
    factor: NDArray[np.float64]
    patch_filter: PatchFilter


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Neighbouring places that are read as one.

    Parameters
    ----------
    about
        What is read, and asked.
    sample
        Number of the sample.
    start, stop
        Edges of each place in pixels of the level that is read, (n, d); not whole numbers.
    """

    about: Measurement
    sample: int
    start: NDArray[np.float64]
    stop: NDArray[np.float64]


def coarse_level(
    image: Stack, patch: NDArray[np.floating[Any]], of: int, level: int | None, mpp: float | None
) -> int:
    """Return the level that places are measured on.

    Parameters
    ----------
    image
        An image, or a stack, which has one level.
    patch
        Size of a patch along (Z)YX, in pixels of level `of`.
    of
        The finest that is looked at by default.
    level
        The answer, if it is given.
    mpp
        Pixel size that it shall have about: the coarsest level that is not coarser.

    Raises
    ------
    OutOfRangeError
        If there is no such level.
    InvalidInputError
        If both are given.
    NoResolutionError
        If a pixel size is given and the image states none.
    """
    if level is not None and mpp is not None:
        msg = f"level= or mpp= says where patches are looked at, got level={level} and mpp={mpp}"
        raise InvalidInputError(msg)
    count = image.level_count if isinstance(image, MultiscaleImage) else 1
    if level is not None:
        if not -count <= level < count:
            msg = f"{_source_of(image)} has {count} levels, no level {level}"
            raise OutOfRangeError(msg)
        return level % count
    if not isinstance(image, MultiscaleImage):
        return 0
    later = range(of + 1, count)
    if mpp is not None:
        sizes = [image.level_mpp(at) for at in later]
        fit = [at for at, size in zip(later, sizes, strict=True) if max(size.y, size.x) <= mpp]
    else:
        fit = [
            at
            for at in later
            if (patch[-2:] / factor_between(image, of, image, at, 2)).min() >= _LEAST_SIDE
        ]
    return max(fit, default=of)


def _source_of(stack: Stack) -> str:
    """Return where an image or a stack is from."""
    return stack.uri if isinstance(stack, MultiscaleImage) else str(stack.source)


def factor_between(
    image: Stack, of: int, other: Stack, level: int, rank: int
) -> NDArray[np.float64]:
    """Return how many pixels of an image's level one of another's is, along the last `rank` axes.

    Raises
    ------
    InvalidInputError
        If the other, a mask, does not cover the image.
    """
    if other is image:
        if not isinstance(image, MultiscaleImage):
            return np.ones(rank)
        fine, coarse = image.level(of), image.level(level)
        axes = "zyx"[-rank:]
        return np.asarray(
            [
                coarse.scale[coarse.axes.index(axis)] / fine.scale[fine.axes.index(axis)]
                if axis in fine.axes
                else 1.0
                for axis in axes
            ]
        )
    shape = np.asarray(data_shape_of(image, level=of)[2:][-rank:])
    size = np.asarray(data_shape_of(other, level=level)[2:][-rank:])
    factor = shape / size
    # Of a level that was halved and halved the last pixel stands for less than the others.
    whole = np.ceil(factor)
    factor = np.where(np.ceil(shape / whole) == size, whole, factor)
    spread = factor[-2:]
    off = abs(spread[0] - spread[1]) / spread.min() * size[-2:].max()
    if off > _ROUNDING * max(1.0, 1.0 / spread.min()) or (rank == 3 and factor[0] != whole[0]):
        msg = (
            f"the mask {_source_of(other)} of {tuple(size.tolist())} pixels does not cover "
            f"{_source_of(image)} of {tuple(shape.tolist())}: their sides have other proportions"
        )
        raise InvalidInputError(msg)
    return factor


def blocks_of(places: Places, about: Measurement) -> Iterator[tuple[NDArray[np.int64], Block]]:
    """Yield neighbouring places, by number, and the block to measure them in."""
    rank = len(about.factor)
    start = places.start[:, -rank:] / about.factor
    stop = places.stop[:, -rank:] / about.factor
    samples, _, *sides = data_shape_of(about.stack, level=about.level)
    size = np.asarray(sides[-rank:])
    start, stop = np.clip(start, 0, size), np.clip(stop, 0, size)
    inside = np.flatnonzero((start < stop).all(axis=1))
    for sample in np.unique(places.sample[inside]).tolist():
        rows = inside[places.sample[inside] == sample]
        for part in _near(np.floor(start), np.ceil(stop), rows):
            # A mask of one sample is that of all.
            yield part, Block(about, sample if samples > 1 else 0, start[part], stop[part])


def _near(
    low: NDArray[np.float64], high: NDArray[np.float64], rows: NDArray[np.int64]
) -> Iterator[NDArray[np.int64]]:
    """Halve places across their longest extent until each part lies in a block."""
    waiting = [rows]
    while waiting:
        part = waiting.pop()
        extent = high[part].max(axis=0) - low[part].min(axis=0)
        if len(part) == 1 or extent.prod() <= _BLOCK:
            yield part
            continue
        order = part[np.argsort(low[part, int(extent.argmax())], kind="stable")]
        waiting += [order[len(order) // 2 :], order[: len(order) // 2]]


def measured(block: Block) -> NDArray[np.float64]:
    """Read a block and return the statistics of its places, (n, statistics)."""
    low = np.floor(block.start).astype(np.int64)
    high = np.ceil(block.stop).astype(np.int64)
    first = low.min(axis=0)
    size = tuple((high.max(axis=0) - first).tolist())
    asked = block.about.patch_filter
    window = Windows.of(0, first[None], size, block.about.level, block.sample)
    channels = None if asked.masks is not None else asked.channels
    read = read_regions([block.about.stack], window, channels=channels)[0]
    pixels = read[0] if len(read) == 1 else read.mean(axis=0, dtype=np.float64)
    sizes, kind = np.unique(high - low, axis=0, return_inverse=True)
    found = np.empty((len(low), len(asked.names)))
    for number, side in enumerate(sizes.tolist()):
        view = np.lib.stride_tricks.sliding_window_view(pixels, tuple(side))
        rows = np.flatnonzero(kind.reshape(-1) == number)
        step = max(1, _GATHERED // int(np.prod(side)))
        for begin in range(0, len(rows), step):
            part = rows[begin : begin + step]
            taken = view[tuple((low[part] - first).T)]
            found[part] = _checked(asked, taken, _shares(block, part, low, side))
    return found


def _shares(
    block: Block, rows: NDArray[np.int64], low: NDArray[np.int64], side: list[int]
) -> tuple[NDArray[np.float64], ...]:
    """Return how much of each pixel of places lies in them, along each axis."""
    shares: list[NDArray[np.float64]] = []
    for axis, length in enumerate(side):
        pixel = low[rows, axis, None] + np.arange(length)
        begin = np.maximum(pixel, block.start[rows, axis, None])
        end = np.minimum(pixel + 1, block.stop[rows, axis, None])
        shares.append(end - begin)
    return tuple(shares)


def _checked(
    asked: PatchFilter, pixels: NDArray[np.generic], shares: tuple[NDArray[np.float64], ...]
) -> NDArray[np.float64]:
    values = np.asarray(asked.measure(pixels, shares), np.float64)
    if values.shape != (len(pixels), len(asked.names)):
        msg = (
            f"{type(asked).__name__}.measure has to return {(len(pixels), len(asked.names))}, one of "
            f"{asked.names} each, got {values.shape}"
        )
        raise InvalidInputError(msg)
    return values
