"""`TileLoader`: batches in order, read ahead by threads of this process."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial
from time import perf_counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError, StorageError
from microtome.jobs import read_ahead
from microtome.regions import claim_memory
from microtome.storage import KeptChunks

from ._epochs import agree, epoch_set, tell
from ._items import Collate, ItemSource, of_whole_tissues
from ._order import Order, OrderKind, whole
from ._orders import order_of, plan_of, span_of, together
from ._reader import BatchReader, ReadBatch, SkippedTile
from ._source import EpochTileSource, TileSource
from ._state import LoaderState, state_of, tiles_of, verify_state
from ._stats import LoaderStats
from ._tensors import converter
from ._watch import Watch

if TYPE_CHECKING:
    import torch

__all__ = ["OnBadTile", "TileLoader"]

_log = logging.getLogger(__name__)

OnBadTile = Literal["raise", "skip"]
"""What becomes of a tile that cannot be read."""


class TileLoader:
    """Batches of tiles, read ahead by threads while the consumer works.

    Iterating yields the batches of one epoch, the same ones each time until `set_epoch`. They are
    a function of (seed, epoch, position) alone: the number of threads, how far ahead they read and
    whether the epoch was resumed change nothing. There are no worker processes: reading and
    decoding run outside Python's lock. At most `prefetch` batches wait beside the one handed out.
    Leaving the loop by any way, an error or Ctrl-C included, ends the threads.

    It can be given to Lightning as it is, which sets its epoch and keeps where it stands in
    checkpoints; on several devices each needs one of its own `rank`, as `RegionDataModule` makes them.

    Parameters
    ----------
    source
        What to read: a `TileSource`, an `EpochTileSource`, which is told the epoch of the order, or
        an `ItemSource`, such as a `ComposedImagingDataset` or a `SporaDataset`. Where it gives
        tuples, of an input and a target say, so does the loader.
    batch_size
        Tiles in a batch.
    order
        ``"sequential"``, ``"random"``, ``"blocked"``, or an order: a `TileOrder`, `BlockOrder`,
        `DrawnOrder` or `WeightedOrder`. Blocks are those of the storage where the source tells
        (`StorageSource`), else neighbouring rows.
    seed, epoch
        Choose the order, 0 by default; left out where `order` is an order, which has its own. A source
        that was set to an epoch, such as a `SporaDataset`, gives that instead of 0, and is told that of
        the loader from then on.
    prefetch
        How many batches to read ahead; 0 reads in the thread of the consumer, when asked.
    threads
        How many batches are read at the same time; by default one a processor, at most `prefetch`.
    cache_bytes
        How much memory decoded chunks may take that stay for batches and epochs to come, shared by
        the threads; 0, the default, keeps none. In a shuffled or blocked order those that come first
        stay, so that every epoch finds the same share; in ``"sequential"`` those that were used last.
        Of arrays that only the array engine reads (other codecs) it keeps as much again,
        until the process ends. What lies uncompressed on a disk is in memory anyway; what foreign
        formats decode is not kept.
    rank, world_size
        Which of how many processes this is; see `BatchPlan` for how they share an epoch. Of blocks of
        the storage each rank reads its own, so that none decodes what another does.
    drop_last
        Whether to leave out what does not fill a batch on every rank.
    collate
        How samples become a batch. ``"stack"``: one array, as the source reads it. ``"list"``: the
        samples as they are. ``"pad"`` or ``"panel"``: one array of tiles that differ in channels,
        a `PanelBatch`, or for several modalities a `MultimodalBatch`; see `PanelCollate`, which
        also takes an alignment of cohorts. Or a function of a list of samples. By default
        ``"stack"`` where the source reads batches, else ``"list"``.
    device
        Where tensors go, anything `torch.device` takes; copied there ahead of time as well.
    as_torch
        Whether `data` is a torch tensor; None for a tensor where torch is installed, else numpy.
    pin_memory
        Whether tensors lie in memory that a CUDA device copies from directly. By default where
        `device` is one: the memory of batches is then locked once and used again. True without a
        device gives tensors in torch's own pinned memory, for ``.to(device, non_blocking=True)``.
    on_error
        What becomes of tiles whose data are damaged, missing or out of reach. ``"raise"``: the
        batch and its rows are named. ``"skip"``: they are left out, logged, and told by `skipped`. A
        batch of which nothing is left is left out too; of several ranks, which need equally many,
        it is an error.

    Raises
    ------
    InvalidInputError
        If an argument is out of its range, arguments contradict each other, or there is no batch.
    DependencyError
        If tensors are asked for and torch is not installed.
    """

    def __init__(  # noqa: PLR0913 - the names that people know from torch's DataLoader, flat
        self,
        source: TileSource | EpochTileSource | ItemSource,
        batch_size: int = 64,
        *,
        order: OrderKind | Order = "random",
        seed: int | None = None,
        epoch: int | None = None,
        prefetch: int = 2,
        threads: int | None = None,
        cache_bytes: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        collate: Collate | None = None,
        device: str | torch.device | None = None,
        as_torch: bool | None = None,
        pin_memory: bool | None = None,
        on_error: OnBadTile = "raise",
    ) -> None:
        batch_size, prefetch = whole("batch_size", batch_size, 1), whole("prefetch", prefetch, 0)
        rank, world_size = whole("rank", rank, 0), whole("world_size", world_size, 1)
        if threads is not None:
            threads = whole("threads", threads, 1)
        if on_error not in get_args(OnBadTile):
            msg = f"on_error must be one of {get_args(OnBadTile)}, got {on_error!r}"
            raise InvalidInputError(msg)
        if isinstance(cache_bytes, bool) or not isinstance(cache_bytes, int) or cache_bytes < 0:  # pyright: ignore[reportUnnecessaryIsInstance] - what a user types
            msg = f"cache_bytes must be a whole number of bytes, 0 or more, got {cache_bytes!r}"
            raise InvalidInputError(msg)
        convert = converter(as_torch, device, pin=pin_memory)
        self._source = source
        self._asked_seed = seed
        if epoch is None and isinstance(order, str):
            epoch = epoch_set(source)
        self._order, self._plan = plan_of(
            order_of(order, source, seed, epoch), batch_size, rank, world_size, drop_last=drop_last
        )
        evicts = self._order.kind == "sequential"
        kept = KeptChunks(cache_bytes, evicts=evicts) if cache_bytes else None
        self._reader = BatchReader(source, convert, collate, skip=on_error == "skip", kept=kept)
        self._together = together(self._order, self._plan)
        self._prefetch = prefetch
        self._threads = min(threads or _processors(), max(prefetch, 1))
        self._watch = Watch(self._threads, prefetch, keeps=kept is not None)
        self._skipped: list[SkippedTile] = []
        self._tiles: str | None = None
        self._resume = 0  # the batch that the next iteration starts with
        # What was last handed out: a running iteration keeps its order when the epoch is set.
        self._standing: tuple[Order, int] = self._order, 0
        tell(source, self._order.epoch)

    @property
    def source(self) -> TileSource | EpochTileSource | ItemSource:
        """What is read."""
        return self._source

    @property
    def order(self) -> Order:
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

    def __iter__(self) -> Iterator[Any]:
        # Begun when the first batch is asked for: Lightning makes the iterator, and tells the epoch then.
        agree(self._source, self._order.epoch)
        first, self._resume = self._resume, 0
        self._standing = self._order, first
        yield from self._batches(self._order, first)

    @property
    def batch_sampler(self) -> Any:
        """Where Lightning looks for what is to be told the epoch: its `sampler` is the loader."""
        return SimpleNamespace(sampler=self)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration reads; of the source, too, if it has one.

        Choosing the one that is set already changes nothing, so that a training loop may call
        this first thing in an epoch that it resumes in the middle.

        Raises
        ------
        InvalidInputError
            If the number is out of its range.
        """
        if epoch != self._order.epoch:
            self._order = self._order.at(self._order.seed, epoch)
            self._resume = 0
            self._standing = self._order, 0
        tell(self._source, self._order.epoch)

    def batch_rows(self, batch: int) -> NDArray[np.int64]:
        """Return the source's rows that make a batch of this rank in this epoch.

        Raises
        ------
        OutOfRangeError
            If an epoch has no such batch.
        """
        return self._order.rows(*span_of(self._plan, self._order, batch))

    def stats(self) -> LoaderStats:
        """Return what has been handed out since the loader was made, and the time that it took.

        Epochs add up, those before `load_state_dict` too. `epoch_stats` tells of the last alone, and
        `LoaderStats.since` of any stretch.
        """
        return self._watch.stats(self._source)

    def epoch_stats(self) -> LoaderStats:
        """Return as `stats` what has been handed out since an iteration was last begun."""
        return self._watch.epoch_stats(self._source)

    @property
    def skipped(self) -> tuple[SkippedTile, ...]:
        """Tiles that were left out, in order; none unless ``on_error="skip"``."""
        return tuple(self._skipped)

    def state_dict(self) -> LoaderState:
        """Return where the loader stands, after the last batch that it handed out.

        What was read ahead and not handed out counts as not read.
        """
        order, done = self._standing
        if self._tiles is None:
            # Asked when it is wanted: of a long table it takes a second.
            self._tiles = tiles_of(self._source)
        return state_of(order, self._plan, done, source=self._source, tiles=self._tiles)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where another loader stood: the next iteration yields exactly its next batch.

        Seed and epoch become those of the state, which a warning tells where the loader was made with
        another `seed=`; an iteration that is under way goes on as it was.
        After the end of an epoch, the next iteration yields nothing until `set_epoch`.

        Parameters
        ----------
        state
            From `state_dict` of any rank.

        Raises
        ------
        InvalidInputError
            If it is no such state, or stands in the middle of an epoch that this loader would cut
            otherwise: other tiles (where the source has a `rows_fingerprint`, as datasets of cohorts
            do; else another number of them), order, batch size or number of ranks, of pixels that
            are standardized otherwise (where the source has a `standardization`, or a `standardizer`),
            or of other channels (where it has `channels`).
        """
        done, of = verify_state(state, self.state_dict())
        if self._asked_seed is not None and state["seed"] != self._asked_seed:
            _log.warning(
                "the loader goes on with seed %d of the state that it was given, not with the seed=%d "
                "that it was made with: leave seed= out to say nothing of it, or make a loader without "
                "the state to begin with another seed",
                state["seed"],
                self._asked_seed,
            )
        self._order = self._order.at(state["seed"], state["epoch"])
        self._resume = len(self._plan) if done == of else done
        self._standing = self._order, self._resume
        tell(self._source, self._order.epoch)

    def _batches(self, order: Order, first: int) -> Iterator[Any]:
        tasks = self._tasks(first)
        # Of what is read at once one is enough: all processors read it, and it is no small part of memory.
        ahead = -(-self._prefetch // self._together)
        # Read ahead, under way, and in the hands of the consumer.
        tiles = (ahead + 2) * self._together * self._plan.batch_size
        if not of_whole_tissues(self._source):  # whose sizes nobody knows before
            claim_memory(self, tiles * getattr(self._source, "tile_bytes", 0))
        self._watch.begin(self._source)
        batches = read_ahead(
            partial(self._read, order),
            tasks,
            prefetch=ahead,
            threads=self._threads,
            name="microtome-loader",
        )
        with closing(batches) as read:
            step = first
            while step < len(self._plan):
                asked = perf_counter()
                found = next(read)
                waited = perf_counter() - asked
                # Taken off one by one, so that the list keeps no batch alive.
                while found:
                    one = found.pop(0)
                    step += 1
                    if isinstance(one, Exception):
                        raise one
                    self._note(one, waited, order, step)
                    waited = 0.0
                    if not one.tiles and self._plan.world_size > 1:
                        raise self._nothing_left(one)
                    if one.tiles:
                        # No name for the batch here: the consumer decides how long it lives.
                        yield one.give()

    def _nothing_left(self, found: ReadBatch) -> StorageError:
        """Return the error of a batch that cannot be left out: other ranks would wait for it."""
        first = found.skipped[0]
        return StorageError(
            f"none of the {len(found.skipped)} tiles of batch {first.batch} of epoch {first.epoch} "
            f"can be read on rank {self._plan.rank} of {self._plan.world_size}: to leave it out "
            "would give this rank fewer batches than the others, which would wait for it for ever; "
            f"the first, row {first.row}: {first.error}"
        )

    def _tasks(self, first: int) -> Iterator[range]:
        """Yield steps that are read at once: stretches of those whose blocks are mixed."""
        step, count = first, len(self._plan)
        while step < count:
            # The first batch by itself: whoever waits for it has nothing else to do.
            stop = (step // self._together + 1) * self._together if step > first else step + 1
            yield range(step, min(stop, count))
            step = min(stop, count)

    def _note(self, found: ReadBatch, waited: float, order: Order, step: int) -> None:
        self._watch.note(found, waited, order.kind)
        self._skipped += found.skipped
        self._standing = order, step

    def _read(self, order: Order, steps: range) -> list[ReadBatch | Exception]:
        spans = [span_of(self._plan, order, step) for step in steps]
        # The order is asked once: a call costs as much for a thousand positions as for ten.
        first = spans[0][0]
        found = order.rows(first, spans[-1][1])
        return self._reader.read(order, steps, [found[a - first : b - first] for a, b in spans])


def _processors() -> int:
    """Processors that this process may run on, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
