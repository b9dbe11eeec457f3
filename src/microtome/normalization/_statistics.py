"""Counting what a normalization needs, by any number of workers, with one result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from microtome.errors import FormatError, InvalidInputError
from microtome.jobs import run_each
from microtome.progress import Progress
from microtome.standardize import Moments, QuantileCounter, QuantileSketch

from ._blocks import Box, Share

__all__ = ["Statistics", "count_statistics"]

_JOB = "statistics"
# Pixels of a channel that are counted at a time: what is made of them stays in the cache.
_PIECE = 1 << 17
# Numbers of so many bytes have few enough values to count each.
_COUNTED_BYTES = 2


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """Two numbers a channel."""

    first: NDArray[np.float64]
    second: NDArray[np.float64]
    pixels: int
    """How many of each channel were counted."""
    exact: bool = True


class _Tally(Protocol):
    """Whatever counts pixels, (C, N) at a time."""

    def update(self, values: NDArray[Any], /, *, where: str = "") -> None: ...

    def merge(self, other: Any, /) -> None: ...


class _Extremes:
    """Smallest and largest value of every channel."""

    def __init__(self, channels: int) -> None:
        self.low = np.full(channels, np.inf)
        self.high = np.full(channels, -np.inf)

    def update(self, values: NDArray[Any], *, where: str = "") -> None:
        """Count a block, (C, N)."""
        low, high = (edge(values, axis=1).astype(np.float64) for edge in (np.min, np.max))
        if not (np.isfinite(low) & np.isfinite(high)).all():
            # Says which pixel it is, in the words of all statistics.
            Moments(len(values)).update(values, where=where)
        self.low, self.high = np.minimum(self.low, low), np.maximum(self.high, high)

    def merge(self, other: Self) -> None:
        """Add what another one saw."""
        self.low, self.high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)


def count_statistics(
    kind: str,
    shares: Sequence[Share],
    dtype: np.dtype[Any],
    channels: int,
    *,
    quantiles: tuple[float, float],
    exact: bool,
    executor: Executor | None,
    progress: Progress,
) -> Statistics:
    """Count all shares.

    Parameters
    ----------
    kind
        Which statistics.
    shares
        What to count.
    dtype
        Of the pixels.
    channels
        Number of channels that have statistics of their own; 1 counts all of them as one.
    quantiles, exact, executor, progress
        As of `fit_normalization`.

    Raises
    ------
    InvalidInputError
        If there is no pixel.
    """
    job = _Job(shares, channels, executor, progress)
    # Where every value is counted, all that is asked for follows from that, to the last bit.
    if dtype.itemsize <= _COUNTED_BYTES or (kind == "quantile" and not exact):
        sketch = QuantileSketch(dtype, channels)
        pixels = job.count(sketch, lambda: QuantileSketch(dtype, channels))
        return _of_counts(kind, sketch, quantiles, pixels)
    if kind == "mean_std":
        moments = Moments(channels)
        pixels = job.count(moments, lambda: Moments(channels))
        return Statistics(moments.mean, moments.std, pixels)
    if kind == "min_max":
        extremes = _Extremes(channels)
        pixels = job.count(extremes, lambda: _Extremes(channels))
        return Statistics(extremes.low, extremes.high, pixels)
    counter, pixels = QuantileCounter(dtype, channels, quantiles), 0
    while not counter.done:
        pixels = job.count(counter, counter.blank)
        counter.finish_pass()
    found = counter.quantiles()
    return Statistics(found[:, 0], found[:, 1], pixels)


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """Counts all shares, as often as it is asked to."""

    shares: Sequence[Share]
    channels: int
    executor: Executor | None
    progress: Progress

    def count(self, tally: _Tally, blank: Callable[[], _Tally]) -> int:
        """Add all shares to a tally, in their order; how many pixels of each channel those are."""
        total, pixels = len(self.shares), 0
        self.progress(_JOB, 0, total)
        tasks = [(share, blank(), self.channels) for share in self.shares]
        for done, (part, counted) in enumerate(run_each(_counted, tasks, self.executor), start=1):
            tally.merge(part)
            pixels += counted
            self.progress(_JOB, done, total)
        if not pixels:
            msg = "no pixel was counted: the masks are empty"
            raise InvalidInputError(msg)
        return pixels


def _counted(task: tuple[Share, _Tally, int]) -> tuple[_Tally, int]:
    """Count a share, in the process of a worker; how many pixels of each channel that was."""
    share, tally, channels = task
    counted = 0
    for box, pixels, inside in share.blocks():
        try:
            counted += _add(tally, pixels, inside, channels, share.where)
        except FormatError as error:
            raise _placed(share, box, pixels, inside) or error from error
    return tally, counted


def _add(
    tally: _Tally,
    pixels: NDArray[Any],
    inside: NDArray[np.bool_] | None,
    channels: int,
    where: str,
) -> int:
    """Count a block; how many pixels of each channel that was."""
    block, mask = pixels, inside
    if channels == 1 and len(block) > 1:
        mask = None if mask is None else np.tile(mask, len(block))
        block = block.reshape(1, -1)
    count = block.shape[1] if mask is None else int(np.count_nonzero(mask))
    if isinstance(tally, QuantileSketch):  # counts what a mask has itself
        tally.update(block, mask=mask, where=where)
        return count
    for start in range(0, block.shape[1], _PIECE):
        piece = block[:, start : start + _PIECE]
        if mask is not None:
            piece = piece[:, mask[start : start + _PIECE]]
        if piece.size:
            tally.update(piece, where=where)
    return count


def _placed(
    share: Share, box: Box, pixels: NDArray[Any], inside: NDArray[np.bool_] | None
) -> FormatError | None:
    """Say where in the image the first pixel lies that cannot be counted: a NaN before others."""
    if pixels.dtype.kind != "f":
        return None
    for wrong in (np.isnan(pixels), np.isinf(pixels)):
        found = wrong if inside is None else wrong & inside
        if found.any():
            channel, pixel = (int(index[0]) for index in np.nonzero(found))
            return FormatError(
                f"{share.where}: channel {channel} is {pixels[channel, pixel]} at "
                f"{share.place(box, pixel)}; {int(found.sum())} such values of this block of "
                f"{pixels.shape[1]} pixels cannot be counted: mend them, or leave them out with masks="
            )
    return None


def _of_counts(
    kind: str, sketch: QuantileSketch, quantiles: tuple[float, float], pixels: int
) -> Statistics:
    """Find statistics from how often every value occurs."""
    if kind != "mean_std":
        found = sketch.quantiles(quantiles if kind == "quantile" else [0.0, 1.0])
        return Statistics(found[:, 0], found[:, 1], pixels, sketch.exact)
    moments = Moments(len(sketch.counts))
    for channel in range(len(sketch.counts)):
        moments.update_counted(*sketch.values(channel), channel)
    return Statistics(moments.mean, moments.std, pixels)
