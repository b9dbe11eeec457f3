"""Numbers as bins that are counted in one pass: a bin a value, or values that agree to 2^-11."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ._keys import read_dtype

__all__ = ["DROPPED", "Bins"]

DROPPED = 12
"""Bits of a float32 that do not belong to its bin.

What is left is sign, exponent and the first 11 bits of the mantissa: 2^20 bins, each 2^-11 of its
lower end wide.
"""
_WIDE = 1 << (32 - DROPPED)
_ROUNDING = 2.0**-23  # of two wider numbers that become one float32
_WIDEST = 2  # bytes of numbers that have a bin each


@dataclass(frozen=True, slots=True)
class Bins:
    """How numbers of one type become bins: their bits, or the first 20 bits of their float32.

    Bins are not in the order of their values.
    """

    dtype: np.dtype[Any]
    """Of the numbers, in native byte order."""

    @classmethod
    def of(cls, dtype: DTypeLike) -> Bins:
        """Bins of a type.

        Raises
        ------
        InvalidInputError
            If it is not a type of real numbers of up to 64 bits.
        """
        return cls(read_dtype(dtype))

    @property
    def exact(self) -> bool:
        """Whether every value has a bin of its own."""
        return self.dtype.itemsize <= _WIDEST

    @property
    def count(self) -> int:
        """Number of bins."""
        return 1 << (8 * self.dtype.itemsize) if self.exact else _WIDE

    @property
    def relative_error(self) -> float:
        """Most that two values of a bin are apart, as a part of the smaller one."""
        if self.exact:
            return 0.0
        return 2.0 ** (DROPPED - 23) + (0.0 if self.dtype == np.float32 else _ROUNDING)

    def bits(self, values: NDArray[Any]) -> NDArray[np.unsignedinteger[Any]]:
        """Bits of each value or of its float32, as an unsigned integer.

        Where `exact` they are the bin. Else the bin is what `DROPPED` bits to the right leave, and
        these bits are the place in the bin.

        Parameters
        ----------
        values
            Contiguous and of this type.
        """
        if self.exact:
            return values.view(f"u{self.dtype.itemsize}")
        if values.dtype == np.float32:
            return values.view(np.uint32)
        # What is no finite number is found by its bin.
        with np.errstate(over="ignore", invalid="ignore"):
            single = values.astype(np.float32, copy=False)
        return single.view(np.uint32)

    def values(
        self, bins: NDArray[Any], counts: NDArray[np.int64], places: NDArray[np.int64] | None
    ) -> NDArray[np.float64]:
        """Value of each bin; where not `exact` the mean of what was counted in it, as float64.

        Parameters
        ----------
        bins, counts, places
            (n,) bins, how many values each has, and the sum of their places in it.
        """
        if places is None:
            bits = bins.astype(f"u{self.dtype.itemsize}")
            # Adding zero turns -0.0 into 0.0, which is the same number.
            return bits.view(self.dtype).astype(np.float64) + 0.0
        first = (bins.astype(np.uint32) << np.uint32(DROPPED)).view(np.float32)
        with np.errstate(invalid="ignore"):  # infinity is its bin's first value and only one
            step = np.copysign(np.spacing(np.abs(first)), first).astype(np.float64)
            mean = first.astype(np.float64) + step * (places / counts)
        return np.where(np.isinf(first), first, mean) + 0.0

    @property
    def special_bins(self) -> tuple[slice, ...]:
        """Where NaN and infinities are: positive and negative ones."""
        if self.dtype.kind != "f":
            # An integer has none, and none is too large for a float32.
            return ()
        mantissa = 10 if self.exact else 23 - DROPPED
        # All without the sign; those whose exponent is all ones come last.
        half = self.count // 2
        return tuple(slice(end - (1 << mantissa), end) for end in (half, self.count))

    def special(self, bins: NDArray[np.uint32]) -> bool:
        """Whether one of these bins, which ascend, holds NaN or infinities."""
        edges = _edges(self)
        if not edges.size or not bins.size:
            return False
        # Looked up: to compare all bins of a channel, block by block, takes longer than counting in them.
        places = np.searchsorted(bins, edges)
        return bool((places[1::2] > places[::2]).any())


@cache
def _edges(bins: Bins) -> NDArray[np.uint32]:
    """Return the first of each of the `special_bins` and one past the last, ascending."""
    return np.array([(part.start, part.stop) for part in bins.special_bins], np.uint32).reshape(-1)
