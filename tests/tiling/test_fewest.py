"""The fewest tiles: told as they are, within 1 % of what a solver proves, above a bound that holds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array, eye_array, hstack

from microtome.errors import InvalidInputError
from microtome.tiling import best_mask_tiling_try_to_stop, get_fewest_tiles, get_strip_tiles


def blobs(side, share, seed, smooth=20):
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(side, side)), smooth)
    return field > np.quantile(field, 1 - share)


def times_covered(mask, tiles):
    times = np.zeros(mask.shape, int)
    for tile in tiles:
        times[tile.row : tile.row + tile.height, tile.col : tile.col + tile.width] += 1
    return np.where(mask, times, 0)


def proved_fewest(mask, size, step, goal):
    """The fewest tiles on a lattice that cover so much, proved by a mixed-integer programme."""
    pad = size
    padded = np.pad(
        mask, ((pad, pad + (-mask.shape[0]) % step), (pad, pad + (-mask.shape[1]) % step))
    )
    height, width = (side // step for side in padded.shape)
    cells = padded[: height * step, : width * step].reshape(height, step, width, step)
    cells = cells.sum(axis=(1, 3))
    side = size // step
    number = np.full(cells.shape, -1)
    number[cells > 0] = np.arange(np.count_nonzero(cells))
    windows = np.lib.stride_tricks.sliding_window_view(number, (side, side))
    windows = windows.reshape(-1, side * side)
    windows = windows[(windows >= 0).any(axis=1)]
    tile, place = np.nonzero(windows >= 0)
    tiles, used = len(windows), int(np.count_nonzero(cells))
    holds = coo_array((np.ones(tile.size), (windows[tile, place], tile)), shape=(used, tiles))
    weights = np.concatenate([np.zeros(tiles), cells[cells > 0]])
    found = milp(
        np.concatenate([np.ones(tiles), np.zeros(used)]),
        integrality=np.concatenate([np.ones(tiles), np.zeros(used)]),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(hstack([-holds, eye_array(used)]).tocsr(), ub=0),
            LinearConstraint(weights, lb=goal * mask.sum() - 1e-6),
        ],
        options={"time_limit": 100},
    )
    assert found.status == 0, found.message
    return round(found.fun)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_statistics_are_those_of_the_tiles(data):
    shape = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    size = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    stride = data.draw(st.none() | st.tuples(*(st.integers(1, side) for side in size)))
    goal = data.draw(st.sampled_from([0.5, 0.9, 0.99, 1.0]))
    tolerance = data.draw(st.sampled_from([0.0, 0.5, 0.85, 0.999]))
    least = data.draw(st.sampled_from([0.0, 0.2]))
    mask = np.random.default_rng(data.draw(st.integers(0, 99))).random(shape) < data.draw(
        st.sampled_from([0.0, 0.1, 0.6, 1.0])
    )
    tiles, stats = get_fewest_tiles(mask, size, stride, tolerance, goal, least, moves=300)
    times = times_covered(mask, tiles)
    covered = np.count_nonzero(times)
    assert stats["num_tiles"] == len(tiles)
    assert stats["covered_valid_pixels"] == covered == tiles.gain.sum()
    assert stats["overlap_valid_pixels"] == np.count_nonzero(times > 1)
    assert stats["total_valid_pixels"] == mask.sum()
    assert stats["tile_bound"] <= len(tiles)
    reached = covered >= goal * mask.sum() - 1e-9
    expected = ("coverage_goal" if reached else "adaptive_stop") if mask.any() else "empty_mask"
    assert stats["stop_reason"] == expected
    height, width = size
    for number, tile in enumerate(tiles):
        inside = mask[tile.row : tile.row + height, tile.col : tile.col + width]
        assert tile.tissue_frac == pytest.approx(inside.sum() / (height * width), abs=1e-6)
        assert tiles.tissue_frac_inside[number] == pytest.approx(inside.mean(), abs=1e-6)
        assert inside.sum() >= max(1, (1 - tolerance) * height * width - 1e-9)
        assert 0 <= tile.row <= max(0, shape[0] - height)
        assert 0 <= tile.col <= max(0, shape[1] - width)
    places = [(tile.row, tile.col) for tile in tiles]
    assert places == sorted(set(places))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 999),
    size=st.integers(1, 4),
    goal=st.sampled_from([0.6, 0.9, 1.0]),
    share=st.sampled_from([0.2, 0.5, 1.0]),
)
def test_the_bound_holds_for_tiles_anywhere(seed, size, goal, share):
    mask = np.random.default_rng(seed).random((9, 8)) < share
    tiles, stats = get_fewest_tiles(mask, size, None, 0.999, goal, moves=500)
    # The bound is of what was covered; the solver may place its tiles at any pixel.
    reached = stats["covered_valid_pixels"] / max(1, mask.sum())
    fewest = proved_fewest(mask, size, 1, reached) if mask.any() else 0
    assert stats["tile_bound"] <= fewest <= len(tiles)


@pytest.mark.parametrize("stride", [2, 4])
def test_the_bound_of_coarse_cells_holds_for_tiles_between_them(stride):
    from microtome.tiling._bound import least_tiles

    mask = blobs(32, 0.4, stride, smooth=3)
    cells = mask.reshape(32 // stride, stride, 32 // stride, stride).sum(axis=(1, 3))
    bound = least_tiles(cells, (stride, stride), (8, 8), int(mask.sum()))
    assert 0 < bound <= proved_fewest(mask, 8, 1, 1.0)


def test_the_bound_of_thin_tissue_is_above_its_area():
    mask = np.zeros((200, 900), bool)
    mask[100:105] = True
    tiles, stats = get_fewest_tiles(mask, 100, tolerance=0.999, coverage_goal=1.0)
    assert len(tiles) == stats["tile_bound"] == 9
    assert -(-mask.sum() // 100**2) == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("parts", [2, 4])
def test_within_a_percent_of_what_a_solver_proves(seed, parts):
    mask = blobs(1120, 0.35, seed, smooth=60)
    fewest = proved_fewest(mask, 112, 112 // parts, 0.99)
    tiles, stats = get_fewest_tiles(mask, 112, None, 0.999, 0.99)
    assert stats["coverage_ratio"] >= 0.99
    assert len(tiles) <= fewest * 1.01


@pytest.mark.parametrize("share", [0.2, 0.35, 0.6])
def test_fewer_than_strips_and_half_as_far_from_the_bound_as_greedy(share):
    mask = np.kron(blobs(250, share, 7, smooth=18), np.ones((8, 8), bool))
    fewest, stats = get_fewest_tiles(mask, 112, None, 0.999, 0.99)
    strips, _ = get_strip_tiles(mask, 112, None, 0.999, 0.99)
    greedy, _, _ = best_mask_tiling_try_to_stop(mask, 112, 56, 0.999, 0.99, 0.0)
    area = 0.99 * mask.sum() / 112**2
    assert stats["coverage_ratio"] >= 0.99
    assert len(fewest) <= len(strips)
    assert len(fewest) - area <= (len(greedy) - area) * 0.6
    assert stats["tile_bound"] >= area


def test_what_is_not_worth_taking_is_left_out():
    mask = np.zeros((100, 100), bool)
    mask[10:50, 10:50] = True
    mask[90:92, 90:92] = True
    tiles, stats = get_fewest_tiles(mask, 20, 1, 0.999, 1.0, min_gain_ratio=0.1)
    assert (len(tiles), stats["stop_reason"]) == (4, "adaptive_stop")
    tiles, stats = get_fewest_tiles(mask, 20, 1, 0.999, 1.0)
    assert (len(tiles), stats["coverage_ratio"]) == (5, 1.0)


def test_the_same_every_time():
    mask = blobs(300, 0.4, 3)
    first, _ = get_fewest_tiles(mask, 32)
    again, _ = get_fewest_tiles(mask, 32)
    np.testing.assert_array_equal(first.row, again.row)
    np.testing.assert_array_equal(first.col, again.col)


def test_any_tile_size_has_a_default_stride():
    mask = blobs(200, 0.5, 1)
    for size in (1, 2, 7, 31, 97, (40, 23), 250):
        tiles, stats = get_fewest_tiles(mask, size, None, 0.9999, 0.9, moves=200)
        assert stats["coverage_ratio"] >= 0.9
        assert stats["tile_bound"] <= len(tiles)


@pytest.mark.parametrize(
    "options",
    [
        {"tile_size": 0},
        {"stride": 0},
        {"stride": 4},
        {"tolerance": 1.0},
        {"coverage_goal": 0},
        {"coverage_goal": 1.1},
        {"min_gain_ratio": 1.0},
        {"moves": -1},
        {"mask": np.zeros((2, 2, 2), bool)},
        {"mask": np.zeros((2, 2))},
    ],
    ids=str,
)
def test_bad_input(options):
    with pytest.raises(InvalidInputError):
        get_fewest_tiles(**{"mask": np.ones((9, 9), bool), "tile_size": 3, **options})
