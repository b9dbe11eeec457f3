"""Tables of tiles and of cells in a SpatialData object, and out of it.

Tiles are squares among the shapes, in pixels of the level that they lie on, so that they come back
to the pixel whatever the coordinate system; everything else that is known of them is in a table.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from microtome.errors import FormatError, InvalidInputError, UnknownNameError
from microtome.tiling import TileTable

from ._elements import unknown_table
from ._instances import imported_shapely
from ._items import imported_spatialdata
from ._store import StoreElements

__all__ = [
    "cell_table",
    "cells_from_spatialdata",
    "tile_shapes",
    "tile_table",
    "tiles_from_spatialdata",
]

_ATTRS, _REGION, _INSTANCE, _CELL = "spatialdata_attrs", "region", "instance_id", "cell_id"
# What a table of tiles states of itself, next to what it annotates.
_STATED = "microtome_tiles"
# Of a pixel: corners of tiles are whole, but for rounding.
_WHOLE = 1e-6
# Whole numbers with gaps stay whole numbers.
_NULLABLE = {
    "bool": "boolean",
    **{f"{u}int{b}": f"{u.upper()}Int{b}" for u in ("", "u") for b in (8, 16, 32, 64)},
}


# -- tiles


def tile_shapes(tiles: TileTable, transforms: Mapping[str, Any]) -> dict[str, Any]:
    """Return the squares of each tissue, an element of shapes each, by its name.

    Parameters
    ----------
    tiles
        The table.
    transforms
        For each tissue its transforms by coordinate system, from pixels of the tiles' level.

    Raises
    ------
    UnknownNameError
        If there is no image of a tissue.
    InvalidInputError
        If there are no tiles.
    """
    import geopandas
    from spatialdata.models import ShapesModel

    if not len(tiles):
        msg = "a table of no tiles has nothing to lie in space"
        raise InvalidInputError(msg)
    rows = tiles.rows()
    found: dict[str, Any] = {}
    height, width = tiles.tile_size
    for number, tissue in enumerate(tiles.tissue_ids):
        mine = np.flatnonzero(rows.tissue == number)
        if not len(mine):
            continue
        if tissue not in transforms:
            msg = (
                f"tiles lie in the image that is called as their tissue, and there is none {tissue!r} "
                f"among {sorted(transforms)}"
            )
            raise UnknownNameError(msg)
        x, y = rows.col[mine].astype(np.float64), rows.row[mine].astype(np.float64)
        squares = imported_shapely().box(x, y, x + width, y + height)
        found[shapes_name(tissue)] = ShapesModel.parse(
            geopandas.GeoDataFrame(geometry=squares, index=mine),
            transformations=dict(transforms[tissue]),
        )
    return found


def shapes_name(tissue: str) -> str:
    """Return what the tiles of a tissue are called among the shapes."""
    return f"{tissue}_tiles"


def tile_table(tiles: TileTable) -> Any:
    """Return the table that annotates the squares of `tile_shapes`, with all columns of the tiles.

    Raises
    ------
    InvalidInputError
        If a column is neither of numbers nor of text, or called like those that say what is
        annotated.
    """
    import anndata
    import pandas as pd
    from spatialdata.models import TableModel

    columns: dict[str, Any] = {}
    for name in tiles.table.column_names:
        if name in {"row", "col"}:
            continue  # the squares say it
        if name in {_REGION, _INSTANCE}:
            msg = (
                f"the column {name!r} of the tiles says in SpatialData what is annotated; rename it"
            )
            raise InvalidInputError(msg)
        columns[name] = _to_pandas(tiles.table[name], name)
    rows = tiles.rows()
    names = [shapes_name(tissue) for tissue in tiles.tissue_ids]
    regions = pd.Categorical.from_codes(rows.tissue, names).remove_unused_categories()
    columns |= {_REGION: regions, _INSTANCE: np.arange(len(tiles))}
    obs = pd.DataFrame(columns, index=pd.RangeIndex(len(tiles)).astype(str))
    stated = {"strategy": tiles.strategy}
    if tiles.resolution is not None:
        stated["resolution"] = tiles.resolution
    return TableModel.parse(
        anndata.AnnData(obs=obs, uns={_STATED: stated}),
        region=list(regions.categories),
        region_key=_REGION,
        instance_key=_INSTANCE,
    )


def tiles_from_spatialdata(sdata: Any, table: str = "tiles") -> TileTable:
    """Make a table of tiles of the squares that a table of a SpatialData object annotates.

    Parameters
    ----------
    sdata
        The object, or the path of its store.
    table
        Name of the table, as `to_spatialdata` made it: with a column `tissue_id`, and rectangles of
        one size on whole pixels, in their own coordinates, for every row.

    Returns
    -------
    The tiles, in the order of the table, with its other columns; a missing float is a NaN.

    Raises
    ------
    UnknownNameError
        If there is no such table.
    FormatError
        If it does not say what it annotates, or has no `tissue_id`.
    InvalidInputError
        If a row has no shape, one is no rectangle on whole pixels, or they differ in size.
    """
    if isinstance(sdata, str | os.PathLike):
        StoreElements(Path(sdata))  # a path that is none says so in our words
        sdata = imported_spatialdata().read_zarr(sdata, selection=("shapes", "tables"))
    own = _table_of(sdata, table)
    obs, region_key, instance_key = own.obs, *_keys(own, table)
    if "tissue_id" not in obs.columns:
        msg = f"table {table!r} has no column 'tissue_id', but {list(obs.columns)}"
        raise FormatError(msg)
    bounds = _bounds(sdata, table, obs[region_key], obs[instance_key])
    sizes = np.unique(bounds[:, 2:] - bounds[:, :2], axis=0)
    if len(sizes) != 1:
        shown = [f"{height}x{width}" for width, height in sizes[:2].tolist()]
        msg = f"tiles of one table are of one size, those of {table!r} are {' and '.join(shown) or 'none'}"
        raise InvalidInputError(msg)
    columns: dict[str, Any] = {"tissue_id": pa.array(obs["tissue_id"].astype(str))}
    columns |= {"row": bounds[:, 1], "col": bounds[:, 0]}
    for name in obs.columns:
        if name not in {region_key, instance_key, *columns}:
            columns[str(name)] = _from_pandas(obs[name])
    ((width, height),) = sizes.tolist()
    stated = cast("Mapping[str, str]", own.uns.get(_STATED, {}))
    resolution = stated.get("resolution")
    return TileTable.from_columns(
        columns,
        tile_size=(height, width),
        strategy=str(stated.get("strategy", "spatialdata")),
        resolution=None if resolution is None else str(resolution),
    )


def _bounds(sdata: Any, table: str, regions: Any, instances: Any) -> NDArray[np.int64]:
    """Return (min x, min y, max x, max y) of the rectangle of each row, whole pixels."""
    shapely = imported_shapely()
    bounds = np.empty((len(regions), 4))
    for region in dict.fromkeys(regions):
        mine = np.flatnonzero((regions == region).to_numpy())
        if region not in sdata.shapes:
            msg = f"table {table!r} annotates {region!r}, which is not among the shapes {sorted(sdata.shapes)}"
            raise InvalidInputError(msg)
        places = sdata.shapes[region].index.get_indexer(instances.to_numpy()[mine])
        if (places < 0).any():
            lost = instances.to_numpy()[mine][places < 0]
            msg = f"{region!r} has no shapes of {len(lost)} rows of {table!r}, among them {lost[:3].tolist()}"
            raise InvalidInputError(msg)
        shapes = np.asarray(sdata.shapes[region].geometry.to_numpy(), object)[places]
        boxes = shapely.bounds(shapes)
        whole = np.rint(boxes)
        sides = whole[:, 2:] - whole[:, :2]
        # What fills the box around it is that box.
        filled = np.abs(shapely.area(shapes) - sides.prod(axis=1)) <= _WHOLE * sides.sum(axis=1)
        wrong = ~((np.abs(boxes - whole).max(axis=1) <= _WHOLE) & filled & (sides > 0).all(axis=1))
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            msg = (
                f"shape {instances.tolist()[mine[at]]!r} of {region!r}, within "
                f"{boxes[at].tolist()} (x, y, x, y), is no rectangle on whole pixels"
            )
            raise InvalidInputError(msg)
        bounds[mine] = whole
    return bounds.astype(np.int64)


# -- cells


def cell_table(cells: Any, cells_of: str | None, labels: Mapping[str, Any]) -> Any:
    """Return the table that annotates the cells of some labels.

    Parameters
    ----------
    cells
        A DataFrame, or an AnnData with such an ``obs``; it has a column `cell_id`.
    cells_of
        Name of the labels; may be left out where there is only one, or a column `region` of the
        cells names those of each.
    labels
        The labels by name.

    Raises
    ------
    InvalidInputError
        If the cells do not say whose they are, one occurs twice, or a column `region` of their own
        would be lost.
    """
    import anndata
    from spatialdata.models import TableModel

    whole = isinstance(cells, anndata.AnnData)
    own: Any = cells.copy() if whole else None
    obs = own.obs if whole else cells.reset_index(drop=True)
    if _CELL not in obs.columns:
        msg = f"cells need a column {_CELL!r}, the value in their labels; got {list(obs.columns)}"
        raise InvalidInputError(msg)
    regions = _regions(obs, cells_of, labels)
    obs = obs.assign(**{_REGION: regions}).astype({_REGION: "category"})
    twice = obs.loc[obs.duplicated([_REGION, _CELL]), [_REGION, _CELL]].drop_duplicates()
    if len(twice):
        shown = ", ".join(f"{cell} of {region!r}" for region, cell in twice[:3].values.tolist())
        msg = f"{len(twice)} cells occur more than once, among them {shown}"
        raise InvalidInputError(msg)
    if whole:
        own.uns.pop(_ATTRS, None)
        own.obs = obs
    else:
        obs.index = obs.index.astype(str)
        own = anndata.AnnData(obs=obs)
    there = regions if isinstance(regions, str) else sorted(set(regions))
    return TableModel.parse(own, region=there, region_key=_REGION, instance_key=_CELL)


def _regions(obs: Any, cells_of: str | None, labels: Mapping[str, Any]) -> str | list[str]:
    """Return the labels that all cells are in, or of each cell those that its own column names."""
    own: list[str] | None = None
    if _REGION in obs.columns:
        own = [str(each) for each in obs[_REGION]]
    if cells_of is None and own and len(labels) > 1 and labels.keys() >= set(own):
        return own
    name = next(iter(labels)) if cells_of is None and len(labels) == 1 else cells_of
    if name is None or name not in labels:
        msg = (
            f"cells_of must name the labels that the cells are in, one of {sorted(labels)}, or their "
            f"column {_REGION!r} must, got {name!r}"
        )
        raise InvalidInputError(msg)
    if own is not None and set(own) - {name}:
        msg = f"the column {_REGION!r} of the cells names their labels in SpatialData, here {name!r}; rename it"
        raise InvalidInputError(msg)
    return name


def cells_from_spatialdata(sdata: Any, table: str = "table", *, labels: str | None = None) -> Any:
    """Return what a table of a SpatialData object knows of the cells of some labels.

    Parameters
    ----------
    sdata
        The object, or the path of its store, of which the table is read with anndata alone.
    table
        Name of the table.
    labels
        Name of what the cells are in, labels or shapes; may be left out where the table annotates
        only one.

    Returns
    -------
    A pandas DataFrame with `cell_id`, the columns of ``obs`` and the variables of ``X``, in the
    order of the table. Text comes out of a store as categories, as anndata writes it.

    Raises
    ------
    UnknownNameError
        If there is no such table, or it annotates no such labels.
    FormatError
        If the table does not say what it annotates.
    InvalidInputError
        If it annotates several and nobody says which, or two columns have one name.
    """
    import pandas as pd

    own = _table_of(sdata, table)
    region_key, instance_key = _keys(own, table)
    known = [str(region) for region in dict.fromkeys(own.obs[region_key])]
    if labels is None and len(known) > 1:
        msg = f"table {table!r} annotates {known}; pass labels"
        raise InvalidInputError(msg)
    if labels is not None and labels not in known:
        msg = f"table {table!r} annotates {known}, not {labels!r}"
        raise UnknownNameError(msg)
    mine = np.flatnonzero((own.obs[region_key] == (labels or known[0])).to_numpy())
    obs = own.obs.iloc[mine].drop(columns=region_key).reset_index(drop=True)
    obs = obs.rename(columns={instance_key: _CELL})
    if own.X is not None:
        part = own.X[mine]
        part = part.toarray() if hasattr(part, "toarray") else np.asarray(part)
        obs = pd.concat([obs, pd.DataFrame(part, columns=own.var_names)], axis=1)
    if not obs.columns.is_unique:
        twice = obs.columns[obs.columns.duplicated()].tolist()
        msg = f"columns of table {table!r} are called alike: {twice[:3]}"
        raise InvalidInputError(msg)
    return obs


# -- both


def _table_of(sdata: Any, name: str) -> Any:
    if isinstance(sdata, str | os.PathLike):
        return StoreElements(Path(sdata)).table(name)
    if name not in sdata.tables:
        raise unknown_table("the SpatialData object", name, sdata.tables)
    return sdata.tables[name]


def _keys(table: Any, name: str) -> tuple[str, str]:
    """Return the columns that name a row's region and its instance."""
    try:
        keys = table.uns[_ATTRS]["region_key"], table.uns[_ATTRS]["instance_key"]
        for key in keys:
            table.obs[key]
    except KeyError as error:
        msg = f"table {name!r} does not say what it annotates: {error} is not there"
        raise FormatError(msg) from error
    return keys


def _to_pandas(column: pa.ChunkedArray, name: str) -> Any:
    """Return a column as anndata writes it."""
    kind = column.type
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    text = pa.types.is_string(value) or pa.types.is_large_string(value)
    number = pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    if not (text or number or pa.types.is_floating(kind)):
        msg = f"column {name!r} of {kind} has no place in a table of SpatialData; numbers and text have"
        raise InvalidInputError(msg)
    import pandas as pd

    if text:
        values = column.cast(value).to_pandas().to_numpy()
        # Written as text, a missing one would be the word None.
        return pd.Categorical(values) if column.null_count else values
    if number and column.null_count:
        # pandas would make floats of them.
        return pd.array(column.to_pylist(), dtype=cast("Any", _NULLABLE[str(kind)]))
    return column.to_pandas().to_numpy()


def _from_pandas(column: Any) -> pa.Array[Any]:
    import pandas as pd

    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    # A NaN among numbers is a number; missing text is none.
    made = pa.array(column, from_pandas=column.dtype.kind != "f")
    # What text is in pandas 3; ours is the other.
    return made.cast(pa.string()) if pa.types.is_large_string(made.type) else made
