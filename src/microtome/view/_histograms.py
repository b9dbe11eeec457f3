"""How bright the tissue is: histograms of the pixels inside a mask, at a coarse level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.image import MultiscaleImage
from microtome.standardize import Standardizer

from ._thumbnails import frame_of, read_frame, sample

__all__ = ["ChannelHistogram", "Histogram", "histograms"]

_BINS = 64
# Detectors have a few very bright pixels; with them in the range all others share a bin or two.
_TOP = 0.999


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Shares of the pixels by value."""

    edges: NDArray[np.float64]
    """(bins + 1,) ascending."""
    share: NDArray[np.float64]
    """(bins,) summing to 1; pixels beyond an end are in the last bin there."""

    @classmethod
    def of(cls, values: NDArray[Any], low: float, high: float, bins: int = _BINS) -> Histogram:
        """Count values; those outside [low, high] go to the nearest bin.

        Parameters
        ----------
        values
            (n,), n at least 1.
        low, high
            Ends of the first and the last bin.
        bins
            Number of bins.
        """
        if not high > low:
            high = low + 1.0
        counts, edges = np.histogram(np.clip(values, low, high), bins, (low, high))
        return cls(edges.astype(np.float64), counts / values.size)


@dataclass(frozen=True, slots=True, eq=False)
class ChannelHistogram:
    """A channel before and after standardization."""

    name: str
    stored: Histogram
    standardized: Histogram | None = None
    """None where it was not asked for, or the channel has no signal to standardize by."""


def histograms(
    image: MultiscaleImage,
    *,
    mask: MultiscaleImage | None = None,
    standardizer: Standardizer | None = None,
    size: int = 768,
) -> list[ChannelHistogram]:
    """Count the pixels of every channel inside a mask.

    Parameters
    ----------
    image
        The image, over c, y, x or y, x.
    mask
        Where the tissue is, labels above 0; None for the whole image.
    standardizer
        Of the image's channels in their order; None to leave standardization out.
    size
        Most pixels along the longer side; a finer image is averaged down to it.

    Returns
    -------
    One a channel; none where no finite pixel lies inside the mask.
    """
    frame = frame_of(image, size)
    pixels = read_frame(image, frame)
    inside = np.ones((frame.height, frame.width), np.bool_)
    if mask is not None:
        inside = sample(mask, frame) > 0
    stored = pixels[:, inside]
    names = image.channel_names or ("intensity",)
    after: NDArray[np.float32] | None = None
    keep: Sequence[bool] = [False] * len(names)
    if standardizer is not None:
        after = standardizer(stored[:, None, :])[:, 0]
        keep = standardizer.keep.tolist()
    found: list[ChannelHistogram] = []
    for index, (name, values) in enumerate(zip(names, stored, strict=True)):
        finite = values[np.isfinite(values)]
        if not finite.size:
            continue
        result = after[index] if after is not None and keep[index] else None
        found.append(ChannelHistogram(name, _stored(finite), _standardized(result)))
    return found


def _stored(values: NDArray[Any]) -> Histogram:
    if values.dtype == np.uint8:
        return Histogram.of(values, 0.0, 256.0)
    low, high = min(0.0, float(values.min())), float(np.quantile(values, _TOP))
    high = high if high > low else float(values.max())
    if values.dtype.kind not in "iu":
        return Histogram.of(values, low, high)
    # As many integers in every bin, or full and empty bins would take turns.
    width = max(1.0, np.ceil((high - low + 1) / _BINS))
    bins = int(np.ceil((high - low + 1) / width))
    return Histogram.of(values, low - 0.5, low - 0.5 + bins * width, bins)


def _standardized(values: NDArray[np.float32] | None) -> Histogram | None:
    finite = values[np.isfinite(values)] if values is not None else np.empty(0)
    if not finite.size:
        return None
    # Integers stay apart when they are standardized; a bin needs some of them to be smooth.
    bins = int(np.clip(np.unique(finite).size // 4, 8, _BINS))
    return Histogram.of(finite, float(finite.min()), float(np.quantile(finite, _TOP)), bins)
