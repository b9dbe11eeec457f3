"""`ingest_manifest`: a table of files becomes a cohort, checked whole before the first pixel is read."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa

from microtome.coordinates import Mpp, Resolution
from microtome.errors import FormatError, InvalidInputError, MicrotomeError
from microtome.image import MultiscaleImage
from microtome.jobs import run_each, verify_executor
from microtome.progress import Progress, silent
from microtome.sources import image_from_array, open_image
from microtome.storage import Codec, locked

from ._given import read_given
from ._ingest import Beginning, channels_to_store, ingest
from ._layout import CohortLayout
from ._manifest_rows import ManifestRow, read_rows
from ._merge import MOST_NAMED
from ._metadata import TEXT_COLUMNS, known_tissues, merged_tissues
from ._tables import extend_panel, write_parquet

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
        ``"continue"``: the other rows are ingested, and what failed is told in one error at the end.
    executor
        Where: any `concurrent.futures` executor; by default here, one after the other.
    progress
        Called with the rows done and to do.

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
    """
    if on_error not in get_args(OnError):
        msg = f"on_error must be one of {get_args(OnError)}, got {on_error!r}"
        raise InvalidInputError(msg)
    verify_executor(executor)
    target = Resolution.parse(resolution)
    place, base = "the manifest", Path()
    if isinstance(manifest, str | os.PathLike):
        place, base = str(manifest), Path(manifest).parent
    table = read_given(
        manifest,
        text=(*TEXT_COLUMNS, "path", "channel_names", "axes", "image"),
        what="the manifest",
    )
    layout = CohortLayout(Path(cohort))
    before = Beginning.of(cohort)
    if before.cohort:
        CohortLayout.open(cohort)  # refuses one that is damaged
    rows = read_rows(table, base, layout, place)
    facts = _facts(table, layout, place, overwrite=overwrite)
    tasks = [_Task(row, layout, target, codec, upsample, overwrite) for row in rows]
    peeks = list(run_each(_peek, tasks, executor))
    failed = [peek for peek in peeks if isinstance(peek, _Failure)]
    if failed and on_error == "stop":
        raise _as_one(failed, f"{place}: nothing was ingested")
    CohortLayout.open_or_create(cohort)
    good = [peek for peek in peeks if isinstance(peek, _Peek)]
    ingested = 0
    try:
        for peek in good:
            if peek.task.row.modality.kind == "multiplex":
                extend_panel(layout, peek.task.row.modality, peek.channels)
        with contextlib.closing(run_each(_ingest, [p.task for p in good], executor)) as outcomes:
            for count, outcome in enumerate(outcomes, start=1):
                ingested += outcome is None
                failed += [] if outcome is None else [outcome]
                progress("ingest", count, len(good))
                if failed and on_error == "stop":
                    break
    finally:
        # However it ends: what is said of tissues that are there shall stand beside them.
        _note(layout, facts, failed, overwrite=overwrite)
        before.restore(layout)
    if failed:
        raise _as_one(failed, f"{place}: {ingested} of {len(rows)} rows are ingested")
    return [layout.image(row.modality, target, row.tissue_id) for row in rows]


@dataclass(frozen=True, slots=True)
class _Task:
    """One row, as it travels to a worker."""

    row: ManifestRow
    layout: CohortLayout
    resolution: Resolution
    codec: Codec
    upsample: bool
    overwrite: bool


@dataclass(frozen=True, slots=True)
class _Peek:
    """What a source states of itself, without its pixels."""

    task: _Task
    channels: list[str]


@dataclass(frozen=True, slots=True)
class _Failure:
    """A row that cannot be ingested."""

    row: ManifestRow
    error: MicrotomeError | OSError

    def __str__(self) -> str:
        return f"{self.row}: {self.error}"


def _peek(task: _Task) -> _Peek | _Failure:
    try:
        image = _open(task.row)
        channels = channels_to_store(
            image,
            task.row.modality,
            task.resolution,
            task.row.channel_names,
            upsample=task.upsample,
        )
    except (MicrotomeError, OSError) as error:
        return _Failure(task.row, error)
    return _Peek(task, channels)


def _ingest(task: _Task) -> _Failure | None:
    row = task.row
    array = row.path.suffix.lower() == ".npy"
    try:
        ingest(
            _open(row) if array else row.path,
            cohort=task.layout.root,
            tissue_id=row.tissue_id,
            modality=row.modality,
            mpp=None if array else row.mpp,
            resolution=task.resolution,
            channel_names=None if array else row.channel_names,
            image=row.image,
            patient_id=row.patient_id,
            specimen_id=row.specimen_id,
            split=row.split,
            codec=task.codec,
            upsample=task.upsample,
            overwrite=task.overwrite,
        )
    except (MicrotomeError, OSError) as error:
        return _Failure(row, error)
    return None


def _open(row: ManifestRow) -> MultiscaleImage:
    if row.path.suffix.lower() != ".npy":
        return open_image(row.path, mpp=row.mpp, channel_names=row.channel_names, image=row.image)
    try:
        pixels = np.load(row.path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        msg = f"{row.path} is not an array of numbers that can be read: {error}"
        raise FormatError(msg) from error
    return image_from_array(
        pixels,
        axes=row.axes,
        mpp=None if row.mpp is None else Mpp.from_user(row.mpp),
        channel_names=row.channel_names,
        uri=str(row.path),
        name=row.path.stem,
    )


def _facts(table: pa.Table, layout: CohortLayout, place: str, *, overwrite: bool) -> pa.Table:
    """Return what a manifest says of tissues, which must not contradict what the cohort says."""
    of_files = {"path", "mpp", "channel_names", "axes", "image"}
    facts = table.select([name for name in table.column_names if name not in of_files])
    merge = merged_tissues(layout, facts, place)
    merge.apply(overwrite=overwrite, add_rows=False, known=known_tissues())
    return facts


def _note(
    layout: CohortLayout, facts: pa.Table, failed: Sequence[_Failure], *, overwrite: bool
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


def _as_one(failed: Iterable[_Failure], how: str) -> MicrotomeError:
    """Return one error for all, of the kind that they have in common."""
    ordered = sorted(failed, key=lambda failure: failure.row.number)
    kind = MicrotomeError
    for candidate in type(ordered[0].error).__mro__:
        if all(isinstance(failure.error, candidate) for failure in ordered):
            kind = candidate if issubclass(candidate, MicrotomeError) else MicrotomeError
            break
    for failure in ordered[MOST_NAMED:]:
        _log.error("%s", failure)  # the message names some, the log all
    more = [f"and {len(ordered) - MOST_NAMED} more"] if ordered[MOST_NAMED:] else []
    return kind(
        "\n".join([f"{how}, {len(ordered)} failed", *map(str, ordered[:MOST_NAMED]), *more])
    )
