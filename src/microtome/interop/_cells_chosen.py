"""Which cells of a table, and which of their columns, one export is of."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from microtome.cohort import CohortLayout, Modality, panel, parse_modality, read_tissues
from microtome.errors import InvalidInputError, NotFoundError, UnknownNameError

__all__ = ["chosen_cells", "mean_columns", "tell_panels"]

_log = logging.getLogger(__name__)
_MEAN = "mean_"


def chosen_cells(
    table: pa.Table,
    tissues: Sequence[str] | None,
    modality: str | Modality | None,
    cohort: Path | None,
) -> pa.Table:
    """Return the rows of some tissues, without means of channels that another modality measured.

    Raises
    ------
    InvalidInputError
        If a modality is asked for of a table that is none of a cohort.
    UnknownNameError
        If there is no cell of a tissue, or the cohort has no tissue of the modality.
    """
    if isinstance(tissues, str):
        msg = f"tissues is a list of tissue ids, got the text {tissues!r}"
        raise InvalidInputError(msg)
    names = table["tissue_id"].cast(pa.string())
    there = set(names.unique().to_pylist())
    wanted = None if tissues is None else set(tissues)
    if wanted is not None and (lost := sorted(wanted - there)):
        msg = f"no cells of tissues {lost}; there are those of {', '.join(sorted(there)[:5]) or 'none'}"
        raise UnknownNameError(msg)
    if modality is not None:
        if cohort is None:
            msg = "a table of cells does not say how tissues were imaged; choose a modality of a cohort, or tissues"
            raise InvalidInputError(msg)
        kind = parse_modality(modality)
        imaged = _imaged(cohort, kind)
        wanted = imaged if wanted is None else wanted & imaged
        if not wanted & there:
            msg = f"{cohort} has no cells of tissues imaged as {kind.name}"
            raise UnknownNameError(msg)
        table = table.drop(_of_others(table, cohort, kind))
    if wanted is None:
        return table
    return table.filter(pc.is_in(names, value_set=pa.array(sorted(wanted), pa.string())))


def mean_columns(table: pa.Table) -> tuple[list[str], list[str]]:
    """Return the columns of means of channels: those of which a cell has any, and all others."""
    means = [
        name
        for name in table.column_names
        if name.startswith(_MEAN) and pa.types.is_floating(table[name].type)
    ]
    known = [name for name in means if _is_known(table[name])]
    return known, [name for name in means if name not in known]


def tell_panels(table: pa.Table, variables: Sequence[str]) -> None:
    """Say so where tissues measured different ones of the variables: what is missing is NaN."""
    codes = table["tissue_id"].cast(pa.string()).combine_chunks().dictionary_encode()
    number = codes.indices.to_numpy()
    count = len(codes.dictionary)
    partly: list[str] = []
    missing = 0
    for name in variables:
        lost = np.isnan(table[name].cast(pa.float64()).to_numpy())
        missing += int(lost.sum())
        known = np.bincount(number[~lost], minlength=count)
        if 0 < np.count_nonzero(known) < count:
            partly.append(name)
    if partly:
        share = missing / max(table.num_rows * len(variables), 1)
        _log.warning(
            "tissues measured different channels: %d of %d variables, %s say, are those of some tissues "
            "only, and %.0f %% of X is NaN; choose with --modality or --tissue (modality=, tissues=), or "
            "name those of all with --variable (variables=)",
            len(partly),
            len(variables),
            partly[0],
            100 * share,
        )


def _imaged(cohort: Path, kind: Modality) -> set[str]:
    rows = read_tissues(CohortLayout.open(cohort)).select(["tissue_id", "modality"]).to_pylist()
    return {str(row["tissue_id"]) for row in rows if row["modality"] == kind.name}


def _of_others(table: pa.Table, cohort: Path, kind: Modality) -> list[str]:
    """Return the columns of means of channels that are none of a modality's."""
    means = [name for name in table.column_names if name.startswith(_MEAN)]
    layout = CohortLayout.open(cohort)
    kinds = read_tissues(layout).select(["modality"]).to_pylist()
    mine, theirs = _channels(layout, kind), set[str]()
    for name in {str(row["modality"]) for row in kinds} - {kind.name}:
        theirs |= _channels(layout, parse_modality(name))
    return [name for name in means if name.removeprefix(_MEAN) in theirs - mine]


def _channels(layout: CohortLayout, kind: Modality) -> set[str]:
    """Return the names of a modality's channels; of one without a panel, none."""
    try:
        return set(map(str, panel(layout, kind)["channel_name"].to_pylist()))
    except NotFoundError:
        return set()


def _is_known(column: pa.ChunkedArray[Any]) -> bool:
    return bool(np.isfinite(column.cast(pa.float64()).to_numpy()).any())
