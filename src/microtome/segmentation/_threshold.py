"""Otsu's threshold, where there may be nothing to cut."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["otsu"]


def otsu(values: NDArray[np.floating[Any]]) -> float:
    """Threshold that Otsu (1979) puts between two classes; of equal values, that value."""
    from skimage.filters import threshold_otsu

    if values.min() == values.max():
        return float(values.flat[0])
    return float(threshold_otsu(values))
