"""What peers do in processes of their own; `outside` starts them. Nothing here imports microtome.

A reader is a function that prepares, and yields what turns corners of tiles, (n, 2), into batches
of float32 (n, C, side, side), as its own manual loads them. Each gets the directory of a Zarr array of
axes (c, y, x), or the same pixels as an uncompressed .npy file to make its own store of.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from importlib import import_module
from math import ceil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Items = NDArray[np.int64]
Read = Callable[[Items], Iterable[Any]]


def main() -> None:
    """Do items as the parent names them, a line at a time."""
    # What libraries print goes elsewhere: standard output belongs to the parent.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    name, given = sys.argv[1:]
    readers: dict[str, Callable[..., Generator[Read]]] = {
        one.__name__: one
        for one in (careamics, litdata, soma, spatialdata, webdataset, zarr, zarrs)
    }
    prepared = readers[name](**json.loads(given))
    read = next(prepared)
    print("done", file=answers, flush=True)
    for line in sys.stdin:
        place, keep = json.loads(line)
        items = np.load(Path(place) / "items.npy")
        if keep:
            found = [np.asarray(batch).copy() for batch in read(items)]
            np.save(Path(place) / "found.npy", np.concatenate(found))
        else:
            for _ in read(items):
                pass
        print("done", file=answers, flush=True)
    prepared.close()


# ------------------------------------------------------------------ Zarr


def zarr(array: str, side: int, batch: int, *, fused: bool = False) -> Generator[Read]:
    """Read tile by tile with zarr-python into one batch of float32 that is used again.

    Parameters
    ----------
    array
        Directory of the array.
    side, batch
        Pixels of a tile, tiles of a batch.
    fused
        Whether the pipeline of codecs is zarr 3.4's fused one, which must be asked for.
    """
    import zarr

    if fused:
        zarr.config.set({"codec_pipeline.path": "zarr.core.codec_pipeline.FusedCodecPipeline"})
    opened: Any = zarr.open_array(array, mode="r")
    buffer = np.ones((batch, opened.shape[0], side, side), np.float32)

    def read(items: Items) -> Iterator[NDArray[Any]]:
        for start in range(0, len(items), batch):
            corners = items[start : start + batch].tolist()
            for tile, (row, col) in zip(buffer, corners, strict=False):
                tile[...] = opened[:, row : row + side, col : col + side]
            yield buffer[: len(corners)]

    yield read


def zarrs(array: str, side: int, batch: int, workers: int) -> Generator[Read]:
    """Load with zarr-python in a torch DataLoader, zarrs as its pipeline of codecs."""
    from torch.utils.data import DataLoader

    from .zarr_dataset import Positions, ZarrTiles

    positions = Positions(batch)
    loader = DataLoader(
        ZarrTiles(array, side, "zarrs.ZarrsCodecPipeline"),
        batch_sampler=positions,
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,
        persistent_workers=workers > 0,
    )

    def read(items: Items) -> Iterator[Any]:
        positions.items = items
        yield from loader

    yield read


# ------------------------------------------------------------------ CAREamics


def careamics(
    array: str, places: list[list[int]], side: int, batch: int, workers: int
) -> Generator[Read]:
    """Load with CAREamics' dataset in a torch DataLoader, patches at places that are given.

    Parameters
    ----------
    array
        Directory of the array, in an image.
    places
        Where all patches begin; items are of these.
    side, batch, workers
        Of the loader.
    """
    from torch.utils.data import DataLoader, default_collate

    # Before the stand-in, which it must not take for the real one.
    import_module("lightning.pytorch")
    _stand_in("torchvision.transforms.functional")
    config: Any = import_module("careamics.config.data")
    factory: Any = import_module("careamics.dataset.factory")
    patching: Any = import_module("careamics.dataset.patching.fixed_patching")
    asked = config.DataConfig(
        data_type="zarr",
        axes="CYX",
        batch_size=batch,
        seed=42,
        n_val_patches=0,
        normalization={"name": "none"},
        augmentations=[],
        num_workers=workers,
        mode="training",
        patching={"name": "random", "patch_size": [side, side]},
    )
    image, level = os.path.split(array)
    dataset = factory.create_dataset(asked, [f"file://{image}/{level}"], None)
    dataset.patch_constructor.patching_strategy = patching.FixedPatching(
        [
            {"data_idx": 0, "sample_idx": 0, "coords": place, "patch_size": [side, side]}
            for place in places
        ]
    )
    rows = _Rows(places, batch)
    loader = DataLoader(
        dataset,
        batch_sampler=rows,
        collate_fn=default_collate,
        num_workers=workers,
        persistent_workers=workers > 0,
    )

    def read(items: Items) -> Iterator[Any]:
        rows.set(items)
        for found in loader:
            yield found[0].data

    yield read


class _Rows:
    """Numbers of places in batches, other ones in each epoch, so that workers can live on."""

    def __init__(self, places: list[list[int]], batch: int) -> None:
        self.number = {tuple(place): number for number, place in enumerate(places)}
        self.batch = batch
        self.rows: list[int] = []

    def set(self, items: Items) -> None:
        self.rows = [self.number[row, col] for row, col in items.tolist()]

    def __len__(self) -> int:
        return ceil(len(self.rows) / self.batch)

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(0, len(self.rows), self.batch):
            yield self.rows[start : start + self.batch]


def _stand_in(name: str) -> None:
    """Put empty modules where CAREamics imports torchvision, which none of its loading uses.

    torchvision is bound to one build of torch; a model of CAREamics that is not run here takes it.
    """
    above = ""
    for part in name.split("."):
        module: Any = ModuleType(f"{above}.{part}".lstrip("."))
        module.__path__, module.__version__ = [], "none"
        sys.modules[module.__name__] = module
        if above:
            setattr(sys.modules[above], part, module)
        above = module.__name__


# ------------------------------------------------------------------ stores of their own


def soma(
    flat: str,
    store: str,
    side: int,
    batch: int,
    tile: list[int] | None = None,
    config: dict[str, str] | None = None,
) -> Generator[Read]:
    """Read with tiledbsoma's `read_spatial_region` into one batch of float32 that is used again.

    Parameters
    ----------
    flat
        The pixels.
    store
        Where its copy goes, or is.
    side, batch
        Pixels of a region, regions of a batch.
    tile
        Of its copy, with Zstandard 3; None for its default, with its default codec.
    config
        Settings of TileDB; None for its defaults.
    """
    tiledbsoma: Any = import_module("tiledbsoma")

    channels = np.load(flat, mmap_mode="r").shape[0]
    if not Path(store).exists():
        _write_soma(flat, f"{store}.part", tile)
        Path(f"{store}.part").rename(store)
    buffer = np.ones((batch, channels, side, side), np.float32)
    context = tiledbsoma.SOMATileDBContext(tiledb_config=config) if config else None
    far = side - 1  # its boxes include their ends
    with tiledbsoma.MultiscaleImage.open(store, context=context) as image:

        def read(items: Items) -> Iterator[NDArray[Any]]:
            for start in range(0, len(items), batch):
                corners = items[start : start + batch].tolist()
                for place, (y, x) in zip(buffer, corners, strict=False):
                    region = image.read_spatial_region(0, (x, y, x + far, y + far))
                    place[...] = region.data.to_numpy()
                yield buffer[: len(corners)]

        yield read


def _write_soma(flat: str, store: str, tile: list[int] | None) -> None:
    import pyarrow as pa

    tiledbsoma: Any = import_module("tiledbsoma")

    pixels = np.load(flat)
    options: dict[str, Any] = {}
    if tile is not None:
        create = {
            "dims": {f"soma_dim_{axis}": {"tile": size} for axis, size in enumerate(tile)},
            "attrs": {"soma_data": {"filters": [{"_type": "ZstdFilter", "level": 3}]}},
        }
        options["platform_config"] = {"tiledb": {"create": create}}
    with tiledbsoma.MultiscaleImage.create(
        store, type=pa.from_numpy_dtype(pixels.dtype), level_shape=pixels.shape, **options
    ) as copy:
        copy["level0"].write((slice(None),) * 3, pa.Tensor.from_numpy(pixels))


def spatialdata(
    flat: str, store: str, places: list[list[int]], side: int, batch: int
) -> Generator[Read]:
    """Load with spatialdata's `ImageTilesDataset` in a torch DataLoader, of a store that it writes.

    Parameters
    ----------
    flat
        The pixels.
    store
        Where its copy goes: chunks of 1024 px.
    places
        Where all tiles begin; items are of these.
    side, batch
        Pixels of a tile, tiles of a batch.
    """
    import anndata
    import dask.array as da
    import pandas as pd
    import torch
    from torch.utils.data import DataLoader

    whole: Any = import_module("spatialdata")
    models: Any = import_module("spatialdata.models")
    loading: Any = import_module("spatialdata.dataloader")
    arrays: Any = da
    pixels = arrays.from_array(np.load(flat, mmap_mode="r"), chunks=(1, 1024, 1024))
    # A quarter off the edges of pixels, so that both sides of a tile round alike.
    centres = np.asarray(places)[:, ::-1] + side / 2 + 0.25
    table = anndata.AnnData(np.zeros((len(places), 1), np.float32))
    table.obs["region"] = pd.Categorical(["places"] * len(places))
    table.obs["instance_id"] = np.arange(len(places))
    whole.SpatialData(
        images={"image": models.Image2DModel.parse(pixels, dims=("c", "y", "x"))},
        shapes={"places": models.ShapesModel.parse(centres, geometry=0, radius=20.0)},
        tables={
            "table": models.TableModel.parse(
                table, region="places", region_key="region", instance_key="instance_id"
            )
        },
    ).write(store)
    dataset = loading.ImageTilesDataset(
        whole.read_zarr(store),
        {"places": "image"},
        {"places": "global"},
        tile_dim_in_units=side,
        table_name="table",
        return_annotations="instance_id",
    )

    def together(samples: list[Any]) -> Any:
        tiles = [np.asarray(tile.values, np.float32) for tile, _ in samples]
        return torch.from_numpy(np.stack(tiles))

    rows = _Rows(places, batch)

    def read(items: Items) -> Iterator[Any]:
        rows.set(items)
        yield from DataLoader(dataset, batch_sampler=rows, collate_fn=together)

    yield read


# ------------------------------------------------------------------ streams of tiles that were cut


def webdataset(
    flat: str, store: str, corners: list[list[int]], side: int, batch: int
) -> Generator[Read]:
    """Stream with WebDataset, not shuffled: tiles as raw bytes in one file, in order."""
    import torch

    wds: Any = import_module("webdataset")

    with wds.TarWriter(store) as out:
        for number, tile in enumerate(_cut(flat, corners, side)):
            out.write({"__key__": f"{number:06}", "tile": tile.tobytes()})
    shape = (-1, side, side)

    def decoded(sample: Any) -> NDArray[np.float32]:
        return np.frombuffer(sample["tile"], np.uint16).reshape(shape).astype(np.float32)

    def read(_: Items) -> Iterator[Any]:
        stream = wds.WebDataset(store, shardshuffle=False).map(decoded)
        # The tiles of a batch are put together once, by us: its own collation takes tuples.
        for found in stream.batched(batch, collation_fn=np.stack):
            yield torch.from_numpy(found)

    yield read


def litdata(
    flat: str, store: str, corners: list[list[int]], side: int, batch: int
) -> Generator[Read]:
    """Stream with LitData from a local directory, not shuffled: chunks of 64 MB, items as arrays."""
    import torch

    lit: Any = import_module("litdata")
    writers: Any = import_module("litdata.streaming.writer")

    Path(store).mkdir()
    writer = writers.BinaryWriter(store, chunk_bytes="64MB")
    for number, tile in enumerate(_cut(flat, corners, side)):
        writer[number] = tile
    writer.done()
    writer.merge()

    def together(samples: list[Any]) -> Any:
        return torch.from_numpy(np.stack(samples).astype(np.float32))

    dataset = lit.StreamingDataset(store, shuffle=False)
    loader = lit.StreamingDataLoader(dataset, batch_size=batch, collate_fn=together)

    def read(_: Items) -> Iterator[Any]:
        yield from loader

    yield read


def _cut(flat: str, corners: list[list[int]], side: int) -> Iterator[NDArray[Any]]:
    pixels = np.load(flat, mmap_mode="r")
    for row, col in corners:
        yield np.ascontiguousarray(pixels[:, row : row + side, col : col + side])


# The worker processes of a loader import this module under another name.
if __name__ == "__main__":
    main()
