"""The rows of tables that tiles have, and the values of them that go along."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.errors import FormatError, InvalidInputError, UnannotatedError, UnknownNameError

from ._elements import Elements
from ._plan import Pair, TilePlan

__all__ = ["TilesTable", "annotation_values", "tables_of_tiles"]

_ATTRS = "spatialdata_attrs"


class _NotCategoricalError(InvalidInputError, TypeError):
    """The column that names regions is not categorical."""


@dataclass(frozen=True, slots=True, eq=False)
class TilesTable:
    """A table with one row for each tile of the regions that it annotates, in their order.

    Parameters
    ----------
    name
        What it is called.
    table
        The AnnData.
    shifts
        For the number of each region that it annotates how many tiles before it have no row.
    """

    name: str
    table: Any
    shifts: Mapping[int, int]

    def row_of(self, tile: int, region: int) -> int | None:
        """Return the row of a tile of a region; None where the table does not annotate it."""
        shift = self.shifts.get(region)
        return None if shift is None else tile - shift


def tables_of_tiles(
    elements: Elements, asked: str | Sequence[str], plan: TilePlan, pairs: Sequence[Pair]
) -> list[TilesTable]:
    """Return the tables that tiles have rows of.

    Parameters
    ----------
    elements
        Where the tables are.
    asked
        The table of all regions, or several: each those of the regions that it annotates.
    plan, pairs
        The tiles and their regions.

    Raises
    ------
    UnknownNameError
        If there is no such table.
    FormatError
        If a table does not say what it annotates.
    InvalidInputError
        If its column of regions is not categorical, a region or an instance has no row (also a
        `RuntimeError`) or several.
    """
    names = [asked] if isinstance(asked, str) else list(asked)
    if not names or len(set(names)) < len(names):
        msg = f"table_name is a table, or several that differ, got {asked!r}"
        raise InvalidInputError(msg)
    counts = np.bincount(plan.region, minlength=len(pairs)).tolist()
    found: list[TilesTable] = []
    for name in names:
        table = elements.table(name)
        own = set(_columns(table, name)[0].unique())
        # A single one annotates all of them, or the error says which instances it lacks.
        single = isinstance(asked, str)
        numbers = [i for i, pair in enumerate(pairs) if single or pair.region in own]
        if not numbers:
            msg = (
                f"table {name!r} annotates {sorted(map(str, own))}, none of the regions "
                f"{[pair.region for pair in pairs]}"
            )
            raise InvalidInputError(msg)
        shifts = {i: sum(counts[j] for j in range(i) if j not in numbers) for i in numbers}
        found.append(TilesTable(name, _annotated_rows(table, name, plan, pairs, numbers), shifts))
    known = {number for table in found for number in table.shifts}
    lost = [pair.region for number, pair in enumerate(pairs) if number not in known]
    if lost:
        msg = f"no table of {names} annotates {lost}; name one that does"
        raise UnannotatedError(msg)
    return found


def _columns(table: Any, name: str) -> tuple[Any, Any]:
    """Return the columns that say which region and which instance of it a row is of."""
    import pandas as pd

    attributes = table.uns.get(_ATTRS, {})
    try:
        region_key, instance_key = attributes["region_key"], attributes["instance_key"]
        regions, instances = table.obs[region_key], table.obs[instance_key]
    except KeyError as error:
        msg = f"table {name!r} does not say what it annotates: {error} is not there"
        raise FormatError(msg) from error
    if not isinstance(regions.dtype, pd.CategoricalDtype):
        msg = f"column {region_key!r} of table {name!r} must be categorical, not {regions.dtype}"
        raise _NotCategoricalError(msg)
    return regions, instances


def _annotated_rows(
    table: Any, name: str, plan: TilePlan, pairs: Sequence[Pair], numbers: Sequence[int]
) -> Any:
    """Return a copy of a table with one row for each tile of some regions, in their order.

    Rows of other regions and instances are left out.
    """
    import pandas as pd

    regions, instances = _columns(table, name)
    found = np.full(len(plan), -1, np.int64)
    for number in numbers:
        pair = pairs[number]
        mine = np.flatnonzero((regions == pair.region).to_numpy())
        index = pd.Index(instances.to_numpy()[mine])
        if not index.is_unique:
            twice = index[index.duplicated()].unique()
            msg = (
                f"table {name!r} annotates {len(twice)} instances of {pair.region!r} more than "
                f"once, among them {twice[:3].tolist()}"
            )
            raise InvalidInputError(msg)
        rows = plan.region == number
        place = index.get_indexer(pd.Index(plan.ids[rows]))
        if (place < 0).any():
            lost = plan.ids[rows][place < 0]
            msg = (
                f"{len(lost)} of {rows.sum()} instances of {pair.region!r} have no row in table "
                f"{name!r}, among them {lost[:3].tolist()}; add them to the table, remove them from "
                "the region, or leave table_name away"
            )
            raise UnannotatedError(msg)
        found[rows] = mine[place]
    rows_of_tiles = table[found[np.isin(plan.region, list(numbers))]].copy()
    names = [pairs[number].region for number in numbers]
    attributes = table.uns[_ATTRS]
    region_key = attributes["region_key"]
    rows_of_tiles.obs[region_key] = rows_of_tiles.obs[region_key].cat.remove_unused_categories()
    # Else the table would claim regions that it has no row of, and could not be written.
    rows_of_tiles.uns[_ATTRS] = {**attributes, "region": names if len(names) > 1 else names[0]}
    return rows_of_tiles


def annotation_values(
    tables: Sequence[TilesTable], names: Sequence[str], plan: TilePlan, pairs: Sequence[Pair]
) -> NDArray[Any]:
    """Return values of tables, a row a tile.

    Parameters
    ----------
    tables
        The tables, with the rows of the tiles.
    names
        Columns of `obs` or variables of `X`, looked for in this order; ``"obs/NAME"``, ``"X/NAME"``
        and ``"layers/LAYER/NAME"`` say which, and ``"obsm/KEY"`` takes all columns of that. After
        ``"TABLE/"`` of one table of several.
    plan, pairs
        The tiles and their regions.

    Returns
    -------
    (n, k), of the type that numpy makes of the columns; texts and categories are objects.

    Raises
    ------
    UnknownNameError
        If there is no such column.
    InvalidInputError
        If several tables of a region have it, or regions have different numbers of columns.
    """
    if not names:
        msg = "return_annotations names at least one column, got none"
        raise InvalidInputError(msg)
    if len(tables) == 1 and len(tables[0].shifts) == len(pairs):
        return _values_of_all(tables[0], names)
    parts: list[NDArray[Any]] = []
    for number, pair in enumerate(pairs):
        first, after = np.searchsorted(plan.region, [number, number + 1]).tolist()
        own = [
            TilesTable(table.name, table.table[first - shift : after - shift], {})
            for table in tables
            if (shift := table.shifts.get(number)) is not None
        ]
        values = [_values_of_one(own, name, pair.region) for name in names]
        parts.append(np.concatenate(values, axis=1))
    widths = {pair.region: part.shape[1] for pair, part in zip(pairs, parts, strict=True)}
    if len(set(widths.values())) > 1:
        msg = f"every tile has as many annotations, got {widths}"
        raise InvalidInputError(msg)
    return np.concatenate(parts)


def _values_of_all(own: TilesTable, names: Sequence[str]) -> NDArray[Any]:
    table = own.table
    if all(name in table.obs for name in names):
        return table.obs[list(names)].to_numpy()
    if all(name in table.var_names for name in names):
        return _dense(table.X[:, table.var_names.get_indexer(list(names))])
    parts = [_values_of_one([own], name, None) for name in names]
    return np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]


def _values_of_one(own: Sequence[TilesTable], name: str, region: str | None) -> NDArray[Any]:
    """Return the values of one name for the tiles of a region, from the table that has it."""
    found = {table.name: _values(table.table, name) for table in own}
    having = [key for key, values in found.items() if values is not None]
    if len(having) > 1:
        msg = (
            f"tables {having} of {region!r} all have {name!r}: say which, as in "
            f"'{having[0]}/{name}'"
        )
        raise InvalidInputError(msg)
    values = found[having[0]] if having else None
    if values is None:
        where, _, rest = name.partition("/")
        values = next((_values(t.table, rest) for t in own if t.name == where), None)
    if values is not None:
        return values
    what = f"no table of {region!r}" if region else "the table"
    there = "; ".join(_told(table, several=len(own) > 1) for table in own)
    msg = f"{what} has {name!r}: {there}" if region else f"{what} has no {name!r}: {there}"
    raise UnknownNameError(msg)


def _told(own: TilesTable, *, several: bool) -> str:
    table = own.table
    parts = (
        f"obs {_some(table.obs)}, X {_some(table.var_names)}, layers "
        f"{[layer for layer in table.layers if layer is not None]}, obsm {list(table.obsm)}"
    )
    return f"{own.name!r} has {parts}" if several else parts


def _some(names: Any) -> str:
    """Return names, of many the first with how many more there are."""
    every = list(names)
    return f"{every[:8]}" + (f" and {len(every) - 8} more" if len(every) > 8 else "")


def _values(table: Any, name: str) -> NDArray[Any] | None:
    """Return what a table has by a name, (n, k); None where it has nothing."""
    if name in table.obs:
        return table.obs[[name]].to_numpy()
    if name in table.var_names:
        return _dense(table.X[:, [table.var_names.get_loc(name)]])
    where, _, rest = name.partition("/")
    layer, _, variable = rest.partition("/")
    if where == "obs" and rest in table.obs:
        return table.obs[[rest]].to_numpy()
    if where == "obsm" and rest in table.obsm:
        values = _dense(table.obsm[rest])
        return values if values.ndim == 2 else values[:, None]
    if where == "layers" and layer in table.layers and variable in table.var_names:
        matrix = table.layers[layer]
    elif where == "X" and rest in table.var_names:
        matrix, variable = table.X, rest
    else:
        return None
    return _dense(matrix[:, [table.var_names.get_loc(variable)]])


def _dense(values: Any) -> NDArray[Any]:
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values)
