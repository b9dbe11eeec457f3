"""Ways to read square regions of level 0 of one image, each a generator that yields its `Read`.

All but the batches read one region after the other into memory of its own, which is what
`read_spatial_region` returns.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import microtome as mt
from microtome.regions import Windows, read_regions

from .harness import Items, Read

__all__ = ["BASE", "SpatialTask", "readers"]

BASE = "tensorstore by hand"

_TUNED = {
    "soma.init_buffer_bytes": str(2 << 20),
    "vfs.min_batch_size": "0",
    "vfs.min_batch_gap": "0",
    "sm.mem.malloc_trim": "false",
}


@dataclass(frozen=True, slots=True)
class SpatialTask:
    """What is read: square regions of level 0 of an image with axes (c, y, x).

    Parameters
    ----------
    image
        The image, an OME-Zarr.
    shape
        Shape of level 0.
    side
        Side of a region.
    batch
        Regions in a batch.
    work
        Where copies of the image go.
    """

    image: Path
    shape: tuple[int, int, int]
    side: int
    batch: int
    work: Path

    @property
    def array(self) -> Path:
        """Directory of the Zarr array."""
        return self.image / "0"

    def one_by_one(self, read: Callable[[int, int], Any]) -> Read:
        """Return the `Read` of a function of a row and a column."""

        def reading(items: Items) -> Iterator[Any]:
            for row, column in items.tolist():
                yield read(row, column)[None]

        return reading


def readers(task: SpatialTask) -> Mapping[str, Callable[[], Generator[Read]]]:
    """Return all who can be measured here: the peers of `make bench-peers` only where they are."""
    ways: dict[str, Callable[[SpatialTask], Generator[Read]]] = {
        "microtome.read_spatial_region": _microtome,
        f"microtome.regions.read_regions, {task.batch} at once": _microtome_batches,
        BASE: _tensorstore,
        f"{BASE}, into a buffer used again": _tensorstore_buffer,
        f"{BASE}, tensorstore.Batch of {task.batch}": _tensorstore_batches,
        "zarr-python": _zarr,
    }
    if importlib.util.find_spec("tiledbsoma") is not None:
        channels = task.shape[0]
        ways["tiledbsoma, its default tiles"] = partial(_soma, tile=None)
        ways["tiledbsoma, equal tiles 1 x 128 x 128"] = partial(_soma, tile=(1, 128, 128))
        ways[f"tiledbsoma, tiles {channels} x 256 x 256, tuned"] = partial(
            _soma, tile=(channels, 256, 256), config=_TUNED
        )
    return {name: partial(way, task) for name, way in ways.items()}


def _microtome(task: SpatialTask) -> Generator[Read]:
    with mt.MultiscaleImage.open(task.image) as image:
        side = task.side
        yield task.one_by_one(
            lambda y, x: image.read_spatial_region(0, (x, y, x + side, y + side)).data
        )


def _microtome_batches(task: SpatialTask) -> Generator[Read]:
    with mt.MultiscaleImage.open(task.image) as image:
        buffer = _buffer(task, image.dtype)

        def read(items: Items) -> Iterator[NDArray[Any]]:
            for start in range(0, len(items), task.batch):
                windows = Windows.of(0, items[start : start + task.batch], task.side)
                yield read_regions([image], windows, out=buffer[: len(windows)])

        yield read


def _engine(task: SpatialTask) -> Any:
    import tensorstore as ts

    # As in microtome: no cache, since hardly any pixel is asked for twice.
    context = ts.Context({"cache_pool": {"total_bytes_limit": 0}})
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{task.array.resolve()}/"}}
    return ts.open(spec, read=True, open=True, context=context).result()


def _tensorstore(task: SpatialTask) -> Generator[Read]:
    store, side = _engine(task), task.side
    yield task.one_by_one(lambda y, x: store[:, y : y + side, x : x + side].read().result())


def _tensorstore_buffer(task: SpatialTask) -> Generator[Read]:
    import tensorstore as ts

    store, side = _engine(task), task.side
    (buffer,) = _buffer(task, store.dtype.numpy_dtype, 1)
    target = ts.array(buffer)

    def read(row: int, column: int) -> NDArray[Any]:
        target.write(store[:, row : row + side, column : column + side]).result()
        return buffer

    yield task.one_by_one(read)


def _tensorstore_batches(task: SpatialTask) -> Generator[Read]:
    import tensorstore as ts

    store, side = _engine(task), task.side
    buffer = _buffer(task, store.dtype.numpy_dtype)

    def read(items: Items) -> Iterator[NDArray[Any]]:
        for start in range(0, len(items), task.batch):
            corners = items[start : start + task.batch].tolist()
            with ts.Batch() as batch:
                begun = [
                    ts.array(tile).write(store[:, y : y + side, x : x + side], batch=batch)
                    for tile, (y, x) in zip(buffer, corners, strict=False)
                ]
            for transfer in begun:
                transfer.result()
            yield buffer[: len(corners)]

    yield read


def _zarr(task: SpatialTask) -> Generator[Read]:
    import zarr

    array: Any = zarr.open_array(task.array, mode="r")
    side = task.side
    yield task.one_by_one(lambda y, x: array[:, y : y + side, x : x + side])


def _soma(
    task: SpatialTask, *, tile: tuple[int, ...] | None, config: dict[str, str] | None = None
) -> Generator[Read]:
    import tiledbsoma

    path = task.work / f"soma-{'default' if tile is None else 'x'.join(map(str, tile))}"
    _write_soma(task, path, tile)
    context = tiledbsoma.SOMATileDBContext(tiledb_config=config) if config else None
    far = task.side - 1  # its boxes include their ends
    try:
        with tiledbsoma.MultiscaleImage.open(str(path), context=context) as image:
            yield task.one_by_one(
                lambda y, x: image.read_spatial_region(0, (x, y, x + far, y + far)).data.to_numpy()
            )
    finally:
        shutil.rmtree(path)


def _write_soma(task: SpatialTask, path: Path, tile: tuple[int, ...] | None) -> None:
    import pyarrow as pa
    import tiledbsoma

    options: dict[str, Any] = {}
    if tile is not None:
        create = {
            "dims": {f"soma_dim_{axis}": {"tile": size} for axis, size in enumerate(tile)},
            "attrs": {"soma_data": {"filters": [{"_type": "ZstdFilter", "level": 3}]}},
        }
        options["platform_config"] = {"tiledb": {"create": create}}
    with mt.MultiscaleImage.open(task.image) as image:
        pixels = image.level(0)[...]
    with tiledbsoma.MultiscaleImage.create(
        str(path), type=pa.from_numpy_dtype(pixels.dtype), level_shape=pixels.shape, **options
    ) as copy:
        copy["level0"].write((slice(None),) * 3, pa.Tensor.from_numpy(pixels))


def _buffer(task: SpatialTask, dtype: Any, count: int | None = None) -> NDArray[Any]:
    """Return memory for regions, touched already."""
    return np.ones((count or task.batch, task.shape[0], task.side, task.side), dtype)
