"""All coarser levels of an image on disk, built from its finest by us and by those who do it too."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

import microtome as mt

from .harness import Measurement, Table
from .images import brightfield_image, fluorescence_image
from .options import Options
from .pyramid_builders import BUILDERS, level_paths

__all__ = ["table_of", "tables", "tables_after_each_round"]

BASE = "microtome"
_ROUNDS = 3  # at most: the slowest take minutes
_SAMPLE = 1024

_HOW = (
    "Processor time is user and system time of the process with all its threads and children; it "
    "counts, since wall time also measures who else is at work on the machine. Every build has a "
    "process of its own, whose imports are not counted as time but are as memory, and a fresh image "
    "whose level 0 is the same files each time. Competitors take turns. Figures are medians over the "
    "rounds; a ratio is the median of the ratios within a round, in brackets the least and the most. "
    "Less is better."
)
_NOTES = (
    "All write the same codec (blosc lz4 5, byte shuffle), and level 0 is written by none. "
    "microtome and dask write our layout (chunks of 128 px in files of 2048 px), and so does ngio. "
    "For ome-zarr-py and ngff-zarr the layout with which they are fastest was chosen, which is "
    "larger chunks without shards, hence less work than ours. "
    "ome-zarr-py: Methods.LOCAL_MEAN, level 0 read in whole files, its OMEZarrMultiscale and "
    "write_multiscale without level 0. ngff-zarr: Methods.ITKWASM_BIN_SHRINK, chunks of 1024 px, "
    "start_level=1. ngio: consolidate(mode='auto'), linear. dask: dask.array.coarsen with "
    "numpy.mean of whole files, all levels stored as one graph. "
    "copy: the files of level 0 read, written again and synced, nothing decoded."
)


def tables(options: Options) -> list[Table]:
    """Measure a multiplex image and a scanner's."""
    makers: list[tuple[str, Callable[[Path], mt.MultiscaleImage]]] = [
        ("fluorescence", lambda path: fluorescence_image(path, 5, 8192)),
        ("brightfield", lambda path: brightfield_image(path, (16_384, 16_384))),
    ]
    found: list[Table] = []
    for name, make in makers:
        path = options.work / f"{name}.ome.zarr"
        make(path).close()
        found.append(table_of(path, options))
        shutil.rmtree(path)
    return found


def table_of(path: Path, options: Options) -> Table:
    """Measure on an image that has only its finest level; its sides must be powers of two.

    Others cut odd edges off where we average what is there, and the shapes would differ.
    """
    *_, table = tables_after_each_round(path, options)
    return table


def tables_after_each_round(path: Path, options: Options) -> Iterator[Table]:
    """Measure as `table_of` does, and yield what was found so far: a round takes minutes."""
    found = {name: Measurement(name, [], [], []) for name in BUILDERS}
    different: dict[str, str] = {}
    title = f"All coarser levels from level 0: {path.name}"
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        work = Path(folder)
        laid = _laid_out(path, work / "laid.ome.zarr")
        for number in range(1, min(options.rounds, _ROUNDS) + 1):
            for name, measured in found.items():
                image = work / "built.ome.zarr"
                _linked(path if name == BASE else laid, image)
                figures = _built(name, image)
                measured.cpu.append(figures["cpu"])
                measured.wall.append(figures["wall"])
                measured.peak.append(int(figures["peak"]))
                if name == BASE and number == 1:
                    shutil.copytree(image, work / "reference", copy_function=os.link)
                elif name not in {BASE, "copy"}:
                    different[name] = _difference(name, image, work / "reference")
                shutil.rmtree(image)
                options.tell(f"{path.name}: {name} {figures['cpu']:.2f} s, round {number}")
            notes = [_described(path, found), _NOTES, _told(different)]
            yield Table(title, "pyramid", 1, BASE, list(found.values()), notes, _HOW)


def _built(name: str, image: Path) -> dict[str, float]:
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "benchmarks.pyramid_builders",
        name,
        str(image),
    ]
    ended = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
    )
    return json.loads(ended.stdout.splitlines()[-1])


def _laid_out(path: Path, to: Path) -> Path:
    """Copy an image and give it the coarser levels, empty, which some only fill."""
    _linked(path, to)
    with mt.MultiscaleImage.open(to, "w") as image:
        image.build_levels()
    for array in level_paths(to)[1:]:
        shutil.rmtree(array / "c")
    return to


def _linked(path: Path, to: Path) -> None:
    """Copy an image; the pixels are the same files."""

    def place(source: str, target: str) -> None:
        # Metadata may be written again in place, the pixels of level 0 are not.
        (shutil.copyfile if source.endswith(".json") else os.link)(source, target)

    shutil.copytree(path, to, copy_function=place)


def _read(array: Path, count: int) -> np.ndarray[Any, Any]:
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{array}/"}}
    opened = ts.open(spec, read=True).result()
    corner = tuple(slice(min(count, size)) for size in opened.shape[-2:])
    return opened[(..., *corner)].read().result()


def _difference(name: str, image: Path, reference: Path) -> str:
    """Verify that all levels are there, and say how far level 1 is from ours."""
    paths, ours = level_paths(image), level_paths(reference)
    shapes, wanted = (
        [json.loads((level / "zarr.json").read_text())["shape"] for level in levels]
        for levels in (paths, ours)
    )
    if shapes != wanted:
        msg = f"{name} built levels of {shapes}, not {wanted}"
        raise SystemExit(msg)
    for array in paths:
        if not any(file.name != "zarr.json" for file in array.rglob("*") if file.is_file()):
            msg = f"{name} left {array.name} empty"
            raise SystemExit(msg)
    own, other = (_read(levels[1], _SAMPLE).astype(np.int64) for levels in (ours, paths))
    apart = other - own
    return (
        f"{name} {(apart != 0).mean():.1%}, {apart.mean():+.3f} in the mean and "
        f"{abs(apart).max()} at most"
    )


def _described(path: Path, found: dict[str, Measurement]) -> str:
    with mt.MultiscaleImage.open(path) as image:
        level = image.level(0)
        shape = " x ".join(map(str, level.shape))
        pixels = level.dtype.itemsize * int(np.prod(level.shape))
    stored = sum(file.stat().st_size for file in (path / "0").rglob("*") if file.is_file())
    speed, copied = (
        size / float(np.median(found[name].wall)) / 1e9
        for name, size in ((BASE, pixels), ("copy", stored))
    )
    return (
        f"Image: {path.name}, {shape} {level.dtype}, {pixels / 1e9:.2f} GB of pixels in "
        f"{stored / 1e9:.2f} GB of files. The copy runs at {copied:.2f} GB/s of files; microtome "
        f"reads {speed:.2f} GB/s of pixels, {speed * stored / pixels:.2f} GB/s of files."
    )


def _told(different: dict[str, str]) -> str:
    return (
        "Pixels of level 1 that are not as ours, in its first corner (a mean that is cut off, not "
        f"rounded, is off by one in most): {'; '.join(different.values())}."
    )
