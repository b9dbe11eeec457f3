"""How a job over many tissues is spread: in this process, or by any `concurrent.futures` executor.

What comes back is in the order of what was asked, so that a result does not depend on how many
workers there were or which was faster.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
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
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakSet

from microtome.errors import InvalidInputError, WorkerError

__all__ = ["code_digest", "process_pool", "read_ahead", "run_each", "verify_executor"]

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
        If workers died, and no other does their work; or if those of dask run another microtome.

    Notes
    -----
    The first task that fails ends the job: those that have not begun are cancelled, those that
    have are waited for, and its error is raised. An interrupt ends it alike, and reaches the tasks
    that are under way in a pool of `process_pool`, so that they clear up and nobody waits long.
    """
    if executor is None:
        yield from map(function, tasks)
        return
    verify_executor(executor)
    ahead = iter(tasks)
    under_way: deque[tuple[_T, Future[_R]]] = deque()
    limit = _AHEAD * (_processors() + _workers(executor))
    work = executor.interruptible(function) if isinstance(executor, _Pool) else function
    try:
        for task in ahead:
            with _telling_of_workers():
                under_way.append((task, executor.submit(work, task)))
            if len(under_way) >= limit:
                yield _result(*under_way.popleft(), lost)
        while under_way:
            yield _result(*under_way.popleft(), lost)
    except KeyboardInterrupt:
        if isinstance(executor, _Pool):
            executor.interrupt()
        raise
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
        How many are begun before they are asked for, beside the one that is, once the first was read;
        0 reads here.
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
        # The first by itself: whoever waits for it has nothing else to do, and would share the
        # processors with those that come after it.
        begin(1)
        while under_way:
            wait([under_way[0]])
            # The next read starts before the consumer works, not when it comes back.
            begin(prefetch + 1 - len(under_way))
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
    return _Pool(workers)


class _Pool(ProcessPoolExecutor):
    """Processes that hear an interrupt while they work, and only then.

    A terminal sends it to all of them and to this one. Those that wait for work leave it to this
    one, and say nothing; those that work are interrupted as work in this process is, clear up what
    they had begun and hand the interrupt back.
    """

    def __init__(self, workers: int) -> None:
        super().__init__(workers, multiprocessing.get_context("spawn"), initializer=_begin_worker)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Hand out a task; processes that are started for it are deaf until they are ready."""
        with _interrupts_held():
            return super().submit(fn, *args, **kwargs)

    def interruptible(self, function: Callable[[_T], _R]) -> Callable[[_T], _R]:
        """Return a function that can be interrupted in a worker; once it was, it does no more."""
        return functools.partial(_interruptible, time.monotonic(), function)

    def interrupt(self) -> None:
        """Interrupt the tasks under way, also where only this process was interrupted."""
        if _HAS_INTERRUPTS:
            for process in list((getattr(self, "_processes", None) or {}).values()):
                with contextlib.suppress(ProcessLookupError, ValueError):
                    os.kill(process.pid, signal.SIGINT)


# Windows knows no signal for one process that it could take for an interrupt.
_HAS_INTERRUPTS = sys.platform != "win32"
# In a worker: whether it hears interrupts, as its parent does, and when it last heard one.
_hears_interrupts = False
_interrupted = -math.inf


@contextlib.contextmanager
def _interrupts_held() -> Generator[None]:
    """Keep interrupts from this thread while the block runs; what it starts begins without them."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker() -> None:
    global _hears_interrupts  # noqa: PLW0603 - of this process, said once when it begins
    if sys.platform != "win32":
        # A shell's job in the background is begun with interrupts ignored, and so are its workers.
        _hears_interrupts = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
        if _hears_interrupts:
            signal.signal(signal.SIGINT, _note_interrupt)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    _end_with_parent()


def _note_interrupt(number: int, frame: object) -> None:  # noqa: ARG001 - what Python passes
    global _interrupted  # noqa: PLW0603 - of this process, which handles a signal in one thread
    _interrupted = time.monotonic()


def _interruptible(began: float, function: Callable[[_T], _R], task: _T) -> _R:
    """Call a function in a worker, where an interrupt may end it, once.

    The clock is one for all processes of a machine: a job that began before an interrupt was heard
    is interrupted, whether its task had begun then or not.
    """
    if _interrupted > began:
        raise KeyboardInterrupt
    if not _hears_interrupts:
        return function(task)

    def interrupt(number: int, frame: object) -> None:
        # A second one, as of an impatient person, would disturb how the first clears up.
        signal.signal(signal.SIGINT, _note_interrupt)
        _note_interrupt(number, frame)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        return function(task)
    finally:
        signal.signal(signal.SIGINT, _note_interrupt)


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
    """Refuse an executor whose workers are forks of this process, or run other code than it.

    Raises
    ------
    InvalidInputError
        If it is a pool of processes with the start method ``"fork"``.
    WorkerError
        If it is dask's, and a worker runs another microtome than this process.
    """
    _verify_same_code(executor)
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
def code_digest() -> str:
    """Return what tells the code of this package from that of another version or edit of it.

    It is of the files as they were when a process first asked: one that has been at work since
    before they were changed says so by it.
    """
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


# Clients whose workers were asked; those that join later come from where these did.
_ASKED: WeakSet[Any] = WeakSet()


def _verify_same_code(executor: Executor | None) -> None:
    """Ask the workers of a dask client once whether they run the code that runs here.

    What another version makes of the same task looks like a result, or a damage, and is neither.
    """
    client = getattr(executor, "_client", None)
    # By its name: dask need not be installed.
    if client is None or type(executor).__module__.partition(".")[0] != "distributed":
        return
    if client in _ASKED:
        return

    def ask() -> str | None:  # within a function, which travels whole: theirs may have none such
        try:
            from microtome.jobs import code_digest
        except ImportError:
            return None
        return code_digest()

    answers: dict[str, Any] = client.run(ask, on_error="return")
    # Of a worker that died meanwhile its tasks tell.
    own = code_digest()
    others = [
        worker
        for worker, found in answers.items()
        if found != own and not isinstance(found, Exception)
    ]
    if others:
        named = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if others[3:] else "")
        msg = (
            f"{len(others)} of {len(answers)} dask workers ({named}) run another microtome than this "
            "process, or none; start them again with the one that is installed here"
        )
        raise WorkerError(msg)
    _ASKED.add(client)


@functools.cache
def _processors() -> int:
    return os.cpu_count() or 1


def _workers(executor: Executor) -> int:
    count = getattr(executor, "_max_workers", 0)
    return count if isinstance(count, int) else 0
