"""`CohortSampler`: the rows of several cohorts that an epoch draws, by position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from operator import index as as_index

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError, OutOfRangeError

from ._groups import RowGroups
from ._permutation import KEYS, permute
from ._rule import UNITS, SamplingRule, targets, whole
from ._stream import Begin, RowStreams, drawn
from ._turns import shares_of_epoch

__all__ = ["CohortSampler"]

_SEEDS = 2**64
_EPOCHS = 2**32
_MOST = 2**62
_DEFAULT = SamplingRule()


@dataclass(frozen=True, slots=True, eq=False)
class CohortSampler:
    """The draws of an epoch over several cohorts: a function of (seed, epoch, position).

    A batch costs the same in a table of a thousand rows and of 10^8: nothing is shuffled or stored.
    Ranks and workers share the positions out, as `microtome.loading.BatchPlan` does, and whoever
    resumes in the middle asks for the positions that are left.

    Which cohort stands where in an epoch is a random permutation of the cohorts' shares, a new one
    each epoch. Without replacement, a cohort's rows form a stream that goes on from one epoch to
    the next: no row comes twice in an epoch, and none a second time before all others had their
    turn; the order changes each time round as far as that allows. With a quota for patients the
    same holds of each patient's rows, and of the patients: each has a turn before one has a second.

    Parameters
    ----------
    counts
        The rows of each cohort: how many (``0 ... n - 1``), or which and whose, as `RowGroups`.
    rule
        What the epoch is made up of.
    seed
        From 0 to 2^64 - 1.
    epoch
        From 0 to 2^32 - 1.

    Raises
    ------
    InvalidInputError
        If a number is out of its range, or the epoch cannot be filled.

    Examples
    --------
    >>> sampler = CohortSampler([6, 600], SamplingRule(alpha=0.5, epoch_length=11), seed=1)
    >>> sampler.shares.tolist()
    [1, 10]
    >>> cohort, row = sampler.rows(0, len(sampler))
    >>> np.bincount(cohort).tolist()
    [1, 10]
    >>> bool((sampler.rows(3, 7)[1] == row[3:7]).all())
    True
    """

    counts: Sequence[int | RowGroups]
    rule: SamplingRule = _DEFAULT
    seed: int = 0
    epoch: int = 0
    shares: NDArray[np.int64] = field(init=False, repr=False)
    """Rows of each cohort in this epoch, (cohorts,)."""
    _edges: NDArray[np.int64] = field(init=False, repr=False)
    _begin: Begin = field(init=False, repr=False)
    _streams: RowStreams = field(init=False, repr=False)
    _targets: list[int] = field(init=False, repr=False)
    _keys: NDArray[np.uint64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name, most in (("seed", _SEEDS), ("epoch", _EPOCHS)):
            value = whole(name, getattr(self, name))
            if not 0 <= value < most:
                msg = f"{name} must be from 0 to {most - 1}, got {value}"
                raise InvalidInputError(msg)
        if not len(self.counts):
            msg = "there are no cohorts to draw from"
            raise InvalidInputError(msg)
        streams = RowStreams.of(self._verified(), self.rule, self.seed)
        aims = targets(self.rule, streams.slots.tolist())
        # What an epoch takes at most decides how much of the order may change from round to round.
        streams = streams.for_windows([-(-aim // UNITS) for aim in aims])
        object.__setattr__(self, "_streams", streams)
        object.__setattr__(self, "_targets", aims)
        self._turn_to(self.epoch)

    def _verified(self) -> list[int | RowGroups]:
        found: list[int | RowGroups] = []
        total = 0
        for cohort, given in enumerate(self.counts):
            rows = given if isinstance(given, RowGroups) else as_index(given)
            count = len(rows) if isinstance(rows, RowGroups) else rows
            total += count
            if count < 0 or total >= _MOST:
                msg = f"cohorts have 0 rows or more, and fewer than 2^62 together; cohort {cohort} has {count}"
                raise InvalidInputError(msg)
            if self.rule.patient_quota is not None and not isinstance(rows, RowGroups):
                msg = f"a patient_quota needs to know whose rows are whose; give those of cohort {cohort} as RowGroups"
                raise InvalidInputError(msg)
            found.append(rows)
        return found

    def _turn_to(self, epoch: int) -> None:
        begin = np.random.SeedSequence(self.seed).generate_state(1, np.uint32)
        shares, before = shares_of_epoch(self._targets, epoch, int(begin[0]))
        # The epoch as spawn key, not as a second word of entropy: SeedSequence joins words, and
        # (seed 5, epoch 1) would be (seed 2^32 + 5, epoch 0).
        keys = np.random.SeedSequence(self.seed, spawn_key=(epoch,))
        for name, value in (
            ("epoch", epoch),
            ("shares", np.asarray(shares, np.int64)),
            ("_edges", np.concatenate([[0], np.cumsum(shares, dtype=np.int64)])),
            ("_begin", self._streams.begin(before)),
            ("_keys", keys.generate_state(KEYS + 2, np.uint64)),
        ):
            object.__setattr__(self, name, value)

    def at_epoch(self, epoch: int) -> CohortSampler:
        """Return the draws of another epoch."""
        if not 0 <= whole("epoch", epoch) < _EPOCHS:
            return replace(self, epoch=epoch)  # refuses it
        # What does not depend on the epoch is kept: it took going through all patients.
        other = object.__new__(CohortSampler)
        for name in ("counts", "rule", "seed", "_streams", "_targets"):
            object.__setattr__(other, name, getattr(self, name))
        other._turn_to(epoch)
        return other

    def __len__(self) -> int:
        """Rows of the epoch."""
        return int(self._edges[-1])

    def rows(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return what is drawn at positions ``start ... stop - 1``.

        Parameters
        ----------
        start, stop
            Half-open interval in ``[0, len(self)]``.

        Returns
        -------
        Numbers of the cohorts and of the rows in them, (stop - start,) each, in time and memory
        proportional to their number.

        Raises
        ------
        OutOfRangeError
            If the interval does not lie inside the epoch.
        """
        if not 0 <= start <= stop <= len(self):
            msg = f"positions [{start}, {stop}) are not among the {len(self)} of an epoch"
            raise OutOfRangeError(msg)
        return self.at(np.arange(start, stop, dtype=np.int64))

    def at(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return what is drawn at any positions, (n,), each in ``[0, len(self))``; as `rows`.

        Raises
        ------
        OutOfRangeError
            If one is outside.
        """
        wrong = positions[(positions < 0) | (positions >= len(self))]
        if wrong.size:
            msg = f"position {wrong[0]} is not among the {len(self)} of an epoch"
            raise OutOfRangeError(msg)
        place = permute(
            positions.astype(np.uint64),
            np.full(positions.shape, len(self), np.uint64),
            self._keys[:KEYS],
            np.zeros(positions.shape, np.uint64),
        ).astype(np.int64)
        cohort = np.searchsorted(self._edges, place, "right") - 1
        chance = drawn(positions, self._keys[KEYS:]) if self.rule.replacement else None
        return cohort, self._streams.rows(self._begin, cohort, place - self._edges[cohort], chance)
