"""Counting in one pass, compiled by Numba where it is installed: the same numbers as without.

NumPy takes 3 to 6 ns for a pixel inside a mask, in several passes; a compiled loop 1.4 to 3.7,
outside Python's lock.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["WORTH", "CompiledCounting", "compiled_counting"]

WORTH = 1 << 18
"""Values in a block from which on it pays to import Numba, which takes half a second once."""

_Mask = NDArray[np.bool_]
_Counts = NDArray[np.int64]
_Flags = NDArray[np.bool_]


class CompiledCounting(NamedTuple):
    """The compiled loops."""

    exact: Callable[[NDArray[Any], _Mask, _Counts], None]
    """Add one to the bin of each pixel that the mask has; an empty mask has all."""
    placed: Callable[[NDArray[np.uint32], _Mask, _Counts, _Flags, int, int, int], None]
    """Add one, and the place in the bin, its lower bits, further left; note the page written."""
    collected: Callable[[_Counts, _Flags, int, NDArray[np.uint32], _Counts], int]
    """Move what is not zero in the pages written to the front of two arrays; return how many."""


@cache
def compiled_counting() -> CompiledCounting | None:
    """Return the loops, compiled when they are first called; None where there is no Numba."""
    if find_spec("numba") is None:
        return None
    numba: Any = import_module("numba")
    try:
        compiled: Any = numba.njit(nogil=True, cache=True)
        return CompiledCounting(*map(compiled, (_count_exact, _count_placed, _collect)))
    except RuntimeError:
        # No place to keep what was compiled: an installation that cannot be written, without a home.
        compiled = numba.njit(nogil=True)
        return CompiledCounting(*map(compiled, (_count_exact, _count_placed, _collect)))


def _count_exact(bits: NDArray[Any], mask: _Mask, counts: _Counts) -> None:
    if mask.size:
        for pixel in range(bits.size):
            if mask[pixel]:
                counts[bits[pixel]] += 1
    else:
        for pixel in range(bits.size):
            counts[bits[pixel]] += 1


def _count_placed(
    bits: NDArray[np.uint32],
    mask: _Mask,
    counts: _Counts,
    touched: _Flags,
    dropped: int,
    left: int,
    page: int,
) -> None:
    # No look at whether a pixel is zero, nor for the range of the bins: where zeros are scattered,
    # a processor that guesses wrong at each costs more than the addition.
    low = (1 << dropped) - 1
    masked = mask.size > 0
    for pixel in range(bits.size):
        if not masked or mask[pixel]:
            value = np.int64(bits[pixel])
            touched[value >> (dropped + page)] = True
            counts[value >> dropped] += ((value & low) << left) | 1


def _collect(
    counts: _Counts, touched: _Flags, page: int, bins: NDArray[np.uint32], found: _Counts
) -> int:
    size, there = 1 << page, 0
    for number in range(touched.size):
        if touched[number]:
            touched[number] = False
            for place in range(number * size, (number + 1) * size):
                if counts[place]:
                    bins[there], found[there] = place, counts[place]
                    counts[place] = 0
                    there += 1
    return there
