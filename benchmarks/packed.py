"""`pack`: tiles of a packed cohort in random order, beside copying out of uncompressed memory."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import microtome as mt

from .batches import BLOCKED, OURS
from .draws import at_random
from .harness import Benchmark, Items, Table
from .options import Options
from .pictures import Picture, ingested, multiplex
from .tile_readers import TileTask, float_memmap, float_microtome, raw_memmap, raw_microtome

__all__ = ["ANYWHERE", "BASE", "GRID", "GRID_BATCHES", "tables"]

SIDE, BATCH = 224, 64
BASE = "numpy.memmap"
GRID = "Packed, a chunk a tile: the tiles of its grid in random order, as stored"
GRID_BATCHES = (
    "Packed, a chunk a tile: the tiles of its grid in random order, as float32 batches of 64"
)
ANYWHERE = "Packed for tiles at any place: random tiles, as stored"


def tables(options: Options) -> list[Table]:
    """Measure a cohort that was packed for a grid, and one packed for tiles anywhere."""
    picture = multiplex(options.shared)
    cohort = options.work / "cohort"
    ingested(picture, cohort)
    mt.tile(cohort, tile_size=SIDE, method="grid", strategy="grid")
    # Origins that are no multiples of the size are tiles anywhere to `pack`.
    mt.tile(cohort, tile_size=SIDE, method="grid", strategy="anywhere", stride=200)
    grid = _packed(cohort, options.work / "grid", "grid")
    anywhere = _packed(cohort, options.work / "anywhere", "anywhere")
    across = picture.side // SIDE
    corners = np.indices((across, across)).transpose(1, 2, 0).reshape(-1, 2) * SIDE

    def of_grid(rng: np.random.Generator, count: int) -> Items:
        return corners[rng.permutation(len(corners))[:count]]

    bench = _bench(GRID, picture, grid, options)
    bench.draw = of_grid
    task = TileTask(grid, picture.flat, SIDE, BATCH)
    bench.add(BASE, partial(raw_memmap, task))
    bench.add("microtome", partial(raw_microtome, task))
    found = [bench.run(options.rounds, tell=options.tell)]

    bench = _bench(ANYWHERE, picture, anywhere, options)
    elsewhere = TileTask(anywhere, picture.flat, SIDE, BATCH)
    bench.add(BASE, partial(raw_memmap, elsewhere))
    bench.add("microtome", partial(raw_microtome, elsewhere))
    found.append(bench.run(options.rounds, tell=options.tell))

    bench = _bench(GRID_BATCHES, picture, grid, options)
    bench.draw = of_grid
    bench.add(BASE, partial(float_memmap, task))
    bench.add(OURS, partial(float_microtome, task))
    bench.add(BLOCKED, partial(float_microtome, task, order="blocked"))
    return [*found, bench.run(options.rounds, tell=options.tell)]


def _bench(title: str, picture: Picture, packed: Path, options: Options) -> Benchmark:
    share = _size(packed) / picture.pixels.nbytes
    with mt.MultiscaleImage.open(packed) as image:
        array: Any = image.level(0).array
        stored = f"chunks {array.chunks}, shards {array.write_unit}"
    notes = [
        (
            f"{picture.about}; packed by `microtome.pack`: {stored}, {share:.3f} of the bytes of the pixels, "
            "lossless."
        ),
        "numpy.memmap copies windows out of an uncompressed file.",
    ]
    return Benchmark(
        title,
        "tile",
        at_random(picture.side, SIDE),
        4 * options.items,
        BASE,
        notes,
        checked=BATCH,
        facts={"share of bytes": share},
    )


def _packed(cohort: Path, out: Path, strategy: str) -> Path:
    mt.pack(cohort, out, tile_size=SIDE, tile_strategy=strategy)
    (image,) = out.glob("codex/*/images/*.ome.zarr")
    return image


def _size(path: Path) -> int:
    return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
