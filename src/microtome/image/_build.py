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
from collections.abc import Iterator, Sequence

from microtome.progress import Progress
from microtome.storage import WritableArray

from ._cascade import Cascade
from ._level import Level, PixelArray
from ._workers import Workers

__all__ = ["fill_levels", "levels_fit"]

_MOST_THREADS = 4


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
    with Workers(count, jobs, progress) as workers:
        before, halving = (base.array, True) if source is None else (source, False)
        for chain in _chains(written):
            Cascade(before, chain, labels=labels, halving=halving, workers=workers).run()
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
