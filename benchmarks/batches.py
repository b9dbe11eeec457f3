"""Batches against the limit: what copying out of uncompressed memory takes, and what others need."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial

from .draws import CELLS, at_random, dense
from .harness import Benchmark, Read, Table
from .options import Options
from .pictures import Picture, brightfield, multiplex, panel
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

__all__ = ["BASE", "BLOCKED", "OURS", "SIDE", "crops_title", "float_title", "raw_title", "tables"]

SIDE, CROP, BATCH = 224, 64, 64
BASE = "numpy.memmap"
OURS, BLOCKED = "microtome.TileLoader, random", "microtome.TileLoader, blocked"

_Setup = Callable[[], Generator[Read]]


def raw_title(name: str) -> str:
    """Return the title of the table of tiles as they are stored."""
    return f"{name}: random {SIDE} px tiles as stored, {BATCH} at a time into one buffer"


def float_title(name: str) -> str:
    """Return the title of the table of float32 batches."""
    return f"{name}: {SIDE} px tiles as float32 batches of {BATCH}"


def crops_title(name: str) -> str:
    """Return the title of the table of crops around cells."""
    return f"{name}: {CROP} px crops around cells as float32 batches of {BATCH}"


def tables(options: Options) -> list[Table]:
    """Measure tiles as stored, float32 batches, and crops, on three images."""
    shared = options.shared
    found: list[Table] = []
    for name, make, fewer in (
        ("Multiplex", multiplex, 1),
        ("Panel of 40", panel, 4),
        ("RGB", brightfield, 1),
    ):
        picture = make(shared)
        found.append(_raw(name, picture, fewer, options))
        found.append(_floats(name, picture, fewer, options))
        if make is multiplex:
            found.append(_crops(name, picture, options))
    return found


def _notes(picture: Picture, more: str) -> list[str]:
    return [
        f"{picture.about}; in the layout of `ingest`: {picture.like_ingest('train')}.",
        "numpy.memmap copies windows out of an uncompressed file; all others read Zarr.",
        "Whatever is reused is: buffers, handles, worker processes.",
        more,
    ]


def _raw(name: str, picture: Picture, fewer: int, options: Options) -> Table:
    task = TileTask(picture.path, picture.flat, SIDE, BATCH)
    count = max(2 * options.items // fewer, 1)
    more = f"zarr-python does {_few(options, fewer)} of the tiles of a round."
    bench = Benchmark(
        raw_title(name),
        "tile",
        at_random(picture.side, SIDE),
        count,
        BASE,
        _notes(picture, more),
        checked=BATCH,
    )
    bench.add(BASE, partial(raw_memmap, task))
    bench.add("microtome, default layout", partial(raw_microtome, task))
    if fewer == 1:
        plain = picture.again("raw", picture.like_ingest("raw"))
        bench.add(
            "microtome, uncompressed",
            partial(raw_microtome, TileTask(plain, picture.flat, SIDE, BATCH)),
        )
    else:
        whole = picture.again("panel", picture.like_ingest("panel"))
        bench.add(
            "microtome, layout of panels",
            partial(raw_microtome, TileTask(whole, picture.flat, SIDE, BATCH)),
        )
    bench.add("tensorstore by hand", partial(raw_tensorstore, task))
    bench.add("zarr-python", partial(raw_zarr, task), items=_few(options, fewer))
    return bench.run(options.rounds, tell=options.tell)


def _floats(name: str, picture: Picture, fewer: int, options: Options) -> Table:
    task = TileTask(picture.path, picture.flat, SIDE, BATCH)
    count = max(10 * options.items // fewer // BATCH, 1) * BATCH
    more = (
        "Tiles lie at random places, as many as cover their part of the image once; numpy.memmap and "
        f"the peers read them in random order, zarr-python {_few(options, fewer)} of them."
    )
    bench = Benchmark(
        float_title(name),
        "tile",
        dense(picture.side, SIDE),
        count,
        BASE,
        _notes(picture, more),
        checked=BATCH,
    )
    bench.add(BASE, partial(float_memmap, task))
    bench.add(OURS, partial(float_microtome, task))
    bench.add(BLOCKED, partial(float_microtome, task, order="blocked"))
    if fewer == 1:
        plain = TileTask(
            picture.again("raw", picture.like_ingest("raw")), picture.flat, SIDE, BATCH
        )
        bench.add(f"{OURS}, uncompressed", partial(float_microtome, plain))
        bench.add("microtome.read_regions", partial(float_regions, task))
    else:
        whole = TileTask(
            picture.again("panel", picture.like_ingest("panel")), picture.flat, SIDE, BATCH
        )
        bench.add(f"{OURS}, layout of panels", partial(float_microtome, whole))
        bench.add(f"{BLOCKED}, layout of panels", partial(float_microtome, whole, order="blocked"))
    bench.add("tensorstore by hand", partial(float_tensorstore, task), items=4 * BATCH // fewer)
    bench.add(
        "zarr-python, torch DataLoader",
        partial(float_zarr, task, workers=0),
        items=_few(options, fewer),
    )
    return bench.run(options.rounds, tell=options.tell)


def _crops(name: str, picture: Picture, options: Options) -> Table:
    task = TileTask(picture.path, picture.flat, CROP, BATCH)
    more = (
        "Crops lie as dense as cells do, 2,000 in a square of 1024 px; all but blocked read them in "
        f"random order, zarr-python {options.items} of them, tensorstore {8 * BATCH}."
    )
    bench = Benchmark(
        crops_title(name),
        "tile",
        dense(picture.side, CROP, CELLS),
        256 * options.items,
        BASE,
        _notes(picture, more),
        checked=16 * BATCH,
    )
    bench.add(BASE, partial(float_memmap, task))
    bench.add(OURS, partial(float_microtome, task))
    bench.add(BLOCKED, partial(float_microtome, task, order="blocked"))
    bench.add("tensorstore by hand", partial(float_tensorstore, task), items=8 * BATCH)
    bench.add(
        "zarr-python, torch DataLoader", partial(float_zarr, task, workers=0), items=options.items
    )
    return bench.run(options.rounds, tell=options.tell)


def _few(options: Options, fewer: int) -> int:
    return max(options.items // 2 // fewer, 1)
