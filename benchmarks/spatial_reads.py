"""Random spatial regions of large images, and opening images."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

import microtome as mt

from .harness import Benchmark, Items, Table
from .images import brightfield_image, fluorescence_image
from .openings import opening_tables
from .options import Options
from .spatial_readers import BASE, SpatialTask, readers

__all__ = ["table_of", "tables"]

SIDE = 224
BATCH = 64

_NOTE = (
    "All channels, warm page cache. microtome, tensorstore and zarr-python read the same Zarr "
    "array, tiledbsoma a copy: with its defaults, or with zstd 3 and the tiles that are named. Tuned "
    "is soma.init_buffer_bytes 2 MiB, vfs.min_batch_size and vfs.min_batch_gap 0, "
    "sm.mem.malloc_trim false. Its boxes include their ends, so it is asked for one pixel less."
)
_NO_SOMA = "tiledbsoma is not installed here; `make bench-peers` measures it too."


def tables(options: Options) -> list[Table]:
    """Measure a multiplex image, a scanner's, and how long images take to open."""
    makers: list[tuple[str, Callable[[Path], mt.MultiscaleImage]]] = [
        ("fluorescence", lambda path: fluorescence_image(path, 5, 8192)),
        ("brightfield", lambda path: brightfield_image(path, (16_384, 16_384))),
    ]
    found: list[Table] = []
    for name, make in makers:
        path = options.work / f"{name}.ome.zarr"
        make(path).close()
        found.append(table_of(path, options))
        shutil.rmtree(path)
    return found + opening_tables(options)


def table_of(path: Path, options: Options) -> Table:
    """Measure on one image with axes (c, y, x)."""
    with mt.MultiscaleImage.open(path) as image:
        level = image.level(0)
        channels, height, width = level.shape
        stored = f"{level.dtype}, chunks {level.array.chunks}, shards {level.array.write_unit}"
    task = SpatialTask(path, (channels, height, width), SIDE, BATCH, options.work)

    def draw(rng: np.random.Generator, count: int) -> Items:
        return rng.integers(0, (height - SIDE + 1, width - SIDE + 1), (count, 2))

    bench = Benchmark(
        f"Random {SIDE} px regions, {channels} x {height} x {width}: {path.name}",
        "region",
        draw,
        options.items,
        BASE,
        [f"Image: {path.name}, {channels} x {height} x {width} {stored}.", _NOTE],
    )
    if importlib.util.find_spec("tiledbsoma") is None:
        bench.notes.append(_NO_SOMA)
    for name, reader in readers(task).items():
        bench.add(name, reader)
    return bench.run(options.rounds, tell=options.tell)
