"""Whether vectors are of the tiles or cells that they are joined with: numbers alone say nothing of places."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from microtome.coordinates import FROM_EDGE, micrometres_note
from microtome.errors import InvalidInputError
from microtome.tiling import TileTable

__all__ = ["verify_same_cells", "verify_same_places"]

# Pixels that a centre may be off: those of a table may be rounded to whole pixels.
_OFF = 0.75
# An image may state its pixel size more exactly than the name of its resolution: of a hundred.
_SIZE = 0.01
# Micrometres between two centres of one cell, of which each program has its own: less than a nucleus is
# wide. The first pixel's middle instead of its edge is half a pixel of these.
_CELL = 5.0


def verify_same_places(
    tiles: TileTable,
    pixel: tuple[float, float],
    vectors: Any,
    places: NDArray[np.int64],
) -> None:
    """Refuse vectors of tiles that lie elsewhere, or are of another size.

    Parameters
    ----------
    tiles
        The tiles.
    pixel
        Micrometres per pixel of the tiles, (y, x).
    vectors
        An AnnData of `vectors_to_anndata`.
    places
        The row of `vectors` of each tile, (n,).

    Raises
    ------
    InvalidInputError
        If a place is known to be another.
    """
    obs = vectors.obs
    rows = tiles.rows()
    corners = np.stack([rows.row, rows.col], axis=1).astype(np.float64)
    size = np.asarray(tiles.tile_size, np.float64)
    there = _pair(obs, ("row", "col"), places)
    edge = vectors.uns.get("microtome", {}).get("micrometres_from") == FROM_EDGE
    centres = _pair(obs, ("centroid_y", "centroid_x"), places) if edge else None
    wrong = np.zeros(len(tiles), bool)
    if centres is not None:
        off = np.abs(centres / pixel - (corners + size / 2))
        # The same corner in the same pixels: what is left to tell is the size.
        same = np.zeros(len(tiles), bool) if there is None else (there == corners).all(axis=1)
        allowed = np.where(same[:, None], _OFF + _SIZE * np.abs(corners), _OFF)
        wrong = (off > allowed).any(axis=1)
    elif there is not None:
        wrong = (there != corners).any(axis=1)
    if not wrong.any():
        return
    first = int(np.flatnonzero(wrong)[0])
    if centres is None:
        unit, theirs, ours = "pixels, by its corner", there, corners
    else:
        unit, theirs, ours = "um, by its centre", centres, (corners + size / 2) * pixel
    height, width = tiles.tile_size
    msg = (
        f"the vectors are of other tiles: {vectors.obs_names[places[first]]} lies at "
        f"{_told(theirs, first)} (y, x) {unit}, but at {_told(ours, first)} among these tiles of "
        f"{height}x{width} px ({tiles.strategy}), and {int(wrong.sum())} of {len(tiles)} differ; "
        "pass the vectors of these tiles, or the tiles that the vectors were made of"
    )
    raise InvalidInputError(msg)


def verify_same_cells(
    cells: pa.Table,
    centres: NDArray[np.float64] | None,
    vectors: Any,
    places: NDArray[np.int64],
) -> None:
    """Refuse vectors of cells that lie elsewhere: of a mask whose labels are other cells.

    Parameters
    ----------
    cells
        The table of cells.
    centres
        Where they lie, in micrometres from the image's edge, (n, 2) of (x, y); None where unknown.
    vectors
        An AnnData of `vectors_to_anndata`.
    places
        The row of `vectors` of each cell, (n,).

    Raises
    ------
    InvalidInputError
        If a centre is known to be another.
    """
    # From an image's translation, as formerly, is from anywhere.
    told = (vectors.uns.get("microtome", {}), micrometres_note(cells.schema.metadata))
    if centres is None or any(each.get("micrometres_from") != FROM_EDGE for each in told):
        return
    found = _pair(vectors.obs, ("centroid_x", "centroid_y"), places)
    if found is None:
        return
    wrong = np.hypot(*(found - centres).T) > _CELL
    if not wrong.any():
        return
    first = int(np.flatnonzero(wrong)[0])
    msg = (
        f"the vectors are of other cells: {vectors.obs_names[places[first]]} lies at "
        f"{_told(found[:, ::-1], first)} (y, x) um, but at {_told(centres[:, ::-1], first)} in the table "
        f"of cells, and {int(wrong.sum())} of {len(wrong)} are more than {_CELL:g} um apart; pass vectors "
        "of the mask that the table numbers"
    )
    raise InvalidInputError(msg)


def _told(places: NDArray[Any] | None, row: int) -> str:
    return "?" if places is None else str([round(each, 3) for each in places[row].tolist()])


def _pair(obs: Any, names: tuple[str, str], places: NDArray[np.int64]) -> NDArray[Any] | None:
    """Return two columns of the rows, (n, 2), where both are there and all are known."""
    if not set(names) <= set(obs.columns):
        return None
    found = np.stack([obs[name].to_numpy(np.float64, na_value=np.nan) for name in names], axis=1)
    chosen = found[places]
    return chosen if np.isfinite(chosen).all() else None
