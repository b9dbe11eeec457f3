"""`get_tile` of a cohort of 43 channels, beside plain code for the same file layout."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

import microtome as mt
from microtome.storage import Codec

from .harness import Benchmark, Items, Read, Table
from .options import Options

__all__ = ["tables"]

SIDE = 224
CHANNELS, SIZE = 43, 2048
# Of them, three failed quality control or are no proteins, as in a real panel.
DROPPED = (3, 17, 41)
SPEC = "quantile_clipping/uq_0.99_image"
BASE = "zarr-python as spora_io has it"

NOTES = [
    f"{CHANNELS} x {SIZE} x {SIZE} float32 of sparse counts.",
    f"Tiles of the {CHANNELS - len(DROPPED)} channels of kind uniprot_filtered, standardized.",
    "SPORA's layout: shards of all channels x 1024 px, chunks of all channels x 256 px, Blosc lz4.",
    "Ours: shards of all channels x 512 px, chunks of 1 x 128 x 128 px, Blosc lz4hc.",
    "Ours for panels: the same with chunks of all channels x 64 x 64 px.",
    "spora_io opens the array for each tile and takes the channels by a list: so does plain code.",
    "The other keeps it open, takes all channels, and leaves some out then.",
]


def tables(options: Options) -> list[Table]:
    """Measure tiles of one tissue in both layouts."""
    work = options.work
    spora, ours, panel = work / "spora", work / "ours", work / "panel"
    pixels = _pixels()
    _write_ours(ours, pixels, "train")
    _write_ours(panel, pixels, "panel")
    _write_spora(spora, ours, pixels)
    del pixels

    def draw(rng: np.random.Generator, count: int) -> Items:
        return rng.integers(0, SIZE - SIDE, (count, 2))

    bench = Benchmark(
        f"Random {SIDE} px tiles of {CHANNELS} channels, standardized",
        "tile",
        draw,
        min(options.items, 32),
        BASE,
        NOTES,
        tolerance=1e-4,
    )
    bench.add("microtome, SPORA's layout", partial(_microtome, spora))
    bench.add("microtome, its default layout", partial(_microtome, ours))
    bench.add("microtome, its layout for panels", partial(_microtome, panel))
    bench.add(BASE, partial(_plain, spora, fancy=True))
    bench.add("zarr-python, opened once, all channels", partial(_plain, spora, fancy=False))
    return [bench.run(options.rounds, tell=options.tell)]


def _pixels() -> NDArray[np.float32]:
    from scipy import ndimage

    rng = np.random.default_rng(0)
    pixels = np.empty((CHANNELS, SIZE, SIZE), np.float32)
    for channel in pixels:
        field = ndimage.zoom(rng.random((33, 33), np.float32), SIZE / 33, order=1)[:SIZE, :SIZE]
        channel[...] = rng.poisson(field**3 * rng.gamma(1, 3))
    return pixels


def _names() -> list[str]:
    return [f"marker {number}" for number in range(CHANNELS)]


def _write_ours(root: Path, pixels: NDArray[np.float32], codec: Codec) -> None:
    mt.ingest(
        pixels,
        axes="cyx",
        mpp=1.0,
        cohort=root,
        tissue_id="t",
        modality="imc",
        channel_names=_names(),
        codec=codec,
    )
    path = root / "imc" / "channels.parquet"
    table = pq.read_table(path)
    known = [None if i in DROPPED else f"P{10000 + i}" for i in range(CHANNELS)]
    place = table.column_names.index("uniprot_id")
    pq.write_table(table.set_column(place, "uniprot_id", pa.array(known, pa.string())), path)
    masks = root / "segmentations" / "1_0mpp" / "tissue_masks"
    masks.mkdir(parents=True)
    np.savez_compressed(masks / "t.npz", mask=np.ones(pixels.shape[-2:], np.bool_))
    mt.tile(root, tile_size=SIDE, method="grid", strategy="default", tolerance=0.9)
    mt.stats(root)


def _write_spora(root: Path, ours: Path, pixels: NDArray[np.float32]) -> None:
    """Copy the tables, and write the image as the published example has it."""
    import shutil

    import zarr
    from zarr.codecs import BloscCodec

    shutil.copytree(ours, root, ignore=shutil.ignore_patterns("t.ome.zarr", "cohort.json", ".*"))
    place = root / "imc" / "1_0mpp" / "images" / "t.ome.zarr"
    group = zarr.open_group(place, mode="w", zarr_format=3)
    array = group.create_array(
        "0",
        shape=pixels.shape,
        dtype="float32",
        chunks=(CHANNELS, 256, 256),
        shards=(CHANNELS, 1024, 1024),
        compressors=BloscCodec(cname="lz4", clevel=3, shuffle="bitshuffle", typesize=4),
    )
    array[...] = pixels
    axes: list[dict[str, str]] = [
        {"name": "c", "type": "channel"},
        {"name": "y", "type": "space", "unit": "micrometer"},
        {"name": "x", "type": "space", "unit": "micrometer"},
    ]
    scale = {"type": "scale", "scale": [1.0, 1.0, 1.0]}
    level = {"path": "0", "coordinateTransformations": [scale]}
    labels = [{"label": name, "color": "FFFFFF"} for name in _names()]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"name": "t", "axes": axes, "datasets": [level]}],
        "omero": {"channels": labels},
    }


def _microtome(root: Path) -> Generator[Read]:
    dataset = mt.MultiplexImagingDataset(
        "c", "imc", path=root, standardization=SPEC, tile_size=SIDE
    )

    def read(items: Items) -> Iterator[Any]:
        for row, col in items.tolist():
            yield dataset.get_tile_by_coordinates("t", row, col).image.numpy()[None]

    yield read


def _plain(root: Path, *, fancy: bool) -> Generator[Read]:
    import torch
    import zarr

    place = root / "imc" / "1_0mpp"
    keep = [i for i in range(CHANNELS) if i not in DROPPED]
    tables = place / "standardization" / SPEC

    def column(name: str) -> Any:
        row = pq.read_table(tables / f"{name}.parquet").to_pylist()[0]
        return torch.tensor([row[_names()[i]] for i in keep])[:, None, None]

    upper = column("image_level_upper_quantiles")
    mean, std = column("global_level_means"), column("global_level_stds")
    opened: Any = zarr.open_group(place / "images" / "t.ome.zarr", mode="r")["0"]

    def read(items: Items) -> Iterator[Any]:
        for row, col in items.tolist():
            window = slice(row, row + SIDE), slice(col, col + SIDE)
            if fancy:
                array: Any = zarr.open_group(place / "images" / "t.ome.zarr", mode="r")["0"]
                pixels = torch.from_numpy(array.oindex[keep, *window])
            else:
                pixels = torch.from_numpy(opened[:, *window])[keep]
            pixels = torch.minimum(pixels.clamp(min=0), upper) / (upper + 1e-8)
            yield ((pixels - mean) / (std + 1e-8)).numpy()[None]

    yield read
