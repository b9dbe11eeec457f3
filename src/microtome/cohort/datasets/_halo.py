"""Windows with the pixels around them that filters look at, and what of them lies in an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from microtome.image import MultiscaleImage
from microtome.regions import Windows, valid_windows

__all__ = ["grown_windows", "shows_nothing", "valid_parts"]


def grown_windows(windows: Windows, halo: int) -> Windows:
    """Return windows that reach `halo` pixels further on every side."""
    if not halo:
        return windows
    size = tuple(side + 2 * halo for side in windows.size)
    return Windows(windows.image, windows.start - halo, size, windows.level)


def valid_parts(images: Sequence[MultiscaleImage], windows: Windows) -> NDArray[np.int64]:
    """Return (row, col, height, width) of the part of each window inside its image, (n, 4)."""
    inside = valid_windows(images, windows)
    return np.concatenate([inside[..., 0], inside[..., 1] - inside[..., 0]], axis=1)


def shows_nothing(windows: Windows, valid: NDArray[np.int64], halo: int) -> NDArray[np.bool_]:
    """Return which windows have no pixel of their image, (n,), by what is valid of them with a halo."""
    low = np.maximum(valid[:, :2], halo)
    high = np.minimum(valid[:, :2] + valid[:, 2:], np.asarray(windows.size) + halo)
    return np.asarray((high <= low).any(axis=1), np.bool_)
