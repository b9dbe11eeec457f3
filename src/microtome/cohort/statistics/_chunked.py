"""Pixels of a tissue chunk by chunk, as they lie in files: only chunks that the mask has are decoded.

What is counted does not depend on where a pixel lies. So chunks are laid one behind the other, of a
few channels at a time, in memory that is used again: none is put together to a picture first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.image import MultiscaleImage, blocks_of
from microtome.jobs import read_ahead
from microtome.standardize import runs_inside
from microtome.storage import BoxBatch, StoredArray

__all__ = ["PixelBlock", "chunked_blocks"]

# Bytes that are read at once: few enough to be counted out of the cache, and enough that planning
# them, 0.3 ms, is little beside it. Where a chunk has many channels, each has few pixels in it, and
# more at a time are worth it.
_BYTES = 6 << 20
_BYTES_OF_MANY = 16 << 20
# A mask is looked at in parts this wide and high at most.
_SIDE = 2048


@dataclass(frozen=True, slots=True, eq=False)
class PixelBlock:
    """Some pixels of a tissue, and which of them lie inside the mask; until the next block is asked for."""

    pixels: NDArray[Any]
    """(C, N), a measured channel a row."""
    inside: NDArray[np.bool_]
    """(N,)."""
    runs: NDArray[np.int64]
    """(R, 2) the same as runs of pixels."""
    planes: slice
    """Which of the measured channels they are."""


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """Chunks to read, of some channels: those of a part of the image that the mask has."""

    corners: NDArray[np.int64]
    """(chunks, 2) the first row and column of each."""
    inside: NDArray[np.bool_]
    runs: NDArray[np.int64]
    planes: slice
    memory: NDArray[np.uint8]


def chunked_blocks(image: MultiscaleImage, mask: MultiscaleImage) -> Iterator[PixelBlock] | None:
    """Return what yields the blocks of a tissue; None where its image does not lie in such chunks.

    Parameters
    ----------
    image
        Of axes CYX.
    mask
        Of the same height and width.
    """
    level = image.level(0)
    array = level.array
    if not isinstance(array, StoredArray) or level.axes != "cyx" or not all(level.shape):
        return None
    deep, high, wide = array.chunks
    deep = min(deep, level.shape[0])
    bytes_each = deep * high * wide * array.dtype.itemsize
    most = _BYTES if deep == 1 else _BYTES_OF_MANY
    if bytes_each > most:
        return None
    # Any one chunk tells whether this reader reads the array; others are then read in the same way.
    trial = np.empty(bytes_each, np.uint8)
    none = np.zeros(0, np.bool_), np.zeros((0, 2), np.int64)
    corner = np.zeros((1, 2), np.int64)
    if _read_chunks(array, _Piece(corner, *none, slice(0, deep), trial)) is None:
        return None
    return _blocks(array, mask, most // bytes_each)


def _blocks(array: StoredArray, mask: MultiscaleImage, most: int) -> Iterator[PixelBlock]:
    def read(piece: _Piece) -> PixelBlock:
        pixels = _read_chunks(array, piece)
        if pixels is None:
            # A chunk is damaged, which the engine tells, or has been mended since.
            pixels = _read_apart(array, piece)
        return PixelBlock(pixels, piece.inside, piece.runs, piece.planes)

    # One thread: what it calls decodes in threads of its own.
    with closing(read_ahead(read, _pieces(array, mask, most))) as blocks:
        yield from blocks


def _pieces(array: StoredArray, mask: MultiscaleImage, most: int) -> Iterator[_Piece]:
    """Yield what is read at once: all channels of one part of the image, then of the next.

    Parameters
    ----------
    most
        Chunks at a time.
    """
    (channels, height, width), (deep, high, wide) = array.shape, array.chunks
    item = array.dtype.itemsize
    # While one is counted, the next is read, and no other.
    size = most * min(deep, channels) * high * wide * item
    memories = cycle([np.empty(size, np.uint8) for _ in range(2)])
    across = max(1, min(-(-width // wide), _SIDE // wide, most))
    down = max(1, min(_SIDE // high, most // across))
    for rows, columns in blocks_of((height, width), (down * high, across * wide)):
        found = _chunks_inside(mask, rows, columns, (high, wide))
        if found is None:
            continue
        corners, inside = found
        runs = runs_inside(inside)
        step = max(1, most // len(corners)) * deep
        for start in range(0, channels, step):
            planes = slice(start, min(start + step, channels))
            yield _Piece(corners, inside, runs, planes, next(memories))


def _chunks_inside(
    mask: MultiscaleImage, rows: tuple[int, int], columns: tuple[int, int], chunk: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]] | None:
    """Return the corners of the chunks that have pixels inside, and the mask chunk by chunk; or None."""
    (top, bottom), (left, right), (high, wide) = rows, columns, chunk
    down, across = math.ceil((bottom - top) / high), math.ceil((right - left) / wide)
    # What hangs over the edge is outside.
    whole = np.zeros((down * high, across * wide), np.bool_)
    labels = mask.read(0, rows, columns).reshape(bottom - top, right - left)
    np.not_equal(labels, 0, out=whole[: bottom - top, : right - left])
    tiles = whole.reshape(down, high, across, wide).swapaxes(1, 2)
    there = np.argwhere(tiles.any(axis=(2, 3)))
    if not there.size:
        return None
    inside = np.ascontiguousarray(tiles[there[:, 0], there[:, 1]]).reshape(-1)
    return there * np.array([high, wide]) + np.array([top, left]), inside


def _read_chunks(array: StoredArray, piece: _Piece) -> NDArray[Any] | None:
    """Read them side by side, (C, N); None where only the engine can. What hangs over the edge is anything."""
    out, low, high = _target(array, piece)
    channels, chunks, *_ = out.shape
    deep = array.chunks[0]
    firsts = range(0, channels, deep)
    target = np.add.outer(
        np.arange(0, channels, deep) * out.strides[0], np.arange(chunks) * out.strides[1]
    )
    boxes = BoxBatch(
        np.concatenate([_with(low, piece.planes.start + first) for first in firsts]),
        np.concatenate(
            [_with(high, piece.planes.start + min(first + deep, channels)) for first in firsts]
        ),
        out,
        target.reshape(-1),
        (out.strides[0], *out.strides[2:]),
    )
    if not array.read_boxes(boxes):
        return None
    array.verify_there()
    return out.reshape(channels, -1)


def _read_apart(array: StoredArray, piece: _Piece) -> NDArray[Any]:
    """Do the same by the engine, chunk by chunk; it says what is wrong."""
    out, low, high = _target(array, piece)
    channels = piece.planes.start, piece.planes.stop
    for number, ((top, left), (bottom, right)) in enumerate(
        zip(low.tolist(), high.tolist(), strict=True)
    ):
        pixels = array.read((channels, (top, bottom), (left, right)))
        out[:, number, : bottom - top, : right - left] = pixels
    return out.reshape(len(out), -1)


def _target(
    array: StoredArray, piece: _Piece
) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
    """Return memory as (channels, chunks, height, width), and where each chunk begins and ends."""
    sides = array.chunks[-2:]
    shape = (piece.planes.stop - piece.planes.start, len(piece.corners), *sides)
    used = math.prod(shape) * array.dtype.itemsize
    out = piece.memory[:used].view(array.dtype).reshape(shape)
    return out, piece.corners, np.minimum(piece.corners + sides, array.shape[-2:])


def _with(corners: NDArray[np.int64], channel: int) -> NDArray[np.int64]:
    return np.column_stack([np.full(len(corners), channel), corners])
