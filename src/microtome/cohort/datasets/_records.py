"""Which tissues a dataset consists of, and whose they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from microtome.cohort._images import tissues_with_images
from microtome.cohort._layout import CohortLayout
from microtome.cohort._modality import Modality
from microtome.cohort._tables import read_tissues
from microtome.coordinates import Resolution
from microtome.errors import InvalidInputError, UnknownNameError

from ._labels import TissueLabels

__all__ = ["TissueRecords"]


@dataclass(frozen=True, slots=True, eq=False)
class TissueRecords:
    """The tissues of one modality in one split, in the order of the tissue table.

    Parameters
    ----------
    table
        The whole tissue table.
    tissue_ids
        Tissues of the dataset: they have an image, are in the split and, where labels are asked
        for, have one that is kept.
    rows
        Row of each of them in the table.
    patients
        Patient of each of them, as text; None where the table names none.
    labels
        Their labels, where asked for.
    """

    table: pa.Table
    tissue_ids: tuple[str, ...]
    rows: tuple[int, ...]
    patients: Mapping[str, str | None]
    labels: TissueLabels | None

    @classmethod
    def read(
        cls,
        layout: CohortLayout,
        modality: Modality,
        resolution: Resolution,
        *,
        split: str | None,
        labels: TissueLabels | None,
    ) -> TissueRecords:
        """Read the tissue table.

        Raises
        ------
        InvalidInputError
            If there is no such split, or no tissue of it is left.
        """
        table = read_tissues(layout)
        names = ["tissue_id", "modality", "split", "patient_id"]
        rows = table.select([n for n in names if n in table.column_names]).to_pylist()
        mine = {
            str(row["tissue_id"]): (place, row)
            for place, row in enumerate(rows)
            if row["modality"] == modality.name
        }
        chosen = list(tissues_with_images(layout, resolution, modalities=[modality]))
        if split is not None:
            if "split" not in table.column_names:
                msg = f"{layout.tissues} has no column 'split'"
                raise InvalidInputError(msg)
            chosen = [tissue for tissue in chosen if mine[tissue][1]["split"] == split]
            if not chosen:
                splits = sorted({str(r["split"]) for r in rows if r["split"] is not None})
                there = f"there are {splits}" if splits else "no tissue has a split"
                msg = f"no tissue of {layout.root} imaged as {modality} is in split {split!r}; {there}"
                raise InvalidInputError(msg)
        if labels is not None:
            chosen = [tissue for tissue in chosen if tissue in labels.values]
            if not chosen:
                msg = f"no tissue of {layout.root} imaged as {modality} has one of the labels {labels.column!r} that are kept"
                raise InvalidInputError(msg)
        patients = {tissue: mine[tissue][1].get("patient_id") for tissue in chosen}
        return cls(
            table,
            tuple(chosen),
            tuple(mine[tissue][0] for tissue in chosen),
            {tissue: None if who is None else str(who) for tissue, who in patients.items()},
            labels,
        )

    @property
    def modality_table(self) -> pa.Table:
        """Rows of the tissue table that the dataset consists of."""
        return self.table.take(pa.array(self.rows, pa.int64()))

    def of_patient(self, patient_id: str) -> list[str]:
        """Return the tissues of a patient.

        Parameters
        ----------
        patient_id
            As in the table, numbers written as text.

        Raises
        ------
        UnknownNameError
            If no tissue is this patient's.
        """
        found = [tissue for tissue, who in self.patients.items() if who == str(patient_id)]
        if not found:
            known = sorted({who for who in self.patients.values() if who is not None})
            shown = ", ".join(known[:5]) + (", ..." if known[5:] else "")
            msg = f"no tissue here is of patient {patient_id!r}; there are {len(known)} patients: {shown or 'none'}"
            raise UnknownNameError(msg)
        return found
