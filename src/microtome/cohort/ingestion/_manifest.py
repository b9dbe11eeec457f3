"""`ingest_manifest`: a table of files becomes a cohort, checked whole before the first pixel is read."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Literal, Self, get_args

import pyarrow as pa

from microtome.cohort._given import read_given
from microtome.cohort._layout import CohortLayout
from microtome.cohort._merge import MOST_NAMED
from microtome.cohort._metadata import TEXT_COLUMNS, known_tissues, merged_tissues
from microtome.cohort._panels import extend_panel
from microtome.cohort._tables import write_parquet
from microtome.coordinates import Resolution
from microtome.errors import InvalidInputError, MicrotomeError, WorkerError
from microtome.jobs import run_each, verify_executor
from microtome.progress import Progress, silent
from microtome.storage import Codec, clear_drafts, locked

from ._ingest import Beginning
from ._manifest_rows import CheckedRows, ManifestRow, read_rows
from ._notes import Notes
from ._report import IngestOutcome, IngestState, outcome_of, report_writer
from ._row import Failure, Peek, RowSettings, RowTask, Stored, ingest_row, peek_at
from ._stale_told import tell_stale

__all__ = ["OnError", "ingest_manifest"]

_log = logging.getLogger(__name__)

OnError = Literal["stop", "continue"]
"""What becomes of the other rows of a manifest when one fails."""


def ingest_manifest(  # noqa: PLR0913 - what holds for all rows, and where the work is done
    manifest: Any,
    cohort: str | os.PathLike[str],
    *,
    resolution: float | str | tuple[float, float] | Resolution = 1.0,
    codec: Codec = "train",
    upsample: bool = False,
    overwrite: bool = False,
    on_error: OnError = "stop",
    executor: Executor | None = None,
    progress: Progress = silent,
    report: str | os.PathLike[str] | None = None,
    told: Callable[[IngestOutcome], None] | None = None,
) -> list[Path]:
    """Write all sources of a table into a cohort.

    The table is checked before anything is written: ids, modalities, files, splits, and what the
    files state of themselves; all that is wrong is told at once. What is there already, made from
    the same source, is left as it is, so that a run that was stopped goes on when it is started
    again. The panel has its channels in the order of the rows, whatever the number of workers.

    Parameters
    ----------
    manifest
        A `.csv`, `.tsv` or `.parquet` file, or columns in memory, with `tissue_id`, `path` (from
        the manifest's directory) and `modality`. Known besides: `mpp` (one number, or y|x),
        `patient_id`, `specimen_id`, `split`, `channel_names` (in order, with | between them), `image`
        (the name of one of several images in a file) and, for `.npy` arrays, `axes`. Any other column is clinical data and goes to the tissues' table.
    cohort
        Directory of the cohort; begun where there is nothing.
    resolution, codec, upsample, overwrite
        As for `ingest`, for all rows.
    on_error
        ``"stop"``: nothing is written if a row is wrong, and no more once one fails.
        ``"continue"``: the other rows are ingested, and what failed is told in one error at the end;
        so are files that are missing and numbers that are wrong.
    executor
        Where: any `concurrent.futures` executor; by default here, one after the other.
    progress
        Called with the rows done and to do.
    report
        File that says what became of each row, however the run ends: `.csv`, `.tsv` or `.parquet`.
        One that is there is replaced.
    told
        Called with what became of each row; of those that were not begun, at the end.

    Returns
    -------
    The images, in the order of the rows.

    Raises
    ------
    InvalidInputError, FormatError
        If the table is wrong: lists every row that is. Nothing was written.
    MicrotomeError
        If rows failed: of the kind that all of them have in common. Lists them; what was ingested
        stays.
    WorkerError
        If the executor lost its workers. What was ingested stays, and the same run again goes on
        from there.
    """
    if on_error not in get_args(OnError):
        msg = f"on_error must be one of {get_args(OnError)}, got {on_error!r}"
        raise InvalidInputError(msg)
    verify_executor(executor)
    target = Resolution.parse(resolution)
    layout = CohortLayout(Path(cohort))
    if layout.root.is_file():
        CohortLayout.open(cohort)  # refuses it, before all sources are asked what they state
    before = Beginning.of(cohort)
    if before.cohort:
        CohortLayout.open(cohort)  # refuses one that is damaged
    settings = RowSettings(layout, target, codec, upsample, overwrite)
    place = str(manifest) if isinstance(manifest, str | os.PathLike) else "the manifest"
    checked, tasks, facts = _checked(manifest, place, settings, on_error, executor)
    rows = checked.rows
    with _Outcomes(rows, report, told) as outcomes:
        peeks = list(run_each(peek_at, tasks, executor, lost=_gone))
        failed = _failures(checked, peeks)
        for failure in failed:
            outcomes.add(failure)
        if failed and on_error == "stop":
            raise _as_one(failed, f"{place}: nothing was ingested")
        CohortLayout.open_or_create(cohort)
        without = {failure.row.number for failure in failed}
        good = [p for p in peeks if isinstance(p, Peek) and p.task.row.number not in without]
        notes = Notes(layout)
        try:
            for peek in good:
                if peek.task.row.modality.kind == "multiplex":
                    extend_panel(layout, peek.task.row.modality, peek.channels)
            work = run_each(ingest_row, [peek.task for peek in good], executor, lost=_gone)
            with contextlib.closing(work) as results:
                for count, result in enumerate(results, start=1):
                    outcomes.add(result)
                    failed += [result] if isinstance(result, Failure) else notes.add(result)
                    progress("ingest", count, len(good))
                    if failed and on_error == "stop":
                        break
        finally:
            # However it ends: what is said of tissues that are there shall stand beside them.
            failed += notes.flush()
            _note(layout, facts, failed, overwrite=overwrite)
            for modality in {row.modality for row in rows}:
                clear_drafts(layout.images(modality, target))
            before.restore(layout)
        tell_stale(layout, outcomes.written() if overwrite else set())
        if failed:
            there = outcomes.count("written") + outcomes.count("there")
            raise _as_one(failed, f"{place}: {there} of {len(rows)} rows are ingested")
    return [layout.image(row.modality, target, row.tissue_id) for row in rows]


class _Outcomes:
    """What became of the rows; told, and written down, however the run ends."""

    def __init__(
        self,
        rows: Sequence[ManifestRow],
        report: str | os.PathLike[str] | None,
        told: Callable[[IngestOutcome], None] | None,
    ) -> None:
        self._rows = rows
        self._write = None if report is None else report_writer(report)
        self._told = told
        self._found: dict[int, IngestOutcome] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for row in self._rows:
            if row.number not in self._found:
                self._keep(outcome_of(row, "not begun"))
        if self._write is not None:
            self._write(list(self._found.values()))

    def add(self, result: Stored | Failure) -> None:
        """Keep what a worker said of a row."""
        if isinstance(result, Failure):
            found = outcome_of(
                result.row, "failed", reason=str(result.error), seconds=result.seconds
            )
        else:
            found = outcome_of(
                result.task.row,
                "written" if result.done.wrote else "there",
                image=str(result.done.path),
                size=result.size,
                seconds=result.seconds,
            )
        self._keep(found)

    def count(self, state: IngestState) -> int:
        """Return how many rows came out in a way."""
        return sum(found.state == state for found in self._found.values())

    def written(self) -> set[str]:
        """Return the tissues of which an image was written."""
        return {found.tissue_id for found in self._found.values() if found.state == "written"}

    def _keep(self, outcome: IngestOutcome) -> None:
        self._found[outcome.row] = outcome
        if self._told is not None:
            self._told(outcome)


def _gone(task: RowTask, error: WorkerError) -> Failure:
    return Failure(task.row, error)


def _checked(
    manifest: Any, place: str, settings: RowSettings, on_error: OnError, executor: Executor | None
) -> tuple[CheckedRows, list[RowTask], pa.Table]:
    """Return the rows of a manifest, their tasks, and what it says of tissues; refuse what is wrong."""
    base = Path(manifest).parent if isinstance(manifest, str | os.PathLike) else Path()
    table = read_given(
        manifest,
        text=(*TEXT_COLUMNS, "path", "channel_names", "axes", "image"),
        what="the manifest",
    )
    layout, apart = settings.layout, on_error == "continue"
    checked = read_rows(table, base, layout, place, resolution=settings.resolution, apart=apart)
    tasks = [RowTask(row, settings) for row in checked.asked]
    also = None
    if not checked.problems:
        try:
            return checked, tasks, _facts(table, layout, place, overwrite=settings.overwrite)
        except MicrotomeError as error:
            also = error
    raise _wrong_table(checked, tasks, executor, place, also)


def _facts(table: pa.Table, layout: CohortLayout, place: str, *, overwrite: bool) -> pa.Table:
    """Return what a manifest says of tissues, which must not contradict what the cohort says."""
    of_files = {"path", "mpp", "channel_names", "axes", "image"}
    facts = table.select([name for name in table.column_names if name not in of_files])
    merge = merged_tissues(layout, facts, place)
    merge.apply(overwrite=overwrite, add_rows=False, known=known_tissues())
    return facts


def _note(
    layout: CohortLayout, facts: pa.Table, failed: Sequence[Failure], *, overwrite: bool
) -> None:
    """Put clinical data beside the tissues that are there, but for rows that failed."""
    without = {failure.row.number - 1 for failure in failed}
    mine = facts.take(pa.array([i for i in range(facts.num_rows) if i not in without], pa.int64()))
    if not layout.tissues.is_file():
        return
    with locked(layout.lock, what=f"the cohort {layout.root}"):
        merge = merged_tissues(layout, mine, "the manifest")
        noted = merge.apply(overwrite=overwrite, add_rows=False, known=known_tissues())
        if not noted.equals(merge.old):
            write_parquet(noted, layout.tissues)


def _failures(checked: CheckedRows, peeks: Iterable[Peek | Failure]) -> list[Failure]:
    """Return the rows that cannot be ingested: by what the table says, by their files, or by both."""
    by_file = {peek.row.number: peek for peek in peeks if isinstance(peek, Failure)}
    failed: list[Failure] = []
    for row in checked.rows:
        wrong, found = checked.wrong.get(row.number), by_file.get(row.number)
        if wrong is not None:
            also = "" if found is None else f"; {found.error}"
            failed.append(Failure(row, type(wrong)(f"{wrong}{also}")))
        elif found is not None:
            failed.append(found)
    return failed


def _wrong_table(
    checked: CheckedRows,
    tasks: Sequence[RowTask],
    executor: Executor | None,
    place: str,
    also: MicrotomeError | None,
) -> MicrotomeError:
    """Return one error for a table that is wrong, with all that its files say besides."""
    peeks = run_each(peek_at, tasks, executor, lost=_gone)
    failed = [peek for peek in peeks if isinstance(peek, Failure)]
    if also is not None and not failed and not checked.wrong:
        return also
    named, more = _named(failed)
    told = [*checked.problems, *((each.row.number, str(each)) for each in named)]
    # What else stops single rows is told here with what stops all of them.
    told += [(number, f"row {number}: {error}") for number, error in checked.wrong.items()]
    lines = [text for _, text in sorted(told, key=lambda each: each[0])]
    lines += [] if also is None else [str(also)]
    count = len(lines) + len(failed) - len(named)
    problems = "1 problem" if count == 1 else f"{count} problems"
    return InvalidInputError(
        "\n".join([f"{place}: {problems}, nothing was ingested", *lines, *more])
    )


def _as_one(failed: Iterable[Failure], how: str) -> MicrotomeError:
    """Return one error for all, of the kind that they have in common."""
    ordered = sorted(failed, key=lambda failure: failure.row.number)
    kind = MicrotomeError
    for candidate in type(ordered[0].error).__mro__:
        if all(isinstance(failure.error, candidate) for failure in ordered):
            kind = candidate if issubclass(candidate, MicrotomeError) else MicrotomeError
            break
    named, more = _named(ordered)
    return kind("\n".join([f"{how}, {len(ordered)} failed", *map(str, named), *more]))


def _named(failed: Sequence[Failure]) -> tuple[Sequence[Failure], list[str]]:
    """Return those that a message names, and how it counts the others, which only the log names."""
    for failure in failed[MOST_NAMED:]:
        _log.error("%s", failure)
    more = [f"and {len(failed) - MOST_NAMED} more"] if failed[MOST_NAMED:] else []
    return failed[:MOST_NAMED], more
