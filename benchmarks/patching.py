"""Plans of patches, filters and random patches, beside CAREamics where it is installed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.patching import (
    MeanStdFilter,
    Patching,
    RandomPatching,
    StratifiedPatching,
    TiledPatching,
    filter_map,
)
from microtome.regions import Stack, data_shape_of, read_regions
from microtome.sources import open_stacks

from .harness import Benchmark, Items, Read, Table
from .options import Options

__all__ = ["tables"]

OURS, ONE_BY_ONE, PEER = "microtome", "microtome, one by one", "CAREamics"
BATCH = 32
_CHANNELS, _SIDE, _PATCH = 5, 2048, 224
_FILTERED = 4096


def tables(options: Options) -> list[Table]:
    """Measure where patches lie, which are background, and how they are read."""
    found: list[Table] = []
    for name, side, size, overlap in (
        ("random", 8192, 224, 0),
        ("stratified", 8192, 64, 0),
        ("stratified", 32768, 64, 0),
        ("tiled", 8192, 64, 32),
    ):
        found += [_specs(name, side, size, overlap, options)]
    return [*found, _made(options), _filtered(options), *_read(options)]


def _peer() -> str | None:
    try:
        return version("careamics")
    except PackageNotFoundError:
        return None


def _note() -> str:
    known = _peer()
    return f"CAREamics {known}." if known else "CAREamics is not installed."


def _ours(name: str, side: int, size: int, overlap: int) -> Patching:
    shapes = [(1, 1, side, side)]
    if name == "tiled":
        return TiledPatching(shapes, (size, size), overlap)
    make = RandomPatching if name == "random" else StratifiedPatching
    return make(shapes, (size, size), seed=1)


def _theirs(name: str, side: int, size: int, overlap: int) -> Any:
    from careamics.dataset import patching

    shapes = [(1, 1, side, side)]
    if name == "tiled":
        return patching.TiledPatching(shapes, (size, size), (overlap, overlap))
    make = patching.RandomPatching if name == "random" else patching.StratifiedPatching
    return make(shapes, (size, size), seed=1)


def _specs(name: str, side: int, size: int, overlap: int, options: Options) -> Table:
    """Measure where patches lie: (row, column) of each, and whether it is inside the image."""
    ours = _ours(name, side, size, overlap)
    # Random places differ between the two, and what is compared is that they are places.
    told: Callable[[NDArray[Any]], NDArray[Any]] = (
        (lambda at: at) if name == "tiled" else (lambda at: (at >= 0) & (at <= side - size))
    )

    def batches(rows: Items) -> Iterator[NDArray[np.int64]]:
        yield from np.array_split(rows, -(-len(rows) // BATCH))

    def together() -> Generator[Read]:
        yield lambda rows: (told(ours.windows(part).start) for part in batches(rows))

    def one_by_one(patching: Any) -> Generator[Read]:
        def read(rows: Items) -> Iterator[NDArray[Any]]:
            for part in batches(rows):
                specs = [patching.get_patch_spec(row) for row in part.tolist()]
                yield told(np.asarray([spec["coords"] for spec in specs], np.int64))

        yield read

    bench = Benchmark(
        f"Where {name} patches of {size} px lie in {side} x {side}",
        "patch",
        # Both have as many, or about: the least of a stratified plan is what either has.
        lambda rng, count: rng.integers(0, len(ours) * 9 // 10, count),
        options.items,
        OURS,
        [f"{len(ours):,} patches an epoch; {BATCH} are asked for at a time. {_note()}"],
    )
    bench.add(OURS, together)
    bench.add(ONE_BY_ONE, partial(one_by_one, ours))
    if _peer():
        bench.add(PEER, lambda: one_by_one(_theirs(name, side, size, overlap)))
    return bench.run(options.rounds, tell=options.tell)


def _made(options: Options) -> Table:
    """Measure making a stratified plan."""
    side, size = 8192, 64

    def made(make: Callable[..., Any]) -> Generator[Read]:
        def read(rows: Items) -> Iterator[NDArray[Any]]:
            for _ in rows:
                yield np.asarray([make("stratified", side, size, 0).n_patches > 0])

        yield read

    bench = Benchmark(
        f"Making a stratified plan of {size} px patches in {side} x {side}",
        "plan",
        lambda rng, count: rng.integers(0, 1, count),
        1,
        OURS,
        [_note()],
    )
    bench.add(OURS, lambda: made(_ours))
    if _peer():
        bench.add(PEER, lambda: made(_theirs))
    return bench.run(min(options.rounds, 5), tell=options.tell)


def _filtered(options: Options) -> Table:
    """Measure a filter by mean and deviation over every cell of a stratified plan."""
    pixels = np.random.default_rng(0).poisson(20, (_FILTERED, _FILTERED)).astype(np.uint16)
    pixels[:, : _FILTERED // 2] = 0
    shape, size = (1, 1, *pixels.shape), (64, 64)
    stack = open_stacks(pixels)[0]
    cells = len(StratifiedPatching([shape], size).cells)

    def ours() -> Generator[Read]:
        def read(rows: Items) -> Iterator[NDArray[Any]]:
            found = filter_map(stack, StratifiedPatching([shape], size), MeanStdFilter(1.0))
            yield np.full(len(rows), len(found.weighted(0.1)) < cells)

        yield read

    def theirs() -> Generator[Read]:
        from careamics.config.data.patch_filter.meanstd_filter_config import (
            MeanStdPatchFilterConfig,
        )
        from careamics.dataset.factory.filter_bg import filter_background
        from careamics.dataset.image_stack import InMemoryImageStack
        from careamics.dataset.patch_extractor import PatchExtractor
        from careamics.dataset.patching import StratifiedPatching as Theirs

        extractor = PatchExtractor([InMemoryImageStack.from_array(pixels, axes="YX")])

        def read(rows: Items) -> Iterator[NDArray[Any]]:
            patching = Theirs([shape], size, seed=1)
            filter_background(MeanStdPatchFilterConfig(mean_threshold=1.0), patching, extractor)
            yield np.full(len(rows), patching.n_patches < cells)

        yield read

    bench = Benchmark(
        f"Down-weighting background: mean of every cell of 64 px in {_FILTERED} x {_FILTERED}",
        "cell",
        lambda _, count: np.arange(count),
        cells,
        OURS,
        [f"In memory, at full resolution; making the plan is counted. {_note()}"],
    )
    bench.add(OURS, ours)
    if _peer():
        bench.add(PEER, theirs)
    return bench.run(min(options.rounds, 5), tell=options.tell)


def _read(options: Options) -> list[Table]:
    """Measure random patches as float32 batches, out of memory and out of a Zarr array."""
    import zarr

    pixels = np.random.default_rng(0).poisson(100, (_CHANNELS, _SIDE, _SIDE)).astype(np.uint16)
    path = options.work / "patches.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.create_array("image", data=pixels, chunks=(1, 512, 512))
    found: list[Table] = []
    for title, source, kind in (
        ("in memory", pixels, "array"),
        ("in a Zarr array of chunks 1 x 512 x 512", path, "zarr"),
    ):
        bench = Benchmark(
            f"Random patches of {_PATCH} px and {_CHANNELS} channels, {title}",
            "patch",
            lambda rng, count: rng.integers(0, (_SIDE // _PATCH) ** 2, count),
            options.items,
            OURS,
            [
                f"float32 batches of {BATCH}, as they are, in this process. {_note()}",
            ],
        )
        stack = open_stacks(source, "CYX")[0]
        bench.add(OURS, partial(_patches, stack))
        if _peer():
            bench.add(PEER, partial(_peer_patches, source, kind))
        found.append(bench.run(options.rounds, tell=options.tell))
    return found


def _patches(stack: Stack) -> Generator[Read]:
    patching = RandomPatching([data_shape_of(stack)], (_PATCH, _PATCH), seed=1)
    out = np.empty((BATCH, _CHANNELS, _PATCH, _PATCH), np.uint16)

    def read(rows: Items) -> Iterator[NDArray[Any]]:
        for begin in range(0, len(rows), BATCH):
            part = rows[begin : begin + BATCH]
            batch = read_regions([stack], patching.windows(part), out=out[: len(part)])
            yield _told(batch.astype(np.float32))

    yield read


def _peer_patches(source: NDArray[Any] | Path, kind: str) -> Generator[Read]:
    from careamics.config.data import DataConfig
    from careamics.dataset.factory import create_dataset
    from torch.utils.data import default_collate

    config = DataConfig(
        data_type=kind,
        axes="CYX",
        batch_size=BATCH,
        seed=42,
        n_val_patches=0,
        mode="training",
        normalization={"name": "none"},
        augmentations=[],
        patching={"name": "random", "patch_size": [_PATCH, _PATCH]},
        num_workers=0,
    )
    held: list[Any] = [source if kind == "array" else str(source)]
    dataset = create_dataset(config, held, None)

    def read(rows: Items) -> Iterator[NDArray[Any]]:
        for begin in range(0, len(rows), BATCH):
            part = rows[begin : begin + BATCH].tolist()
            (batch,) = default_collate([dataset[row] for row in part])
            yield _told(batch.data.numpy())

    yield read


def _told(batch: NDArray[Any]) -> NDArray[Any]:
    """Return what both must have of patches that lie elsewhere: their shape and type."""
    return np.full(len(batch), batch.shape[1:] == (_CHANNELS, _PATCH, _PATCH)) & (
        batch.dtype == np.float32
    )
