"""Luma and colour differences in JPEG 2000, as the older of Aperio's two compressions stores them.

The codestream does not say so (only the TIFF's compression 33003 does), and a decoder returns what
it finds. Where the colour differences are coarser than the luma it knows what they must be, and has
made colours of them already; where the codestream was told to turn colours itself, so has it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["APERIO_YCC", "holds_ycc", "rgb_of_ycc"]

APERIO_YCC = 33003
"""TIFF's number for JPEG 2000 of luma and colour differences."""

# Markers of a codestream (ISO/IEC 15444-1, A.4 to A.6): sizes, default coding, start of a tile.
_SIZES, _CODING, _TILE = 0xFF51, 0xFF52, 0xFF90

_BITS = 16
_HALF = 1 << (_BITS - 1)
_RED, _BLUE = round(1.402 * (1 << _BITS)), round(1.772 * (1 << _BITS))


def holds_ycc(data: bytes) -> bool:
    """Whether a codestream of three components decodes to luma and differences, all of one size."""
    at, sizes, turned = 2, b"", True
    while at + 4 <= len(data):
        marker, length = (int.from_bytes(data[i : i + 2], "big") for i in (at, at + 2))
        if marker == _TILE:
            break
        body = data[at + 4 : at + 2 + length]
        if marker == _SIZES:
            sizes = body[36:]
        elif marker == _CODING and len(body) > 4:
            turned = body[4] != 0
        at += 2 + max(length, 2)
    # Of each component: its depth, and how many pixels a sample of it covers across and down.
    coarse = any(step != 1 for i in range(0, len(sizes), 3) for step in sizes[i + 1 : i + 3])
    return len(sizes) == 9 and not turned and not coarse


def rgb_of_ycc(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the colours of (rows, columns, 3) luma, blue and red difference, all of 8 bits."""
    luma, blue, red = (pixels[..., i].astype(np.int32) for i in range(3))
    blue, red = blue - 128, red - 128
    # JFIF's factors. Red and blue in 16 bits behind the point, as libjpeg has them; of what is
    # exactly between two values that decides, and OpenSlide does the same.
    green = np.floor(-0.34414 * blue - 0.71414 * red + 0.5).astype(np.int32)
    out = np.empty(pixels.shape, np.uint8)
    added = ((_RED * red + _HALF) >> _BITS, green, (_BLUE * blue + _HALF) >> _BITS)
    for place, more in enumerate(added):
        out[..., place] = np.clip(luma + more, 0, 255)
    return out
