"""Pictures as bytes that a browser reads."""

from __future__ import annotations

import imagecodecs
import numpy as np
from numpy.typing import NDArray

__all__ = ["Encoded", "jpeg", "png"]

Encoded = tuple[str, bytes]
"""Media type and bytes."""

# Speed before size: it goes to the same machine. Fine structure keeps its colour (4:4:4).
_PNG_LEVEL = 1
_JPEG_QUALITY = 90


def png(pixels: NDArray[np.uint8]) -> Encoded:
    """Encode (H, W, 3) or (H, W, 4) without loss."""
    data = imagecodecs.png_encode(np.ascontiguousarray(pixels), level=_PNG_LEVEL)
    return "image/png", bytes(data)


def jpeg(pixels: NDArray[np.uint8]) -> Encoded:
    """Encode (H, W, 3)."""
    data = imagecodecs.jpeg8_encode(
        np.ascontiguousarray(pixels), level=_JPEG_QUALITY, subsampling="444"
    )
    return "image/jpeg", bytes(data)
