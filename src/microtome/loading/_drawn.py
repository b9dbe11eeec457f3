"""Orders that draw rows by what a column says of them: balanced, tempered, weighted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast, get_args
from zlib import crc32

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.errors import InvalidInputError, UnknownNameError
from microtome.sampling import CohortSampler, RowGroups, SamplingRule, drawn

from ._order import positions, whole

__all__ = ["DrawnOrder", "MissingValues", "WeightedOrder"]

MissingValues = Literal["raise", "drop"]
"""What becomes of rows of which a column says nothing: refused, or never drawn."""


@dataclass(frozen=True, slots=True, eq=False)
class DrawnOrder:
    """Rows drawn by what a column says of them; made by `DrawnOrder.by`.

    Parameters
    ----------
    sampler
        Draws (group, place in it); a group is the rows of one value.
    values
        The value of each group.
    members
        Rows of the groups, one after another, (n,).
    first
        Where each group begins in them, (groups,).
    table_rows
        Rows of the table, those included that are in no group; by default there are none.
    """

    sampler: CohortSampler
    values: tuple[Any, ...]
    members: NDArray[np.int64]
    first: NDArray[np.int64]
    table_rows: int | None = None

    @classmethod
    def by(  # noqa: PLR0913 - what a sampling rule has
        cls,
        column: ArrayLike,
        *,
        alpha: float = 0.0,
        weights: Mapping[Any, float] | None = None,
        epoch_length: int | None = None,
        replacement: bool = False,
        patients: ArrayLike | None = None,
        patient_quota: int | None = None,
        missing: MissingValues = "raise",
        seed: int = 0,
        epoch: int = 0,
    ) -> DrawnOrder:
        """Return an order in which the values of a column have stated shares.

        Without replacement a value's rows go on from one epoch to the next, so that all of them are
        seen before one comes again; see `SamplingRule` for all that is said here.

        Parameters
        ----------
        column
            One value a row of the table, (n,): a class, a tissue, a cohort, a patient.
        alpha
            A value that n rows have weighs n^alpha: 0 for equal shares (class balance), 1 as they
            are, between them tempered.
        weights
            Weights by value instead, of all that there are; 0 leaves one out.
        epoch_length
            Rows of an epoch. By default the most for which shares hold and no row comes twice.
        replacement
            Whether a row may come more than once in an epoch: a rare value then fills its share.
        patients, patient_quota
            Whose each row is, (n,), and how many rows of one patient an epoch has at most.
        missing
            What becomes of rows without a value, or without a patient where `patients` are given:
            None or NaN. ``"raise"``, or ``"drop"``: they are drawn in no epoch.
        seed, epoch
            Choose the draws.

        Raises
        ------
        InvalidInputError
            If a number is out of its range, a value is missing, weights do not speak of all values, or
            the epoch cannot be filled.
        UnknownNameError
            If a weight is of a value that no row has.

        Examples
        --------
        >>> labels = ["tumour"] * 2 + ["stroma"] * 98
        >>> order = DrawnOrder.by(labels, epoch_length=40, replacement=True, seed=1)
        >>> drawn = np.asarray(labels)[order.rows(0, 40)]
        >>> int((drawn == "tumour").sum())
        20
        """
        given = np.asarray(column)
        if given.ndim != 1 or not given.size:
            msg = f"a column has one value a row, got shape {given.shape}"
            raise InvalidInputError(msg)
        whose = None if patients is None else np.asarray(patients)
        if whose is not None and whose.shape != given.shape:
            msg = f"patients has one value a row, {given.size}, got shape {whose.shape}"
            raise InvalidInputError(msg)
        there = _there(given, whose, missing)
        values, code = _coded("the column", given[there])
        names = values.tolist()
        members = np.argsort(code, kind="stable")
        first = np.searchsorted(code[members], np.arange(len(names)))
        rule = SamplingRule(
            1.0 if weights is not None else alpha,
            None if weights is None else _by_value(weights, alpha, names),
            patient_quota=patient_quota,
            replacement=replacement,
            epoch_length=epoch_length,
        )
        if whose is not None:
            members, groups = _by_patient(members, first, whose[there])
        else:
            groups = np.diff(np.append(first, members.size)).tolist()
        seed, epoch = whole("seed", seed, 0, 2**64 - 1), whole("epoch", epoch, 0, 2**32 - 1)
        sampler = CohortSampler(groups, rule, seed, epoch)
        return cls(sampler, tuple(names), there[members], first, given.size)

    @property
    def kind(self) -> str:
        """Name of the order."""
        return "drawn"

    @property
    def seed(self) -> int:
        """Its seed."""
        return self.sampler.seed

    @property
    def epoch(self) -> int:
        """Its epoch."""
        return self.sampler.epoch

    @property
    def count(self) -> int:
        """Positions of an epoch."""
        return len(self.sampler)

    @property
    def over(self) -> int:
        """Rows of the table."""
        return self.members.size if self.table_rows is None else self.table_rows

    @property
    def rule(self) -> str:
        """What else the order depends on, as a text."""
        return f"{self.sampler.rule}, {crc32(self.members.tobytes()):08x}"

    @property
    def shares(self) -> dict[Any, int]:
        """How many rows of each value this epoch has."""
        return dict(zip(self.values, self.sampler.shares.tolist(), strict=True))

    def at(self, seed: int, epoch: int) -> DrawnOrder:
        """Return the order of another seed and epoch."""
        epoch = whole("epoch", epoch, 0, 2**32 - 1)
        if seed == self.sampler.seed:
            return replace(self, sampler=self.sampler.at_epoch(epoch))
        sampler = CohortSampler(self.sampler.counts, self.sampler.rule, seed, epoch)
        return replace(self, sampler=sampler)

    def rows(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the rows that stand at positions ``start ... stop - 1``.

        Raises
        ------
        OutOfRangeError
            If the interval does not lie inside the epoch.
        """
        group, place = self.sampler.rows(start, stop)
        return self.members[self.first[group] + place]


def _there(
    column: NDArray[Any], patients: NDArray[Any] | None, missing: MissingValues
) -> NDArray[np.int64]:
    """Return the rows that may be drawn: all, or those of which everything is known."""
    if missing not in get_args(MissingValues):
        msg = f"missing must be one of {get_args(MissingValues)}, got {missing!r}"
        raise InvalidInputError(msg)
    for what, given in (("value", column), ("patient", patients)):
        lost = np.flatnonzero(_is_missing(given)) if given is not None else []
        if len(lost) and missing == "raise":
            msg = (
                f"{len(lost)} of {column.size} rows have no {what} (None or NaN), row {lost[0]} is the "
                "first: missing='drop' never draws them"
            )
            raise InvalidInputError(msg)
    lost = _is_missing(column)
    if patients is not None:
        lost |= _is_missing(patients)
    if lost.all():
        msg = f"none of the {column.size} rows has a value: there is nothing to draw"
        raise InvalidInputError(msg)
    return np.flatnonzero(~lost)


def _is_missing(values: NDArray[Any]) -> NDArray[np.bool_]:
    if values.dtype.kind in "fc":
        return np.isnan(values)
    if values.dtype.kind in "mM":
        return np.isnat(values)
    if values.dtype.kind != "O":
        return np.zeros(values.shape, np.bool_)
    return np.fromiter(map(_is_nothing, values.tolist()), np.bool_, values.size)


def _is_nothing(value: Any) -> bool:
    # NaN is the float that is not itself; pandas' own of missing values do not even say that.
    nan = isinstance(value, float) and value != value  # noqa: PLR0124
    return value is None or nan or type(value).__name__ in {"NAType", "NaTType"}


def _coded(what: str, values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return what values there are, sorted, and for each row the number of its own."""
    try:
        found, code = np.unique(values, return_inverse=True)
    except TypeError:
        kinds = sorted({type(value).__name__ for value in values.tolist()})
        msg = f"{what} has values of several types, {', '.join(kinds)}; give them all as text"
        raise InvalidInputError(msg) from None
    return found, cast("NDArray[np.int64]", code)


def _by_value(weights: Mapping[Any, float], alpha: float, names: list[Any]) -> list[float]:
    unknown = [value for value in weights if value not in names]
    if unknown:
        msg = f"weights speak of {unknown[:4]}, and no row has such a value; there are {names[:8]}"
        raise UnknownNameError(msg)
    silent = [value for value in names if value not in weights]
    if silent:
        more = f" and {len(silent) - 4} more" if silent[4:] else ""
        msg = f"weights say nothing of {silent[:4]}{more}; give them 0 to leave them out"
        raise InvalidInputError(msg)
    if alpha != 0:
        msg = f"alpha={alpha} and weights both say how values are weighted; leave one out"
        raise InvalidInputError(msg)
    return [float(weights[value]) for value in names]


def _by_patient(
    members: NDArray[np.int64], first: NDArray[np.int64], patients: NDArray[Any]
) -> tuple[NDArray[np.int64], list[RowGroups]]:
    """Sort each group's rows by patient; return them, and whose places of each group are whose."""
    _, who = _coded("patients", patients)
    sorted_rows, groups = members.copy(), list[RowGroups]()
    for start, stop in zip(first, np.append(first[1:], members.size), strict=True):
        own = members[start:stop]
        own = own[np.argsort(who[own], kind="stable")]
        sorted_rows[start:stop] = own
        person, begin = np.unique(who[own], return_index=True)
        groups.append(RowGroups(begin, np.diff(np.append(begin, own.size)), person))
    return sorted_rows, groups


@dataclass(frozen=True, slots=True, eq=False)
class WeightedOrder:
    """Rows drawn with probabilities in proportion to their weights, each draw by itself.

    Parameters
    ----------
    weights
        One a row of the table, (n,), finite and at least 0.
    epoch_length
        Draws of an epoch; by default as many as there are rows.
    seed
        From 0 to 2^64 - 1.
    epoch
        From 0 to 2^32 - 1.

    Raises
    ------
    InvalidInputError
        If a number is out of its range, or no row has a weight.

    Examples
    --------
    >>> order = WeightedOrder([0, 1, 3], epoch_length=4000, seed=2)
    >>> np.bincount(order.rows(0, 4000), minlength=3).tolist()
    [0, 1047, 2953]
    """

    weights: ArrayLike
    epoch_length: int | None = None
    seed: int = 0
    epoch: int = 0
    _edges: NDArray[np.float64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            given = np.asarray(self.weights, np.float64)
        except (TypeError, ValueError):
            msg = f"weights are numbers, one a row, got {self.weights!r}"
            raise InvalidInputError(msg) from None
        if given.ndim != 1 or not given.size:
            msg = f"weights are one a row, (n,), got shape {given.shape}"
            raise InvalidInputError(msg)
        wrong = np.flatnonzero(~(np.isfinite(given) & (given >= 0)))
        if wrong.size or not given.any():
            what = "and not all of them 0"
            if wrong.size:
                what = (
                    f"got {given[wrong[0]]} in row {wrong[0]}, the first of {wrong.size} of {given.size} "
                    "rows; give those that are not to be drawn 0"
                )
            msg = f"weights must be finite and at least 0, {what}"
            raise InvalidInputError(msg)
        if self.epoch_length is not None:
            whole("epoch_length", self.epoch_length, 1)
        for name, most in (("seed", 2**64 - 1), ("epoch", 2**32 - 1)):
            object.__setattr__(self, name, whole(name, getattr(self, name), 0, most))
        object.__setattr__(self, "weights", given)
        object.__setattr__(self, "_edges", np.cumsum(given))

    @property
    def kind(self) -> str:
        """Name of the order."""
        return "weighted"

    @property
    def count(self) -> int:
        """Positions of an epoch."""
        return self.over if self.epoch_length is None else self.epoch_length

    @property
    def over(self) -> int:
        """Rows of the table."""
        return self._edges.size

    @property
    def rule(self) -> str:
        """What else the order depends on, as a text."""
        return f"{crc32(self._edges.tobytes()):08x}"

    def at(self, seed: int, epoch: int) -> WeightedOrder:
        """Return the order of another seed and epoch."""
        return replace(self, seed=seed, epoch=epoch)

    def rows(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the rows that stand at positions ``start ... stop - 1``.

        Raises
        ------
        OutOfRangeError
            If the interval does not lie inside the epoch.
        """
        position = positions(start, stop, self.count)
        sequence = np.random.SeedSequence(self.seed, spawn_key=(self.epoch,))
        keys = sequence.generate_state(2, np.uint64).astype(np.uint64, copy=False)
        chance = drawn(position, keys)
        # The upper 53 bits are what a double holds: a number in [0, 1).
        share = (chance >> np.uint64(11)).astype(np.float64) * 2.0**-53
        edges = self._edges
        found = np.searchsorted(edges, share * edges[-1], "right")
        # The product may round up to the whole: that is the last row that has a weight.
        return np.minimum(found, np.searchsorted(edges, edges[-1], "left"))
