"""How far orders of tiles are from a uniform one, and whether a model learns as well from them.

Run alone: ``python -m benchmarks.orders [--data shared/data/mibi]``. The first table is of a made-up
cohort of 50 slides; the second trains a small network on a real MIBI field in 16 parts: what share of
a tile lies in cells, from eight of its channels.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray

from microtome.loading import BlockOrder, Order, TileLoader, TileOrder
from microtome.regions import ImageRegionData, Windows, read_regions, region_batch
from microtome.sources import image_from_array

BATCH = 64
SLIDES, BLOCKS, IN_BLOCK = 50, 400, 16
TILE, STEP, PART, BLOCK = 32, 8, 256, 64
EPOCHS, SEEDS = 3, 5


def distances() -> Iterator[str]:
    """Yield a table of what the batches of an epoch are like."""
    count = SLIDES * BLOCKS * IN_BLOCK
    row = np.arange(count)
    slide, block = row // (BLOCKS * IN_BLOCK), row // IN_BLOCK
    orders: dict[str, Order] = {
        "uniform": TileOrder(count, "random", seed=1),
        **{
            f"blocked, mixed={mixed}": BlockOrder(block, seed=1, mixed=mixed)
            for mixed in (256, 1024, 4096)
        },
        "sequential": TileOrder(count, "sequential"),
    }
    yield (
        f"| order of {count} tiles, {SLIDES} slides, {IN_BLOCK} tiles a block | same slide % | "
        "same block % | slides in a batch | autocorrelation |\n|---|---:|---:|---:|---:|\n"
    )
    for name, order in orders.items():
        rows = order.rows(0, count // BATCH * BATCH)
        slides, blocks = slide[rows].reshape(-1, BATCH), block[rows].reshape(-1, BATCH)
        place = blocks.ravel() - blocks.mean()
        lag = float((place[1:] * place[:-1]).mean() / place.var())
        yield (
            f"| {name} | {100 * _alike(slides):.2f} | {100 * _alike(blocks):.2f} | "
            f"{np.mean([np.unique(batch).size for batch in slides]):.1f} | {lag:.3f} |\n"
        )


def _alike(batches: NDArray[np.int64]) -> float:
    """Return the share of pairs of a batch that are alike, on average."""
    counts = np.asarray([(np.unique(b, return_counts=True)[1] ** 2).sum() for b in batches])
    size = batches.shape[1]
    return float(((counts - size) / (size * (size - 1))).mean())


class Cells:
    """Tiles of images with the share of each that lies in cells."""

    def __init__(self, images: list[Any], shares: list[NDArray[np.float32]]) -> None:
        self.images, self.shares = images, shares
        image, corners = [], []
        for number, one in enumerate(images):
            high = np.asarray(one.level_shape(0)[-2:]) - TILE + 1
            grid = np.stack(np.mgrid[0 : high[0] : STEP, 0 : high[1] : STEP], -1).reshape(-1, 2)
            image.append(np.full(len(grid), number))
            corners.append(grid)
        self.windows = Windows.of(np.concatenate(image), np.concatenate(corners), TILE)
        place = self.windows.start // BLOCK
        self.blocks = self.windows.image * 10_000 + place[:, 0] * 100 + place[:, 1]

    def __len__(self) -> int:
        return len(self.windows)

    def read_batch(self, rows: NDArray[np.int64]) -> tuple[ImageRegionData[Any], ...]:
        """Return tiles, and their targets as planes of one value."""
        windows = self.windows.take(rows)
        pixels = np.log1p(read_regions(self.images, windows).astype(np.float32))
        cells = [
            self.shares[i][y : y + TILE, x : x + TILE].mean()
            for i, (y, x) in zip(windows.image.tolist(), windows.start.tolist(), strict=True)
        ]
        target = np.asarray(cells, np.float32).reshape(-1, 1, 1, 1)
        return (
            region_batch(self.images, windows, pixels),
            region_batch(self.images, windows, target),
        )


def trained(data: Path) -> Iterator[str]:
    """Yield a table of what a network learned from each order."""
    torch.set_num_threads(1)
    field = tifffile.imread(next(data.glob("fov8_RowNumber0*.tiff")))
    pixels = field[np.linspace(0, len(field) - 1, 8).astype(int)].astype(np.float32)
    cells = (tifffile.imread(data / "fov8_whole_cell_mask.tiff") > 0).astype(np.float32)
    parts = [
        np.s_[y : y + PART, x : x + PART]
        for y in range(0, 1024, PART)
        for x in range(0, 1024, PART)
    ]
    images = [
        image_from_array(pixels[(slice(None), *part)].copy(), axes="cyx", mpp=None)
        for part in parts
    ]
    shares = [cells[part] for part in parts]
    test_parts = {0, 5, 10, 15}  # the diagonal

    def chosen(*, test: bool) -> Cells:
        mine = [i for i in range(len(parts)) if (i in test_parts) is test]
        return Cells([images[i] for i in mine], [shares[i] for i in mine])

    train, test = chosen(test=False), chosen(test=True)
    orders: dict[str, Any] = {
        "uniform": lambda seed: TileOrder(len(train), "random", seed),
        "blocked, mixed=1024": lambda seed: BlockOrder(train.blocks, seed, mixed=1024),
        "blocked, mixed=256": lambda seed: BlockOrder(train.blocks, seed, mixed=256),
        "sequential": lambda _: TileOrder(len(train), "sequential"),
    }
    yield (
        f"| {EPOCHS} epochs of {len(train)} tiles of {len(parts) - len(test_parts)} parts, {SEEDS} seeds | "
        f"error on {len(test)} tiles of {len(test_parts)} others | spread of the seeds |\n|---|---:|---:|\n"
    )
    for name, order in orders.items():
        errors = [_error(train, test, order(seed), seed) for seed in range(SEEDS)]
        yield f"| {name} | {mean(errors):.4f} | {stdev(errors):.4f} |\n"


def _error(train: Cells, test: Cells, order: Order, seed: int) -> float:
    """Train from a seed and return the root of the mean squared error elsewhere."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(8, 16, 5, 2, 2),
        torch.nn.ReLU(),
        torch.nn.Conv2d(16, 32, 3, 2, 1),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(32, 1),
    )
    steps = torch.optim.Adam(model.parameters(), 3e-3)
    loader = TileLoader(train, BATCH, order=order)
    for epoch in range(EPOCHS):
        loader.set_epoch(epoch)
        for tiles, share in loader:
            loss = (model(tiles.data) - share.data.flatten(1)).square().mean()
            steps.zero_grad()
            loss.backward()
            steps.step()
    with torch.no_grad():
        squares = [
            (model(tiles.data) - share.data.flatten(1)).square()
            for tiles, share in TileLoader(test, 256, order="sequential")
        ]
    return float(torch.cat(squares).mean().sqrt())


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, help="the MIBI field of the shared data")
    asked = parser.parse_args()
    for line in distances():
        sys.stdout.write(line)
    if asked.data is not None:
        sys.stdout.write("\n")
        for line in trained(asked.data):
            sys.stdout.write(line)
            sys.stdout.flush()


if __name__ == "__main__":
    main()
