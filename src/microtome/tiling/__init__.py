"""Which windows of a tissue to read: tables of tiles, and the planners that make them.

`best_mask_tiling_try_to_stop`, `get_grid_tile`, `get_strip_tiles` and `get_fewest_tiles` choose
tiles on a tissue mask;
`plan_tiles` cuts a whole image into overlapping tiles for prediction. A `TileTable` holds any
number of tiles of any number of tissues, as columns.
"""

from ._aligned import chunks_touched
from ._areas import Area, AreaSet, read_areas
from ._centred import EdgePolicy, get_cell_tiles
from ._cover import best_mask_tiling_try_to_stop, get_grid_tile
from ._fewest import get_fewest_tiles
from ._geojson import class_of_feature, object_type, polygon_rings, read_features
from ._mask import MaskBands, open_mask
from ._mask_tiling import MaskTiling, MaskTilingMethod
from ._plan import PlannedTiles, TilePlan, plan_tiles
from ._stats import TileStats, tile_stats_table, write_tile_stats
from ._strips import get_strip_tiles
from ._table import TileRows, TileTable
from ._tile import Tile, TileSelection

__all__ = [
    "Area",
    "AreaSet",
    "EdgePolicy",
    "MaskBands",
    "MaskTiling",
    "MaskTilingMethod",
    "PlannedTiles",
    "Tile",
    "TilePlan",
    "TileRows",
    "TileSelection",
    "TileStats",
    "TileTable",
    "best_mask_tiling_try_to_stop",
    "chunks_touched",
    "class_of_feature",
    "get_cell_tiles",
    "get_fewest_tiles",
    "get_grid_tile",
    "get_strip_tiles",
    "object_type",
    "open_mask",
    "plan_tiles",
    "polygon_rings",
    "read_areas",
    "read_features",
    "tile_stats_table",
    "write_tile_stats",
]
