"""Choosing tiles on a mask, against the rule carried out pixel by pixel."""

import json
import logging
from fractions import Fraction
from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from microtome.errors import InvalidInputError, OutOfRangeError, StorageError
from microtome.tiling import (
    Tile,
    best_mask_tiling_try_to_stop,
    get_grid_tile,
    tile_stats_table,
    write_tile_stats,
)

masks = hnp.arrays(np.bool_, st.tuples(st.integers(1, 17), st.integers(1, 17)))
sides = st.one_of(st.integers(1, 8), st.tuples(st.integers(1, 8), st.integers(1, 8)))
shares = st.sampled_from([0.0, 0.05, 0.2, 0.5, 0.7, 0.85, 0.95])


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def tissue_in(mask, row, col, size):
    return int(mask[row : row + size[0], col : col + size[1]].sum())


def greedy_by_hand(mask, size, stride, tolerance, goal, ratio, most, overlap):
    """The published rule, recounting every candidate from the pixels at every step."""
    area = size[0] * size[1]
    starts = []
    for length, side, step in zip(mask.shape, size, stride, strict=True):
        last = max(length - side, 0)
        starts.append(sorted({*range(0, last + 1, step), last}))
    least = (1 - Fraction(str(tolerance))) * area
    candidates = [
        (row, col)
        for row in starts[0]
        for col in starts[1]
        if (count := tissue_in(mask, row, col, size)) > 0 and count >= least
    ]
    number = len(candidates)
    uncovered, total, tiles = mask.copy(), int(mask.sum()), []
    while True:
        covered = total - int(uncovered.sum())
        if total == 0:
            reason = "empty_mask"
            break
        if ratio == 0 and covered >= Fraction(str(goal)) * total:
            reason = "coverage_goal"
            break
        if not candidates:
            reason = "candidates_exhausted"
            break
        gains = [tissue_in(uncovered, row, col, size) for row, col in candidates]
        best = max(gains)
        if best == 0:
            reason = "no_gain"
            break
        met = goal >= 1 or covered >= Fraction(str(goal)) * total
        if ratio > 0 and met and best < ceil(Fraction(str(ratio)) * area):
            reason = "adaptive_stop"
            break
        if most is not None and len(tiles) == most:
            reason = "max_tiles"
            break
        row, col = candidates.pop(gains.index(best))
        tiles.append((row, col, best, tissue_in(mask, row, col, size) / area))
        uncovered[row : row + size[0], col : col + size[1]] = False
        if not overlap:
            candidates = [
                other
                for other in candidates
                if abs(other[0] - row) >= size[0] or abs(other[1] - col) >= size[1]
            ]
    return tiles, reason, number, mask & ~uncovered


@given(
    mask=masks,
    size=sides,
    stride=st.one_of(st.none(), sides),
    tolerance=shares,
    goal=st.sampled_from([0.3, 0.5, 0.9, 0.99, 1.0]),
    ratio=shares,
    most=st.one_of(st.none(), st.integers(1, 4)),
    overlap=st.booleans(),
)
def test_greedy_is_the_rule_carried_out_by_hand(
    mask, size, stride, tolerance, goal, ratio, most, overlap
):
    tiles, stats, covered = best_mask_tiling_try_to_stop(
        mask, size, stride, tolerance, goal, ratio, most, overlap
    )
    expected, reason, number, expected_covered = greedy_by_hand(
        mask, pair(size), pair(stride or size), tolerance, goal, ratio, most, overlap
    )
    assert [(t.row, t.col, t.gain) for t in tiles] == [t[:3] for t in expected]
    assert [t.tissue_frac for t in tiles] == pytest.approx([t[3] for t in expected])
    assert stats["stop_reason"] == reason
    assert stats["candidate_count"] == number
    np.testing.assert_array_equal(covered, expected_covered)
    assert stats["covered_valid_pixels"] == expected_covered.sum()
    total = mask.sum()
    assert stats["coverage_ratio"] == (expected_covered.sum() / total if total else 1.0)


@given(mask=masks, size=sides, stride=st.one_of(st.none(), sides), tolerance=shares)
def test_grid_is_the_lattice_walked_by_hand(mask, size, stride, tolerance):
    (height, width), (down, across) = pair(size), pair(stride or size)
    padded_shape = [
        side if length <= side else ceil((length - side) / step) * step + side
        for length, side, step in zip(mask.shape, (height, width), (down, across), strict=True)
    ]
    padded = np.zeros(padded_shape, bool)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    uncovered, expected, number = padded.copy(), [], 0
    for row in range(0, padded_shape[0] - height + 1, down):
        for col in range(0, padded_shape[1] - width + 1, across):
            number += 1
            count = tissue_in(padded, row, col, (height, width))
            if count and count >= (1 - Fraction(str(tolerance))) * height * width:
                gain = tissue_in(uncovered, row, col, (height, width))
                uncovered[row : row + height, col : col + width] = False
                expected.append((row, col, height, width, gain))

    tiles, stats = get_grid_tile(mask, size, stride, tolerance)

    assert [(t.row, t.col, t.height, t.width, t.gain) for t in tiles] == expected
    assert stats["grid_candidate_count"] == number
    assert (stats["padded_height"], stats["padded_width"]) == tuple(padded_shape)
    assert stats["num_tiles"] == stats["candidate_count"] == len(expected)
    assert stats["covered_valid_pixels"] == (padded & ~uncovered).sum()
    assert stats["stop_reason"] == "fixed_grid_complete"


def test_a_share_means_the_decimal_that_is_written():
    # 1 - 0.85 is 0.15000000000000002: comparing floats would drop a tile of exactly 15 %.
    mask = np.zeros((20, 20), bool)
    mask[0, :] = True
    mask[1:3, :] = True
    assert mask.sum() == 60
    tiles, _ = get_grid_tile(mask, 20, tolerance=0.85)
    assert len(tiles) == 1
    assert len(get_grid_tile(mask, 20, tolerance=0.84)[0]) == 0


def test_no_gain_ratio_stops_exactly_at_the_goal():
    mask = np.ones((40, 40), bool)
    tiles, stats, _ = best_mask_tiling_try_to_stop(mask, 10, coverage_goal=0.5, min_gain_ratio=0)
    assert len(tiles) == 8
    assert stats["coverage_ratio"] == 0.5
    assert stats["stop_reason"] == "coverage_goal"


def test_a_goal_of_one_leaves_the_gain_to_decide():
    mask = np.zeros((10, 25), bool)
    mask[:, :21] = True
    tiles, stats, _ = best_mask_tiling_try_to_stop(
        mask, 10, stride=5, tolerance=0.95, coverage_goal=1.0, min_gain_ratio=0.2
    )
    assert [tile.col for tile in tiles] == [0, 10]
    assert stats["stop_reason"] == "adaptive_stop"
    assert stats["coverage_ratio"] == 200 / 210


def test_every_tile_lies_inside_a_mask_that_is_large_enough():
    mask = np.ones((101, 77), bool)
    tiles, stats, covered = best_mask_tiling_try_to_stop(mask, 32, coverage_goal=1.0)
    assert max(tile.row + tile.height for tile in tiles) == 101
    assert max(tile.col + tile.width for tile in tiles) == 77
    assert stats["coverage_ratio"] == 1.0
    assert covered.all()


def test_a_mask_of_integers_is_read_as_tissue_where_it_is_not_zero():
    labels = np.array([[0, 3], [7, 0]], np.uint16)
    tiles, _ = get_grid_tile(labels, 1, tolerance=0)
    assert [(tile.row, tile.col) for tile in tiles] == [(0, 1), (1, 0)]


def test_statistics_have_the_columns_of_spora_datasets():
    mask = np.ones((10, 10), bool)
    _, stats, _ = best_mask_tiling_try_to_stop(mask, 4)
    assert list(stats) == [
        "mask_height",
        "mask_width",
        "tissue_mask_frac",
        "num_tiles",
        "coverage_ratio",
        "covered_valid_pixels",
        "total_valid_pixels",
        "candidate_count",
        "stop_reason",
        "tile_size",
        "stride",
        "tolerance",
        "coverage_goal",
        "min_gain_ratio",
        "tiling_method",
        "overlap_valid_pixels",
        "tile_bound",
    ]
    assert stats["tile_size"] == stats["stride"] == 4
    _, grid = get_grid_tile(mask, (4, 6))
    assert set(grid) - set(stats) == {"grid_candidate_count", "padded_height", "padded_width"}
    assert grid["tile_size"] == "4x6"
    assert grid["coverage_goal"] is None


def test_statistics_table_is_indexed_by_tissue(tmp_path):
    import pyarrow.parquet as pq

    mask = np.ones((10, 10), bool)
    stats = {"b": best_mask_tiling_try_to_stop(mask, 4)[1], "a": get_grid_tile(mask, 4)[1]}
    table = tile_stats_table(stats)
    assert table["tissue_id"].to_pylist() == ["b", "a"]
    assert table["stop_reason"].to_pylist() == ["candidates_exhausted", "fixed_grid_complete"]
    assert table["coverage_goal"].to_pylist() == [0.99, None]
    assert table["padded_height"].to_pylist() == [None, 12]
    path = tmp_path / "4_tile_stats.parquet"
    write_tile_stats(path, stats)
    written = pq.read_table(path)
    assert written.equals(table)
    note = json.loads(written.schema.metadata[b"pandas"])
    assert note["index_columns"] == ["tissue_id"]
    assert [column["name"] for column in note["columns"]] == table.column_names
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_statistics_table_of_rectangles_and_of_nothing():
    stats = get_grid_tile(np.ones((9, 9), bool), (4, 6))[1]
    assert tile_stats_table({"t": stats})["tile_size"].to_pylist() == ["4x6"]
    empty = tile_stats_table({})
    assert empty.num_rows == 0
    assert "stop_reason" in empty.column_names


def test_a_table_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"cannot write .*4_tile_stats"):
        write_tile_stats(tmp_path / "file" / "4_tile_stats.parquet", {})


def test_progress_counts_covered_tissue(caplog):
    mask = np.ones((8, 8), bool)
    calls = []
    best_mask_tiling_try_to_stop(mask, 4, progress=lambda *call: calls.append(call))
    assert calls == [("tiling", 16 * n, 64) for n in (1, 2, 3, 4)]
    with caplog.at_level(logging.INFO, logger="microtome"):
        best_mask_tiling_try_to_stop(mask, 4, progress=True)
    assert "4 tiles cover 100.0 %" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": np.ones((2, 2, 2), bool)}, r"shape \(2, 2, 2\)"),
        ({"mask": np.ones((0, 5), bool)}, r"shape \(0, 5\)"),
        ({"mask": np.ones((5, 5))}, "float64"),
        ({"tile_size": 0}, "tile_size must be at least 1"),
        ({"tile_size": 2.5}, "tile_size must be integers"),
        ({"tile_size": (2, 3, 4)}, "tile_size must be one integer"),
        ({"stride": -1}, "stride must be at least 1"),
        ({"tolerance": 1.0}, "tolerance"),
        ({"tolerance": float("nan")}, "tolerance"),
        ({"coverage_goal": 0.0}, "coverage_goal"),
        ({"coverage_goal": 1.5}, "coverage_goal"),
        ({"min_gain_ratio": 1.0}, "min_gain_ratio"),
        ({"max_tiles": 0}, "max_tiles"),
    ],
)
def test_wrong_arguments_are_refused(changes, message):
    arguments = {"mask": np.ones((8, 8), bool), "tile_size": 4} | changes
    with pytest.raises(InvalidInputError, match=message):
        best_mask_tiling_try_to_stop(**arguments)


def test_a_selection_is_a_list_of_tiles():
    tiles, _ = get_grid_tile(np.ones((6, 4), bool), (3, 4))
    assert tiles[0] == Tile(0, 0, 3, 4, 1.0, 12)
    assert tiles[-1] == Tile(3, 0, 3, 4, 1.0, 12)
    assert list(tiles[1:]) == [tiles[1]]
    assert tiles.row.dtype == tiles.col.dtype == tiles.gain.dtype == np.int64
    with pytest.raises(OutOfRangeError, match="tile 2 of 2"):
        tiles[2]


def test_a_tile_is_clipped_to_the_image():
    assert Tile(-2, 3, 5, 5).clip((10, 6)) == Tile(0, 3, 3, 3)
    assert Tile(10, 0, 5, 5).clip((10, 6)) is None
    with pytest.raises(InvalidInputError, match="0x3"):
        Tile(0, 0, 0, 3)


@pytest.mark.parametrize("stride", [112, 56, 100])
def test_a_large_mask_is_covered_as_the_summed_area_table_says(stride):
    """Realistic size and an irregular outline; the reference recounts with a full-size table."""
    from scipy import ndimage

    rng = np.random.default_rng(3)
    field = ndimage.zoom(rng.standard_normal((12, 15)), 80, order=3)
    mask = field > 0.3
    tiles, stats, _ = best_mask_tiling_try_to_stop(mask, 224, stride, 0.85, 1.0, 0.05)
    uncovered = mask.copy()
    starts = [sorted({*range(0, n - 224 + 1, stride), n - 224}) for n in mask.shape]

    def counts(array):
        table = np.pad(array.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        row, col = np.array(starts[0])[:, None], np.array(starts[1])
        far = table[row + 224, col + 224] - table[row, col + 224]
        return far - table[row + 224, col] + table[row, col]

    allowed = counts(mask) >= 0.15 * 224 * 224
    assert stats["candidate_count"] == allowed.sum()
    for tile in tiles:
        gains = np.where(allowed, counts(uncovered), -1)
        row, col = np.unravel_index(gains.argmax(), gains.shape)
        assert (tile.row, tile.col) == (starts[0][row], starts[1][col])
        assert tile.gain == gains.max()
        uncovered[tile.row : tile.row + 224, tile.col : tile.col + 224] = False
        allowed[row, col] = False
    assert np.where(allowed, counts(uncovered), -1).max() < ceil(0.05 * 224 * 224)
