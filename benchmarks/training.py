"""Training patches from a sharded Zarr: read, normalized and turned, beside CAREamics."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

import microtome as mt
from microtome.augmentation import DihedralAugmentation
from microtome.loading import OrderKind, RegionDataset, TileLoader
from microtome.normalization import MeanStdNormalization, fit_normalization
from microtome.patching import RandomPatching
from microtome.storage import Layout

from .harness import Benchmark, Items, Read, Table
from .machine import cpu_seconds
from .options import Options

__all__ = ["tables"]

CHANNELS, SIDE, PATCH, BATCH = 5, 8192, 224, 32
_MEANS, _STDS = [300.0] * CHANNELS, [200.0] * CHANNELS
BLOCKED, RANDOM = "microtome, order blocked", "microtome, order random"
# Processor time in a tenth of a second of a process tree that rests.
_QUIET = 0.02
_NOTE = (
    "Both read the same store. Each draws patches of its own, so what is compared are their number, "
    "size and type. Mean and deviation are given, turns and mirror images are on. microtome's loader "
    "reads ahead with threads, CAREamics' processes with torch's DataLoader. Not measured is what comes "
    "once: workers that start, and microtome's first epoch, in which it loads compiled code and touches "
    "the memory of batches for the first time, at twice the time of those that follow. After each "
    "round its loader is waited for until it rests, which wall time includes."
)


def tables(options: Options) -> list[Table]:
    """Measure batches in two layouts, and statistics before the first batch."""
    pixels = _pixels(options)
    found: list[Table] = []
    for name, layout in (
        ("our default layout", None),
        ("chunks of 512 in shards of 4096, zstd", Layout((1, 512, 512), (1, 4096, 4096), "labels")),
    ):
        path = options.work / f"{'default' if layout is None else 'sharded'}.ome.zarr"
        given: dict[str, Any] = {} if layout is None else {"layout": layout}
        with mt.MultiscaleImage.create(
            path, type=pixels.dtype, level_shape=pixels.shape, mpp=0.5, **given
        ) as image:
            image["level0"][...] = pixels
        found.append(_batches(name, path, options))
    found.append(_statistics(path, pixels, options))
    return found


def _pixels(options: Options) -> NDArray[np.uint16]:
    """Return the image's pixels: blobs with the noise of counted photons, or those that are given."""
    if options.image is not None:
        with mt.open_image(options.image) as image:
            return np.asarray(image.level(0))
    made = np.empty((CHANNELS, SIDE, SIDE), np.uint16)
    for channel, plane in enumerate(made):
        rng = np.random.default_rng(channel)
        coarse = gaussian_filter(rng.random((SIDE // 16, SIDE // 16)), 3)
        coarse = (coarse - coarse.min()) / np.ptp(coarse)
        blobs = zoom(coarse.astype(np.float32), 16, order=1)[:SIDE, :SIDE]
        for first in range(0, SIDE, 1024):
            rows = slice(first, first + 1024)
            plane[rows] = rng.poisson(60 + 900 * blobs[rows] ** 3)
    return made


def _batches(name: str, path: Path, options: Options) -> Table:
    bench = Benchmark(
        f"Training patches of {CHANNELS} x {PATCH} x {PATCH}, {name}",
        "patch",
        lambda _, count: np.arange(count),
        options.items,
        BLOCKED,
        [_NOTE, *_peers_note()],
        least_seconds=1.0,
    )
    bench.add(BLOCKED, partial(_ours, path, "blocked"))
    bench.add(RANDOM, partial(_ours, path, "random"))
    if _peer():
        for workers in (0, 2):
            name = f"CAREamics {_peer()}, {workers} workers"
            bench.add(name, partial(_theirs, path, workers))
    return bench.run(options.rounds, tell=options.tell)


def _reading(epochs: Callable[[], Iterator[Any]]) -> Generator[Read]:
    """Take as many batches as are asked for, on and on, epoch after epoch."""

    def forever() -> Iterator[Any]:
        while True:
            yield from epochs()

    batches = forever()

    def read(items: Items) -> Iterator[NDArray[Any]]:
        left = len(items)
        while left > 0:
            data = next(batches)
            count = min(len(data), left)
            left -= count
            # Of pixels that nobody else draws, what can be equal: how many, and of what.
            yield np.tile([*data.shape[1:], data.element_size()], (count, 1))
        # What was read ahead is this one's work, not that of who comes next.
        before = -1.0
        while (used := cpu_seconds()) - before > _QUIET:
            before = used
            time.sleep(0.1)

    yield read
    batches.close()


def _ours(path: Path, order: OrderKind) -> Generator[Read]:
    with mt.open_image(path) as image:
        dataset = RegionDataset(
            [image],
            RandomPatching([(1, *image.level_shape(0))], (PATCH, PATCH), seed=0),
            normalization=MeanStdNormalization(_MEANS, _STDS),
            augmentations=[DihedralAugmentation()],
            by_place=order == "blocked",
        )
        loader = TileLoader(dataset, BATCH, order=order, seed=0)
        number = iter(range(10**6))

        def epochs() -> Iterator[Any]:
            loader.set_epoch(next(number))
            for batch in loader:
                yield batch.data

        for _ in epochs():
            pass
        yield from _reading(epochs)


def _theirs(path: Path, workers: int) -> Generator[Read]:
    from careamics.config.data import DataConfig
    from careamics.dataset.factory import create_dataset
    from torch.utils.data import DataLoader, default_collate

    config = DataConfig(
        data_type="zarr",
        axes="CYX",
        batch_size=BATCH,
        seed=42,
        n_val_patches=0,
        normalization={"name": "mean_std", "input_means": _MEANS, "input_stds": _STDS},
        num_workers=workers,
        mode="training",
        patching={"name": "random", "patch_size": [PATCH, PATCH]},
    )
    with mt.open_image(path) as image:
        source = f"file://{path}/{image.level(0).path}"
    dataset = create_dataset(config, [source], None)
    loader = DataLoader(
        dataset,
        batch_size=BATCH,
        shuffle=True,
        collate_fn=default_collate,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    yield from _reading(lambda: (batch[0].data for batch in loader))


def _statistics(path: Path, pixels: NDArray[np.uint16], options: Options) -> Table:
    """Measure how long the first batch waits for mean and deviation of all pixels."""
    wide = pixels.reshape(CHANNELS, -1)
    rounds = max(1, min(options.rounds, 3))

    def ours() -> Generator[Read]:
        with mt.open_image(path) as image:

            def read(items: Items) -> Iterator[NDArray[Any]]:
                for _ in items:
                    found: Any = fit_normalization("mean_std", [image])
                    yield np.asarray([[*found.means, *found.stds]])

            yield read

    def on_the_whole() -> Generator[Read]:
        def read(items: Items) -> Iterator[NDArray[Any]]:
            for _ in items:
                found = [(c.mean(dtype=np.float64), c.std(dtype=np.float64)) for c in wide]
                yield np.asarray(found).T.reshape(1, -1)

        yield read

    bench = Benchmark(
        f"Mean and deviation of all pixels, {CHANNELS} x {SIDE} x {SIDE}",
        "image",
        lambda _, count: np.arange(count),
        1,
        "fit_normalization, from the store",
        ["numpy has the pixels in memory already, and is not asked to read them."],
        least_seconds=0.0,
        tolerance=1e-9,
    )
    bench.add("fit_normalization, from the store", ours)
    bench.add("numpy, in memory", on_the_whole)
    return bench.run(rounds, tell=options.tell)


def _peer() -> str | None:
    try:
        return version("careamics")
    except PackageNotFoundError:
        return None


def _peers_note() -> list[str]:
    return [] if _peer() else ["CAREamics is not installed."]
