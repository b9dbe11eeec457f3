"""What of an image's values becomes black and what full light, read from a coarse level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.image import MultiscaleImage

__all__ = ["Contrast", "contrasts"]

_LOW, _HIGH = 0.005, 0.998
_MIDDLE, _BRIGHT = 0.5, 0.995
_SIDE = 512
# Windows of an image that has no coarse level, along each axis.
_WINDOWS = 3
# Values in memory at a time, all channels together.
_MOST_VALUES = 1 << 24


@dataclass(frozen=True, slots=True)
class Contrast:
    """The values of a channel, of those that were looked at."""

    low: float
    """Shown as black: the 0.5 % quantile."""
    high: float
    """Shown at full light: the 99.8 % quantile; above `low`."""
    least: float
    most: float
    spread: float = 0.0
    """From the middle to the 99.5 % quantile: large where something stands out of the dark."""


def contrasts(image: MultiscaleImage, channels: Sequence[int] | None = None) -> list[Contrast]:
    """Propose contrast for each channel.

    Parameters
    ----------
    image
        Over c, y, x or y, x.
    channels
        Which; None for all.
    """
    picked = list(range(image.nchannels)) if channels is None else list(channels)
    per = max(1, _MOST_VALUES // (_WINDOWS * _SIDE) ** 2)
    found: list[Contrast] = []
    for start in range(0, len(picked), per):
        found += [_contrast(plane) for plane in _glimpse(image, picked[start : start + per])]
    return found


def _glimpse(image: MultiscaleImage, channels: list[int]) -> NDArray[Any]:
    """Read some of the coarsest level that is no smaller than needed, (C, values)."""
    index = next(
        (
            i
            for i in reversed(range(image.level_count))
            if max(image.level(i).height, image.level(i).width) >= _SIDE
        ),
        0,
    )
    level = image.level(index)
    most = _WINDOWS * _SIDE
    if max(level.height, level.width) <= most:
        spans = [((0, level.height), (0, level.width))]
    else:
        spans = [(y, x) for y in _parts(level.height) for x in _parts(level.width)]
    read = [image.read(index, y, x, channels=channels) for y, x in spans]
    return np.concatenate([part.reshape(len(channels), -1) for part in read], axis=1)


def _parts(length: int) -> list[tuple[int, int]]:
    """Return windows that are spread evenly over an axis."""
    if length <= _WINDOWS * _SIDE:
        return [(0, length)]
    starts = np.linspace(0, length - _SIDE, _WINDOWS + 2)[1:-1].astype(int)
    return [(int(start), int(start) + _SIDE) for start in starts]


def _contrast(values: NDArray[Any]) -> Contrast:
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if not finite.size:
        return Contrast(0.0, 1.0, 0.0, 1.0)
    quantiles = np.quantile(finite, [_LOW, _HIGH, _MIDDLE, _BRIGHT])
    low, high, middle, bright = (float(v) for v in quantiles)
    least, most = float(finite.min()), float(finite.max())
    # A sparse marker is 0 almost everywhere: what it has must not vanish with the quantile.
    high = high if high > low else most
    return Contrast(low, high if high > low else low + 1.0, least, most, bright - middle)
