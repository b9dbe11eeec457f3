"""`add_metadata` and `add_cells`: what a study knows beside its pixels, put into a cohort's tables."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from microtome.coordinates import MicrometreGrid, Resolution, counts_from_edge
from microtome.errors import FormatError, InvalidInputError, UnknownNameError
from microtome.storage import locked

from ._cell_inputs import cells_inputs, with_columns
from ._given import read_given
from ._layout import CohortLayout, check_tissue_id
from ._made_of import Inputs, note_inputs, noted_inputs
from ._merge import Merge, listed, refuse_repeated
from ._modality import parse_modality
from ._tables import TISSUES_SCHEMA, read_parquet, read_tissues, write_parquet

__all__ = [
    "CELLS_SCHEMA",
    "FROM_INGEST",
    "TEXT_COLUMNS",
    "add_cells",
    "add_metadata",
    "known_tissues",
    "merged_tissues",
    "put_cells",
]

TEXT_COLUMNS = ("tissue_id", "modality", "patient_id", "specimen_id", "split", "dataset")
"""Text whatever it looks like: a patient called 7 is not a number."""

FROM_INGEST = frozenset({"dataset", "mpp", "mpp_source", "width", "height", "source", "sha256"})
"""What `ingest` notes of an image's source; not for anybody to change by hand."""

CELLS_SCHEMA = pa.schema(
    [
        ("tissue_id", pa.string()),
        ("cell_id", pa.int64()),
        # In micrometres from the upper left edge of the tissue's image.
        ("centroid_y", pa.float64()),
        ("centroid_x", pa.float64()),
    ]
)

_PLACES = {"centroid_y", "centroid_x"}
# Of `embed_tiles` and `pool_labels`.
_VECTORS = "embedding"

# steinbock's names: of the label, and of the centre in pixels (skimage counts from pixel centres).
_STEINBOCK_ID = "Object"
_STEINBOCK_CENTRE = {"centroid-0": "centroid_y", "centroid-1": "centroid_x"}


def add_metadata(
    cohort: str | os.PathLike[str], table: Any, *, overwrite: bool = False
) -> pa.Table:
    """Add columns to the table of tissues: patients, splits, clinical data, labels.

    Parameters
    ----------
    cohort
        Directory of the cohort.
    table
        A `.csv`, `.tsv` or `.parquet` file, or columns in memory, with `tissue_id` and, where rows
        speak of one modality only, `modality`. Without it a row speaks of all images of its tissue.
        Empty cells and NaN leave what is there.
    overwrite
        Replace values that are there by others.

    Returns
    -------
    The table of tissues as it is now.

    Raises
    ------
    FormatError
        If the table lacks `tissue_id`, or names a tissue twice.
    UnknownNameError
        If the cohort has no such tissue or image; lists them.
    ExistsError
        If other values are there and `overwrite` is false; lists them.
    InvalidInputError
        If a column is one that `ingest` writes, or has another type than in the cohort.
    """
    layout = CohortLayout.open(cohort)
    given, place = _read(table)
    with locked(layout.lock, what=f"the cohort {layout.root}"):
        merge = merged_tissues(layout, given, place)
        unknown = merge.unknown()
        if unknown:
            msg = f"{place} speaks of what {layout.root} does not have: {listed(unknown)}; ingest it first"
            raise UnknownNameError(msg)
        added = merge.apply(overwrite=overwrite, add_rows=False, known=known_tissues())
        if not added.equals(merge.old):
            write_parquet(added, layout.tissues)
    return added


def merged_tissues(layout: CohortLayout, given: pa.Table, place: str) -> Merge:
    """Compare columns about tissues with the table that a cohort has.

    Raises
    ------
    FormatError, InvalidInputError
        If the columns are none that can be added.
    """
    if "tissue_id" not in given.column_names:
        msg = f"{place} needs a column 'tissue_id'; it has {given.column_names}"
        raise FormatError(msg)
    wrong = sorted(FROM_INGEST & set(given.column_names))
    if wrong:
        msg = (
            f"{place}: columns {wrong} are noted by ingest and describe the source; leave them out"
        )
        raise InvalidInputError(msg)
    keys = ["tissue_id"]
    if "modality" in given.column_names:
        keys.append("modality")
        names = [
            None if name is None else parse_modality(name).name
            for name in given["modality"].to_pylist()
        ]
        at = given.column_names.index("modality")
        given = given.set_column(at, "modality", pa.array(names, pa.string()))
    refuse_repeated(given, keys, place)
    old = read_tissues(layout) if layout.tissues.is_file() else TISSUES_SCHEMA.empty_table()
    old = old.replace_schema_metadata(None)
    return Merge.of(old, given, keys, str(layout.tissues))


def _read(table: Any) -> tuple[pa.Table, str]:
    return read_given(table, text=TEXT_COLUMNS), _place_of(table)


def _place_of(table: Any) -> str:
    return str(table) if isinstance(table, str | os.PathLike) else "the table given"


def known_tissues() -> dict[str, pa.DataType]:
    """Return the types of the columns that every table of tissues of ours has."""
    return {field.name: field.type for field in TISSUES_SCHEMA}


def add_cells(
    cohort: str | os.PathLike[str],
    table: Any,
    *,
    tissue_id: str | None = None,
    resolution: float | str | tuple[float, float] | Resolution | None = None,
    overwrite: bool = False,
) -> int:
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
    How many cells were added.

    Raises
    ------
    FormatError
        If a column is missing, a cell is named twice, or micrometres are counted from elsewhere.
    UnknownNameError
        If the cohort has no such tissue; lists them.
    ExistsError
        If other values are there and `overwrite` is false; lists them.
    InvalidInputError
        If a column has another type than in the cohort.
    """
    layout = CohortLayout.open(cohort)
    given, place = _without_vectors(table), _place_of(table)
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


def put_cells(
    layout: CohortLayout,
    given: pa.Table,
    place: str,
    *,
    overwrite: bool,
    made_of: Mapping[str, Sequence[Inputs]] | None = None,
) -> int:
    """Put cells into the table of a cohort and note what they were made of; see `add_cells`.

    Parameters
    ----------
    layout
        The cohort.
    given
        Cells with `tissue_id` and `cell_id`.
    place
        Where they come from, for messages.
    overwrite
        Replace values that are there by others.
    made_of
        What columns of each tissue are made of, see `with_columns`; None for the images there are.

    Returns
    -------
    How many cells were added.
    """
    _verify_cells(given, place)
    known = set(read_tissues(layout)["tissue_id"].cast(pa.string()).to_pylist())
    unknown = sorted(set(pc.unique(given["tissue_id"]).to_pylist()) - known)
    if unknown:
        msg = f"{place} has cells of tissues that {layout.root} does not have: {listed(unknown)}"
        raise UnknownNameError(msg)
    with locked(layout.lock, what=f"the cohort {layout.root}"):
        old = CELLS_SCHEMA.empty_table().select(["tissue_id", "cell_id"])
        noted: dict[str, Inputs] = {}
        if layout.cells.is_file():
            old = read_parquet(layout.cells, ["tissue_id", "cell_id"])
            noted = noted_inputs(old.schema.metadata)
            old = old.replace_schema_metadata(None)
        merge = Merge.of(old, given, ["tissue_id", "cell_id"], str(layout.cells))
        kinds = {field.name: field.type for field in CELLS_SCHEMA}
        added = merge.apply(overwrite=overwrite, add_rows=True, known=kinds)
        if made_of is None:
            tissues = pc.unique(given["tissue_id"]).to_pylist()
            made_of = {t: [part] for t, part in cells_inputs(layout, tissues).items()}
        now = with_columns(noted, (old, given, added), made_of, overwrite=overwrite)
        # The same cells once more, said to be of the images that there are now.
        if not added.equals(old) or (overwrite and now != noted):
            kept = added.replace_schema_metadata(note_inputs(None, now))
            write_parquet(kept, layout.cells)
    return added.num_rows - old.num_rows


def _verify_cells(given: pa.Table, place: str) -> None:
    refuse_repeated(given, ["tissue_id", "cell_id"], place)
    if not pa.types.is_integer(given["cell_id"].type):
        msg = f"{place}: cell_id must hold integers, the labels of a mask, got {given['cell_id'].type}"
        raise FormatError(msg)
    if given.num_rows and pc.min(given["cell_id"]).as_py() < 1:
        msg = f"{place}: cell ids begin at 1, 0 is the background; got {pc.min(given['cell_id']).as_py()}"
        raise FormatError(msg)


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
