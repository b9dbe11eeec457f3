"""Tiles of a Zarr array as a torch dataset, as tutorials write it. Worker processes import this."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    import zarr

__all__ = ["Positions", "ZarrTiles"]


class ZarrTiles(torch.utils.data.Dataset[torch.Tensor]):
    """Float32 tiles of an array by their first pixel.

    Parameters
    ----------
    path
        Directory of the array, axes (c, y, x).
    side
        Side of a tile.
    pipeline
        Class that decodes for zarr-python; its own by default.
    """

    def __init__(self, path: str, side: int, pipeline: str | None = None) -> None:
        self.path, self.side, self.pipeline = path, side, pipeline
        self.array: zarr.Array[Any] | None = None

    def __getitem__(self, place: tuple[int, int]) -> torch.Tensor:
        if self.array is None:
            # Opened where it is used, which may be a worker process.
            import zarr

            if self.pipeline is None:
                self.array = zarr.open_array(self.path, mode="r")
            else:
                with zarr.config.set({"codec_pipeline.path": self.pipeline}):
                    self.array = zarr.open_array(self.path, mode="r")
        row, col = place
        tile = self.array[:, row : row + self.side, col : col + self.side]
        return torch.from_numpy(np.asarray(tile).astype(np.float32))


class Positions:
    """A batch sampler whose items are set before each epoch, so that the workers can live on.

    Parameters
    ----------
    batch
        Items in a batch.
    """

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.items: NDArray[np.int64] = np.zeros((0, 2), np.int64)

    def __len__(self) -> int:
        return ceil(len(self.items) / self.batch)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for start in range(0, len(self.items), self.batch):
            yield [(row, col) for row, col in self.items[start : start + self.batch].tolist()]
