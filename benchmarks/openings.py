"""Opening images: how long until the shapes of all levels are known, and how many files it takes."""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import microtome as mt

from .harness import Benchmark, Items, Read, Table
from .opened_files import OpenedFiles
from .options import Options

__all__ = ["opening_tables"]

_LEVELS = (1, 4, 12)
_BASE = "microtome"
_MANY = 10_000
_SHAPE = (3, 4096, 4096)

_NOTE = (
    "Opened, and the shape of every level asked for; the image is in the page cache, and holds no "
    "pixels. In brackets, how many files of it were opened."
)
Opener = Callable[[Path], list[tuple[int, ...]]]


def opening_tables(options: Options) -> list[Table]:
    """Measure images of one level and of many."""
    return [_table(levels, options) for levels in _LEVELS]


def _table(levels: int, options: Options) -> Table:
    path = options.work / f"{levels}-levels.ome.zarr"
    written = _written(path, levels)
    openers: dict[str, Opener] = {"microtome": _microtome, "zarr-python": _zarr}
    paths = dict.fromkeys(openers, written)
    notes = [_NOTE]
    for name, opener in _PEERS.items():
        if importlib.util.find_spec(name) is None:
            notes.append(f"{name} is not installed here; `make bench-peers` measures it too.")
            continue
        openers[name] = opener
        soma = name == "tiledbsoma"
        paths[name] = _soma_written(path.with_suffix(".soma"), levels) if soma else written
    files = {name: _files_opened(opener, paths[name]) for name, opener in openers.items()}
    bench = Benchmark(
        f"Opening an image of {levels} level{'s' if levels > 1 else ''}",
        "store",
        lambda _, count: np.zeros(count, np.int64),
        options.items,
        _named(_BASE, files),
        notes,
    )
    for name, opener in openers.items():
        bench.add(_named(name, files), partial(_opening, opener, paths[name]))
    if levels == _LEVELS[0]:
        notes.append(_many_at_once(options.work / "many"))
    return bench.run(options.rounds, tell=options.tell)


def _named(name: str, files: dict[str, int | None]) -> str:
    return name if files[name] is None else f"{name} ({files[name]})"


def _opening(opener: Opener, path: Path) -> Generator[Read]:
    def read(items: Items) -> Iterator[Any]:
        for _ in items:
            yield np.asarray([opener(path)])

    yield read


def _files_opened(opener: Opener, path: Path) -> int | None:
    opener(path)  # what is imported or started once is not counted
    with OpenedFiles(path) as opened:
        opener(path)
    return opened.count


# ------------------------------------------------------------------ images, and who opens them


def _shapes(levels: int) -> list[tuple[int, ...]]:
    return [(_SHAPE[0], _SHAPE[1] >> level, _SHAPE[2] >> level) for level in range(levels)]


def _written(path: Path, levels: int) -> Path:
    first, *others = _shapes(levels)
    with mt.MultiscaleImage.create(path, type="uint8", level_shape=first, mpp=0.5) as image:
        for number, shape in enumerate(others, start=1):
            image.add_new_level(f"level{number}", shape=shape)
    return path


def _soma_written(path: Path, levels: int) -> Path:
    import pyarrow as pa
    import tiledbsoma

    first, *others = _shapes(levels)
    with tiledbsoma.MultiscaleImage.create(str(path), type=pa.uint8(), level_shape=first) as image:
        for number, shape in enumerate(others, start=1):
            image.add_new_level(f"level{number}", shape=shape)
    return path


def _microtome(path: Path) -> list[tuple[int, ...]]:
    with mt.MultiscaleImage.open(path) as image:
        return [level.shape for level in image.values()]


def _zarr(path: Path) -> list[tuple[int, ...]]:
    import zarr

    group: Any = zarr.open_group(path, mode="r")
    (image,) = group.attrs["ome"]["multiscales"]
    return [group[entry["path"]].shape for entry in image["datasets"]]


def _ngio(path: Path) -> list[tuple[int, ...]]:
    import ngio

    container = ngio.open_ome_zarr_container(str(path), mode="r")
    return [container.get_image(path=level).shape for level in container.level_paths]


def _soma(path: Path) -> list[tuple[int, ...]]:
    import tiledbsoma

    with tiledbsoma.MultiscaleImage.open(str(path)) as image:
        return [image.level_shape(level) for level in range(image.level_count)]


_PEERS: dict[str, Opener] = {"ngio": _ngio, "tiledbsoma": _soma}


# ------------------------------------------------------------------ many at once


def _many_at_once(folder: Path) -> str:
    """Say how many files stay open when very many images are, and a pixel of each was read."""
    listing = Path("/proc/self/fd")
    if not listing.is_dir():
        return f"How many files {_MANY} images hold open is not told by this system."
    with mt.MultiscaleImage.create(
        folder / "first", type="uint8", level_shape=(1, 64, 64), mpp=0.5
    ) as image:
        image["level0"][...] = 7
    for number in range(_MANY):
        shutil.copytree(folder / "first", folder / str(number), copy_function=os.link)
    gc.collect()
    before = len(list(listing.iterdir()))
    images = [mt.MultiscaleImage.open(folder / str(number)) for number in range(_MANY)]
    opened = len(list(listing.iterdir())) - before
    for image in images:
        image.read_spatial_region(0, (3, 3, 4, 4))
    read = len(list(listing.iterdir())) - before
    shutil.rmtree(folder)
    return (
        f"{_MANY} images open at once hold {opened} files open, and {read} after a pixel of each was "
        "read."
    )
