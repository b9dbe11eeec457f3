"""What cohorts give, each one row after another, for ever; any stretch of it is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ._groups import RowGroups
from ._permutation import KEYS, mix, permute
from ._rule import SamplingRule

__all__ = ["Begin", "RowStreams", "drawn"]

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
    """The turns of patients in a round of a cohort's stream.

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
        some = np.asarray([count] if count else [], np.int64)
        edges = np.asarray([0, count] if count else [0], np.int64)
        return cls(none, none, none, edges, some, np.zeros_like(some))


@dataclass(frozen=True, slots=True, eq=False)
class Begin:
    """Where each cohort's stream stands when an epoch begins."""

    rounds: NDArray[np.int64]
    """Rounds that are over, (cohorts,)."""
    turns: NDArray[np.int64]
    """Turns that are over in the round under way, (cohorts,)."""


@dataclass(frozen=True, slots=True, eq=False)
class RowStreams:
    """The rows that cohorts give, each epoch a stretch that begins where the last one ended.

    A round of a cohort has `slots` turns. Who has which turn is a fixed permutation, except that
    every round shuffles segments of it anew. Segments are as long as a window of `slots` less one
    segment can be: whoever was last in its segment in one round and is first in the next is still
    not seen twice by a window of the stated length.

    All cohorts are kept as one, each in a stretch of its own of every array, so that a batch over
    a hundred of them is computed in one go.
    """

    counts: NDArray[np.int64]
    """Rows in all, (cohorts,)."""
    slots: NDArray[np.int64]
    """Turns in a round: what an epoch can take at most without giving a row or patient too often."""
    segments: NDArray[np.int64]
    """Turns that are shuffled anew in every round, (cohorts,)."""
    replacement: bool
    has_quota: bool
    keys: NDArray[np.uint64]
    tweaks: NDArray[np.uint64]
    """What makes the permutations of a cohort its own, (cohorts,)."""
    known: _Patients
    """Of all cohorts, places counted through."""
    run_first: NDArray[np.int64]
    """First row of each run of rows, (runs,)."""
    run_edges: NDArray[np.int64]
    """Where each run begins, rows of all cohorts counted through, (runs,)."""
    rows_before: NDArray[np.int64]
    """Rows of the cohorts before each one, (cohorts,); likewise of slots and of patients."""
    slots_before: NDArray[np.int64]
    patients_before: NDArray[np.int64]

    @classmethod
    def of(cls, cohorts: Sequence[int | RowGroups], rule: SamplingRule, seed: int) -> RowStreams:
        """Return the streams of cohorts.

        Parameters
        ----------
        cohorts
            How many rows each has, or which and whose.
        rule, seed
            Of the sampler.
        """
        quota = rule.patient_quota
        groups = [c if isinstance(c, RowGroups) else RowGroups.all_of(c) for c in cohorts]
        if quota is None:
            found = [_Patients.single(len(g)) for g in groups]
        else:
            found = [_Patients.of(g.sizes, quota, replacement=rule.replacement) for g in groups]
        counts = np.asarray([len(g) for g in groups], np.int64)
        slots = np.asarray([int(patients.edges[-1]) for patients in found], np.int64)
        people = np.asarray([patients.sizes.size for patients in found], np.int64)
        rows_before, slots_before = _before(counts), _before(slots)
        # A word of its own for each cohort: one that joins the others later does not change them.
        words = [np.random.SeedSequence(seed, spawn_key=(i, 0)) for i in range(len(found))]
        # Three words: those of an epoch are one, those of a cohort are two.
        keys = np.random.SeedSequence(seed, spawn_key=(0, 0, 0))
        return cls(
            counts,
            slots,
            np.ones_like(slots),
            rule.replacement,
            quota is not None,
            keys.generate_state(3 * KEYS, np.uint64).astype(np.uint64, copy=False),
            np.asarray([w.generate_state(1, np.uint64)[0] for w in words], np.uint64),
            _joined(found, slots_before),
            np.concatenate([g.runs[0] for g in groups]),
            np.concatenate([g.runs[1] + b for g, b in zip(groups, rows_before, strict=True)]),
            rows_before,
            slots_before,
            _before(people),
        )

    def for_windows(self, most: Sequence[int]) -> RowStreams:
        """Return the streams for epochs that take at most so many rows of each cohort."""
        segments = np.maximum(1, self.slots - np.asarray(most, np.int64) + 1)
        return replace(self, segments=segments)

    def begin(self, before: Sequence[int]) -> Begin:
        """Return where the streams stand after so many turns of each."""
        if self.replacement and not self.has_quota:
            return Begin(np.zeros_like(self.slots), np.zeros_like(self.slots))  # no rounds
        # In Python's integers: turns of very many epochs may not fit 64 bits.
        both = [divmod(b, max(s, 1)) for b, s in zip(before, self.slots.tolist(), strict=True)]
        rounds, turns = zip(*both, strict=True)
        return Begin(np.asarray(rounds, np.int64), np.asarray(turns, np.int64))

    def rows(
        self,
        begin: Begin,
        cohort: NDArray[np.int64],
        turn: NDArray[np.int64],
        chance: NDArray[np.uint64] | None,
    ) -> NDArray[np.int64]:
        """Return the rows at turns of an epoch.

        Parameters
        ----------
        begin
            Where the streams stand.
        cohort, turn
            Numbers of the cohorts, and of the turns of each in the epoch from 0, (n,).
        chance
            Random numbers, (n,), for draws with replacement.
        """
        if chance is not None and not self.has_quota:
            place = (chance % self.counts[cohort].astype(np.uint64)).astype(np.int64)
            return self._numbered(cohort, place)
        known, slots = self.known, self.slots[cohort]
        at = begin.turns[cohort] + turn
        # An epoch takes a round at most, so it begins one more round or none.
        again = at >= slots
        rounds = begin.rounds[cohort] + again
        at = np.where(again, at - slots, at)
        tweak = self.tweaks[cohort]
        through = at + self.slots_before[cohort]
        block = np.searchsorted(known.edges, through, "right") - 1
        width = known.width[block]
        deeper, index = np.divmod(through - known.edges[block], width)
        layer = known.layer[block] + deeper
        # The place where a segment begins is its own in all of the stream.
        segment = self.segments[cohort]
        first = index // segment * segment
        own = tweak + (rounds * slots + at - index + first).astype(np.uint64)
        length = np.minimum(width - first, segment)
        index = first + _permuted(index - first, length, self.keys[:KEYS], own)
        own = tweak + layer.astype(np.uint64)
        who = _permuted(index, width, self.keys[KEYS : 2 * KEYS], own)
        if not self.has_quota:
            return self._numbered(cohort, who)
        # Patients of all cohorts, counted through.
        patient = who + self.patients_before[cohort]
        size = known.sizes[patient]
        if chance is not None:
            inside = (chance % size.astype(np.uint64)).astype(np.int64)
        else:
            inside = (rounds * known.turns[patient] + layer) % size
            own = tweak + who.astype(np.uint64)
            inside = _permuted(inside, size, self.keys[2 * KEYS :], own)
        return self._numbered(cohort, known.first[patient] + inside)

    def _numbered(self, cohort: NDArray[np.int64], place: NDArray[np.int64]) -> NDArray[np.int64]:
        through = place + self.rows_before[cohort]
        run = np.searchsorted(self.run_edges, through, "right") - 1
        return self.run_first[run] + (through - self.run_edges[run])


def _before(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many there are before each, (n,)."""
    return np.cumsum(counts) - counts


def _joined(found: Sequence[_Patients], slots_before: NDArray[np.int64]) -> _Patients:
    return _Patients(
        np.concatenate([p.sizes for p in found]),
        np.concatenate([p.turns for p in found]),
        np.concatenate([p.first for p in found]),
        np.concatenate([p.edges[:-1] + b for p, b in zip(found, slots_before, strict=True)]),
        np.concatenate([p.width for p in found]),
        np.concatenate([p.layer for p in found]),
    )


def _permuted(
    index: NDArray[np.int64],
    count: NDArray[np.int64],
    keys: NDArray[np.uint64],
    tweak: NDArray[np.uint64],
) -> NDArray[np.int64]:
    return permute(index.astype(np.uint64), count.astype(np.uint64), keys, tweak).astype(np.int64)
