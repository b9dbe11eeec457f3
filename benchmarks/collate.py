"""Collating and taking apart batches of regions, beside stacking their pixels and CAREamics."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.regions import (
    ImageRegionData,
    Windows,
    collate_regions,
    decollate_regions,
    read_regions,
    region_batch,
)
from microtome.sources import open_stacks

from .harness import Benchmark, Items, Read, Table
from .options import Options

__all__ = ["tables"]

BATCH = 32
_CHANNELS, _SIDE = 5, 64
_STACKING, _APART, _COLLATE = "stacking the pixels", "decollate_regions", "collate_regions"


def tables(options: Options) -> list[Table]:
    """Measure batches of 32 regions of 5 channels of 64 px."""
    pixels = np.random.default_rng(0).integers(0, 99, (_CHANNELS, 1024, 1024), np.uint16)
    stack = open_stacks(pixels, "CYX", mpp=0.5)[0]

    def batch_at(start: NDArray[np.int64]) -> ImageRegionData[Any]:
        windows = Windows.of(0, start, _SIDE)
        read = read_regions([stack], windows).astype(np.float32)
        return region_batch([stack], windows, read)

    batches = [
        batch_at(np.random.default_rng(i).integers(0, 1024 - _SIDE, (BATCH, 2))) for i in range(8)
    ]
    regions = [decollate_regions(batch) for batch in batches]
    apart = Benchmark(
        f"A batch of {BATCH} regions of {_CHANNELS} x {_SIDE} x {_SIDE} taken apart",
        "batch",
        lambda rng, count: rng.integers(0, len(batches), count),
        options.items,
        _STACKING,
        ["Stacking the pixels of a batch (`np.stack`) is what stands for making one."],
    )
    apart.add(_STACKING, _each(lambda i: np.stack([one.data for one in regions[i]])))
    apart.add(_APART, _each(lambda i: decollate_regions(batches[i])))
    together = Benchmark(
        f"{BATCH} regions of {_CHANNELS} x {_SIDE} x {_SIDE} made a batch",
        "batch",
        lambda rng, count: rng.integers(0, len(batches), count),
        options.items,
        _STACKING,
        ["`region_batch` describes a batch that was read as one, where nothing has to be stacked."],
    )
    together.add(_STACKING, _each(lambda i: np.stack([one.data for one in regions[i]])))
    together.add(_COLLATE, _each(lambda i: collate_regions(regions[i])))
    windows = Windows.of(0, batches[0].region_spec["coords"], _SIDE)
    together.add("region_batch", _each(lambda i: region_batch([stack], windows, batches[i].data)))
    _add_peer(apart, together, regions)
    return [bench.run(options.rounds, tell=options.tell) for bench in (apart, together)]


def _add_peer(
    apart: Benchmark, together: Benchmark, regions: Sequence[list[ImageRegionData[Any]]]
) -> None:
    try:
        known = f"CAREamics {version('careamics')}"
    except PackageNotFoundError:
        return
    from careamics.dataset.image_region_data import ImageRegionData as Theirs
    from careamics.lightning.prediction.convert_prediction import decollate_image_region_data
    from torch.utils.data import default_collate

    rows = [
        [
            Theirs(
                data=one.data,
                source=one.source,
                data_shape=one.data_shape,
                dtype=one.dtype,
                axes=one.axes,
                target_axes=one.axes,
                original_data_shape=one.original_data_shape,
                region_spec=dict(one.region_spec),
                additional_metadata={"chunks": one.additional_metadata["chunks"]},
            )
            for one in batch
        ]
        for batch in regions
    ]
    collated = [default_collate(batch) for batch in rows]
    # Its predictions are numpy's when they are taken apart.
    answered = [batch._replace(data=batch.data.numpy()) for batch in collated]
    together.add(f"{known}, torch's default_collate", _each(lambda i: default_collate(rows[i])))
    apart.add(known, _each(lambda i: decollate_image_region_data(answered[i])))


def _each(work: Callable[[int], Any]) -> Callable[[], Generator[Read]]:
    """Do batch by batch; what comes of it is compared by the tests, not here."""

    def setup() -> Generator[Read]:
        def read(rows: Items) -> Iterator[NDArray[Any]]:
            for row in rows.tolist():
                yield np.asarray([work(row) is not None])

        yield read

    return setup
