"""OME-TIFFs into multiscale OME-Zarr images with all levels, by us and by those who do it too."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

from .harness import Measurement, Table
from .ingest_ways import INTO_OURS, LEVELS, WAYS
from .options import Options

__all__ = ["tables"]

BASE = "microtome"
CHANNELS, SIDE = 5, 8192
_ROUNDS = 3  # at most: the slowest take minutes
_TILE = 512

_SOURCES: dict[str, dict[str, Any]] = {
    "uncompressed, in strips": {},
    "deflate with predictor, in tiles of 512 px": {
        "tile": (_TILE, _TILE),
        "compression": "zlib",
        "predictor": True,
    },
}

_HOW = (
    "Processor time is user and system time of the process with all its threads and children; it "
    "counts, since wall time also measures who else is at work on the machine. Every run has a "
    "process of its own, whose imports are not counted as time but are as memory, and a fresh target. "
    "The source has been read before. Competitors take turns. Figures are medians over the "
    "rounds; a ratio is the median of the ratios within a round, in brackets the least and the most. "
    "Less is better."
)
_NOTES = (
    f"Blobs and Poisson noise; {LEVELS} levels, blosc lz4 5 with byte shuffle, the same for all but the "
    "row that says otherwise. microtome writes chunks of 128 px in files of all channels and 2048 px, and "
    "so do those whose names say so; the others write chunks of 1024 px without shards, with which they "
    "are faster. The finest level was "
    "compared with the source, pixel by pixel in a corner. microtome: MultiscaleImage.create and "
    "build_levels(source=). microtome ingest: into a new cohort, with the SHA-256 of the source and "
    "the tables; codec train is its default and packs better for reading (blosc lz4hc 2). "
    "ome-zarr-py: OMEZarrMultiscale with Methods.LOCAL_MEAN and write_multiscale. ngff-zarr: "
    "Methods.ITKWASM_BIN_SHRINK. bioio: OMEZarrWriter.write_full_volume. dask: coarsen with numpy.mean, "
    "one graph. They read the TIFF as tifffile's Zarr store through dask. copy: the source read, "
    "written again and synced, nothing decoded."
)


def tables(options: Options) -> list[Table]:
    """Measure one picture in TIFFs of two kinds."""
    pixels = _fluorescence()
    found: list[Table] = []
    for name, how in _SOURCES.items():
        path = options.work / "source.ome.tif"
        names = [f"marker {number}" for number in range(CHANNELS)]
        size = {f"PhysicalSize{axis}": 0.5 for axis in "XY"}
        units = {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
        stated = {"axes": "CYX", "Channel": {"Name": names}, **size, **units}
        tifffile.imwrite(path, pixels, photometric="minisblack", metadata=stated, **how)
        theirs = [way for way in WAYS if not way.endswith(INTO_OURS)]
        found.append(_measured(name, path, pixels, options, theirs))
        if not how:
            slow = replace(options, rounds=1)
            ours = [BASE, *(way for way in WAYS if way.endswith(INTO_OURS))]
            found.append(_measured(f"{name}, all into our layout", path, pixels, slow, ours))
        path.unlink()
    return found


def _measured(
    name: str, path: Path, pixels: NDArray[np.uint16], options: Options, ways: Sequence[str]
) -> Table:
    found = {way: Measurement(way, [], [], []) for way in ways}
    target = options.work / "made.ome.zarr"
    sizes: dict[str, int] = {}
    for number in range(1, min(options.rounds, _ROUNDS) + 1):
        for way, measured in found.items():
            figures = _done(way, path, target)
            measured.cpu.append(figures["cpu"])
            measured.wall.append(figures["wall"])
            measured.peak.append(int(figures["peak"]))
            if way != "copy":
                _verify(way, target, pixels)
            sizes[way] = sum(f.stat().st_size for f in target.rglob("*") if f.is_file())
            shutil.rmtree(target)
            options.tell(f"{name}: {way} {figures['cpu']:.2f} s, round {number}")
    notes = [
        _sized(path, pixels),
        _NOTES,
        "Written: " + ", ".join(f"{way} {size / 1e9:.2f} GB" for way, size in sizes.items()) + ".",
        _in_words(found),
    ]
    return Table(f"OME-TIFF, {name}", "image", 1, BASE, list(found.values()), notes, _HOW)


def _sized(path: Path, pixels: NDArray[np.uint16]) -> str:
    return (
        f"{CHANNELS} x {SIDE} x {SIDE} uint16, {pixels.nbytes / 1e9:.2f} GB of pixels in a file of "
        f"{path.stat().st_size / 1e9:.2f} GB."
    )


def _in_words(found: dict[str, Measurement]) -> str:
    """Say how far the fastest of the others is, and a copy in wall time."""
    ours = found[BASE]
    others = {
        way: float(np.median(measured.cpu_times(ours)))
        for way, measured in found.items()
        if not way.startswith("microtome") and way != "copy"
    }
    fastest = min(others, key=others.__getitem__)
    told = f"The fastest of the others, {fastest}, needs {others[fastest]:.1f} times the processor time."
    if "copy" not in found:
        return told
    copies = zip(ours.wall, found["copy"].wall, strict=True)
    times = float(np.median([own / copied for own, copied in copies]))
    return f"{told} microtome takes {times:.2f} times the wall time of the copy."


def _done(way: str, source: Path, target: Path) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.ingest_ways"]
    ended = subprocess.run(
        [*command, way, str(source), str(target)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    return json.loads(ended.stdout.splitlines()[-1])


def _verify(way: str, target: Path, pixels: NDArray[np.uint16]) -> None:
    """Verify that all levels are there, and that the finest holds the source's pixels."""
    shapes: list[tuple[int, ...]] = []
    for metadata in target.rglob("zarr.json"):
        if json.loads(metadata.read_text())["node_type"] != "array":
            continue
        array = zarr.open_array(metadata.parent, mode="r")
        shapes.append(array.shape)
        if array.shape == pixels.shape:
            corner = np.s_[:, -1200:, :1200]
            if not np.array_equal(np.asarray(array[corner]), pixels[corner]):
                msg = f"{way} wrote other pixels than the source's"
                raise SystemExit(msg)
    wanted = [(CHANNELS, SIDE >> level, SIDE >> level) for level in range(LEVELS)]
    if sorted(shapes, reverse=True) != wanted:
        msg = f"{way} wrote levels of {sorted(shapes, reverse=True)}, not {wanted}"
        raise SystemExit(msg)


def _fluorescence() -> NDArray[np.uint16]:
    """Make cells as blobs, with the noise of counting: as hard to compress as real pictures."""
    pixels = np.empty((CHANNELS, SIDE, SIDE), np.uint16)
    y, x = np.mgrid[:_TILE, :_TILE].astype(np.float32)
    for channel, plane in enumerate(pixels):
        rng = np.random.default_rng(channel)
        light = np.full((_TILE, _TILE), 20, np.float32)
        for _ in range(120):
            row, column = rng.uniform(0, _TILE, 2)
            width, height = rng.uniform(4, 12), rng.uniform(100, 3000)
            light += height * np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * width**2))
        for top in range(0, SIDE, _TILE):
            for left in range(0, SIDE, _TILE):
                turned = np.rot90(light, int(rng.integers(4)))
                plane[top : top + _TILE, left : left + _TILE] = rng.poisson(turned)
    return pixels
