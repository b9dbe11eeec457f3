"""How a job over many tissues is spread: in this process, or by any `concurrent.futures` executor.

What comes back is in the order of what was asked, so that a result does not depend on how many
workers there were or which was faster.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from itertools import islice
from multiprocessing.connection import wait as wait_for
from typing import TypeVar

from microtome.errors import InvalidInputError, WorkerError

__all__ = ["process_pool", "read_ahead", "run_each", "verify_executor"]

_T = TypeVar("_T")
_R = TypeVar("_R")

# Tasks handed out before the first result is taken: enough for any pool of one machine, and few
# enough that results which wait for a slow one do not fill the memory.
_AHEAD = 4


def run_each(
    function: Callable[[_T], _R],
    tasks: Sequence[_T],
    executor: Executor | None = None,
    *,
    lost: Callable[[_T, WorkerError], _R] | None = None,
) -> Generator[_R, None, None]:
    """Call a function on every task and yield the results in order.

    Parameters
    ----------
    function
        Called with one task. For an executor of processes or machines it, the tasks and the
        results must be picklable: a function of a module, not one inside another.
    tasks
        What to do.
    executor
        Where: any `concurrent.futures.Executor`, such as that of `process_pool`, or
        ``dask.distributed.Client(...).get_executor()``. By default here, one after the other.
    lost
        What stands for a task that the cluster gave up, since each worker that tried it died; by
        default the job ends. Where a worker dies and others are left, a cluster does its tasks
        again by itself, and a pool of processes ends.

    Raises
    ------
    InvalidInputError
        If the executor forks: a copy of the array engine made by fork hangs.
    WorkerError
        If workers died, and no other does their work.

    Notes
    -----
    The first task that fails ends the job: those that have not begun are cancelled, those that
    have are waited for, and its error is raised.
    """
    if executor is None:
        yield from map(function, tasks)
        return
    verify_executor(executor)
    ahead = iter(tasks)
    under_way: deque[tuple[_T, Future[_R]]] = deque()
    limit = _AHEAD * (_processors() + _workers(executor))
    try:
        for task in ahead:
            with _telling_of_workers():
                under_way.append((task, executor.submit(function, task)))
            if len(under_way) >= limit:
                yield _result(*under_way.popleft(), lost)
        while under_way:
            yield _result(*under_way.popleft(), lost)
    finally:
        for _, future in under_way:
            future.cancel()
        for _, future in under_way:
            if not future.cancelled():
                with contextlib.suppress(CancelledError, asyncio.CancelledError):
                    future.exception()  # waits


def _result(task: _T, future: Future[_R], lost: Callable[[_T, WorkerError], _R] | None) -> _R:
    try:
        with _telling_of_workers():
            return future.result()
    except _GivenUpError as error:
        if lost is None:
            raise
        return lost(task, error)


class _GivenUpError(WorkerError):
    """One task was given up; the executor goes on."""


@contextlib.contextmanager
def _telling_of_workers() -> Generator[None]:
    """Say in our words that workers are gone; each kind of executor has its own error for it.

    Raises
    ------
    WorkerError
        If they are.
    """
    try:
        yield
    except BrokenExecutor as error:
        msg = (
            "a worker process ended before its work was done, killed or out of memory, and its "
            "pool with it; run the job again, which goes on from there, with fewer workers if "
            "memory was short"
        )
        raise WorkerError(msg) from error
    except (CancelledError, asyncio.CancelledError) as error:
        msg = "the executor was shut down or lost its workers; run the job again, which goes on from there"
        raise WorkerError(msg) from error
    except Exception as error:
        # By its name: dask need not be installed.
        if type(error).__name__ != "KilledWorker":
            raise
        msg = f"each worker that tried this died, killed or out of memory: {error}"
        raise _GivenUpError(msg) from error


def read_ahead(
    read: Callable[[_T], _R],
    tasks: Iterable[_T],
    *,
    prefetch: int = 1,
    threads: int = 1,
    name: str = "microtome-ahead",
) -> Generator[_R, None, None]:
    """Yield what reading each task gives, in their order.

    However the generator is left, its threads end; close it to wait for them.

    Parameters
    ----------
    read
        Called from several threads at once.
    tasks
        What to read.
    prefetch
        How many are begun before they are asked for, beside the one that is; 0 reads here.
    threads
        How many are read at the same time.
    name
        What the threads are called.
    """
    if not prefetch:
        for task in tasks:
            yield read(task)
        return
    own: set[int] = set()
    pool = ThreadPoolExecutor(threads, name, initializer=lambda: own.add(threading.get_ident()))
    ahead = iter(tasks)
    under_way: deque[Future[_R]] = deque()

    def begin(most: int) -> None:
        for task in islice(ahead, most):
            under_way.append(pool.submit(read, task))

    try:
        begin(prefetch)
        while under_way:
            wait([under_way[0]])
            # The next read starts before the consumer works, not when it comes back.
            begin(1)
            yield under_way.popleft().result()
    finally:
        # A loop that was left is closed by whoever drops it last; where the garbage collector
        # does, that may be one of these very threads, which cannot wait for itself.
        pool.shutdown(wait=threading.get_ident() not in own, cancel_futures=True)


def process_pool(workers: int) -> ProcessPoolExecutor:
    """Return an executor of processes on this machine that start fresh and are never forked.

    Parameters
    ----------
    workers
        Number of processes, at least 1.

    Raises
    ------
    InvalidInputError
        If the number is below 1.
    """
    if workers < 1:
        msg = f"workers must be at least 1, got {workers}"
        raise InvalidInputError(msg)
    return ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_end_with_parent
    )


def _end_with_parent() -> None:
    """End this process when the one that started it has ended, however that was.

    Workers wait for work at a pipe that they hold both ends of: of a parent that was killed they
    would never hear.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait_for([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="microtome-parent", daemon=True).start()


def verify_executor(executor: Executor | None) -> None:
    """Refuse an executor whose workers are forks of this process.

    Raises
    ------
    InvalidInputError
        If it is a pool of processes with the start method ``"fork"``.
    """
    if not isinstance(executor, ProcessPoolExecutor):
        return
    context = getattr(executor, "_mp_context", None)
    method = context.get_start_method() if context is not None else None
    if method == "fork":
        msg = (
            "the executor forks this process, and a fork of the array engine hangs; use "
            "microtome.process_pool(workers), or "
            'ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))'
        )
        raise InvalidInputError(msg)


@functools.cache
def _processors() -> int:
    return os.cpu_count() or 1


def _workers(executor: Executor) -> int:
    count = getattr(executor, "_max_workers", 0)
    return count if isinstance(count, int) else 0
