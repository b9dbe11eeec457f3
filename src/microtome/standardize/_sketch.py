"""Quantiles of any amount of pixels in one pass, exact or with a stated error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from microtome.errors import FormatError, InvalidInputError

from ._between import between, neighbours, read_quantiles
from ._bins import Bins
from ._blocks import read_block, refuse_nan
from ._inside import PIECE, Inside
from ._keys import read_dtype

__all__ = ["QuantileSketch", "ValueCounts"]

_STRETCH = 2048

_Bins = NDArray[np.uint32]
_Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class ValueCounts:
    """How often the values of a channel occur, by bin."""

    bins: _Bins
    """(n,) ascending; not the order of their values."""
    counts: _Counts
    """(n,) pixels in each bin, at least 1."""
    sums: NDArray[np.float64] | None = None
    """(n,) sum of the pixels in each bin; None where every value has a bin of its own."""

    @property
    def total(self) -> int:
        """Number of pixels."""
        return int(self.counts.sum())

    def plus(self, other: ValueCounts) -> ValueCounts:
        """Return the counts of both."""
        if not (self.bins.size and other.bins.size):
            return self if self.bins.size else other
        sums = None
        if self.sums is not None and other.sums is not None:
            sums = np.concatenate([self.sums, other.sums])
        return _joined(
            np.concatenate([self.bins, other.bins]),
            np.concatenate([self.counts, other.counts]),
            sums,
        )


_NOTHING = ValueCounts(np.zeros(0, np.uint32), np.zeros(0, np.int64))


def _joined(bins: NDArray[Any], counts: _Counts, sums: NDArray[np.float64] | None) -> ValueCounts:
    """Add what is counted of equal bins."""
    if not bins.size:
        return _NOTHING
    order = np.argsort(bins, kind="stable")
    bins, counts = bins[order].astype(np.uint32), counts[order]
    first = np.flatnonzero(np.concatenate([[True], bins[1:] != bins[:-1]]))
    return ValueCounts(
        bins[first],
        np.add.reduceat(counts, first),
        None if sums is None else np.add.reduceat(sums[order], first),
    )


class QuantileSketch:
    """How often every value occurs in each channel, counted in one pass: any quantile, and moments.

    Numbers of 8 and 16 bits are counted value by value: quantiles are exactly those of
    `numpy.quantile` on all the pixels. Wider ones are counted, and summed, in bins that are 2^-11
    of their value wide, the first 20 bits of a float32, and stand for the mean of their bin. So
    the value at any rank is within `relative_error`, 2^-11 or 0.05 %, whatever the distribution
    and however far out the quantile; and where a bin holds one value only, as with whole numbers
    below 4096, it is exact. Numbers nearer to zero than 10^-38 are within 10^-41.

    To add what others counted is to add counts, so that the result does not depend on who counted
    what. Memory grows with the number of different bins, at most 16 MiB a channel while pixels are
    counted.

    Parameters
    ----------
    dtype
        Of the pixels: bools, integers or floats.
    channels
        Number of channels.

    Examples
    --------
    >>> import numpy as np
    >>> sketch = QuantileSketch(np.uint16, 1)
    >>> sketch.update(np.array([[1, 2]], np.uint16))
    >>> sketch.update(np.array([[9, 4]], np.uint16))
    >>> sketch.quantiles([0.5, 1.0])
    array([[3., 9.]])
    """

    def __init__(self, dtype: DTypeLike, channels: int) -> None:
        if channels < 1:
            raise InvalidInputError(f"channels must be at least 1, got {channels}")
        self._bins = Bins.of(dtype)
        self._found = [_NOTHING] * channels
        self._counters: dict[int, _Counter] = {}

    @classmethod
    def of_counts(cls, dtype: DTypeLike, counts: Sequence[ValueCounts]) -> QuantileSketch:
        """Make one of what `counts` gave.

        Raises
        ------
        FormatError
            If bins are not ascending ones of this type, or there are counts below 1.
        """
        sketch = cls(dtype, len(counts))
        for each in counts:
            steps = np.diff(each.bins.astype(np.int64))
            if (
                each.bins.shape != each.counts.shape
                or (each.bins.size > 0 and (each.sums is None) != sketch.exact)
                or (each.sums is not None and each.sums.shape != each.bins.shape)
                or each.bins.ndim != 1
                or (each.bins.size and int(each.bins[-1]) >= sketch._bins.count)
                or bool((steps < 1).any() or (each.counts < 1).any())
            ):
                raise FormatError(f"these are no counts of {sketch.dtype}")
        sketch._found = list(counts)
        return sketch

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels."""
        return self._bins.dtype

    @property
    def exact(self) -> bool:
        """Whether quantiles are those of the pixels to the last bit."""
        return self._bins.exact

    @property
    def relative_error(self) -> float:
        """Most that the value at a rank is off, as a part of it; 0 where `exact`."""
        return self._bins.relative_error

    @property
    def count(self) -> NDArray[np.int64]:
        """(C,) pixels counted."""
        return np.array([each.total for each in self.counts], np.int64)

    @property
    def counts(self) -> tuple[ValueCounts, ...]:
        """What was counted, a channel each."""
        for place, counter in self._counters.items():
            self._found[place] = self._found[place].plus(counter.taken())
        return tuple(self._found)

    def values(self, channel: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return the values of a channel, ascending, and how often each occurs.

        Where not `exact`, the mean of each bin for the values in it.
        """
        found = self.counts[channel]
        values = self._bins.values(found.bins) if found.sums is None else found.sums / found.counts
        order = np.argsort(values, kind="stable")
        return values[order], found.counts[order]

    def update(
        self,
        values: NDArray[Any],
        *,
        channels: Sequence[int] | None = None,
        mask: NDArray[np.bool_] | None = None,
        where: str = "",
    ) -> None:
        """Count a block of pixels.

        Parameters
        ----------
        values
            (C, N) of the sketch's type.
        channels
            Which channel each row is; by default all of them in order.
        mask
            (N,) which pixels of each row count; by default all of them.
        where
            What the block is, for the message.

        Raises
        ------
        FormatError
            If a value is NaN.
        InvalidInputError
            If there is not one row per channel, the type is another, or a finite value does not
            fit a float32.
        """
        block, places = read_block(values, channels, len(self._found))
        if read_dtype(block.dtype) != self.dtype:
            raise InvalidInputError(f"a sketch of {self.dtype} got a block of {block.dtype}")
        counters = [self._counter(place) for place in places]
        inside = Inside.of(mask, block.shape[1], block.itemsize)
        for row, counter in zip(block, counters, strict=True):
            for piece in inside.pieces(row, self.dtype):
                counter.add(self._bins.bins(piece), piece)
        if any(self._bins.special(counter.counts) for counter in counters):
            self._refuse(block if mask is None else block[:, mask], places, where)

    def merge(self, other: QuantileSketch) -> None:
        """Add what another one counted, of the same type or one whose values this type holds.

        Raises
        ------
        InvalidInputError
            If it has another number of channels, or this type does not hold all of its values.
        """
        if len(other._found) != len(self._found):
            raise InvalidInputError(
                f"sketches of {len(self._found)} and {len(other._found)} channels do not go together"
            )
        if other.dtype != self.dtype:
            other = other.widened(self.dtype)
        for place, each in enumerate(other.counts):
            if each.bins.size:
                self._counter(place).put(each)

    def widened(self, dtype: DTypeLike) -> QuantileSketch:
        """Return the same counts in the bins of a type that holds all of these values.

        Raises
        ------
        InvalidInputError
            If the type does not.
        """
        bins = Bins.of(dtype)
        if not (np.can_cast(self.dtype, bins.dtype) if self.exact else not bins.exact):
            raise InvalidInputError(f"counts of {self.dtype} do not become those of {bins.dtype}")
        counts: Sequence[ValueCounts] = self.counts
        if self.exact:
            found: list[ValueCounts] = []
            for each in counts:
                values = self._bins.values(each.bins)
                sums = None if bins.exact else values * each.counts
                found.append(_joined(bins.bins(values.astype(bins.dtype)), each.counts, sums))
            counts = found
        return QuantileSketch.of_counts(bins.dtype, counts)

    def quantiles(self, wanted: ArrayLike) -> NDArray[np.float64]:
        """(C, quantiles) by the rule of `numpy.quantile`; NaN for a channel without pixels.

        Parameters
        ----------
        wanted
            Quantiles, from 0 to 1.

        Raises
        ------
        InvalidInputError
            If they are not numbers from 0 to 1.
        """
        numbers = read_quantiles(wanted)
        out = np.full((len(self._found), numbers.size), np.nan)
        for channel, row in enumerate(out):
            values, counts = self.values(channel)
            if not counts.size:
                continue
            upto = np.cumsum(counts)
            ranks = neighbours(numbers, int(upto[-1]))
            below, above = values[np.searchsorted(upto, ranks, side="right")].reshape(2, -1)
            row[:] = between(below, above, numbers, int(upto[-1]))
        return out

    def __getstate__(self) -> dict[str, Any]:
        # Counters are large and mostly empty.
        return {"_bins": self._bins, "_found": list(self.counts), "_counters": {}}

    def _counter(self, place: int) -> _Counter:
        if place not in self._counters:
            self._counters[place] = _Counter(self._bins.count, sums=not self.exact)
        return self._counters[place]

    def _refuse(self, block: NDArray[Any], places: list[int], where: str) -> None:
        refuse_nan(block, places, where)
        if self.exact:
            return
        with np.errstate(over="ignore", invalid="ignore"):
            beyond = np.isfinite(block) & np.isinf(block.astype(np.float32))
        if beyond.any():
            row, pixel = (int(index[0]) for index in np.nonzero(beyond))
            raise InvalidInputError(
                f"{where or 'the pixels'}: channel {places[row]} holds {block[row, pixel]}, beyond "
                "the range of float32 that a sketch counts in; ask for exact quantiles (exact=True)"
            )


class _Counter:
    """A count, and where asked for a sum, for every bin."""

    def __init__(self, bins: int, *, sums: bool) -> None:
        # The system gives these zeros when they are first touched.
        self.counts = np.zeros(bins, np.int64)
        self.sums = np.zeros(bins) if sums else None
        self._places = np.empty(PIECE, np.intp)

    def add(self, bins: NDArray[np.unsignedinteger[Any]], values: NDArray[Any]) -> None:
        """Count at most PIECE pixels."""
        places = self._places[: bins.size]
        np.copyto(places, bins)
        np.add.at(self.counts, places, 1)
        if self.sums is not None:
            with np.errstate(invalid="ignore"):  # a NaN is found by its bin
                np.add.at(self.sums, places, values.astype(np.float64))

    def put(self, counted: ValueCounts) -> None:
        """Add what another one counted."""
        self.counts[counted.bins] += counted.counts
        if self.sums is not None and counted.sums is not None:
            self.sums[counted.bins] += counted.sums

    def taken(self) -> ValueCounts:
        """Return what was counted since the last time."""
        # Most of many bins are empty: stretches of them are skipped at a glance.
        rows = self.counts.reshape(-1, min(_STRETCH, self.counts.size))
        touched = np.flatnonzero(rows.any(axis=1))
        row, column = np.nonzero(rows[touched])
        bins = touched[row] * rows.shape[1] + column
        counts, sums = self.counts[bins], None
        rows[touched] = 0
        if self.sums is not None:
            sums = self.sums[bins]
            self.sums[bins] = 0
        return ValueCounts(bins.astype(np.uint32), counts, sums)
