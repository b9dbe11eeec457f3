"""Threads that build a pyramid: those that read and compute, and others that write behind them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from numpy.typing import NDArray

from microtome.progress import Progress
from microtome.storage import Box, Buffers, ShardDraft

__all__ = ["Put", "Workers"]

# Files that are being written while the next are computed: how many, and of how many bytes if
# there is more than one. A file of forty channels is larger than two of five.
_WRITES = 2
_WRITE_BYTES = 128 << 20
# Files that are complete and on their way to the disk: they hold no memory of ours.
_FINISHING = 8

_T = TypeVar("_T")

Put = Callable[[Box, NDArray[Any]], None]
"""Writes one file of an array."""


@dataclass(slots=True)
class _Write:
    """A file that is being written.

    Parameters
    ----------
    future
        Ends when it is written.
    pixels
        Memory that is needed until then.
    draft
        What is finished then.
    """

    future: Future[None]
    pixels: NDArray[Any] | None = None
    draft: ShardDraft | None = None


@dataclass(slots=True)
class Workers:
    """Threads that read and compute, and others that write, no more than a few files behind.

    Parameters
    ----------
    threads
        How many read and compute.
    jobs
        Files to be written.
    progress
        Told in the thread that waits.
    """

    threads: int
    jobs: int
    progress: Progress
    done: int = 0
    buffers: Buffers = field(default_factory=Buffers)
    """What is used again: strips, files, and what is encoded."""
    _pool: ThreadPoolExecutor = field(init=False)
    _writer: ThreadPoolExecutor = field(init=False)
    _writes: deque[_Write] = field(init=False, default_factory=deque)

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(self.threads, "microtome-pyramid")
        # Encoding a file takes as long as reading it, and longer with a codec that packs well.
        writers = min(_WRITES, self.threads)
        self._writer = ThreadPoolExecutor(writers, "microtome-pyramid-write")
        return self

    def __exit__(self, *error: object) -> None:
        # Waits for what is under way, whatever happened: the caller may remove what is written to.
        try:
            _rest([write.future for write in self._writes])
            for write in self._writes:
                if write.draft is not None:
                    write.draft.discard()
        finally:
            self._shut_down()

    def _shut_down(self) -> None:
        for pool in (self._pool, self._writer):
            pool.shutdown(wait=True, cancel_futures=True)

    def each(self, work: Callable[[int], _T], count: int, then: Callable[[_T], None]) -> None:
        """Do numbered pieces of work and wait for all of them; the first error is raised.

        What they return is taken in their order, in this thread, and no more than a few are ahead.
        """
        if count == 1:
            then(work(0))
            return
        pending: deque[Future[_T]] = deque()
        begun = 0
        try:
            while pending or begun < count:
                while begun < count and len(pending) < 2 * self.threads:
                    pending.append(self._pool.submit(work, begun))
                    begun += 1
                then(pending[0].result())
                pending.popleft()
        finally:
            _rest(pending)

    def write(self, put: Put, box: Box, pixels: NDArray[Any]) -> None:
        """Write a file, soon; waits where too many are waiting already.

        The pixels, of `buffers`, are used again once they are written, at a later call at the
        earliest: what else they are needed for must be done by then.
        """
        while self._writes and not self._room_for(pixels):
            self._finish_one()
        self._writes.append(_Write(self._writer.submit(put, box, pixels), pixels))

    def finish(self, draft: ShardDraft) -> None:
        """Let a file appear, soon, to which everything was added."""
        while len(self._writes) >= _FINISHING:
            self._finish_one()
        self._writes.append(_Write(self._writer.submit(draft.finish), draft=draft))

    def _room_for(self, pixels: NDArray[Any]) -> bool:
        waiting = [write.pixels.nbytes for write in self._writes if write.pixels is not None]
        return len(waiting) < _WRITES and sum(waiting) + pixels.nbytes <= _WRITE_BYTES

    def settle(self) -> None:
        """Wait until everything is written."""
        while self._writes:
            self._finish_one()

    def _finish_one(self) -> None:
        write = self._writes[0]
        write.future.result()
        self._writes.popleft()  # only now: who is interrupted while waiting still has it to wait for
        if write.pixels is not None:
            self.buffers.give(write.pixels)
        self.done += 1
        self.progress("pyramid", self.done, self.jobs)


def _rest(futures: Iterable[Future[Any]]) -> None:
    """Drop what has not begun and wait for the rest, however often somebody interrupts.

    Who joins a thread and is interrupted takes it, on Python 3.11, for ended.
    """
    running = [future for future in futures if not future.cancel()]
    interrupted: KeyboardInterrupt | None = None
    while True:
        try:
            wait(running)
            break
        except KeyboardInterrupt as again:
            interrupted = again
    if interrupted is not None:
        raise interrupted
