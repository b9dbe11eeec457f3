"""Neighbours' data structures: each is optional, and imported nowhere else.

`ImageTilesDataset` gives tiles around the regions of a SpatialData object. Its annotations are
named by their place in the table: a column of ``obs``, a variable of ``X``, ``"layers/LAYER/NAME"``
or ``"obsm/KEY"``.
"""

from ._tiles_dataset import ImageTilesDataset

__all__ = ["ImageTilesDataset"]
