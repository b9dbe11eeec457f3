"""Ways to read tiles of one image, ours and others', each a generator that yields its `Read`.

The first four give tiles as they are stored, in one buffer that is used again; the others give new
float32 batches, as training takes them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import microtome as mt
from microtome.loading import OrderKind
from microtome.regions import ImageRegionData, Windows, read_regions, region_batch
from microtome.storage import Conversion, KeptChunks, tallied

from .harness import Items, OwnOrder, Read

__all__ = [
    "TileTask",
    "Tiles",
    "float_memmap",
    "float_microtome",
    "float_regions",
    "float_tensorstore",
    "float_zarr",
    "raw_memmap",
    "raw_microtome",
    "raw_tensorstore",
    "raw_zarr",
]


@dataclass(frozen=True, slots=True)
class TileTask:
    """What is read: square tiles of level 0 of an image with axes (c, y, x).

    Parameters
    ----------
    image
        The image, an OME-Zarr.
    flat
        The same pixels as an uncompressed .npy file.
    side
        Side of a tile.
    batch
        Tiles in a batch.
    """

    image: Path
    flat: Path
    side: int
    batch: int

    def array(self) -> Path:
        """Return the directory of the Zarr array."""
        with mt.MultiscaleImage.open(self.image) as image:
            return Path(image.level_uri(0))

    def batches(self, items: Items) -> Iterator[Items]:
        """Cut a round's items into batches."""
        for start in range(0, len(items), self.batch):
            yield items[start : start + self.batch]

    def buffer(self) -> NDArray[Any]:
        """Return memory for one batch, touched already."""
        with mt.MultiscaleImage.open(self.image) as image:
            return np.ones((self.batch, image.nchannels, self.side, self.side), image.dtype)


# ------------------------------------------------------------------ as stored, into one buffer


def raw_microtome(task: TileTask) -> Generator[Read]:
    """Read with one call of `read_regions` a batch, whose memory it uses again by itself."""
    with mt.MultiscaleImage.open(task.image) as image:

        def read(items: Items) -> Iterator[NDArray[Any]]:
            for batch in task.batches(items):
                yield read_regions([image], Windows.of(0, batch, task.side))

        yield read


def raw_tensorstore(task: TileTask, *, together: bool = False) -> Generator[Read]:
    """Read with tensorstore: all reads of a batch begun, into the buffer, then waited for.

    Parameters
    ----------
    task
        What is read.
    together
        Whether the reads go through a `tensorstore.Batch`, which joins those of one shard.
    """
    import tensorstore as ts

    path, buffer, side = task.array(), task.buffer(), task.side
    spec = {
        "driver": "zarr3" if (path / "zarr.json").is_file() else "zarr",
        "kvstore": {"driver": "file", "path": f"{path.resolve()}/"},
    }
    # No cache: hardly any tile comes twice.
    context = ts.Context({"cache_pool": {"total_bytes_limit": 0}})
    store = ts.open(spec, read=True, open=True, context=context).result()

    def begin(batch: Items, joined: ts.Batch | None) -> list[Any]:
        return [
            ts.array(tile).write(store[:, row : row + side, col : col + side], batch=joined)
            for tile, (row, col) in zip(buffer, batch.tolist(), strict=False)
        ]

    def read(items: Items) -> Iterator[NDArray[Any]]:
        for batch in task.batches(items):
            if together:
                with ts.Batch() as joined:
                    begun = begin(batch, joined)
            else:
                begun = begin(batch, None)
            for transfer in begun:
                transfer.result()
            yield buffer[: len(batch)]

    yield read


def raw_zarr(task: TileTask) -> Generator[Read]:
    """Read with zarr-python, tile by tile: it has no call for many."""
    import zarr

    yield _tile_by_tile(task, zarr.open_array(task.array(), mode="r"))


def raw_memmap(task: TileTask) -> Generator[Read]:
    """Copy out of a memory-mapped file: nothing to decode, the limit of most machines."""
    yield _tile_by_tile(task, np.load(task.flat, mmap_mode="r"))


def _tile_by_tile(task: TileTask, array: Any) -> Read:
    buffer, side = task.buffer(), task.side

    def read(items: Items) -> Iterator[NDArray[Any]]:
        for batch in task.batches(items):
            for tile, (row, col) in zip(buffer, batch.tolist(), strict=False):
                tile[...] = array[:, row : row + side, col : col + side]
            yield buffer[: len(batch)]

    return read


# ------------------------------------------------------------------ float32 batches for training


@dataclass(frozen=True, slots=True)
class Tiles:
    """Windows of one image as a source of a loader, which knows how they are stored as datasets do.

    Parameters
    ----------
    image
        The image.
    windows
        What is read, all of one size.
    """

    image: mt.MultiscaleImage
    windows: Windows

    def __len__(self) -> int:
        return len(self.windows)

    def read_batch(self, rows: NDArray[np.int64]) -> ImageRegionData[Any]:
        """Read windows as float32, as the datasets do."""
        windows = self.windows.take(rows)
        pixels = read_regions([self.image], windows, convert=Conversion.of())
        return region_batch([self.image], windows, pixels)

    def storage_blocks(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of the block of each: squares of whole chunks, at least four tiles wide."""
        chunk = self.image.level(0).array.chunks[-1]
        side = -(-4 * int(self.windows.size[-1]) // chunk) * chunk
        place = self.windows.take(rows).start // side
        return place[:, 0] * (int(place[:, 1].max(initial=0)) + 1) + place[:, 1]

    @property
    def tile_bytes(self) -> int:
        """Bytes of a tile as a batch holds it."""
        return self.image.nchannels * int(np.prod(self.windows.size)) * 4


def float_regions(task: TileTask, *, together: int = 1, kept: bool = False) -> Generator[Read]:
    """Read with `read_regions`, which converts on the way, and uses memory of batches again by itself.

    Parameters
    ----------
    task
        What is read.
    together
        How many batches are read with one call, as `TileLoader` does in blocked order.
    kept
        Whether all chunks of the image stay decoded, as a loader's do with ``cache_bytes``, and were
        read before.
    """
    chunks = KeptChunks(2 << 30, evicts=False) if kept else None
    with mt.MultiscaleImage.open(task.image) as image:
        count = task.batch * together
        if kept:
            height, width = image.level_shape(0)[-2:]
            corners = 512 * np.argwhere(np.ones((-(-height // 512), -(-width // 512))))
            for start in range(0, len(corners), 32):
                with tallied(chunks):
                    read_regions([image], Windows.of(0, corners[start : start + 32], 512))

        def read(items: Items) -> Iterator[NDArray[Any]]:
            for start in range(0, len(items), count):
                group = items[start : start + count]
                windows = Windows.of(0, group, task.side)
                with tallied(chunks):
                    found = read_regions([image], windows, convert=Conversion.of())
                for first in range(0, len(group), task.batch):
                    yield found[first : first + task.batch]

        yield read


def float_microtome(
    task: TileTask, *, order: OrderKind = "sequential", threads: int | None = None
) -> Generator[Read]:
    """Load with `TileLoader`.

    Parameters
    ----------
    task
        What is read.
    order
        Of its tiles: as they are drawn, which is at random, or by blocks.
    threads
        Of the loader; its default by default.
    """
    with mt.open_image(task.image) as image:
        # The loader of the round before: as long as one lives, its memory of batches is kept for the next
        # epoch, here for that of the loader that comes next.
        before: list[mt.TileLoader] = []

        def loader(items: Items) -> mt.TileLoader:
            tiles = Tiles(image, Windows.of(0, items, task.side))
            return mt.TileLoader(tiles, task.batch, order=order, threads=threads)

        def read(items: Items) -> Iterator[Any]:
            one = loader(items)
            for batch in one:
                yield batch.data
            before[:] = [one]

        yield OwnOrder(read, lambda items: loader(items).order.rows(0, len(items)))


def float_tensorstore(task: TileTask) -> Generator[Read]:
    """Read with tensorstore as above, and convert."""
    yield from _converted(raw_tensorstore(task))


def float_memmap(task: TileTask) -> Generator[Read]:
    """Copy out of a memory-mapped file, and convert."""
    yield from _converted(raw_memmap(task))


def float_zarr(task: TileTask, *, workers: int, pipeline: str | None = None) -> Generator[Read]:
    """Load with zarr-python in a torch DataLoader.

    Parameters
    ----------
    task
        What is read.
    workers
        Its worker processes, spawned once and kept; starting them is not measured.
    pipeline
        What decodes for zarr-python; its own by default.
    """
    from torch.utils.data import DataLoader

    from .zarr_dataset import Positions, ZarrTiles

    positions = Positions(task.batch)
    loader = DataLoader(
        ZarrTiles(str(task.array()), task.side, pipeline),
        batch_sampler=positions,
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,
        persistent_workers=workers > 0,
    )

    def read(items: Items) -> Iterator[Any]:
        positions.items = items
        yield from loader

    yield read


def _converted(raw: Generator[Read]) -> Generator[Read]:
    import torch

    def converting(read: Read) -> Callable[[Items], Iterator[Any]]:
        def converted(items: Items) -> Iterator[Any]:
            for batch in read(items):
                yield torch.from_numpy(batch.astype(np.float32))

        return converted

    for read in raw:
        yield converting(read)
