"""Masks that are read band by band give the same tiles, and are never held whole."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.coordinates import Mpp
from microtome.errors import InvalidInputError
from microtome.image import MultiscaleImage, begin_image
from microtome.tiling import (
    MaskBands,
    MaskTiling,
    best_mask_tiling_try_to_stop,
    get_cell_tiles,
    get_grid_tile,
    open_mask,
)
from microtome.tiling._measure import measure_tiles


def in_bands(mask, band):
    return MaskBands(mask.shape, lambda top, bottom: mask[top:bottom], band)


def same(first, second):
    (one, one_stats), (other, other_stats) = first, second
    for name in ("row", "col", "gain", "tissue_frac", "tissue_frac_inside"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one_stats == other_stats


@settings(max_examples=20, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("method", ["cover", "grid", "strips", "fewest"])
def test_bands_of_any_height_give_the_same_tiles(method, data):
    shape = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    size = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    mask = np.random.default_rng(data.draw(st.integers(0, 99))).random(shape) < 0.4
    tiling = MaskTiling(method, size, tolerance=0.9)
    bands = in_bands(mask, data.draw(st.integers(1, 45)))
    same(tiling.choose(mask), tiling.choose(bands))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_tiles_are_measured_pixel_by_pixel(data):
    mask = np.random.default_rng(data.draw(st.integers(0, 99))).random((23, 31)) < 0.5
    count = data.draw(st.integers(0, 8))
    rows = np.array([data.draw(st.integers(-9, 25)) for _ in range(count)], np.int64)
    cols = np.array([data.draw(st.integers(-9, 33)) for _ in range(count)], np.int64)
    found = measure_tiles(in_bands(mask, data.draw(st.integers(1, 30))), rows, cols, (7, 9))
    times = np.zeros(mask.shape, int)
    for number, (row, col) in enumerate(zip(rows, cols, strict=True)):
        window = np.s_[max(row, 0) : max(row + 7, 0), max(col, 0) : max(col + 9, 0)]
        assert found.tissue[number] == mask[window].sum()
        assert found.gain[number] == (mask[window] & (times[window] == 0)).sum()
        times[window] += 1
    assert found.overlap == (mask & (times > 1)).sum()
    assert found.total == mask.sum()


def test_overlap_counts_tissue_and_not_background():
    # SPORA's own overlap_ratio counts the background that tiles share.
    mask = np.zeros((20, 30), bool)
    mask[5:15, 2:28] = True
    tiles, stats = get_grid_tile(mask, 10, 5, tolerance=0.0)
    times = np.zeros(mask.shape, int)
    for tile in tiles:
        times[tile.row : tile.row + 10, tile.col : tile.col + 10] += 1
    assert stats["overlap_valid_pixels"] == ((times > 1) & mask).sum() > 0
    loose, more = get_grid_tile(mask, 10, 5, tolerance=0.9)
    times[:] = 0
    for tile in loose:
        times[tile.row : tile.row + 10, tile.col : tile.col + 10] += 1
    assert ((times > 1) & ~mask[: times.shape[0]]).sum() > 0
    assert more["overlap_valid_pixels"] == ((times > 1) & mask).sum()


def test_what_is_covered_comes_in_bands_too():
    mask = np.random.default_rng(1).random((50, 60)) < 0.3
    expected = best_mask_tiling_try_to_stop(mask, 8, 4, 0.8)
    found = best_mask_tiling_try_to_stop(in_bands(mask, 7), 8, 4, 0.8)
    np.testing.assert_array_equal(found[2], expected[2])


def labels(path, mask):
    with begin_image(
        path,
        dtype=np.uint8,
        shape=mask.shape,
        axes="yx",
        channel_names=None,
        mpp=Mpp(1.0, 1.0, "user"),
        kind="labels",
    ) as image:
        image.level(0)[...] = mask.astype(np.uint8) * 3
        image.build_levels()
    return MultiscaleImage.open(path)


def test_an_image_of_labels_is_a_mask(tmp_path):
    mask = np.random.default_rng(1).random((333, 270)) < 0.3
    image = labels(tmp_path / "m.ome.zarr", mask)
    for method in ("cover", "grid", "fewest"):
        tiling = MaskTiling(method, (32, 32), tolerance=0.9)
        same(tiling.choose(mask), tiling.choose(image))
    cells = [[10.0, 20.0], [200.0, 100.0]]
    same(
        get_cell_tiles(cells, 16, mpp=1.0, mask=mask),
        get_cell_tiles(cells, 16, mpp=1.0, mask=image),
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", ["cover", "grid", "strips", "fewest"])
def test_a_mask_of_a_slide_is_not_held_whole(method):
    # 10^9 pixels that exist only while they are looked at.
    side = 32_000

    def rows(top, bottom):
        y, x = np.ogrid[top:bottom, :side]
        return np.broadcast_to(abs(y - side // 2) < 12_000, (bottom - top, side)) & (
            abs(x - side // 2) < 9_000
        )

    tracemalloc.start()
    tiles, stats = MaskTiling(method, (512, 512)).choose(MaskBands((side, side), rows, 1024))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert stats["total_valid_pixels"] == 23_999 * 17_999
    # Strips take none of the tiles that are less than 15 % tissue.
    assert stats["coverage_ratio"] > 0.95
    assert len(tiles) >= stats["tile_bound"] >= 23_999 * 17_999 * 0.95 / 512**2
    assert peak < 400 << 20
    assert side * side > 2 * (400 << 20)


@pytest.mark.parametrize(
    "mask",
    [np.ones((2, 2)), np.ones((2, 2, 2), bool), np.ones((0, 3), bool), np.array([["a"]])],
    ids=["floats", "three axes", "empty", "words"],
)
def test_what_is_no_mask(mask):
    with pytest.raises(InvalidInputError, match="a tissue mask"):
        open_mask(mask)
