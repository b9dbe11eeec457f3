"""Methods as steps that a read can do on its way, where nothing but steps is needed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._methods import IDENTITY, find_method
from ._spec import StandardizationSpec

__all__ = ["method_steps"]

_EPSILON = np.float32(1e-8)

_Row = NDArray[np.float32]


def method_steps(
    spec: StandardizationSpec, lower: _Row | None, upper: _Row | None
) -> list[tuple[Any, ...]] | None:
    """Return the steps of `Conversion.of` that a method consists of; None where it does more.

    The same operations as in the method, in its order and its precision.

    Parameters
    ----------
    spec
        The method.
    lower, upper
        Quantiles of the channels, where it needs such.
    """
    if spec.method in {IDENTITY, "zscore"}:
        return []
    if lower is None or upper is None or find_method(spec.method).parameters:
        return None
    if spec.method == "quantile_clipping":
        return [("clip", lower, upper), ("subtract", lower), ("divide", upper - lower + _EPSILON)]
    if spec.method == "minmax":
        extent = np.where(upper > lower, upper - lower, np.float32(1))
        return [("clip", lower, upper), ("subtract", lower), ("divide", extent)]
    return None
