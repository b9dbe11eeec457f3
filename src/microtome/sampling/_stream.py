"""What one cohort gives, one row after another, for ever; any stretch of it is computed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ._groups import RowGroups
from ._permutation import KEYS, mix, permute
from ._rule import SamplingRule

__all__ = ["RowStream", "drawn"]

# The increment of SplitMix64 (Steele, Lea and Flood, 2014): the golden ratio of 2^64.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def drawn(positions: NDArray[np.int64], keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return a random number for each position, (n,): output number `position` of SplitMix64.

    Scattered once more with a second key: the streams of two keys are else one stream, shifted.

    Parameters
    ----------
    positions
        (n,), at least 0.
    keys
        Two random numbers.
    """
    number = mix(keys[0] + (positions.astype(np.uint64) + np.uint64(1)) * _GOLDEN)
    return mix(number ^ keys[1])


@dataclass(frozen=True, slots=True, eq=False)
class _Patients:
    """The turns of patients in a round of a stream.

    In the first layer of a round every patient has a turn, in the second all that may have two, and
    so on: a patient's turns come in the order of their numbers, so that its own rows can go round
    in a circle, and a window of the stream that is no longer than a round has any patient at most
    as often as it may come.
    """

    sizes: NDArray[np.int64]
    """Rows of each patient, (patients,), most turns first."""
    turns: NDArray[np.int64]
    """Turns of each patient in a round, (patients,)."""
    first: NDArray[np.int64]
    """Place of each patient's first row among the cohort's, (patients,)."""
    edges: NDArray[np.int64]
    """Where in a round the number of patients in a layer changes, (changes + 1,)."""
    width: NDArray[np.int64]
    """Patients in a layer, (changes,)."""
    layer: NDArray[np.int64]
    """Number of the first layer that has so many, (changes,)."""

    @classmethod
    def of(cls, sizes: NDArray[np.int64], quota: int, *, replacement: bool) -> _Patients:
        turns = np.full_like(sizes, quota) if replacement else np.minimum(sizes, quota)
        order = np.argsort(-turns, kind="stable")
        first = np.cumsum(sizes) - sizes
        depths = np.unique(turns)
        # Layers up to a depth have the patients with at least so many turns.
        width = turns.size - np.searchsorted(np.sort(turns), depths)
        layer = np.concatenate([[0], depths])[:-1]
        edges = np.concatenate([[0], np.cumsum(np.diff(depths, prepend=0) * width)])
        return cls(sizes[order], turns[order], first[order], edges, width, layer)

    @classmethod
    def single(cls, count: int) -> _Patients:
        """Return ``count`` rows of nobody, each with one turn a round; they need no arrays."""
        none = np.empty(0, np.int64)
        one = np.asarray([count], np.int64)
        return cls(none, none, none, np.asarray([0, count]), one, np.zeros(1, np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class RowStream:
    """The rows that a cohort gives, each epoch a stretch that begins where the last one ended.

    A round has `slots` turns. Who has which turn is a fixed permutation, except that every round
    shuffles segments of it anew. Segments are as long as a window of `slots` less one segment can
    be: whoever was last in its segment in one round and is first in the next is still not seen
    twice by a window of the stated length.
    """

    count: int
    """Rows in all."""
    slots: int
    """Turns in a round: what an epoch can take at most without giving a row or patient too often."""
    groups: RowGroups | None
    patients: _Patients
    has_quota: bool
    replacement: bool
    keys: NDArray[np.uint64]
    segment: int = 1
    """Turns that are shuffled anew in every round."""

    @classmethod
    def of(cls, rows: int | RowGroups, cohort: int, rule: SamplingRule, seed: int) -> RowStream:
        """Return the stream of a cohort.

        Parameters
        ----------
        rows
            How many, or which and whose.
        cohort
            Number of the cohort, which chooses its stream.
        rule, seed
            Of the sampler.
        """
        groups = rows if isinstance(rows, RowGroups) else None
        count = rows if isinstance(rows, int) else len(rows)
        # Two words: those of an epoch are one.
        sequence = np.random.SeedSequence(seed, spawn_key=(cohort, 0))
        keys = sequence.generate_state(3 * KEYS, np.uint64).astype(np.uint64, copy=False)
        quota = rule.patient_quota
        if quota is None or groups is None:
            patients = _Patients.single(count)
        else:
            patients = _Patients.of(groups.sizes, quota, replacement=rule.replacement)
        return cls(
            count,
            int(patients.edges[-1]),
            groups,
            patients,
            quota is not None,
            rule.replacement,
            keys,
        )

    def for_windows(self, most: int) -> RowStream:
        """Return the stream for epochs that take at most so many rows of it."""
        return replace(self, segment=max(1, self.slots - most + 1))

    def rows(
        self, before: int, turn: NDArray[np.int64], chance: NDArray[np.uint64] | None
    ) -> NDArray[np.int64]:
        """Return the rows at turns of an epoch.

        Parameters
        ----------
        before
            Turns in all epochs before it.
        turn
            Turns in it, (n,), from 0.
        chance
            Random numbers, (n,), for draws with replacement.
        """
        if chance is not None and not self.has_quota:
            return self._numbered((chance % np.uint64(self.count)).astype(np.int64))
        known = self.patients
        # In Python's integers: turns of very many epochs may not fit 64 bits.
        turned, at = divmod(before, self.slots)
        at = at + turn
        # An epoch takes a round at most, so it begins one more round or none.
        again = at >= self.slots
        rounds = turned + again.astype(np.int64)
        at = np.where(again, at - self.slots, at)
        block = np.searchsorted(known.edges, at, "right") - 1
        width = known.width[block]
        deeper, index = np.divmod(at - known.edges[block], width)
        layer = known.layer[block] + deeper
        who = self._whose(at - index + rounds * self.slots, index, width, layer)
        if not self.has_quota:
            return self._numbered(who)
        size = known.sizes[who]
        if chance is not None:
            own = (chance % size.astype(np.uint64)).astype(np.int64)
        else:
            own = _permuted(
                (rounds * known.turns[who] + layer) % size, size, self.keys[2 * KEYS :], who
            )
        return self._numbered(known.first[who] + own)

    def _whose(
        self,
        begin: NDArray[np.int64],
        index: NDArray[np.int64],
        width: NDArray[np.int64],
        layer: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """Return who has a turn, by its index in a layer that begins at a place of the stream."""
        if self.segment > 1:
            first = index // self.segment * self.segment
            length = np.minimum(width - first, self.segment)
            # The place where a segment begins is its own in all of the stream.
            index = first + _permuted(index - first, length, self.keys[:KEYS], begin + first)
        return _permuted(index, width, self.keys[KEYS : 2 * KEYS], layer)

    def _numbered(self, place: NDArray[np.int64]) -> NDArray[np.int64]:
        return place if self.groups is None else self.groups.rows(place)


def _permuted(
    index: NDArray[np.int64],
    count: NDArray[np.int64],
    keys: NDArray[np.uint64],
    tweak: NDArray[np.int64],
) -> NDArray[np.int64]:
    return permute(
        index.astype(np.uint64), count.astype(np.uint64), keys, tweak.astype(np.uint64)
    ).astype(np.int64)
