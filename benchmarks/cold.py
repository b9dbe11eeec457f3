"""Tiles of an image that is in no cache of the system, beside tensorstore and a memory-mapped file."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable, Generator, Iterable
from functools import partial
from pathlib import Path

from .draws import at_random
from .harness import Benchmark, Read, Table
from .options import Options
from .pictures import multiplex
from .tile_readers import TileTask, float_memmap, float_microtome, float_regions, float_tensorstore

__all__ = ["BASE", "COLD", "OURS", "StillCachedError", "drop", "resident", "tables"]

SIDE, BATCH = 224, 64
BASE = "tensorstore by hand"
OURS = "microtome.TileLoader, random"
COLD = "Random 224 px tiles as float32 batches of 64, in no cache"
# Of the bytes of a store that may still be in the cache of the system for it to count as cold.
_LEFT = 0.01


class StillCachedError(Exception):
    """The system kept what it was asked to drop: nothing cold can be measured here."""


def tables(options: Options) -> list[Table]:
    """Measure each with the files dropped from the system's cache before its turn."""
    picture = multiplex(options.shared)
    task = TileTask(picture.path, picture.flat, SIDE, BATCH)
    files = [picture.flat, *(one for one in picture.path.rglob("*") if one.is_file())]
    bench = Benchmark(
        COLD,
        "tile",
        at_random(picture.side, SIDE),
        2 * options.items,
        BASE,
        [
            (
                f"{picture.about}. Before each turn the files are dropped from the system's cache "
                "(posix_fadvise), and counted not to be there (mincore). Files are open already. "
                "Here the clock counts: who waits for a disk uses no processor. numpy.memmap reads an "
                "uncompressed file."
            )
        ],
        least_seconds=0.0,
        checked=BATCH,
        before=partial(drop, files),
    )
    ways: dict[str, Callable[[TileTask], Generator[Read]]] = {
        BASE: float_tensorstore,
        OURS: float_microtome,
        "microtome.read_regions": float_regions,
        "numpy.memmap": float_memmap,
    }
    for name, way in ways.items():
        bench.add(name, partial(way, task))
    return [bench.run(options.rounds, tell=options.tell)]


def drop(files: Iterable[Path]) -> None:
    """Drop files from the system's cache.

    Raises
    ------
    StillCachedError
        If more than a hundredth of them is still there.
    """
    every = list(files)
    _unmap({str(file.resolve()) for file in every})
    for file in every:
        handle = os.open(file, os.O_RDONLY)
        try:
            os.fdatasync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)
    held, size = sum(map(resident, every)), sum(file.stat().st_size for file in every)
    if held > _LEFT * size:
        msg = (
            f"{held} of {size} bytes are still in the cache of the system, of {every[0]} and others"
        )
        raise StillCachedError(msg)


def _unmap(files: set[str]) -> None:
    """Take the pages of files out of this process's memory, whoever mapped them: only then they go."""
    libc = ctypes.CDLL(None, use_errno=True)
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, access, *_, file = line.split(maxsplit=5)
        if file in files and "w" not in access:
            start, stop = (int(end, 16) for end in place.split("-"))
            libc.madvise(
                ctypes.c_void_p(start), ctypes.c_size_t(stop - start), int(mmap.MADV_DONTNEED)
            )


def resident(file: Path) -> int:
    """Return how many bytes of a file are in the system's cache, in whole pages."""
    size = file.stat().st_size
    if not size:
        return 0
    pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    # A private mapping, which ctypes may have the address of: nothing is written to it.
    with (
        file.open("rb") as opened,
        mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY) as mapped,
    ):
        start = ctypes.c_ubyte.from_buffer(mapped)
        libc = ctypes.CDLL(None, use_errno=True)
        failed = libc.mincore(
            ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(size), pages
        )
        del start
        if failed:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return sum(page & 1 for page in pages) * mmap.PAGESIZE
