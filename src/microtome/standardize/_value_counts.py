"""How often the values of a channel occur, by bin, and such counts added."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NOTHING", "ValueCounts", "fold", "joined"]

_Bins = NDArray[np.uint32]
_Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class ValueCounts:
    """How often the values of a channel occur, by bin."""

    bins: _Bins
    """(n,) ascending; not the order of their values."""
    counts: _Counts
    """(n,) pixels in each bin, at least 1."""
    places: _Counts | None = None
    """(n,) sum of the places of the pixels in their bin; None where a bin has one value."""

    @property
    def total(self) -> int:
        """Number of pixels."""
        return int(self.counts.sum())


NOTHING = ValueCounts(np.zeros(0, np.uint32), np.zeros(0, np.int64))


def fold(parts: list[ValueCounts]) -> None:
    """Add the parts of a channel, in place: one is left, or none."""
    if len(parts) > 1:
        places = [each.places for each in parts if each.places is not None]
        parts[:] = [
            joined(
                np.concatenate([each.bins for each in parts]),
                np.concatenate([each.counts for each in parts]),
                np.concatenate(places) if places else None,
            )
        ]


def joined(bins: NDArray[Any], counts: _Counts, places: _Counts | None) -> ValueCounts:
    """Add what is counted of equal bins."""
    if not bins.size:
        return NOTHING
    order = np.argsort(bins, kind="stable")
    bins, counts = bins[order].astype(np.uint32), counts[order]
    first = np.flatnonzero(np.concatenate([[True], bins[1:] != bins[:-1]]))
    return ValueCounts(
        bins[first],
        np.add.reduceat(counts, first),
        None if places is None else np.add.reduceat(places[order], first),
    )
