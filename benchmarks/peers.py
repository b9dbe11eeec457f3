"""The loader beside other loaders, on the same pixels: random tiles, and tiles streamed in order.

Run alone: ``python -m benchmarks.peers [--rounds N] [--items N]``. Who is not installed is left out and
named. CAREamics and tiledbsoma, whose packages agree with none of these, are in `training` and in
`spatial_reads`, OpenSlide in `slides_in_place`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Callable, Generator, Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import microtome as mt
from microtome.storage import Layout

from .harness import Benchmark, Items, Read, Table
from .images import copy_flat, fluorescence_image
from .machine import describe_machine, load
from .options import Options
from .report import write_results
from .tile_readers import (
    TileTask,
    float_memmap,
    float_microtome,
    float_regions,
    float_tensorstore,
    float_zarr,
)

__all__ = ["tables"]

SIZE, SIDE, BATCH, CHANNELS = 8192, 224, 64, 5
# Places that tiles are drawn from: a dataset of spatialdata has them listed.
PLACES = 2000
OURS = "microtome.TileLoader"
ZARRS = "zarrs.ZarrsCodecPipeline"
PEERS_LAYOUT = Layout((1, 1024, 1024), None, "labels")

_Setup = Callable[[], Generator[Read]]

NOTES = [
    (
        f"{CHANNELS} x {SIZE} x {SIZE} uint16, blurred spots and photon noise; batches of {BATCH} tiles of "
        f"{SIDE} px as float32 tensors."
    ),
    (
        "Peers as their manuals have it: tensorstore begins all reads of a batch before it waits; zarr-python "
        "and zarrs in torch's DataLoader, worker processes started before and kept; zarrs as zarr-python's "
        "pipeline of codecs; spatialdata's ImageTilesDataset, tiles cut from the grid of pixels, in a "
        "DataLoader of its own collation; WebDataset without shuffling, tiles as raw bytes; LitData's "
        "StreamingDataset from a local directory, chunks of 64 MB, items as arrays."
    ),
]


def tables(options: Options) -> list[Table]:
    """Measure random tiles, and those of a whole grid in order."""
    work = options.work
    with fluorescence_image(work / "fluorescence.ome.zarr", size=SIZE) as image:
        flat = copy_flat(image, work / "flat.npy")
        path = Path(image.uri)
    pixels = np.load(flat, mmap_mode="r")
    plain = _written(pixels, work / "plain.ome.zarr", PEERS_LAYOUT)
    return [
        _random(path, plain, flat, options),
        _streamed(pixels, flat, options),
    ]


def _written(pixels: NDArray[Any], path: Path, layout: Layout) -> Path:
    with mt.MultiscaleImage.create(
        path, type=pixels.dtype, level_shape=pixels.shape, mpp=0.5, layout=layout
    ) as image:
        for row in range(0, SIZE, 2048):
            image["level0"][:, row : row + 2048] = pixels[:, row : row + 2048]
    return path


# ------------------------------------------------------------------ at random


def _random(path: Path, plain: Path, flat: Path, options: Options) -> Table:
    places = np.random.default_rng(1).integers(0, SIZE - SIDE, (PLACES, 2))
    tiles, others = (TileTask(one, flat, SIDE, BATCH) for one in (path, plain))
    missing = [name for name in ("zarrs", "spatialdata") if find_spec(name) is None]
    notes = [
        *NOTES,
        f"Our layout is that of `ingest`; the other has chunks of {PEERS_LAYOUT.chunk}, Zstandard.",
        *(f"{name} is not installed." for name in missing),
    ]
    bench = Benchmark(
        f"Random tiles of {SIDE} px as float32 batches of {BATCH}",
        "tile",
        lambda rng, count: places[rng.integers(0, PLACES, count)],
        options.items,
        OURS,
        notes,
    )
    setups: dict[str, _Setup] = {
        OURS: partial(float_microtome, tiles),
        "microtome.read_regions, a buffer that is used again": partial(float_regions, tiles),
        "microtome.TileLoader, peers' layout": partial(float_microtome, others),
        "numpy.memmap": partial(float_memmap, tiles),
        "tensorstore by hand": partial(float_tensorstore, tiles),
        "tensorstore by hand, peers' layout": partial(float_tensorstore, others),
        "zarr-python, torch DataLoader": partial(float_zarr, tiles, workers=0),
        "zarr-python, torch DataLoader, peers' layout": partial(float_zarr, others, workers=0),
    }
    if "zarrs" not in missing:
        setups["zarrs, torch DataLoader, 2 workers"] = partial(
            float_zarr, tiles, workers=2, pipeline=ZARRS
        )
        setups["zarrs, torch DataLoader, 2 workers, peers' layout"] = partial(
            float_zarr, others, workers=2, pipeline=ZARRS
        )
    if "spatialdata" not in missing:
        setups["spatialdata ImageTilesDataset, peers' layout"] = partial(
            _spatialdata, flat, places, options.work / "spatialdata.zarr"
        )
    for name, setup in setups.items():
        bench.add(name, setup)
    return bench.run(options.rounds, tell=options.tell)


def _spatialdata(flat: Path, places: Items, store: Path) -> Generator[Read]:
    import anndata
    import dask.array as da
    import pandas as pd
    import torch
    from torch.utils.data import DataLoader

    spatialdata: Any = import_module("spatialdata")
    models: Any = import_module("spatialdata.models")
    loading: Any = import_module("spatialdata.dataloader")
    arrays: Any = da
    pixels = arrays.from_array(np.load(flat, mmap_mode="r"), chunks=PEERS_LAYOUT.chunk)
    # A quarter off the edges of pixels, so that both sides of a tile round alike.
    centres = places[:, ::-1] + SIDE / 2 + 0.25
    table = anndata.AnnData(np.zeros((len(places), 1), np.float32))
    table.obs["region"] = pd.Categorical(["places"] * len(places))
    table.obs["instance_id"] = np.arange(len(places))
    spatialdata.SpatialData(
        images={"image": models.Image2DModel.parse(pixels, dims=("c", "y", "x"))},
        shapes={"places": models.ShapesModel.parse(centres, geometry=0, radius=20.0)},
        tables={
            "table": models.TableModel.parse(
                table, region="places", region_key="region", instance_key="instance_id"
            )
        },
    ).write(store)
    dataset = loading.ImageTilesDataset(
        spatialdata.read_zarr(store),
        {"places": "image"},
        {"places": "global"},
        tile_dim_in_units=SIDE,
        table_name="table",
        return_annotations="instance_id",
    )
    number = {tuple(place): i for i, place in enumerate(places.tolist())}

    def together(samples: list[Any]) -> Any:
        tiles = [np.asarray(tile.values, np.float32) for tile, _ in samples]
        return torch.from_numpy(np.stack(tiles))

    def read(items: Items) -> Iterator[Any]:
        rows = [number[tuple(place)] for place in items.tolist()]
        yield from DataLoader(dataset, BATCH, sampler=rows, collate_fn=together)

    yield read


# ------------------------------------------------------------------ in order


def _streamed(pixels: NDArray[Any], flat: Path, options: Options) -> Table:
    """Measure streams of tiles that were cut beforehand."""
    work, across = options.work, SIZE // SIDE
    corners = (
        np.indices((across, across)).transpose(1, 2, 0).reshape(-1, 2)[: 4 * options.items] * SIDE
    )
    packed = _written(
        pixels, work / "packed.ome.zarr", Layout((CHANNELS, SIDE, SIDE), (CHANNELS, 2016, 2016))
    )
    missing = [name for name in ("webdataset", "litdata") if find_spec(name) is None]
    task = TileTask(packed, flat, SIDE, BATCH)
    cut = (CHANNELS, SIDE, SIDE)
    uncut = np.prod(cut) * 2 * across**2
    held = sum(one.stat().st_size for one in packed.rglob("*") if one.is_file()) / uncut
    notes = [
        *NOTES,
        (
            "microtome reads the layout of `pack`, a chunk a tile, losslessly packed to "
            f"{held:.2f} of the bytes of the tiles, and could read in any order; the streams are uncompressed."
        ),
        *(f"{name} is not installed." for name in missing),
    ]
    bench = Benchmark(
        f"A grid of tiles of {SIDE} px in order, as float32 batches of {BATCH}",
        "tile",
        lambda _, __: corners,
        len(corners),
        OURS,
        notes,
    )
    bench.add(OURS, partial(float_microtome, task))
    bench.add("numpy.memmap, not cut", partial(float_memmap, task))
    tiles = [np.ascontiguousarray(pixels[:, y : y + SIDE, x : x + SIDE]) for y, x in corners]
    if "webdataset" not in missing:
        bench.add("webdataset", partial(_webdataset, tiles, work / "tiles.tar"))
    if "litdata" not in missing:
        bench.add("LitData", partial(_litdata, tiles, work / "litdata"))
    return bench.run(options.rounds, tell=options.tell)


def _webdataset(tiles: list[NDArray[Any]], path: Path) -> Generator[Read]:
    import torch

    wds: Any = import_module("webdataset")

    with wds.TarWriter(str(path)) as out:
        for number, tile in enumerate(tiles):
            out.write({"__key__": f"{number:06}", "tile": tile.tobytes()})
    shape = tiles[0].shape

    def decoded(sample: Any) -> NDArray[np.float32]:
        return np.frombuffer(sample["tile"], np.uint16).reshape(shape).astype(np.float32)

    def read(_: Items) -> Iterator[Any]:
        stream = wds.WebDataset(str(path), shardshuffle=False).map(decoded)
        # The tiles of a batch are put together once, by us: its own collation takes tuples.
        for batch in stream.batched(BATCH, collation_fn=np.stack):
            yield torch.from_numpy(batch)

    yield read


def _litdata(tiles: list[NDArray[Any]], path: Path) -> Generator[Read]:
    import torch

    lit: Any = import_module("litdata")
    writers: Any = import_module("litdata.streaming.writer")

    path.mkdir()
    writer = writers.BinaryWriter(str(path), chunk_bytes="64MB")
    for number, tile in enumerate(tiles):
        writer[number] = tile
    writer.done()
    writer.merge()

    def together(samples: list[Any]) -> Any:
        return torch.from_numpy(np.stack(samples).astype(np.float32))

    dataset = lit.StreamingDataset(str(path), shuffle=False)
    loader = lit.StreamingDataLoader(dataset, batch_size=BATCH, collate_fn=together)

    def read(_: Items) -> Iterator[Any]:
        yield from loader

    yield read


def main() -> None:
    """Measure, print the tables, and keep them."""
    parser = argparse.ArgumentParser(prog="benchmarks.peers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--items", type=int, default=128)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    asked = parser.parse_args()
    machine = {**describe_machine(), "load_before": load()}
    with tempfile.TemporaryDirectory(prefix="microtome-bench-") as work:
        options = Options(
            None, asked.rounds, asked.items, Path(work), lambda line: print(line, file=sys.stderr)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of peers, about each other
            found = tables(options)
    machine["load_at_end"] = load()
    print(write_results("peers", found, machine, asked.results))


# The worker processes of a loader import this module under another name.
if __name__ == "__main__":
    main()
