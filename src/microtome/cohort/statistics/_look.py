"""What `stats` finds in one tissue: in a worker, from what was counted, or pass by pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.standardize import (
    Moments,
    QuantileCounter,
    QuantileSketch,
    StandardizationSpec,
    quantiles_of_counts,
)

from ._counted import count_tissue
from ._inside import TissuePixels

__all__ = ["TissueResult", "TissueTask", "count_pass", "look_at"]

_Row = NDArray[np.float64]
_Change = Callable[[NDArray[np.float64], int], None]
# Part of a channel's variance that bins may hide: a standard deviation is then off by less than the
# values of a bin are.
_MOST_HIDDEN = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class TissueResult:
    """What became of one tissue, as it travels back."""

    pixels: int
    dtype: str
    digest: str | None
    quantiles: _Row | None
    """(C, wanted), where they are of each tissue."""
    moments: list[tuple[int, float, float]] | None


@dataclass(frozen=True, slots=True, eq=False)
class TissueTask:
    """One tissue to look at, as it travels to a worker."""

    source: TissuePixels
    spec: StandardizationSpec
    wanted: tuple[float, ...]
    """Quantiles of this tissue by itself; none where they are given, or not needed."""
    given: _Row | None = None
    """(C, wanted) quantiles of all tissues."""
    moments: bool = True
    exact: np.dtype[Any] | None = None
    """Type to count in pass by pass; None to count once."""


def look_at(task: TissueTask) -> TissueResult:
    """Find the quantiles and moments of one tissue; what has to be read is read here."""
    if task.exact is not None:
        return _look_again(task, task.exact)
    counted = count_tissue(task.source)
    sketch = counted.sketch
    quantiles = np.full((len(task.source.channels), len(task.wanted)), np.nan)
    moments = _moments_of(task, sketch, quantiles)
    return TissueResult(
        counted.pixels,
        str(sketch.dtype),
        counted.digest,
        quantiles if task.wanted else None,
        None if moments is None else moments.of_channels(),
    )


def _moments_of(task: TissueTask, sketch: QuantileSketch, quantiles: _Row) -> Moments | None:
    """Return moments of what was counted, where they are asked for, and fill in the quantiles.

    Of the pixels, where a bin hides what they differ by: values of a bin count as their mean. That
    leaves out how they spread about it, which is nothing beside the spread of a channel, unless all
    its values lie close together and far from zero.
    """
    if not (task.wanted or task.moments):
        return None
    moments = Moments(len(task.source.channels))
    hidden = np.zeros(len(task.source.channels))
    for place in np.flatnonzero(sketch.count).tolist():
        values, counts, half = sketch.binned(place)
        quantiles[place] = quantiles_of_counts(values, counts, np.asarray(task.wanted, np.float64))
        if not task.moments:
            continue
        apply = _transform(task, quantiles if task.wanted else None)
        hidden[place] = _hidden_variance(place, values, counts, half, apply)
        apply(values, place)
        moments.update_counted(values, counts, place, where=task.source.where)
    if not task.moments:
        return None
    with np.errstate(invalid="ignore"):  # of channels without pixels
        lost = hidden > _MOST_HIDDEN * moments.std**2
    if lost.any():
        return _moments_of_pixels(task, _transform(task, quantiles if task.wanted else None))
    return moments


def _hidden_variance(
    place: int,
    values: NDArray[np.float64],
    counts: NDArray[np.int64],
    half: NDArray[np.float64],
    apply: _Change,
) -> float:
    """Return the most that the values of bins can vary about their means, once transformed."""
    if not half.any():
        return 0.0
    low, high = values - half, values + half
    apply(low, place)
    apply(high, place)
    return float(np.average(((high - low) / 2) ** 2, weights=counts))


def _moments_of_pixels(task: TissueTask, apply: _Change) -> Moments:
    source = task.source
    moments, places = Moments(len(source.channels)), source.places()
    for block in source.blocks():
        moments.update_transformed(
            block.pixels,
            apply,
            channels=places[block.planes],
            mask=block.inside,
            where=source.where,
        )
    return moments


def _look_again(task: TissueTask, dtype: np.dtype[Any]) -> TissueResult:
    """Find them pass by pass, to the last bit."""
    source = task.source
    quantiles: _Row | None = None
    if task.wanted:
        counter = QuantileCounter(dtype, len(source.channels), task.wanted)
        while not counter.done:
            counter.merge(count_pass((source, counter.blank())))
            counter.finish_pass()
        quantiles = counter.quantiles()
    if not task.moments:
        return TissueResult(source.pixels_inside(), str(dtype), None, quantiles, None)
    found = _moments_of_pixels(task, _transform(task, quantiles)).of_channels()
    return TissueResult(max(count for count, _, _ in found), str(dtype), None, quantiles, found)


def count_pass(task: tuple[TissuePixels, QuantileCounter]) -> QuantileCounter:
    source, counter = task
    places = source.places()
    for block in source.blocks():
        pixels = block.pixels[:, block.inside].astype(counter.dtype, copy=False)
        counter.update(pixels, channels=places[block.planes], where=source.where)
    return counter


def _transform(task: TissueTask, quantiles: _Row | None) -> _Change:
    """Return what changes pixels of a channel by its quantiles, as the tables will hold them."""
    spec, found = task.spec, task.given if task.given is not None else quantiles
    if found is None:
        return lambda values, _: spec.transform(values)
    numbers = found.astype(np.float32).astype(np.float64)
    upper = numbers[:, :1]
    lower = numbers[:, 1:] if numbers.shape[1] > 1 else np.zeros_like(upper)
    return lambda values, place: spec.transform(values, lower[place], upper[place])
