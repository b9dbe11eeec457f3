"""Counting with compiled loops, in tables that stay in the processor's cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ._bins import DROPPED, Bins
from ._compiled import CompiledCounting
from ._value_counts import NOTHING, ValueCounts

__all__ = ["Tallies", "tallies_for"]

# A number of 64 bits has room for a sum of places beside a count of this many bits.
_COUNT = 32
_MOST = 1 << 63 - _COUNT - DROPPED
# Bins of which is noted together that one was counted in: 4 KiB, a page of memory.
_PAGE = 9

_ALL = np.zeros(0, np.bool_)


class Tallies(Protocol):
    """The counts of all channels, of any number of blocks."""

    def add(
        self,
        loops: CompiledCounting,
        channel: int,
        pixels: NDArray[Any],
        mask: NDArray[np.bool_] | None,
    ) -> Iterator[ValueCounts]:
        """Count what a mask has of contiguous pixels of the bins' type; without one all of them.

        Yields what will not be kept here.
        """
        ...

    def special(self, channel: int) -> bool:
        """Whether NaN or infinities are kept of a channel."""
        ...

    def take(self) -> list[ValueCounts]:
        """Return what is kept of each channel, and begin anew."""
        ...


def tallies_for(bins: Bins, channels: int) -> Tallies:
    """Return what counts pixels of a type."""
    return _Exact(bins, channels) if bins.exact else _Placed(bins)


class _Exact:
    """A bin a value, of which there are few: a table for each channel, gone through at the end."""

    def __init__(self, bins: Bins, channels: int) -> None:
        self._bins = bins
        self._counts = np.zeros((channels, bins.count), np.int64)
        self._any = np.zeros(channels, np.bool_)

    def add(
        self,
        loops: CompiledCounting,
        channel: int,
        pixels: NDArray[Any],
        mask: NDArray[np.bool_] | None,
    ) -> Iterator[ValueCounts]:
        self._any[channel] = True
        loops.exact(self._bins.bits(pixels), _ALL if mask is None else mask, self._counts[channel])
        return iter(())

    def special(self, channel: int) -> bool:
        return any(bool(self._counts[channel, part].any()) for part in self._bins.special_bins)

    def take(self) -> list[ValueCounts]:
        return [self._taken(channel) for channel in range(len(self._any))]

    def _taken(self, channel: int) -> ValueCounts:
        if not self._any[channel]:
            return NOTHING
        self._any[channel] = False
        counts = self._counts[channel]
        found = np.flatnonzero(counts)
        part = ValueCounts(found.astype(np.uint32), counts[found])
        counts[found] = 0
        return part


class _Placed:
    """Many bins of several values each: one table for all channels in turn.

    What values there are lies in few of its pages; a table a channel would not fit the cache.
    """

    def __init__(self, bins: Bins) -> None:
        self._bins = bins
        self._counts = np.zeros(bins.count, np.int64)
        self._touched = np.zeros(bins.count >> _PAGE, np.bool_)

    def add(
        self,
        loops: CompiledCounting,
        channel: int,  # noqa: ARG002 - nothing is kept
        pixels: NDArray[Any],
        mask: NDArray[np.bool_] | None,
    ) -> Iterator[ValueCounts]:
        bits, inside = self._bins.bits(pixels), _ALL
        for start in range(0, bits.size, _MOST):
            part = bits[start : start + _MOST]
            if mask is not None:
                inside = mask[start : start + _MOST]
            loops.placed(part, inside, self._counts, self._touched, DROPPED, _COUNT, _PAGE)
            yield self._taken(loops)

    def special(self, channel: int) -> bool:  # noqa: ARG002 - nothing is kept
        return False

    def take(self) -> list[ValueCounts]:
        return []

    def _taken(self, loops: CompiledCounting) -> ValueCounts:
        most = np.count_nonzero(self._touched) << _PAGE
        bins, found = np.empty(most, np.uint32), np.empty(most, np.int64)
        size = loops.collected(self._counts, self._touched, _PAGE, bins, found)
        bins, found = bins[:size].copy(), found[:size]
        return ValueCounts(bins, found & ((1 << _COUNT) - 1), found >> _COUNT)
