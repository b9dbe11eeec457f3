"""Rows of an AnnData in the order of tiles, and the values of it that go along with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.errors import FormatError, InvalidInputError, UnannotatedError, UnknownNameError

from ._plan import Pair, TilePlan

__all__ = ["annotated_rows", "annotation_values"]

_ATTRS = "spatialdata_attrs"


class _NotCategoricalError(InvalidInputError, TypeError):
    """The column that names regions is not categorical."""


def annotated_rows(table: Any, name: str, plan: TilePlan, pairs: Sequence[Pair]) -> Any:
    """Return a copy of a table with one row a tile, in their order.

    Parameters
    ----------
    table
        The AnnData. Rows of other regions and instances are left out.
    name
        What it is called, for messages.
    plan, pairs
        The tiles and their regions.

    Raises
    ------
    FormatError
        If the table does not say what it annotates.
    InvalidInputError
        If its column of regions is not categorical, an instance has no row (also a `RuntimeError`)
        or several.
    """
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
    found = np.empty(len(plan), np.int64)
    for number, pair in enumerate(pairs):
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
    rows_of_tiles = table[found].copy()
    names = [pair.region for pair in pairs]
    rows_of_tiles.obs[region_key] = rows_of_tiles.obs[region_key].cat.remove_unused_categories()
    # Else the table would claim regions that it has no row of, and could not be written.
    rows_of_tiles.uns[_ATTRS] = {**attributes, "region": names if len(names) > 1 else names[0]}
    return rows_of_tiles


def annotation_values(table: Any, names: Sequence[str]) -> NDArray[Any]:
    """Return values of a table, a row a tile.

    Parameters
    ----------
    table
        The AnnData.
    names
        Columns of `obs` or variables of `X`, looked for in this order; ``"obs/NAME"``, ``"X/NAME"``
        and ``"layers/LAYER/NAME"`` say which, and ``"obsm/KEY"`` takes all columns of that.

    Returns
    -------
    (n, k), of the type that numpy makes of the columns; texts and categories are objects.

    Raises
    ------
    UnknownNameError
        If there is no such column.
    """
    if not names:
        msg = "return_annotations names at least one column, got none"
        raise InvalidInputError(msg)
    if all(name in table.obs for name in names):
        return table.obs[list(names)].to_numpy()
    if all(name in table.var_names for name in names):
        return _dense(table.X[:, table.var_names.get_indexer(list(names))])
    parts = [_values(table, name) for name in names]
    return np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]


def _values(table: Any, name: str) -> NDArray[Any]:
    if name in table.obs:
        return table.obs[[name]].to_numpy()
    if name in table.var_names:
        return _dense(table.X[:, [table.var_names.get_loc(name)]])
    where, _, rest = name.partition("/")
    if where == "obs" and rest in table.obs:
        return table.obs[[rest]].to_numpy()
    if where == "X" and rest in table.var_names:
        return _dense(table.X[:, [table.var_names.get_loc(rest)]])
    if where == "obsm" and rest in table.obsm:
        values = _dense(table.obsm[rest])
        return values if values.ndim == 2 else values[:, None]
    layer, _, variable = rest.partition("/")
    if where == "layers" and layer in table.layers and variable in table.var_names:
        return _dense(table.layers[layer][:, [table.var_names.get_loc(variable)]])
    msg = (
        f"the table has no {name!r}: obs {list(table.obs)[:8]}, X {list(table.var_names)[:8]}, layers "
        f"{[layer for layer in table.layers if layer is not None]}, obsm {list(table.obsm)}"
    )
    raise UnknownNameError(msg)


def _dense(values: Any) -> NDArray[Any]:
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values)
