"""What lies outside the image in a tile, set after standardization."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.errors import InvalidInputError

__all__ = ["fill_outside", "windowed_tiles"]


def fill_outside(pixels: NDArray[Any], valid: ArrayLike, fill: float) -> None:
    """Set every pixel outside the valid window, in place.

    Parameters
    ----------
    pixels
        (..., H, W); with a window for each tile, (B, ..., H, W).
    valid
        (row, col, height, width) of the part of the tile that the image reaches, or (B, 4) of them.
    fill
        Value for the rest.

    Raises
    ------
    InvalidInputError
        If there is not one window per tile, or one reaches out of the tile.
    """
    for tile, (row, col, height, width) in windowed_tiles(pixels, valid):
        bottom, right = row + height, col + width
        tile[..., :row, :] = fill
        tile[..., bottom:, :] = fill
        tile[..., row:bottom, :col] = fill
        tile[..., row:bottom, right:] = fill


def windowed_tiles(
    pixels: NDArray[Any], valid: ArrayLike
) -> Iterator[tuple[NDArray[Any], tuple[int, int, int, int]]]:
    """Yield every tile, (..., H, W), with its valid window.

    Parameters
    ----------
    pixels, valid
        As of `fill_outside`.

    Raises
    ------
    InvalidInputError
        If there is not one window per tile, or one reaches out of the tile.
    """
    windows = np.asarray(valid)
    if windows.ndim == 1:
        windows, tiles = windows[None], pixels[None]
    else:
        tiles = pixels
    if windows.shape != (len(tiles), 4) or windows.dtype.kind not in "iu":
        raise InvalidInputError(
            f"valid must be (row, col, height, width) of every tile, got shape {windows.shape} "
            f"of {windows.dtype} for pixels of shape {pixels.shape}"
        )
    for tile, window in zip(tiles, windows, strict=True):
        row, col, height, width = (int(number) for number in window)
        bottom, right = row + height, col + width
        if min(row, col, height, width) < 0 or bottom > tile.shape[-2] or right > tile.shape[-1]:
            raise InvalidInputError(
                f"valid window {row, col, height, width} reaches out of a tile of "
                f"{tile.shape[-2]}x{tile.shape[-1]}"
            )
        yield tile, (row, col, height, width)
