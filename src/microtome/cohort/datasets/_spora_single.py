"""Draws of one tile or tissue at a time, apart from the epochs of a `SporaDataset`."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from microtome.sampling import CohortSampler, SamplingRule

__all__ = ["SamplingUnit", "SingleDraws"]

SamplingUnit = Literal["tiles", "tissues"]
"""What a draw is."""

# Positions of a stream of single draws: more than anybody calls for.
_ENDLESS = 2**40
# Whose random numbers single draws have: those of the last epoch there could be.
_NO_EPOCH = 2**32 - 1


class SingleDraws:
    """A stream of draws with replacement, all of a cohort being equally likely.

    Parameters
    ----------
    rows_of
        What gives the rows of the cohorts by unit.
    weighting
        A rule with the weights of the cohorts.
    seed
        Of the draws.
    """

    def __init__(
        self, rows_of: Callable[[SamplingUnit], list[Any]], weighting: SamplingRule, seed: int
    ) -> None:
        self._rows_of, self._weighting, self._seed = rows_of, weighting, seed
        self._counted = itertools.count()
        self._samplers: dict[SamplingUnit, CohortSampler] = {}

    def rows(
        self, unit: SamplingUnit, index: int | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return cohort and row of a draw, (1,) each.

        Parameters
        ----------
        unit
            What is drawn.
        index
            Number of the draw; by default the next one that was not asked for.
        """
        number = next(self._counted) if index is None else index
        if unit not in self._samplers:
            rule = SamplingRule(
                self._weighting.alpha,
                self._weighting.weights,
                replacement=True,
                epoch_length=_ENDLESS,
            )
            rows = self._rows_of(unit)
            self._samplers[unit] = CohortSampler(rows, rule, seed=self._seed, epoch=_NO_EPOCH)
        return self._samplers[unit].rows(number, number + 1)
