"""Tissues whose cells are measured anew, in a table that holds cells of others too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from microtome.cohort._merge import Merge, listed
from microtome.errors import ExistsError

__all__ = ["Anew", "forgotten", "in_place"]


@dataclass(frozen=True, slots=True)
class Anew:
    """What becomes of a tissue's cells that are there when all of them are measured anew."""

    forget: frozenset[str]
    """Columns that lose what they say of the tissue."""
    lose: frozenset[str] | None
    """Columns of which cells that are gone may have a value; None for any."""


def forgotten(merge: Merge, anew: Mapping[str, Anew]) -> tuple[pa.Table, NDArray[np.int64]]:
    """Return the cells without those that are gone and without what is forgotten, and their old rows.

    Parameters
    ----------
    merge
        Cells that are there, and those that are given.
    anew
        Tissues that are measured anew.

    Raises
    ------
    ExistsError
        If a cell that is gone has a value that must not be lost.
    """
    old, names = merge.old, dict[str, int]()
    codes = _codes(old, names)
    given = np.zeros(old.num_rows, np.bool_)
    given[merge.rows] = True
    gone = _flags(anew, names)[codes] & ~given
    less = np.unique(codes[gone]).tolist()
    for tissue_id, code in names.items():
        lose = anew[tissue_id].lose if code in less else None
        if lose is not None:
            _verify_lost(merge, np.flatnonzero(gone & (codes == code)), lose)
    for name in _forgotten_columns(old, anew):
        those = [t for t, each in anew.items() if name in each.forget]
        empty = pa.scalar(None, old[name].type)
        column = pc.if_else(pa.array(_flags(those, names)[codes]), empty, old[name])
        old = old.set_column(old.column_names.index(name), name, column)
    rows = np.flatnonzero(~gone)
    return old.take(pa.array(rows)), rows


def in_place(
    table: pa.Table, old: pa.Table, rows: NDArray[np.int64], anew: Mapping[str, Anew]
) -> pa.Table:
    """Return cells with those of each tissue where they were, by id; new rows are the last ones.

    Parameters
    ----------
    table
        Cells that were kept, and then new ones.
    old, rows
        The cells before, and which of them were kept.
    anew
        Tissues that were measured anew. A column that was forgotten and has no value is left out.
    """
    names: dict[str, int] = {}
    before, codes = _codes(old, names), _codes(table, names)
    first = np.concatenate([rows, old.num_rows + np.arange(table.num_rows - rows.size)])
    place = np.full(len(names), old.num_rows + table.num_rows)
    np.minimum.at(place, before, np.arange(old.num_rows))
    np.minimum.at(place, codes, first)
    mine = _flags(anew, names)[codes]
    first = np.where(mine, place[codes], first)
    second = np.where(mine, table["cell_id"].to_numpy(), 0)
    table = table.take(pa.array(np.lexsort((second, first))))
    empty = [n for n in _forgotten_columns(old, anew) if table[n].null_count == table.num_rows]
    return table.drop_columns(empty) if empty else table


def _codes(table: pa.Table, names: dict[str, int]) -> NDArray[np.int64]:
    """Return the number of each row's tissue; numbers of new ones are put to those of `names`."""
    column = table["tissue_id"].cast(pa.string()).combine_chunks().dictionary_encode()
    known = [names.setdefault(name, len(names)) for name in column.dictionary.to_pylist()]
    return np.array(known, np.int64)[column.indices.to_numpy()]


def _flags(tissues: Iterable[str], names: Mapping[str, int]) -> NDArray[np.bool_]:
    """Return which of the numbered tissues are among these."""
    found = np.zeros(len(names), np.bool_)
    found[[names[tissue] for tissue in tissues if tissue in names]] = True
    return found


def _forgotten_columns(old: pa.Table, anew: Mapping[str, Anew]) -> list[str]:
    names = {name for each in anew.values() for name in each.forget}
    return [name for name in old.column_names if name in names]


def _verify_lost(merge: Merge, gone: NDArray[np.int64], lose: frozenset[str]) -> None:
    lost = merge.old.take(pa.array(gone))
    names = [n for n in lost.column_names if n not in {*merge.keys, *lose}]
    held = [n for n in names if lost[n].null_count < lost.num_rows]
    if held:
        keys = lost.select(list(merge.keys)).to_pylist()
        cells = [" ".join(str(key) for key in row.values()) for row in keys]
        msg = f"{merge.place} has {listed(held)} of cells that the masks lack: {listed(cells)}; remove them with --overwrite (overwrite=True)"
        raise ExistsError(msg)
