"""Labels of tiles as labels of the image, by us and by ngio: the same labels in, the same objects out."""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import microtome as mt
from microtome.prediction import predict_instances

from .harness import Benchmark, Items, Read, Table
from .options import Options

__all__ = ["tables"]

SIZE, STEP, HALO = 4096, 448, 32
# Cells are that far from each other.
PITCH = 18
BASE = "microtome"

NOTES = [
    f"A slide of {SIZE} x {SIZE} px, a cell about every {PITCH} px in both directions.",
    "Its pixels are the ids of cells: the model returns its tile.",
    f"100 tiles of {STEP + 2 * HALO} px that share {2 * HALO} px and keep {STEP}.",
    "From the image on disk to labels on disk, with their pyramid and with ids from 1 on.",
    "ngio: SegmentationIterator.by_grid.with_halo.with_stitch, then map_as_numpy, with defaults.",
    "ngio's block_size alone is larger, as an id has to fit.",
    "Both find every cell whole, and no other: verified before anything is measured.",
]


def tables(options: Options) -> list[Table]:
    """Measure a slide of cells."""
    cells = _cells()
    path = options.work / "cells.ome.zarr"
    with mt.MultiscaleImage.create(
        path, type="uint16", level_shape=(1, SIZE, SIZE), mpp=0.5
    ) as image:
        image["level0"][...] = cells[None].astype(np.uint16)
    bench = Benchmark(
        "Labels of tiles as labels of the slide",
        "slide",
        _same,
        1,
        BASE,
        NOTES,
    )
    bench.add(BASE, partial(_microtome, path, cells))
    bench.add("ngio", partial(_ngio, path, cells))
    return [bench.run(options.rounds, tell=options.tell)]


def _same(rng: np.random.Generator, count: int) -> Items:
    """Ask for the one slide that there is."""
    del rng
    return np.zeros((count, 1), np.int64)


def _cells() -> NDArray[np.int64]:
    """Make cells that fill the slide: pixels go to the nearest of points that lie at random.

    Numbered in raster order of the points, and again from 1 after 60,000: that far apart, no two are
    in one tile.
    """
    from scipy import ndimage

    rng = np.random.default_rng(0)
    steps = np.arange(PITCH // 2, SIZE, PITCH)
    points = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2)
    points = np.clip(points + rng.integers(-PITCH // 4, PITCH // 4 + 1, points.shape), 0, SIZE - 1)
    seeds = np.ones((SIZE, SIZE), np.bool_)
    seeds[points[:, 0], points[:, 1]] = False
    ids = np.zeros((SIZE, SIZE), np.int64)
    ids[points[:, 0], points[:, 1]] = np.arange(len(points)) % 60_000 + 1
    far, nearest = ndimage.distance_transform_edt(seeds, return_indices=True)
    return np.where(far < PITCH * 0.6, ids[tuple(nearest)], 0)


def _objects(labels: NDArray[Any], cells: NDArray[np.int64], name: str) -> NDArray[np.int64]:
    """Verify that labels are the cells, but for their names, and return the sizes of objects."""
    pairs = np.unique(labels.astype(np.int64) << 20 | cells)
    if not (len(pairs) == len(np.unique(labels)) == len(np.unique(cells))):
        msg = f"{name} did not find the cells that there are"
        raise RuntimeError(msg)
    return np.sort(np.bincount(labels.reshape(-1)))


def _identity(batch: NDArray[Any]) -> NDArray[Any]:
    return batch[:, 0]


def _wide(tile: NDArray[Any]) -> NDArray[Any]:
    # ngio adds a tile's offset in the type that the model returns.
    return tile.astype(np.uint32)


def _microtome(path: Path, cells: NDArray[np.int64]) -> Generator[Read]:
    out = path.with_name("ours.ome.zarr")

    def read(items: Items) -> Iterator[NDArray[np.int64]]:
        for _ in items:
            made = predict_instances(
                _identity,
                path,
                out,
                tile_size=STEP + 2 * HALO,
                overlap=2 * HALO,
                resume=False,
                overwrite=True,
            )
            yield np.array([made.level(0).height])

    next(read(np.zeros((1, 1), np.int64)))
    _objects(mt.open_image(out).level(0)[...], cells, BASE)
    yield read
    shutil.rmtree(out)


def _ngio(path: Path, cells: NDArray[np.int64]) -> Generator[Read]:
    import ngio
    from ngio.iterators import SegmentationIterator, StitchConfig

    copy = path.with_name("ngio.ome.zarr")
    shutil.copytree(path, copy)
    container = ngio.open_ome_zarr_container(copy, mode="r+")

    def read(items: Items) -> Iterator[NDArray[np.int64]]:
        for _ in items:
            label = container.derive_label("cells", dtype="uint32", overwrite=True)
            iterator = SegmentationIterator(
                container.get_image(), label, channel_selection=0, axes_order="yx"
            )
            iterator = iterator.by_grid(size_x=STEP, size_y=STEP).with_halo(x=HALO, y=HALO)
            iterator.with_stitch(StitchConfig(block_size=65_536)).map_as_numpy(_wide)
            yield np.array([label.shape[-2]])

    next(read(np.zeros((1, 1), np.int64)))
    _objects(container.get_label("cells").get_as_numpy(), cells, "ngio")
    yield read
    shutil.rmtree(copy)
