"""Loading: in which order tiles are read, and batches of them, read ahead.

`TileLoader` turns any `TileSource` (every dataset of a cohort is one) into batches; `TileOrder`
is the order, a function of (seed, epoch, position); `BatchPlan` says how ranks share an epoch.
"""

from ._batches import BatchPlan
from ._loader import LoaderState, TileLoader
from ._order import OrderKind, TileOrder
from ._source import TileSource
from ._stats import LoaderStats

__all__ = [
    "BatchPlan",
    "LoaderState",
    "LoaderStats",
    "OrderKind",
    "TileLoader",
    "TileOrder",
    "TileSource",
]
