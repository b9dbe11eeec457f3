"""What `validate` knows of a cohort while it looks: findings so far, and what later checks compare with."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from microtome.cohort._layout import CohortLayout
from microtome.cohort._merge import listed
from microtome.cohort._modality import Modality
from microtome.cohort._tables import read_parquet
from microtome.coordinates import Resolution
from microtome.errors import MicrotomeError
from microtome.progress import Progress, silent

__all__ = ["DAMAGE", "ColumnKind", "Finding", "Severity", "Survey", "repeated", "told"]

Severity = Literal["error", "warning"]
"""`error`: a later step fails or is wrong. `warning`: something that somebody should know."""

ColumnKind = Literal["text", "integer", "number", "boolean"]

# What a damaged file may raise in the hands of those who read it.
DAMAGE = (
    MicrotomeError,
    OSError,
    pa.ArrowException,
    ValueError,
    KeyError,
    TypeError,
    RecursionError,
)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be, and what to do about it."""

    severity: Severity
    kind: str
    """One word of a fixed list, for programs."""
    place: str
    """File or directory, from the cohort's directory."""
    what: str
    advice: str

    def as_dict(self) -> dict[str, str]:
        """Return the same as plain types."""
        return asdict(self)

    def __str__(self) -> str:
        # Messages of readers may have several lines, a finding has one.
        text = f"{self.severity:<7}  {self.place}: {self.what}; {self.advice}"
        return " ".join(text.split("\n"))


@dataclass(slots=True)
class Survey:
    """A look at a cohort.

    Parameters
    ----------
    layout
        The cohort.
    only
        The resolution to look at; None for all.
    progress
        Called with what is done and to do.
    executor
        Where images are opened.
    """

    layout: CohortLayout
    only: Resolution | None = None
    progress: Progress = silent
    executor: Executor | None = None
    findings: list[Finding] = field(default_factory=list[Finding])
    rows: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """Of the table of tissues: those with an id and a modality that exist."""
    sizes: dict[tuple[str, str, Resolution], tuple[int, int]] = field(
        default_factory=dict[tuple[str, str, Resolution], tuple[int, int]]
    )
    """(height, width) of images that open, by tissue, modality and resolution."""
    panels: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """Names of the channels by modality, where they can be read."""
    measured: dict[str, dict[str, list[str]]] = field(
        default_factory=dict[str, dict[str, list[str]]]
    )
    """Channels that each tissue measured, by modality, where they can be read."""
    _grids: dict[str, dict[Resolution, tuple[int, int]]] = field(
        default_factory=dict[str, dict[Resolution, tuple[int, int]]]
    )

    def report(
        self, severity: Severity, kind: str, place: Path | str, what: str, advice: str
    ) -> None:
        """Note a finding."""
        root = self.layout.root
        if not isinstance(place, str):
            place = place.relative_to(root).as_posix() if place.is_relative_to(root) else str(place)
        self.findings.append(Finding(severity, kind, place, what, advice))

    @contextmanager
    def guarded(self, kind: str, place: Path, advice: str) -> Generator[None]:
        """Turn what a damaged file raises into a finding."""
        try:
            yield
        except DAMAGE as error:
            self.report("error", kind, place, told(error, place), advice)

    def wanted(self, resolution: Resolution) -> bool:
        """Whether a resolution is looked at."""
        return self.only is None or resolution == self.only

    def tissues(self, modality: Modality | None = None) -> list[str]:
        """Return the tissues that the table has, all or those of a modality, each once."""
        return list(
            dict.fromkeys(
                row["tissue_id"]
                for row in self.rows
                if modality is None or row["modality"] == modality.name
            )
        )

    def note_size(
        self, tissue_id: str, modality: Modality, resolution: Resolution, size: tuple[int, int]
    ) -> None:
        """Note the (height, width) of an image that opens."""
        self.sizes[tissue_id, modality.name, resolution] = size
        self._grids.setdefault(tissue_id, {}).setdefault(resolution, size)

    def size_at(self, tissue_id: str, resolution: Resolution) -> tuple[int, int] | None:
        """Return the size of a tissue's grid at a resolution, stored or coarser than what is."""
        mine = self._grids.get(tissue_id, {})
        if resolution in mine:
            return mine[resolution]
        finer = [r for r in mine if r.serves(resolution)]
        if not finer:
            return None
        nearest = max(finer, key=lambda r: r.mpp)
        height, width = mine[nearest]
        # The same numbers as the view of an image: a last pixel that is cut through counts.
        return (
            math.ceil(height * nearest.y / resolution.y),
            math.ceil(width * nearest.x / resolution.x),
        )

    def table(
        self,
        path: Path,
        required: Mapping[str, ColumnKind],
        *,
        optional: Mapping[str, ColumnKind] | None = None,
        keys: Iterable[str] = (),
    ) -> pa.Table | None:
        """Read a table and check its columns; None if it cannot be used.

        Parameters
        ----------
        path
            The file.
        required, optional
            Columns that must, or may, be there, and what they hold.
        keys
            Those of which no value may be missing.
        """
        read: pa.Table | None = None
        with self.guarded("table-damaged", path, "write it again, or bring back a copy"):
            read = read_parquet(path, [])
        if read is None:
            return None
        table = read
        missing = [name for name in required if name not in table.column_names]
        if missing:
            what = f"lacks the columns {missing}; it has {table.column_names}"
            self.report("error", "column-missing", path, what, "add them")
            return None
        usable = True
        kinds: dict[str, ColumnKind] = {**required, **(optional or {})}
        for name, kind in kinds.items():
            if name not in table.column_names:
                continue
            column = table[name]
            if not _holds(column.type, kind):
                what = f"column {name!r} must hold {kind}, got {column.type}"
                self.report("error", "column-type", path, what, "write it in that type")
                usable = usable and name not in required
            elif name in set(keys) and column.null_count:
                rows = (np.flatnonzero(column.is_null().to_numpy()) + 1).tolist()
                what = f"column {name!r} has no value in {len(rows)} rows (row {listed(rows)})"
                self.report("error", "missing-value", path, what, "fill them in")
                table = table.filter(pc.is_valid(column)) if name in required else table
        return table if usable else None

    def missing_labels(
        self,
        path: Path,
        table: pa.Table,
        known: Iterable[str],
        *,
        excused: Mapping[str, NDArray[np.bool_]] | None = None,
    ) -> None:
        """Warn of columns that only some rows have a value of; those that lack the same in one line.

        Parameters
        ----------
        path, table
            Where, and what.
        known
            Columns that are no labels.
        excused
            (rows,) by column: those that need no value.
        """
        structural = set(known)
        alike: dict[bytes, list[str]] = {}
        for name in table.column_names:
            if name in structural:
                continue
            column = table[name]
            empty = column.is_null(nan_is_null=pa.types.is_floating(column.type)).to_numpy()
            if empty.all():
                continue
            if excused is not None and name in excused:
                empty = empty & ~excused[name]
            if empty.any():
                alike.setdefault(np.packbits(empty).tobytes(), []).append(name)
        for packed, names in alike.items():
            # A byte may end in bits of no row, which are 0.
            places = np.flatnonzero(np.unpackbits(np.frombuffer(packed, np.uint8)))
            rows, more = (places[:10] + 1).tolist(), ", ..." if places.size > 10 else ""
            one = len(names) == 1
            who = f"column {names[0]!r} has" if one else f"columns {listed(_quoted(names))} have"
            what = f"{who} no value in {places.size} of {table.num_rows} rows (row {', '.join(map(str, rows))}{more})"
            advice = "fill them in, or leave these out when it is used as a label"
            self.report("warning", "missing-labels", path, what, advice)

    def infinite_values(self, path: Path, table: pa.Table) -> None:
        """Warn of columns of numbers that are infinite in some rows: no mean of them says anything."""
        told: list[str] = []
        for name in table.column_names:
            if pa.types.is_floating(table[name].type):
                count = int(pc.sum(pc.is_inf(table[name])).as_py() or 0)
                told += [f"{name!r} in {count} of {table.num_rows} rows"] if count else []
        if told:
            what = f"numbers are infinite: {listed(told)}"
            advice = "such as of a division by 0; leave them empty where nothing is known"
            self.report("warning", "infinite-values", path, what, advice)


def _quoted(names: Sequence[str]) -> list[str]:
    return [repr(name) for name in names]


def told(error: BaseException, place: Path) -> str:
    """Return what an error says, without the place that a finding names itself."""
    text = str(error).removeprefix(f"{place}: ").removeprefix(f"{place} ")
    return text or type(error).__name__


def repeated(table: pa.Table, keys: list[str]) -> list[str]:
    """Return the keys that several rows have, as texts."""
    counted = table.select(keys).group_by(keys).aggregate([([], "count_all")])
    twice = counted.filter(pc.greater(counted["count_all"], 1)).select(keys).to_pylist()
    return sorted(" ".join(str(value) for value in row.values()) for row in twice)


def _holds(kind: pa.DataType, wanted: ColumnKind) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_null(kind):  # a column without any value has no type
        return True
    integer, boolean = pa.types.is_integer(kind), pa.types.is_boolean(kind)
    return {
        "text": pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind),
        "integer": integer,
        "number": integer or pa.types.is_floating(kind),
        "boolean": boolean,
    }[wanted]
