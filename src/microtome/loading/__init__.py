"""Loading: in which order tiles are read, and batches of them, read ahead.

`TileLoader` turns any `TileSource` (every dataset of a cohort is one) into batches, or an
`EpochTileSource`, whose tiles are other ones in every epoch; `TileOrder` is the order, a function
of (seed, epoch, position); `BatchPlan` says how ranks share an epoch. `RegionDataset` is such a source:
the patches of a patching, normalized and augmented; `AugmentedDataset` augments any other source;
`RegionDataModule` hands them to Lightning.
"""

from ._augmented import AugmentedDataset
from ._batches import BatchPlan
from ._bench import BenchReport, BenchRow, bench
from ._blocks import BlockOrder
from ._drawn import DrawnOrder, WeightedOrder
from ._items import Collate, CollateKind, ItemSource
from ._lightning import RegionDataModule
from ._loader import OnBadTile, TileLoader
from ._order import Order, OrderKind, TileOrder
from ._orders import StorageSource
from ._ragged import MultimodalBatch, PanelBatch, PanelCollate
from ._reader import SkippedTile
from ._region_dataset import RegionDataset
from ._source import Batch, EpochTileSource, TileSource
from ._state import LoaderState
from ._stats import LoaderStats
from ._torch import iterable_dataset

__all__ = [
    "AugmentedDataset",
    "Batch",
    "BatchPlan",
    "BenchReport",
    "BenchRow",
    "BlockOrder",
    "Collate",
    "CollateKind",
    "DrawnOrder",
    "EpochTileSource",
    "ItemSource",
    "LoaderState",
    "LoaderStats",
    "MultimodalBatch",
    "OnBadTile",
    "Order",
    "OrderKind",
    "PanelBatch",
    "PanelCollate",
    "RegionDataModule",
    "RegionDataset",
    "SkippedTile",
    "StorageSource",
    "TileLoader",
    "TileOrder",
    "TileSource",
    "WeightedOrder",
    "bench",
    "iterable_dataset",
]
