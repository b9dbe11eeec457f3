"""What the loader reaches on several layouts of one image, in random and in blocked order.

Run alone: ``python -m benchmarks.loader``. The image is 5 x 4096 x 4096 uint16, blobs with Poisson noise,
stored as our ingest does, as other tools mostly do, and as `pack` does for tiles at any place; what
`microtome.loading.bench` measures of each is one table. Tiles for each second of processor time count,
since the clock also measures who else is at work on the machine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy import ndimage

from microtome.image import MultiscaleImage
from microtome.loading import bench
from microtome.storage import Layout

SIDE = 4096
LAYOUTS = {
    "ours: 1 x 128 x 128 in shards": None,
    "peers': 1 x 1024 x 1024": Layout((1, 1024, 1024), None),
    "packed: 5 x 64 x 64 in shards": Layout((5, 64, 64), (5, 2048, 2048)),
}


def made(directory: Path) -> dict[str, Path]:
    """Write the image in each layout."""
    rng = np.random.default_rng(0)
    coarse = rng.gamma(0.4, 60, (5, SIDE // 16, SIDE // 16))
    pixels = np.stack([rng.poisson(5 + ndimage.zoom(plane, 16, order=1)) for plane in coarse])
    pixels = pixels.astype(np.uint16)
    found: dict[str, Path] = {}
    for number, (name, layout) in enumerate(LAYOUTS.items()):
        path = directory / f"{number}.ome.zarr"
        with MultiscaleImage.create(
            path, type="uint16", level_shape=pixels.shape, mpp=0.5, layout=layout
        ) as image:
            image.level(0)[...] = pixels
        found[name] = path
    return found


def main() -> None:
    """Measure each layout in turn, several times, and print the medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        paths = made(Path(directory))
        for size in (224, 64):
            seen: dict[tuple[str, str, int], list[tuple[float, float]]] = {}
            factors: dict[str, float | None] = {}
            for _ in range(asked.rounds):
                for name, path in paths.items():
                    report = bench(path, tile_size=size, seconds=asked.seconds)
                    factors[name] = report.amplification
                    for row in report.rows:
                        key = (name, row.order, row.threads)
                        seen.setdefault(key, []).append(
                            (row.tiles_per_cpu_second, row.tiles_per_second)
                        )
            sys.stdout.write(
                f"\n| float32 batches of 64, tiles of 5 x {size} x {size} | order | threads | tiles a "
                "processor second | tiles a second | amplification |\n|---|---|---:|---:|---:|---:|\n"
            )
            for (name, order, threads), figures in seen.items():
                worked, clock = np.median(np.asarray(figures), axis=0)
                sys.stdout.write(
                    f"| {name} | {order} | {threads} | {worked:.0f} | {clock:.0f} | {factors[name] or 0:.1f} |\n"
                )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
