"""A search that moves tiles about until one of them can go.

A tiling that covers enough is asked to do with one tile less: the one that alone covers least is taken
away, and those around it are moved, one after the other, to where they cover most of what no other
covers. Many places are as good, and a place that is a little worse now is often better later, so
each move draws one of the places near the best, from a band that narrows until only the best are
left (simulated annealing). Where that covers enough again, the next one is tried.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["LatticeTiles", "fewer"]

Place = tuple[int, int]
# Moves of a tile in one attempt, and how many tiles around the one that was taken away are moved.
_ROUNDS = 48
_NEAR = 96
# Share of a tile's area that a place may be worse than the best at first, and of the rounds after
# which only the best is taken. Measured on masks of every kind: 0.01 to 0.03 serve alike.
_BAND = 0.03
_COOLED = 0.7


@dataclass(frozen=True, slots=True, eq=False)
class LatticeTiles:
    """The lattice that tiles are moved on."""

    weights: NDArray[np.int64]
    """(cells down, cells across) tissue pixels."""
    allowed: NDArray[np.bool_]
    """(places down, places across) whether a tile may lie there."""
    side: tuple[int, int]
    """(down, across) cells of a tile."""


def fewer(lattice: LatticeTiles, places: list[Place], wanted: int, moves: int) -> list[Place]:
    """Return fewer tiles that cover as much, or those that were given.

    Parameters
    ----------
    lattice
        Where tiles may lie.
    places
        Tiles that cover enough.
    wanted
        Tissue pixels to cover.
    moves
        Moves to spend.

    Notes
    -----
    The draws are a function of nothing but the arguments.
    """
    search = _Search(lattice, places)
    if search.covered < wanted:
        return places
    draws = np.random.default_rng(0)
    failed = 0
    # Each failure leaves out another tile; when all have been tried, more moves find no more.
    while moves > 0 and failed < len(search.tiles):
        before = search.state()
        taken = search.take_away(failed)
        moves -= search.anneal(search.near(taken), wanted, moves, draws)
        if search.covered >= wanted:
            failed = 0
        else:
            search.restore(before)
            failed += 1
    return search.tiles


class _Search:
    """Tiles, and how many of them cover each cell."""

    def __init__(self, lattice: LatticeTiles, tiles: list[Place]) -> None:
        self.tiles = list(tiles)
        self._lattice = lattice
        # Floats hold these counts exactly.
        self._weights = lattice.weights.astype(np.float64)
        self._times = np.zeros(lattice.weights.shape, np.int32)
        for tile in self.tiles:
            self._times[self._window(tile)] += 1
        self.covered = int(lattice.weights[self._times > 0].sum())

    def _window(self, tile: Place) -> tuple[slice, slice]:
        (row, col), (down, across) = tile, self._lattice.side
        return slice(row, row + down), slice(col, col + across)

    def state(self) -> tuple[list[Place], int]:
        """Return what `restore` takes."""
        return list(self.tiles), self.covered

    def restore(self, state: tuple[list[Place], int]) -> None:
        """Put the tiles back where they were."""
        for tile in self.tiles:
            self._times[self._window(tile)] -= 1
        self.tiles, self.covered = list(state[0]), state[1]
        for tile in self.tiles:
            self._times[self._window(tile)] += 1

    def take_away(self, skipped: int) -> Place:
        """Remove the tile that alone covers least, after leaving out some that cover less."""
        weights = self._lattice.weights
        alone = [
            int(weights[window][self._times[window] == 1].sum())
            for window in map(self._window, self.tiles)
        ]
        place = int(np.argsort(alone, kind="stable")[skipped])
        taken = self.tiles.pop(place)
        self._times[self._window(taken)] -= 1
        self.covered -= alone[place]
        return taken

    def near(self, place: Place) -> list[int]:
        """Return the tiles that are nearest to a place; those far away do not feel it."""
        if not self.tiles:
            return []
        steps = (np.array(self.tiles) - place) / self._lattice.side
        return np.argsort((steps**2).sum(axis=1), kind="stable")[:_NEAR].tolist()

    def anneal(self, tiles: list[int], wanted: int, moves: int, draws: np.random.Generator) -> int:
        """Move some tiles about, round after round, until enough is covered; return the moves."""
        down, across = self._lattice.side
        pixels = float(self._lattice.weights.max(initial=0)) * down * across
        rounds = min(_ROUNDS, moves // max(1, len(tiles)))
        spent = 0
        for number in range(rounds):
            if self.covered >= wanted:
                break
            band = int(_BAND * pixels * max(0.0, 1 - number / (_COOLED * rounds)))
            order = np.argsort(draws.random(len(tiles)), kind="stable")
            for tile, draw in zip(order.tolist(), draws.random(order.size).tolist(), strict=True):
                self._move(tiles[tile], band, draw)
                spent += 1
                if self.covered >= wanted:
                    break
        return max(spent, 1)

    def _move(self, tile: int, band: int, draw: float) -> None:
        """Lift a tile and put it down within half its side, near where it covers most."""
        lattice, (row, col) = self._lattice, self.tiles[tile]
        down, across = lattice.side
        self._times[row : row + down, col : col + across] -= 1
        top, left = max(0, row - max(1, down // 2)), max(0, col - max(1, across // 2))
        near = (
            slice(top, row + max(1, down // 2) + down),
            slice(left, col + max(1, across // 2) + across),
        )
        new = self._weights[near] * (self._times[near] == 0)
        # Sums of all windows: on so few cells two products are faster than running sums.
        gains = _windows(new.shape[0], down).T @ new @ _windows(new.shape[1], across)
        before = int(gains[row - top, col - left])
        places = lattice.allowed[
            top : top + gains.shape[0],
            left : left + gains.shape[1],
        ]
        gains = np.where(places, gains, -1.0).ravel()
        # The band must not reach down to places that are ruled out.
        good = (gains >= max(0.0, gains.max() - band)).nonzero()[0]
        chosen = int(good[int(draw * good.size)])
        step = divmod(chosen, places.shape[1])
        row, col = top + step[0], left + step[1]
        self.covered += int(gains[chosen]) - before
        self._times[row : row + down, col : col + across] += 1
        self.tiles[tile] = row, col


@cache
def _windows(length: int, side: int) -> NDArray[np.float64]:
    """(length, windows) 1 where a window of some cells holds a cell."""
    first, cell = np.arange(length - side + 1), np.arange(length)[:, None]
    return ((cell >= first) & (cell < first + side)).astype(np.float64)
