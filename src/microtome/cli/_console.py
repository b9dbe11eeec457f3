"""How the command line speaks: progress bars on a terminal, log lines elsewhere, exit codes."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from microtome.errors import (
    InvalidInputError,
    MicrotomeError,
    OutOfRangeError,
    UnknownNameError,
)
from microtome.progress import Progress

__all__ = [
    "EXIT_FAILED",
    "EXIT_USAGE",
    "answer",
    "exit_code",
    "progress",
    "run",
    "say",
    "say_paths",
    "set_verbosity",
    "shape_text",
]

EXIT_FAILED = 1
"""The job could not be done: a file is missing or damaged, the disk is full."""
EXIT_USAGE = 2
"""The request itself is wrong: an unknown option or modality, an impossible tissue id."""

_LINE_EVERY = 2.0

_log = logging.getLogger("microtome")


def answer(text: str) -> None:
    """Print what was asked for: of a verb that only looks, its answer, however quiet it shall be."""
    sys.stdout.write(f"{text}\n")


def say(text: str) -> None:
    """Print what a verb has done, unless only warnings and errors are wanted."""
    if _log.level <= logging.INFO:
        sys.stdout.write(f"{text}\n")


def say_paths(paths: Iterable[Path | str]) -> None:
    """Print where results are, a line each."""
    for path in paths:
        say(str(path))


def shape_text(shape: Sequence[int]) -> str:
    """Return a shape for people: ``3 x 2962 x 2216``."""
    return " x ".join(str(size) for size in shape)


def set_verbosity(level: int, stream: TextIO | None = None) -> None:
    """Log to standard error: warnings for -1, what happens for 0, everything for 1."""
    _log.setLevel({-1: logging.WARNING, 0: logging.INFO}.get(level, logging.DEBUG))
    for old in list(_log.handlers):
        if getattr(old, "microtome_cli", False):
            _log.removeHandler(old)
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.microtome_cli = True  # type: ignore[attr-defined]
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s" if level > 0 else "%(message)s"))
    _log.addHandler(handler)


def exit_code(error: BaseException) -> int:
    """Return the exit code that an error stands for."""
    wrong_request = isinstance(error, InvalidInputError | UnknownNameError | OutOfRangeError)
    return EXIT_USAGE if wrong_request else EXIT_FAILED


@contextmanager
def progress() -> Generator[Progress]:
    """Give a callback that shows progress while the block runs, unless results are not wanted."""
    if _log.level > logging.INFO:
        yield lambda job, done, total: None  # noqa: ARG005 - the protocol's names
    elif sys.stderr.isatty():
        with _bars() as show:
            yield show
    else:
        yield _lines()


@contextmanager
def _bars() -> Generator[Progress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    with Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as bars:
        tasks: dict[str, TaskID] = {}

        def show(job: str, done: int, total: int, /) -> None:
            if job not in tasks:
                tasks[job] = bars.add_task(job, total=total)
            bars.update(tasks[job], completed=done, total=total)

        yield show


def _lines() -> Progress:
    """Log the end of every job, and how far it is now and then."""
    last: dict[str, float] = {}

    def show(job: str, done: int, total: int, /) -> None:
        now = time.monotonic()
        if done == total or now - last.get(job, now if job not in last else 0) > _LINE_EVERY:
            _log.info("%s: %d of %d", job, done, total)
            last[job] = now
        last.setdefault(job, now)

    return show


def run(action: Callable[[], None]) -> int:
    """Run a verb and turn what it raises into an exit code and one line on standard error."""
    try:
        action()
    except MicrotomeError as error:
        _log.error("error: %s", error)
        _log.debug("where it came from:", exc_info=error)
        return exit_code(error)
    except KeyboardInterrupt:
        _log.error("interrupted; nothing half-written was left, run it again to go on")
        return 130
    except OSError as error:
        _log.error("error: %s", error)
        _log.debug("where it came from:", exc_info=error)
        return EXIT_FAILED
    return 0
