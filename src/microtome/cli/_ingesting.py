"""`microtome ingest --manifest`: many rows, and one table at the end of what became of them."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._console import progress, say
from ._workers import executor_of

if TYPE_CHECKING:
    from microtome.cohort import IngestOutcome

__all__ = ["ingest_table"]

_STATES = {
    "written": "done",
    "there": "already there",
    "failed": "failed",
    "not begun": "not begun",
}


def ingest_table(
    manifest: Path,
    cohort: Path,
    *,
    report: Path | None,
    workers: int,
    dask: str | None,
    **options: Any,
) -> None:
    """Ingest a manifest; however it ends, say in one table what became of the rows."""
    from microtome.cohort import ingest_manifest as do

    if report is None and options["on_error"] == "continue":
        report = manifest.with_name(f"{manifest.stem}.ingest.csv")
    outcomes: list[IngestOutcome] = []
    began = time.perf_counter()
    try:
        with executor_of(workers, dask) as executor, progress() as show:
            do(
                manifest,
                cohort,
                executor=executor,
                progress=show,
                report=report,
                told=outcomes.append,
                **options,
            )
    finally:
        if outcomes and logging.getLogger("microtome").level <= logging.INFO:
            _show(outcomes, time.perf_counter() - began)
            if report is not None:
                say(f"what became of each row: {report}")


def _show(outcomes: Sequence[IngestOutcome], seconds: float) -> None:
    """Print how many rows came to what; which failed, and why, the error says that follows."""
    from rich.console import Console
    from rich.table import Table

    table = Table("ingest", box=None, pad_edge=False)
    for name in ("images", "MB", "seconds of workers"):
        table.add_column(name, justify="right", no_wrap=True)
    for state, words in _STATES.items():
        found = [outcome for outcome in outcomes if outcome.state == state]
        if found:
            table.add_row(words, *_figures(found))
    table.add_row(f"all, in {seconds:.1f} s", *_figures(outcomes))
    # As wide as it needs, where it does not go to a terminal: lines are for other programs, too.
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 1000)
    console.print(table)


def _figures(outcomes: Sequence[IngestOutcome]) -> tuple[str, str, str]:
    return (
        str(len(outcomes)),
        f"{sum(outcome.bytes for outcome in outcomes) / 1e6:.1f}",
        f"{sum(outcome.seconds for outcome in outcomes):.1f}",
    )
