"""The pixels of a row that lie inside a mask, in pieces that fit a processor's own cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError

__all__ = ["PIECE", "Inside", "runs_inside", "verify_mask"]

# Bytes moved at once: the most that NumPy's `take` has a loop of its own for.
_GROUP = 32
# Pixels in a group at most: booleans of that many are looked at as one number.
_MOST = 8
PIECE = 1 << 15
"""Pixels in a piece at most: what passes between the steps of counting them stays in the cache."""


@dataclass(frozen=True, slots=True, eq=False)
class Inside:
    """Which pixels of a row are taken.

    Masks of tissue are large areas, so that nearly all pixels inside one lie in a group of
    neighbours that are all inside. Groups are taken as one item each, which is several times
    faster than pixel by pixel.
    """

    pixels: int
    """Length of a row."""
    each: int
    """Pixels in a group."""
    groups: NDArray[np.intp] | None
    """Groups that are inside as a whole; None for all pixels of the row."""
    others: NDArray[np.intp]
    """Pixels inside that are in no such group."""

    @classmethod
    def of(cls, mask: NDArray[np.bool_] | None, pixels: int, itemsize: int) -> Inside:
        """Work out what a mask takes.

        Parameters
        ----------
        mask
            (N,) True inside; None takes all.
        pixels
            N, for the message and where there is no mask.
        itemsize
            Bytes of a pixel.

        Raises
        ------
        InvalidInputError
            If the mask is not N booleans.
        """
        none = np.zeros(0, np.intp)
        if mask is None:
            return cls(pixels, 1, None, none)
        verify_mask(mask, pixels)
        if mask.all():
            return cls(pixels, 1, None, none)
        each = min(_MOST, _GROUP // itemsize)
        # Booleans are bytes of 0 or 1, of which a group is one number.
        others = mask.copy()
        words = others[: pixels // each * each].view(f"u{each}")
        whole = words == np.frombuffer(b"\1" * each, words.dtype)
        words[whole] = 0
        return cls(pixels, each, np.flatnonzero(whole), np.flatnonzero(others))

    def pieces(self, row: NDArray[Any], dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
        """Yield the pixels of a row that are inside, contiguous and of a type that holds them."""
        if self.groups is None:
            for start in range(0, self.pixels, PIECE):
                yield np.ascontiguousarray(row[start : start + PIECE], dtype)
            return
        row = np.ascontiguousarray(row)
        items = row[: row.size // self.each * self.each].view(f"V{self.each * row.itemsize}")
        step = max(1, PIECE // self.each)
        for start in range(0, self.groups.size, step):
            piece = items.take(self.groups[start : start + step]).view(row.dtype)
            yield piece.astype(dtype, copy=False)
        for start in range(0, self.others.size, PIECE):
            yield row.take(self.others[start : start + PIECE]).astype(dtype, copy=False)


def verify_mask(mask: NDArray[np.bool_], pixels: int) -> None:
    """Raise an `InvalidInputError` if a mask is not as many booleans as there are pixels."""
    if mask.shape != (pixels,) or mask.dtype != np.bool_:
        raise InvalidInputError(
            f"a mask of {pixels} pixels must be as many booleans, got {mask.dtype} of shape "
            f"{mask.shape}"
        )


def runs_inside(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the runs of pixels inside a mask: (runs, 2), the first of each and one past its last."""
    edges = np.flatnonzero(mask[1:] != mask[:-1]) + 1
    first = [0] if mask.size and mask[0] else []
    last = [mask.size] if mask.size and mask[-1] else []
    return np.concatenate([first, edges, last]).astype(np.int64).reshape(-1, 2)
