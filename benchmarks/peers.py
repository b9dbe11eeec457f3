"""The loader beside other loaders, on the same pixels: random tiles, crops, and tiles streamed in order.

Peers that have an environment of their own are measured where `make bench-peers` has made it, and else
left out and named. OpenSlide is in `slide_batches`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from microtome.storage import Layout

from .batches import BLOCKED, OURS
from .draws import CELLS, dense
from .harness import Benchmark, Items, Read, Table
from .options import Options
from .outside import PEERS, ZARR, has, outside
from .pictures import Picture, multiplex
from .tile_readers import (
    TileTask,
    float_memmap,
    float_microtome,
    float_regions,
    float_tensorstore,
    float_zarr,
)

__all__ = ["CROPS", "RANDOM", "STREAMED", "tables"]

SIDE, CROP, BATCH, CHANNELS = 224, 64, 64, 5
PEERS_LAYOUT = Layout((1, 1024, 1024), None, "labels")
RANDOM = f"Random tiles of {SIDE} px as float32 batches of {BATCH}"
CROPS = f"Crops of {CROP} px around cells as float32 batches of {BATCH}"
STREAMED = f"A grid of tiles of {SIDE} px in order, as float32 batches of {BATCH}"

_Setup = Callable[[], Generator[Read]]
# Settings of TileDB with which it reads regions fastest, of all that were tried; see `spatial_reads`.
_TUNED = {
    "soma.init_buffer_bytes": str(2 << 20),
    "vfs.min_batch_size": "0",
    "vfs.min_batch_gap": "0",
    "sm.mem.malloc_trim": "false",
}

NOTES = [
    (
        "Peers as their manuals have it: tensorstore begins all reads of a batch before it waits; zarr-python "
        "and zarrs in torch's DataLoader, worker processes started before and kept, zarrs as zarr-python's "
        "pipeline of codecs; zarr 3.4's fused pipeline, CPython 3.13, tile by tile into one batch that is "
        "used again, which costs less than a DataLoader; spatialdata's ImageTilesDataset, tiles cut from the "
        "grid of pixels, in a DataLoader of its own collation, of a store that it writes in chunks of "
        "1024 px; CAREamics' dataset without normalization or augmentation, at places that it is given "
        "(`FixedPatching`); tiledbsoma's `read_spatial_region` into one batch that is used again, of a copy "
        "with its default tiles, and of one in tiles of all channels x 256 px, Zstandard 3, with "
        + ", ".join(f"{key} {value}" for key, value in _TUNED.items())
        + "."
    ),
    "Our layout is that of `ingest`; the peers' has chunks of 1 x 1024 x 1024 without shards, Zstandard.",
]
_STREAMS = (
    "WebDataset without shuffling, tiles as raw bytes; LitData's StreamingDataset from a local directory, "
    "chunks of 64 MB, items as arrays; both uncompressed."
)


def tables(options: Options) -> list[Table]:
    """Measure random tiles and crops, and the tiles of a whole grid in order."""
    picture = multiplex(options.shared)
    theirs = picture.again("peers", PEERS_LAYOUT)
    return [
        _random(picture, theirs, options),
        _crops(picture, theirs, options),
        _streamed(picture, options),
    ]


# ------------------------------------------------------------------ at random


def _random(picture: Picture, theirs: Path, options: Options) -> Table:
    # The same places in every round, in another order: the datasets of two peers have them listed.
    count = max(10 * options.items // BATCH, 1) * BATCH
    places = dense(picture.side, SIDE)(np.random.default_rng(1), count)
    listed = places.tolist()
    ours, peers = (TileTask(path, picture.flat, SIDE, BATCH) for path in (picture.path, theirs))
    array, far = str(ours.array()), str(peers.array())
    few, tile = max(options.items // 2, 1), {"side": SIDE, "batch": BATCH}
    bench = Benchmark(
        RANDOM,
        "tile",
        lambda rng, number: rng.permutation(places)[:number],
        count,
        OURS,
        [
            (
                f"{picture.about}; tiles at random places, as many as cover their part of the image once. "
                f"The peers do {few} to {4 * BATCH} of the {count} of a round."
            ),
            *NOTES,
        ],
        checked=few,
    )
    bench.add(OURS, partial(float_microtome, ours))
    bench.add(BLOCKED, partial(float_microtome, ours, order="blocked"))
    bench.add("microtome.read_regions", partial(float_regions, ours))
    bench.add(f"{OURS}, peers' layout", partial(float_microtome, peers), items=4 * BATCH)
    bench.add(f"{BLOCKED}, peers' layout", partial(float_microtome, peers, order="blocked"))
    bench.add("numpy.memmap", partial(float_memmap, ours))
    slower: dict[str, tuple[int, _Setup]] = {
        "tensorstore by hand": (4 * BATCH, partial(float_tensorstore, ours)),
        "tensorstore by hand, peers' layout": (2 * BATCH, partial(float_tensorstore, peers)),
        "zarr-python, torch DataLoader": (few, partial(float_zarr, ours, workers=0)),
        "zarr-python, torch DataLoader, peers' layout": (
            few,
            partial(float_zarr, peers, workers=0),
        ),
    }
    if _is_there(bench, ZARR, "zarr"):
        slower |= {
            "zarr 3.4, fused pipeline": (
                few,
                partial(outside, "zarr", ZARR, array=array, fused=True, **tile),
            ),
            "zarr 3.4, fused pipeline, peers' layout": (
                few,
                partial(outside, "zarr", ZARR, array=far, fused=True, **tile),
            ),
        }
    if _is_there(bench, PEERS, "zarrs"):
        slower["zarrs, torch DataLoader, 2 workers"] = (
            2 * BATCH,
            partial(outside, "zarrs", PEERS, array=array, workers=2, **tile),
        )
    if _is_there(bench, PEERS, "careamics"):
        for workers in (0, 2):
            slower[f"CAREamics, {workers} workers"] = (
                few if not workers else 2 * BATCH,
                partial(
                    outside, "careamics", PEERS, array=array, places=listed, workers=workers, **tile
                ),
            )
        slower["CAREamics, 2 workers, peers' layout"] = (
            2 * BATCH,
            partial(outside, "careamics", PEERS, array=far, places=listed, workers=2, **tile),
        )
    if _is_there(bench, PEERS, "tiledbsoma"):
        soma = partial(outside, "soma", PEERS, flat=picture.flat, **tile)
        kept = options.shared
        slower |= {
            "tiledbsoma, its defaults": (few, partial(soma, store=kept / "soma-default")),
            "tiledbsoma, tuned": (
                few,
                partial(soma, store=kept / "soma-tuned", tile=(CHANNELS, 256, 256), config=_TUNED),
            ),
        }
    if _is_there(bench, PEERS, "spatialdata"):
        slower["spatialdata ImageTilesDataset"] = (
            few,
            partial(
                outside,
                "spatialdata",
                PEERS,
                flat=picture.flat,
                store=options.work / "spatialdata.zarr",
                places=listed,
                **tile,
            ),
        )
    for name, (items, setup) in slower.items():
        bench.add(name, setup, items=items)
    return bench.run(options.rounds, tell=options.tell)


def _is_there(bench: Benchmark, python: Path, module: str) -> bool:
    there = has(python, module)
    if not there:
        name = "zarr 3.4, which asks for CPython 3.12," if python == ZARR else module
        bench.notes.append(f"{name} is not installed here; `make bench-peers` brings it.")
    return there


# ------------------------------------------------------------------ crops


def _crops(picture: Picture, theirs: Path, options: Options) -> Table:
    ours, peers = (TileTask(path, picture.flat, CROP, BATCH) for path in (picture.path, theirs))
    few = options.items
    bench = Benchmark(
        CROPS,
        "tile",
        dense(picture.side, CROP, CELLS),
        256 * options.items,
        OURS,
        [
            (
                f"{picture.about}; crops as dense as cells, 2,000 in a square of 1024 px. Blocked reads all of a "
                f"round; zarr-python, tile by tile in random order, {few} of them."
            ),
            NOTES[-1],
        ],
        checked=16 * BATCH,
    )
    bench.add(OURS, partial(float_microtome, ours))
    bench.add(BLOCKED, partial(float_microtome, ours, order="blocked"))
    bench.add(f"{BLOCKED}, peers' layout", partial(float_microtome, peers, order="blocked"))
    bench.add("numpy.memmap", partial(float_memmap, ours))
    bench.add("tensorstore by hand", partial(float_tensorstore, ours), items=8 * BATCH)
    for name, task in (("", ours), (", peers' layout", peers)):
        bench.add(
            f"zarr-python, torch DataLoader{name}", partial(float_zarr, task, workers=0), items=few
        )
    return bench.run(options.rounds, tell=options.tell)


# ------------------------------------------------------------------ in order


def _streamed(picture: Picture, options: Options) -> Table:
    """Measure streams of tiles that were cut beforehand."""
    work, across = options.work, picture.side // SIDE
    corners = np.indices((across, across)).transpose(1, 2, 0).reshape(-1, 2)[: 4 * options.items]
    corners: Items = corners * SIDE
    cut = Layout((CHANNELS, SIDE, SIDE), (CHANNELS, 2016, 2016), "train")
    packed = picture.again("packed", cut)
    task = TileTask(packed, picture.flat, SIDE, BATCH)
    held: Any = sum(one.stat().st_size for one in packed.rglob("*") if one.is_file())
    # Of all pixels: chunks at the edges hold what lies outside, too.
    share = held / picture.pixels.nbytes
    bench = Benchmark(
        STREAMED,
        "tile",
        lambda _, __: corners,
        len(corners),
        OURS.replace("random", "in order"),
        [
            (
                f"{picture.about}. microtome reads the layout of `pack`, a chunk a tile, losslessly packed to "
                f"{share:.2f} of the bytes of the image, and could read in any order. {_STREAMS}"
            )
        ],
        facts={"share of bytes": share},
    )
    bench.add(OURS.replace("random", "in order"), partial(float_microtome, task))
    bench.add("numpy.memmap, not cut", partial(float_memmap, task))
    tile = {"flat": picture.flat, "corners": corners.tolist(), "side": SIDE, "batch": BATCH}
    for name, module in (("webdataset", "webdataset"), ("LitData", "litdata")):
        if _is_there(bench, PEERS, module):
            bench.add(name, partial(outside, module, PEERS, store=work / module, **tile))
    return bench.run(options.rounds, tell=options.tell)
