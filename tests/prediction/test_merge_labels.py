"""`merge_labels`: what tiles cut is one again, what only touches a little is not."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import skimage.measure
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.errors import ExistsError, InvalidInputError, NoResolutionError
from microtome.prediction import merge_labels
from microtome.sources import open_image
from microtome.tiling import plan_tiles


def blobs(shape, seed=0, density=0.5, smooth=1):
    noise = scipy.ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), smooth)
    return noise <= np.quantile(noise, density)


def cut(pixels, tile, seed=0):
    """Label every tile by itself, with numbers that other tiles use too."""
    rng = np.random.default_rng(seed)
    made = np.zeros(pixels.shape, np.uint16)
    for corner in np.ndindex(*(-(-n // t) for n, t in zip(pixels.shape, tile, strict=True))):
        window = tuple(slice(c * t, (c + 1) * t) for c, t in zip(corner, tile, strict=True))
        found = skimage.measure.label(pixels[window], connectivity=1)
        made[window] = np.concatenate([[0], 1 + rng.permutation(4000)])[found]
    return made


def labels_of(array, axes="yx", mpp=0.5):
    return open_image(array, axes=axes, mpp=mpp)


@settings(max_examples=25)
@given(
    shape=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    tile=st.tuples(st.integers(5, 50), st.integers(5, 50)),
    density=st.sampled_from([0.2, 0.5, 0.6]),
    seed=st.integers(0, 2**32 - 1),
)
def test_all_that_touches_is_what_is_connected(tmp_path_factory, shape, tile, density, seed):
    pixels = blobs(shape, seed, density)
    out = tmp_path_factory.mktemp("merged") / "o"
    made = merge_labels(labels_of(cut(pixels, tile, seed)), out, tile_size=tile, min_share=1e-9)
    whole = skimage.measure.label(pixels, connectivity=1)
    np.testing.assert_array_equal(made.level(0)[...], whole)


@pytest.mark.parametrize("tile", [(3, 16, 20), (5, 40, 9)])
def test_planes_and_time_points(tmp_path, tile):
    frames = [blobs((5, 40, 30), seed) for seed in (0, 1)]
    array = np.stack([cut(frame, tile) for frame in frames])
    made = merge_labels(labels_of(array, "tzyx"), tmp_path / "o", tile_size=tile, min_share=1e-9)
    wholes = [skimage.measure.label(frame, connectivity=1) for frame in frames]
    np.testing.assert_array_equal(made.level(0)[0], wholes[0])
    top = wholes[0].max()
    np.testing.assert_array_equal(made.level(0)[1], np.where(wholes[1], wholes[1] + top, 0))


def test_what_touches_less_than_its_share_stays_apart(tmp_path):
    labels = np.zeros((8, 12), np.int32)
    labels[0:4, 4:6] = 7  # four rows at the seam, and on its other side:
    labels[0:4, 6:8] = 7  # all four of them,
    labels[4:8, 4:6] = 3
    labels[7, 6:8] = 9  # one of four, which is all of its own
    labels[4:7, 8:9] = 5
    array = labels_of(labels)
    made = merge_labels(array, tmp_path / "half", tile_size=(8, 6))
    assert made.level(0)[0, 4] == made.level(0)[0, 7]
    assert made.level(0)[7, 5] == made.level(0)[7, 6]
    tall = np.zeros((8, 12), np.int32)
    tall[0:4, 4:6], tall[3:8, 6:8] = 1, 1
    apart = merge_labels(labels_of(tall), tmp_path / "tall", tile_size=(8, 6))
    assert len(np.unique(apart.level(0)[...])) == 3  # one of four rows is less than half
    joined = merge_labels(labels_of(tall), tmp_path / "quarter", tile_size=(8, 6), min_share=0.25)
    assert len(np.unique(joined.level(0)[...])) == 2


def test_the_seams_may_be_those_of_a_plan(tmp_path):
    pixels = blobs((90, 70))
    plan = plan_tiles(pixels.shape, 32, 7)
    array = np.zeros(pixels.shape, np.uint16)
    for start, size in zip(plan.stitch, plan.crop_size, strict=True):
        window = tuple(slice(a, a + s) for a, s in zip(start, size, strict=True))
        array[window] = skimage.measure.label(pixels[window], connectivity=1)
    made = merge_labels(labels_of(array), tmp_path / "o", tile_size=plan, min_share=1e-9)
    whole = skimage.measure.label(pixels, connectivity=1)
    np.testing.assert_array_equal(made.level(0)[...], whole)
    assert made.metadata["microtome"]["prediction"]["tile_size"] == plan.crop_size.max(0).tolist()


def test_what_is_no_labels_is_refused(tmp_path):
    labels = np.ones((20, 20), np.int16)
    for given_, told in (
        (labels_of(labels.astype(np.float32)), "labels are integers"),
        (labels_of(np.stack([labels, labels]), "cyx"), "without channels"),
        (labels_of(-labels), "got -1"),
    ):
        with pytest.raises(InvalidInputError, match=told):
            merge_labels(given_, tmp_path / "o", tile_size=8)
    with pytest.raises(NoResolutionError):
        merge_labels(open_image(labels, axes="yx"), tmp_path / "o", tile_size=8)
    with pytest.raises(InvalidInputError, match="the plan covers"):
        merge_labels(labels_of(labels), tmp_path / "o", tile_size=plan_tiles((90, 90), 32, 0))
    with pytest.raises(InvalidInputError, match="tile_size"):
        merge_labels(labels_of(labels), tmp_path / "o", tile_size=0)
    assert not list(tmp_path.iterdir())
    merge_labels(labels_of(labels), tmp_path / "o", tile_size=8)
    with pytest.raises(ExistsError):
        merge_labels(labels_of(labels), tmp_path / "o", tile_size=8)
