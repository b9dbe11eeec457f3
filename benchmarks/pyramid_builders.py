"""Who builds a pyramid how: each takes level 0 as it is stored and writes the levels after it.

Each is run in a process of its own, `python -m benchmarks.pyramid_builders NAME IMAGE`, so that
the most memory it needs is its own; what it needed is printed as JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from .machine import cpu_seconds

__all__ = ["BUILDERS", "level_paths", "measure", "peak_memory"]

COARSER = "coarser"

_BLOCK = 1 << 22


def microtome(image: Path) -> None:
    """Build with what is measured here."""
    import microtome as mt

    with mt.MultiscaleImage.open(image, "w") as opened:
        opened.build_levels()


def ome_zarr_py(image: Path) -> None:
    """Build with ome-zarr-py: all levels as one dask graph; level 0 is not written again."""
    import dask.array as da
    import zarr
    from ome_zarr import OMEZarrImage, OMEZarrMultiscale
    from ome_zarr.scale import Methods
    from ome_zarr.writer import write_multiscale

    base = zarr.open_array(image / "0", mode="r")
    axes = list(base.metadata.dimension_names)
    # Whole files at once: of single chunks there would be tens of thousands of tasks.
    pixels = da.from_zarr(base, chunks=base.shards)
    pyramid = OMEZarrMultiscale(
        OMEZarrImage(data=pixels, axes=axes),
        scale_factors=[
            {axis: 2**level if axis in "yx" else 1 for axis in axes}
            for level in range(1, len(level_paths(image)))
        ],
        method=Methods.LOCAL_MEAN,
    )
    write_multiscale(
        [level.data for level in pyramid.images[1:]],
        zarr.open_group(image / COARSER, mode="w"),
        axes=axes,
        storage_options={"compressors": base.compressors},
    )


def ngff_zarr(image: Path) -> None:
    """Build with ngff-zarr: levels appended to level 0, each from the one before on disk."""
    import ngff_zarr as nz
    import zarr

    base = zarr.open_array(image / "0", mode="r")
    made = nz.to_multiscales(
        nz.from_ngff_zarr(image).images[0],
        scale_factors=[
            {"y": 2**level, "x": 2**level} for level in range(1, len(level_paths(image)))
        ],
        method=nz.Methods.ITKWASM_BIN_SHRINK,
        # Its own default, and chunks of 128 with either of its means, need up to 25 times as much.
        chunks={"c": 1, "y": 1024, "x": 1024},
    )
    for level, dataset in enumerate(made.metadata.datasets):
        dataset.path = str(level)
    nz.to_ngff_zarr(
        image, made, version="0.5", overwrite=False, start_level=1, compressors=base.compressors
    )


def ngio(image: Path) -> None:
    """Build with ngio into the empty levels that lie there."""
    from ngio import open_ome_zarr_container

    open_ome_zarr_container(image).get_image(path="0").consolidate(mode="auto")


def dask_coarsen(image: Path) -> None:
    """Build as one does by hand with dask, all levels as one graph, into empty ones of our layout."""
    import dask.array as da
    import numpy as np
    import zarr

    base, *coarser = level_paths(image)
    source = zarr.open_array(base, mode="r")
    targets = [zarr.open_array(path, mode="r+") for path in coarser]
    pixels, levels = da.from_zarr(source, chunks=source.shards), []
    for target in targets:
        halves = {pixels.ndim - 2: 2, pixels.ndim - 1: 2}
        mean = da.coarsen(np.mean, pixels, halves, trim_excess=True)
        pixels = mean.astype(source.dtype)
        levels.append(pixels.rechunk(target.shards))
    da.store(levels, targets, lock=False)


def copy(image: Path) -> None:
    """Read the files of level 0, write them elsewhere, and wait until they lie on the disk."""
    buffer = bytearray(_BLOCK)
    for path in sorted((image / "0").rglob("*")):
        if not path.is_file():
            continue
        to = image / "copy" / path.relative_to(image)
        to.parent.mkdir(parents=True, exist_ok=True)
        with path.open("rb", buffering=0) as source, to.open("wb", buffering=0) as target:
            while size := source.readinto(buffer):
                target.write(memoryview(buffer)[:size])
            os.fsync(target.fileno())


BUILDERS: Mapping[str, tuple[Callable[[Path], None], Sequence[str]]] = {
    "microtome": (microtome, ["microtome.image", "tensorstore"]),
    "ome-zarr-py": (
        ome_zarr_py,
        ["dask.array", "zarr", "ome_zarr", "ome_zarr.writer", "skimage.transform"],
    ),
    "ngff-zarr": (ngff_zarr, ["zarr", "ngff_zarr", "itkwasm_downsample"]),
    "ngio": (ngio, ["ngio"]),
    "dask": (dask_coarsen, ["dask.array", "zarr"]),
    "copy": (copy, []),
}
"""Each with the modules that it needs."""


def level_paths(image: Path) -> list[Path]:
    """Return the arrays of an image that was built or laid out, finest first."""
    if (image / COARSER).is_dir():
        return [image / "0", *sorted((image / COARSER).glob("s[0-9]"))]
    return sorted(image.glob("[0-9]"))


def measure(name: str, image: Path) -> dict[str, float]:
    """Run one in this process and return processor and wall seconds and peak memory in bytes."""
    build, modules = BUILDERS[name]
    for module in modules:  # importing is not what is measured
        importlib.import_module(module)
    began, cpu = time.perf_counter(), cpu_seconds()
    build(image)
    cpu, wall = cpu_seconds() - cpu, time.perf_counter() - began
    return {"cpu": cpu, "wall": wall, "peak": peak_memory()}


def peak_memory() -> int:
    """Return the most memory that this process has held, in bytes.

    What the system counts for a process begins with what its parent held when it was started;
    only /proc tells its own.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]))))
