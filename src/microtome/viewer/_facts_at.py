"""What a page asks about places: the values of a pixel, the tiles in a box."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError, MicrotomeError, UnknownNameError
from microtome.tiling import TileTable

from ._cells import plain
from ._overlays import sampled
from ._slide import LAYER_KINDS, Slide, TilingLayer

__all__ = ["MOST_TILES", "pixel_at", "tile_of", "tiles_in"]

MOST_TILES = 20_000
"""Most tiles of one answer."""
_PLACING = {"tissue_id", "tile_id", "row", "col"}
# Channels of a prediction that are told of a pixel.
_MOST_CHANNELS = 8


def pixel_at(slide: Slide, x: int, y: int) -> dict[str, Any]:
    """Return what lies at a level-0 pixel.

    Parameters
    ----------
    slide
        The picture.
    x, y
        Column and row.

    Returns
    -------
    `values` a channel, None for those that were not measured; `um`, the pixel's centre; `labels`
    by the name of the mask, kind of cells or prediction, those of a task by their names.

    Raises
    ------
    OutOfRangeError
        If it lies outside the picture.
    """
    here = slide.window_at(x, y)
    pixel = slide.image.read(0, here.y, here.x).ravel()
    lacking = [None] * (len(slide.channels) - pixel.size)
    place = slide.placed.to_um @ np.array([x + 0.5, y + 0.5, 1.0])
    labels: dict[str, Any] = {}
    for kind in LAYER_KINDS:
        for layer in slide.layers.get(kind, ()):
            # What is wrong with a layer is told where it is drawn, not at every pixel.
            try:
                placed = layer.open()
                count = 1 if kind != "predictions" else min(placed.image.nchannels, _MOST_CHANNELS)
                for channel in range(count):
                    value, known = sampled(placed, slide.placed.to_um, here, channel=channel)
                    if not known[0, 0]:
                        continue
                    names = placed.image.channel_names or ()
                    name = layer.name if len(names) < 2 else f"{layer.name} {names[channel]}"
                    if name in labels:
                        name = f"{name} ({kind})"
                    number = _number(value[0, 0])
                    labels[name] = layer.names.get(int(number), number) if number else number
            except MicrotomeError:
                continue
    return {
        "values": [*map(_number, pixel), *lacking],
        "um": place[:2].tolist(),
        "labels": labels,
    }


def tiles_in(slide: Slide, tiling: TilingLayer, box: Sequence[float], limit: int) -> dict[str, Any]:
    """Return the tiles that touch a box.

    Parameters
    ----------
    slide
        The picture that they lie over.
    tiling
        Which tiles.
    box
        Half-open (x0, y0, x1, y1) in level-0 pixels of the picture.
    limit
        Most that are returned, at most `MOST_TILES`; the first of the table, which are the most
        worth in most tilings.

    Returns
    -------
    `tiles`, each row, column, height and width in level-0 pixels of the picture (the box around it
    where pictures are turned to each other), id, and what `columns` names; `total`, how many there
    are; `truncated`.

    Raises
    ------
    InvalidInputError
        If the box is none, or the limit is not in range.
    """
    x0, y0, x1, y1 = box
    if not (all(map(math.isfinite, box)) and x0 < x1 and y0 < y1):
        msg = f"a box is x0 < x1 and y0 < y1, got x {x0} to {x1} and y {y0} to {y1}"
        raise InvalidInputError(msg)
    if not 1 <= limit <= MOST_TILES:
        msg = f"limit must be 1 to {MOST_TILES}, got {limit}"
        raise InvalidInputError(msg)
    table = tiling.table.for_tissue(tiling.tissue_id)
    left, top, width, height = _boxes(slide, tiling, table)
    touched = (left < x1) & (left + width > x0) & (top < y1) & (top + height > y0)
    found = np.flatnonzero(touched)
    picked = found[:limit]
    return {
        **_told(slide, tiling, table, picked),
        "total": int(found.size),
        "truncated": bool(found.size > picked.size),
    }


def tile_of(slide: Slide, tiling: TilingLayer, tile_id: int) -> dict[str, Any]:
    """Return a tile by its number.

    Parameters
    ----------
    slide
        The picture that it lies over.
    tiling
        Which tiles.
    tile_id
        Its number in the table.

    Returns
    -------
    `tile` and `columns`, as `tiles_in` has them.

    Raises
    ------
    UnknownNameError
        If the tissue has no such tile.
    """
    table = tiling.table.for_tissue(tiling.tissue_id)
    found = np.flatnonzero(table.rows().tile_id == tile_id)
    if not found.size:
        msg = f"tissue {tiling.tissue_id!r} has no tile {tile_id} in {tiling.name!r}"
        raise UnknownNameError(msg)
    told = _told(slide, tiling, table, found[:1])
    return {"tile": told["tiles"][0], "columns": told["columns"]}


def _boxes(
    slide: Slide, tiling: TilingLayer, table: TileTable
) -> tuple[NDArray[np.float64], NDArray[np.float64], float, float]:
    """Return left, top, and the size of all boxes, in level-0 pixels of the picture."""
    rows = table.rows()
    height, width = table.tile_size
    onto = np.linalg.inv(slide.placed.to_um) @ tiling.to_um
    linear, shift = onto[:2, :2], onto[:2, 2]
    # The corner of the box around a tile, and the box's size, are the same for all of a size.
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float64) @ linear.T
    low, size = corners.min(0), np.ptp(corners, axis=0)
    left = linear[0, 0] * rows.col + linear[0, 1] * rows.row + shift[0] + low[0]
    top = linear[1, 0] * rows.col + linear[1, 1] * rows.row + shift[1] + low[1]
    return left, top, float(size[0]), float(size[1])


def _told(
    slide: Slide, tiling: TilingLayer, table: TileTable, picked: NDArray[np.intp]
) -> dict[str, Any]:
    left, top, width, height = _boxes(slide, tiling, table)
    columns = [name for name in table.table.column_names if name not in _PLACING]
    stats = [table.table[name].take(picked).to_pylist() for name in columns]
    placed = np.stack(
        [top[picked], left[picked], np.full(picked.size, height), np.full(picked.size, width)],
        axis=1,
    )
    numbers = table.rows().tile_id[picked]
    return {
        "tiles": [
            [*box, int(tile_id), *map(plain, cells)]
            for box, tile_id, *cells in zip(_whole(placed), numbers, *stats, strict=True)
        ],
        "columns": columns,
    }


def _whole(numbers: NDArray[np.float64]) -> list[list[float]]:
    """Take the rounding off numbers that are whole but for it."""
    near = np.rint(numbers)
    return np.where(np.abs(numbers - near) < 1e-6, near, numbers).tolist()


def _number(value: Any) -> float | int | None:
    plain = value.item()
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain
