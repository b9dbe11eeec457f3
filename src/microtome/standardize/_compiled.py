"""Counting in one pass, compiled by Numba where it is installed: the same numbers as without.

NumPy takes 3 to 6 ns for a pixel inside a mask, in several passes; a compiled loop 0.4 to 1.0,
outside Python's lock. Pixels go to several tables in turn: equal neighbours, as the zeros of mass
cytometry are, would wait for each other's sum in one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from microtome.storage import jit

__all__ = ["LANES", "PLACED_LANES", "WORTH", "CompiledCounting", "compiled_counting"]

WORTH = 1 << 18
"""Values in a block from which on it pays to import Numba, which takes half a second once."""

LANES, PLACED_LANES = 4, 2
"""Tables that pixels go to in turn: more of the wide ones would not fit the cache."""

_Runs = NDArray[np.int64]
_Counts = NDArray[np.int64]
_Flags = NDArray[np.bool_]


class CompiledCounting(NamedTuple):
    """The compiled loops."""

    exact: Callable[[NDArray[Any], _Runs, NDArray[np.uint32]], None]
    """Add one to the bin of each pixel of some runs, in (LANES, bins)."""
    placed: Callable[[NDArray[np.uint32], _Runs, NDArray[np.uint64], _Flags, int, int, int], None]
    """Add one, and the place in the bin, its lower bits, further left, in (PLACED_LANES, bins); note
    the page written."""
    collected: Callable[
        [NDArray[np.uint64], _Flags, int, int, NDArray[np.uint32], _Counts, _Counts], int
    ]
    """Move what is not zero in the pages written to the front of arrays of bins, counts and sums of
    places; return how many."""


@cache
def compiled_counting() -> CompiledCounting | None:
    """Return the loops, compiled when they are first called; None where there is no Numba."""
    if find_spec("numba") is None:
        return None
    return CompiledCounting(*map(jit, (_count_exact, _count_placed, _collect)))


# Numbers without a sign throughout: what might be negative is looked at before each use as an index.
def _count_exact(bits: NDArray[Any], runs: _Runs, counts: NDArray[np.uint32]) -> None:
    first, second, third, fourth = counts[0], counts[1], counts[2], counts[3]
    for run in range(runs.shape[0]):
        part = bits[runs[run, 0] : runs[run, 1]]
        fours = part.size // 4 * 4
        for pixel in range(0, fours, 4):
            first[np.uint64(part[pixel])] += np.uint32(1)
            second[np.uint64(part[pixel + 1])] += np.uint32(1)
            third[np.uint64(part[pixel + 2])] += np.uint32(1)
            fourth[np.uint64(part[pixel + 3])] += np.uint32(1)
        for pixel in range(fours, part.size):
            first[np.uint64(part[pixel])] += np.uint32(1)


def _count_placed(
    bits: NDArray[np.uint32],
    runs: _Runs,
    counts: NDArray[np.uint64],
    touched: _Flags,
    dropped: int,
    left: int,
    page: int,
) -> None:
    # No look at whether a pixel is zero, nor for the range of the bins: where zeros are scattered,
    # a processor that guesses wrong at each costs more than the addition.
    drop, up, one = np.uint64(dropped), np.uint64(left), np.uint64(1)
    low, far = (one << drop) - one, np.uint64(dropped + page)
    first, second = counts[0], counts[1]
    for run in range(runs.shape[0]):
        part = bits[runs[run, 0] : runs[run, 1]]
        twos = part.size // 2 * 2
        for pixel in range(0, twos, 2):
            value, other = np.uint64(part[pixel]), np.uint64(part[pixel + 1])
            touched[value >> far] = True
            first[value >> drop] += ((value & low) << up) | one
            touched[other >> far] = True
            second[other >> drop] += ((other & low) << up) | one
        for pixel in range(twos, part.size):
            value = np.uint64(part[pixel])
            touched[value >> far] = True
            first[value >> drop] += ((value & low) << up) | one


def _collect(
    counts: NDArray[np.uint64],
    touched: _Flags,
    page: int,
    left: int,
    bins: NDArray[np.uint32],
    found: _Counts,
    places: _Counts,
) -> int:
    first, second = counts[0], counts[1]
    up, size, there = np.uint64(left), 1 << page, 0
    low = (np.uint64(1) << up) - np.uint64(1)
    for number in range(touched.size):
        if touched[number]:
            touched[number] = False
            for place in range(number * size, (number + 1) * size):
                both = first[place] + second[place]
                if both:
                    bins[there] = place
                    found[there] = np.int64(both & low)
                    places[there] = np.int64(both >> up)
                    first[place] = 0
                    second[place] = 0
                    there += 1
    return there
