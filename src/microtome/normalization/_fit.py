"""`fit_normalization`: statistics of all pixels, counted once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any, Literal, get_args

import numpy as np

from microtome.errors import InvalidInputError
from microtome.image import Channels, MultiscaleImage
from microtome.jobs import verify_executor
from microtome.progress import Progress, silent
from microtome.regions import Stack
from microtome.sources import open_stacks

from ._blocks import shares_of, verify_alike
from ._normalization import (
    MeanStdNormalization,
    MinMaxNormalization,
    NoNormalization,
    Normalization,
    QuantileNormalization,
    quantile_pair,
)
from ._statistics import Statistics, count_statistics

__all__ = ["Kind", "fit_normalization", "plain_channels"]

Kind = Literal["mean_std", "quantile", "min_max", "none"]
"""`mean_std`: to mean 0 and standard deviation 1. `quantile`: two quantiles to 0 and 1. `min_max`:
the smallest and the largest value to 0 and 1. `none`: as it is."""


def fit_normalization(  # noqa: PLR0913 - what to fit, on what, and where: flat, each with a default
    kind: Kind,
    images: Any,
    *,
    targets: Any = None,
    per_channel: bool = True,
    channels: Channels | None = None,
    target_channels: Channels | None = None,
    level: int = 0,
    masks: Any = None,
    quantiles: Sequence[float] = (0.01, 0.99),
    exact: bool = True,
    executor: Executor | None = None,
    progress: Progress = silent,
) -> Normalization:
    """Fit a normalization on all pixels of images.

    Every pixel is counted, not a sample of patches, and equals what numpy finds on the whole:
    quantiles and extremes to the last bit, means and standard deviations to the rounding of float64.
    Blocks are whole chunks, so that each is decoded once.

    Parameters
    ----------
    kind
        ``"mean_std"``, ``"quantile"``, ``"min_max"`` or ``"none"``.
    images
        Images and stacks of the same channels and dtype, or whatever `open_stacks` opens, one or a
        list of them: those of the training split.
    targets
        Further images, which get statistics of their own; None where targets stay as they are
        (labels), or are of the same kind as the input.
    per_channel
        Whether each channel has its own statistics, or all together one.
    channels, target_channels
        Channels by number or name; None for all.
    level
        Index of the level that is counted; a coarser one is faster and less exact, its extremes
        and deviations smaller.
    masks
        One an image, likewise, not 0 where pixels count; any level of it that has the image's size is read.
    quantiles
        The two quantiles of ``"quantile"``.
    exact
        Whether quantiles of numbers of 32 and 64 bits are exact, which reads the pixels twice or
        four times; else they are read once, and values within 0.05 %. Of 8 and 16 bits they are
        exact in one pass.
    executor
        Where to count: any `concurrent.futures.Executor`. Arrays in memory travel to its processes;
        with threads they do not.
    progress
        Called as shares are done.

    Returns
    -------
    The normalization, with what it was fitted on.

    Raises
    ------
    InvalidInputError
        If the kind is unknown, images differ in channels or dtype, a mask does not fit, or no pixel
        lies inside the masks.
    FormatError
        If a pixel is NaN, or infinite where a mean is asked for.

    Examples
    --------
    >>> import numpy as np
    >>> from microtome.sources import open_stacks
    >>> stacks = open_stacks(np.arange(8, dtype=np.uint16).reshape(2, 2, 2), "CYX")
    >>> normalization = fit_normalization("mean_std", stacks)
    >>> normalization.means
    (1.5, 5.5)
    >>> normalization.fitted_on["pixels"]
    4
    """
    if kind not in get_args(Kind):
        msg = f"kind must be one of {get_args(Kind)}, got {kind!r}"
        raise InvalidInputError(msg)
    verify_executor(executor)
    pair = quantile_pair(quantiles)
    wanted = _Wanted(kind, per_channel, level, pair, exact, executor, progress)
    inside = None if masks is None else _opened(masks)
    target = (
        None if targets is None else wanted.fitted(_opened(targets), target_channels, inside, None)
    )
    return wanted.fitted(_opened(images), channels, inside, target)


def _opened(given: Any) -> Sequence[Stack]:
    """Return what is given, opened; of nothing it is said elsewhere what is missing."""
    return open_stacks(given) if not isinstance(given, list | tuple) or given else []


class _Wanted:
    """What is fitted, whatever on."""

    def __init__(
        self,
        kind: Kind,
        per_channel: bool,  # noqa: FBT001 - handed on
        level: int,
        quantiles: tuple[float, float],
        exact: bool,  # noqa: FBT001 - handed on
        executor: Executor | None,
        progress: Progress,
    ) -> None:
        self._kind = kind
        self._per_channel = per_channel
        self._level = level
        self._quantiles = quantiles
        self._exact = exact
        self._executor = executor
        self._progress = progress

    def fitted(
        self,
        images: Sequence[Stack],
        channels: Channels | None,
        masks: Sequence[Stack] | None,
        target: Normalization | None,
    ) -> Normalization:
        """Count images, and make the normalization."""
        count, dtype = verify_alike(images, channels, self._level)
        if self._kind == "none":
            return NoNormalization(target)
        shares = shares_of(images, level=self._level, channels=channels, masks=masks)
        found = count_statistics(
            self._kind,
            shares,
            dtype,
            count if self._per_channel else 1,
            quantiles=self._quantiles,
            exact=self._exact,
            executor=self._executor,
            progress=self._progress,
        )
        fitted_on = {
            "images": [i.uri if isinstance(i, MultiscaleImage) else str(i.source) for i in images],
            "level": self._level,
            "channels": plain_channels(channels),
            "per_channel": self._per_channel,
            "masked": masks is not None,
            "dtype": str(dtype),
            "pixels": found.pixels if self._per_channel else found.pixels // count,
        }
        return self._made(found, fitted_on, target)

    def _made(
        self, found: Statistics, fitted_on: dict[str, Any], target: Normalization | None
    ) -> Normalization:
        one, other = found.first.tolist(), found.second.tolist()
        if self._kind == "mean_std":
            return MeanStdNormalization(one, other, target=target, fitted_on=fitted_on)
        if self._kind == "min_max":
            return MinMaxNormalization(one, other, target=target, fitted_on=fitted_on)
        fitted_on["exact"] = found.exact
        return QuantileNormalization(
            one, other, self._quantiles, target=target, fitted_on=fitted_on
        )


def plain_channels(channels: Channels | None) -> Any:
    """Return channels as JSON can hold them.

    Parameters
    ----------
    channels
        Channels by number or name; None for all.

    Examples
    --------
    >>> plain_channels(slice(0, 4, 2))
    [0, 4, 2]
    """
    if channels is None or isinstance(channels, str):
        return channels
    if isinstance(channels, slice):
        return [channels.start, channels.stop, channels.step]
    if isinstance(channels, int | np.integer):
        return int(channels)
    return [item if isinstance(item, str) else int(item) for item in channels]
