"""Quantiles of any amount of pixels in one pass, exact or with a stated error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from microtome.errors import FormatError, InvalidInputError

from ._between import quantiles_of_counts, read_quantiles
from ._bins import DROPPED, Bins
from ._blocks import read_block, refuse_nan
from ._compiled import WORTH, CompiledCounting, compiled_counting
from ._counter import PIECES, Counter
from ._inside import Inside, runs_inside, verify_mask
from ._keys import read_dtype
from ._tallies import Tallies, tallies_for
from ._value_counts import NOTHING, ValueCounts, fold, joined

__all__ = ["QuantileSketch"]

_LOW = (1 << DROPPED) - 1

# Entries of parts that are not yet added.
_WAITING = 1 << 18

_Counts = NDArray[np.int64]


class QuantileSketch:
    """How often every value occurs in each channel, counted in one pass: any quantile, and moments.

    Numbers of 8 and 16 bits are counted value by value: quantiles are exactly those of
    `numpy.quantile` on all the pixels. Wider ones are counted, and summed, in bins that are 2^-11
    of their value wide, the first 20 bits of a float32, and stand for the mean of their bin. So
    the value at any rank is within `relative_error`, 2^-11 or 0.05 %, whatever the distribution
    and however far out the quantile; and where a bin holds one value only, as with whole numbers
    below 4096, it is exact. Numbers nearer to zero than 10^-38 are within 10^-41.

    To add what others counted is to add whole numbers, so that the result depends neither on who
    counted what nor on the order. Memory grows with the number of different bins: 20 bytes each, of
    which 16-bit pixels have at most 2^16 and others 2^20 a channel.

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
        self._parts: list[list[ValueCounts]] = [[] for _ in range(channels)]
        self._counter: Counter | None = None
        self._tallies: Tallies | None = None
        self._untaken = False

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
                or (each.bins.size > 0 and (each.places is None) != sketch.exact)
                or (each.places is not None and each.places.shape != each.bins.shape)
                or each.bins.ndim != 1
                or (each.bins.size and int(each.bins[-1]) >= sketch._bins.count)
                or bool((steps < 1).any() or (each.counts < 1).any())
            ):
                raise FormatError(f"these are no counts of {sketch.dtype}")
        sketch._parts = [[each] for each in counts]
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
        self._take_all()
        return tuple(map(_folded, self._parts))

    def values(self, channel: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return the values of a channel, ascending, and how often each occurs.

        Where not `exact`, the mean of each bin for the values in it.
        """
        values, counts, _ = self.binned(channel)
        return values, counts

    def binned(
        self, channel: int
    ) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
        """Return `values`, and how far from each of them the values of its bin may lie.

        That is 0 where all of them are one number: where `exact`, and at the lower end of a bin.
        """
        self._take_all()
        found = _folded(self._parts[channel])
        values = self._bins.values(found.bins, found.counts, found.places)
        order = np.argsort(values, kind="stable")
        values = values[order]
        widths = np.zeros(values.size)
        if found.places is not None:
            widths = np.where(found.places[order] > 0, np.abs(values) * self.relative_error, 0.0)
        return values, found.counts[order], widths

    def update(
        self,
        values: NDArray[Any],
        *,
        channels: Sequence[int] | None = None,
        mask: NDArray[np.bool_] | None = None,
        runs: NDArray[np.int64] | None = None,
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
        runs
            (R, 2) the same as runs of pixels, ascending, where they are known already.
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
        block, places = read_block(values, channels, len(self._parts))
        if read_dtype(block.dtype) != self.dtype:
            raise InvalidInputError(f"a sketch of {self.dtype} got a block of {block.dtype}")
        loops = compiled_counting() if block.size >= WORTH else None
        if loops is None:
            special = self._count(block, places, mask)
        else:
            special = self._count_compiled(loops, block, places, mask, runs)
        if special:
            self._refuse(block if mask is None else block[:, mask], places, where)

    def merge(self, other: QuantileSketch) -> None:
        """Add what another one counted, of the same type or one whose values this type holds.

        Raises
        ------
        InvalidInputError
            If it has another number of channels, or this type does not hold all of its values.
        """
        if len(other._parts) != len(self._parts):
            raise InvalidInputError(
                f"sketches of {len(self._parts)} and {len(other._parts)} channels do not go together"
            )
        if other.dtype != self.dtype:
            other = other.widened(self.dtype)
        for place, each in enumerate(other.counts):
            self._add(place, each)

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
                bits = bins.bits(self._bins.values(each.bins, each.counts, None).astype(bins.dtype))
                places = None
                if not bins.exact:
                    places = (bits & np.uint32(_LOW)).astype(np.int64) * each.counts
                    bits = bits >> np.uint32(DROPPED)
                found.append(joined(bits, each.counts, places))
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
        out = np.full((len(self._parts), numbers.size), np.nan)
        for channel, row in enumerate(out):
            values, counts = self.values(channel)
            if not counts.size:
                continue
            row[:] = quantiles_of_counts(values, counts, numbers)
        return out

    def __getstate__(self) -> dict[str, Any]:
        # What they are counted in is large and empty.
        parts = [[each] for each in self.counts]
        empty = {"_counter": None, "_tallies": None, "_untaken": False}
        return {"_bins": self._bins, "_parts": parts, **empty}

    def _count(
        self, block: NDArray[Any], places: list[int], mask: NDArray[np.bool_] | None
    ) -> bool:
        """Count a block; whether there are NaN or infinities in it."""
        if self._counter is None:
            self._counter = Counter(self._bins.count, places=not self.exact)
        counter, special = self._counter, False
        inside = Inside.of(mask, block.shape[1], block.itemsize)
        for row, place in zip(block, places, strict=True):
            for number, piece in enumerate(inside.pieces(row, self.dtype), start=1):
                counter.add(self._bins.bits(piece))
                if number % PIECES == 0:
                    special |= self._take(counter, place)
            special |= self._take(counter, place)
        return special

    def _count_compiled(
        self,
        loops: CompiledCounting,
        block: NDArray[Any],
        places: list[int],
        mask: NDArray[np.bool_] | None,
        runs: NDArray[np.int64] | None,
    ) -> bool:
        """Do as `_count`, run by run of the mask; what was found before counts too."""
        if mask is None:
            runs = np.array([[0, block.shape[1]]], np.int64)
        else:
            verify_mask(mask, block.shape[1])
            runs = runs_inside(mask) if runs is None else runs
        if self._tallies is None:
            self._tallies = tallies_for(self._bins, len(self._parts))
        special, self._untaken = False, True
        for row, place in zip(block, places, strict=True):
            pixels = np.ascontiguousarray(row, self.dtype)
            for part in self._tallies.add(loops, place, pixels, runs):
                self._add(place, part)
                special |= self._bins.special(part.bins)
            special |= self._tallies.special(place)
        return special

    def _take(self, counter: Counter, place: int) -> bool:
        """Keep what a counter has, as a channel's; whether there are NaN or infinities in it."""
        part = counter.taken()
        self._add(place, part)
        return self._bins.special(part.bins)

    def _take_all(self) -> None:
        """Keep what the tallies have; asked for each channel, of which only the first time is work."""
        if self._tallies is not None and self._untaken:
            self._untaken = False
            for place, part in enumerate(self._tallies.take()):
                self._add(place, part)

    def _add(self, place: int, part: ValueCounts) -> None:
        """Keep a part; those of a channel are added once there are many, which costs less."""
        parts = self._parts[place]
        if part.bins.size:
            parts.append(part)
        waiting = sum(each.bins.size for each in parts[1:])
        if waiting > max(_WAITING, parts[0].bins.size if parts else 0):
            fold(parts)

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


def _folded(parts: list[ValueCounts]) -> ValueCounts:
    """Return what was counted of a channel, its parts added in place."""
    fold(parts)
    return parts[0] if parts else NOTHING
