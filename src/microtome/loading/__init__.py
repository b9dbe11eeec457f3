"""Loading: in which order tiles are read, and batches of them, read ahead.

`TileLoader` turns any `TileSource` (every dataset of a cohort is one) into batches, or an
`EpochTileSource`, whose tiles are other ones in every epoch; `TileOrder` is the order, a function
of (seed, epoch, position); `BatchPlan` says how ranks share an epoch.
"""

from ._batches import BatchPlan
from ._items import Collate, CollateKind, ItemSource
from ._loader import TileLoader
from ._order import OrderKind, TileOrder
from ._ragged import MultimodalBatch, PanelBatch, PanelCollate
from ._source import Batch, EpochTileSource, TileSource
from ._state import LoaderState
from ._stats import LoaderStats

__all__ = [
    "Batch",
    "BatchPlan",
    "Collate",
    "CollateKind",
    "EpochTileSource",
    "ItemSource",
    "LoaderState",
    "LoaderStats",
    "MultimodalBatch",
    "OrderKind",
    "PanelBatch",
    "PanelCollate",
    "TileLoader",
    "TileOrder",
    "TileSource",
]
