"""The rows of a manifest as values, and everything that can be wrong with them."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from microtome.cohort._layout import CohortLayout, check_tissue_id
from microtome.cohort._modality import Modality, parse_modality
from microtome.cohort._spelled import spelled_twice
from microtome.cohort._tables import read_tissues
from microtome.coordinates import Mpp, Resolution
from microtome.errors import InvalidInputError, MicrotomeError, NoResolutionError, NotFoundError

__all__ = ["CheckedRows", "ManifestRow", "read_rows"]

_T = TypeVar("_T")

_REQUIRED = ("tissue_id", "path", "modality")
_KNOWN = (
    *_REQUIRED,
    *("mpp", "patient_id", "specimen_id", "split", "channel_names", "axes", "image"),
)
_log = logging.getLogger(__name__)

# What people call columns that have another name here.
_MEANT = {
    "channels": "channel_names",
    "channel": "channel_names",
    "names": "channel_names",
    "patient": "patient_id",
    "patientid": "patient_id",
    "specimen": "specimen_id",
    "sample": "tissue_id or specimen_id",
    "pixel_size": "mpp",
    "resolution": "mpp",
    "fold": "split",
    "set": "split",
}
# What others call the image inside a file; taken for clinical data, another would be ingested.
_IMAGE = ("scene", "series")
_THERE = "in the cohort"


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One image to ingest."""

    number: int
    """Of the row, from 1, without the line of names."""
    tissue_id: str
    path: Path
    modality: Modality
    mpp: float | tuple[float, float] | None = None
    patient_id: str | None = None
    specimen_id: str | None = None
    split: str | None = None
    channel_names: tuple[str, ...] | None = None
    axes: str | None = None
    image: str | int | None = None
    has_id: bool = True
    """Whether the id is one; else `tissue_id` is what stands in its place, for messages."""

    def __str__(self) -> str:
        return f"row {self.number} ({self.tissue_id}, {self.modality})"


@dataclass(frozen=True, slots=True)
class CheckedRows:
    """The rows of a manifest, and what is wrong with them as far as the table itself tells.

    Parameters
    ----------
    rows
        Those that have an id and a modality.
    asked
        Those of which the files can be asked what they state, with something possible for what is
        wrong, so that all else that is wrong is found.
    problems
        What stops all rows, each with the number of its row; what is of several rows comes last.
    wrong
        What stops single rows, by their numbers.
    """

    rows: list[ManifestRow]
    asked: list[ManifestRow]
    problems: list[tuple[int, str]]
    wrong: dict[int, MicrotomeError]


def read_rows(
    table: pa.Table,
    base: Path,
    layout: CohortLayout,
    place: str,
    *,
    resolution: Resolution,
    apart: bool = False,
) -> CheckedRows:
    """Read the rows of a manifest; and what is wrong with some.

    Parameters
    ----------
    table
        The manifest.
    base
        Where relative paths begin.
    layout
        The cohort, whose patients' splits must not be contradicted.
    place
        The manifest, for messages.
    resolution
        Of the cohort: the pixel size that is taken of a row that says none that is possible, while
        its file is asked for all else.
    apart
        Whether a row whose file or numbers are wrong is told apart from the others. What is wrong
        with the table, as a row without an id or two of one name, is a problem in any case.

    Raises
    ------
    InvalidInputError
        If a column is missing or called something else here, or there are no rows.
    """
    plain = {name: name.strip().lower().replace(" ", "_") for name in table.column_names}
    missing = [name for name in _REQUIRED if name not in table.column_names]
    if missing:
        meant = {name: own for name, own in plain.items() if own in missing}
        hint = "".join(f"; call {name!r} {own!r}" for name, own in meant.items())
        msg = f"{place} lacks the columns {missing}; it has {table.column_names}{hint}"
        raise InvalidInputError(msg)
    unknown = [name for name in _IMAGE if name in table.column_names]
    if unknown and "image" not in table.column_names:
        msg = f"{place}: if columns {unknown} say which image of a file is meant, call one of them image; else give it another name"
        raise InvalidInputError(msg)
    for name, meant in plain.items():
        if meant in _KNOWN and name != meant and meant not in table.column_names:
            msg = f"{place}: call the column {name!r} {meant!r}; as it is, it would be taken for clinical data"
            raise InvalidInputError(msg)
    for name in table.column_names:
        if meant := _MEANT.get(plain[name]):
            _log.warning(
                "%s: column %r goes to the table of tissues as clinical data; if it is %s, call it so",
                place,
                name,
                meant,
            )
    if not table.num_rows:
        msg = f"{place} has no rows"
        raise InvalidInputError(msg)
    checked = CheckedRows([], [], [], {})
    for number, values in enumerate(table.to_pylist(), start=1):
        _check(number, values, base, resolution, checked, apart=apart)
    several = _repeated(checked.rows) + _contradictions(checked.rows, layout)
    checked.problems.extend((table.num_rows + 1, each) for each in several)
    return checked


def _check(
    number: int,
    values: Mapping[str, Any],
    base: Path,
    resolution: Resolution,
    into: CheckedRows,
    *,
    apart: bool,
) -> None:
    """Read a row; all that is wrong with it joins what is wrong with the others."""
    wrong: list[str] = []

    def checked(check: Callable[[Any], _T], name: str) -> _T | None:
        value = values.get(name)
        if value is None and name in _REQUIRED:
            wrong.append(f"no {name}")
        try:
            return None if value is None else check(value)
        except MicrotomeError as error:
            wrong.append(str(error))
            return None

    tissue_id = checked(check_tissue_id, "tissue_id")
    modality = checked(parse_modality, "modality")
    path = checked(lambda text: _existing(base / text), "path")
    mpp = checked(_mpp, "mpp")
    names = checked(_names, "channel_names")
    axes = values.get("axes")
    if axes is not None and path is not None and path.suffix.lower() != ".npy":
        wrong.append(f"axes {axes!r} are for .npy arrays, a file states its own")
    row = None
    if modality is not None:
        row = ManifestRow(
            number,
            tissue_id or str(values.get("tissue_id") or "no tissue_id"),
            # Of a row without a file nothing is read: that is a problem.
            path or base / str(values.get("path") or ""),
            modality,
            mpp,
            values.get("patient_id"),
            values.get("specimen_id"),
            values.get("split"),
            names,
            axes,
            values.get("image"),
            tissue_id is not None,
        )
        if path is not None:
            into.asked.append(_possible(row, values, resolution))
    named = row is not None and tissue_id is not None
    if named and row is not None:
        into.rows.append(row)
    if wrong and named and apart:
        into.wrong[number] = InvalidInputError("; ".join(wrong))
    else:
        name = str(row) if named else f"row {number}"
        into.problems.extend((number, f"{name}: {each}") for each in wrong)


def _possible(row: ManifestRow, values: Mapping[str, Any], resolution: Resolution) -> ManifestRow:
    """Return a row with something possible for numbers and names that are not."""
    mpp, names = row.mpp, row.channel_names
    if mpp is None and values.get("mpp") is not None:
        mpp = resolution.mpp
    if names is None and values.get("channel_names") is not None:
        parts = str(values["channel_names"]).split("|")
        names = tuple(part.strip() or f"without name {i}" for i, part in enumerate(parts, 1))
    return replace(row, mpp=mpp, channel_names=names)


def _existing(path: Path) -> Path:
    if not path.exists():
        msg = f"{path} does not exist"
        raise NotFoundError(msg)
    return path


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split("|"))
    if "" in names:
        msg = f"channel_names {text!r} has an empty name"
        raise InvalidInputError(msg)
    return names


def _mpp(text: Any) -> float | tuple[float, float]:
    try:
        numbers = tuple(float(part) for part in str(text).split("|"))
        y, x = numbers * 2 if len(numbers) == 1 else numbers
    except ValueError:
        msg = f"mpp {text!r} is not micrometres per pixel, one number or y|x"
        raise InvalidInputError(msg) from None
    try:
        Mpp.from_user((y, x))
    except NoResolutionError:
        msg = f"mpp {text!r} is not a possible pixel size in micrometres; give the right one in the column mpp"
        raise InvalidInputError(msg) from None
    return y if len(numbers) == 1 else (y, x)


def _repeated(rows: list[ManifestRow]) -> list[str]:
    places: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row in rows:
        places[row.tissue_id, row.modality.name].append(row.number)
    return [
        f"rows {', '.join(map(str, numbers))}: tissue {tissue!r} as {modality} is there more than once"
        for (tissue, modality), numbers in places.items()
        if numbers[1:]
    ]


def _contradictions(rows: list[ManifestRow], layout: CohortLayout) -> list[str]:
    """Say which patients and tissues are in two splits, which tissues of two patients, and which names are alike."""
    said: dict[tuple[str, str, str], dict[str, str]] = defaultdict(dict)
    splits: dict[str | None, str] = {}
    ids: dict[str | None, str] = {}
    mine = {(row.tissue_id, row.modality.name) for row in rows}
    if layout.tissues.is_file():
        for row in read_tissues(layout).to_pylist():
            # Of an image that is ingested again the new row counts; `merged_tissues` compares it.
            if (row["tissue_id"], row["modality"]) not in mine:
                values = {k: row.get(k) for k in ("tissue_id", "patient_id", "split")}
                _say(said, values, _THERE)
                splits.setdefault(row.get("split"), _THERE)
                ids.setdefault(row["tissue_id"], _THERE)
    for row in rows:
        values = {"tissue_id": row.tissue_id, "patient_id": row.patient_id, "split": row.split}
        _say(said, values, f"row {row.number}")
        splits.setdefault(row.split, f"row {row.number}")
        ids.setdefault(row.tissue_id, f"row {row.number}")
    return (
        _alike("splits", splits)
        + _alike("tissue ids", ids)
        + [
            f"{whose} {name!r} has {len(values)} values of {what}: "
            + ", ".join(f"{value!r} ({where})" for value, where in values.items())
            for (whose, name, what), values in said.items()
            if len(values) > 1
        ]
    )


def _alike(what: str, names: Mapping[str | None, str]) -> list[str]:
    """Say which names are one that somebody spelled in two ways.

    Of a split Train nobody would train; of tissues h1 and H1, Windows and macOS make one directory.
    """
    return [
        f"{what} differ in capital letters or spaces only: "
        + ", ".join(f"{each!r} ({names[each]})" for each in several)
        + "; spell them alike"
        for several in spelled_twice(names)
        if any(names[each] != _THERE for each in several)
    ]


def _say(
    said: dict[tuple[str, str, str], dict[str, str]], row: Mapping[str, Any], where: str
) -> None:
    for whose, what in (
        ("patient_id", "split"),
        ("tissue_id", "split"),
        ("tissue_id", "patient_id"),
    ):
        if row[whose] is not None and row[what] is not None:
            key = (whose.removesuffix("_id"), str(row[whose]), what)
            said[key].setdefault(str(row[what]), where)
