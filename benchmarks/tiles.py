"""Random tiles of an image on disk: as they are stored, and as float32 batches for training."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

import microtome as mt

from .harness import Benchmark, Items, Read, Table
from .images import copy_flat, fluorescence_image, real_image
from .options import Options
from .tile_readers import (
    TileTask,
    float_memmap,
    float_microtome,
    float_tensorstore,
    float_zarr,
    raw_memmap,
    raw_microtome,
    raw_tensorstore,
    raw_zarr,
)

__all__ = ["tables", "tables_of"]

SIDE = 224
BATCH = 64
BASE = "tensorstore by hand"

RAW: Mapping[str, Callable[[TileTask], Generator[Read]]] = {
    "microtome.regions.read_regions": raw_microtome,
    BASE: raw_tensorstore,
    f"{BASE}, tensorstore.Batch": partial(raw_tensorstore, together=True),
    "zarr-python": raw_zarr,
    "numpy.memmap, uncompressed": raw_memmap,
}
FLOAT: Mapping[str, Callable[[TileTask], Generator[Read]]] = {
    "microtome.TileLoader": float_microtome,
    BASE: float_tensorstore,
    "zarr-python, torch DataLoader": partial(float_zarr, workers=0),
    "zarr-python, torch DataLoader, 2 workers": partial(float_zarr, workers=2),
    "numpy.memmap, uncompressed": float_memmap,
}

RAW_NOTE = "numpy.memmap reads an uncompressed copy; all others read the same Zarr array."
FLOAT_NOTE = (
    "The loaders have their defaults; those that have neither threads nor processes of their own "
    "read in the process that waits. Worker processes live through all rounds; starting them is "
    "not measured."
)


def tables(options: Options) -> list[Table]:
    """Measure a real image and a synthetic one."""
    found: list[Table] = []
    for make in (
        lambda: real_image(options.image, options.work),
        lambda: fluorescence_image(options.work / "fluorescence.ome.zarr"),
    ):
        with make() as image:
            found += tables_of(image, options)
    return found


def tables_of(image: mt.MultiscaleImage, options: Options) -> list[Table]:
    """Measure one image in both ways."""
    level, path = image.level(0), Path(image.uri)
    if image.axes != "cyx" or min(level.height, level.width) < SIDE:
        msg = f"{path}: tiles of {SIDE} px need axes cyx and as many pixels, got {image.axes} {level.shape}"
        raise SystemExit(msg)
    room = level.height - SIDE + 1, level.width - SIDE + 1

    def draw(rng: np.random.Generator, count: int) -> Items:
        return rng.integers(0, room, (count, 2))

    task = TileTask(path, copy_flat(image, options.work / f"{path.name}.npy"), SIDE, BATCH)
    shape = " x ".join(map(str, level.shape))
    shards = getattr(level.array, "shards", None)
    what = f"{path.name}, {shape} {level.dtype}, chunks {level.array.chunks}, shards {shards}"
    found: list[Table] = []
    for title, readers, note in (
        (f"Random {SIDE} px tiles as stored, {BATCH} at a time into one buffer", RAW, RAW_NOTE),
        (f"Random {SIDE} px tiles as new float32 batches of {BATCH}", FLOAT, FLOAT_NOTE),
    ):
        bench = Benchmark(
            f"{title}: {path.name}", "tile", draw, options.items, BASE, [f"Image: {what}.", note]
        )
        for name, reader in readers.items():
            bench.add(name, partial(reader, task))
        found.append(bench.run(options.rounds, tell=options.tell))
    return found
