"""How a job over many tissues is spread: in this process, or by any `concurrent.futures` executor.

What comes back is in the order of what was asked, so that a result does not depend on how many
workers there were or which was faster.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

from microtome.errors import InvalidInputError

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

    Raises
    ------
    InvalidInputError
        If the executor forks: a copy of the array engine made by fork hangs.

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
    under_way: deque[Future[_R]] = deque()
    limit = _AHEAD * (_processors() + _workers(executor))
    try:
        for task in ahead:
            under_way.append(executor.submit(function, task))
            if len(under_way) >= limit:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        for future in under_way:
            future.cancel()
        for future in under_way:
            if not future.cancelled():
                future.exception()  # waits


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
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))


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
