"""The greedy choice of tiles: always the candidate that adds the most tissue, until a rule stops it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.progress import Progress

from ._cells import CellGrid, summed_area
from ._stats import StopReason

__all__ = ["Greedy", "StopRule", "choose"]

_RULED_OUT = -1


class Greedy:
    """Gains of all candidates, kept right as tiles are taken.

    A pick changes only the candidates that overlap it, and the best of every other row of
    candidates stays the best, so a pick costs a few rows and not all candidates.

    Parameters
    ----------
    grid
        The mask in cells, and the candidates.
    allowed
        (candidates down, candidates across) False rules a candidate out.
    """

    def __init__(self, grid: CellGrid, allowed: NDArray[np.bool_]) -> None:
        gains = np.where(allowed, grid.candidate_counts(), _RULED_OUT)
        self._grid = grid
        self._uncovered = grid.counts.copy()
        self._gains = gains
        self._best_col = gains.argmax(axis=1)
        self._best_gain = gains.max(axis=1)

    def best(self) -> tuple[int, int, int]:
        """Candidate (down, across) with the largest gain, first in row-major order, and the gain."""
        row = int(self._best_gain.argmax())
        return row, int(self._best_col[row]), int(self._best_gain[row])

    def take(self, row: int, col: int, *, overlap: bool) -> None:
        """Cover the tissue of a candidate and rule it out; without overlap its neighbours too."""
        rows, cols = self._grid.rows, self._grid.cols
        down, across = rows.overlapping(row), cols.overlapping(col)
        top, bottom, left, right = (
            int(edge) for edge in (rows.first[row], rows.last[row], cols.first[col], cols.last[col])
        )
        table = summed_area(self._uncovered[top:bottom, left:right])
        # Part of the pick that each neighbour shares, in cells of the pick.
        r0 = np.maximum(rows.first[down], top)[:, None] - top
        r1 = np.minimum(rows.last[down], bottom)[:, None] - top
        c0 = np.maximum(cols.first[across], left) - left
        c1 = np.minimum(cols.last[across], right) - left
        near = self._gains[down, across]
        near -= table[r1, c1] - table[r0, c1] - table[r1, c0] + table[r0, c0]
        self._uncovered[top:bottom, left:right] = 0
        if overlap:
            self._gains[row, col] = _RULED_OUT
        else:
            near[:] = _RULED_OUT
        self._best_col[down] = self._gains[down].argmax(axis=1)
        self._best_gain[down] = self._gains[down].max(axis=1)


@dataclass(frozen=True, slots=True)
class StopRule:
    """When the next tile is one too many."""

    goal: int
    """Tissue pixels to cover."""
    least_gain: int
    """New tissue pixels that a tile must bring once the goal is met; 0 asks for none."""
    gain_only: bool
    """Whether a small gain ends it whatever the coverage."""
    most_tiles: int | None

    def reason(self, chosen: int, covered: int, total: int, gain: int) -> StopReason | None:
        """Why not to take the best candidate, which would add `gain`; None to take it."""
        met = covered >= self.goal
        # In this order: of several reasons the first is the one to report.
        reasons: dict[StopReason, bool] = {
            "empty_mask": total == 0,
            "coverage_goal": met and self.least_gain == 0,
            "candidates_exhausted": gain < 0,
            "no_gain": gain == 0,
            "adaptive_stop": (met or self.gain_only) and gain < self.least_gain,
            "max_tiles": chosen == self.most_tiles,
        }
        return next((reason for reason, holds in reasons.items() if holds), None)


def choose(
    greedy: Greedy, stop: StopRule, total: int, *, overlap: bool, progress: Progress
) -> tuple[NDArray[np.int64], NDArray[np.int64], StopReason]:
    """Take candidates until the rule stops it.

    Returns
    -------
    picks
        (n, 2) candidates, down and across, in the order they were taken.
    gains
        (n,) tissue pixels that each added.
    reason
        Why it stopped.
    """
    picks: list[tuple[int, int]] = []
    gains: list[int] = []
    covered = 0
    while True:
        row, col, gain = greedy.best()
        reason = stop.reason(len(picks), covered, total, gain)
        if reason is not None:
            break
        greedy.take(row, col, overlap=overlap)
        picks.append((row, col))
        gains.append(gain)
        covered += gain
        progress("tiling", covered, total)
    return np.array(picks, np.int64).reshape(-1, 2), np.array(gains, np.int64), reason
