"""Checks of standardization tables: of this panel, of these tissues, and numbers throughout."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from microtome.cohort._merge import listed
from microtome.cohort._modality import Modality, parse_modality
from microtome.cohort.statistics import fit_again, fitted_where, stats_command
from microtome.coordinates import Resolution
from microtome.standardize import StatisticsTables
from microtome.storage import file_source

from ._images import resolution_of
from ._survey import Survey

__all__ = ["check_statistics"]

_FILE = re.compile(r"(image|global)_level_([a-z_]+)\.parquet")


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """One file of statistics."""

    path: Path
    channels: list[str]
    tissues: list[str] | None
    """None for one row of all."""
    values: NDArray[np.float64]
    """(rows, channels)."""
    note: dict[str, Any]
    command: str
    """What makes it anew on all that it would be fitted on by default."""

    @property
    def fitted(self) -> list[str]:
        """Tissues that it says it was fitted on; none where it says something else."""
        said = self.note.get("fitted_on")
        return [str(tissue) for tissue in said] if isinstance(said, list) else []


def check_statistics(survey: Survey) -> None:
    """Check every standardization of every multiplex modality."""
    for name in sorted(survey.panels):
        modality = parse_modality(name)
        base = survey.layout.root / modality.canonical_dir
        # A method without quantiles has its tables a directory higher up than one with them.
        found = base.glob("*mpp/standardization/**/*_level_*.parquet")
        for directory in sorted({p.parent for p in found if not p.name.startswith(".")}):
            resolution = resolution_of(survey, base / directory.relative_to(base).parts[0])
            if resolution is not None and survey.wanted(resolution):
                _check_directory(survey, modality, resolution, directory)


def _check_directory(
    survey: Survey, modality: Modality, resolution: Resolution, directory: Path
) -> None:
    before = len(survey.findings)
    levels, moments = (
        [n for n in ("image", "global") if (directory / f"{n}_level_{name}.parquet").is_file()]
        for name in ("upper_quantiles", "means")
    )
    spec = "/".join(directory.relative_to(survey.layout.root / modality.canonical_dir).parts[2:])
    tables: list[_Table] = []
    for path in sorted(directory.iterdir()):
        match = _FILE.fullmatch(path.name)
        if match is not None:
            # Quantiles are made with means of any level, and the other level follows them.
            of = match[1] if match[2] in {"means", "stds"} else next(iter(moments), None)
            command = stats_command(survey.layout.root, modality, resolution, spec, stats_level=of)
            with survey.guarded("statistics-damaged", path, _again(command)):
                tables.append(_read(path, command, image_level=match[1] == "image"))
    for table in tables:
        _check_panel(survey, modality, table)
        _check_tissues(survey, modality, resolution, table)
    if len(survey.findings) > before:
        return
    for quantile_level in levels:
        for stats_level in moments or [None]:
            command = stats_command(
                survey.layout.root, modality, resolution, spec, stats_level=stats_level
            )
            with survey.guarded("statistics-damaged", directory, _again(command)):
                StatisticsTables.read(
                    directory,
                    quantile_level=quantile_level,  # pyright: ignore[reportArgumentType] - one of both
                    stats_level=stats_level,  # pyright: ignore[reportArgumentType] - one of both
                )


def _again(command: str, split: object = None) -> str:
    option = f" --split {shlex.quote(split)}" if isinstance(split, str) else ""
    return f"compute them again: `{command}{option}`"


def _read(path: Path, command: str, *, image_level: bool) -> _Table:
    with pq.ParquetFile(file_source(path)) as file:
        table = file.read()
    metadata: dict[bytes, bytes] = table.schema.metadata or {}
    noted = json.loads(metadata.get(b"pandas", b"{}")).get("index_columns", [])
    candidates = (*(n for n in noted if isinstance(n, str)), "tissue_id", "__index_level_0__")
    index = next((name for name in candidates if name in table.column_names), None)
    if image_level and index is None:
        msg = "has no index of tissue ids"
        raise ValueError(msg)
    channels = [name for name in table.column_names if name != index]
    values = np.empty((table.num_rows, len(channels)), np.float64)
    for place, name in enumerate(channels):
        kind = table.schema.field(name).type
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            msg = f"channel {name!r} must hold numbers, got {kind}"
            raise ValueError(msg)
        values[:, place] = table[name].to_numpy()
    if not image_level and table.num_rows != 1:
        msg = f"must have one row, for all tissues together; got {table.num_rows}"
        raise ValueError(msg)
    tissues = table[index].cast(pa.string()).to_pylist() if image_level and index else None
    note = json.loads(metadata.get(b"microtome", b"{}"))
    told = note if isinstance(note, dict) else {}
    return _Table(path, channels, tissues, values, told, command)


def _check_panel(survey: Survey, modality: Modality, table: _Table) -> None:
    panel = survey.panels[modality.name]
    lost = [name for name in panel if name not in table.channels]
    more = [name for name in table.channels if name not in panel]
    if lost or more:
        parts = [f"lack the panel's {listed(lost)}"] if lost else []
        parts += [f"have {listed(more)}, which it does not"] if more else []
        what = f"are of another panel: they {' and '.join(parts)}"
        advice = _again(table.command, _own_split(survey, modality, table))
        survey.report("error", "statistics-panel", table.path, what, advice)


def _check_tissues(
    survey: Survey, modality: Modality, resolution: Resolution, table: _Table
) -> None:
    mine = [t for t, m, r in survey.sizes if m == modality.name and r == resolution]
    if not mine:  # made for a coarser resolution than what is stored
        mine = [t for t in survey.tissues(modality) if survey.size_at(t, resolution)]
    fitted = table.fitted
    told_of = fitted if table.tissues is None else table.tissues
    told, known = set(told_of), set(survey.tissues(modality))
    lost = [] if table.tissues is None else [t for t in mine if t not in told]
    more = [t for t in told_of if t not in known]
    if lost or more:
        parts = [f"say nothing of {listed(lost)}"] if lost else []
        parts += [f"speak of {listed(more)}, which the cohort does not have"] if more else []
        what = f"are of other tissues: they {' and '.join(parts)}"
        advice = _again(table.command, _own_split(survey, modality, table))
        survey.report("error", "statistics-tissues", table.path, what, advice)
    # Numbers of each image by itself depend on no split.
    if table.tissues is None and fitted and not more:
        _check_fitted(survey, modality, table, mine)
    _check_numbers(survey, modality, table)


def _check_fitted(survey: Survey, modality: Modality, table: _Table, mine: Sequence[str]) -> None:
    """Check that what is of all tissues together was fitted on those that it would be fitted on."""
    fitted, split = table.fitted, table.note.get("split")
    now = _splits(survey, modality)
    moved = [t for t in fitted if split is not None and now.get(t) != split]
    advice = _again(table.command, _own_split(survey, modality, table))
    if moved:
        what = f"were fitted on split {split!r}, where {listed(moved)} no longer are"
        survey.report("error", "statistics-split", table.path, what, advice)
    known = set(fitted)
    added = [t for t in mine if t not in known and (split is None or now.get(t) == split)]
    if added:
        where = "all tissues" if split is None else f"split {split!r}"
        what = f"were fitted on {where} before {listed(added)} came"
        survey.report("warning", "statistics-tissues", table.path, what, advice)


def _splits(survey: Survey, modality: Modality) -> dict[str, Any]:
    return {r["tissue_id"]: r.get("split") for r in survey.rows if r["modality"] == modality.name}


def _own_split(survey: Survey, modality: Modality, table: _Table) -> str | None:
    """Return the split to ask for, so that a table is fitted again as it was; None for the default."""
    splits = set(_splits(survey, modality).values())
    split = table.note.get("split", "")
    if split is None:
        return "all" if "train" in splits and "all" not in splits else None
    # What a damaged file notes may be anything.
    return split if isinstance(split, str) and split in splits - {"train"} else None


def _check_numbers(survey: Survey, modality: Modality, table: _Table) -> None:
    """Check that whatever was measured has a number."""
    measured = survey.measured.get(modality.name, {})
    anywhere = {name for names in measured.values() for name in names}
    fitted = table.fitted
    of_fitted = {name for tissue in fitted for name in measured.get(tissue, ())}
    rows: Sequence[str | None] = table.tissues if table.tissues is not None else [None]
    wrong: list[str] = []
    nobody: list[str] = []
    for tissue, values in zip(rows, table.values, strict=True):
        expected = anywhere if tissue is None else set(measured.get(tissue, ()))
        for name, value in zip(table.channels, values.tolist(), strict=True):
            if name not in expected or np.isfinite(value):
                continue
            if tissue is None and fitted and name not in of_fitted:
                nobody.append(name)
            else:
                wrong.append(f"{name} of {tissue}" if tissue is not None else name)
    if wrong:
        what = f"{len(wrong)} numbers of channels that were measured are NaN or infinite: {listed(wrong)}"
        advice = f"is there tissue in the mask, and are all pixels numbers? Then {_again(table.command, _own_split(survey, modality, table))}"
        survey.report("error", "statistics-nan", table.path, what, advice)
    if nobody:
        where = fitted_where(fitted, table.note.get("split"))
        what = f"have no number of {listed(nobody)}: they were fitted on {where}, where nobody measured them"
        survey.report("warning", "statistics-unfitted", table.path, what, fit_again(table.command))
