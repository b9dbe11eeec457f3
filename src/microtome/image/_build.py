"""Building the pyramid: every pixel of the finest level read once, memory bounded, whole files out.

The finest level is read where it was written, or is itself written on the way, from a source.
Levels are computed depth first. What is read for one file of level 1 is halved into a quarter of a
file of level 2 while it is in memory, that into a quarter of a file of level 3, and so on: at any
time there is one unfinished file a level, however large the image. A file is written when it is
complete, once.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from microtome.progress import Progress
from microtome.storage import Box, ShardWriter, StoredArray, WritableArray

from ._level import Level, PixelArray
from ._pyramid import blocks_of, halve

__all__ = ["fill_levels", "levels_fit"]

_MOST_THREADS = 4
# Of pixels that one thread reads at once: some megabytes decode as fast as many do.
_STRIP_BYTES = 8 << 20
# Files that are being written while the next are computed: how many, and of how many bytes if
# there is more than one. A file of forty channels is larger than two of five.
_WRITES = 2
_WRITE_BYTES = 128 << 20


def fill_levels(
    base: Level,
    targets: Sequence[Level],
    *,
    labels: bool,
    progress: Progress,
    threads: int | None = None,
    source: PixelArray | None = None,
) -> None:
    """Fill empty coarser levels, each half of the one before it, from the finest.

    No thread is at work any more when this returns or raises.

    Parameters
    ----------
    base
        The finest level.
    targets
        The coarser ones, finest first; their arrays can be written and read.
    labels
        Whether pixels are identifiers.
    progress
        Called with the files written and to be written.
    threads
        Threads that read and compute; by default as many as there are processors, four at most.
    source
        The pixels of the finest level, where they are not in it yet: of its shape and dtype, read
        from several threads. They are written in the same pass, and read once.
    """
    count = threads or min(os.cpu_count() or 1, _MOST_THREADS)
    written = targets if source is None else [base, *targets]
    jobs = sum(math.prod(_files_along(level)) for level in written)
    with _Workers(count, jobs, progress) as workers:
        before, halving = (base.array, True) if source is None else (source, False)
        for chain in _chains(written):
            _Cascade(before, chain, labels=labels, halving=halving, workers=workers).run()
            workers.settle()
            before, halving = chain[-1], True


def _files_along(level: Level) -> list[int]:
    """Return how many files lie along each axis: of a large level too many to list."""
    unit = _writable(level).write_unit
    return [-(-size // part) for size, part in zip(level.shape, unit, strict=True)]


def _writable(level: Level) -> WritableArray:
    return level.array  # pyright: ignore[reportReturnType] - levels that are filled were created to be


def _chains(targets: Sequence[Level]) -> Iterator[list[WritableArray]]:
    """Group levels that can be computed from each other in memory, file by file.

    A file of one level must lie in one file of the next. That is so for all levels of one layout;
    where it is not, the level is read again.
    """
    chain: list[WritableArray] = []
    for level in targets:
        array = _writable(level)
        if chain and not levels_fit(chain[-1], array):
            yield chain
            chain = []
        chain.append(array)
    if chain:
        yield chain


def levels_fit(fine: WritableArray, coarse: WritableArray) -> bool:
    """Whether each file of a level is a part of one file of the level that is half as fine."""
    *lead, _, _ = zip(fine.write_unit, coarse.write_unit, fine.shape, strict=True)
    if any(a != b and min(a, b) < size for a, b, size in lead):
        return False
    *_, rows, cols = zip(fine.write_unit, coarse.write_unit, fine.shape, coarse.shape, strict=True)
    for part, whole, fine_size, size in (rows, cols):
        # Two files of the finer level must meet where two blocks do, at an even pixel.
        alone = part >= fine_size or part % 2 == 0
        if not (alone if whole >= size else part % 2 == 0 and 2 * whole % part == 0):
            return False
    return True


# ------------------------------------------------------------------ the work, and who does it


class _Buffers:
    """Memory that is used again: fresh pages cost as much as decoding what is put into them."""

    def __init__(self) -> None:
        # Taken from and given back to by many threads: a list does either in one step.
        self._free: list[NDArray[np.uint8]] = []

    def take(self, shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return an array of whatever values; it is the taker's until it is given back."""
        size = math.prod(shape) * dtype.itemsize
        try:
            memory = self._free.pop()
        except IndexError:
            memory = None
        if memory is None or memory.size < size:  # one that is too small is dropped
            memory = np.empty(size, np.uint8)
        return memory[:size].view(dtype).reshape(shape)

    def give(self, array: NDArray[Any]) -> None:
        """Take back an array that nobody reads or writes any more."""
        while isinstance(array.base, np.ndarray):
            array = array.base
        self._free.append(array)


@dataclass(slots=True)
class _Workers:
    """Threads that read and compute, and others that write, no more than a few files behind.

    Parameters
    ----------
    threads
        How many read and compute.
    jobs
        Files to be written.
    progress
        Told in the thread that waits.
    """

    threads: int
    jobs: int
    progress: Progress
    done: int = 0
    strips: _Buffers = field(default_factory=_Buffers)
    files: _Buffers = field(default_factory=_Buffers)
    _pool: ThreadPoolExecutor = field(init=False)
    _writer: ThreadPoolExecutor = field(init=False)
    _writes: deque[tuple[Future[None], NDArray[Any]]] = field(init=False, default_factory=deque)

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(self.threads, "microtome-pyramid")
        # Encoding a file takes as long as reading it, and longer with a codec that packs well.
        writers = min(_WRITES, self.threads)
        self._writer = ThreadPoolExecutor(writers, "microtome-pyramid-write")
        return self

    def __exit__(self, *error: object) -> None:
        # Waits for what is under way, whatever happened: the caller may remove what is written to.
        try:
            _rest([written for written, _ in self._writes])
        finally:
            self._shut_down()

    def _shut_down(self) -> None:
        for pool in (self._pool, self._writer):
            pool.shutdown(wait=True, cancel_futures=True)

    def each(self, work: Callable[[int], None], count: int) -> None:
        """Do numbered pieces of work and wait for all of them; the first error is raised."""
        if count == 1:
            work(0)
            return
        pending = [self._pool.submit(work, number) for number in range(count)]
        try:
            for future in pending:
                future.result()
        finally:
            _rest(pending)

    def write(self, put: _Put, box: Box, pixels: NDArray[Any]) -> None:
        """Write a file, soon; waits where too many are waiting already.

        The pixels, of `files`, are used again once they are written, at a later call at the
        earliest: what else they are needed for must be done by then.
        """
        while self._writes and not self._room_for(pixels):
            self._finish_one()
        self._writes.append((self._writer.submit(put, box, pixels), pixels))

    def _room_for(self, pixels: NDArray[Any]) -> bool:
        waiting = sum(other.nbytes for _, other in self._writes)
        return len(self._writes) < _WRITES and waiting + pixels.nbytes <= _WRITE_BYTES

    def settle(self) -> None:
        """Wait until everything is written."""
        while self._writes:
            self._finish_one()

    def _finish_one(self) -> None:
        written, pixels = self._writes[0]
        written.result()
        self._writes.popleft()  # only now: who is interrupted while waiting still has it to wait for
        self.files.give(pixels)
        self.done += 1
        self.progress("pyramid", self.done, self.jobs)


def _rest(futures: Sequence[Future[None]]) -> None:
    """Drop what has not begun and wait for the rest, however often somebody interrupts.

    Who joins a thread and is interrupted takes it, on Python 3.11, for ended.
    """
    running = [future for future in futures if not future.cancel()]
    interrupted: KeyboardInterrupt | None = None
    while True:
        try:
            wait(running)
            break
        except KeyboardInterrupt as again:
            interrupted = again
    if interrupted is not None:
        raise interrupted


# ------------------------------------------------------------------ depth first

_Put = Callable[[Box, NDArray[Any]], None]
"""Writes one file of an array."""


def _put_into(array: WritableArray) -> _Put:
    """Return what writes files of an array: without the engine, which takes fresh memory for each."""
    if not isinstance(array, StoredArray) or not isinstance(array.path, Path):
        return array.write
    writer = ShardWriter.of(array.path, array.document)
    if writer is None:
        return array.write

    def put(box: Box, pixels: NDArray[Any]) -> None:
        (writer if writer.takes(box, pixels) else array).write(box, pixels)

    return put


@dataclass(slots=True)
class _Cascade:
    """Levels that are computed from each other, and what is read for them.

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
    workers: _Workers
    puts: list[_Put] = field(init=False)

    def __post_init__(self) -> None:
        self.puts = [_put_into(array) for array in self.arrays]

    def run(self) -> None:
        """Fill the levels."""
        top = len(self.arrays) - 1
        for block in blocks_of(self.arrays[top].shape, self.arrays[top].write_unit):
            self._fill(top, block)

    def _fill(self, depth: int, box: Box) -> NDArray[Any]:
        """Compute one file of a level, all that it stands on first; write it, and return it."""
        array = self.arrays[depth]
        pixels = self.workers.files.take([stop - start for start, stop in box], array.dtype)
        if depth == 0:
            self._read(box, pixels)
        else:
            self._gather(depth, box, pixels)
        self.workers.write(self.puts[depth], box, pixels)
        return pixels

    def _gather(self, depth: int, box: Box, pixels: NDArray[Any]) -> None:
        fine = self.arrays[depth - 1]
        for child in _parts(_doubled(box, fine.shape), fine.write_unit):
            whole = self._fill(depth - 1, child)
            at = tuple(
                slice(start // 2 - first, -(-stop // 2) - first)
                for (start, stop), (first, _) in zip(child[-2:], box[-2:], strict=True)
            )
            part = pixels[(..., *at)]
            rows = max(1, _STRIP_BYTES // max(1, whole.nbytes // whole.shape[-2]) // 2)

            def halve_rows(
                number: int,
                whole: NDArray[Any] = whole,
                part: NDArray[Any] = part,
                rows: int = rows,
            ) -> None:
                strip = whole[..., 2 * rows * number : 2 * rows * (number + 1), :]
                to = part[..., rows * number : rows * (number + 1), :]
                halve(strip, labels=self.labels, out=to)

            self.workers.each(halve_rows, math.ceil(part.shape[-2] / rows))

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
                self._halve_strip(part, pixels, box[-2][0])
            else:
                self.source.read_into(part, pixels[..., start - top : stop - top, :]).result()

        self.workers.each(read_strip, len(edges) - 1)

    def _halve_strip(self, part: Box, pixels: NDArray[Any], first: int) -> None:
        strips = self.workers.strips
        strip = strips.take([stop - start for start, stop in part], self.source.dtype)
        self.source.read_into(part, strip).result()
        start, stop = part[-2]
        halve(
            strip,
            labels=self.labels,
            out=pixels[..., start // 2 - first : -(-stop // 2) - first, :],
        )
        strips.give(strip)


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
