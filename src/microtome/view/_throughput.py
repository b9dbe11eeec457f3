"""How fast a cohort's tiles load on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal, NamedTuple

import numpy as np

from microtome.cohort import (
    BaseImagingDataset,
    CohortLayout,
    HEImagingDataset,
    Modality,
    MultiplexImagingDataset,
    SingleIHCImagingDataset,
)
from microtome.coordinates import Resolution
from microtome.errors import InvalidInputError
from microtome.tiling import TileTable

from ._inventory import Missing, attempt, standardization_tables

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
    channels: int
    """Of a batch; where tissues differ, all that any of its tiles has."""
    standardization: str
    """What was done to the pixels."""

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
) -> list[Throughput | Missing]:
    """Load shuffled batches of every modality for a moment and count.

    Parameters
    ----------
    layout, resolution
        The cohort.
    tiles
        A tiling of it.
    modalities
        Which modalities; those without tiles are passed over. Pixels of a panel are standardized
        by its first tables, as they are in the histograms, and as stored where there are none.
    seconds
        For all of them together; each gets at least 0.4, which may leave out the last ones.
    """
    kinds = list(modalities)[: max(1, round(seconds / _SHORTEST))]
    found: list[Throughput | Missing] = []
    for modality in kinds:
        each = attempt(
            f"loading of {modality}",
            lambda m=modality: _measure(layout, resolution, tiles, m, seconds / len(kinds)),
        )
        if each is not None:
            found.append(each)
    return found


def _dataset(
    layout: CohortLayout,
    resolution: Resolution,
    tiles: TileTable,
    modality: Modality,
    standardization: str,
) -> BaseImagingDataset[Any]:
    name, marker = layout.root.name, modality.name
    if modality.kind == "multiplex":
        return MultiplexImagingDataset(
            name,
            modality,
            standardization=standardization,
            path=layout.root,
            resolution=resolution,
            tile_size=tiles.tile_size,
            tile_strategy=tiles.strategy,
        )
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


def _standardization(layout: CohortLayout, resolution: Resolution, modality: Modality) -> str:
    directory = standardization_tables(layout, modality, resolution)
    return "identity" if directory is None else f"{directory.parent.name}/{directory.name}"


def _measure(
    layout: CohortLayout,
    resolution: Resolution,
    tiles: TileTable,
    modality: Modality,
    seconds: float,
) -> Throughput | None:
    multiplex = modality.kind == "multiplex"
    done = (
        _standardization(layout, resolution, modality)
        if multiplex
        else "mean and deviation of colours"
    )
    dataset = _dataset(layout, resolution, tiles, modality, done)
    if not len(dataset):
        return None
    try:
        found = _count(dataset, None, seconds)
    except InvalidInputError:
        if not multiplex:
            raise
        # Tissues differ in their channels: as one array they are batches of a panel.
        found = _count(dataset, "panel", seconds)
    return Throughput(
        modality.name,
        tiles.tile_size,
        min(_BATCH, len(dataset)),
        found.tiles,
        found.seconds,
        found.bytes / 1e6,
        os.cpu_count() or 1,
        found.channels,
        "as stored" if done == "identity" else done,
    )


class _Counted(NamedTuple):
    tiles: int
    bytes: int
    channels: int
    seconds: float


def _count(
    dataset: BaseImagingDataset[Any], collate: Literal["panel"] | None, seconds: float
) -> _Counted:
    # Not at the top: the viewer stands on this room, and would start later for what it never does.
    from microtome.loading import PanelBatch, TileLoader

    # As arrays: importing torch would take longer than the measurement, and its tensors are views.
    loader = TileLoader(
        dataset,
        min(_BATCH, len(dataset)),
        order="random",
        seed=0,
        as_torch=False,
        collate=collate,
    )
    count = size = epoch = channels = 0
    began = perf_counter()
    while perf_counter() - began < seconds:
        loader.set_epoch(epoch)
        for batch in loader:
            region = batch.region if isinstance(batch, PanelBatch) else batch
            pixels = np.asarray(region.data)
            count += len(pixels)
            size += pixels.nbytes
            channels = max(channels, pixels.shape[1])
            if perf_counter() - began >= seconds:
                break
        epoch += 1
    return _Counted(count, size, channels, perf_counter() - began)
