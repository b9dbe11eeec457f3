"""Checks of what the tables of tissues and of cells say."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from microtome.cohort._cell_inputs import ABOUT, MEAN, cells_parts
from microtome.cohort._layout import check_tissue_id
from microtome.cohort._made_of import noted_inputs
from microtome.cohort._merge import listed
from microtome.cohort._modality import parse_modality
from microtome.cohort._spelled import spelled_twice
from microtome.cohort._tables import TISSUES_SCHEMA
from microtome.cohort.cells import CELLS_SCHEMA
from microtome.errors import InvalidInputError, UnknownNameError

from ._survey import DAMAGE, ColumnKind, Survey, repeated

__all__ = ["check_cells", "check_tissues"]

# A patient without a split, or a tissue without a patient, is as much a gap as a missing label.
_FULL = frozenset(TISSUES_SCHEMA.names) - {"patient_id", "split"}


def check_tissues(survey: Survey) -> None:
    """Check the table of tissues, and note the rows that other checks can use."""
    path = survey.layout.tissues
    if not path.is_file():
        return  # a cohort that was just begun; images without rows are told as such
    optional: dict[str, ColumnKind] = {
        "patient_id": "text",
        "specimen_id": "text",
        "split": "text",
        "mpp": "number",
        "width": "integer",
        "height": "integer",
        "source": "text",
        "sha256": "text",
    }
    keys = {"tissue_id": "text", "modality": "text"}
    table = survey.table(path, {**keys}, optional=optional, keys=keys)  # pyright: ignore[reportArgumentType] - literals of ColumnKind
    if table is None:
        return
    for twice in repeated(table, ["tissue_id", "modality"]):
        what = f"{twice} has more than one row"
        survey.report("error", "duplicate-row", path, what, "remove all but one")
    survey.missing_labels(path, table, _FULL)
    survey.infinite_values(path, table)
    seen: set[tuple[str, str]] = set()
    for row in table.to_pylist():
        if _is_usable(survey, path, row) and (row["tissue_id"], row["modality"]) not in seen:
            seen.add((row["tissue_id"], row["modality"]))
            survey.rows.append(row)
    _check_splits(survey, path)
    _check_spelling(survey, path)


def _is_usable(survey: Survey, path: Path, row: dict[str, Any]) -> bool:
    try:
        check_tissue_id(row["tissue_id"])
    except InvalidInputError as error:
        survey.report("error", "tissue-id", path, str(error), "rename the tissue")
        return False
    try:
        row["modality"] = parse_modality(row["modality"]).name
    except (InvalidInputError, UnknownNameError) as error:
        what = f"tissue {row['tissue_id']!r}: {error}"
        survey.report("error", "unknown-modality", path, what, "register it, or correct the name")
        return False
    return True


def _check_splits(survey: Survey, path: Path) -> None:
    """Check that a tissue is of one patient and in one split, and a patient in one split."""
    splits: dict[str, dict[str, str]] = defaultdict(dict)
    patients: dict[str, set[str]] = defaultdict(set)
    for row in survey.rows:
        if row.get("split") is not None:
            splits[row["tissue_id"]].setdefault(str(row["split"]), row["modality"])
        if row.get("patient_id") is not None:
            patients[row["tissue_id"]].add(str(row["patient_id"]))
    for tissue, found in splits.items():
        if len(found) > 1:
            where = ", ".join(f"{split!r} as {modality}" for split, modality in found.items())
            what = f"tissue {tissue!r} is in several splits: {where}"
            survey.report("error", "split-of-tissue", path, what, "put it into one")
    for tissue, names in patients.items():
        if len(names) > 1:
            what = f"tissue {tissue!r} is of several patients: {listed(sorted(names))}"
            survey.report("error", "patient-of-tissue", path, what, "a tissue is of one patient")
    tissues: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for tissue, found in splits.items():
        if len(found) == 1 and len(patients[tissue]) == 1:
            tissues[next(iter(patients[tissue]))][next(iter(found))].append(tissue)
    for patient, found in tissues.items():
        if len(found) > 1:
            where = ", ".join(f"{split!r} ({listed(names, 3)})" for split, names in found.items())
            what = f"patient {patient!r} is in several splits: {where}"
            advice = "put all tissues of a patient into one: a model that has seen the patient is not tested on new ones"
            survey.report("error", "patient-in-splits", path, what, advice)


def _check_spelling(survey: Survey, path: Path) -> None:
    """Report splits and tissues that are one to a reader or a file system, and two to others."""
    for several in spelled_twice(
        None if r.get("split") is None else str(r["split"]) for r in survey.rows
    ):
        what = f"splits differ in capital letters or spaces only: {listed(several)}"
        survey.report("warning", "split-spelling", path, what, "spell them alike")
    for several in spelled_twice(str(r["tissue_id"]) for r in survey.rows):
        what = f"tissue ids differ in capital letters only: {listed(several)}"
        advice = "rename one: Windows, macOS and many shares make one directory of both"
        survey.report("warning", "tissue-spelling", path, what, advice)


def check_cells(survey: Survey) -> None:
    """Check the table of cells, where there is one."""
    path = survey.layout.cells
    if not path.is_file():
        return
    table = survey.table(
        path,
        {"tissue_id": "text", "cell_id": "integer"},
        optional={"centroid_y": "number", "centroid_x": "number"},
        keys=("tissue_id", "cell_id"),
    )
    if table is None:
        return
    table = table.set_column(
        table.column_names.index("tissue_id"), "tissue_id", table["tissue_id"].cast(pa.string())
    )
    twice = repeated(table, ["tissue_id", "cell_id"])
    if twice:
        what = f"{len(twice)} cells have more than one row: {listed(twice)}"
        survey.report("error", "duplicate-cell", path, what, "remove all but one")
    below = table.filter(pc.less(table["cell_id"], 1)).num_rows
    if below:
        what = f"{below} cells have an id below 1, which is no label of a mask"
        survey.report("error", "cell-id", path, what, "number them as the mask does")
    unknown = sorted(set(pc.unique(table["tissue_id"]).to_pylist()) - set(survey.tissues()))
    if unknown:
        what = f"has cells of {len(unknown)} tissues without a row in the table of tissues: {listed(unknown)}"
        survey.report("warning", "unknown-tissue", path, what, "ingest them, or remove the cells")
    excused = _not_measured(survey, table)
    survey.missing_labels(path, table, CELLS_SCHEMA.names, excused=excused)
    survey.infinite_values(path, table)
    _check_centres(survey, path, table)


def _not_measured(survey: Survey, table: pa.Table) -> dict[str, NDArray[np.bool_]]:
    """Return of each column of a channel's means the cells whose tissue did not measure the channel."""
    modalities: dict[str, set[str]] = defaultdict(set)
    for noted in noted_inputs(table.schema.metadata).values():
        for part in cells_parts(noted):
            with suppress(*DAMAGE):
                for name in part.get("columns") or ():
                    if str(name).startswith(MEAN) and part.get("kind") is not None:
                        modalities[str(name)] |= part.keys() - ABOUT - {"cell_mask"}
    codes: Any = table["tissue_id"].combine_chunks().dictionary_encode()
    tissues: list[str] = codes.dictionary.to_pylist()
    found: dict[str, NDArray[np.bool_]] = {}
    for column, names in modalities.items():
        channel, expected = column.removeprefix(MEAN), set[str]()
        for name in names:
            mine = {row["tissue_id"] for row in survey.rows if row["modality"] == name}
            if name in survey.measured:
                measured = survey.measured[name]
                mine = {t for t in mine if channel in measured.get(t, ())}
            expected |= mine
        excused = np.array([tissue not in expected for tissue in tissues], np.bool_)
        found[column] = excused[codes.indices.to_numpy()]
    return found


def _check_centres(survey: Survey, path: Path, table: pa.Table) -> None:
    names = [name for name in ("centroid_y", "centroid_x") if name in table.column_names]
    if len(names) != 2 or any(pa.types.is_string(table[name].type) for name in names):
        return
    extents: dict[str, tuple[float, float]] = {}
    for (tissue, _, resolution), (height, width) in survey.sizes.items():
        extents.setdefault(tissue, (height * resolution.mpp[0], width * resolution.mpp[1]))
    codes: Any = table["tissue_id"].combine_chunks().dictionary_encode()
    limits = np.array(
        [extents.get(name, (np.inf, np.inf)) for name in codes.dictionary.to_pylist()]
    ).reshape(-1, 2)
    centres: NDArray[np.float64] = np.stack(
        [table[name].cast(pa.float64()).to_numpy() for name in names], axis=1
    )
    # A centre that is missing is not outside.
    outside = ((centres < 0) | (centres > limits[codes.indices.to_numpy()])).any(axis=1)
    if outside.any():
        first = table.take(pa.array(np.flatnonzero(outside)[:5])).to_pylist()
        shown = [
            f"{r['tissue_id']} {r['cell_id']} at ({r['centroid_y']:g}, {r['centroid_x']:g})"
            for r in first
        ]
        what = f"{int(outside.sum())} cells have their centre outside the image, in micrometres: {listed(shown, 3)}"
        survey.report("error", "cell-outside", path, what, "are these pixels, or of another image?")
