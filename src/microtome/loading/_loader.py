"""`TileLoader`: batches in order, read ahead by threads of this process."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import replace
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypedDict, cast, get_type_hints

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError, MicrotomeError
from microtome.regions import ImageRegionData

from ._batches import BatchPlan
from ._order import OrderKind, TileOrder
from ._source import TileSource
from ._stats import LoaderStats
from ._tensors import converter

if TYPE_CHECKING:
    import torch

__all__ = ["LoaderState", "TileLoader"]

_STATE_VERSION = 1
# Rows named in an error; the rest are found with `TileLoader.batch_rows`.
_ROWS_NAMED = 16
# What must agree for a position inside an epoch to mean the same batches.
_FIXED_IN_AN_EPOCH = ("count", "order", "block", "group", "batch_size", "world_size", "drop_last")


class LoaderState(TypedDict):
    """Where a loader stands: plain numbers and strings, the same on every rank."""

    version: int
    """Version of this form."""
    seed: int
    """Seed of the order."""
    epoch: int
    """The epoch that is being read."""
    batch: int
    """How many of its batches have been handed out."""
    batches: int
    """How many it has."""
    count: int
    """Tiles of the source."""
    order: str
    """Kind of the order."""
    block: int
    """Its rows in a block."""
    group: int
    """Its blocks in a group."""
    batch_size: int
    """Tiles in a batch."""
    world_size: int
    """Number of ranks."""
    drop_last: bool
    """Whether what is left over is dropped."""


class TileLoader:
    """Batches of tiles, read ahead by threads while the consumer works.

    Iterating yields the batches of one epoch, the same ones each time until `set_epoch`. They are
    a function of (seed, epoch, position) alone: the number of threads, how far ahead they read and
    whether the epoch was resumed change nothing. There are no worker processes: reading and
    decoding run outside Python's lock. At most `prefetch` batches wait beside the one handed out.
    Leaving the loop by any way, an error or Ctrl-C included, ends the threads.

    Parameters
    ----------
    source
        What to read.
    batch_size
        Tiles in a batch.
    order
        ``"sequential"``, ``"random"``, ``"blocked"``, or a `TileOrder`.
    seed, epoch
        Choose the order, 0 by default; left out where `order` is a `TileOrder`, which has its own.
    prefetch
        How many batches to read ahead; 0 reads in the thread of the consumer, when asked.
    threads
        How many batches are read at the same time; by default one a processor, at most `prefetch`.
    rank, world_size
        Which of how many processes this is; see `BatchPlan` for how they share an epoch.
    drop_last
        Whether to leave out what does not fill a batch on every rank.
    device
        Where tensors go, anything `torch.device` takes; copied there ahead of time as well.
    as_torch
        Whether `data` is a torch tensor; None for a tensor where torch is installed, else numpy.

    Raises
    ------
    InvalidInputError
        If an argument is out of its range, arguments contradict each other, or there is no batch.
    DependencyError
        If tensors are asked for and torch is not installed.
    """

    def __init__(  # noqa: PLR0913 - the names that people know from torch's DataLoader, flat
        self,
        source: TileSource,
        batch_size: int = 64,
        *,
        order: OrderKind | TileOrder = "random",
        seed: int | None = None,
        epoch: int | None = None,
        prefetch: int = 2,
        threads: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        device: str | torch.device | None = None,
        as_torch: bool | None = None,
    ) -> None:
        # Asked at the border: without it the first thread to fail would be the one to tell.
        if not isinstance(source, TileSource):  # pyright: ignore[reportUnnecessaryIsInstance] (callers need not be typed)
            msg = f"a source has __len__ and read_batch(rows), got {type(source).__name__}"
            raise InvalidInputError(msg)
        if prefetch < 0 or (threads is not None and threads < 1):
            msg = (
                f"prefetch must be at least 0 and threads at least 1, got {prefetch} and {threads}"
            )
            raise InvalidInputError(msg)
        self._source = source
        self._order = _order_of(order, len(source), seed, epoch)
        self._plan = BatchPlan(len(source), batch_size, rank, world_size, drop_last)
        self._prefetch = prefetch
        self._threads = min(threads or _processors(), max(prefetch, 1))
        self._convert = converter(as_torch, device)
        self._stats = LoaderStats()
        self._resume = 0  # the batch that the next iteration starts with
        # What was last handed out: a running iteration keeps its order when the epoch is set.
        self._standing = self._order, 0

    @property
    def source(self) -> TileSource:
        """What is read."""
        return self._source

    @property
    def order(self) -> TileOrder:
        """The order of the epoch that the next iteration reads."""
        return self._order

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration reads."""
        return self._order.epoch

    @property
    def batch_size(self) -> int:
        """Tiles in a batch."""
        return self._plan.batch_size

    def __len__(self) -> int:
        """Batches in an epoch, the same on every rank."""
        return len(self._plan)

    def __iter__(self) -> Iterator[ImageRegionData[Any]]:
        first, self._resume = self._resume, 0
        self._standing = self._order, first
        return self._batches(self._order, first)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration reads.

        Choosing the one that is set already changes nothing, so that a training loop may call
        this first thing in an epoch that it resumes in the middle.

        Raises
        ------
        InvalidInputError
            If the number is out of its range.
        """
        if epoch != self._order.epoch:
            self._order = self._order.at_epoch(epoch)
            self._resume = 0
            self._standing = self._order, 0

    def batch_rows(self, batch: int) -> NDArray[np.int64]:
        """Return the source's rows that make a batch of this rank in this epoch.

        Raises
        ------
        OutOfRangeError
            If an epoch has no such batch.
        """
        return self._order.rows(*self._plan.span(batch))

    def stats(self) -> LoaderStats:
        """Return what has been handed out since the loader was made, and the time that it took."""
        return self._stats

    def state_dict(self) -> LoaderState:
        """Return where the loader stands, after the last batch that it handed out.

        What was read ahead and not handed out counts as not read.
        """
        order, done = self._standing
        return {
            "version": _STATE_VERSION,
            "seed": order.seed,
            "epoch": order.epoch,
            "batch": done,
            "batches": len(self._plan),
            "count": order.count,
            "order": order.kind,
            "block": order.block,
            "group": order.group,
            "batch_size": self._plan.batch_size,
            "world_size": self._plan.world_size,
            "drop_last": self._plan.drop_last,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where another loader stood: the next iteration yields exactly its next batch.

        Seed and epoch become those of the state; an iteration that is under way goes on as it was.
        After the end of an epoch, the next iteration yields nothing until `set_epoch`.

        Parameters
        ----------
        state
            From `state_dict` of any rank.

        Raises
        ------
        InvalidInputError
            If it is no such state, or stands in the middle of an epoch that this loader would cut
            otherwise: other tiles, order, batch size or number of ranks.
        """
        wrong = [
            name
            for name, kind in get_type_hints(LoaderState).items()
            if type(state.get(name)) is not kind
        ]
        if wrong or state["version"] != _STATE_VERSION:
            msg = f"not the state of a TileLoader, version {_STATE_VERSION}: {dict(state)}"
            raise InvalidInputError(msg)
        done, of = int(state["batch"]), int(state["batches"])
        if not 0 <= done <= of:
            msg = f"a state cannot stand at batch {done} of {of}"
            raise InvalidInputError(msg)
        # Between epochs anything may change; inside one, the same batches must come out.
        if 0 < done < of:
            mine = cast("dict[str, Any]", self.state_dict())
            for name in _FIXED_IN_AN_EPOCH:
                own = mine[name]
                if state[name] != own:
                    msg = (
                        f"the state stands at batch {done} of {of} with {name} {state[name]!r}, this "
                        f"loader has {own!r}: resume with the same, or at the start of an epoch"
                    )
                    raise InvalidInputError(msg)
        self._order = replace(self._order, seed=state["seed"], epoch=state["epoch"])
        self._resume = len(self._plan) if done == of else done
        self._standing = self._order, self._resume

    def _batches(self, order: TileOrder, first: int) -> Iterator[ImageRegionData[Any]]:
        steps = range(first, len(self._plan))
        read = self._read_ahead if self._prefetch else self._read_here
        with closing(read(order, steps)) as batches:
            for step in steps:
                # No name for the batch here: the consumer decides how long it lives.
                yield self._handed_out(batches, order, step)

    def _handed_out(
        self, batches: Iterator[_Timed], order: TileOrder, step: int
    ) -> ImageRegionData[Any]:
        asked = perf_counter()
        batch, seconds = next(batches)
        self._stats = self._stats.plus(
            tiles=len(batch.data), wait_seconds=perf_counter() - asked, read_seconds=seconds
        )
        self._standing = order, step + 1
        return batch

    def _read_here(self, order: TileOrder, steps: range) -> Generator[_Timed, None, None]:
        for step in steps:
            yield self._read(order, step)

    def _read_ahead(self, order: TileOrder, steps: range) -> Generator[_Timed, None, None]:
        own: set[int] = set()
        pool = ThreadPoolExecutor(
            self._threads, "microtome-loader", initializer=lambda: own.add(threading.get_ident())
        )
        ahead = iter(steps)
        under_way: deque[Future[_Timed]] = deque()

        def begin(most: int) -> None:
            for step in islice(ahead, most):
                under_way.append(pool.submit(self._read, order, step))

        try:
            begin(self._prefetch)
            while under_way:
                wait([under_way[0]])
                # The next read starts before the consumer works, not when it comes back.
                begin(1)
                yield under_way.popleft().result()
        finally:
            # A loop that was left is closed by whoever drops it last; where the garbage collector
            # does, that may be one of these very threads, which cannot wait for itself.
            pool.shutdown(wait=threading.get_ident() not in own, cancel_futures=True)

    def _read(self, order: TileOrder, step: int) -> _Timed:
        started = perf_counter()
        rows = order.rows(*self._plan.span(step))
        try:
            batch = self._source.read_batch(rows)
            if len(batch.data) != len(rows):
                msg = f"{type(self._source).__name__}.read_batch gave {len(batch.data)} tiles for {len(rows)} rows"
                raise InvalidInputError(msg)
            batch = batch._replace(data=self._convert(batch.data))
        except MicrotomeError as error:
            raise type(error)(f"{error} ({_named(order, step, rows)})") from error
        except Exception as error:
            # Of the source's own making: its type stays, for whoever catches it.
            error.add_note(f"in {_named(order, step, rows)}")
            raise
        return batch, perf_counter() - started


_Timed = tuple[ImageRegionData[Any], float]


def _order_of(
    order: OrderKind | TileOrder, count: int, seed: int | None, epoch: int | None
) -> TileOrder:
    if not isinstance(order, TileOrder):
        return TileOrder(count, order, seed or 0, epoch or 0)
    if order.count != count:
        msg = f"the order is over {order.count} tiles, the source has {count}"
        raise InvalidInputError(msg)
    if seed is not None or epoch is not None:
        msg = f"seed={seed} and epoch={epoch} are given beside an order that has its own; leave them out"
        raise InvalidInputError(msg)
    return order


def _named(order: TileOrder, step: int, rows: NDArray[np.int64]) -> str:
    shown = ", ".join(str(row) for row in rows[:_ROWS_NAMED])
    more = f", ... {len(rows)} in all" if len(rows) > _ROWS_NAMED else ""
    return f"batch {step} of epoch {order.epoch}, seed {order.seed}: rows {shown}{more}"


def _processors() -> int:
    """Processors that this process may run on, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
