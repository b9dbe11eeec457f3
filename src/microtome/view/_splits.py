"""Whether a cohort's splits are what they should be: who is in which, and nobody in two."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from ._inventory import Inventory, Tiling, take_inventory
from ._overview import patient_text, text_or_none

__all__ = ["SharedPatient", "SplitBalance", "SplitRow", "balance_of", "split_balance"]


@dataclass(frozen=True, slots=True)
class SplitRow:
    """What is in a split."""

    split: str | None
    """Its name; None for what is in no split."""
    patients: int
    tissues: int
    images: int
    tiles: int | None
    """Of the tiling that a report shows; None where there is none."""


@dataclass(frozen=True, slots=True)
class SharedPatient:
    """Somebody, or a tissue, whose images are in several splits."""

    name: str
    splits: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SplitBalance:
    """How tissues and patients are spread over the splits of a cohort."""

    rows: tuple[SplitRow, ...]
    """In the order in which the tissue table names them first; what is in no split is last."""
    shared_patients: tuple[SharedPatient, ...]
    """Patients in more than one split: a model is tested on people that it was trained on."""
    shared_tissues: tuple[SharedPatient, ...]
    """Tissues whose images are in more than one split."""
    unnamed: int
    """Tissues in a split for which the table names no patient: nobody can say whose they are."""

    @property
    def has_splits(self) -> bool:
        """Whether anything is in a split."""
        return any(row.split is not None for row in self.rows)


def split_balance(cohort: str | os.PathLike[str]) -> SplitBalance:
    """Count what is in which split of a cohort, and find who is in two.

    Parameters
    ----------
    cohort
        Directory of the cohort; only its tables are read.

    Raises
    ------
    NotFoundError, FormatError
        If there is no cohort, or its tissue table is damaged.
    """
    return balance_of(take_inventory(cohort))


def balance_of(inventory: Inventory) -> SplitBalance:
    """Count what is in which split, of an inventory of the cohort."""
    shown = (inventory.tiling(resolution) for resolution in inventory.resolutions)
    tiling = next((found for found in shown if found is not None), None)
    rows: dict[str | None, list[dict[str, Any]]] = {}
    for row in inventory.rows:
        rows.setdefault(text_or_none(row.get("split")), []).append(row)
    order = [*(split for split in rows if split is not None), *([None] if None in rows else [])]
    split_of_tissues: dict[str, dict[str, None]] = {}
    splits_of_patients: dict[str, dict[str, None]] = {}
    unnamed: dict[str, bool] = {}
    for row in inventory.rows:
        split, patient, tissue = (
            text_or_none(row.get("split")),
            patient_text(row),
            str(row["tissue_id"]),
        )
        if split is None:
            continue
        split_of_tissues.setdefault(tissue, {})[split] = None
        unnamed[tissue] = unnamed.get(tissue, True) and patient is None
        if patient is not None:
            splits_of_patients.setdefault(patient, {})[split] = None
    return SplitBalance(
        tuple(_row(split, rows[split], tiling) for split in order),
        _shared(splits_of_patients),
        _shared(split_of_tissues),
        sum(unnamed.values()),
    )


def _row(split: str | None, rows: list[dict[str, Any]], tiling: Tiling | None) -> SplitRow:
    tissues = dict.fromkeys(str(row["tissue_id"]) for row in rows)
    patients = {name for row in rows if (name := patient_text(row)) is not None}
    tiles = None if tiling is None else sum(map(tiling.count, tissues))
    return SplitRow(split, len(patients), len(tissues), len(rows), tiles)


def _shared(splits: dict[str, dict[str, None]]) -> tuple[SharedPatient, ...]:
    """Return those that are in several splits."""
    return tuple(
        SharedPatient(name, tuple(found)) for name, found in splits.items() if len(found) > 1
    )
