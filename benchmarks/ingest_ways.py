"""Who turns an OME-TIFF into a multiscale OME-Zarr image how, all levels included.

Each is run in a process of its own, `python -m benchmarks.ingest_ways NAME SOURCE TARGET`, so that
the most memory it needs is its own; what it needed is printed as JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from .machine import cpu_seconds
from .pyramid_builders import peak_memory

__all__ = ["INTO_OURS", "LEVELS", "WAYS"]

INTO_OURS = ", our layout"
"""How the names end of those who write our default layout."""

LEVELS = 7
_SIDE = 1024
_CHUNK, _SHARD = (1, 128, 128), 2048
_BLOCK = 1 << 22


def microtome(source: Path, target: Path) -> None:
    """Write with what is measured here, in its default layout."""
    import microtome as mt

    image = mt.open_image(source)
    base = image.level(0)
    with mt.MultiscaleImage.create(
        target,
        type=base.dtype,
        level_shape=base.shape,
        channel_names=image.channel_names,
        mpp=image.require_mpp(),
    ) as made:
        made.build_levels(source=base.array)


def _ingested(source: Path, target: Path, codec: Any) -> None:
    from microtome.cohort import ingest

    # A whole cohort: the source's hash and the tables are in the figure.
    ingest(
        source, cohort=target, tissue_id="t", modality="codex", resolution=0.5, codec=codec
    ).close()


def ingest_fast(source: Path, target: Path) -> None:
    """Ingest into a cohort, with the codec of the others."""
    _ingested(source, target, "fast")


def ingest_train(source: Path, target: Path) -> None:
    """Ingest into a cohort, with its default codec, which packs better and takes longer."""
    _ingested(source, target, "train")


def _pixels(source: Path, side: int, channels: int = 1) -> Any:
    import dask.array as da
    import tifffile
    import zarr

    store = tifffile.imread(source, aszarr=True)
    return da.from_zarr(zarr.open_array(store, mode="r")).rechunk((channels, side, side))


def _shard(shape: Sequence[int]) -> tuple[int, ...]:
    """Return what one file has in our default layout."""
    return (shape[0], *(min(_SHARD, -(-side // _CHUNK[-1]) * _CHUNK[-1]) for side in shape[1:]))


def _codec() -> Any:
    from zarr.codecs import BloscCodec

    return BloscCodec(cname="lz4", clevel=5, shuffle="shuffle")


def _factors() -> list[dict[str, int]]:
    return [{"c": 1, "y": 2**level, "x": 2**level} for level in range(1, LEVELS)]


def ome_zarr_py(source: Path, target: Path, *, ours: bool = False) -> None:
    """Write with ome-zarr-py: its pyramid of local means, all levels as one dask graph."""
    import zarr
    from ome_zarr import OMEZarrImage, OMEZarrMultiscale
    from ome_zarr.scale import Methods
    from ome_zarr.writer import write_multiscale

    axes = ["c", "y", "x"]
    pyramid = OMEZarrMultiscale(
        OMEZarrImage(
            data=_pixels(source, _SHARD, -1) if ours else _pixels(source, _SIDE), axes=axes
        ),
        scale_factors=_factors(),
        method=Methods.LOCAL_MEAN,
    )
    levels: list[Any] = [level.data for level in pyramid.images]
    options: list[dict[str, Any]] = [{"compressors": [_codec()]} for _ in levels]
    if ours:
        for level, option in zip(levels, options, strict=True):
            option |= {"chunks": _CHUNK, "shards": _shard(level.shape)}
        levels = [level.rechunk(_shard(level.shape)) for level in levels]
    write_multiscale(levels, zarr.open_group(target, mode="w"), axes=axes, storage_options=options)


def ngff_zarr(source: Path, target: Path, *, ours: bool = False) -> None:
    """Write with ngff-zarr: each level from the one before."""
    import ngff_zarr as nz

    channels, height, width = _CHUNK if ours else (1, _SIDE, _SIDE)
    image = nz.to_ngff_image(
        _pixels(source, _SIDE), dims=["c", "y", "x"], scale={"c": 1.0, "y": 0.5, "x": 0.5}
    )
    made = nz.to_multiscales(
        image,
        scale_factors=[{"y": 2**level, "x": 2**level} for level in range(1, LEVELS)],
        method=nz.Methods.ITKWASM_BIN_SHRINK,
        chunks={"c": channels, "y": height, "x": width},
    )
    files = {"c": image.data.shape[0], "y": _SHARD // height, "x": _SHARD // width}
    nz.to_ngff_zarr(
        target,
        made,
        version="0.5",
        compressors=[_codec()],
        chunks_per_shard=files if ours else None,
    )


def bioio(source: Path, target: Path, *, ours: bool = False) -> None:
    """Write with the writer of bioio, which resizes each level from the finest."""
    from bioio_ome_zarr.writers import OMEZarrWriter

    pixels = _pixels(source, _SHARD, -1) if ours else _pixels(source, _SIDE)
    shapes = [
        (pixels.shape[0], pixels.shape[1] >> level, pixels.shape[2] >> level)
        for level in range(LEVELS)
    ]
    writer = OMEZarrWriter(
        str(target),
        level_shapes=shapes,
        dtype=pixels.dtype,
        chunk_shape=_CHUNK if ours else (1, _SIDE, _SIDE),
        shard_shape=[_shard(shape) for shape in shapes] if ours else None,
        compressor=_codec(),
        axes_names=["c", "y", "x"],
        axes_types=["channel", "space", "space"],
    )
    writer.write_full_volume(pixels)


def dask(source: Path, target: Path) -> None:
    """Write as one does by hand: `dask.array.coarsen`, all levels as one graph, into our layout."""
    import dask.array as da
    import numpy as np
    import zarr

    group = zarr.open_group(target, mode="w")
    pixels, levels, targets = _pixels(source, 2048).rechunk((-1, 2048, 2048)), [], []
    dtype = pixels.dtype
    for level in range(LEVELS):
        if level:
            pixels = da.coarsen(np.mean, pixels, {1: 2, 2: 2}).astype(dtype)
        shard = (pixels.shape[0], min(2048, pixels.shape[1]), min(2048, pixels.shape[2]))
        levels.append(pixels.rechunk(shard))
        targets.append(
            group.create_array(
                str(level),
                shape=pixels.shape,
                dtype=dtype,
                chunks=(1, 128, 128),
                shards=shard,
                compressors=_codec(),
            )
        )
    da.store(levels, targets, lock=False)


def copy(source: Path, target: Path) -> None:
    """Read the source, write it elsewhere, and wait until it lies on the disk."""
    buffer = bytearray(_BLOCK)
    target.mkdir()
    with source.open("rb", buffering=0) as read, (target / "copy").open("wb", buffering=0) as made:
        while size := read.readinto(buffer):
            made.write(memoryview(buffer)[:size])
        os.fsync(made.fileno())


_TIFF = ["tifffile", "imagecodecs", "zarr", "dask.array"]
_OURS = [
    "tensorstore",
    "ome_zarr_models.v05",
    "microtome.storage._compiled_frames",
    "microtome.image._compiled_halves",
    *_TIFF[:2],
]

WAYS: Mapping[str, tuple[Callable[[Path, Path], None], Sequence[str]]] = {
    "microtome": (microtome, ["microtome.image", "microtome.sources", *_OURS]),
    "microtome ingest, codec fast": (
        ingest_fast,
        ["microtome.cohort", "pyarrow.parquet", *_OURS],
    ),
    "microtome ingest, codec train": (
        ingest_train,
        ["microtome.cohort", "pyarrow.parquet", *_OURS],
    ),
    "ome-zarr-py": (ome_zarr_py, [*_TIFF, "ome_zarr", "ome_zarr.writer", "skimage.transform"]),
    "ngff-zarr": (ngff_zarr, [*_TIFF, "ngff_zarr", "itkwasm_downsample"]),
    "bioio": (bioio, [*_TIFF, "bioio_ome_zarr.writers"]),
    f"dask{INTO_OURS}": (dask, _TIFF),
    f"ome-zarr-py{INTO_OURS}": (
        partial(ome_zarr_py, ours=True),
        [*_TIFF, "ome_zarr", "ome_zarr.writer", "skimage.transform"],
    ),
    f"ngff-zarr{INTO_OURS}": (
        partial(ngff_zarr, ours=True),
        [*_TIFF, "ngff_zarr", "itkwasm_downsample"],
    ),
    f"bioio{INTO_OURS}": (partial(bioio, ours=True), [*_TIFF, "bioio_ome_zarr.writers"]),
    "copy": (copy, []),
}
"""Each with the modules that it needs: importing is not what is measured."""


def main() -> None:
    """Do it one way, and print processor and wall seconds and peak memory in bytes."""
    name, source, target = sys.argv[1:]
    write, modules = WAYS[name]
    for module in modules:
        importlib.import_module(module)
    began, cpu = time.perf_counter(), cpu_seconds()
    write(Path(source), Path(target))
    cpu, wall = cpu_seconds() - cpu, time.perf_counter() - began
    print(json.dumps({"cpu": cpu, "wall": wall, "peak": peak_memory()}))


if __name__ == "__main__":
    main()
