"""The fewest tiles that are known to cover a share of the tissue: strips, then a search.

Strips of disjoint tiles are the best start there is, and a search that moves their tiles about finds
out how many can go. On masks for which a mixed-integer programme proves the fewest tiles on the
lattices of half and of quarter tiles, it needed no more than those; see `benchmarks/tilings.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, isqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.errors import InvalidInputError
from microtome.image import MultiscaleImage

from ._bound import least_tiles
from ._cells import Axis, CellGrid, reduce_mask
from ._mask import MaskBands, open_mask
from ._rule import TileRule, read_share
from ._search import LatticeTiles, fewer
from ._stats import TileStats
from ._strips import fewest_in_strips, finished
from ._tile import TileSelection, read_size

__all__ = ["get_fewest_tiles"]

# Places to a side of a tile: with fewer the search finds less, with more it takes longer. Where the
# mask is small enough that strips are found in no time, twice as many, which a move takes a half longer for.
_OFFSETS, _FINE_OFFSETS = 14, 28
_FEW_CELLS = 1 << 19
# Cells of a mask at the most: with more, a look at all of them takes seconds.
_MOST_CELLS = 1 << 22
# A move takes 20 to 35 us: half a second in all, and on a finer lattice a second. Of a large mask more
# moves spare no more tiles.
_MOVES, _FINE_MOVES = 20_000, 30_000


def get_fewest_tiles(
    mask: ArrayLike | MultiscaleImage | MaskBands,
    tile_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    tolerance: float = 0.85,
    coverage_goal: float = 0.99,
    min_gain_ratio: float = 0.0,
    moves: int | None = None,
) -> tuple[TileSelection, TileStats]:
    """Cover a share of a tissue mask with as few tiles as a search finds.

    It starts from strips of disjoint tiles (see `get_strip_tiles`), takes tiles away, and moves the
    others until they cover enough again. Tiles may overlap. The same mask and parameters give the
    same tiles.

    Parameters
    ----------
    mask
        (height, width) True on tissue: an array, or an image of labels, which is read band by
        band.
    tile_size
        Pixels; one int or (height, width).
    stride
        Pixels between the places that are tried, one int or (down, across); by default about a
        14th of the tile, and a 28th on masks of up to 25 tiles to a side. At most the tile.
    tolerance
        Largest share of a tile that may be background, in [0, 1).
    coverage_goal
        Share of the tissue to cover, in (0, 1].
    min_gain_ratio
        Least tissue that a tile alone covers, as a share of its area, in [0, 1): a tile with less
        is not worth taking, whatever the goal.
    moves
        How long to search: moves of a tile, 20 to 35 us each. By default 30,000 where there are at
        most half a million places, else 20,000. With 0 the tiles stay in strips.

    Returns
    -------
    tiles
        Row by row. The gain of a tile is the tissue that no tile before it covers.
    stats
        A row of the tile statistics table; `tiling_method` is ``"fewest"``. `stop_reason` is
        ``"coverage_goal"``, or ``"adaptive_stop"`` where only tiles that are not worth taking or
        have too much background would reach the goal. `tile_bound` is a number of tiles that no
        tiling of any kind can go below for the same coverage.

    Raises
    ------
    InvalidInputError
        If a parameter is outside its range.

    Examples
    --------
    >>> import numpy as np
    >>> y, x = np.ogrid[:120, :160]
    >>> mask = (y - 60) ** 2 + (x - 80) ** 2 < 50**2
    >>> tiles, stats = get_fewest_tiles(mask, 28)
    >>> len(tiles), stats["coverage_ratio"] >= 0.99, stats["tile_bound"]
    (13, True, 10)
    """
    tissue = open_mask(mask)
    size = read_size(tile_size, "tile_size")
    step = _default_stride(tissue.shape, size) if stride is None else read_size(stride, "stride")
    if step[0] > size[0] or step[1] > size[1]:
        raise InvalidInputError(f"stride must be at most the tile, {size}, got {step}")
    if moves is None:
        few = _places(tissue.shape, step) <= _FEW_CELLS
        moves = _FINE_MOVES if few else _MOVES
    if moves < 0:
        raise InvalidInputError(f"moves must be at least 0, got {moves}")
    rule = TileRule.read(size, step, tolerance)
    goal = read_share(coverage_goal, "coverage_goal", above_zero=True)
    least = ceil(read_share(min_gain_ratio, "min_gain_ratio") * rule.area)
    lattice = _Lattice.of(tissue, rule)
    total = int(lattice.grid.counts.sum())
    wanted = ceil(goal * total)
    kept = lattice.candidates >= max(1, least, rule.least_tissue)
    places = _search(lattice, kept, wanted, moves)
    places = _worth(lattice, places, least)
    selection, stats = finished(tissue, rule, lattice.pixels(places), total, wanted)
    stats["candidate_count"] = int(kept.sum())
    stats["coverage_goal"] = float(coverage_goal)
    stats["min_gain_ratio"] = float(min_gain_ratio)
    stats["tiling_method"] = "fewest"
    reached = int(selection.gain.sum())
    stats["tile_bound"] = max(
        stats["tile_bound"], least_tiles(lattice.grid.counts, rule.stride, rule.size, reached)
    )
    return selection, stats


def _default_stride(shape: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Return the stride near a 14th or a 28th of the tile of which a tile has a whole number, or nearly."""
    least = isqrt(shape[0] * shape[1] // _MOST_CELLS) + 1

    def best(side: int, offsets: int) -> int:
        near = range(max(1, side * 4 // (5 * offsets)), max(1, side * 5 // (4 * offsets)) + 1)
        return min(max(least, min(near, key=lambda step: (side % step, -step))), side)

    fine = best(size[0], _FINE_OFFSETS), best(size[1], _FINE_OFFSETS)
    if _places(shape, fine) <= _FEW_CELLS:
        return fine
    return best(size[0], _OFFSETS), best(size[1], _OFFSETS)


def _places(shape: tuple[int, int], step: tuple[int, int]) -> int:
    return (shape[0] // step[0]) * (shape[1] // step[1])


@dataclass(frozen=True, slots=True, eq=False)
class _Lattice:
    """The mask in cells of a stride each, with room for tiles that hang over its edges.

    A tile that is no whole number of strides is searched as the largest that is one: it covers a
    little more than it is taken for.
    """

    grid: CellGrid
    side: tuple[int, int]
    """(down, across) cells of a tile."""
    candidates: NDArray[np.int64]
    """(places down, places across) tissue pixels of a tile there."""

    @classmethod
    def of(cls, mask: MaskBands, rule: TileRule) -> _Lattice:
        """Count the tissue of every cell, and of every place."""
        side = rule.size[0] // rule.stride[0], rule.size[1] // rule.stride[1]
        own = [
            _cells(length, step, 1) for length, step in zip(mask.shape, rule.stride, strict=True)
        ]
        margins = [(cells, cells) for cells in side]
        counts = np.pad(reduce_mask(mask, *own).counts, margins)
        rows, cols = (
            _cells(cells * step, step, number)
            for cells, step, number in zip(counts.shape, rule.stride, side, strict=True)
        )
        grid = CellGrid(counts, rows, cols)
        return cls(grid, side, grid.candidate_counts())

    def pixels(self, places: list[tuple[int, int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(n,) first row and column of each tile."""
        given = np.array(places, np.int64).reshape(-1, 2)
        rows, cols = (
            axis.starts[given[:, number]] - cells * (axis.size // cells)
            for number, (axis, cells) in enumerate(
                zip((self.grid.rows, self.grid.cols), self.side, strict=True)
            )
        )
        return rows, cols


def _cells(length: int, step: int, cells: int) -> Axis:
    """Return the places of tiles of some cells, on an axis cut into cells of a stride."""
    count = -(-length // step)
    first = np.arange(count - cells + 1, dtype=np.int64)
    edges = np.arange(count + 1, dtype=np.int64) * step
    return Axis(first * step, cells * step, edges, first, first + cells)


def _search(
    lattice: _Lattice, kept: NDArray[np.bool_], wanted: int, moves: int
) -> list[tuple[int, int]]:
    grid = lattice.grid
    worth = np.where(kept, lattice.candidates, 0)
    picks = fewest_in_strips(grid, worth, wanted)
    places: list[tuple[int, int]] = [(int(row), int(col)) for row, col in picks]
    # Out of reach of strips is out of reach of the search: then it keeps what they cover.
    reached = int(worth[picks[:, 0], picks[:, 1]].sum())

    tiles = LatticeTiles(grid.counts, kept, lattice.side)
    return fewer(tiles, places, min(wanted, reached), moves)


def _worth(lattice: _Lattice, places: list[tuple[int, int]], least: int) -> list[tuple[int, int]]:
    """Leave out the tiles that alone cover too little, the worst first."""
    counts, (down, across) = lattice.grid.counts, lattice.side
    times = np.zeros(counts.shape, np.int32)
    windows = [(slice(row, row + down), slice(col, col + across)) for row, col in places]
    for window in windows:
        times[window] += 1
    kept = list(range(len(places)))
    while least and kept:
        alone = [int(counts[windows[i]][times[windows[i]] == 1].sum()) for i in kept]
        worst = int(np.argmin(alone))
        if alone[worst] >= least:
            break
        times[windows[kept.pop(worst)]] -= 1
    return [places[i] for i in kept]
