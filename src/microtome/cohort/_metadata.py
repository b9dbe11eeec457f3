"""`add_metadata`: what a study knows of its tissues beside their pixels, put into the cohort's table."""

from __future__ import annotations

import os
from typing import Any

import pyarrow as pa

from microtome.errors import FormatError, InvalidInputError, UnknownNameError
from microtome.storage import locked

from ._given import read_given
from ._layout import CohortLayout
from ._merge import Merge, listed, refuse_repeated
from ._modality import parse_modality
from ._spelled import spelled_twice
from ._tables import TISSUES_SCHEMA, read_tissues, write_parquet

__all__ = [
    "FROM_INGEST",
    "TEXT_COLUMNS",
    "add_metadata",
    "known_tissues",
    "merged_tissues",
    "place_of",
]

TEXT_COLUMNS = ("tissue_id", "modality", "patient_id", "specimen_id", "split", "dataset")
"""Text whatever it looks like: a patient called 7 is not a number."""

FROM_INGEST = frozenset({"dataset", "mpp", "mpp_source", "width", "height", "source", "sha256"})
"""What `ingest` notes of an image's source; not for anybody to change by hand."""


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
        If a column is one that `ingest` writes, or has another type than in the cohort, or splits
        differ in capital letters or spaces only.
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
        _verify_splits(added, merge.old, place)
        if not added.equals(merge.old):
            write_parquet(added, layout.tissues)
    return added


def _verify_splits(table: pa.Table, old: pa.Table, place: str) -> None:
    before, after = (
        spelled_twice(each["split"].to_pylist()) if "split" in each.column_names else []
        for each in (old, table)
    )
    new = [spellings for spellings in after if spellings not in before]
    if new:
        msg = (
            f"{place}: splits differ in capital letters or spaces only, {listed(new[0])}: what asks "
            "for one leaves the other out; spell them alike"
        )
        raise InvalidInputError(msg)


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
    return read_given(table, text=TEXT_COLUMNS), place_of(table)


def place_of(table: Any) -> str:
    """Return what a table that somebody brings is called in messages."""
    return str(table) if isinstance(table, str | os.PathLike) else "the table given"


def known_tissues() -> dict[str, pa.DataType]:
    """Return the types of the columns that every table of tissues of ours has."""
    return {field.name: field.type for field in TISSUES_SCHEMA}
