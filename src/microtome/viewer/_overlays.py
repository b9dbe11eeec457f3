"""Tiles of what lies over a picture: each pixel is what lies at its micrometre."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError, OutOfRangeError, UnknownNameError
from microtome.image import MultiscaleImage

from ._colours import COLOUR_MAPS, MASK_COLOUR, colour_of_labels, coloured
from ._encoding import Encoded, png
from ._plane import Plane, level_to_base, scaling
from ._slide import Placed, Slide
from ._zoom import TILE_SIZE, Window, window_of

__all__ = ["overlay_tile", "sampled"]

# Pixels of an overlay that a tile is taken from at most.
_MOST_PIXELS = 1 << 26
# Pixel sizes are rounded decimals: a centre within this part of a pixel before an edge lies on it.
_ON_EDGE = 1e-6
_STYLES = ("outline", "fill")
_ENDS = ("painted", "clear")
# Pixels of the frame around the one cell that was selected: two of white, one of black.
_FRAME = 3
_DIGITS = 10  # of a label of 32 bits


def overlay_tile(
    slide: Slide,
    kind: str,
    layer_id: str,
    place: tuple[int, int, int],
    options: Mapping[str, str],
) -> Encoded:
    """Draw a tile of a layer as a PNG, transparent where it has nothing.

    Parameters
    ----------
    slide
        The picture that the tile lies over; the tile is one of its own.
    kind, layer_id
        Which layer.
    place
        Zoom, column and row.
    options
        Of cells: `style`, ``"outline"`` or ``"fill"``, or `cell`, the only one that is drawn, with
        a frame. Of predicted values: `channel` by name or number, `low` and `high`, `map`, and `ends`,
        ``"painted"`` or ``"clear"``: whether low values hide the slide.

    Raises
    ------
    UnknownNameError, OutOfRangeError
        If there is no such layer, tile, channel or map.
    InvalidInputError
        If an option is none.
    """
    window = window_of(*slide.size, *place)
    placed = slide.layer(kind, layer_id).open()
    out = np.zeros((TILE_SIZE, TILE_SIZE, 4), np.uint8)
    rows, columns = window.shape
    if kind == "masks":
        values, known = sampled(placed, slide.placed.to_um, window)
        out[:rows, :columns][known & (values != 0)] = (*MASK_COLOUR, 255)
    elif kind == "cells":
        out[:rows, :columns] = _cells(placed, slide, window, options)
    elif placed.image.kind == "labels":
        values, known = sampled(placed, slide.placed.to_um, window)
        out[:rows, :columns] = colour_of_labels(np.where(known, values, 0))
    else:
        out[:rows, :columns] = _dense(placed, slide, window, options)
    return png(out)


def _cells(
    placed: Placed, slide: Slide, window: Window, options: Mapping[str, str]
) -> NDArray[np.uint8]:
    if "cell" in options:
        return _framed(placed, slide, window, options["cell"])
    style = options.get("style", "outline")
    if style not in _STYLES:
        msg = f"cells are drawn as {' or '.join(_STYLES)}, not as {style!r}"
        raise InvalidInputError(msg)
    # A pixel more on each side: whether a cell ends there is seen from its neighbour.
    values, known = sampled(placed, slide.placed.to_um, window, margin=1)
    labels = np.where(known, values, 0)
    inner = labels[1:-1, 1:-1]
    if style == "fill":
        return colour_of_labels(inner)
    edge = np.zeros(inner.shape, np.bool_)
    for there in (labels[:-2, 1:-1], labels[2:, 1:-1], labels[1:-1, :-2], labels[1:-1, 2:]):
        edge |= there != inner
    return colour_of_labels(np.where(edge, inner, 0))


def _framed(placed: Placed, slide: Slide, window: Window, cell: str) -> NDArray[np.uint8]:
    """Draw a frame around a cell, white in black: seen on any ground, whatever its colours."""
    if not (cell.isascii() and cell.isdecimal() and len(cell) <= _DIGITS):
        msg = f"a cell is a whole number from 0, got {cell[:40]!r}"
        raise InvalidInputError(msg)
    values, known = sampled(placed, slide.placed.to_um, window, margin=_FRAME)
    inside = known & (values == int(cell))
    out = np.zeros((*window.shape, 4), np.uint8)
    if not inside.any():
        return out
    rings = [inside]
    for _ in range(_FRAME):
        rings.append(_grown(rings[-1]))
    own = (slice(_FRAME, -_FRAME),) * 2
    out[(rings[3] & ~rings[0])[own]] = (0, 0, 0, 255)
    out[(rings[2] & ~rings[0])[own]] = (255, 255, 255, 255)
    return out


def _grown(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    out = inside.copy()
    out[1:] |= inside[:-1]
    out[:-1] |= inside[1:]
    out[:, 1:] |= inside[:, :-1]
    out[:, :-1] |= inside[:, 1:]
    return out


def _dense(
    placed: Placed, slide: Slide, window: Window, options: Mapping[str, str]
) -> NDArray[np.uint8]:
    channel = _channel(placed.image, options.get("channel"))
    low, high = _number(options, "low"), _number(options, "high")
    # Worked out only where it is needed: that reads pixels.
    if low is None:
        # As in the report: 0 is nothing, unless there is less.
        low = min(0.0, placed.contrast_of(channel).low)
    if high is None:
        high = placed.contrast_of(channel).high
    if not low < high:
        high = low + 1e-9 * max(1.0, abs(low))
    values, known = sampled(placed, slide.placed.to_um, window, channel=channel)
    shown = np.where(known, values.astype(np.float64), np.nan)
    ends = options.get("ends", _ENDS[0])
    if ends not in _ENDS:
        msg = f"the low end of colours is {' or '.join(_ENDS)}, not {ends!r}"
        raise InvalidInputError(msg)
    return coloured(shown, low, high, options.get("map", COLOUR_MAPS[0]), clear=ends == "clear")


def _channel(image: MultiscaleImage, wanted: str | None) -> int:
    names = image.channel_names or ()
    if wanted is None:
        return 0
    if wanted in names:
        return names.index(wanted)
    if wanted.isdecimal() and len(wanted) < 6:
        if int(wanted) < image.nchannels:
            return int(wanted)
        msg = f"there is no channel {wanted}: the prediction has {image.nchannels}"
        raise OutOfRangeError(msg)
    msg = f"there is no channel {wanted!r}, only {', '.join(names) or 'one without a name'}"
    raise UnknownNameError(msg)


def _number(options: Mapping[str, str], name: str) -> float | None:
    text = options.get(name)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        msg = f"{name} must be a finite number, got {text!r}"
        raise InvalidInputError(msg)
    return value


def sampled(
    placed: Placed, to_um: Plane, window: Window, *, channel: int = 0, margin: int = 0
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return what lies at the centres of a tile's pixels.

    Parameters
    ----------
    placed
        The overlay, of any pixel size, shifted or turned.
    to_um
        From level-0 pixels of the picture to micrometres.
    window
        The tile of the picture.
    channel
        Of the overlay.
    margin
        Pixels that are added on each side.

    Returns
    -------
    Values and whether there are any, (rows, columns) each.

    Raises
    ------
    InvalidInputError
        If the overlay has no level near the zoom, and too much of it were read.
    """
    image = placed.image
    onto = np.linalg.inv(placed.to_um) @ to_um @ scaling(window.step, window.step)
    index = _level(image, math.sqrt(abs(np.linalg.det(onto[:2, :2]))))
    onto = np.linalg.inv(level_to_base(image, index)) @ onto
    level = image.level(index)
    x = np.arange(window.x[0] - margin, window.x[1] + margin) + 0.5
    y = np.arange(window.y[0] - margin, window.y[1] + margin) + 0.5
    grid_x, grid_y = np.meshgrid(x, y)
    at_x = np.floor(onto[0, 0] * grid_x + onto[0, 1] * grid_y + onto[0, 2] + _ON_EDGE)
    at_y = np.floor(onto[1, 0] * grid_x + onto[1, 1] * grid_y + onto[1, 2] + _ON_EDGE)
    known = (at_x >= 0) & (at_x < level.width) & (at_y >= 0) & (at_y < level.height)
    values = np.zeros(known.shape, level.dtype)
    if not known.any():
        return values, known
    columns, rows = at_x[known].astype(np.intp), at_y[known].astype(np.intp)
    y0, y1, x0, x1 = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    if (y1 - y0) * (x1 - x0) > _MOST_PIXELS:
        msg = (
            f"{image.uri} has no level near zoom {window.zoom}: {(y1 - y0) * (x1 - x0):.2g} of "
            "its pixels would be read for a tile; give it coarser levels with build_levels()"
        )
        raise InvalidInputError(msg)
    pixels = image.read(index, (int(y0), int(y1)), (int(x0), int(x1)), channels=[channel])
    values[known] = pixels.reshape(pixels.shape[-2:])[rows - y0, columns - x0]
    return values, known


def _level(image: MultiscaleImage, step: float) -> int:
    """Return the coarsest level whose pixels are no larger than `step` pixels of level 0."""
    base, best = image.level(0), 0
    for index in range(1, image.level_count):
        level = image.level(index)
        if max(level.scale[-2] / base.scale[-2], level.scale[-1] / base.scale[-1]) <= step + 1e-6:
            best = index
    return best
