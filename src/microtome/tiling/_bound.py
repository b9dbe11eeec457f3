"""How few tiles could be enough: a number that no tiling of any kind goes below.

Give every tissue pixel a weight such that no window of a tile's size holds more than 1 in all. Then
tiles that cover some pixels are at least as many as those pixels weigh, and whatever covers enough
weighs at least what the lightest pixels do. Equal weights of one by a tile's area are the area
bound. Where tissue is thin no window is full, and its pixels may weigh more: each is divided by the
fullest window that holds it, which leaves every window at 1 or below, again and again.

This is a feasible solution of the dual of the linear programme that covering is (any textbook on
set cover); the programme itself would give more, and takes minutes on a slide.
"""

from __future__ import annotations

from math import ceil

import numpy as np
from numpy.typing import NDArray

__all__ = ["least_tiles"]

# Later rounds add little: the twelfth adds 0.2 % on masks of blobs.
_ROUNDS = 12
# Cells looked at in all rounds together: a slide gets fewer rounds.
_BUDGET = 1 << 21
# What rounding of floats may have added.
_SLACK = 1e-6

Floats = NDArray[np.float64]


def least_tiles(
    counts: NDArray[np.int64], stride: tuple[int, int], size: tuple[int, int], covered: int
) -> int:
    """Return a number of tiles that no tiling goes below, wherever its tiles lie.

    Parameters
    ----------
    counts
        (cells down, cells across) tissue pixels of cells of a stride each.
    stride, size
        (down, across) pixels of a cell and of a tile.
    covered
        Tissue pixels that the tiling covers.
    """
    if covered <= 0:
        return 0
    # A tile that begins inside a cell ends inside another.
    reach = (-(-size[0] // stride[0]) + 1, -(-size[1] // stride[1]) + 1)
    tissue = np.pad(counts, [(cells, cells) for cells in reach]).astype(np.float64)
    even = np.zeros(tissue.shape, np.bool_)
    if size[0] % stride[0] == 0 and size[1] % stride[1] == 0:
        even = tissue == stride[0] * stride[1]
    weights = tissue / (size[0] * size[1])
    best = 0.0
    for _ in range(min(_ROUNDS, max(1, _BUDGET // tissue.size))):
        most = _fullest(_loads(weights, even, reach), reach, weights.shape)
        weights = np.divide(weights, most, out=np.zeros_like(weights), where=most > 0)
        best = max(best, _lightest(weights, tissue, covered))
    return ceil(best * (1 - _SLACK))


def _loads(weights: Floats, even: NDArray[np.bool_], reach: tuple[int, int]) -> Floats:
    """Return the most that a tile beginning in each cell can hold, wherever in the cell it begins.

    What it holds of cells that are all tissue changes in proportion as it moves from one cell to
    the next, so the most is at one of the four corners. Of a cell that is tissue in part it may
    hold all.
    """
    down, across = reach
    corners = _sums(np.where(even, weights, 0.0), (down - 1, across - 1))
    most = np.maximum(corners[:-1], corners[1:])
    most = np.maximum(most[:, :-1], most[:, 1:])
    return most + _sums(np.where(even, 0.0, weights), reach)


def _sums(values: Floats, side: tuple[int, int]) -> Floats:
    """Return the sums of all windows of some cells."""
    down, across = side
    table = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
    np.cumsum(values, axis=0, out=table[1:, 1:])
    np.cumsum(table[1:, 1:], axis=1, out=table[1:, 1:])
    return (
        table[down:, across:]
        - table[:-down, across:]
        - table[down:, :-across]
        + table[:-down, :-across]
    )


def _fullest(loads: Floats, reach: tuple[int, int], shape: tuple[int, ...]) -> Floats:
    """Return of every cell the fullest of the windows that hold it."""
    from scipy.ndimage import maximum_filter1d

    most = np.pad(loads, [(cells - 1, cells - 1) for cells in reach])
    for axis, cells in enumerate(reach):
        most = maximum_filter1d(most, cells, axis=axis, mode="constant")
    middle = tuple(
        slice(cells // 2, cells // 2 + length) for cells, length in zip(reach, shape, strict=True)
    )
    return most[middle]


def _lightest(weights: Floats, tissue: Floats, covered: int) -> float:
    """Return what the lightest of the tissue pixels weigh, as many as are covered."""
    some = tissue > 0
    own, pixels = weights[some], tissue[some]
    order = np.argsort(own / pixels)
    own, before = own[order], np.cumsum(pixels[order])
    last = min(int(np.searchsorted(before, covered)), own.size - 1)
    over = max(0.0, before[last] - covered)
    return float(own[: last + 1].sum() - own[last] * over / pixels[order][last])
