"""What became of each row of a manifest, as values and as a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv as pa_csv

from microtome.errors import InvalidInputError, NotFoundError, StorageError
from microtome.storage import replace_file

from ._manifest_rows import ManifestRow

__all__ = ["IngestOutcome", "IngestState", "outcome_of", "report_writer"]

IngestState = Literal["written", "there", "failed", "not begun"]
"""`written`; `there`: made from the same source before; `failed`; `not begun`: the run ended first."""


@dataclass(frozen=True, slots=True)
class IngestOutcome:
    """What became of one row."""

    row: int
    """Number of the row, from 1, without the line of names."""
    tissue_id: str
    modality: str
    state: IngestState
    reason: str
    """Why it failed; else empty."""
    bytes: int
    """Of the image's files in the cohort."""
    seconds: float
    """That a worker took."""
    source: str
    image: str
    """Where it is in the cohort; empty where it is not."""


def outcome_of(
    row: ManifestRow,
    state: IngestState,
    *,
    reason: str = "",
    image: str = "",
    size: int = 0,
    seconds: float = 0.0,
) -> IngestOutcome:
    """Return what became of a row."""
    return IngestOutcome(
        row.number,
        row.tissue_id,
        row.modality.name,
        state,
        reason,
        size,
        round(seconds, 3),
        str(row.path),
        image,
    )


def report_writer(
    path: str | os.PathLike[str],
) -> Callable[[Sequence[IngestOutcome]], None]:
    """Return what writes outcomes to a file: a place that cannot be is refused before the work.

    Parameters
    ----------
    path
        ``.csv``, ``.tsv`` or ``.parquet``; one that is there is replaced.

    Raises
    ------
    InvalidInputError
        If the name ends in something else.
    NotFoundError
        If its directory does not exist.
    StorageError
        If nothing may be written there.
    """
    place = Path(path)
    writers = {".csv": _text(","), ".tsv": _text("\t"), ".parquet": pq.write_table}
    write = writers.get(place.suffix.lower())
    if write is None:
        msg = f"a report is a {', '.join(writers)} file, got {str(place)!r}"
        raise InvalidInputError(msg)
    if not place.parent.is_dir():
        msg = f"{place.parent}, where the report goes, does not exist"
        raise NotFoundError(msg)
    if not os.access(place.parent, os.W_OK):
        msg = f"the report {place} cannot be written: no permission in {place.parent}; choose another place"
        raise StorageError(msg)

    def written(outcomes: Sequence[IngestOutcome]) -> None:
        rows = [asdict(outcome) for outcome in sorted(outcomes, key=lambda one: one.row)]
        table = pa.table(
            {
                field.name: pa.array([row[field.name] for row in rows], _kind(field.name))
                for field in fields(IngestOutcome)
            }
        )
        with replace_file(place) as temporary:
            write(table, temporary)

    return written


def _kind(name: str) -> pa.DataType:
    return {"row": pa.int64(), "bytes": pa.int64(), "seconds": pa.float64()}.get(name, pa.string())


def _text(delimiter: str) -> Callable[[Any, Any], None]:
    def write(table: pa.Table, path: Path) -> None:
        pa_csv.write_csv(table, path, pa_csv.WriteOptions(delimiter=delimiter))

    return write
