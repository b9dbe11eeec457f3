"""Reading ahead: tasks done by threads, their results in order, no thread left behind."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

__all__ = ["read_ahead"]

Task = TypeVar("Task")
Result = TypeVar("Result")


def read_ahead(
    read: Callable[[Task], Result], tasks: Iterable[Task], prefetch: int, threads: int
) -> Generator[Result, None, None]:
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
    """
    if not prefetch:
        for task in tasks:
            yield read(task)
        return
    own: set[int] = set()
    pool = ThreadPoolExecutor(
        threads, "microtome-loader", initializer=lambda: own.add(threading.get_ident())
    )
    ahead = iter(tasks)
    under_way: deque[Future[Result]] = deque()

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
