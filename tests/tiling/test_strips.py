"""Tiles in strips: exact for what is searched, few beside the best there is, and told as they are."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.optimize import Bounds, LinearConstraint, milp

from microtome.errors import InvalidInputError
from microtome.tiling import best_mask_tiling_try_to_stop, get_grid_tile, get_strip_tiles


def blobs(side, share, seed, smooth=20):
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(side, side)), smooth)
    return field > np.quantile(field, 1 - share)


def painted(mask, tiles):
    covered = np.zeros_like(mask)
    for tile in tiles:
        covered[tile.row : tile.row + tile.height, tile.col : tile.col + tile.width] = True
    return covered & mask


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_statistics_are_those_of_the_tiles(data):
    shape = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    size = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    stride = data.draw(st.none() | st.tuples(st.integers(1, 5), st.integers(1, 5)))
    goal = data.draw(st.sampled_from([0.5, 0.9, 0.99, 1.0]))
    tolerance = data.draw(st.sampled_from([0.0, 0.5, 0.85, 0.999]))
    mask = np.random.default_rng(data.draw(st.integers(0, 99))).random(shape) < data.draw(
        st.sampled_from([0.0, 0.1, 0.6, 1.0])
    )
    tiles, stats = get_strip_tiles(mask, size, stride, tolerance, goal)
    covered = painted(mask, tiles)
    assert stats["num_tiles"] == len(tiles)
    assert stats["covered_valid_pixels"] == covered.sum() == tiles.gain.sum()
    assert stats["total_valid_pixels"] == mask.sum()
    assert stats["tile_bound"] <= len(tiles)
    reached = covered.sum() >= goal * mask.sum() - 1e-9
    expected = ("coverage_goal" if reached else "adaptive_stop") if mask.any() else "empty_mask"
    assert stats["stop_reason"] == expected
    height, width = size
    for tile in tiles:
        inside = mask[tile.row : tile.row + height, tile.col : tile.col + width]
        assert tile.tissue_frac == pytest.approx(inside.sum() / (height * width), abs=1e-6)
        # What a moved tile lost by hanging over, it has at least.
        assert inside.sum() >= max(1, (1 - tolerance) * height * width - 1e-9)
        assert 0 <= tile.row <= max(0, shape[0] - height)
        assert 0 <= tile.col <= max(0, shape[1] - width)
    places = [(tile.row, tile.col) for tile in tiles]
    assert places == sorted(places)
    assert len(set(places)) == len(places)


def best_in_strips(mask, size, price):
    """The most that disjoint tiles in disjoint rows of tiles can be worth, by trying all rows."""
    padded = np.pad(mask, size)

    def row_value(top):
        band = padded[top : top + size].sum(axis=0)
        value = [0.0] * (padded.shape[1] + 1)
        for end in range(1, padded.shape[1] + 1):
            value[end] = value[end - 1]
            if end >= size:
                value[end] = max(
                    value[end], value[end - size] + band[end - size : end].sum() - price
                )
        return value[-1]

    total = [0.0] * (padded.shape[0] + 1)
    for end in range(1, padded.shape[0] + 1):
        total[end] = total[end - 1]
        if end >= size:
            total[end] = max(total[end], total[end - size] + row_value(end - size))
    return total[-1]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999),
    height=st.integers(2, 14),
    width=st.integers(2, 14),
    size=st.integers(1, 5),
    price=st.sampled_from([0.25, 1.5, 3.25, 7.75]),
)
def test_the_best_strips_at_a_price_are_found(seed, height, width, size, price):
    from microtome.tiling._cells import reduce_mask
    from microtome.tiling._mask import open_mask
    from microtome.tiling._strips import _axis, _Strips

    mask = np.random.default_rng(seed).random((height, width)) < 0.6
    grid = reduce_mask(open_mask(mask), _axis(height, size, 1), _axis(width, size, 1))
    found = _Strips.of(grid.rows, grid.cols, grid.candidate_counts()).at(price)
    worth = found.covered - price * len(found)
    assert worth == pytest.approx(best_in_strips(mask, size, price), abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 99), size=st.integers(1, 3), goal=st.sampled_from([0.6, 0.9, 1.0]))
def test_no_fewer_tiles_than_can_be(seed, size, goal):
    mask = np.random.default_rng(seed).random((5, 5)) < 0.5
    tiles, stats = get_strip_tiles(mask, size, 1, 0.999, goal)
    bits = []
    for row, col in product(range(5), range(5)):
        window = np.zeros((5, 5), bool)
        window[row : row + size, col : col + size] = True
        bits.append((window & mask).ravel())
    table = np.array(bits, float)
    fewest = fewest_tiles(table, np.ones(25), goal * mask.sum()) if mask.any() else 0
    assert stats["tile_bound"] <= fewest <= len(tiles)


def fewest_tiles(inside, weights, wanted):
    """The fewest tiles that cover so much, proved by a mixed-integer programme.

    Of cells that each tile holds whole or not at all: (tiles, cells), with the tissue of each.
    """
    tiles, cells = inside.shape
    # A cell is covered where a tile that holds it is taken.
    constraint = np.hstack([-inside.T, np.eye(cells)])
    goal = np.hstack([np.zeros(tiles), weights])
    found = milp(
        np.hstack([np.ones(tiles), np.zeros(cells)]),
        integrality=np.hstack([np.ones(tiles), np.zeros(cells)]),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(constraint, ub=0), LinearConstraint(goal, lb=wanted - 1e-6)],
        options={"time_limit": 60},
    )
    assert found.status == 0, found.message
    return round(found.fun)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_few_tiles_beside_the_best_there_is(seed):
    # The best of all tiles on the lattice of half tiles, which may overlap as they like.
    mask, size, step = blobs(1120, 0.35, seed, smooth=60), 112, 56
    cells = mask.reshape(20, step, 20, step).sum(axis=(1, 3))
    inside = np.zeros((19 * 19, 20, 20))
    for number, (row, col) in enumerate(product(range(19), range(19))):
        inside[number, row : row + 2, col : col + 2] = 1
    used = cells.ravel() > 0
    best = fewest_tiles(inside.reshape(361, 400)[:, used], cells.ravel()[used], 0.99 * mask.sum())
    tiles, stats = get_strip_tiles(mask, size, None, 0.999, 0.99)
    assert stats["coverage_ratio"] >= 0.99
    assert len(tiles) <= best * 1.04


@pytest.mark.parametrize("share", [0.2, 0.35, 0.6])
def test_fewer_tiles_than_greedy_and_grid(share):
    mask = np.kron(blobs(250, share, 7, smooth=18), np.ones((8, 8), bool))
    strips, stats = get_strip_tiles(mask, 112, None, 0.999, 0.99)
    greedy, cover, _ = best_mask_tiling_try_to_stop(mask, 112, 56, 0.999, 0.99, 0.0)
    assert stats["coverage_ratio"] >= 0.99
    assert cover["coverage_ratio"] >= 0.99
    assert len(strips) < len(greedy)
    grid, whole = get_grid_tile(mask, 112, None, 0.999)
    enough = np.searchsorted(np.cumsum(np.sort(grid.gain)[::-1]), 0.99 * mask.sum()) + 1
    assert whole["coverage_ratio"] == 1
    assert len(strips) < enough


def test_what_is_not_worth_taking_is_left_out():
    mask = np.zeros((100, 100), bool)
    mask[10:50, 10:50] = True
    mask[90:92, 90:92] = True
    tiles, stats = get_strip_tiles(mask, 20, 1, 0.999, 1.0, min_gain_ratio=0.1)
    assert len(tiles) == 4
    assert stats["stop_reason"] == "adaptive_stop"
    tiles, stats = get_strip_tiles(mask, 20, 1, 0.999, 1.0)
    assert (len(tiles), stats["coverage_ratio"]) == (5, 1.0)


def test_the_same_every_time():
    mask = blobs(300, 0.4, 3)
    first, _ = get_strip_tiles(mask, 32)
    again, _ = get_strip_tiles(mask, 32)
    np.testing.assert_array_equal(first.row, again.row)
    np.testing.assert_array_equal(first.col, again.col)


@pytest.mark.parametrize(
    "options",
    [
        {"tile_size": 0},
        {"stride": 0},
        {"tolerance": 1.0},
        {"coverage_goal": 0},
        {"coverage_goal": 1.1},
        {"min_gain_ratio": 1.0},
        {"mask": np.zeros((2, 2, 2), bool)},
        {"mask": np.zeros((2, 2))},
    ],
    ids=str,
)
def test_bad_input(options):
    with pytest.raises(InvalidInputError):
        get_strip_tiles(**{"mask": np.ones((9, 9), bool), "tile_size": 3, **options})
