"""Batches of a JPEG slide where it lies, beside a torch DataLoader over OpenSlide."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from .batches import BLOCKED, OURS
from .draws import dense
from .harness import Benchmark, Read, Table
from .options import Options
from .pictures import SLIDE, brightfield, slide
from .tile_readers import TileTask, float_microtome

__all__ = ["BASE", "BATCHES", "CROPS", "tables"]

BATCH = 64
BASE = "OpenSlide, torch DataLoader"
BATCHES = "Tiles of 224 px of an SVS as float32 batches of 64"
CROPS = "Tiles of 64 px of an SVS as float32 batches of 64"


def tables(options: Options) -> list[Table]:
    """Measure tiles of 224 px and of 64 px, random and blocked."""
    path = slide(options.shared)
    flat = brightfield(options.shared).flat
    return [
        _table(BATCHES, path, flat, 224, 42 * options.items, options),
        _table(CROPS, path, flat, 64, 512 * options.items, options),
    ]


def _table(title: str, path: Path, flat: Path, side: int, count: int, options: Options) -> Table:
    task = TileTask(path, flat, side, BATCH)
    bench = Benchmark(
        title,
        "tile",
        dense(SLIDE, side),
        max(count, 2 * BATCH),
        BASE,
        [
            (
                f"{SLIDE} x {SLIDE} RGB, JPEG of quality 80, 4:2:0, in tiles of 256 px, as Aperio's scanners write "
                "them; a small real picture (IHC), mirrored. Tiles at random places, as many as cover the slide "
                "once; in random order a quarter of them is read, from everywhere: decoded they are several times "
                f"what OpenSlide (32 MiB) and microtome (64 MiB) keep. OpenSlide reads {2 * BATCH}, in a dataset of "
                "torch as tutorials have it: `read_region`, its colours as float32 (3, y, x); without worker "
                "processes, and with two that were started before."
            )
        ],
        checked=BATCH,
    )
    bench.add(BASE, partial(_openslide, path, side, 0), items=2 * BATCH)
    bench.add(f"{BASE}, 2 workers", partial(_openslide, path, side, 2), items=2 * BATCH)
    bench.add(OURS, partial(float_microtome, task), items=max(count // 4, 2 * BATCH))
    bench.add(BLOCKED, partial(float_microtome, task, order="blocked"))
    return bench.run(options.rounds, tell=options.tell)


def _openslide(path: Path, side: int, workers: int) -> Generator[Read]:
    from torch.utils.data import DataLoader

    from .slide_dataset import SlideTiles
    from .zarr_dataset import Positions

    positions = Positions(BATCH)
    loader = DataLoader(
        SlideTiles(str(path), side),
        batch_sampler=positions,
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,
        persistent_workers=workers > 0,
    )

    def read(items: Any) -> Iterator[Any]:
        positions.items = items
        yield from loader

    yield read
