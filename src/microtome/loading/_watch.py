"""Keeps the figures of a loader, and says once why its consumer waits."""

from __future__ import annotations

import logging
from dataclasses import replace
from time import perf_counter
from typing import Any

from ._layout import cause_of_waiting, regions_of, touched
from ._reader import ReadBatch
from ._stats import LoaderStats

__all__ = ["Watch"]

_log = logging.getLogger(__name__)

# Before so much was seen, files are being opened and the first chunks read.
_BATCHES, _SECONDS = 16, 5.0
_SHARE = 0.5


class Watch:
    """Counts batches as they are handed out, in the thread of the consumer.

    Parameters
    ----------
    threads, prefetch
        Of the loader, for what may be said about them.
    keeps
        Whether decoded chunks are kept.
    """

    def __init__(self, threads: int, prefetch: int, *, keeps: bool = False) -> None:
        self._keeps = keeps
        self._chunks = 0.0, 0.0
        self._touched = 0, 0  # pixels of chunks, and of the tiles that touch them
        self._threads = threads
        self._prefetch = prefetch
        self._stats = LoaderStats()
        self._at_begin = LoaderStats()
        self._began = 0.0
        self._waited = 0.0
        self._seen = 0
        self._said = False

    def begin(self, source: Any) -> None:
        """Note that an iteration of a source begins."""
        self._at_begin = self.stats(source)
        self._began, self._waited, self._seen = perf_counter(), 0.0, 0

    def note(self, found: ReadBatch, waited: float, order: str) -> None:
        """Count a batch; say once in a loader's life that its consumer waits for most of its time.

        Parameters
        ----------
        found
            The batch.
        waited
            How long the consumer waited for it.
        order
            Kind of the order.
        """
        stats = self._stats.plus(found, waited)
        for sums in filter(None, map(touched, regions_of(found.batch))):
            self._touched = self._touched[0] + sums[0], self._touched[1] + sums[1]
        if self._touched[1]:
            stats = replace(stats, amplification=self._touched[0] / self._touched[1])
        self._stats = stats
        self._chunks = self._chunks[0] + found.found, self._chunks[1] + found.decoded
        # The first batch is waited for whatever the loader does.
        self._waited += waited if self._seen else 0.0
        self._seen += 1
        spent = perf_counter() - self._began
        if self._said or self._seen < _BATCHES or spent < _SECONDS:
            return
        if self._waited > _SHARE * spent:
            self._said = True
            why = cause_of_waiting(
                found.batch,
                threads=self._threads,
                prefetch=self._prefetch,
                order=order,
                converting=stats.convert_seconds > stats.read_seconds,
            )
            _log.warning(
                "%d%% of the time is spent waiting for tiles: %s", 100 * self._waited / spent, why
            )

    def epoch_stats(self, source: Any) -> LoaderStats:
        """Return the figures since the last iteration began."""
        return self.stats(source).since(self._at_begin)

    def stats(self, source: Any) -> LoaderStats:
        """Return the figures, with those that the source itself counts."""
        told = getattr(source, "cache_info", None)
        if not callable(told):
            if not self._keeps:
                return self._stats
            hits, misses = map(round, self._chunks)
            return replace(self._stats, cache_hits=hits, cache_misses=misses)
        counted: Any = told()
        return replace(self._stats, cache_hits=int(counted.hits), cache_misses=int(counted.misses))
