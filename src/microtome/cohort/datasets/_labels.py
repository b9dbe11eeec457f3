"""Labels of tissues: a column of the tissue table, with codes that do not depend on a split."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from microtome.cohort._layout import CohortLayout
from microtome.cohort._modality import Modality
from microtome.cohort._tables import read_tissues
from microtome.errors import FormatError, InvalidInputError, UnknownNameError

__all__ = ["LabelType", "MissingLabels", "TissueLabels"]

LabelType = Literal["classification", "regression"]
"""`classification`: one of a few classes, each with a code. `regression`: a number."""

MissingLabels = Literal["error", "drop"]
"""What becomes of a tissue without a label."""

_MOST_NAMED = 5


@dataclass(frozen=True, slots=True, eq=False)
class TissueLabels:
    """The labels of one modality's tissues.

    Parameters
    ----------
    column
        The column.
    values
        Label by tissue id; tissues that are not kept have none.
    encoder
        Code by class, of the classes in order: of numbers by size, of text by the alphabet. Empty
        for a regression. They are those of the whole cohort, so that every split has the same.
    """

    column: str
    values: Mapping[str, Any]
    encoder: Mapping[Any, int]

    @classmethod
    def read(
        cls,
        layout: CohortLayout,
        modality: Modality,
        column: str,
        *,
        label_type: LabelType = "classification",
        keep: Sequence[Any] | None = None,
        modify: Callable[[Any], Any] | None = None,
        missing: MissingLabels = "error",
    ) -> TissueLabels:
        """Read the labels of a cohort.

        Parameters
        ----------
        layout, modality
            Whose rows of the tissue table.
        column
            The column with the labels.
        label_type
            What they are.
        keep
            Only tissues with these labels, as `modify` returns them; None keeps all.
        modify
            Called with each label; what it returns is the label, None for none.
        missing
            Whether a tissue without a label is an error, or left out.

        Raises
        ------
        UnknownNameError
            If there is no such column, or no tissue has one of the labels to keep.
        FormatError
            If a tissue has no label, or one that is no finite number for a regression.
        InvalidInputError
            If an option is none of those that there are.
        """
        for name, value, options in (
            ("label_type", label_type, LabelType),
            ("missing_labels", missing, MissingLabels),
        ):
            if value not in get_args(options):
                msg = f"{name} must be one of {get_args(options)}, got {value!r}"
                raise InvalidInputError(msg)
        if isinstance(keep, str):
            msg = f"labels_to_keep is a list of labels, got the text {keep!r}; for one label [{keep!r}]"
            raise InvalidInputError(msg)
        if keep is not None and label_type == "regression":
            msg = "labels_to_keep names classes; a regression has none"
            raise InvalidInputError(msg)
        table = read_tissues(layout)
        if column not in table.column_names:
            msg = f"{layout.tissues} has no column {column!r} to take labels from; it has {table.column_names}"
            raise UnknownNameError(msg)
        names = dict.fromkeys(["tissue_id", "modality", column])
        raw = {
            str(row["tissue_id"]): _known(row[column])
            for row in table.select(list(names)).to_pylist()
            if row["modality"] == modality.name
        }
        values = {
            tissue: None if value is None else _known(modify(value) if modify else value)
            for tissue, value in raw.items()
        }
        without = [tissue for tissue, value in values.items() if value is None]
        if without and missing == "error":
            shown = ", ".join(without[:_MOST_NAMED]) + (", ..." if without[_MOST_NAMED:] else "")
            msg = (
                f"{layout.tissues}: {len(without)} of {len(values)} tissues imaged as {modality} have "
                f"no {column!r} ({shown}); fill them in, or leave these tissues out with "
                "missing_labels='drop'"
            )
            raise FormatError(msg)
        values = {tissue: value for tissue, value in values.items() if value is not None}
        if label_type == "regression":
            return cls(column, {t: _number(layout, column, t, v) for t, v in values.items()}, {})
        classes = _in_order(set(values.values()))
        if keep is not None:
            lost = [label for label in keep if label not in classes]
            if lost:
                msg = f"no tissue imaged as {modality} has {column!r} {lost}; there are {classes}"
                raise UnknownNameError(msg)
            classes = [label for label in classes if label in keep]
            values = {tissue: value for tissue, value in values.items() if value in classes}
        return cls(column, values, {label: code for code, label in enumerate(classes)})

    def code(self, tissue_id: str) -> int | float:
        """Return the code of a tissue's class, or its number in a regression."""
        value = self.values[tissue_id]
        return self.encoder[value] if self.encoder else float(value)


def _known(value: Any) -> Any:
    """Return a label, None where there is none: NaN, which is not equal to itself, included."""
    return None if value is None or value != value else value  # noqa: PLR0124


def _number(layout: CohortLayout, column: str, tissue_id: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        msg = f"{layout.tissues}: {column!r} of tissue {tissue_id!r} is {value!r}, no number; for classes say label_type='classification'"
        raise FormatError(msg)
    if math.isinf(value):
        msg = f"{layout.tissues}: {column!r} of tissue {tissue_id!r} is {value}, which nothing can be fitted to; correct it, or leave it empty and out with missing_labels='drop'"
        raise FormatError(msg)
    return float(value)


def _in_order(labels: set[Any]) -> list[Any]:
    """Return labels by size or alphabet, numbers before text."""
    numbers = sorted(label for label in labels if isinstance(label, int | float))
    return numbers + sorted((label for label in labels if label not in numbers), key=str)
