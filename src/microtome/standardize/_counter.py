"""Counting with NumPy: a count for every bin, of one channel at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._bins import DROPPED
from ._inside import PIECE
from ._value_counts import NOTHING, ValueCounts, fold

__all__ = ["PIECES", "Counter"]

_LOW = (1 << DROPPED) - 1
# A number of 64 bits has room for a sum of this many places beside a count of this many bits.
_COUNT = 32
PIECES = (1 << 63 - _COUNT) // (PIECE << DROPPED)
"""Pieces of `PIECE` pixels that are counted at most before they are taken."""


class Counter:
    """A count for every bin, of one channel at a time.

    Where a bin has several values, each also adds its place in the bin, `_COUNT` bits further left
    in the same number: most of the time goes into finding the bin.
    """

    def __init__(self, bins: int, *, places: bool) -> None:
        # The system gives these zeros when they are first touched.
        self._counts = np.zeros(bins, np.int64)
        self._places = places
        self._index = np.empty(PIECE, np.intp)
        self._steps = np.empty(PIECE if places else 0, np.int64)
        self._from, self._upto = bins, 0

    def add(self, bits: NDArray[np.unsignedinteger[Any]]) -> None:
        """Count at most PIECE pixels, and at most `PIECES` times before they are taken."""
        index = self._index[: bits.size]
        if not self._places:
            np.copyto(index, bits)
            np.add.at(self._counts, index, 1)
            self._from, self._upto = 0, self._counts.size
            return
        steps = self._steps[: bits.size]
        np.copyto(steps, bits)
        np.right_shift(steps, DROPPED, out=index)
        np.bitwise_and(steps, _LOW, out=steps)
        np.left_shift(steps, _COUNT, out=steps)
        np.bitwise_or(steps, 1, out=steps)
        np.add.at(self._counts, index, steps)
        # Less one, zero is the largest number: the bins between zero, which most pixels of most
        # markers are, and the smallest value need not be looked at.
        self._from = min(self._from, (int((bits - bits.dtype.type(1)).min()) + 1) >> DROPPED)
        self._upto = max(self._upto, (int(bits.max()) >> DROPPED) + 1)

    def taken(self) -> ValueCounts:
        """Return what was counted since the last time."""
        zero = self._taken(0, min(1, self._upto))
        start = max(1, self._from)
        rest = self._taken(start, max(start, self._upto))
        self._from, self._upto = self._counts.size, 0
        parts = [part for part in (zero, rest) if part.bins.size]
        fold(parts)
        return parts[0] if parts else NOTHING

    def _taken(self, start: int, stop: int) -> ValueCounts:
        part = self._counts[start:stop]
        found = np.flatnonzero(part)
        counts, places = part[found], None
        part[found] = 0
        if self._places:
            places, counts = counts >> _COUNT, counts & ((1 << _COUNT) - 1)
        return ValueCounts((found + start).astype(np.uint32), counts, places)
