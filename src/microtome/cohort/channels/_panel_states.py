"""The panel of a cohort's modality, and what each tissue knows of its channels."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from microtome.cohort._layout import CohortLayout
from microtome.cohort._modality import Modality, parse_modality
from microtome.cohort._panels import MeasuredChannels, panel
from microtome.errors import InvalidInputError
from microtome.panels import ChannelState, Panel, channel_states, parse_uniprot

__all__ = ["CohortPanel", "cohort_panel", "panel_modality"]


@dataclass(frozen=True, slots=True, eq=False)
class CohortPanel:
    """The panel of a modality in a cohort, and what each tissue knows of its channels.

    Parameters
    ----------
    modality
        Name of the modality.
    panel
        The panel.
    tissue_ids
        Tissues of the table of measured channels; none where a foreign cohort has no such table.
    states
        `ChannelState` of each tissue and channel, uint8 of shape (T, C).
    notes
        What in the table is no panel's: accessions that are none, which are left out.
    """

    modality: str
    panel: Panel
    tissue_ids: tuple[str, ...]
    states: NDArray[np.uint8]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        head = (
            "",
            "channel",
            "uniprot",
            "qc",
            "nuclear",
            "measured",
            "failed qc",
            "not measured",
        )
        shown = (ChannelState.MEASURED, ChannelState.FAILED_QC, ChannelState.NOT_MEASURED)
        rows: list[tuple[str, ...]] = [head]
        for place, channel in enumerate(self.panel):
            counts = [str((self.states[:, place] == state).sum()) for state in shown]
            rows.append(
                (
                    str(place),
                    channel.name,
                    channel.uniprot_id or "-",
                    "fail" if channel.qc_pass is False else "pass",
                    "yes" if channel.is_nuclear_marker else "-",
                    *(counts if self.tissue_ids else ["?"] * 3),
                )
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        count = len(self.tissue_ids)
        said = f"{count} tissue{'s' * (count != 1)}" if count else "no table of measured channels"
        return "\n".join(
            [f"{self.modality}: {len(self.panel)} channels, {said}", *lines, *self.notes]
        )


def cohort_panel(
    cohort: str | os.PathLike[str], modality: str | Modality | None = None
) -> CohortPanel:
    """Return the panel of a modality with the state of every channel in every tissue.

    Parameters
    ----------
    cohort
        Directory of the cohort, or of a SPORA dataset.
    modality
        Which; by default the only multiplex one.

    Raises
    ------
    InvalidInputError
        If the modality has no panel, or none is named where there are several.
    NotFoundError, FormatError
        If a table is missing or damaged, or the directory is not a cohort.
    """
    layout = CohortLayout.open(cohort, reading=True)
    kind = panel_modality(layout, modality)
    table, notes = _lenient(panel(layout, kind))
    found = Panel.from_table(table, where=layout.channels(kind))
    measured = MeasuredChannels.read(layout, kind)
    states = np.zeros((len(measured.rows), len(found)), np.uint8)
    for tissue, place in measured.rows.items():
        own = measured.of(tissue)
        if own is not None:
            states[place] = channel_states(found, own)
    return CohortPanel(kind.name, found, tuple(measured.rows), states, notes)


def _lenient(table: pa.Table) -> tuple[pa.Table, tuple[str, ...]]:
    """Take out what is no accession: another tool's table may have anything there."""
    if "uniprot_id" not in table.column_names:
        return table, ()
    texts: list[Any] = table["uniprot_id"].to_pylist()
    notes: list[str] = []
    for place, text in enumerate(texts):
        try:
            parse_uniprot(text)
        except (InvalidInputError, TypeError):
            name = table["channel_name"][place].as_py()
            notes.append(f"channel {name!r}: {text!r} is no UniProt accession")
            texts[place] = None
    if not notes:
        return table, ()
    column = table.column_names.index("uniprot_id")
    return table.set_column(column, "uniprot_id", pa.array(texts, pa.string())), tuple(notes)


def panel_modality(layout: CohortLayout, modality: str | Modality | None) -> Modality:
    """Return a modality that has a panel, or the only one.

    Raises
    ------
    InvalidInputError
        If it is brightfield, or none is named where there is not exactly one.
    """
    if modality is None:
        there = [one for one in layout.modalities() if one.kind == "multiplex"]
        if len(there) != 1:
            shown = ", ".join(map(str, there)) or "no multiplex modality"
            msg = f"{layout.root} has {shown}; say which with --modality (modality=)"
            raise InvalidInputError(msg)
        return there[0]
    kind = parse_modality(modality)
    if kind.kind != "multiplex":
        msg = f"{kind} is brightfield, red, green and blue: it has no panel"
        raise InvalidInputError(msg)
    return kind
