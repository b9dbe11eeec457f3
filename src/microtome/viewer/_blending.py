"""Tiles of a picture: true colour, or channels that add up like lamps."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError, OutOfRangeError

from ._encoding import Encoded, jpeg, png
from ._slide import Slide
from ._zoom import TILE_SIZE, read_tile, window_of

__all__ = ["Lamp", "first_lamps", "parse_lamps", "picture_tile"]

_MOST_LAMPS = 32
_COLOUR = re.compile(r"[0-9a-fA-F]{6}")
_WHITE = 255


@dataclass(frozen=True, slots=True)
class Lamp:
    """A channel, and how it becomes light."""

    channel: int
    colour: tuple[int, int, int]
    low: float
    high: float
    gamma: float = 1.0
    """Light is the share of the way from `low` to `high`, to this power."""


def parse_lamps(text: str, channels: int) -> list[Lamp]:
    """Read ``0:ff0000:10:2000,2:00ff00:0:300:0.5``.

    Parameters
    ----------
    text
        Channel, colour, value of black, value of full light, and gamma where it is not 1.
    channels
        How many channels there are.

    Raises
    ------
    InvalidInputError
        If it is something else, or there are too many.
    OutOfRangeError
        If there is no such channel.
    """
    parts = [part for part in text.split(",") if part]
    if len(parts) > _MOST_LAMPS:
        msg = f"at most {_MOST_LAMPS} channels are shown at once, got {len(parts)}"
        raise InvalidInputError(msg)
    return [_lamp(part, channels) for part in parts]


def _lamp(text: str, channels: int) -> Lamp:
    fields = text.split(":")
    try:
        channel = int(fields[0])
        low, high = float(fields[2]), float(fields[3])
        gamma = float(fields[4]) if len(fields) == 5 else 1.0
        fine = len(fields) in {4, 5} and _COLOUR.fullmatch(fields[1]) is not None
    except (ValueError, IndexError):
        channel, low, high, gamma, fine = 0, 0.0, 0.0, 1.0, False
    if not (fine and all(map(math.isfinite, (low, high, gamma))) and gamma > 0):
        msg = f"a channel is given as number:rrggbb:low:high, and :gamma if wanted, got {text!r}"
        raise InvalidInputError(msg)
    if not 0 <= channel < channels:
        msg = f"there is no channel {channel}: the image has {channels}"
        raise OutOfRangeError(msg)
    red, green, blue = bytes.fromhex(fields[1])
    return Lamp(channel, (red, green, blue), low, high, gamma)


def first_lamps(slide: Slide) -> list[Lamp]:
    """Return what is shown of a picture where nothing is asked for."""
    return [
        Lamp(i, _rgb(c["color"]), c["low"], c["high"])
        for i, c in enumerate(slide.first_channels)
        if c["visible"]
    ]


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue


def picture_tile(
    slide: Slide,
    zoom: int,
    col: int,
    row: int,
    *,
    lamps: Sequence[Lamp] | None = None,
    ending: Literal["png", "jpeg"] = "png",
) -> Encoded:
    """Draw a tile of a picture.

    Parameters
    ----------
    slide
        The picture.
    zoom, col, row
        Which tile; see `_zoom`.
    lamps
        Channels that are shown, none for black; None for those of `first_lamps`. True colour has
        none.
    ending
        The format. Outside the image a PNG is transparent, a JPEG white.

    Raises
    ------
    OutOfRangeError
        If there is no such tile.
    """
    window = window_of(*slide.size, zoom, col, row)
    if slide.rgb:
        pixels = read_tile(slide.image, window)
        if pixels.dtype != np.uint8:
            pixels = np.floor(pixels + 0.5).astype(np.uint8)  # half up, as pyramids do
        light = np.moveaxis(pixels, 0, -1)
    else:
        chosen = first_lamps(slide) if lamps is None else list(lamps)
        wanted = sorted({lamp.channel for lamp in chosen})
        planes = read_tile(slide.image, window, wanted)
        light = _added(
            [planes[wanted.index(lamp.channel)] for lamp in chosen], chosen, window.shape
        )
    rows, columns = window.shape
    if ending == "jpeg":
        out = np.full((TILE_SIZE, TILE_SIZE, 3), _WHITE, np.uint8)
        out[:rows, :columns] = light
        return jpeg(out)
    out = np.zeros((TILE_SIZE, TILE_SIZE, 4), np.uint8)
    out[:rows, :columns, :3] = light
    out[:rows, :columns, 3] = 255
    return png(out)


def _added(
    planes: Sequence[NDArray[np.generic]], lamps: Sequence[Lamp], shape: tuple[int, int]
) -> NDArray[np.uint8]:
    total = np.zeros((*shape, 3), np.float32)
    for plane, lamp in zip(planes, lamps, strict=True):
        # Counts of 32 bits and more lose digits in float32; a contrast may be narrow.
        kind = np.float64 if plane.dtype.itemsize > 2 else np.float32
        # Low above high turns the channel about, as a slider pulled past the other does.
        span = (lamp.high - lamp.low) or 1e-9
        share = np.clip((plane.astype(kind) - lamp.low) / span, 0, 1)
        share = np.nan_to_num(share)
        light = (share if lamp.gamma == 1 else share**lamp.gamma).astype(np.float32)
        for i, part in enumerate(lamp.colour):
            if part:
                total[..., i] += light * np.float32(part)
    return np.rint(np.minimum(total, 255)).astype(np.uint8)
