"""Batches against the limit: what copying out of uncompressed memory takes, and what others need."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path

import numpy as np

import microtome as mt
from microtome.storage import image_layout

from .harness import Benchmark, Items, Read, Table
from .images import copy_flat, fluorescence_image
from .options import Options
from .tile_readers import (
    TileTask,
    float_memmap,
    float_microtome,
    float_regions,
    float_tensorstore,
    float_zarr,
    raw_memmap,
    raw_microtome,
    raw_tensorstore,
    raw_zarr,
)

__all__ = ["tables"]

SIZE, BATCH = 8192, 64
BASE = "numpy.memmap"
# Of the blocked order: batches that are mixed, out of so many blocks of such a side: 2,000 cells in a
# square of 1024 px, as tissue has them.
GROUP, BLOCKS, BLOCK = 32, 1, 1024

CROPS = f"64 px crops as float32 batches of 64, {GROUP} batches mixed, blocks of {BLOCK} px"

_Setup = Callable[[], Generator[Read]]

NOTES = [
    f"5 x {SIZE} x {SIZE} uint16, blurred spots and photon noise, written by microtome.",
    "numpy.memmap copies windows out of an uncompressed file; all others read Zarr.",
    "Whatever is reused is: buffers, handles, worker processes.",
]


def tables(options: Options) -> list[Table]:
    """Measure tiles as stored, float32 batches at random, and crops in blocked order."""
    work = options.work
    with fluorescence_image(work / "fluorescence.ome.zarr", size=SIZE) as image:
        flat = copy_flat(image, work / "flat.npy")
        path = Path(image.uri)
    raw = _uncompressed(flat, work / "raw.ome.zarr")
    tiles, plain = (TileTask(place, flat, 224, BATCH) for place in (path, raw))
    crops = TileTask(path, flat, 64, BATCH)
    random = partial(_random, 224)
    blocked = partial(_blocked, 64)
    tables: list[
        tuple[str, Callable[[np.random.Generator, int], Items], int, dict[str, _Setup]]
    ] = [
        (
            "Random 224 px tiles as stored, 64 at a time into one buffer",
            random,
            options.items,
            {
                BASE: partial(raw_memmap, tiles),
                "microtome, default layout": partial(raw_microtome, tiles),
                "microtome, uncompressed": partial(raw_microtome, plain),
                "tensorstore by hand, default layout": partial(raw_tensorstore, tiles),
                "zarr-python, default layout": partial(raw_zarr, tiles),
            },
        ),
        (
            "Random 224 px tiles as float32 batches of 64",
            random,
            options.items,
            {
                BASE: partial(float_memmap, tiles),
                "microtome.read_regions": partial(float_regions, tiles),
                "microtome.read_regions, uncompressed": partial(float_regions, plain),
                "microtome.read_regions, chunks kept": partial(float_regions, tiles, kept=True),
                "microtome.TileLoader": partial(float_microtome, tiles),
                "tensorstore by hand": partial(float_tensorstore, tiles),
                "zarr-python, torch DataLoader": partial(float_zarr, tiles, workers=0),
            },
        ),
        (
            CROPS,
            blocked,
            GROUP * BATCH,
            {
                BASE: partial(float_memmap, crops),
                "microtome.read_regions": partial(float_regions, crops, together=GROUP),
                "microtome.read_regions, chunks kept": partial(
                    float_regions, crops, together=GROUP, kept=True
                ),
                "tensorstore by hand": partial(float_tensorstore, crops),
                "zarr-python, torch DataLoader": partial(float_zarr, crops, workers=0),
            },
        ),
    ]
    found: list[Table] = []
    for title, draw, items, setups in tables:
        bench = Benchmark(title, "tile", draw, items, BASE, NOTES)
        for name, setup in setups.items():
            bench.add(name, setup)
        found.append(bench.run(options.rounds, tell=options.tell))
    return found


def _uncompressed(flat: Path, path: Path) -> Path:
    pixels = np.load(flat, mmap_mode="r")
    layout = image_layout("cyx", pixels.shape, codec="raw")
    with mt.MultiscaleImage.create(
        path, type=pixels.dtype, level_shape=pixels.shape, mpp=0.5, layout=layout
    ) as image:
        for row in range(0, SIZE, 2048):
            image["level0"][:, row : row + 2048] = pixels[:, row : row + 2048]
    return path


def _random(side: int, rng: np.random.Generator, count: int) -> Items:
    return rng.integers(0, SIZE - side + 1, (count, 2))


def _blocked(side: int, rng: np.random.Generator, count: int) -> Items:
    corners = rng.integers(0, (SIZE - BLOCK) // BLOCK + 1, (BLOCKS, 2)) * BLOCK
    within = rng.integers(0, BLOCK - side + 1, (count, 2))
    return corners[rng.integers(0, BLOCKS, count)] + within
