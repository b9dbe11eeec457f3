"""Places of tiles that decode few chunks of the image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["aligned_starts", "chunks_touched"]


def aligned_starts(length: int, size: int, chunk: int, *, apart: bool) -> NDArray[np.int64]:
    """Return where tiles may begin along an axis.

    Tiles of a chunk or more begin where a chunk does. Smaller ones each lie inside one chunk: edge
    to edge from its beginning, the last one moved back to its end.

    Parameters
    ----------
    length, size, chunk
        Of the image, a tile and a chunk, in pixels.
    apart
        Whether tiles shall overlap as little as can be; otherwise every beginning of a chunk is a
        place.
    """
    if size >= chunk:
        step = chunk * (size // chunk) if apart else chunk
        starts = np.arange(0, length, step, dtype=np.int64)
        # The first that reaches the far edge is enough.
        return starts[: 1 + int(np.searchsorted(starts + size, length))]
    offsets = np.union1d(np.arange(0, chunk - size + 1, size), [chunk - size])
    starts = (np.arange(0, length, chunk)[:, None] + offsets).ravel().astype(np.int64)
    return starts[starts < length]


def chunks_touched(
    rows: NDArray[np.int64],
    cols: NDArray[np.int64],
    size: tuple[int, int],
    shape: tuple[int, int],
    chunk: tuple[int, int],
) -> int:
    """Return how many chunks are decoded when every tile is read once, by itself.

    Parameters
    ----------
    rows, cols
        (n,) top-left pixels.
    size, shape, chunk
        (height, width) of a tile, the image and a chunk.
    """
    numbers = np.ones(rows.size, np.int64)
    for start, side, length, step in zip((rows, cols), size, shape, chunk, strict=True):
        low, high = np.clip(start, 0, length), np.clip(start + side, 0, length)
        numbers *= np.where(high > low, -(-high // step) - low // step, 0)
    return int(numbers.sum())
