"""Who predicts a slide how: an identity model over the tiles of an image, the answer written or held.

Each is run in a process of its own, `python -m benchmarks.prediction_ways NAME IMAGE WORK TILES`, so
that the most memory it needs is its own; what it needed for each tile is printed as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import microtome as mt
from microtome.image import halve_mean
from microtome.tiling import PlannedTiles, plan_tiles

from .machine import cpu_seconds
from .pyramid_builders import peak_memory

__all__ = ["BATCH", "OVERLAP", "PEER", "TILE", "WAYS"]

TILE, OVERLAP, BATCH = 512, 64, 8
PEER = "peer.zarr"
_RAMP = np.minimum(np.minimum(np.arange(TILE) + 1, TILE - np.arange(TILE)), OVERLAP)


def ours(blend: Any) -> Callable[[Path, Path, int], int]:
    """Predict with what is measured here."""

    def run(image: Path, work: Path, tiles: int) -> int:
        del tiles
        source = mt.MultiscaleImage.open(image)
        mt.predict(
            lambda batch: batch,
            source,
            work / "made.ome.zarr",
            tile_size=TILE,
            overlap=OVERLAP,
            batch_size=BATCH,
            blend=blend,
        )
        return len(plan_tiles(source.level_shape(0)[-2:], TILE, OVERLAP))

    return run


def in_memory(*, adding: bool) -> Callable[[Path, Path, int], Callable[[], int]]:
    """Do the same with numpy, image and result in memory, coarser levels included."""

    def prepare(image: Path, work: Path, tiles: int) -> Callable[[], int]:
        del work, tiles
        pixels = mt.MultiscaleImage.open(image)["level0"][...]

        def run() -> int:
            plan = plan_tiles(pixels.shape[-2:], TILE, OVERLAP)
            made = np.zeros(pixels.shape, np.float32) if adding else np.empty_like(pixels)
            weights = np.zeros(pixels.shape[-2:], np.float32)
            ramp = np.multiply.outer(_RAMP, _RAMP).astype(np.float32)
            for planned in _batches_of(plan):
                batch = np.stack(
                    [pixels[:, y : y + TILE, x : x + TILE] for y, x in planned.coords.tolist()]
                )
                rows = zip(
                    batch,
                    planned.coords.tolist(),
                    planned.stitch.tolist(),
                    planned.crop.tolist(),
                    planned.crop_size.tolist(),
                    strict=True,
                )
                for tile, (y, x), (to_y, to_x), (top, left), (height, width) in rows:
                    if adding:
                        made[:, y : y + TILE, x : x + TILE] += tile * ramp
                        weights[y : y + TILE, x : x + TILE] += ramp
                    else:
                        kept = tile[:, top : top + height, left : left + width]
                        made[:, to_y : to_y + height, to_x : to_x + width] = kept
            if adding:
                made /= weights
                made = np.rint(made, out=made).astype(pixels.dtype)
            level = made
            while max(level.shape[-2:]) > 128:
                level = halve_mean(level)
            _verify(np.array_equal(made[:, ::97], pixels[:, ::97]))
            return len(plan)

        return run

    return prepare


def careamics(image: Path, work: Path, tiles: int) -> int:
    """Predict as CAREamics writes tiles into a Zarr; as many as asked for, since all take minutes."""
    from careamics.config.data import DataConfig
    from careamics.dataset.factory import create_dataset
    from careamics.dataset.image_region_data import ImageRegionData
    from careamics.lightning.callbacks.prediction import create_write_strategy
    from careamics.lightning.prediction import decollate_image_region_data
    from torch.utils.data import DataLoader, default_collate

    config = DataConfig(
        data_type="zarr",
        axes="CYX",
        batch_size=BATCH,
        seed=1,
        n_val_patches=0,
        normalization={"name": "none"},
        num_workers=0,
        mode="predicting",
        patching={"name": "tiled", "patch_size": [TILE] * 2, "overlaps": [OVERLAP] * 2},
    )
    dataset = create_dataset(config, [str(image.parent / PEER)], None)
    writer = create_write_strategy("zarr", True)
    done = 0
    for (batch,) in DataLoader(dataset, batch_size=BATCH, collate_fn=default_collate):
        answered = ImageRegionData.from_model_output(batch, batch.data.numpy())
        writer.write_batch(work, decollate_image_region_data(answered))
        done += len(batch.data)
        if done >= tiles:
            break
    return done


def _batches_of(plan: Any) -> Iterator[PlannedTiles]:
    for start in range(0, len(plan), BATCH):
        yield plan.take(np.arange(start, min(start + BATCH, len(plan))))


def _verify(same: bool) -> None:  # noqa: FBT001 - ours
    if not same:
        msg = "the identity is not the input"
        raise SystemExit(msg)


WAYS: dict[str, Callable[[Path, Path, int], Any]] = {
    "microtome, crop": ours("crop"),
    "microtome, linear": ours("linear"),
    "in memory, crop": in_memory(adding=False),
    "in memory, linear": in_memory(adding=True),
    "CAREamics, to Zarr": careamics,
}


def main() -> None:
    """Do it once on a small image, which compiles what is compiled, and measure it on the given one."""
    name, image, work, tiles = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    small = work / "small.ome.zarr"
    with mt.MultiscaleImage.create(
        small, type="uint16", level_shape=(5, 600, 600), mpp=0.5
    ) as warm:
        warm["level0"][...] = np.ones((5, 600, 600), np.uint16)
    (work / "warm").mkdir()
    if name.startswith("microtome"):
        WAYS[name](small, work / "warm", 1)
    way = WAYS[name]
    if name.startswith("in memory"):
        way(small, work, tiles)()
        prepared = way(image, work, tiles)
    else:

        def prepared() -> int:
            return way(image, work, tiles)

    began, used = time.perf_counter(), cpu_seconds()
    done = prepared()
    used, wall = cpu_seconds() - used, time.perf_counter() - began
    print(json.dumps({"cpu": used / done, "wall": wall / done, "peak": peak_memory()}))


if __name__ == "__main__":
    main()
