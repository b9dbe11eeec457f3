"""A JPEG slide where it lies: opened, and read by tile, beside OpenSlide and tifffile's Zarr store."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

import microtome as mt

from .harness import Benchmark, Items, Read, Table
from .options import Options

__all__ = ["tables"]

TILE, SIDE = 256, 8192
BASE = "OpenSlide"

Window = Callable[[int, int], NDArray[Any]]


def tables(options: Options) -> list[Table]:
    """Measure opening, tiles of the slide's own grid, and windows anywhere."""
    slide = options.work / "slide.svs"
    _write(slide)
    about = [
        f"{SIDE} x {SIDE} RGB, JPEG of quality 80 in tiles of {TILE} px, three levels, as Aperio writes them.",
        "Made of a small real picture (IHC), mirrored.",
    ]
    kept = [
        "More tiles than any of them keeps decoded: OpenSlide 32 MiB, microtome 64 MiB by default.",
        "OpenSlide gives RGBA, of which the colours are taken without a copy.",
        (
            "microtome notes where the codes of a tile lie, which the next window of it need not find again; "
            "opened anew for the tiles of every round, it knows nothing of the slide. Batches are in slide_batches."
        ),
    ]
    opening = Benchmark("Opening a slide", "slide", _any, 16, BASE, about)
    opening.add("microtome", partial(_opened, lambda: mt.open_image(slide).level_shape(0)[1:]))
    opening.add(BASE, partial(_opened, partial(_dimensions, slide)))
    count = max(options.items, 512)
    tables = [opening.run(options.rounds, tell=options.tell)]
    for title, draw in (
        (f"Tiles of {TILE} px, those of the slide", _aligned),
        (f"Windows of {TILE} px anywhere", _anywhere),
    ):
        bench = Benchmark(title, "tile", draw, count, BASE, about + kept)
        bench.add("microtome", partial(_windows, partial(_microtome, slide)))
        bench.add("microtome, opened anew", partial(_anew, slide))
        bench.add(BASE, partial(_windows, partial(_openslide, slide)))
        bench.add("tifffile.aszarr, zarr-python", partial(_windows, partial(_tifffile, slide)))
        tables.append(bench.run(options.rounds, tell=options.tell))
    return tables


def _write(path: Path) -> None:
    from skimage.data import immunohistochemistry

    picture = immunohistochemistry()
    missing = [(0, SIDE - size) for size in picture.shape[:2]]
    pixels = np.pad(picture, [*missing, (0, 0)], mode="symmetric")
    # JPEG of RGB, not of YCbCr, as Aperio's own: every decoder then gives the same pixels.
    options: dict[str, Any] = {
        "photometric": "rgb",
        "tile": (TILE, TILE),
        "compression": "jpeg",
        "compressionargs": {"level": 80, "outcolorspace": "rgb"},
        "metadata": None,
    }
    with tifffile.TiffWriter(path) as tiff:
        for step in (1, 4, 16):
            text = f"Aperio Image Library v12\r\n{SIDE}x{SIDE} ({TILE}x{TILE})|MPP = 0.25"
            tiff.write(pixels[::step, ::step], description=text, **options)


def _any(rng: np.random.Generator, count: int) -> Items:
    return rng.integers(0, 1, (count, 2))


def _aligned(rng: np.random.Generator, count: int) -> Items:
    across = SIDE // TILE
    numbers = rng.permutation(across**2)[:count]
    return np.stack(np.divmod(numbers, across), axis=1) * TILE


def _anywhere(rng: np.random.Generator, count: int) -> Items:
    return rng.integers(0, SIDE - TILE, (count, 2))


def _opened(shape: Callable[[], tuple[int, ...]]) -> Generator[Read]:
    def read(items: Items) -> Iterator[Any]:
        for _ in items:
            yield np.asarray(shape())[None]

    yield read


def _dimensions(slide: Path) -> tuple[int, int]:
    import openslide

    with openslide.OpenSlide(slide) as opened:
        width, height = opened.dimensions
    return height, width


def _windows(opener: Callable[[], Window]) -> Generator[Read]:
    window = opener()

    def read(items: Items) -> Iterator[Any]:
        for y, x in items.tolist():
            yield window(y, x)[None]

    yield read


def _anew(slide: Path) -> Generator[Read]:
    def read(items: Items) -> Iterator[Any]:
        window = _microtome(slide)
        for y, x in items.tolist():
            yield window(y, x)[None]

    yield read


def _microtome(slide: Path) -> Window:
    image = mt.open_image(slide)
    return lambda y, x: image.read(0, (y, y + TILE), (x, x + TILE))


def _openslide(slide: Path) -> Window:
    import openslide

    opened = openslide.OpenSlide(slide)

    def window(y: int, x: int) -> NDArray[Any]:
        region = np.asarray(opened.read_region((x, y), 0, (TILE, TILE)))
        return region[..., :3].transpose(2, 0, 1)

    return window


def _tifffile(slide: Path) -> Window:
    import zarr

    array: Any = zarr.open_array(tifffile.imread(slide, aszarr=True, level=0), mode="r")
    return lambda y, x: np.asarray(array[y : y + TILE, x : x + TILE]).transpose(2, 0, 1)
