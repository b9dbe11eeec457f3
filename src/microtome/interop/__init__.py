"""Neighbours' data structures: each is optional, and imported nowhere else.

`ImageTilesDataset` gives tiles around the regions of a SpatialData object. Its annotations are
named by their place in the table: a column of ``obs``, a variable of ``X``, ``"layers/LAYER/NAME"``
or ``"obsm/KEY"``. `to_spatialdata` and `from_spatialdata` take images there and back.
"""

from ._tiles_dataset import ImageTilesDataset
from ._to_spatialdata import from_spatialdata, to_spatialdata

__all__ = ["ImageTilesDataset", "from_spatialdata", "to_spatialdata"]
