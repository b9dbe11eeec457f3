"""Exact quantiles of any amount of pixels in bounded memory, by counting digits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from microtome.errors import InvalidInputError

from ._between import between, neighbours, read_quantiles
from ._blocks import read_block, refuse_nan
from ._keys import from_keys, read_dtype, to_keys

__all__ = ["QuantileCounter"]

_DIGIT = 16  # bits counted in one pass
_PIECE = 1 << 20  # pixels turned into keys at a time


class QuantileCounter:
    """Quantiles of every channel over blocks of pixels, exactly those of all pixels at once.

    Every value is a key of 8 to 64 bits in the same order. A pass over the pixels counts 16 bits
    of the keys, highest first, and the next one only those keys that begin like a wanted one
    (radix selection). Numbers of 8 and 16 bits take one pass, of 32 bits two, of 64 bits four;
    memory is half a megabyte per channel and wanted beginning.

    Parameters
    ----------
    dtype
        Of the pixels: bools, integers or floats.
    channels
        Number of channels.
    quantiles
        Wanted quantiles, from 0 to 1.

    Examples
    --------
    >>> import numpy as np
    >>> blocks = [np.array([[1.5, 2.5]], np.float32), np.array([[9.0, 4.0]], np.float32)]
    >>> counter = QuantileCounter(np.float32, 1, [0.5, 1.0])
    >>> while not counter.done:
    ...     for block in blocks:
    ...         counter.update(block)
    ...     counter.finish_pass()
    >>> counter.quantiles()
    array([[3.25, 9.  ]])
    """

    def __init__(self, dtype: DTypeLike, channels: int, quantiles: Sequence[float]) -> None:
        self._dtype = read_dtype(dtype)
        self._wanted = read_quantiles(quantiles)
        if channels < 1:
            raise InvalidInputError(f"channels must be at least 1, got {channels}")
        self._bits = 8 * self._dtype.itemsize
        self._pass = 0
        self._totals = np.zeros(channels, np.int64)
        self._searches = [_Search.begin(min(self._bits, _DIGIT)) for _ in range(channels)]
        self._seen = np.zeros(channels, np.int64)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels."""
        return self._dtype

    @property
    def passes(self) -> int:
        """Number of times the pixels are to be counted."""
        return max(1, self._bits // _DIGIT)

    @property
    def done(self) -> bool:
        """Whether all passes are finished."""
        return self._pass == self.passes

    def update(
        self, values: NDArray[Any], *, channels: Sequence[int] | None = None, where: str = ""
    ) -> None:
        """Count a block of pixels in this pass.

        Parameters
        ----------
        values
            (C, N) of the counter's dtype.
        channels
            Which channel each row is; by default all of them in order.
        where
            What the block is, for the message.

        Raises
        ------
        FormatError
            If a value is NaN.
        InvalidInputError
            If there is not one row per channel, the dtype is another, or no pass is left.
        """
        if self.done:
            raise InvalidInputError(f"all {self.passes} passes are finished")
        block, places = read_block(values, channels, self._totals.size)
        if read_dtype(block.dtype) != self._dtype:
            raise InvalidInputError(f"a counter of {self._dtype} got a block of {block.dtype}")
        refuse_nan(block, places, where)
        shift = max(0, self._bits - _DIGIT * (self._pass + 1))
        for row, place in zip(block, places, strict=True):
            search = self._searches[place]
            for start in range(0, row.size, _PIECE):
                piece = row[start : start + _PIECE].astype(self._dtype, copy=False)
                search.count(to_keys(piece), shift)
            self._seen[place] += row.size

    def merge(self, other: QuantileCounter) -> None:
        """Add what another one counted in the same pass; see `blank`.

        Raises
        ------
        InvalidInputError
            If it counts something else.
        """
        if not self._counts_the_same(other):
            raise InvalidInputError(
                "only counters made from this one by blank(), in the same pass, can be merged"
            )
        for mine, theirs in zip(self._searches, other._searches, strict=True):
            mine.counts += theirs.counts
        self._seen += other._seen

    def blank(self) -> Self:
        """Return a counter in the same pass that has counted nothing: one for each worker."""
        other = type(self)(self._dtype, self._totals.size, self._wanted.tolist())
        other._continue(self)  # noqa: SLF001 (of the same class)
        return other

    def finish_pass(self) -> None:
        """End a pass over the pixels, which narrows down where the quantiles lie.

        Raises
        ------
        InvalidInputError
            If this pass saw another number of pixels than the first, or none is left.
        """
        if self.done:
            raise InvalidInputError(f"all {self.passes} passes are finished")
        if self._pass == 0:
            self._totals = self._seen.copy()
            for search, total in zip(self._searches, self._totals, strict=True):
                search.want(neighbours(self._wanted, int(total)))
        for place in np.flatnonzero(self._seen != self._totals):
            raise InvalidInputError(
                f"pass {self._pass + 1} saw {self._seen[place]} pixels of channel {place}, pass 1 "
                f"saw {self._totals[place]}; every pass must see the same pixels"
            )
        for search in self._searches:
            search.narrow(last=self._pass + 1 == self.passes)
        self._seen[:] = 0
        self._pass += 1

    def quantiles(self) -> NDArray[np.float64]:
        """(C, quantiles) as `numpy.quantile` gives on float64; NaN for a channel without pixels.

        Raises
        ------
        InvalidInputError
            If passes are left.
        """
        if not self.done:
            raise InvalidInputError(f"{self.passes - self._pass} of {self.passes} passes are left")
        out = np.full((self._totals.size, self._wanted.size), np.nan)
        for row, total, search in zip(out, self._totals, self._searches, strict=True):
            if total:
                below, above = from_keys(search.found, self._dtype).reshape(2, -1)
                row[:] = between(below, above, self._wanted, int(total))
        return out

    def _continue(self, other: QuantileCounter) -> None:
        self._pass = other._pass
        self._totals = other._totals.copy()
        self._searches = [search.blank() for search in other._searches]

    def _counts_the_same(self, other: QuantileCounter) -> bool:
        return (
            self._dtype == other._dtype
            and self._pass == other._pass
            and np.array_equal(self._wanted, other._wanted)
            and np.array_equal(self._totals, other._totals)
            and all(
                np.array_equal(mine.beginnings, theirs.beginnings)
                for mine, theirs in zip(self._searches, other._searches, strict=True)
            )
        )


@dataclass(slots=True)
class _Search:
    """Where the wanted ranks of one channel are, as far as known."""

    bits: int
    """Counted in one pass."""
    beginnings: NDArray[np.uint64]
    """(m,) what the keys of wanted ranks begin with, ascending."""
    counts: NDArray[np.int64]
    """(m, 2**bits) keys with that beginning, by their next digit."""
    ranks: NDArray[np.int64]
    """(k,) wanted ranks, counted from the smallest key with the same beginning."""
    of: NDArray[np.int64]
    """(k,) index of each rank's beginning."""

    @classmethod
    def begin(cls, bits: int) -> _Search:
        nothing = np.zeros(0, np.int64)
        return cls(
            bits, np.zeros(1, np.uint64), np.zeros((1, 1 << bits), np.int64), nothing, nothing
        )

    def blank(self) -> _Search:
        return _Search(self.bits, self.beginnings, np.zeros_like(self.counts), self.ranks, self.of)

    @property
    def found(self) -> NDArray[np.uint64]:
        """(k,) key of each wanted rank, once all digits are known."""
        return self.beginnings[self.of]

    def want(self, ranks: NDArray[np.int64]) -> None:
        self.ranks, self.of = ranks, np.zeros(ranks.size, np.int64)

    def count(self, keys: NDArray[np.unsignedinteger[Any]], shift: int) -> None:
        kind = keys.dtype.type
        above = shift + self.bits
        digits = ((keys >> kind(shift)) & kind((1 << self.bits) - 1)).astype(np.intp)
        if above == 8 * keys.dtype.itemsize:  # the first pass: all keys begin alike
            self.counts[0] += np.bincount(digits, minlength=1 << self.bits)
            return
        heads = keys >> kind(above)
        for index, beginning in enumerate(self.beginnings):
            chosen = digits[heads == kind(beginning)]
            self.counts[index] += np.bincount(chosen, minlength=1 << self.bits)

    def narrow(self, *, last: bool) -> None:
        """Read the next digit of every wanted key from the counts."""
        upto = np.cumsum(self.counts, axis=1)
        keys = np.zeros(self.ranks.size, np.uint64)
        for index, (rank, of) in enumerate(zip(self.ranks, self.of, strict=True)):
            digit = int(np.searchsorted(upto[of], rank, side="right"))
            self.ranks[index] -= upto[of, digit - 1] if digit else 0
            keys[index] = (int(self.beginnings[of]) << self.bits) | digit
        self.beginnings, self.of = np.unique(keys, return_inverse=True)
        size = 0 if last else 1 << self.bits
        self.counts = np.zeros((self.beginnings.size, size), np.int64)
