"""`add_cells`: tables of cells that other programs made."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from microtome.cohort._given import read_given
from microtome.cohort._layout import CohortLayout, check_tissue_id
from microtome.cohort._merge import listed
from microtome.cohort._metadata import TEXT_COLUMNS, place_of
from microtome.cohort._tables import read_parquet
from microtome.coordinates import MicrometreGrid, Resolution, counts_from_edge
from microtome.errors import FormatError, InvalidInputError

from ._put_cells import CellsAdded, put_cells

__all__ = ["add_cells"]

_PLACES = {"centroid_y", "centroid_x"}
# Of `embed_tiles` and `pool_labels`.
_VECTORS = "embedding"

# steinbock's names: of the label, and of the centre in pixels (skimage counts from pixel centres).
_STEINBOCK_ID = "Object"
_STEINBOCK_CENTRE = {"centroid-0": "centroid_y", "centroid-1": "centroid_x"}


def add_cells(
    cohort: str | os.PathLike[str],
    table: Any,
    *,
    tissue_id: str | None = None,
    resolution: float | str | tuple[float, float] | Resolution | None = None,
    overwrite: bool = False,
) -> CellsAdded:
    """Add cells, or columns of cells that are there, to the table of cells.

    Parameters
    ----------
    cohort
        Directory of the cohort.
    table
        As for `add_metadata`, with `tissue_id` and `cell_id`, the label of the cell in its mask,
        and where known `centroid_y` and `centroid_x` in micrometres from the upper left edge of
        the tissue's image; a table of `pool_labels` is one, whose vectors stay behind.
    tissue_id
        The tissue that the whole table speaks of.
    resolution
        Of the pixels of a table by steinbock, whose names are known too: `Object` is the cell,
        `centroid-0` and `centroid-1` its centre in pixels. May be left out where the cohort has one.
    overwrite
        Replace values that are there by others.

    Returns
    -------
    How many cells were added; its `changed` is how many that were there got another value, or one
    where they had none.

    Raises
    ------
    FormatError
        If a column is missing, a cell is named twice, or micrometres are counted from elsewhere.
    UnknownNameError
        If the cohort has no such tissue; lists them.
    ExistsError
        If other values are there and `overwrite` is false; lists them.
    InvalidInputError
        If a column has another type than in the cohort, a cell lies outside the image, or is in
        none of the masks of `instances` that the cohort has of its tissue. Masks of more than 2^28
        pixels are left to ``validate(cells=True)``.
    """
    layout = CohortLayout.open(cohort)
    given, place = _without_vectors(table), place_of(table)
    given = read_given(given, text=TEXT_COLUMNS)
    if tissue_id is not None:
        given = _of_one(given, place, check_tissue_id(tissue_id))
    given = _in_our_words(layout, given, place, resolution)
    missing = [name for name in ("tissue_id", "cell_id") if name not in given.column_names]
    if missing:
        hint = (
            "; for a table of one tissue say which (--tissue-id, tissue_id=)"
            if "tissue_id" in missing
            else ""
        )
        msg = f"{place} lacks the columns {missing}; it has {given.column_names}{hint}"
        raise FormatError(msg)
    return put_cells(layout, given, place, overwrite=overwrite)


def _without_vectors(source: Any) -> Any:
    """Return a table of vectors of ours without them, which no table of cells holds; others as they are.

    Raises
    ------
    FormatError
        If an earlier microtome wrote it, whose places lie half a pixel beside ours.
    """
    given = source
    if isinstance(source, str | os.PathLike) and Path(source).suffix.lower() == ".parquet":
        given = read_parquet(Path(source), [])
    if not isinstance(given, pa.Table):
        return source
    noted: dict[bytes, bytes] = given.schema.metadata or {}
    if not counts_from_edge(noted) and not _PLACES.isdisjoint(given.column_names):
        what = "the table given" if given is source else str(source)
        msg = f"{what} was written by an earlier microtome, whose centroids count from the middle of the image's first pixel, where its translation is; a table of cells counts from the upper left edge. Make it anew with pool_labels or embed_tiles, or drop {sorted(_PLACES)}"
        raise FormatError(msg)
    if b"microtome" in noted and _VECTORS in given.column_names:
        return given.drop([_VECTORS])
    return source


def _of_one(
    given: pa.Table,
    place: str,
    tissue_id: str,
) -> pa.Table:
    """Return a table of one tissue as one of many."""
    names = list(given.column_names)
    if "tissue_id" in names:
        others = sorted(set(pc.unique(given["tissue_id"]).to_pylist()) - {tissue_id}, key=str)
        if others:
            msg = f"{place} speaks of tissues {listed(others)}, not only of {tissue_id!r}"
            raise InvalidInputError(msg)
    else:
        ids = pa.array([tissue_id] * given.num_rows, pa.string())
        given = given.add_column(0, "tissue_id", ids)
    return given


def _in_our_words(
    layout: CohortLayout,
    given: pa.Table,
    place: str,
    resolution: float | str | tuple[float, float] | Resolution | None,
) -> pa.Table:
    """Turn steinbock's names into ours, and its pixels into micrometres."""
    names = list(given.column_names)
    if _STEINBOCK_ID in names and "cell_id" not in names:
        given = given.rename_columns({_STEINBOCK_ID: "cell_id"})
    if not set(names).isdisjoint(_STEINBOCK_CENTRE):
        grid = MicrometreGrid(layout.resolution(resolution).mpp)
        for axis, (old, new) in enumerate(_STEINBOCK_CENTRE.items()):
            if old not in names or new in names:
                msg = f"{place}: a centre is {list(_STEINBOCK_CENTRE)} in pixels, or {list(_STEINBOCK_CENTRE.values())} in micrometres; it has {names}"
                raise FormatError(msg)
            if not (pa.types.is_floating(given[old].type) or pa.types.is_integer(given[old].type)):
                msg = f"{place}: column {old!r} must hold pixels, got {given[old].type}"
                raise FormatError(msg)
            # The middle of the first pixel is 0 there, and half a pixel from the edge here.
            moved = pc.multiply(pc.add(given[old].cast(pa.float64()), 0.5), grid.size[axis])
            given = given.set_column(given.column_names.index(old), new, moved)
    return given
