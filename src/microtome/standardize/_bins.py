"""Numbers as bins that are counted in one pass: a bin a value, or values that agree to 2^-11."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ._keys import read_dtype

__all__ = ["Bins"]

# Of a float32, sign, exponent and the first 11 bits of the mantissa: 2^20 bins, each 2^-11 of its
# lower end wide.
_DROPPED = 12
_WIDE = 1 << (32 - _DROPPED)
_ROUNDING = 2.0**-23  # of two wider numbers that become one float32
_EXACT = frozenset({"bool", "uint8", "int8", "uint16", "int16", "float16"})


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
        return self.dtype.name in _EXACT

    @property
    def count(self) -> int:
        """Number of bins."""
        return 1 << (8 * self.dtype.itemsize) if self.exact else _WIDE

    @property
    def relative_error(self) -> float:
        """Most that two values of a bin are apart, as a part of the smaller one."""
        if self.exact:
            return 0.0
        return 2.0 ** (_DROPPED - 23) + (0.0 if self.dtype == np.float32 else _ROUNDING)

    def bins(self, values: NDArray[Any]) -> NDArray[np.unsignedinteger[Any]]:
        """Bin of each value, as an unsigned integer; values are contiguous and of this type."""
        if self.exact:
            return values.view(f"u{self.dtype.itemsize}")
        # What is no finite number is found by its bin.
        with np.errstate(over="ignore", invalid="ignore"):
            single = values.astype(np.float32, copy=False)
        return single.view(np.uint32) >> np.uint32(_DROPPED)

    def values(self, bins: NDArray[Any]) -> NDArray[np.float64]:
        """Value of each bin, as float64; only where `exact`."""
        bits = bins.astype(f"u{self.dtype.itemsize}")
        # Adding zero turns -0.0 into 0.0, which is the same number.
        return bits.view(self.dtype).astype(np.float64) + 0.0

    def special(self, counts: NDArray[np.int64]) -> bool:
        """Whether counts of every bin hold a NaN or an infinity."""
        if self.dtype.kind != "f":
            # An integer has none, and none is too large for a float32.
            return False
        mantissa = 10 if self.exact else 23 - _DROPPED
        size, half = 1 << mantissa, self.count // 2
        return bool(counts[half - size : half].any() or counts[-size:].any())
