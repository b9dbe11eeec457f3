"""Which tiles a round asks for: as dense as a training set has them, and few enough to be read often."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, sqrt

import numpy as np

from .harness import Items

__all__ = ["CELLS", "COVER", "at_random", "dense"]

COVER = 1.0
"""Tiles that show as many pixels as there are."""
CELLS = 2000 * 64**2 / 1024**2
"""Crops of 64 px around 2,000 cells in a square of 1024 px, as tissue has them."""


def dense(
    size: int, side: int, cover: float = COVER
) -> Callable[[np.random.Generator, int], Items]:
    """Return what draws tiles at random places of a square of an image, in random order.

    The square is as large as so many tiles cover: what an order of blocks gains is that neighbours
    share chunks, which a few tiles of a large image do not.

    Parameters
    ----------
    size
        Side of the image.
    side
        Side of a tile.
    cover
        Pixels of all tiles for each pixel of the square.
    """

    def draw(rng: np.random.Generator, count: int) -> Items:
        wide = min(size, max(side, ceil(side * sqrt(count / cover))))
        corner = rng.integers(0, (size - wide) // 1024 + 1, 2) * 1024
        return corner + rng.integers(0, wide - side + 1, (count, 2))

    return draw


def at_random(size: int, side: int) -> Callable[[np.random.Generator, int], Items]:
    """Return what draws tiles anywhere in an image."""
    return lambda rng, count: rng.integers(0, size - side + 1, (count, 2))
