"""`ImageTilesDataset` beside spatialdata's, on one store; run it in the environment of `make spatialdata`."""

from __future__ import annotations

import gc
import pickle
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import microtome as mt

from .harness import Benchmark, Items, Measurement, Read, Table
from .machine import cpu_seconds
from .options import Options
from .pyramid_builders import peak_memory

__all__ = ["tables"]

SIDE, SIZE, CHANNELS, CIRCLES = 224, 8192, 5, 5000
# Labels that the peer counts in half a minute; those of a whole image it does not in six.
SMALL, OBJECTS = 2048, 500
BATCH = 32
BASE = "spatialdata"
PAIR = {"circles": "image"}, {"circles": "global"}
RASTER = {"rasterize": True, "rasterize_kwargs": {"target_width": SIDE}}

NOTES = [
    (
        f"{CHANNELS} x {SIZE} x {SIZE} uint16 as spatialdata writes it, chunks of 1 x 512 x 512 px, "
        f"Zstandard; {CIRCLES} circles with a table, {SIDE} px tiles in random order, of the type that is "
        "stored."
    ),
]
WARM = [
    *NOTES,
    (
        "Unless nothing is kept, ours holds decoded chunks of earlier tiles, and has been through the "
        "image once; the first epoch is in a table of its own. spatialdata keeps none."
    ),
]


def tables(options: Options) -> list[Table]:
    """Measure tiles one by one and in batches, and making the dataset."""
    store = options.work / "a.zarr"
    options.tell(f"writing {store}")
    _write(store)
    found: list[Table] = []
    for how in ({}, RASTER):
        found += [
            _items(store, options, how),
            _spatial_items(store, options, how),
            _first_epoch(store, options, how),
        ]
    return [
        *found,
        _workers(store, options),
        *_constructions(store, options),
        _memory(store, options),
    ]


def _title(how: dict[str, Any]) -> str:
    return "rasterized" if how else "cut from the pixel grid"


def _draw(rng: np.random.Generator, count: int) -> Items:
    return rng.integers(0, CIRCLES, count)


def _items(store: Path, options: Options, how: dict[str, Any]) -> Table:
    bench = Benchmark(
        f"Tiles and annotations, {_title(how)}", "tile", _draw, options.items, BASE, WARM
    )
    asked = {"tile_dim_in_units": SIDE, "table_name": "table", "return_annotations": "area", **how}
    nothing = mt.StorageOptions()
    bench.add("microtome", partial(_one_by_one, store, asked, None))
    bench.add("microtome, nothing kept", partial(_one_by_one, store, asked, nothing))
    name = f"microtome, regions in batches of {BATCH}"
    bench.add(name, partial(_batches, store, asked, None))
    bench.add(f"{name}, nothing kept", partial(_batches, store, asked, nothing))
    bench.add(BASE, partial(_peer, store, asked))
    return bench.run(options.rounds, tell=options.tell)


def _spatial_items(store: Path, options: Options, how: dict[str, Any]) -> Table:
    bench = Benchmark(
        f"Tiles as SpatialData with a table, {_title(how)}",
        "tile",
        _draw,
        min(options.items, 64),
        BASE,
        WARM,
    )
    asked = {"tile_dim_in_units": SIDE, "table_name": "table", **how}
    bench.add("microtome", partial(_one_by_one, store, asked, None))
    bench.add(BASE, partial(_peer, store, asked))
    return bench.run(options.rounds, tell=options.tell)


def _ours(store: Path, asked: dict[str, Any], kept: mt.StorageOptions | None, **more: Any) -> Any:
    return mt.ImageTilesDataset(store, *PAIR, **asked, **more, storage_options=kept)


def _region(asked: dict[str, Any]) -> dict[str, Any]:
    """Return what makes tiles regions of SIDE pixels; rasterized, they say so already."""
    return (
        {"output": "region"} if asked.get("rasterize") else {"output": "region", "tile_size": SIDE}
    )


def _pixels(item: Any) -> NDArray[Any]:
    tile = item[0] if isinstance(item, tuple) else item["image"]
    return tile.values[None]


def _each(dataset: Any, items: Items) -> Iterator[NDArray[Any]]:
    for row in items.tolist():
        yield _pixels(dataset[row])


def _in_batches(dataset: Any, items: Items) -> Iterator[NDArray[Any]]:
    for first in range(0, len(items), BATCH):
        # As torch's DataLoader asks for a batch.
        for item in dataset.__getitems__(items[first : first + BATCH].tolist()):
            yield item.data[None]


def _one_by_one(
    store: Path, asked: dict[str, Any], kept: mt.StorageOptions | None
) -> Generator[Read, None, None]:
    dataset = _ours(store, asked, kept)
    if kept is None:
        _read_once(_ours(store, asked, kept, **_region(asked)))
    yield partial(_each, dataset)


def _batches(
    store: Path, asked: dict[str, Any], kept: mt.StorageOptions | None
) -> Generator[Read, None, None]:
    dataset = _ours(store, asked, kept, **_region(asked))
    if kept is None:
        _read_once(dataset)
    yield partial(_in_batches, dataset)


def _read_once(dataset: Any) -> None:
    for _ in _in_batches(dataset, np.arange(len(dataset))):
        pass


def _peer(store: Path, asked: dict[str, Any]) -> Generator[Read, None, None]:
    from spatialdata import read_zarr  # pyright: ignore[reportMissingImports] - in an environment of its own
    from spatialdata.dataloader import ImageTilesDataset  # pyright: ignore[reportMissingImports]

    yield partial(_each, ImageTilesDataset(read_zarr(store), *PAIR, **asked))


def _first_epoch(store: Path, options: Options, how: dict[str, Any]) -> Table:
    """Measure a whole epoch in random order, with nothing decoded at its start."""
    asked = {"tile_dim_in_units": SIDE, "table_name": "table", "return_annotations": "area", **how}
    rounds = min(options.rounds, 2)
    names = ["microtome", f"microtome, regions in batches of {BATCH}", BASE]
    found = {name: Measurement(name, [], []) for name in names}
    (peer,) = _peer(store, asked)
    for number in range(rounds):
        for name, batches in zip(names[:2], (False, True), strict=True):
            own = _elsewhere(partial(_epoch, store, asked, number, batches=batches))
            found[name].cpu.extend(own.cpu)
            found[name].wall.extend(own.wall)
        rows = np.random.default_rng(number).permutation(CIRCLES)
        _measure(found[BASE], peer, rows[: options.items])
        options.tell(f"first epoch: round {number + 1} of {rounds}")
    title = f"First epoch of {CIRCLES} tiles and annotations, {_title(how)}"
    notes = [*NOTES, f"spatialdata, which keeps nothing, reads {options.items} of the tiles."]
    return Table(title, "tile", CIRCLES, BASE, list(found.values()), notes)


def _epoch(store: Path, asked: dict[str, Any], number: int, *, batches: bool) -> Measurement:
    found = Measurement("", [], [])
    rows = np.random.default_rng(number).permutation(CIRCLES)
    more = _region(asked) if batches else {}
    read = _in_batches if batches else _each
    # What is imported and compiled for the first items is no part of an epoch, what they keep would be.
    for _ in read(_ours(store, asked, mt.StorageOptions(), **more), rows[:BATCH]):
        pass
    _measure(found, partial(read, _ours(store, asked, None, **more)), rows)
    return found


def _elsewhere(measure: Callable[[], Measurement]) -> Measurement:
    """Measure in a process of its own, which takes along what it kept: caches are a process's."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure).result()


# -- worker processes


def _workers(store: Path, options: Options) -> Table:
    """Measure a loader of torch over one and two spawned workers, once they are at work."""
    from torch.utils.data import DataLoader

    asked = {"tile_dim_in_units": SIDE, "table_name": "table", "return_annotations": "area"}
    # A worker decodes in one thread, and keeps nothing: the second shall have no more than the first.
    dataset = _ours(store, asked, mt.StorageOptions(concurrency=1), output="region", tile_size=SIDE)
    loaders: dict[str, Any] = {
        f"{count} spawned worker{'s' * (count > 1)}": DataLoader(
            dataset,
            BATCH,
            shuffle=True,
            num_workers=count,
            multiprocessing_context="spawn",
            persistent_workers=True,
            drop_last=True,
            # What is read ahead between two rounds counts for neither.
            prefetch_factor=1,
        )
        for count in (1, 2)
    }
    found = {name: Measurement(name, [], []) for name in loaders}
    iterators = {name: _tiles(loader) for name, loader in loaders.items()}
    rows = np.arange(max(1, options.items // BATCH) * 4)
    for number in range(min(options.rounds, 3) + 1):
        for name, tiles in iterators.items():
            measured = found[name] if number else Measurement(name, [], [])
            _measure(measured, lambda rows, tiles=tiles: islice(tiles, len(rows)), rows)
            for times in (measured.cpu, measured.wall):
                times[-1] /= BATCH
    notes = [
        *NOTES,
        f"Batches of {BATCH} regions, each worker decoding in one thread, nothing kept.",
    ]
    base, _ = found
    return Table("Spawned workers", "tile", len(rows) * BATCH, base, list(found.values()), notes)


def _tiles(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader


def _measure(found: Measurement, read: Read, rows: Items) -> None:
    gc.collect()
    began, cpu = time.perf_counter(), cpu_seconds()
    for _ in read(rows):
        pass
    found.cpu.append((cpu_seconds() - cpu) / len(rows))
    found.wall.append((time.perf_counter() - began) / len(rows))


# -- making the dataset


def _constructions(store: Path, options: Options) -> list[Table]:
    from spatialdata import read_zarr  # pyright: ignore[reportMissingImports]
    from spatialdata.dataloader import ImageTilesDataset  # pyright: ignore[reportMissingImports]

    sdata = read_zarr(store)
    asked = {"tile_dim_in_units": SIDE, "table_name": "table", "return_annotations": "area"}

    def of(region: str, image: str = "image") -> Any:
        return mt.ImageTilesDataset(store, {region: image}, {region: "global"}, tile_dim_in_units=9)

    sizes = {
        "circles with their table": pickle.dumps(_ours(store, asked, None)),
        "labels": pickle.dumps(of("labels")),
    }
    pickled = "; ".join(f"{name} {len(data) / 1000:.0f} kB" for name, data in sizes.items())
    circles = {
        "microtome": lambda: _ours(store, asked, None),
        BASE: lambda: ImageTilesDataset(sdata, *PAIR, **asked),
        "microtome, 100,000 circles without a table": lambda: of("many"),
        "microtome, 1,000,000 circles without a table": lambda: of("million"),
    }
    small = {"small_labels": "small"}, {"small_labels": "global"}
    labels = {
        "microtome": lambda: of("small_labels", "small"),
        BASE: lambda: ImageTilesDataset(sdata, *small, tile_dim_in_units=9),
        f"microtome, {CIRCLES} objects in {SIZE} x {SIZE}": lambda: of("labels"),
    }
    note = f"A dataset as it travels to a worker process: {pickled}."
    return [
        _made(f"Datasets of {CIRCLES} circles with a table", circles, min(options.rounds, 5), note),
        _made(f"Datasets of {OBJECTS} labels in {SMALL} x {SMALL}", labels, 1, note),
    ]


def _made(title: str, makers: dict[str, Callable[[], Any]], rounds: int, note: str) -> Table:
    found = {name: Measurement(name, [], []) for name in makers}
    for _ in range(rounds):
        for name, make in makers.items():
            _measure(found[name], lambda _, make=make: [make()], np.zeros(1, np.int64))
    return Table(title, "dataset", 1, BASE, list(found.values()), [note])


def _memory(store: Path, options: Options) -> Table:
    """Measure what making a dataset takes at most, each in a process of its own."""
    regions = {
        "5,000 circles": "circles",
        "100,000 circles": "many",
        "1,000,000 circles": "million",
    }
    found: dict[str, Measurement] = {}
    for name, region in regions.items():
        found[name] = _elsewhere(partial(_made_alone, store, name, region))
        options.tell(f"memory of {name}")
    note = "With Python, microtome and its imports, before which the clock is not started."
    base = next(iter(found))
    return Table("Memory of datasets", "dataset", 1, base, list(found.values()), [note])


def _made_alone(store: Path, name: str, region: str) -> Measurement:
    found = Measurement(name, [], [])
    # Imports, and what is compiled.
    mt.ImageTilesDataset(store, {"circles": "image"}, {"circles": "global"}, tile_dim_in_units=9)
    _measure(
        found,
        lambda _: [
            mt.ImageTilesDataset(store, {region: "image"}, {region: "global"}, tile_dim_in_units=9)
        ],
        np.zeros(1, np.int64),
    )
    found.peak.append(peak_memory())
    return found


# -- the store


def _write(store: Path) -> None:
    import anndata
    import dask.array as da
    import pandas as pd
    from spatialdata import SpatialData  # pyright: ignore[reportMissingImports]
    from spatialdata.models import (  # pyright: ignore[reportMissingImports]
        Image2DModel,
        Labels2DModel,
        ShapesModel,
        TableModel,
    )

    rng = np.random.default_rng(0)
    # Noise on a smooth field, the same in each quarter of a quarter: chunks know nothing of each other.
    field = np.kron(rng.gamma(2, 200, (CHANNELS, 33, 33)), np.ones((64, 64)))[:, :SMALL, :SMALL]
    part = rng.poisson(field).astype(np.uint16)
    pixels = np.tile(part, (1, SIZE // SMALL, SIZE // SMALL))
    # A quarter off the edges of pixels: all tiles have as many, and both sides round alike.
    centres = rng.integers(SIDE, SIZE - SIDE, (CIRCLES, 2)) + 0.25
    table = anndata.AnnData(rng.poisson(1, (CIRCLES, 50)).astype(np.float32))
    table.obs["region"] = pd.Categorical(["circles"] * CIRCLES)
    table.obs["instance_id"] = np.arange(CIRCLES)
    table.obs["area"] = rng.random(CIRCLES)
    chunks: Any = (1, 512, 512)
    SpatialData(
        images={
            "image": Image2DModel.parse(da.from_array(pixels, chunks=chunks), dims=("c", "y", "x")),
            "small": Image2DModel.parse(da.from_array(part, chunks=chunks), dims=("c", "y", "x")),
        },
        labels={
            name: Labels2DModel.parse(da.from_array(array, chunks=chunks[1:]), dims=("y", "x"))
            for name, array in (
                ("labels", _discs(rng, SIZE, CIRCLES)),
                ("small_labels", _discs(rng, SMALL, OBJECTS)),
            )
        },
        shapes={
            name: ShapesModel.parse(places, geometry=0, radius=20.0)
            for name, places in (
                ("circles", centres),
                ("many", rng.uniform(0, SIZE, (100_000, 2))),
                ("million", rng.uniform(0, SIZE, (1_000_000, 2))),
            )
        },
        tables={
            "table": TableModel.parse(
                table, region="circles", region_key="region", instance_key="instance_id"
            )
        },
    ).write(store)


def _discs(rng: np.random.Generator, size: int, count: int) -> NDArray[np.int32]:
    labels = np.zeros((size, size), np.int32)
    y, x = np.mgrid[-20:21, -20:21]
    disc = y**2 + x**2 <= 400
    for number, (row, column) in enumerate(rng.integers(20, size - 20, (count, 2)).tolist(), 1):
        labels[row - 20 : row + 21, column - 20 : column + 21][disc] = number
    return labels
