"""How fast a cohort's tiles load on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from microtome.cohort import (
    BaseImagingDataset,
    CohortLayout,
    HEImagingDataset,
    Modality,
    SingleIHCImagingDataset,
)
from microtome.coordinates import Resolution
from microtome.tiling import TileTable

__all__ = ["Throughput", "measure_throughput"]

_BATCH = 32
_SECONDS = 2.0
# Shorter measurements tell of opening files, not of reading tiles.
_SHORTEST = 0.4


@dataclass(frozen=True, slots=True)
class Throughput:
    """What was measured for one modality."""

    modality: str
    tile_size: tuple[int, int]
    batch_size: int
    tiles: int
    """Tiles read, over as many epochs as there was time for."""
    seconds: float
    megabytes: float
    """Of float32 batches."""
    processors: int

    @property
    def tiles_per_second(self) -> float:
        """Tiles a second."""
        return self.tiles / self.seconds

    @property
    def megabytes_per_second(self) -> float:
        """Megabytes (10^6 bytes) of float32 batches a second."""
        return self.megabytes / self.seconds


def measure_throughput(
    layout: CohortLayout,
    resolution: Resolution,
    tiles: TileTable,
    modalities: Sequence[Modality],
    *,
    seconds: float = _SECONDS,
) -> list[Throughput]:
    """Load shuffled batches of every brightfield modality for a moment and count.

    Parameters
    ----------
    layout, resolution
        The cohort.
    tiles
        A tiling of it.
    modalities
        Which modalities; multiplex ones are passed over, and so are those without tiles.
    seconds
        For all of them together; each gets at least 0.4, which may leave out the last ones.
    """
    kinds = [modality for modality in modalities if modality.kind == "brightfield"]
    kinds = kinds[: max(1, int(seconds / _SHORTEST))]
    found: list[Throughput] = []
    for modality in kinds:
        dataset = _dataset(layout, resolution, tiles, modality)
        if len(dataset):
            found.append(_measure(dataset, modality, tiles, seconds / len(kinds)))
    return found


def _dataset(
    layout: CohortLayout, resolution: Resolution, tiles: TileTable, modality: Modality
) -> BaseImagingDataset[Any]:
    name, marker = layout.root.name, modality.name
    if marker == "he":
        return HEImagingDataset(
            name,
            path=layout.root,
            resolution=resolution,
            tile_size=tiles.tile_size,
            tile_strategy=tiles.strategy,
        )
    return SingleIHCImagingDataset(
        name,
        marker,
        path=layout.root,
        resolution=resolution,
        tile_size=tiles.tile_size,
        tile_strategy=tiles.strategy,
    )


def _measure(
    dataset: BaseImagingDataset[Any], modality: Modality, tiles: TileTable, seconds: float
) -> Throughput:
    # Not at the top: the viewer stands on this room, and would start later for what it never does.
    from microtome.loading import TileLoader

    batch_size = min(_BATCH, len(dataset))
    # As arrays: importing torch would take longer than the measurement, and its tensors are views.
    loader = TileLoader(dataset, batch_size, order="random", seed=0, as_torch=False)
    count = size = epoch = 0
    began = perf_counter()
    while perf_counter() - began < seconds:
        loader.set_epoch(epoch)
        for batch in loader:
            count += len(batch.data)
            size += batch.data.nbytes
            if perf_counter() - began >= seconds:
                break
        epoch += 1
    return Throughput(
        modality.name,
        tiles.tile_size,
        batch_size,
        count,
        perf_counter() - began,
        size / 1e6,
        os.cpu_count() or 1,
    )
