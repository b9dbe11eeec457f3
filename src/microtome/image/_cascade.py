"""Levels computed from each other, depth first: a file at a time, or some that lie side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from microtome.storage import (
    Box,
    Run,
    ShardDraft,
    ShardWriter,
    StoredArray,
    WritableArray,
    expect_encoding,
)

from ._level import PixelArray
from ._pyramid import blocks_of, expect_halving, halve
from ._workers import Workers

__all__ = ["Cascade"]

# Of pixels that one thread reads at once: some megabytes decode as fast as many do.
_STRIP_BYTES = 8 << 20
# Of pixels that one thread encodes and halves at once: what stays in its caches.
_SLAB_BYTES = 1 << 20
# Of what has to be read at once to be encoded at once; where it is more, files are filled first.
_MOST_SLAB_BYTES = 16 << 20
# Of files that are held because the source is read several files wide.
_WIDE_BYTES = 96 << 20


class _Slab(NamedTuple):
    """Whole rows of a box, of one place along the leading axes or of all, that one thread works on."""

    lead: tuple[slice, ...]
    rows: tuple[int, int]
    """In pixels of the box."""

    @property
    def shape(self) -> list[int]:
        """Pixels along every axis but the last."""
        return [part.stop - part.start for part in self.place]

    @property
    def place(self) -> tuple[slice, ...]:
        """Where it is in the box."""
        return (*self.lead, slice(*self.rows))

    @property
    def halved(self) -> tuple[slice, ...]:
        """Where it is in the box of the next level; it begins at an even row."""
        return (*self.lead, slice(self.rows[0] // 2, -(-self.rows[1] // 2)))


_Runs = list[tuple[int, tuple[int, ...], Run]]
"""Encoded rows of chunks: number of the file in a box, and place in it."""


@dataclass(slots=True)
class Cascade:
    """Levels that are computed from each other, and what is read for them.

    Where an array can be written without the engine, each thread encodes and halves what it has
    just read while it is in its caches: of the first array no file is ever in memory. Where the
    source is decoded in rows wider than a file, all files that such a row touches are made at once.

    Parameters
    ----------
    source
        What is read.
    arrays
        What is written, finest first.
    labels
        Whether pixels are identifiers.
    halving
        Whether the source is the level before the first array, or has that one's own pixels.
    workers
        Who does it.
    """

    source: PixelArray
    arrays: Sequence[WritableArray]
    labels: bool
    halving: bool
    workers: Workers
    _writers: list[ShardWriter | None] = field(init=False)
    _units: list[tuple[int, ...]] = field(init=False)
    """Of each array, what is made at once: whole files."""
    _rows: int = field(init=False)
    """Rows of the first array that can be read, encoded and halved at once, or a multiple; 0 if not."""

    def __post_init__(self) -> None:
        self._writers = [_writer_of(array) for array in self.arrays]
        self._rows = self._rows_at_once(1)
        files = self._files_at_once() if self._rows and all(self._writers) else 1
        self._units = [
            (*array.write_unit[:-1], array.write_unit[-1] * max(1, files >> depth))
            for depth, array in enumerate(self.arrays)
        ]

    def run(self) -> None:
        """Fill the levels."""
        size = sum(math.prod(array.shape) * array.dtype.itemsize for array in self.arrays)
        if all(self._writers):
            expect_encoding(size)
        if not self.labels:
            expect_halving(size)
        top = len(self.arrays) - 1
        for block in blocks_of(self.arrays[top].shape, self._units[top]):
            self._fill(top, block, None)

    # -- what is done at once

    @property
    def _together(self) -> bool:
        """Whether what lies one behind the other along the leading axes is decoded at once."""
        return any(size > 1 for size in self.source.chunks[:-2])

    def _rows_at_once(self, files: int) -> int:
        """Return the fewest rows that can be read at once, files side by side; 0 if that is too much."""
        writer, array = self._writers[0], self.arrays[0]
        if writer is None:
            return 0
        unit = self.source.chunks[-2]
        if self.halving:
            unit = math.lcm(2, unit) // 2
        rows = math.lcm(2, unit, writer.chunk[-2])
        *lead, height, width = map(min, array.write_unit, array.shape)
        together = self._together or math.prod(writer.chunk[:-2]) > 1
        taken = min(rows, height) * min(width * files, array.shape[-1]) * array.dtype.itemsize
        taken *= math.prod(lead) if together else 1
        return rows if taken << 2 * self.halving <= _MOST_SLAB_BYTES else 0

    def _files_at_once(self) -> int:
        """Return how many files of the first array are made side by side."""
        array = self.arrays[0]
        reach = self.source.chunks[-1] >> self.halving
        size = math.prod(map(min, array.write_unit, array.shape)) * array.dtype.itemsize
        files = 1
        while array.write_unit[-1] * files < min(reach, array.shape[-1]):
            # Of the next level half as many are in memory; what is read out of order waits too.
            held = size * files * (2 if self._together else 1)
            if held > _WIDE_BYTES or not self._rows_at_once(2 * files):
                break
            files *= 2
        return files

    def _slabs(self, depth: int, box: Box, *, at_once: bool) -> list[_Slab]:
        """Cut a box into what threads work on, where chunks meet: of the source, if it is read."""
        array, writer = self.arrays[depth], self._writers[depth]
        *lead, (top, bottom), (left, right) = box
        chunk = (1,) if writer is None else writer.chunk
        if (at_once and self._together) or any(size > 1 for size in chunk[:-2]):
            places = [tuple(slice(0, stop - start) for start, stop in lead)]
        else:
            counts = [stop - start for start, stop in lead]
            places = [tuple(slice(i, i + 1) for i in at) for at in np.ndindex(*counts)]
        rows = self._rows if at_once else math.lcm(2, 1 if writer is None else writer.chunk[-2])
        size = math.prod(part.stop - part.start for part in places[0]) * (right - left)
        rows *= max(1, _SLAB_BYTES // max(1, size * array.dtype.itemsize * rows))
        # From a multiple of the rows, wherever the box begins.
        edges = [top, *range(top // rows * rows + rows, bottom, rows), bottom]
        return [
            _Slab(place, (start - top, stop - top))
            for place in places
            for start, stop in pairwise(edges)
        ]

    # -- depth first

    def _fill(self, depth: int, box: Box, into: NDArray[Any] | None) -> None:
        """Compute files of a level, all that they stand on first; write them, and halve them."""
        array, writer = self.arrays[depth], self._writers[depth]
        at_once = depth == 0 and self._rows > 0
        pixels = None
        if not at_once:
            pixels = self.workers.buffers.take([b - a for a, b in box], array.dtype)
            if depth:
                self._gather(depth, box, pixels)
            else:
                self._read(box, pixels)
        if writer is not None:
            self._encode(depth, box, pixels, into, writer)
            if pixels is not None:
                self.workers.buffers.give(pixels)
        elif pixels is not None:
            if into is not None:
                self._halve(depth, box, pixels, into)
            self.workers.write(array.write, box, pixels)

    def _gather(self, depth: int, box: Box, pixels: NDArray[Any]) -> None:
        fine = self.arrays[depth - 1]
        for child in _parts(_doubled(box, fine.shape), self._units[depth - 1]):
            at = tuple(
                slice(start // 2 - first, -(-stop // 2) - first)
                for (start, stop), (first, _) in zip(child[-2:], box[-2:], strict=True)
            )
            self._fill(depth - 1, child, pixels[(..., *at)])

    def _halve(self, depth: int, box: Box, pixels: NDArray[Any], into: NDArray[Any]) -> None:
        slabs = self._slabs(depth, box, at_once=False)

        def halve_slab(number: int) -> None:
            slab = slabs[number]
            halve(pixels[slab.place], labels=self.labels, out=into[slab.halved])

        self.workers.each(halve_slab, len(slabs), _nothing)

    def _encode(
        self,
        depth: int,
        box: Box,
        pixels: NDArray[Any] | None,
        into: NDArray[Any] | None,
        writer: ShardWriter,
    ) -> None:
        """Write files that lie side by side, of pixels that are there or are read now, and halve them."""
        files = list(_parts(box, self.arrays[depth].write_unit))
        slabs = self._slabs(depth, box, at_once=pixels is None)
        buffers, dtype = self.workers.buffers, self.arrays[depth].dtype
        left = box[-1][0]

        def encode_slab(number: int) -> _Runs:
            slab = slabs[number]
            if pixels is None:
                part = buffers.take([*slab.shape, box[-1][1] - left], dtype)
                self._read_slab(box, slab, part)
            else:
                part = pixels[slab.place]
            if into is not None:
                halve(part, labels=self.labels, out=into[slab.halved])
            first = [
                span.start // size for span, size in zip(slab.place, writer.chunk[:-1], strict=True)
            ]
            runs = [
                (
                    number,
                    tuple(a + b for a, b in zip(first, at, strict=True)),
                    writer.encode(row, buffers),
                )
                for number, file in enumerate(files)
                for at, row in writer.rows_of(part[..., file[-1][0] - left : file[-1][1] - left])
            ]
            if pixels is None:
                buffers.give(part)
            return runs

        drafts: list[ShardDraft] = []
        try:
            drafts += [ShardDraft(writer, file, buffers) for file in files]

            def add(runs: _Runs) -> None:
                for number, at, run in runs:
                    drafts[number].add(at, run)

            self.workers.each(encode_slab, len(slabs), add)
            while drafts:
                self.workers.finish(drafts[0])
                del drafts[0]
        finally:
            for draft in drafts:
                draft.discard()

    # -- what is read

    def _read_slab(self, box: Box, slab: _Slab, part: NDArray[Any]) -> None:
        lead = [
            (start + at.start, start + at.stop)
            for (start, _), at in zip(box[:-2], slab.lead, strict=True)
        ]
        top = box[-2][0]
        wanted: Box = (*lead, (top + slab.rows[0], top + slab.rows[1]), box[-1])
        if self.halving:
            self._read_halved(_doubled(wanted, self.source.shape), part)
        else:
            self.source.read_into(wanted, part).result()

    def _read(self, box: Box, pixels: NDArray[Any]) -> None:
        """Read one file, in strips of whole rows of chunks, so that none is decoded twice."""
        wanted = _doubled(box, self.source.shape) if self.halving else box
        (top, bottom), (left, right) = wanted[-2:]
        row_bytes = math.prod(pixels.shape[:-2]) * (right - left) * pixels.itemsize
        unit = math.lcm(2, self.source.chunks[-2])
        rows = max(1, _STRIP_BYTES // max(1, row_bytes * unit)) * unit
        # From a multiple of the unit, wherever the file begins.
        edges = [top, *range(top // unit * unit + rows, bottom, rows), bottom]

        def read_strip(number: int) -> None:
            start, stop = edges[number : number + 2]
            part: Box = (*wanted[:-2], (start, stop), (left, right))
            if self.halving:
                first = box[-2][0]
                self._read_halved(part, pixels[..., start // 2 - first : -(-stop // 2) - first, :])
            else:
                self.source.read_into(part, pixels[..., start - top : stop - top, :]).result()

        self.workers.each(read_strip, len(edges) - 1, _nothing)

    def _read_halved(self, part: Box, out: NDArray[Any]) -> None:
        buffers = self.workers.buffers
        strip = buffers.take([stop - start for start, stop in part], self.source.dtype)
        self.source.read_into(part, strip).result()
        halve(strip, labels=self.labels, out=out)
        buffers.give(strip)


def _nothing(_: None) -> None:
    """Take what a piece of work returns that returns nothing."""


def _writer_of(array: WritableArray) -> ShardWriter | None:
    """Return what writes files of an array without the engine, which takes fresh memory for each."""
    if not isinstance(array, StoredArray) or not isinstance(array.path, Path):
        return None
    writer = ShardWriter.of(array.path, array.document)
    fits = writer is not None and (writer.shard, writer.dtype) == (array.write_unit, array.dtype)
    return writer if fits else None


def _doubled(box: Box, shape: Sequence[int]) -> Box:
    """Return the pixels of the level before that a box of a level stands for."""
    plane = tuple(
        (2 * start, min(2 * stop, size))
        for (start, stop), size in zip(box[-2:], shape[-2:], strict=True)
    )
    return (*box[:-2], *plane)


def _parts(box: Box, unit: Sequence[int]) -> Iterator[Box]:
    """Cut a box where files of a level meet."""
    cuts = [
        [(max(at, start), min(at + step, stop)) for at in range(start // step * step, stop, step)]
        for (start, stop), step in zip(box, unit, strict=True)
    ]
    return product(*cuts)
