"""All pixels of images, block by block: whole chunks, so that none is decoded twice."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError
from microtome.image import Channels, MultiscaleImage, blocks_of
from microtome.jobs import read_ahead
from microtome.regions import Stack, Windows, data_shape_of, read_regions

__all__ = ["Box", "Share", "shares_of", "verify_alike"]

# Pixels of one block, and of the blocks that one worker counts at a time.
_BLOCK_BYTES = 16 << 20
_SHARE_BYTES = 512 << 20
# Sides of a block where nothing says in what pieces the pixels are stored.
_SIDE = 1024

Box = tuple[tuple[int, int], ...]
"""Half-open intervals along (Z)YX."""


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """Some blocks of one sample, as they travel to a worker.

    Parameters
    ----------
    image, number, sample, level, channels
        Where the pixels are.
    boxes
        Half-open intervals along (Z)YX, a box each.
    mask, mask_level
        Where pixels count: those of its level that are not 0; None for all.
    """

    image: Stack
    number: int
    sample: int
    level: int
    channels: Channels | None
    boxes: tuple[Box, ...]
    mask: Stack | None = None
    mask_level: int = 0

    @property
    def where(self) -> str:
        """What an error says."""
        return f"image {self.number}, sample {self.sample}"

    def place(self, box: Box, pixel: int) -> str:
        """Say where a pixel of a block lies.

        Parameters
        ----------
        box
            The block.
        pixel
            Its number in the block.
        """
        inside = np.unravel_index(pixel, [last - first for first, last in box])
        names = ("plane", "row", "column")[-len(box) :]
        at = [
            f"{name} {first + int(i)}"
            for name, (first, _), i in zip(names, box, inside, strict=True)
        ]
        return f"{', '.join(at)} of level {self.level}"

    def blocks(self) -> Iterator[tuple[Box, NDArray[Any], NDArray[np.bool_] | None]]:
        """Yield where blocks lie, their (C, N) pixels and which of them count, None for all.

        Blocks of which nothing counts are left out. A block is overwritten when the one after the next is asked for.
        """
        buffers: list[NDArray[Any] | None] = [None, None]

        def read(task: tuple[int, Box]) -> _Block:
            number, box = task
            # Two buffers for three blocks: the next is begun when this one has been counted.
            turn = number % 2
            inside = None
            if self.mask is not None:
                found = _read(self.mask, self.mask_level, self.sample, box, None, None)
                inside = found.reshape(-1) != 0
                if not inside.any():
                    return None
                if inside.all():
                    inside = None
            pixels = _read(self.image, self.level, self.sample, box, self.channels, buffers[turn])
            # Kept for the block after the next: memory that is new costs more than decoding into it.
            buffers[turn] = pixels.reshape(-1) if buffers[turn] is None else buffers[turn]
            return box, pixels.reshape(len(pixels), -1), inside

        # One thread: the engine that it calls decodes in threads of its own.
        with closing(read_ahead(read, enumerate(self.boxes))) as blocks:
            for block in blocks:
                if block is not None:
                    yield block


_Block = tuple[Box, NDArray[Any], NDArray[np.bool_] | None] | None


def _read(
    image: Stack,
    level: int,
    sample: int,
    box: Box,
    channels: Channels | None,
    buffer: NDArray[Any] | None,
) -> NDArray[Any]:
    """Read a box, into the beginning of a buffer that is large enough, C(Z)YX."""
    low, size = [first for first, _ in box], [last - first for first, last in box]
    windows = Windows.of([0], [low], size, level, [sample])
    out = None
    if buffer is not None:
        count = data_shape_of(image, level=level, channels=channels)[1]
        needed = count * math.prod(size)
        if needed <= buffer.size:
            out = buffer[:needed].reshape(1, count, *size)
    return read_regions([image], windows, channels=channels, out=out)[0]


def shares_of(
    images: Sequence[Stack],
    *,
    level: int,
    channels: Channels | None,
    masks: Sequence[Stack] | None,
) -> list[Share]:
    """Cut all pixels of images into the shares of workers.

    Raises
    ------
    InvalidInputError
        If there is not one mask an image, or one has another size.
    """
    if masks is not None and len(masks) != len(images):
        msg = f"{len(images)} images have a mask each, got {len(masks)}"
        raise InvalidInputError(msg)
    found: list[Share] = []
    for number, image in enumerate(images):
        shape = data_shape_of(image, level=level, channels=channels)
        mask = None if masks is None else masks[number]
        mask_level = 0 if mask is None else _level_of_size(mask, shape, number)
        unit = _unit(image, level, shape)
        each = math.prod(unit) * shape[1] * _dtype_of(image).itemsize
        most = max(1, _SHARE_BYTES // each)
        for sample in range(shape[0]):
            boxes = blocks_of(shape[2:], unit)
            while part := tuple(islice(boxes, most)):
                share = Share(image, number, sample, level, channels, part, mask, mask_level)
                found.append(share)
    return found


def verify_alike(
    images: Sequence[Stack], channels: Channels | None, level: int
) -> tuple[int, np.dtype[Any]]:
    """Return the number of channels and the dtype of all images.

    Parameters
    ----------
    images
        Images and stacks.
    channels
        Channels by number or name, which are then what is counted; None for all.
    level
        Index of the level.

    Raises
    ------
    InvalidInputError
        If there is no image, or two differ.
    """
    if not images:
        msg = "there are no images"
        raise InvalidInputError(msg)
    forms = [
        (data_shape_of(image, level=level, channels=channels)[1], _dtype_of(image))
        for image in images
    ]
    for number, form in enumerate(forms):
        if form != forms[0]:
            msg = (
                f"images have the same number of channels and one dtype: image 0 has {forms[0][0]} "
                f"of {forms[0][1]}, image {number} {form[0]} of {form[1]}"
            )
            raise InvalidInputError(msg)
    return forms[0]


def _dtype_of(image: Stack) -> np.dtype[Any]:
    stored = image.dtype if isinstance(image, MultiscaleImage) else image.data_dtype
    return np.dtype(stored).newbyteorder("=")


def _unit(image: Stack, level: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the size of a block along (Z)YX: whole chunks, or all of an axis."""
    chunk = [min(_SIDE, size) for size in shape[2:]]
    stored = image.level(level) if isinstance(image, MultiscaleImage) else image
    pieces, axes = _pieces(stored)
    if pieces is not None:
        sizes = dict(zip(axes, pieces, strict=True))
        chunk = [
            min(sizes.get(axis, 1), size)
            for axis, size in zip("zyx"[-len(chunk) :], shape[2:], strict=True)
        ]
    each = shape[1] * _dtype_of(image).itemsize
    # As wide as fits first: rows of a chunk lie together, and so do chunks of a shard's row.
    unit = list(chunk)
    for axis in reversed(range(len(unit))):
        room = _BLOCK_BYTES // (each * math.prod(unit))
        limit = -(-min(shape[2 + axis], max(_SIDE, chunk[axis])) // chunk[axis])
        unit[axis] *= max(1, min(room, limit))
    return tuple(min(side, size) for side, size in zip(unit, shape[2:], strict=True))


def _pieces(stored: Any) -> tuple[tuple[int, ...] | None, str]:
    array: Any = getattr(stored, "array", None)
    pieces = getattr(array, "chunks", None)
    # An array in memory is one chunk, which would be one block.
    if pieces is None or tuple(pieces) == tuple(array.shape):
        return None, ""
    return tuple(pieces), str(stored.axes)


def _level_of_size(mask: Stack, shape: tuple[int, ...], number: int) -> int:
    """Return the level of a mask that has one pixel for each of the image's."""
    count = mask.level_count if isinstance(mask, MultiscaleImage) else 1
    wanted = (shape[0], 1, *shape[2:])
    found = [data_shape_of(mask, level=level) for level in range(count)]
    if wanted not in found:
        msg = (
            f"the mask of image {number} has shape {found[0]} in SC(Z)YX, the image {shape}; it "
            "needs a pixel for each of the image's, in one channel"
        )
        raise InvalidInputError(msg)
    return found.index(wanted)
