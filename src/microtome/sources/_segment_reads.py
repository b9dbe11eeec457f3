"""Reads that are begun together and done together: each segment of a file once, for all windows.

Whoever reads a batch begins all its reads before it waits for the first. Until then nothing is
decoded; then it is known what each segment is needed for.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

__all__ = ["Fill", "begin"]

Fill = Callable[[Sequence[Any]], None]
"""Reads a segment for all that is asked of it."""

# Doing fewer segments than this costs less than handing them to other threads.
_INLINE = 4
# Pieces that the segments are dealt into, by thread: some take longer than others.
_PIECES = 4


class _Batch:
    """What a thread has begun and nobody waits for yet."""

    def __init__(self) -> None:
        self._segments: dict[Any, tuple[Fill, list[tuple[int, Any]]]] = {}
        self._errors: dict[int, BaseException] = {}
        self._reads = 0
        self._lock = threading.Lock()
        self.is_done = False

    def add(self, parts: Iterable[tuple[Any, Fill, Any]]) -> _Read:
        number, self._reads = self._reads, self._reads + 1
        for key, fill, part in parts:
            self._segments.setdefault(key, (fill, []))[1].append((number, part))
        return _Read(self, number)

    def finish(self, number: int) -> None:
        with self._lock:
            if not self.is_done:
                self.is_done = True
                self._do()
        error = self._errors.get(number)
        if error is not None:
            raise error

    def _do(self) -> None:
        segments = list(self._segments.values())
        self._segments = {}
        if len(segments) <= _INLINE:
            self._fill(segments)
            return
        # Neighbours stay with one thread.
        size = max(-(-len(segments) // (_PIECES * (os.cpu_count() or 1))), 1)
        pieces = [segments[i : i + size] for i in range(0, len(segments), size)]
        list(_pool().map(self._fill, pieces))

    def _fill(self, segments: Sequence[tuple[Fill, list[tuple[int, Any]]]]) -> None:
        for fill, needs in segments:
            try:
                fill([part for _, part in needs])
            except Exception as error:  # noqa: BLE001 - whoever waits for one of them gets it
                for number, _ in needs:
                    self._errors.setdefault(number, error)


class _Read:
    """A read that was begun."""

    __slots__ = ("_batch", "_number")

    def __init__(self, batch: _Batch, number: int) -> None:
        self._batch = batch
        self._number = number

    def result(self, timeout: float | None = None) -> object:
        """Read, with all that was begun beside it, unless that is done; raise what went wrong."""
        del timeout
        self._batch.finish(self._number)
        return None


class _Now(threading.local):
    # What nobody will wait for any more is not kept.
    batch: weakref.ref[_Batch] | None = None


_NOW = _Now()


def begin(parts: Iterable[tuple[Any, Fill, Any]]) -> _Read:
    """Begin a read; it is done when its result is asked for, or another's that this thread began.

    Parameters
    ----------
    parts
        What is needed of each segment: what names the segment, what reads it, and what for.
    """
    batch = None if _NOW.batch is None else _NOW.batch()
    if batch is None or batch.is_done:
        batch = _Batch()
        _NOW.batch = weakref.ref(batch)
    return batch.add(parts)


_POOL: dict[int, ThreadPoolExecutor] = {}


def _pool() -> ThreadPoolExecutor:
    pid = os.getpid()
    if pid not in _POOL:
        _POOL[pid] = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="microtome-tiff")
    return _POOL[pid]
