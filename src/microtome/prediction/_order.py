"""In which order the tiles of a plan come, and in which batches: the same in every run.

The batches are a function of the plan alone. A model may answer a tile a little differently in
another batch, so a run that goes on where another was killed puts the same tiles together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.tiling import PlannedTiles, TilePlan

__all__ = ["TileOrder"]

# Tiles are visited block by block, four blocks of a size inside each of twice that size, so that
# the output's shards (2048 or 1024 pixels wide, see `microtome.storage`) fill up one by one, and
# four of a level those of the next.
_BLOCKS = (2048, 1024, 512)
# The largest block below this is read at once, two are in memory. Tiles of 512 and an overlap of 64
# decode each chunk of 128 pixels 1.2 times on average in blocks of 2048 pixels, 1.4 in blocks of
# 1024, and twice if read tile by tile; chunks of 1024 pixels 2.2, 3.3 and 11 times.
_BLOCK_BYTES = 32 * 2**20


@dataclass(frozen=True, slots=True)
class TileOrder:
    """Tiles of one sample in the order in which they are read.

    Parameters
    ----------
    indices
        Numbers of the tiles in the plan, (n,).
    tiles
        The same tiles.
    ends
        Where each block that is read at once ends among them.
    """

    indices: NDArray[np.int64]
    tiles: PlannedTiles
    ends: list[int]

    @classmethod
    def of(
        cls,
        plan: TilePlan,
        pixel_bytes: int,
        batch_size: int,
        *,
        kept: NDArray[np.bool_] | None = None,
        needed: NDArray[np.bool_] | None = None,
    ) -> TileOrder:
        """Sort the tiles of a plan into blocks.

        Parameters
        ----------
        plan
            The tiles.
        pixel_bytes
            Of all channels of a pixel.
        batch_size
            Tiles a batch.
        kept
            Which tiles there are; the others are left out before batches are made.
        needed
            Which are wanted; batches that hold none are left out.
        """
        depth = 1 if len(plan.shape) == 2 else plan.tile_size[0]
        edge = _block_edge(pixel_bytes * depth)
        order = _sorted(plan)
        if kept is not None:
            order = order[kept[order]]
        if needed is not None:
            batch = np.arange(len(order)) // batch_size
            order = order[np.isin(batch, batch[needed[order]])]
        tiles = plan.take(order)
        blocks = tiles.stitch // edge
        if len(plan.shape) == 3:
            blocks[:, 0] = tiles.coords[:, 0]
        ends = np.flatnonzero((blocks[1:] != blocks[:-1]).any(axis=1)) + 1
        return cls(order, tiles, [*ends.tolist(), len(order)] if len(order) else [])


def _sorted(plan: TilePlan) -> NDArray[np.int64]:
    stitch = plan.stitch
    y, x = len(plan.shape) - 2, len(plan.shape) - 1
    blocks = [_BLOCKS[0]]
    while blocks[0] < max(plan.shape[-2:]):
        blocks.insert(0, 2 * blocks[0])
    keys = [stitch[:, side] // block for block in (*blocks, *_BLOCKS[1:]) for side in (y, x)]
    # Planes are files of their own, so one layer of tiles after the other.
    layers = [stitch[:, 0]] if len(plan.shape) == 3 else []
    # Inside a block row by row, as the pixels lie in memory.
    return np.lexsort([stitch[:, x], stitch[:, y], *reversed(keys), *layers])


def _block_edge(pixel_bytes: int) -> int:
    return next((b for b in _BLOCKS if b * b * pixel_bytes <= _BLOCK_BYTES), _BLOCKS[-1])
