"""Putting rows that somebody brings into a table that is there: nothing is lost, nothing overwritten unasked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from microtome.errors import ExistsError, FormatError, InvalidInputError

from ._given import as_type

__all__ = ["Merge", "listed", "refuse_repeated"]

# Of any number of rows that are wrong, these are named.
MOST_NAMED = 10


def listed(items: Sequence[object], most: int = MOST_NAMED) -> str:
    """Return the first of some things as one text."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(str(item) for item in items[:most]) + more


@dataclass(frozen=True, slots=True, eq=False)
class Merge:
    """Rows of a given table beside those of one that is there.

    Parameters
    ----------
    old, given
        The tables.
    keys
        Columns that name a row of `given`; several rows of `old` may have the same.
    place
        The file of `old`, for messages.
    rows
        For each pair of rows that have the same keys, the place in `old`.
    sources
        The same, the place in `given`.
    """

    old: pa.Table
    given: pa.Table
    keys: tuple[str, ...]
    place: str
    rows: NDArray[np.int64]
    sources: NDArray[np.int64]

    @classmethod
    def of(cls, old: pa.Table, given: pa.Table, keys: Sequence[str], place: str) -> Merge:
        """Find the rows that have the same keys."""
        sides: list[pa.Table] = []
        for table, number in ((old, "_row"), (given, "_source")):
            kinds = {
                k: pa.int64() if pa.types.is_integer(given[k].type) else pa.string() for k in keys
            }
            columns = _keys(table, kinds, place)
            sides.append(pa.table({**columns, number: pa.array(np.arange(table.num_rows))}))
        joined = sides[0].join(sides[1], list(keys), join_type="inner").sort_by("_row")
        return cls(
            old,
            given,
            tuple(keys),
            place,
            joined["_row"].to_numpy().astype(np.int64),
            joined["_source"].to_numpy().astype(np.int64),
        )

    def unknown(self) -> list[str]:
        """Return the keys of given rows that the old table does not have."""
        return self._names(self._new())

    def _new(self) -> NDArray[np.int64]:
        return np.setdiff1d(np.arange(self.given.num_rows), self.sources)

    def _names(self, sources: NDArray[np.int64]) -> list[str]:
        rows = self.given.select(list(self.keys)).take(pa.array(sources)).to_pylist()
        return [" ".join(str(row[key]) for key in self.keys) for row in rows]

    def apply(
        self, *, overwrite: bool, add_rows: bool, known: Mapping[str, pa.DataType]
    ) -> pa.Table:
        """Return the old table with what is given; empty cells never replace a value.

        Parameters
        ----------
        overwrite
            Whether values that are there are replaced by others.
        add_rows
            Whether given rows that the old table does not have are added.
        known
            Types of columns that the old table may lack.

        Raises
        ------
        ExistsError
            If a value is there and another is given, and `overwrite` is false; lists them.
        InvalidInputError
            If a column is given in another type than it has.
        """
        new = self._new() if add_rows else np.empty(0, np.int64)
        columns: dict[str, Any] = {}
        conflicts: list[str] = []
        names = [
            *self.old.column_names,
            *(n for n in self.given.column_names if n not in self.old.column_names),
        ]
        for name in names:
            old = self.old[name] if name in self.old.column_names else None
            if name not in self.given.column_names:
                columns[name] = _lengthened(old, new.size)
                continue
            kind, given = self._in_type(name, old, known)
            there = (
                pa.chunked_array([pa.nulls(self.old.num_rows, kind)])
                if old is None
                else old.cast(kind)
            )
            there = pa.chunked_array([*there.chunks, *given.take(pa.array(new)).chunks], kind)
            if name not in self.keys:
                there, wrong = self._replaced(there, given)
                if wrong.size and not overwrite:
                    conflicts += self._told(name, there_before=old, given=given, wrong=wrong)
            columns[name] = there
        if conflicts:
            msg = (
                f"{self.place} has other values than those given: {listed(conflicts)}; replace them "
                "with --overwrite (overwrite=True)"
            )
            raise ExistsError(msg)
        return pa.table(columns)

    def _in_type(
        self, name: str, old: Any, known: Mapping[str, pa.DataType]
    ) -> tuple[pa.DataType, Any]:
        given = self.given[name]
        kind: pa.DataType = given.type
        if old is not None and (old.null_count < len(old) or name in known):
            kind = old.type
        elif name in known:
            kind = known[name]
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        cast = as_type(given, kind)
        if cast is None and old is not None and pa.types.is_integer(kind):
            # Numbers with a point where only whole ones were so far.
            cast = given if pa.types.is_floating(given.type) and as_type(old, given.type) else None
            kind = given.type if cast is not None else kind
        if cast is None:
            msg = f"{self.place}: column {name!r} holds {kind}, the table given has {given.type}"
            raise InvalidInputError(msg)
        return kind, cast

    def _replaced(self, there: Any, given: Any) -> tuple[Any, NDArray[np.int64]]:
        """Return a column with given values put in, and the pairs where another value was."""
        mine, theirs = there.take(pa.array(self.rows)), given.take(pa.array(self.sources))
        valid = theirs.is_valid().to_numpy()
        both = pc.fill_null(pc.not_equal(mine, theirs), False).to_numpy()
        if not valid.any():
            return there, np.empty(0, np.int64)
        index = np.arange(len(there))
        index[self.rows[valid]] = len(there) + np.flatnonzero(valid)
        joined = pa.chunked_array([*there.chunks, *theirs.chunks], there.type)
        return joined.take(pa.array(index)), np.flatnonzero(both)

    def _told(
        self, name: str, there_before: Any, given: Any, wrong: NDArray[np.int64]
    ) -> list[str]:
        keys = self._names(self.sources[wrong])
        befores = there_before.take(pa.array(self.rows[wrong])).to_pylist()
        afters = given.take(pa.array(self.sources[wrong])).to_pylist()
        return [
            f"{key} {name} {before!r} (given {after!r})"
            for key, before, after in zip(keys, befores, afters, strict=True)
        ]


def _keys(table: pa.Table, kinds: Mapping[str, pa.DataType], place: str) -> dict[str, Any]:
    try:
        return {key: table[key].cast(kind) for key, kind in kinds.items()}
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        msg = f"{place}: the columns {list(kinds)} do not hold {list(kinds.values())}: {error}"
        raise FormatError(msg) from error


def _lengthened(column: Any, count: int) -> Any:
    if not count:
        return column
    return pa.chunked_array([*column.chunks, pa.nulls(count, column.type)], column.type)


def refuse_repeated(table: pa.Table, keys: Sequence[str], place: str) -> None:
    """Refuse rows without a key, and two rows of one key.

    Raises
    ------
    FormatError
        If there are any; lists them.
    """
    for key in keys:
        if table[key].null_count:
            rows = np.flatnonzero(table[key].is_null().to_numpy()) + 1
            msg = f"{place}: {rows.size} rows have no {key} (row {listed(rows.tolist())})"
            raise FormatError(msg)
    counted = table.select(list(keys)).group_by(list(keys)).aggregate([([], "count_all")])
    twice = counted.filter(pc.greater(counted["count_all"], 1))
    if twice.num_rows:
        shown = [
            f"{' '.join(str(row[key]) for key in keys)} ({row['count_all']} rows)"
            for row in twice.slice(0, MOST_NAMED + 1).to_pylist()
        ]
        msg = f"{place}: {' and '.join(keys)} must be unique; {listed(shown)}"
        raise FormatError(msg)
