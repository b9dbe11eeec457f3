"""A channel of a prediction in colours, on the pixels of a slide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.errors import DependencyError
from microtome.image import MultiscaleImage

from ._thumbnails import Frame, Thumbnail, sample

__all__ = ["HEAT_COLOURS", "Heat", "heat_legend", "heat_on"]

HEAT_COLOURS = "inferno"
_ALPHA = 0.9


@dataclass(frozen=True, slots=True, eq=False)
class Heat:
    """A channel of a prediction on the pixels of a slide."""

    values: NDArray[np.float32]
    """(height, width), NaN where the prediction does not reach."""
    rgba: NDArray[np.float32]
    """(height, width, 4) from 0 to 1; transparent where there is no value."""
    low: float
    """Value of the first colour; what lies below has it too."""
    high: float
    """Value of the last one."""
    frame: Frame


def heat_on(
    slide: Thumbnail | Frame,
    prediction: MultiscaleImage,
    channel: int | str = -1,
    *,
    limits: tuple[float, float] | None = None,
    blend: bool = True,
) -> Heat:
    """Colour a channel of a prediction on a slide's pixels, each value at its place in space.

    Parameters
    ----------
    slide
        Where: a picture, or its pixel grid.
    prediction
        An image of any pixel size and translation in the slide's space.
    channel
        Which; the last by default.
    limits
        Values of the first and the last colour. By default 0, or the 0.5 % quantile where values
        are negative, and the 99.5 % quantile.
    blend
        Whether low values let the slide through, for drawing over it.

    Raises
    ------
    NoResolutionError
        If the prediction does not state its pixel size.
    """
    colours = _colours()
    frame = slide if isinstance(slide, Frame) else slide.frame
    values = sample(prediction, frame, channel=channel)
    low, high = limits or _limits(values)
    share = np.clip((values - low) / (high - low), 0, 1)
    rgba: NDArray[np.float32] = np.asarray(colours(np.nan_to_num(share)), np.float32)
    # The low end is most of a slide: it stays clear, so that the tissue can be seen in it.
    rgba[..., 3] = _alpha(share) if blend else 1.0
    rgba[np.isnan(values)] = 0.0
    return Heat(values, rgba, low, high, frame)


def heat_legend(width: int = 256) -> NDArray[np.float32]:
    """Return the colours of a blended heat map from low to high, (1, width, 4) from 0 to 1."""
    share = np.linspace(0, 1, width)
    rgba: NDArray[np.float32] = np.asarray(_colours()(share), np.float32)
    rgba[:, 3] = _alpha(share)
    return rgba[None]


def _limits(values: NDArray[np.float32]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.quantile(finite, [0.005, 0.995]))
    low = min(0.0, low)
    # What is rare must not vanish with the quantile.
    high = high if high > low else float(finite.max())
    return low, high if high > low else low + 1.0


def _alpha(share: NDArray[Any]) -> NDArray[Any]:
    return np.clip(share * 1.6, 0.0, 1.0) * _ALPHA


def _colours() -> Any:
    try:
        from matplotlib import colormaps
    except ImportError as error:
        msg = "heat maps need matplotlib; install microtome[report]"
        raise DependencyError(msg) from error
    return colormaps[HEAT_COLOURS]
