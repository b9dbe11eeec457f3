"""Which pictures are a PNG, and the bytes of one."""

from __future__ import annotations

from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from microtome.image import MultiscaleImage

__all__ = ["PNG_PICTURES", "is_png_picture", "png_bytes"]

PNG_PICTURES = "one or three channels of bytes, or one of uint16"
"""What has a PNG, in words."""
_FORMS = frozenset({(1, "uint8"), (3, "uint8"), (1, "uint16")})


def is_png_picture(image: MultiscaleImage, level: int = 0) -> bool:
    """Whether windows of a level, with all its channels, are pictures that a PNG can hold."""
    return (image.nchannels, image.level(level).dtype.name) in _FORMS


def png_bytes(pixels: NDArray[Any]) -> bytes:
    """Return (C, Y, X) pixels as a PNG, without loss."""
    page = pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1)
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(page)))
