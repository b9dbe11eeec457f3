"""Jobs give the same answers in the same order, wherever they run."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from pathlib import Path

import pytest

from microtome.errors import InvalidInputError, WorkerError
from microtome.jobs import process_pool, run_each


def square(number: int) -> int:
    time.sleep(0.002 * (number % 3))  # so that later ones finish first
    return number * number


class Counting(Executor):
    """Runs at once and counts what was handed out before it was taken."""

    def __init__(self) -> None:
        self.handed_out = 0

    def submit(self, fn, /, *args, **kwargs):
        self.handed_out += 1
        future: Future = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def test_results_come_in_the_order_of_the_tasks():
    tasks = list(range(200))
    expected = [number * number for number in tasks]
    assert list(run_each(square, tasks)) == expected
    with ThreadPoolExecutor(7) as pool:
        assert list(run_each(square, tasks, pool)) == expected


@pytest.mark.slow
def test_fresh_processes_give_the_same():
    with process_pool(2) as pool:
        assert list(run_each(abs, [-3, 2, -1], pool)) == [3, 2, 1]


def test_no_more_is_handed_out_than_can_be_worked_on():
    executor = Counting()
    results = run_each(square, range(100_000), executor)
    next(results)
    assert executor.handed_out < 1000
    results.close()


def test_the_first_failure_ends_the_job_and_waits_for_what_runs():
    running, finished = threading.Event(), threading.Event()
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        if number == 0:
            running.wait(5)
            raise ValueError("task 0 is broken")
        if number == 1:
            running.set()
            time.sleep(0.2)
            finished.set()
        return number

    with ThreadPoolExecutor(2) as pool:
        with pytest.raises(ValueError, match="task 0 is broken"):
            list(run_each(work, range(1000), pool))
        assert finished.is_set()
    assert len(begun) < 1000


def test_an_executor_that_forks_is_refused():
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("fork"))
    with pool, pytest.raises(InvalidInputError, match="forks this process"):
        list(run_each(abs, [1], pool))


def test_a_pool_has_workers():
    with pytest.raises(InvalidInputError, match="at least 1, got 0"):
        process_pool(0)


def die(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.slow
def test_a_pool_whose_process_died_is_told():
    with process_pool(1) as pool, pytest.raises(WorkerError, match="run the job again") as caught:
        list(run_each(die, range(10), pool))
    assert isinstance(caught.value, RuntimeError)
    assert isinstance(caught.value.__cause__, BrokenExecutor)


class KilledWorker(Exception):  # noqa: N818 - its name is what it is known by
    """As dask.distributed calls it, when each worker that tried a task died."""


class Cluster(Counting):
    """Gives up one of its tasks, as a cluster does."""

    def __init__(self, lost: int) -> None:
        super().__init__()
        self.lost = lost

    def submit(self, fn, /, *args, **kwargs):
        if args[0] != self.lost:
            return super().submit(fn, *args, **kwargs)
        future: Future = Future()
        future.set_exception(KilledWorker("square-3", "tcp://10.0.0.7:40000"))
        return future


def test_a_task_that_kills_workers_ends_the_job():
    done = run_each(square, range(5), Cluster(3))
    assert [next(done) for _ in range(3)] == [0, 1, 4]
    with pytest.raises(WorkerError, match="each worker that tried this died"):
        next(done)


def test_something_may_stand_for_a_task_that_kills_workers():
    found: list[tuple[int, WorkerError]] = []

    def lost(number: int, error: WorkerError) -> int:
        found.append((number, error))
        return -1

    assert list(run_each(square, range(5), Cluster(3), lost=lost)) == [0, 1, 4, -1, 16]
    [(number, error)] = found
    assert number == 3
    assert "tcp://10.0.0.7:40000" in str(error)


def test_an_executor_that_was_shut_down_is_told():
    class Gone(Executor):
        def submit(self, fn, /, *args, **kwargs):
            future: Future = Future()
            future.cancel()
            return future

    with pytest.raises(WorkerError, match="was shut down or lost its workers"):
        list(run_each(square, range(3), Gone()))


def test_the_error_of_a_task_stays_its_own():
    def work(number: int) -> int:
        raise KeyError(number)

    with ThreadPoolExecutor(1) as pool, pytest.raises(KeyError):
        list(run_each(work, [1], pool, lost=lambda _, error: pytest.fail(str(error))))


PARENT = """
import os, time
from microtome.jobs import process_pool

if __name__ == "__main__":
    pool = process_pool(2)
    print(*{pool.submit(os.getpid).result() for _ in range(20)}, flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills as POSIX does")
def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = [int(word) for word in parent.stdout.readline().split()]
    assert workers
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 30
    while any(map(is_running, workers)):
        assert time.monotonic() < until, f"{workers} are running still"
        time.sleep(0.05)


def is_running(process: int) -> bool:
    """Whether a process is there and has not ended, though nobody may have asked how."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


INTERRUPTED = r"""
import os, sys, time
from microtome.jobs import process_pool, run_each

def work(number):
    try:
        os.write(1, b"begun\n")
        time.sleep(60)
    finally:
        os.write(1, b"cleared\n")

if __name__ == "__main__":
    try:
        with process_pool(2) as pool:
            print("ready", flush=True)
            list(run_each(work, range(9), pool))
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="interrupts one process as POSIX does")
@pytest.mark.parametrize("whom", ["all of them, as a terminal does", "the parent"])
@pytest.mark.parametrize("after", ["ready", "begun"])
def test_an_interrupt_ends_workers_that_clear_up_and_say_nothing(tmp_path, whom, after):
    script = tmp_path / "parent.py"
    script.write_text(INTERRUPTED)
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout is not None
    began = time.monotonic()
    seen = []
    while after not in seen:
        seen.append(parent.stdout.readline().strip())
    if whom == "the parent":
        os.kill(parent.pid, signal.SIGINT)
    else:
        os.killpg(parent.pid, signal.SIGINT)
    out, err = parent.communicate(timeout=50)
    assert (parent.returncode, err) == (130, "")
    assert time.monotonic() - began < 50, "a task was waited for"
    lines = [*seen, *out.split()]
    assert lines.count("begun") <= lines.count("cleared") <= 2
    until = time.monotonic() + 30  # what tracks semaphores ends a moment later
    while left := list(members(parent.pid)):
        assert time.monotonic() < until, f"{left} are running still"
        time.sleep(0.05)


def members(group: int) -> Iterator[int]:
    """Processes of a group that are running."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if fields[0] != "Z" and int(fields[2]) == group:
                yield int(stat.parent.name)


def test_a_pool_goes_on_after_a_job_that_was_interrupted():
    with process_pool(1) as pool:
        assert list(run_each(abs, [-1], pool)) == [1]
        (worker,) = pool._processes
        os.kill(worker, signal.SIGINT)
        time.sleep(0.2)
        assert list(run_each(abs, [-2, 3], pool)) == [2, 3]


def test_a_shell_s_job_in_the_background_is_not_interrupted(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(INTERRUPTED.replace("time.sleep(60)", "time.sleep(0.3)"))
    ignoring = f"trap '' INT; exec {sys.executable} {script}"
    parent = subprocess.Popen(
        ["/bin/sh", "-c", ignoring], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert parent.stdout is not None
    while parent.stdout.readline().strip() != "begun":
        pass
    os.killpg(parent.pid, signal.SIGINT)
    out = parent.communicate(timeout=50)[0]
    assert parent.returncode == 0
    assert out.split().count("cleared") == 9
