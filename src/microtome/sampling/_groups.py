"""Rows of a cohort that belong together: the tiles of a patient."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.errors import InvalidInputError

__all__ = ["RowGroups"]


@dataclass(frozen=True, slots=True, eq=False)
class RowGroups:
    """Which rows of a cohort may be drawn, and which of them are of one patient.

    Rows come as runs: stretches of consecutive rows, such as the tiles of a tissue in a table that
    lists tissue after tissue. Memory goes with the number of runs, not of rows.

    Parameters
    ----------
    start, length
        First row and number of rows of each run, (n,). Runs must not overlap; what lies in none
        is never drawn.
    group
        Number of the group of each run, (n,): any integers. By default each run is its own.

    Raises
    ------
    InvalidInputError
        If the arrays differ in length, a number is negative, or runs overlap.

    Examples
    --------
    >>> rows = RowGroups([0, 10, 14], [10, 4, 6], group=[7, 5, 7])
    >>> len(rows), rows.sizes.tolist()
    (20, [4, 16])
    >>> rows.rows([0, 3, 4, 14]).tolist()
    [10, 13, 0, 14]
    """

    start: ArrayLike
    length: ArrayLike
    group: ArrayLike | None = None
    sizes: NDArray[np.int64] = field(init=False, repr=False)
    """Rows of each group that has any, (groups,), in order of the groups' numbers."""
    _first: NDArray[np.int64] = field(init=False, repr=False)
    _place: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        start, length = _integers("start", self.start), _integers("length", self.length)
        group = np.arange(start.size) if self.group is None else _integers("group", self.group)
        if not start.size == length.size == group.size:
            msg = f"runs have one start, length and group each, got {start.size}, {length.size} and {group.size}"
            raise InvalidInputError(msg)
        if start.size and min(int(start.min()), int(length.min())) < 0:
            msg = "start and length of a run must be at least 0"
            raise InvalidInputError(msg)
        some = length > 0
        start, length, group = start[some], length[some], group[some]
        by_row = np.argsort(start, kind="stable")
        ends = (start + length)[by_row][:-1]
        clash = np.flatnonzero(start[by_row][1:] < ends)
        if clash.size:
            msg = f"row {start[by_row][clash[0] + 1]} lies in two runs; every row is of one group"
            raise InvalidInputError(msg)
        # Group after group, so that a group is a stretch of places.
        order = np.lexsort((start, group))
        start, length, group = start[order], length[order], group[order]
        place = np.concatenate([[0], np.cumsum(length)])
        first_run = np.flatnonzero(np.diff(group, prepend=group[:1] - 1))
        edges = np.append(place[first_run], place[-1])
        for name, value in (
            ("start", start),
            ("length", length),
            ("group", group),
            ("sizes", np.diff(edges)),
            ("_first", start),
            ("_place", place),
        ):
            object.__setattr__(self, name, value)

    @classmethod
    def all_of(cls, count: int) -> RowGroups:
        """Return ``count`` rows in one group."""
        return cls([0], [count])

    def __len__(self) -> int:
        return int(self._place[-1])

    @property
    def runs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First row of each run that has any, and where it begins in the order of the groups."""
        return self._first, self._place[:-1]

    def rows(self, places: ArrayLike) -> NDArray[np.int64]:
        """Return the rows at places in the order of the groups.

        Parameters
        ----------
        places
            (n,), each in ``[0, len(self))``: the rows of the first group come first.
        """
        at = np.asarray(places, np.int64)
        run = np.searchsorted(self._place, at, "right") - 1
        return self._first[run] + (at - self._place[run])


def _integers(name: str, values: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        msg = f"{name} must be integers, (n,), got {array.shape} {array.dtype}"
        raise InvalidInputError(msg)
    return array.astype(np.int64)
