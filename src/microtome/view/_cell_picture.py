"""A window of a slide in which cells are large enough to see their outlines."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from microtome.image import MultiscaleImage

from ._figures import plot_overview, scale_bar_length
from ._pictures import Picture, photograph_of
from ._thumbnails import Frame, Thumbnail, detail, sample

__all__ = ["ON_DARK", "ON_WHITE", "CellPicture", "cell_picture", "crowded_window"]

# Pixels of the window, and of the picture that is made of it.
_WINDOW = 400
_SIZE = 1000
# On this many pixels it is looked for where cells are.
_GLIMPSE = 256
# Pixels of an outline in the picture.
_LINE = 2
ON_WHITE, ON_DARK = "#00a2ff", "#ffffff"


@dataclass(frozen=True, slots=True)
class CellPicture:
    """Cells in a part of a slide."""

    picture: Picture
    scale_bar: float
    """Its length in micrometres."""
    cells: int
    """In the window, those cut by its edge as well."""
    width: float
    """Of the window, in micrometres."""
    height: float
    whole: bool
    """Whether it is all of the slide."""
    colour: str
    """Of the outlines."""


def cell_picture(
    image: MultiscaleImage, slide: Thumbnail, mask: MultiscaleImage, what: str
) -> CellPicture | None:
    """Draw the outlines of cells where these are densest; None where the mask has none.

    Parameters
    ----------
    image, slide
        The image that they lie on, and its picture, whose colours and contrast are kept.
    mask
        Labels, placed by their own pixel size and translation.
    what
        What the picture is of, for those who do not see it.
    """
    window = crowded_window(mask, slide.base)
    if window is None:
        return None
    # In 64 bits, which tell all labels of 32 apart.
    labels = np.nan_to_num(sample(mask, window, dtype=np.float64)).astype(np.int64)
    zoom = max(1, _SIZE // max(window.height, window.width))
    pixels = detail(image, slide, window).repeat(zoom, 0).repeat(zoom, 1)
    colour = ON_DARK if slide.channels else ON_WHITE
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    pixels[_edges(labels.repeat(zoom, 0).repeat(zoom, 1))] = rgb
    fine = replace(
        window,
        height=window.height * zoom,
        width=window.width * zoom,
        step_y=window.step_y / zoom,
        step_x=window.step_x / zoom,
    )
    shown = Thumbnail(pixels, fine, slide.channels, slide.channel_count, slide.base)
    cells = int(np.count_nonzero(np.unique(labels)))
    base = slide.base
    alt = f"Outlines of {cells} cells on {what}."
    return CellPicture(
        photograph_of(plot_overview(shown, legend=False, size=_SIZE), alt),
        scale_bar_length(fine),
        cells,
        window.width * window.step_x,
        window.height * window.step_y,
        (window.height, window.width) == (base.height, base.width),
        colour,
    )


def crowded_window(mask: MultiscaleImage, base: Frame) -> Frame | None:
    """Return the window of a slide with the most pixels of cells; None where there are none.

    Parameters
    ----------
    mask
        The labels.
    base
        Pixel grid of the slide's finest level; the window is a part of it.
    """
    ratio = max(1.0, base.height / _GLIMPSE, base.width / _GLIMPSE)
    height, width = max(1, round(base.height / ratio)), max(1, round(base.width / ratio))
    coarse = replace(
        base,
        height=height,
        width=width,
        step_y=base.step_y * base.height / height,
        step_x=base.step_x * base.width / width,
    )
    # Not means of labels, which are no labels: the one at a pixel's centre.
    there = np.nan_to_num(sample(mask, coarse)) > 0
    if not there.any():
        return None
    rows, columns = min(_WINDOW, base.height), min(_WINDOW, base.width)
    top, left = _densest(
        there,
        max(1, round(rows * height / base.height)),
        max(1, round(columns * width / base.width)),
    )
    row = min(round(top * base.height / height), base.height - rows)
    column = min(round(left * base.width / width), base.width - columns)
    return replace(
        base,
        height=rows,
        width=columns,
        top=base.top + row * base.step_y,
        left=base.left + column * base.step_x,
    )


def _densest(there: NDArray[np.bool_], rows: int, columns: int) -> tuple[int, int]:
    """Return the upper left corner of the box of so many pixels that holds the most."""
    summed = np.pad(there.cumsum(0, dtype=np.int64).cumsum(1), ((1, 0), (1, 0)))
    inside = (
        summed[rows:, columns:]
        - summed[:-rows, columns:]
        - summed[rows:, :-columns]
        + summed[:-rows, :-columns]
    )
    top, left = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(top), int(left)


def _edges(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return the pixels of cells that lie within two pixels of another label."""
    rimmed = np.pad(labels, _LINE, mode="edge")
    height, width = labels.shape
    found = np.zeros(labels.shape, np.bool_)
    for step in range(-_LINE, _LINE + 1):
        for y, x in ((step, 0), (0, step)):
            moved = rimmed[_LINE + y : _LINE + y + height, _LINE + x : _LINE + x + width]
            found |= moved != labels
    return found & (labels > 0)
