"""Tissue in multiplexed images: where the channels together are bright."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._brightfield import smooth
from ._threshold import otsu

__all__ = ["multiplex_tissue"]

# Bridges the gaps between cells, which are some 10 um across.
_SMOOTHING_UM = 8.0
# How many times more a smoothed channel must vary than smoothed noise would. Noise gives 1; the
# real channels that this was set on give from 4 (a few cells) to thousands.
_LEAST_STRUCTURE = 3.0
# Range of a channel as a share of its level: less is uneven light on an empty field.
_LEAST_CONTRAST = 0.1
# How bright the dark part may be, as a share of the bright one, to be background. Brightness spread
# evenly, without two classes, gives a third; slides with background give about a tenth.
_MOST_BACKGROUND = 0.25


def multiplex_tissue(image: NDArray[Any], mpp: tuple[float, float]) -> NDArray[np.bool_]:
    """Pixels where the mean of the channels is above Otsu's threshold.

    1. Every channel is smoothed and scaled from its 1st to its 99.9th percentile.
    2. A channel without structure is left out: one that after smoothing varies hardly more than
       noise would, of the strength by which neighbouring pixels differ, or whose range is less
       than a tenth of its level. If no channel is left, there is no tissue.
    3. Otsu's threshold is put on the logarithm of one plus the mean of the others. Where the part
       below it is on average not clearly darker (less than a quarter of the part above) there is no
       background in the image: that is dense and loose tissue. Then all of it is tissue, also
       where a field that tissue of very uneven brightness nearly fills has a little background.

    Parameters
    ----------
    image
        (C, H, W).
    mpp
        (y, x) micrometres per pixel.
    """
    total = np.zeros(image.shape[1:], np.float32)
    used = 0
    for plane in image:
        channel = plane.astype(np.float32)
        smoothed = smooth(channel, mpp, _SMOOTHING_UM)
        dark, bright = (float(level) for level in np.percentile(smoothed, (1, 99.9)))
        contrast = (bright - dark) / max(abs(bright), abs(dark), np.finfo(np.float32).tiny)
        if contrast >= _LEAST_CONTRAST and _structure(channel, smoothed, mpp) >= _LEAST_STRUCTURE:
            total += np.clip((smoothed - dark) / (bright - dark), 0, 1)
            used += 1
    if not used:
        return np.zeros(total.shape, np.bool_)
    mean = total / used
    compressed = np.log1p(mean)
    above = compressed > otsu(compressed)
    if above.all() or not above.any():
        return np.ones(total.shape, np.bool_)
    if mean[~above].mean() > _MOST_BACKGROUND * mean[above].mean():
        return np.ones(total.shape, np.bool_)
    return above


def _structure(
    channel: NDArray[np.float32], smoothed: NDArray[np.float32], mpp: tuple[float, float]
) -> float:
    """Variance of a smoothed channel over the one that smoothed noise would have."""
    steps = [np.diff(channel, axis=axis).ravel() for axis in (0, 1)]
    noise = float(np.square(np.concatenate(steps), dtype=np.float64).mean()) / 2
    if noise == 0:
        return 0.0
    # White noise keeps this share of its variance: the sum of the squared weights.
    pulse = np.zeros([2 * int(np.ceil(4 * max(1.0, _SMOOTHING_UM / side))) + 1 for side in mpp])
    pulse[tuple(side // 2 for side in pulse.shape)] = 1
    kept = float(np.square(smooth(pulse, mpp, _SMOOTHING_UM), dtype=np.float64).sum())
    return float(smoothed.var(dtype=np.float64)) / (noise * kept)
