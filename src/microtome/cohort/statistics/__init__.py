"""Pixels inside tissue become standardization tables."""

from ._stats import stats
from ._stats_state import inputs_in
from ._unfitted import FIT_AGAIN, fitted_where, kept_channels

__all__ = ["FIT_AGAIN", "fitted_where", "inputs_in", "kept_channels", "stats"]
