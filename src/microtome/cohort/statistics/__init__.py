"""Pixels inside tissue become standardization tables."""

from ._command import stats_command
from ._stats import stats
from ._stats_state import inputs_in
from ._unfitted import fit_again, fitted_where, kept_channels

__all__ = ["fit_again", "fitted_where", "inputs_in", "kept_channels", "stats", "stats_command"]
