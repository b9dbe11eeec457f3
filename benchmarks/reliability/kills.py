"""Jobs killed at random moments: what is left then, and what the same call makes of it.

Half of the kills come from outside after a random time. The other half come from inside at a
random step: before the n-th file that is opened for writing, renamed, made or removed, so that
moments between two steps are met as often as the long stretches of computing.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from microtome.errors import MicrotomeError
from microtome.image import MultiscaleImage

from .jobs import JOBS, Job, write_sources

__all__ = ["Killed", "Undisturbed", "kill_at_random"]

_STEPS = frozenset({"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"})
_LONGEST = 120.0
# A report names the hour in which it was made, and a prediction the run that made it.
_HOUR = re.compile(rb"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d)?)?")
_RUN = re.compile(rb'"run": *"[0-9a-f]+"')


@dataclass(slots=True)
class Killed:
    """What became of the kills of one job."""

    job: str
    kills: int = 0
    """Runs that were killed before their end."""
    late: int = 0
    """Runs that were done before the kill came."""
    halfway: int = 0
    """Kills that left something else than what was there before, and not yet the end."""
    broken: list[str] = field(default_factory=list)
    """What opened half-written, or was not the same after the repeated call; empty is good."""


class Undisturbed:
    """The sources, the cohort that each job begins with, and what it makes of it undisturbed.

    Parameters
    ----------
    folder
        Where they are made; empty.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._context = _context()
        write_sources(folder / "begin")
        self._made: dict[tuple[str, ...], Path] = {(): folder / "begin"}

    def before(self, job: Job) -> Path:
        """Return a directory in which everything that a job needs has been done, and no more."""
        for count in range(len(job.before)):
            key = job.before[: count + 1]
            if key not in self._made:
                self._made[key] = self._folder / "-".join(key)
                shutil.copytree(self._made[job.before[:count]], self._made[key])
                self._run(JOBS[key[-1]], self._made[key])
        return self._made[job.before]

    def place(self, job: Job) -> Path:
        """Return where a job works, disturbed or not: images note the path of their source."""
        return self._folder / "work" / job.name

    def after(self, job: Job) -> tuple[dict[str, str], float, int]:
        """Return the files after a job, its seconds and its steps."""
        place = self.place(job)
        shutil.copytree(self.before(job), place)
        seconds, steps = self._run(job, place)
        found = files_of(place)
        shutil.rmtree(place)
        return found, seconds, steps

    def _run(self, job: Job, place: Path) -> tuple[float, int]:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(job.name, place, theirs, None))
        process.start()
        theirs.close()
        return _finished(process, ours, job)

    def start(self, job: Job, place: Path, step: int | None) -> tuple[ForkServerProcess, Any]:
        """Start a job; it kills itself before a step, if one is given."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(job.name, place, theirs, step))
        process.start()
        theirs.close()
        return process, ours


def kill_at_random(undisturbed: Undisturbed, job: Job, kills: int, seed: int) -> Killed:
    """Kill a job again and again, each time on top of what the last kill left.

    Parameters
    ----------
    undisturbed
        What the job begins with and ends as.
    job
        Which.
    kills
        How often. Runs that were done before their kill came do not count, unless they are as many
        again. After each that left a finished result the job begins anew.
    seed
        Of the moments.

    Returns
    -------
    What became of it. At the end the job is run undisturbed and must come to the same bytes.
    """
    begin = undisturbed.before(job)
    first = files_of(begin)
    whole, seconds, steps = undisturbed.after(job)
    moments = random.Random(f"{seed} {job.name}")  # noqa: S311 - moments, no secrets
    found = Killed(job.name)
    place = undisturbed.place(job)
    shutil.copytree(begin, place)
    for number in range(2 * kills):
        if found.kills == kills:
            break
        # On top of what is left: a kill during the run that repairs, too. Every third begins anew,
        # so that the later steps are met as often as the first.
        if number % 3 == 0 or files_of(place) == whole:
            shutil.rmtree(place)
            shutil.copytree(begin, place)
        step = moments.randrange(steps) if number % 2 else None
        process, pipe = undisturbed.start(job, place, step)
        if step is None:
            pipe.recv()  # it has begun
            process.join(moments.random() * seconds)
            process.kill()
        process.join(_LONGEST)
        if process.exitcode is None:
            process.kill()
            found.broken.append(f"{job.name}: hangs, kill {number} at step {step}")
        elif process.exitcode == -signal.SIGKILL:
            found.kills += 1
        elif process.exitcode == 0:
            found.late += 1
        else:
            found.broken.append(f"{job.name}: ended with {process.exitcode} on what a kill left")
        now = files_of(place)
        found.halfway += now not in (first, whole)
        found.broken += [
            f"kill {number}, step {step}: {told}" for told in _half(place, first, whole, now)
        ]
    process, pipe = undisturbed.start(job, place, None)
    try:
        _finished(process, pipe, job)
    except RuntimeError as error:
        found.broken.append(str(error))
    found.broken += _differences(files_of(place), whole)
    shutil.rmtree(place)
    return found


def files_of(place: Path) -> dict[str, str]:
    """Return every file below a directory, but for locks, with the hash of what is in it."""
    found: dict[str, str] = {}
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place).as_posix()
        if path.is_file() and not name.endswith(".lock"):
            data = path.read_bytes()
            if path.suffix == ".html":
                data = _HOUR.sub(b"", data)
            elif path.name == "zarr.json":
                data = _RUN.sub(b"", data)
            found[name] = hashlib.sha256(data).hexdigest()
    return found


def _differences(now: dict[str, str], whole: dict[str, str]) -> list[str]:
    told = [f"{name} is missing after the repeated run" for name in whole.keys() - now.keys()]
    told += [f"{name} is left over after the repeated run" for name in now.keys() - whole.keys()]
    both = whole.keys() & now.keys()
    return told + [
        f"{name} differs after the repeated run" for name in both if now[name] != whole[name]
    ]


def _half(
    place: Path, first: dict[str, str], whole: dict[str, str], now: dict[str, str]
) -> Iterator[str]:
    """Say what anybody would take for a result, and is none."""
    for directory in (path for path in place.rglob("*") if path.is_dir()):
        prefix = directory.relative_to(place).as_posix() + "/"
        if _opens(directory) and not prefix.startswith("."):
            mine = {k: v for k, v in now.items() if k.startswith(prefix)}
            if mine not in (
                {k: v for k, v in first.items() if k.startswith(prefix)},
                {k: v for k, v in whole.items() if k.startswith(prefix)},
            ):
                yield f"{prefix} opens as an image and is not whole"
    for name, digest in now.items():
        path = place / name
        if any(part.startswith(".") for part in Path(name).parts) or digest in (
            first.get(name),
            whole.get(name),
        ):
            continue
        # A table may have the rows of some tissues and not yet of others: a state on the way.
        if path.suffix == ".parquet":
            try:
                pq.read_table(path)
            except Exception as error:  # noqa: BLE001 - whatever a reader says of half a file
                yield f"{name} is half a table: {error}"
        elif not any(_inside_image(parent) for parent in path.parents):
            yield f"{name} is neither what it was nor what it becomes"


def _opens(directory: Path) -> bool:
    """Whether anybody would take a directory for an image, this library or another."""
    try:
        MultiscaleImage.open(directory).close()
    except MicrotomeError:
        root = directory / "zarr.json"
        return root.exists() and json.loads(root.read_text())["node_type"] != "array"
    return True


def _inside_image(directory: Path) -> bool:
    """Whether files below belong to an image, which counts as a whole."""
    return directory.name.endswith(".ome.zarr")


def _finished(process: ForkServerProcess, pipe: Any, job: Job) -> tuple[float, int]:
    """Wait for a run that nobody disturbs.

    Raises
    ------
    RuntimeError
        If it does not end well.
    """
    pipe.recv()
    try:
        told: tuple[float, int] | str = pipe.recv() if pipe.poll(_LONGEST) else "it hangs"
    except EOFError:
        told = "it died"
    process.join(_LONGEST)
    if not isinstance(told, str):
        return told
    msg = f"{job.name} undisturbed: {told}"
    raise RuntimeError(msg)


def _context() -> ForkServerContext:
    """Processes that start with everything imported: a kill costs no second of starting Python."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.reliability.kills", "microtome.sources"])
    return context


def _work(name: str, place: Path, pipe: Any, step: int | None) -> None:
    """Do a job in its own process, counting the steps that change what is on disk."""
    steps = 0
    here = str(place)

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal steps
        if event not in _STEPS or not str(arguments[0]).startswith(here):
            return
        if event == "open":
            flags = arguments[2] if len(arguments) > 2 else 0
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        if steps == step:
            os.kill(os.getpid(), signal.SIGKILL)
        steps += 1

    sys.addaudithook(count)
    pipe.send("begun")
    began = time.perf_counter()
    try:
        JOBS[name].run(place)
    except BaseException as error:
        pipe.send(f"{type(error).__name__}: {error}")
        raise
    pipe.send((time.perf_counter() - began, steps))
