"""How much of each cohort an epoch has."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from operator import index as as_index

from microtome.errors import InvalidInputError

__all__ = ["UNITS", "SamplingRule", "targets", "whole"]

UNITS = 2**32
"""Parts of a row in which shares are counted: what they are rounded to is below any epoch's notice."""

_MOST = 2**62
_ROUNDING = Fraction(1, 10**6)


@dataclass(frozen=True, slots=True)
class SamplingRule:
    """How an epoch over several cohorts is made up; everything about it that is not chance.

    Each cohort has a *share* of the epoch proportional to its weight. Where a share would exceed
    what the cohort may give (all its rows without replacement, or a quota), the cohort gives
    that, and **the rest goes to the other cohorts in proportion to their weights**. An epoch that
    cannot be filled is refused.

    Shares are seldom whole. A cohort gives the whole number below or above, by turns, so that
    every epoch has its exact length and over epochs each cohort gives on average exactly its share,
    however small: none is rounded away.

    Parameters
    ----------
    alpha
        Weights are n^alpha, n being the rows that a cohort may give in an epoch for its patients'
        sake (all of them without `patient_quota`). From 0, equal cohorts, to 1, in proportion to
        their size.
    weights
        Weights by cohort instead; only their ratios count. 0 leaves a cohort out.
    cohort_quota
        One number: at most so many rows of each cohort in an epoch. A number for each cohort:
        exactly so many, and neither weights nor an epoch length.
    patient_quota
        At most so many rows of one patient in an epoch.
    replacement
        Whether a row may be drawn more than once in an epoch. If so every draw is independent of
        the others; if not, an epoch goes on in a cohort where the last one ended, so that all rows
        are visited equally often.
    epoch_length
        Rows of an epoch. By default the most for which shares are in proportion and no row is
        drawn twice, which is all rows with ``alpha=1``; with replacement, as many as there are
        rows. Of that, a cohort's quota takes off what exceeds it.

    Raises
    ------
    InvalidInputError
        If a number is out of its range, or two contradict each other.
    """

    alpha: float = 1.0
    weights: Sequence[float] | None = None
    cohort_quota: int | Sequence[int] | None = None
    patient_quota: int | None = None
    replacement: bool = False
    epoch_length: int | None = None

    def __post_init__(self) -> None:
        if not (_is_number(self.alpha) and 0 <= self.alpha <= 1):
            msg = f"alpha must be from 0 (equal shares) to 1 (by size), got {self.alpha!r}"
            raise InvalidInputError(msg)
        if self.weights is not None:
            if self.alpha != 1:
                msg = f"alpha={self.alpha} and weights both say how cohorts are weighted; leave one out"
                raise InvalidInputError(msg)
            wrong = [w for w in self.weights if not (_is_number(w) and math.isfinite(w) and w >= 0)]
            if wrong or not any(self.weights):
                what = f"got {wrong[0]!r}" if wrong else "and not all of them 0"
                msg = f"weights must be finite and at least 0, {what}"
                raise InvalidInputError(msg)
        for name in ("patient_quota", "epoch_length"):
            value = getattr(self, name)
            if value is not None and not 1 <= whole(name, value) <= _MOST:
                msg = f"{name} must be at least 1, got {value}"
                raise InvalidInputError(msg)
        quota = self.cohort_quota
        if quota is None:
            return
        if isinstance(quota, Sequence):
            if any(whole("cohort_quota", q) < 0 for q in quota) or not any(quota):
                msg = f"cohort_quota must be at least 0 for each cohort and above 0 for one, got {list(quota)}"
                raise InvalidInputError(msg)
            if self.weights is not None or self.alpha != 1 or self.epoch_length is not None:
                msg = (
                    "a cohort_quota for each cohort says exactly how many rows it gives; leave out "
                    "alpha, weights and epoch_length"
                )
                raise InvalidInputError(msg)
        elif whole("cohort_quota", quota) < 1:
            msg = f"cohort_quota must be at least 1, got {quota}"
            raise InvalidInputError(msg)


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real)


def whole(name: str, value: object) -> int:
    """Return a whole number; InvalidInputError where it is none."""
    try:
        return as_index(value)  # pyright: ignore[reportArgumentType] (what it refuses is the question)
    except TypeError:
        msg = f"{name} must be a whole number, got {value!r}"
        raise InvalidInputError(msg) from None


def targets(rule: SamplingRule, sizes: Sequence[int]) -> list[int]:
    """Return what each cohort gives an epoch on average, in parts of a row.

    Parameters
    ----------
    rule
        The rule.
    sizes
        Rows that each cohort can give in an epoch without giving one twice or exceeding a patient's
        quota; with replacement, those that it would give.

    Returns
    -------
    Shares times `UNITS`; their sum is a whole number of rows, and none is above what the cohort
    may give.

    Raises
    ------
    InvalidInputError
        If the epoch cannot be filled, or the rule speaks of another number of cohorts.
    """
    quota = rule.cohort_quota
    # Draws with replacement run out only where patients have a quota.
    endless = rule.replacement and rule.patient_quota is None
    most = [_MOST if endless and size else size for size in sizes]
    if isinstance(quota, Sequence):
        _verify_count("cohort_quota", quota, sizes)
        short = [i for i, (q, m) in enumerate(zip(quota, most, strict=True)) if q > m]
        if short:
            msg = f"cohort {short[0]} can give {most[short[0]]} rows an epoch, and its cohort_quota is {quota[short[0]]}; {_remedy(rule)}"
            raise InvalidInputError(msg)
        return [int(q) * UNITS for q in quota]
    weight = _weights(rule, sizes)
    caps = most if quota is None else [min(int(quota), m) for m in most]
    length = rule.epoch_length
    if length is None:
        length = _natural_length(rule, weight, sizes, caps)
    room = sum(cap for cap, w in zip(caps, weight, strict=True) if w > 0)
    if length > room:
        msg = f"an epoch of {length} rows, and {room} can be drawn for it; {_remedy(rule)}"
        raise InvalidInputError(msg)
    return _filled(length, weight, caps)


def _remedy(rule: SamplingRule) -> str:
    ways = ["ask for fewer"]
    if rule.patient_quota is not None or isinstance(rule.cohort_quota, int):
        ways.append("raise the quota")
    if not rule.replacement:
        ways.append("draw with replacement=True")
    return " or ".join(ways)


def _verify_count(name: str, values: Sequence[float], sizes: Sequence[int]) -> None:
    if len(values) != len(sizes):
        msg = f"{name} has {len(values)} values for {len(sizes)} cohorts"
        raise InvalidInputError(msg)


def _weights(rule: SamplingRule, sizes: Sequence[int]) -> list[float]:
    if rule.weights is None:
        # An empty cohort has no share, although 0^0 is 1.
        return [float(size) ** rule.alpha if size else 0.0 for size in sizes]
    _verify_count("weights", rule.weights, sizes)
    empty = [i for i, (w, s) in enumerate(zip(rule.weights, sizes, strict=True)) if w and not s]
    if empty:
        msg = (
            f"cohort {empty[0]} has no rows to draw and weight {rule.weights[empty[0]]}; give it 0"
        )
        raise InvalidInputError(msg)
    return [float(w) for w in rule.weights]


def _natural_length(
    rule: SamplingRule, weight: Sequence[float], sizes: Sequence[int], caps: Sequence[int]
) -> int:
    some = [i for i, w in enumerate(weight) if w > 0]
    if not some:
        msg = "there are no rows to draw from"
        raise InvalidInputError(msg)
    # Exact: the rows of large cohorts have more digits than a double.
    exact = {i: Fraction(weight[i]) for i in some}
    if rule.replacement:
        scale = Fraction(sum(sizes[i] for i in some)) / sum(exact.values())
    else:
        scale = min(sizes[i] / exact[i] for i in some)
    total = sum((min(Fraction(caps[i]), scale * exact[i]) for i in some), Fraction(0))
    # What rounding has taken off the weights must not take off a row.
    return max(1, min(math.floor(total + _ROUNDING), sum(caps[i] for i in some)))


def _filled(length: int, weight: Sequence[float], caps: Sequence[int]) -> list[int]:
    """Pour an epoch into the cohorts in proportion to their weights, each up to its cap."""
    given = [0] * len(weight)
    # Those that fill up first in the order in which they do: weight large, cap small.
    order = sorted((i for i, w in enumerate(weight) if w > 0), key=lambda i: caps[i] / weight[i])
    exact = [Fraction(w) for w in weight]
    left, rest = length * UNITS, sum((exact[i] for i in order), Fraction(0))
    full = 0
    for i in order:
        cap = caps[i] * UNITS
        if cap * rest > left * exact[i]:
            break
        given[i] = cap
        left -= cap
        rest -= exact[i]
        full += 1
    for i in order[full:]:
        given[i] = int(left * exact[i] // rest)
    # Whole parts leave fewer over than there are cohorts.
    over = length * UNITS - sum(given)
    for i in reversed(order):
        more = min(over, caps[i] * UNITS - given[i])
        given[i] += more
        over -= more
    return given
