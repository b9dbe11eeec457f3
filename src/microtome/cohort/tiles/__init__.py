"""Tissue masks become tables of tiles."""

from ._inputs import cells_identity, tiles_identities
from ._tiles import TilingMethod, open_tiles, tile, tile_statistics
from ._tissue import cells_of

__all__ = [
    "TilingMethod",
    "cells_identity",
    "cells_of",
    "open_tiles",
    "tile",
    "tile_statistics",
    "tiles_identities",
]
