"""Checks of panels, and of which tissue measured what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from microtome.cohort._merge import listed
from microtome.cohort._modality import Modality, modality_names, parse_modality
from microtome.cohort._spelled import channels_spelled_twice
from microtome.cohort._tables import read_parquet
from microtome.errors import InvalidInputError
from microtome.panels import parse_uniprot

from ._survey import Survey, repeated

__all__ = ["check_panels"]


def check_panels(survey: Survey) -> None:
    """Check the panel of every multiplex modality that has rows, images or a panel."""
    layout = survey.layout
    names = {row["modality"] for row in survey.rows} | {
        name for name in modality_names() if not name.startswith("ihc_")
    }
    for modality in sorted((parse_modality(name) for name in names), key=lambda m: m.name):
        if modality.kind != "multiplex":
            continue
        panel, measured = layout.channels(modality), layout.channels_per_tissue(modality)
        if not (survey.tissues(modality) or panel.is_file() or measured.is_file()):
            continue
        if not panel.is_file():
            what = f"is missing, and there are tissues imaged as {modality}"
            survey.report(
                "error", "panel-missing", panel, what, "write the panel, channel by channel"
            )
            continue
        _check_panel(survey, modality, panel)
        if modality.name in survey.panels:
            _check_measured(survey, modality, measured)


def _check_panel(survey: Survey, modality: Modality, path: Path) -> None:
    table = survey.table(
        path,
        {"channel_name": "text"},
        optional={
            "index": "integer",
            "uniprot_id": "text",
            "qc_pass": "boolean",
            "is_nuclear_marker": "boolean",
        },
        keys=("channel_name", "qc_pass", "is_nuclear_marker"),
    )
    if table is None:
        return
    twice = repeated(table, ["channel_name"])
    if twice:
        what = f"channels are there more than once: {listed(twice)}"
        survey.report("error", "duplicate-channel", path, what, "give each a name of its own")
        return
    if "index" in table.column_names and pa.types.is_integer(table["index"].type):
        places = table["index"].to_pylist()
        if places != list(range(len(places))):
            what = f"column 'index' is {listed(places, 5)}, but the order of rows is the order of planes"
            survey.report(
                "error", "panel-index", path, what, "number the rows 0, 1, ... or sort them"
            )
    survey.panels[modality.name] = [str(name) for name in table["channel_name"].to_pylist()]
    for alike in channels_spelled_twice(survey.panels[modality.name]):
        what = f"channels differ in capital letters, spaces, hyphens or underscores only: {listed(alike)}"
        advice = "if they are one, ingest their tissues again with one spelling; datasets take them for two"
        survey.report("warning", "channel-spelling", path, what, advice)
    if "uniprot_id" in table.column_names and pa.types.is_string(table["uniprot_id"].type):
        _check_accessions(
            survey, path, survey.panels[modality.name], table["uniprot_id"].to_pylist()
        )


def _check_accessions(
    survey: Survey, path: Path, names: list[str], accessions: list[str | None]
) -> None:
    """Report what is no accession: such a channel is left out where proteins are asked for."""
    for name, text in zip(names, accessions, strict=True):
        try:
            parse_uniprot(text)
        except InvalidInputError:
            what = f"uniprot_id of channel {name!r} is {text!r}, which is no accession of UniProt"
            advice = "correct it, or leave it empty: the channel is not among 'uniprot_filtered'"
            survey.report("warning", "uniprot-id", path, what, advice)


def _check_measured(survey: Survey, modality: Modality, path: Path) -> None:
    panel, tissues = survey.panels[modality.name], survey.tissues(modality)
    if not path.is_file():
        # spora_io then takes every channel as measured; the images will tell.
        what = "is missing: nothing says which tissue measured which channel"
        survey.report("warning", "measured-missing", path, what, "write it, a row a tissue")
        survey.measured[modality.name] = dict.fromkeys(tissues, panel)
        return
    table: pa.Table | None = None
    with survey.guarded("table-damaged", path, "write it again, or bring back a copy"):
        table = read_parquet(path, [])
    if table is None:
        return
    index = next(
        (name for name in ("tissue_id", "__index_level_0__") if name in table.column_names), None
    )
    missing = [name for name in panel if name not in table.column_names]
    if index is None or missing:
        missing = ["tissue_id"] if index is None else missing
        what = f"lacks the columns {missing}"
        survey.report(
            "error", "column-missing", path, what, "a column a channel of the panel, and tissue_id"
        )
        return
    if not _says_yes_or_no(survey, path, table, panel):
        return
    _check_order(survey, path, table, panel, index)
    rows: dict[str, list[str]] = {}
    for row in table.to_pylist():
        tissue = str(row[index])
        if tissue in rows:
            what = f"tissue {tissue!r} has more than one row"
            survey.report("error", "duplicate-row", path, what, "remove all but one")
        rows[tissue] = [name for name in panel if row[name]]
    survey.measured[modality.name] = rows
    lost = [tissue for tissue in tissues if tissue not in rows]
    if lost:
        what = f"says nothing of {len(lost)} tissues: {listed(lost)}"
        survey.report("error", "measured-missing", path, what, "add a row for each")
    known = set(tissues)
    unknown = [tissue for tissue in rows if tissue not in known]
    if unknown:
        what = f"has rows of {len(unknown)} tissues that are not imaged as {modality}: {listed(unknown)}"
        survey.report("warning", "unknown-tissue", path, what, "ingest them, or remove the rows")


def _says_yes_or_no(survey: Survey, path: Path, table: pa.Table, panel: list[str]) -> bool:
    good = True
    for name in panel:
        column: Any = table[name]
        if not (pa.types.is_boolean(column.type) or pa.types.is_integer(column.type)):
            what = f"column {name!r} must hold boolean, got {column.type}"
            survey.report("error", "column-type", path, what, "write it in that type")
            good = False
        elif column.null_count:
            rows = (np.flatnonzero(column.is_null().to_numpy()) + 1).tolist()
            what = f"column {name!r} has no value in {len(rows)} rows (row {listed(rows)})"
            survey.report("error", "missing-value", path, what, "say yes or no")
            good = False
    return good


def _check_order(survey: Survey, path: Path, table: pa.Table, panel: list[str], index: str) -> None:
    flags = [
        name
        for name in table.column_names
        if name != index and pa.types.is_boolean(table[name].type)
    ]
    more = [name for name in flags if name not in panel]
    if more:
        what = f"has channels that the panel does not have: {listed(more)}"
        survey.report("warning", "panel-order", path, what, "add them to the panel, or remove them")
    elif [name for name in table.column_names if name in set(panel)] != panel:
        what = f"its columns are {listed([n for n in table.column_names if n in set(panel)])}, the panel is {listed(panel)}"
        survey.report(
            "warning",
            "panel-order",
            path,
            what,
            "bring them into the panel's order: spora_io goes by place, microtome by name",
        )
