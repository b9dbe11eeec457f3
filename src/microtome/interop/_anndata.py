"""Tables of tiles and of cells as AnnData, with their vectors and places where single-cell tools look."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from microtome.cohort import CohortLayout, Modality, parse_modality, read_parquet
from microtome.coordinates import MicrometreGrid, Mpp, Resolution, micrometres_note
from microtome.errors import (
    DependencyError,
    FormatError,
    InvalidInputError,
    NotFoundError,
    UnknownNameError,
)
from microtome.prediction import vectors_to_anndata
from microtome.storage import replace_file
from microtome.tiling import TileTable

from ._cells_chosen import chosen_cells, mean_columns, tell_panels
from ._qupath import free_file
from ._same_places import verify_same_cells, verify_same_places
from ._vectors_joined import rows_of_vectors

__all__ = ["cells_to_anndata", "tiles_to_anndata"]

_log = logging.getLogger(__name__)
_VECTORS, _SPATIAL = "X_embedding", "spatial"


def tiles_to_anndata(
    tiles: TileTable,
    out: str | os.PathLike[str] | None = None,
    *,
    vectors: str | os.PathLike[str] | pa.Table | None = None,
    variables: Sequence[str] = (),
    mpp: float | tuple[float, float] | None = None,
    modality: str | Modality | None = None,
    overwrite: bool = False,
) -> Any:
    """Bring a table of tiles into the form of single-cell tools.

    Parameters
    ----------
    tiles
        The tiles.
    out
        Where it is written, ``.h5ad``; nowhere by default.
    vectors
        Vectors of all of these tiles, in any order: a table of `embed_tiles`, or its path. They go
        by tissue and number, and must lie where the tiles lie.
    variables
        Columns of numbers that become variables of `X`; the others stay in `obs`.
    mpp
        Micrometres per pixel of the tiles, one number or (y, x); by default those of the table's
        resolution.
    modality
        Of which images the vectors are, where those of several images of a tissue are in the table.
    overwrite
        Whether a file that is there is replaced.

    Returns
    -------
    An `anndata.AnnData`, a row a tile in the order of the table, named by tissue and number.
    ``obsm["spatial"]`` has the centres (x, y) in micrometres from the upper left edge of the image,
    ``obsm["X_embedding"]`` the vectors.

    Raises
    ------
    InvalidInputError
        If neither the table nor `mpp` says how large a pixel is, a variable is no number, a column
        holds lists, the vectors are of tiles at other places or of another size, a tile has several
        vectors, or the name of `out` is no ``.h5ad``.
    UnknownNameError
        If there is no such column, or a tile has no vector.
    ExistsError
        If there is something at `out`, unless it is a file and `overwrite` is true.
    DependencyError
        If anndata is not installed.
    """
    if mpp is not None:
        size = Mpp.from_user(mpp)
        pixel = (size.y, size.x)
    elif tiles.resolution is not None:
        pixel = Resolution.parse(tiles.resolution).mpp
    else:
        msg = "the table does not say at which resolution its tiles lie; give mpp="
        raise InvalidInputError(msg)
    rows = tiles.rows()
    height, width = tiles.tile_size
    middles = np.stack([rows.row + height / 2, rows.col + width / 2], axis=1)
    spatial = MicrometreGrid(pixel).from_pixels(middles)[:, ::-1]
    about = {"strategy": tiles.strategy, "tile_size": list(tiles.tile_size)}
    made = _annotated(
        tiles.table,
        "tile_id",
        spatial,
        variables,
        vectors,
        None if modality is None else parse_modality(modality).name,
        about,
        lambda known, places: verify_same_places(tiles, pixel, known, places),
    )
    return _written(made, out, overwrite=overwrite)


def cells_to_anndata(
    cells: str | os.PathLike[str] | pa.Table,
    out: str | os.PathLike[str] | None = None,
    *,
    vectors: str | os.PathLike[str] | pa.Table | None = None,
    variables: Sequence[str] | None = (),
    tissues: Sequence[str] | None = None,
    modality: str | Modality | None = None,
    overwrite: bool = False,
) -> Any:
    """Bring a table of cells into the form of single-cell tools.

    Parameters
    ----------
    cells
        A table with `tissue_id` and `cell_id`, or its path, or the directory of a cohort that has one.
    out
        Where it is written, ``.h5ad``; nowhere by default.
    vectors
        Vectors of all of these cells, in any order: a table of `embed_tiles` of `CellCrops` or of
        `pool_labels`, or its path. They go by tissue and cell, and must lie where the cells lie, where
        both tables say it.
    variables
        Columns of numbers that become variables of `X`, the markers for example; the others stay in
        `obs`. None for what `measure_cells` measured, `mean_<channel>`, of each channel that any of the
        cells has a mean of. Where tissues measured different ones, what is missing is NaN, and the log
        says how much.
    tissues
        Only cells of these tissues; None for all.
    modality
        Only cells of tissues imaged so, without means of channels of other modalities, and vectors of
        these images; of a cohort.
    overwrite
        Whether a file that is there is replaced.

    Returns
    -------
    An `anndata.AnnData`, a row a cell in the order of the table, named by tissue and number.
    ``obsm["spatial"]`` has the columns `centroid_x` and `centroid_y`, micrometres from the upper left
    edge of the image, where the table has them and all are known, else the log says that they are
    missing; ``obsm["X_embedding"]`` the vectors. ``uns["microtome"]`` says what micrometres are counted from; see `vectors_to_anndata`. Columns of
    vectors of one length are in `obsm`, too, `embedding` as ``"X_embedding"``.

    Raises
    ------
    NotFoundError
        If there is no such file, or the cohort has no table of cells.
    FormatError
        If it is no table of cells.
    InvalidInputError
        As `tiles_to_anndata`; also if the vectors are of cells at other places.
    UnknownNameError, ExistsError, DependencyError
        As `tiles_to_anndata`.
    """
    table: Any = cells if isinstance(cells, pa.Table) else read_parquet(_path_of(Path(cells)), [])
    lost = {"tissue_id", "cell_id"} - set(table.column_names)
    if lost:
        tiles = "tile_id" in table.column_names
        hint = "; those of tiles become AnnData by tiles_to_anndata" if tiles else ""
        msg = (
            f"a table of cells has tissue_id and cell_id; got {', '.join(table.column_names)}{hint}"
        )
        raise FormatError(msg)
    cohort = None if isinstance(cells, pa.Table) or not Path(cells).is_dir() else Path(cells)
    table = chosen_cells(table, tissues, modality, cohort)
    if variables is None:
        variables, nowhere = mean_columns(table)
        table = table.drop(nowhere)
        tell_panels(table, variables)
    spatial = None
    if {"centroid_x", "centroid_y"} <= set(table.column_names):
        found = np.stack([_numbers(table, f"centroid_{axis}") for axis in "xy"], axis=1)
        spatial = found if np.isfinite(found).all() else None
    if spatial is None:
        _log.warning(
            'no obsm["spatial"]: the table of cells does not say of all where they are (centroid_y, centroid_x)'
        )
    made = _annotated(
        table,
        "cell_id",
        spatial,
        variables,
        vectors,
        None if modality is None else parse_modality(modality).name,
        {},
        lambda known, places: verify_same_cells(table, spatial, known, places),
    )
    return _written(made, out, overwrite=overwrite)


def _path_of(cells: Path) -> Path:
    """Return the file of a table of cells, which may be that of a cohort."""
    if not cells.is_dir():
        return cells
    layout = CohortLayout.open(cells)
    if not layout.cells.is_file():
        msg = f"{cells} has no table of cells; `microtome cohort cells {cells} --modality MODALITY` measures those of its cell masks"
        raise NotFoundError(msg)
    return layout.cells


def _annotated(
    table: pa.Table,
    key: str,
    spatial: NDArray[Any] | None,
    variables: Sequence[str],
    vectors: Any,
    modality: str | None,
    about: dict[str, Any],
    verify: Callable[[Any, NDArray[np.int64]], None] = lambda _known, _places: None,
) -> Any:
    try:
        import anndata
        import pandas as pd
    except ImportError as error:
        msg = "AnnData needs anndata; install microtome[anndata]"
        raise DependencyError(msg) from error
    if isinstance(variables, str):
        msg = f"variables is a list of columns, got the text {variables!r}"
        raise InvalidInputError(msg)
    named = list(dict.fromkeys(variables))
    columns = [_numbers(table, name) for name in named]
    values = np.stack(columns, axis=1) if columns else np.zeros((table.num_rows, 0))
    tissues, numbers = table["tissue_id"].cast(pa.string()).to_pylist(), table[key].to_pylist()
    names = [f"{tissue}_{number}" for tissue, number in zip(tissues, numbers, strict=True)]
    rest, matrices = _lists_apart(table.drop(named))
    obs = _storable(rest).to_pandas()
    obs.index = pd.Index(names, dtype=object)
    for field in table.schema:
        # What is not known of a thing that is true or false: pandas would mix three kinds of values.
        if field.name in obs.columns and pa.types.is_boolean(field.type):
            kind = "boolean" if table[field.name].null_count else "bool"
            obs[field.name] = obs[field.name].astype(kind)
        elif (
            field.name in obs.columns
            and not pa.types.is_floating(field.type)
            and table[field.name].null_count == table.num_rows > 0
        ):
            # Of texts that are all unknown pandas has no type, and a file of AnnData none either.
            obs[field.name] = pd.Categorical([None] * table.num_rows)
    obs["tissue_id"] = pd.Categorical(obs["tissue_id"].astype(str))
    made = anndata.AnnData(
        X=values.astype(np.float32),
        obs=obs,
        var=pd.DataFrame(index=pd.Index(named, dtype=object)),
    )
    for name, matrix in matrices.items():
        made.obsm[_VECTORS if name == "embedding" else name] = matrix
    if spatial is not None:
        made.obsm[_SPATIAL] = spatial.astype(np.float64)
    if vectors is not None:
        with warnings.catch_warnings():
            # Of several images of a tissue, whose rows are told apart here.
            warnings.filterwarnings("ignore", "Observation names are not unique")
            known = vectors_to_anndata(vectors)
        places = rows_of_vectors(known, key, tissues, numbers, modality)
        verify(known, places)
        made.obsm[_VECTORS] = known.obsm[_VECTORS][places]
        about = {**known.uns["microtome"], **about}
    made.uns["microtome"] = {**about, **micrometres_note(table.schema.metadata)}
    return made


def _lists_apart(table: pa.Table) -> tuple[pa.Table, dict[str, NDArray[Any]]]:
    """Return the table without its columns of vectors of one length, and these as matrices."""
    matrices: dict[str, NDArray[Any]] = {}
    for field in table.schema:
        kind: Any = field.type
        if not pa.types.is_fixed_size_list(kind) or table[field.name].null_count:
            continue
        if not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
            continue
        flat: Any = table[field.name].combine_chunks().flatten()
        matrices[field.name] = flat.to_numpy(zero_copy_only=False).reshape(-1, kind.list_size)
    return table.drop(list(matrices)), matrices


def _storable(table: pa.Table) -> pa.Table:
    """Return columns as files of AnnData hold them: times as text; lists are refused."""
    for place, field in enumerate(table.schema):
        kind = field.type
        if pa.types.is_temporal(kind):
            table = table.set_column(place, field.name, table[field.name].cast(pa.string()))
        elif pa.types.is_nested(kind) or pa.types.is_binary(kind):
            msg = (
                f"column {field.name!r} holds {kind}, for which AnnData has no place; leave it out"
            )
            raise InvalidInputError(msg)
    return table


def _numbers(table: pa.Table, name: str) -> NDArray[np.float64]:
    if name not in table.column_names:
        msg = f"no column {name!r}; there are {', '.join(table.column_names)}"
        raise UnknownNameError(msg)
    kind = table[name].type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        msg = f"column {name!r} holds {kind}, and must hold numbers"
        raise InvalidInputError(msg)
    return table[name].cast(pa.float64()).to_numpy()


def _written(made: Any, out: str | os.PathLike[str] | None, *, overwrite: bool) -> Any:
    if out is not None:
        target = free_file(out, (".h5ad",), "AnnData", overwrite=overwrite)
        with replace_file(target) as temporary:
            made.write_h5ad(temporary)
    return made
