"""The eight turns and mirror images of a window, as views, in place, and as where its pixels go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError

__all__ = ["checked_turns", "turn_in_place", "turned", "turned_places"]

# Turn `k` is the window transposed, then upside down, then mirrored: whether each is so, of the eight.
_TRANSPOSED = np.array([0, 1, 0, 1, 0, 1, 0, 1], np.bool_)
_UPSIDE_DOWN = np.array([0, 1, 1, 0, 0, 0, 1, 1], np.bool_)
_MIRRORED = np.array([0, 0, 1, 1, 1, 0, 0, 1], np.bool_)


def turned(pixels: NDArray[Any], turn: int) -> NDArray[Any]:
    """Return a view of pixels, turned in their last two axes.

    Turn `k` is ``k % 4`` quarter turns counter-clockwise (`numpy.rot90`) of the pixels, whose last
    axis is mirrored first where ``k >= 4``; 0 leaves them as they are.

    Parameters
    ----------
    pixels
        (..., Y, X).
    turn
        From 0 to 7.
    """
    if not turn:
        return pixels
    flipped = pixels[..., ::-1] if turn >= 4 else pixels
    return np.rot90(flipped, turn % 4, axes=(-2, -1))


def turn_in_place(pixels: NDArray[Any], turn: int) -> None:
    """Turn pixels where they are; those that are not square by halves only.

    Parameters
    ----------
    pixels
        (C, ..., Y, X).
    turn
        From 0 to 7, see `turned`.
    """
    if not turn:
        return
    # Channel by channel: what is set aside of one stays in the processor's cache.
    for each in pixels:
        each[...] = turned(each, turn).copy()


def checked_turns(turns: Any, count: int, size: Sequence[int]) -> NDArray[np.int64] | None:
    """Return the turn of each window, (n,); None where all stay as they are.

    Raises
    ------
    InvalidInputError
        If there are more or fewer than windows, or one is not from 0 to 7, or is a quarter turn of
        a window that is not square.
    """
    found = np.asarray(turns)
    if found.shape != (count,) or (count and found.dtype.kind not in "iu"):
        msg = f"one whole number a window says how it is turned, got {found.dtype} {found.shape}"
        raise InvalidInputError(msg)
    wrong = found[(found < 0) | (found > 7)]
    if wrong.size:
        msg = f"turns are from 0 to 7, got {wrong[0]}"
        raise InvalidInputError(msg)
    if size[-2] != size[-1] and (found % 2).any():
        msg = f"a window of {size[-2]} x {size[-1]} cannot be turned by a quarter, got {found.tolist()}"
        raise InvalidInputError(msg)
    return found.astype(np.int64) if found.any() else None


def turned_places(
    turns: NDArray[np.int64], size: Sequence[int], strides: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where the first pixel of each window goes, and how far apart the next are, in bytes.

    Parameters
    ----------
    turns
        (n,) of each window.
    size, strides
        Pixels and bytes of a window in the buffer along Y and X.

    Returns
    -------
    (n,) from the beginning of the window, and (n, 2) from a pixel to the next along Y and X of the
    image.
    """
    across, up, mirror = _TRANSPOSED[turns], _UPSIDE_DOWN[turns], _MIRRORED[turns]
    (height, width), (row, column) = size, strides
    first = up * (height - 1) * row + mirror * (width - 1) * column
    down = np.where(up, -row, row)
    right = np.where(mirror, -column, column)
    # Of a window that is transposed, columns of the image are rows of the buffer.
    pitch = np.column_stack([np.where(across, right, down), np.where(across, down, right)])
    return first.astype(np.int64), pitch.astype(np.int64)
