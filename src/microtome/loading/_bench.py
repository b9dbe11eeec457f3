"""`bench`: how fast tiles of somebody's own images load, and what would make them load faster."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter, process_time
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError
from microtome.image import MultiscaleImage
from microtome.progress import Progress, silent
from microtome.regions import ImageRegionData, Windows, read_regions, region_batch
from microtome.storage import Conversion, StorageOptions, StoredArray, is_address, spelled

from ._bench_images import bench_images
from ._layout import amplification
from ._loader import TileLoader

__all__ = ["BenchReport", "BenchRow", "bench"]

_TILES = 8192
# A tile of 224 pixels touches 2.5 times its pixels in chunks of 128, 4.6 in those of 256, 31 in
# those of 1024.
_MUCH = 6.0
_BETTER = 1.2
# Each setting is measured so often, in turns: what else the machine does hits all of them.
_ROUNDS = 2
_PACKED = 64  # side of the chunks of `pack`, but where tiles lie on a grid of their own size


@dataclass(frozen=True, slots=True)
class BenchRow:
    """What one setting reached."""

    order: Literal["random", "blocked"]
    threads: int
    tiles_per_second: float
    """On the clock."""
    tiles_per_cpu_second: float
    """For each second that a processor worked."""
    megabytes_per_second: float
    """Of float32 batches, on the clock."""


@dataclass(frozen=True, slots=True)
class BenchReport:
    """What `bench` measured, and what it advises."""

    path: str
    images: int
    axes: str
    dtype: str
    tile_size: int
    chunks: tuple[int, ...] | None
    shards: tuple[int, ...] | None
    amplification: float | None
    """Pixels of chunks that tiles at random places touch, for each of their own."""
    rows: tuple[BenchRow, ...]
    advice: tuple[str, ...]

    @property
    def best(self) -> BenchRow:
        """The fastest setting on the clock."""
        return max(self.rows, key=lambda row: row.tiles_per_second)

    def __str__(self) -> str:
        """Say it in a table and in sentences."""
        factor = "?" if self.amplification is None else f"{self.amplification:.1f}"
        lines = [
            (
                f"{self.path}: {self.images} image{'s' * (self.images > 1)}, {self.axes} {self.dtype}, "
                f"chunks {self.chunks or '?'}, shards {self.shards or 'none'}"
            ),
            f"tiles of {self.tile_size} pixels touch {factor} times their pixels in chunks",
            f"{'order':8}  threads  tiles/s  tiles/cpu-s     MB/s",
        ]
        lines += [
            f"{row.order:8}  {row.threads:7}  {row.tiles_per_second:7.0f}  {row.tiles_per_cpu_second:11.0f}"
            f"  {row.megabytes_per_second:7.0f}"
            for row in self.rows
        ]
        return "\n".join([*lines, *(f"* {text}" for text in self.advice)])


def bench(
    path: str | os.PathLike[str],
    *,
    tile_size: int = 224,
    batch_size: int = 64,
    seconds: float = 8.0,
    image: str | int | None = None,
    modality: str | None = None,
    storage_options: StorageOptions | None = None,
    progress: Progress = silent,
) -> BenchReport:
    """Measure how fast tiles of images load, in random and in blocked order, on one thread and more.

    Parameters
    ----------
    path
        A cohort, or one image of any format that `open_image` opens; also their address in a store. Of
        a cohort's images those of one modality are read that agree in axes, channels and type and have
        room for a tile, at most 32 of them.
    tile_size
        Side of the tiles in pixels of the finest level.
    batch_size
        Tiles in a batch.
    seconds
        About how long to measure, all settings together; each reads whole epochs, of a part of the
        images where they are large.
    image
        Which of the images in a file that holds several.
    modality
        Which of a cohort; by default that with the most such images.
    storage_options
        How stores are reached.
    progress
        Called with the settings done and to do.

    Raises
    ------
    NotFoundError
        If there is no image.
    UnknownNameError
        If there is no such modality, or no such image in the file.
    InvalidInputError
        If images are smaller than a tile, or a number is out of its range.
    """
    if tile_size < 1 or batch_size < 1 or not seconds > 0:
        msg = f"tile_size, batch_size and seconds must be above 0, got {tile_size}, {batch_size} and {seconds}"
        raise InvalidInputError(msg)
    images, apart, cohort = bench_images(
        path, tile_size, image=image, modality=modality, storage_options=storage_options
    )
    tiles = _Tiles(images, tile_size)
    most = min(os.cpu_count() or 1, 8)
    settings: list[tuple[Literal["random", "blocked"], int]] = [
        (order, threads) for order in ("random", "blocked") for threads in sorted({1, most})
    ]
    size = min(batch_size, len(tiles))
    # Files are opened and the first chunks read before anything is counted.
    loader = TileLoader(tiles, size, prefetch=0, as_torch=False)
    first = next(iter(loader))
    began = perf_counter()
    next(iter(TileLoader(tiles, size, seed=1, prefetch=0, as_torch=False)))
    # Whole epochs are measured, since what was read ahead and not used would count as work.
    share = seconds / len(settings) / _ROUNDS
    most = max(int(share / (perf_counter() - began) * size), 2 * size)
    if most < len(tiles):
        tiles = _Tiles(images, tile_size, most)
    figures = np.zeros((len(settings), 4))
    for done in range(_ROUNDS * len(settings)):
        number = done % len(settings)
        figures[number] += _measured(tiles, size, *settings[number], share)
        progress("bench", done + 1, _ROUNDS * len(settings))
    rows = [
        BenchRow(order, threads, count / spent, count / worked, held / 1e6 / spent)
        for (order, threads), (count, held, spent, worked) in zip(
            settings, figures.tolist(), strict=True
        )
    ]
    facts = first.additional_metadata[0]
    factor = amplification(first)
    return BenchReport(
        path=spelled(path),
        images=len(images),
        axes=str(first.axes[0]),
        dtype=str(first.dtype[0]),
        tile_size=tile_size,
        chunks=facts.get("chunks"),
        shards=facts.get("shards"),
        amplification=factor,
        rows=tuple(rows),
        advice=(
            *apart,
            *_advice(rows, images[0], facts, factor, tile_size, path, cohort=cohort),
            *_of_a_store(images[0], storage_options),
        ),
    )


def _measured(
    tiles: _Tiles,
    batch_size: int,
    order: Literal["random", "blocked"],
    threads: int,
    seconds: float,
) -> tuple[float, float, float, float]:
    """Return tiles and their bytes, seconds on the clock and of the processors."""
    loader = TileLoader(
        tiles,
        batch_size,
        order=order,
        seed=0,
        threads=threads,
        prefetch=2 * threads,
        as_torch=False,
    )
    count = size = epoch = 0
    began, worked = perf_counter(), process_time()
    while perf_counter() - began < seconds:
        loader.set_epoch(epoch)
        for batch in loader:
            count += len(batch.data)
            size += batch.data.nbytes
        epoch += 1
    spent, worked = perf_counter() - began, max(process_time() - worked, 1e-9)
    return count, size, spent, worked


def _advice(
    rows: Sequence[BenchRow],
    image: MultiscaleImage,
    facts: Any,
    factor: float | None,
    tile_size: int,
    path: str | os.PathLike[str],
    *,
    cohort: bool,
) -> list[str]:
    said = [_setting(rows)]
    packed = ((tile_size + _PACKED - 1) / tile_size) ** 2
    if factor is not None and factor > _MUCH and factor > _BETTER * packed:
        way = "" if cohort else "ingested into a cohort and "
        if is_address(path):
            way = f"copied here, {way}" if way else "copied here and "
        said.append(
            f"chunks of {facts['chunks']} are large for tiles of {tile_size}: {way}rewritten with "
            f"microtome.pack (chunks of {_PACKED}), a random tile touches {packed:.1f} times its pixels "
            f"instead of {factor:.1f}"
        )
    # Of a TIFF or a slide the chunks are parts of one file.
    if isinstance(image.level(0).array, StoredArray) and facts.get("shards") is None:
        said.append(
            "there are no shards: every chunk is a file of its own, slow to copy and to open"
        )
    return said


def _of_a_store(image: MultiscaleImage, options: StorageOptions | None) -> list[str]:
    """Return what is to be said of images that are not on this machine."""
    if not is_address(image.uri):
        return []
    kept = options is not None and options.disk_cache is not None
    if kept or os.environ.get("MICROTOME_DISK_CACHE"):
        said = (
            "the images are remote, and what is read of them is kept on a disk here: a first epoch waits for "
            "the store, later ones do not"
        )
    else:
        said = (
            "the images are remote: every epoch fetches their bytes again. Where they do not fit into memory "
            "(cache_bytes= of a TileLoader), keep them on a disk here, with --disk-cache DIRECTORY "
            "(StorageOptions(disk_cache=DiskCache(directory, bytes))), or copy them here"
        )
    return [said]


def _setting(rows: Sequence[BenchRow]) -> str:
    """Say which of the rows is the fastest, and how far behind it the best of the other order is."""
    best = max(rows, key=lambda row: row.tiles_per_second)
    other = max(
        (row for row in rows if row.order != best.order), key=lambda row: row.tiles_per_second
    )
    factor = best.tiles_per_second / other.tiles_per_second
    told = f"load with order={best.order!r}, threads={best.threads}: {factor:.1f} times as fast as"
    if best.order == "blocked":
        text = f"{told} the best of a uniform order, with threads={other.threads}"
        little = "; so little that order='random' will do"
        return text + little if factor < _BETTER else text
    return f"{told} the best in blocks, with threads={other.threads}"


class _Tiles:
    """Tiles at random places of images, and where they are stored."""

    def __init__(self, images: Sequence[MultiscaleImage], size: int, most: int = _TILES) -> None:
        self._images = images
        rng = np.random.default_rng(0)
        shapes = np.asarray([image.level_shape(0)[-2:] for image in images])
        area = shapes.prod(axis=1)
        # As many as cover the images, or the top of them, about once: then every chunk is wanted.
        count = int(np.clip(area.sum() // size**2, 1, most))
        part = min(1.0, count * size**2 / area.sum())
        image = np.sort(rng.choice(len(images), count, p=area / area.sum()))
        low = np.maximum(size, shapes[image] * [part, 1.0]).astype(np.int64)
        start = (rng.random((count, 2)) * (low - size + 1)).astype(np.int64)
        self._windows = Windows.of(image, start, size)

    def __len__(self) -> int:
        return len(self._windows)

    def read_batch(self, rows: NDArray[np.int64]) -> ImageRegionData[Any]:
        """Read tiles into one batch of float32."""
        windows = self._windows.take(rows)
        pixels = read_regions(self._images, windows, convert=Conversion.of())
        return region_batch(self._images, windows, pixels)

    def storage_blocks(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of the square of chunks that each tile lies in."""
        windows = self._windows.take(rows)
        size = windows.size[-1]
        chunk = max(self._images[0].level(0).array.chunks[-2:])
        side = -(-4 * size // chunk) * chunk
        place = windows.start // side
        wide = int(place[:, 1].max(initial=0)) + 1
        tall = int(place[:, 0].max(initial=0)) + 1
        return (windows.image * tall + place[:, 0]) * wide + place[:, 1]

    @property
    def tile_bytes(self) -> int:
        """About how many bytes a tile has in a batch."""
        return self._images[0].nchannels * self._windows.size[-1] ** 2 * 4
