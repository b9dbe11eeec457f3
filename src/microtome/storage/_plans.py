"""Which chunks many boxes of one array touch, each once, and what of them goes where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ChunkPlan", "begins", "plan_chunks"]

_Whole = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class ChunkPlan:
    """Chunks, and copies out of them; a copy is the part of one chunk that one box asks for.

    Parameters
    ----------
    shard
        Number of each chunk's shard, (chunks,), ascending.
    local
        Number of each chunk in its shard, (chunks,).
    first
        First copy out of each chunk, (chunks + 1,): those of chunk i are ``first[i]:first[i + 1]``.
    start
        First pixel of each copy in its chunk, (copies, axes).
    size
        Its size, (copies, axes).
    target
        Bytes from the beginning of the buffer to where its first pixel goes, (copies,).
    box
        Which box it is of, (copies,).
    place
        Number of its chunk along each axis of the array, (copies, axes).
    """

    shard: _Whole
    local: _Whole
    first: _Whole
    start: _Whole
    size: _Whole
    target: _Whole
    box: _Whole
    place: _Whole

    def pieces(self, files: int) -> Iterator[ChunkPlan]:
        """Yield it in pieces, each of chunks of at most so many shards."""
        first = begins(self.shard)[::files]
        if len(first) < 2:
            yield self
            return
        for a, b in pairwise([*first.tolist(), len(self.shard)]):
            low, high = int(self.first[a]), int(self.first[b])
            copies = slice(low, high)
            yield ChunkPlan(
                self.shard[a:b],
                self.local[a:b],
                self.first[a : b + 1] - low,
                self.start[copies],
                self.size[copies],
                self.target[copies],
                self.box[copies],
                self.place[copies],
            )


def plan_chunks(
    low: _Whole,
    high: _Whole,
    target: _Whole,
    strides: Sequence[int] | _Whole,
    *,
    chunk: tuple[int, ...],
    shard: tuple[int, ...],
    shape: tuple[int, ...],
) -> ChunkPlan:
    """Plan a read.

    Parameters
    ----------
    low, high
        First pixel of each box and one past its last, (boxes, axes), inside the array. One that is
        empty is passed over.
    target
        Bytes from the beginning of the buffer to where each box's first pixel goes, (boxes,).
    strides
        Bytes from a pixel to the next in the buffer, one an axis; or (boxes, axes) where they differ.
    chunk, shard, shape
        Sizes in pixels; a shard is a multiple of the chunk.
    """
    sides = np.asarray(chunk, np.int64)
    first = low // sides
    # Of an empty box no chunk.
    full = np.all(high > low, axis=1)
    counts = np.where(full[:, None], -(-high // sides) - first, 0)
    total = counts.prod(axis=1)
    box = np.repeat(np.arange(len(low)), total)
    rest = np.arange(len(box)) - np.repeat(np.cumsum(total) - total, total)
    # Axis by axis: of arrays with three or four columns NumPy is slow to do the same.
    numbers: list[_Whole] = [rest] * len(chunk)
    for axis in range(len(chunk) - 1, 0, -1):
        rest, numbers[axis] = np.divmod(rest, counts[:, axis][box])
    numbers[0] = rest
    numbers = [number + first[:, axis][box] for axis, number in enumerate(numbers)]
    key = _keys(numbers, chunk, shard, shape)
    order = np.argsort(key, kind="stable")
    key, box = key[order], box[order]
    start, size, place = (np.empty((len(box), len(chunk)), np.int64) for _ in range(3))
    goes = target[box]
    for axis, (number, side) in enumerate(zip(numbers, chunk, strict=True)):
        at = number[order]
        step = strides[:, axis][box] if isinstance(strides, np.ndarray) else strides[axis]
        # Where the chunk begins, counted from where the box does.
        origin = at * side - low[:, axis][box]
        begin = np.maximum(-origin, 0)
        place[:, axis], start[:, axis] = at, begin
        size[:, axis] = np.minimum((high[:, axis] - low[:, axis])[box] - origin, side) - begin
        goes += (begin + origin) * step
    new = begins(key)
    per_shard = _count(shard, chunk)
    shards, local = np.divmod(key[new], per_shard)
    return ChunkPlan(shards, local, np.append(new, len(key)), start, size, goes, box, place)


def begins(numbers: _Whole) -> NDArray[np.intp]:
    """Return where numbers that ascend become others, the first place included."""
    # Not np.diff with something put before, which takes several times as long for a batch.
    new = np.ones(len(numbers), np.bool_)
    np.not_equal(numbers[1:], numbers[:-1], out=new[1:])
    return np.flatnonzero(new)


def shard_place(number: int, shard: tuple[int, ...], shape: tuple[int, ...]) -> list[int]:
    """Return which shard a number of `ChunkPlan.shard` means, axis by axis."""
    place: list[int] = []
    for whole, part in zip(reversed(shape), reversed(shard), strict=True):
        number, at = divmod(number, -(-whole // part))
        place.append(at)
    return place[::-1]


def _keys(
    numbers: Sequence[_Whole],
    chunk: tuple[int, ...],
    shard: tuple[int, ...],
    shape: tuple[int, ...],
) -> Any:
    """Number chunks so that those of one shard follow each other, as its index has them."""
    outer = inner = np.zeros(len(numbers[0]), np.int64)
    for number, part, whole, length in zip(numbers, chunk, shard, shape, strict=True):
        ratio = whole // part
        of, within = np.divmod(number, ratio)
        outer, inner = outer * -(-length // whole) + of, inner * ratio + within
    return outer * _count(shard, chunk) + inner


def _count(shard: tuple[int, ...], chunk: tuple[int, ...]) -> int:
    count = 1
    for whole, part in zip(shard, chunk, strict=True):
        count *= whole // part
    return count
