"""Tissue in H&E and IHC: what is stained, and what lies around it and is not glass."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._threshold import otsu

__all__ = ["brightfield_tissue"]

_SMOOTHING_UM = 4.0
# Where Otsu may put the threshold. Glass and what JPEG makes of it stay below a saturation of 0.05;
# what is above 0.1 is stained, however much darker other parts of the slide are.
_LEAST_SATURATION, _MOST_SATURATION = 0.05, 0.1
# Glass lets at least this share of the light through, and is uniform to within the other one.
_GLASS, _GLASS_SPREAD = 0.9, 0.08
# Below this there is no light at all: parts of a slide that were not scanned are black.
_BLACK = 0.05


def brightfield_tissue(image: NDArray[np.uint8], mpp: tuple[float, float]) -> NDArray[np.bool_]:
    """Stained tissue, and the pale tissue that touches it.

    1. The colour of glass is the 99th percentile of each colour, or 90 % of full white if that is
       brighter: an image without glass is not measured against its own palest tissue.
    2. Stained is what is more saturated than Otsu's threshold, which is kept between 0.05 and 0.1.
       Otsu cuts a slide of dark and pale tissue between the two, and one of empty glass in its
       noise; both lie outside these bounds.
    3. Pale tissue absorbs more than 8 % of some colour that glass lets through. It counts where it
       is connected to stained tissue. So an image that is all tissue is not cut in two, while
       dust, shadows and black marks on the glass, which are grey, stay out.
    4. Black is what was not scanned.

    Parameters
    ----------
    image
        (H, W, 3).
    mpp
        (y, x) micrometres per pixel.
    """
    from scipy import ndimage

    colours = smooth(image, (*mpp, np.inf), _SMOOTHING_UM) / np.float32(255)
    glass = np.maximum(np.percentile(colours, 99, axis=(0, 1)), _GLASS).astype(np.float32)
    passed = np.minimum(colours / glass, 1)
    brightest, darkest = passed.max(axis=-1), passed.min(axis=-1)
    scanned = brightest > _BLACK
    saturation = 1 - darkest / np.maximum(brightest, _BLACK)
    level = np.clip(otsu(saturation), _LEAST_SATURATION, _MOST_SATURATION)
    stained = (saturation > level) & scanned
    pale = (1 - darkest > _GLASS_SPREAD) & scanned
    pieces: NDArray[np.integer[Any]] = ndimage.label(pale | stained)[0]
    reached = np.zeros(int(pieces.max()) + 1, np.bool_)
    reached[pieces[stained]] = True
    reached[0] = False
    return reached[pieces]


def smooth(image: NDArray[Any], mpp: tuple[float, ...], sigma_um: float) -> NDArray[np.float32]:
    """Blur each axis by so many micrometres, one pixel at least; not at all where mpp is infinite."""
    from scipy import ndimage

    sigma = [0.0 if np.isinf(side) else max(1.0, sigma_um / side) for side in mpp]
    return ndimage.gaussian_filter(image.astype(np.float32), sigma, mode="nearest")
