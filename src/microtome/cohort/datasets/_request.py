"""What is asked of a read, and where a tile lies that is asked for by its key."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np

from microtome.errors import InvalidInputError, UnknownNameError
from microtome.tiling import TileTable

__all__ = ["Request", "tile_corner"]


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a read beside the windows.

    Parameters
    ----------
    select
        Which channels; None for those that the dataset was made with.
    preprocess
        Whether to standardize and filter; else the stored values, as float32.
    masks, cells
        Whether to bring masks and cells along.
    """

    select: Any = None
    preprocess: bool = True
    masks: bool = False
    cells: bool = False


def tile_corner(tiles: TileTable, tissue_id: str, tile_id: int) -> tuple[int, int]:
    """Return (row, col) of a tile, found by its key.

    Raises
    ------
    UnknownNameError
        If the tissue has no such tile.
    InvalidInputError
        If the id is no whole number.
    """
    try:
        tile_id = operator.index(tile_id)
    except TypeError:
        msg = f"a tile id is a whole number, got {tile_id!r} ({type(tile_id).__name__})"
        raise InvalidInputError(msg) from None
    found = tiles.rows(tiles.positions(tissue_id))
    hit = np.flatnonzero(found.tile_id == tile_id)
    if hit.size != 1:
        msg = f"tissue {tissue_id!r} has no tile {tile_id}; it has {len(found)} tiles"
        raise UnknownNameError(msg)
    return int(found.row[hit[0]]), int(found.col[hit[0]])
