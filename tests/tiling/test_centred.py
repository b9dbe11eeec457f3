"""Tiles around cells and tiles where chunks begin, against the pixels themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.errors import InvalidInputError
from microtome.tiling import MaskTiling, chunks_touched, get_cell_tiles


def disc(height, width):
    y, x = np.ogrid[:height, :width]
    return (y - height / 2) ** 2 + (x - width / 2) ** 2 < (0.4 * min(height, width)) ** 2


@given(data=st.data())
def test_a_tile_is_centred_on_its_cell(data):
    shape = data.draw(st.tuples(st.integers(5, 40), st.integers(5, 40)))
    size = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    mpp = data.draw(st.sampled_from([0.25, 0.5, 1.0, (0.5, 0.7)]))
    edge = data.draw(st.sampled_from(["overhang", "move", "drop"]))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    mask = rng.random(shape) < 0.5
    pixels = rng.random((data.draw(st.integers(0, 9)), 2)) * shape
    ids = rng.permutation(len(pixels)) + 100
    tiles, stats = get_cell_tiles(pixels * mpp, size, mpp=mpp, mask=mask, cell_ids=ids, edge=edge)
    assert stats["candidate_count"] == len(pixels)
    assert stats["num_tiles"] + stats["tiles_outside"] == len(pixels)
    assert [i for i in ids if i in tiles.cell_id] == tiles.cell_id.tolist()
    at = dict(zip(ids.tolist(), pixels, strict=True))
    uncovered, times = mask.copy(), np.zeros(shape, int)
    for tile, cell, inside in zip(tiles, tiles.cell_id, tiles.tissue_frac_inside, strict=True):
        whole = tile.clip(shape)
        middle = np.array([tile.row + tile.height / 2, tile.col + tile.width / 2])
        off = np.abs(middle - at[int(cell)])
        if edge == "move" and min(tile.row, tile.col) >= 0:
            room = np.maximum(np.array(shape) - size, 0)
            assert (np.array([tile.row, tile.col]) <= room).all()
        else:
            assert (off <= 0.5 + 1e-9).all()
        if edge == "drop":
            assert (whole.height, whole.width) == (tile.height, tile.width)
        window = np.s_[whole.row : whole.row + whole.height, whole.col : whole.col + whole.width]
        assert tile.tissue_frac == pytest.approx(mask[window].sum() / tile.height / tile.width)
        assert inside == pytest.approx(mask[window].mean())
        assert tile.gain == uncovered[window].sum()
        uncovered[window] = False
        times[window] += 1
    assert stats["overlap_valid_pixels"] == (mask & (times > 1)).sum()
    assert stats["covered_valid_pixels"] == (mask & (times > 0)).sum()


def test_every_cell_with_room_keeps_its_tile():
    mask = np.ones((20, 20), bool)
    cells = [[10, 10], [2, 10], [10, 18.5]]
    for edge, rows, cols in (
        ("overhang", [6, -2, 6], [6, 6, 15]),
        ("move", [6, 0, 6], [6, 6, 12]),
        ("drop", [6], [6]),
    ):
        tiles, stats = get_cell_tiles(cells, 8, mpp=1.0, mask=mask, edge=edge)
        assert (tiles.row.tolist(), tiles.col.tolist()) == (rows, cols)
        assert stats["tiles_outside"] == 3 - len(rows)


def test_cells_on_too_little_tissue_may_be_left_out():
    mask = np.zeros((40, 40), bool)
    mask[:20] = True
    cells = [[10, 20], [20, 20], [35, 20]]
    everything, _ = get_cell_tiles(cells, 10, mpp=1.0, mask=mask)
    some, _ = get_cell_tiles(cells, 10, mpp=1.0, mask=mask, tolerance=0.5)
    assert everything.tissue_frac.tolist() == [1.0, 0.5, 0.0]
    assert some.cell_id.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"centroids": [[1.0, 1.0], [1.0, 50.0]]}, "cell 8 lies at y 1, x 50 um, outside"),
        ({"centroids": [[-1.0, 1.0]], "cell_ids": [7]}, "cell 7 lies"),
        ({"centroids": [[np.nan, 1.0]], "cell_ids": [7]}, "cell 7 has no centroid"),
        ({"centroids": [1.0, 2.0]}, r"shape \(n, 2\)"),
        ({"centroids": [["a", "b"]], "cell_ids": [7]}, "centroids must be numbers"),
        ({"cell_ids": [1, 2, 3]}, "2 centroids, but cell_ids"),
        ({"cell_ids": [1.5, 2.5]}, "cell_ids must be integers"),
        ({"mpp": 0.0}, "mpp must be above 0"),
        ({"edge": "crop"}, "edge must be one of overhang, move, drop"),
        ({"tile_size": 0}, "tile_size"),
        ({"tolerance": 1.0}, "tolerance"),
        ({"mask": np.ones((4, 4))}, "bools or integers"),
    ],
    ids=str,
)
def test_bad_cells(options, words):
    given_options = {
        "centroids": [[1.0, 1.0], [2.0, 3.0]],
        "tile_size": 4,
        "mpp": 1.0,
        "mask": np.ones((20, 30), bool),
        "cell_ids": [4, 8],
        **options,
    }
    with pytest.raises(InvalidInputError, match=words):
        get_cell_tiles(**given_options)


# -- where chunks begin


def chunks_of(tile, shape, chunk):
    """Chunks that a tile touches, by asking every pixel."""
    return {
        (row // chunk[0], col // chunk[1])
        for row in range(max(tile.row, 0), min(tile.row + tile.height, shape[0]))
        for col in range(max(tile.col, 0), min(tile.col + tile.width, shape[1]))
    }


@pytest.mark.parametrize("method", ["cover", "grid", "strips", "fewest"])
@pytest.mark.parametrize("size", [(16, 16), (32, 16), (24, 20), (12, 6)], ids=str)
def test_aligned_tiles_decode_few_chunks(method, size):
    chunk, mask = (8, 8) if min(size) >= 8 else (16, 16), disc(100, 90)
    options = {"tolerance": 0.99, "coverage_goal": 0.95, "min_gain_ratio": 0.0}
    if method in {"strips", "fewest"} and (size[0] % chunk[0] or size[1] % chunk[1]):
        with pytest.raises(InvalidInputError, match="no whole number of chunks"):
            MaskTiling(method, size, align=chunk, **options)
        return
    tiles, stats = MaskTiling(method, size, align=chunk, **options).choose(mask)
    assert stats["coverage_ratio"] >= 0.95
    touched = [len(chunks_of(tile, mask.shape, chunk)) for tile in tiles]
    assert chunks_touched(tiles.row, tiles.col, size, mask.shape, chunk) == sum(touched)
    inside = [
        tile.row + tile.height < mask.shape[0] and tile.col + tile.width < mask.shape[1]
        for tile in tiles
    ]
    least = -(-size[0] // chunk[0]) * -(-size[1] // chunk[1])
    assert {n for n, within in zip(touched, inside, strict=True) if within} == {least}
    if min(size) >= 8:
        for tile, within in zip(tiles, inside, strict=True):
            assert not within or (tile.row % 8, tile.col % 8) == (0, 0)


def test_an_aligned_grid_covers_everything():
    mask = np.ones((70, 53), bool)
    for size, chunk in (((16, 16), (8, 8)), ((6, 6), (16, 16)), ((24, 20), (8, 8))):
        tiles, stats = MaskTiling("grid", size, tolerance=0.999, align=chunk).choose(mask)
        assert stats["coverage_ratio"] == 1
        assert len({(tile.row, tile.col) for tile in tiles}) == len(tiles)


def test_alignment_that_says_nothing():
    with pytest.raises(InvalidInputError, match="leave out the stride"):
        MaskTiling("grid", (16, 16), (8, 8), align=(8, 8))
    with pytest.raises(InvalidInputError, match="align must be at least 1"):
        MaskTiling("grid", (16, 16), align=(0, 8))
    with pytest.raises(InvalidInputError, match="method must be one of"):
        MaskTiling("best", (16, 16))
