"""Counting with compiled loops, in tables that stay in the processor's cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ._bins import DROPPED, Bins
from ._compiled import LANES, PLACED_LANES, CompiledCounting
from ._value_counts import NOTHING, ValueCounts

__all__ = ["Tallies", "tallies_for"]

# A number of 64 bits has room for a sum of places beside a count of this many bits.
_COUNT = 32
_MOST = 1 << 64 - _COUNT - DROPPED
# Pixels of a channel that are counted in 32 bits before they are taken.
_ROOM = 1 << 31
# Bins of which is noted together that one was counted in: 4 KiB, a page of memory.
_PAGE = 9

_Runs = NDArray[np.int64]


class Tallies(Protocol):
    """The counts of all channels, of any number of blocks."""

    def add(
        self,
        loops: CompiledCounting,
        channel: int,
        pixels: NDArray[Any],
        runs: _Runs,
    ) -> Iterator[ValueCounts]:
        """Count the pixels of some runs, contiguous and of the bins' type.

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
    """A bin a value, of which there are few: tables for each channel, gone through at the end."""

    def __init__(self, bins: Bins, channels: int) -> None:
        self._bins = bins
        # The system gives these zeros when they are first touched.
        self._counts = np.zeros((channels, LANES, bins.count), np.uint32)
        self._room = [_ROOM] * channels

    def add(
        self, loops: CompiledCounting, channel: int, pixels: NDArray[Any], runs: _Runs
    ) -> Iterator[ValueCounts]:
        bits = self._bins.bits(pixels)
        pixels_each = min(bits.size, _ROOM)
        for part in _in_parts(runs, bits.size, _ROOM):
            if pixels_each > self._room[channel]:
                yield self._taken(channel)
            self._room[channel] -= pixels_each
            loops.exact(bits, part, self._counts[channel])

    def special(self, channel: int) -> bool:
        return any(bool(self._counts[channel, :, part].any()) for part in self._bins.special_bins)

    def take(self) -> list[ValueCounts]:
        return [self._taken(channel) for channel in range(len(self._room))]

    def _taken(self, channel: int) -> ValueCounts:
        if self._room[channel] == _ROOM:
            return NOTHING
        self._room[channel] = _ROOM
        lanes = self._counts[channel]
        counts = lanes.sum(axis=0, dtype=np.int64)
        found = np.flatnonzero(counts)
        lanes[:, found] = 0
        return ValueCounts(found.astype(np.uint32), counts[found])


class _Placed:
    """Many bins of several values each: tables for all channels in turn.

    What values there are lies in few of their pages; tables a channel would not fit the cache.
    """

    def __init__(self, bins: Bins) -> None:
        self._bins = bins
        self._counts = np.zeros((PLACED_LANES, bins.count), np.uint64)
        self._touched = np.zeros(bins.count >> _PAGE, np.bool_)

    def add(
        self,
        loops: CompiledCounting,
        channel: int,  # noqa: ARG002 - nothing is kept
        pixels: NDArray[Any],
        runs: _Runs,
    ) -> Iterator[ValueCounts]:
        bits = self._bins.bits(pixels)
        for part in _in_parts(runs, bits.size, _MOST):
            loops.placed(bits, part, self._counts, self._touched, DROPPED, _COUNT, _PAGE)
            yield self._taken(loops)

    def special(self, channel: int) -> bool:  # noqa: ARG002 - nothing is kept
        return False

    def take(self) -> list[ValueCounts]:
        return []

    def _taken(self, loops: CompiledCounting) -> ValueCounts:
        most = np.count_nonzero(self._touched) << _PAGE
        bins, (counts, places) = np.empty(most, np.uint32), np.empty((2, most), np.int64)
        size = loops.collected(self._counts, self._touched, _PAGE, _COUNT, bins, counts, places)
        return ValueCounts(bins[:size].copy(), counts[:size].copy(), places[:size].copy())


def _in_parts(runs: _Runs, pixels: int, most: int) -> Iterator[_Runs]:
    """Cut a row into parts of so many pixels, and give the runs in each."""
    if pixels <= most:
        yield runs
        return
    for start in range(0, pixels, most):
        low = int(np.searchsorted(runs[:, 1], start, "right"))
        high = int(np.searchsorted(runs[:, 0], start + most, "left"))
        yield runs[low:high].clip(start, start + most)
