"""`stitch_instances`: the same objects as on the whole image, whatever the order of the tiles."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import skimage.measure
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.errors import InvalidInputError
from microtome.prediction import iter_tile_batches, stitch_instances
from microtome.sources import open_image
from microtome.tiling import plan_tiles


def batches_of(pixels, tile, overlap, model, batch_size=3):
    """The tiles of a picture (Y, X), answered by a model of one tile."""
    plan = plan_tiles(pixels.shape, tile, overlap)
    image = open_image(np.asarray(pixels)[None], axes="cyx", mpp=0.5)
    return [
        batch._replace(data=np.stack([model(tile[0]) for tile in batch.data]))
        for batch in iter_tile_batches(image, plan, batch_size=batch_size)
    ]


def shuffled(batches, seed):
    return [batches[at] for at in np.random.default_rng(seed).permutation(len(batches))]


def own_ids(seed):
    """Label the objects of a tile with numbers that mean nothing elsewhere."""
    rng = np.random.default_rng(seed)

    def model(tile):
        labels = skimage.measure.label(tile, connectivity=1)
        names = np.concatenate([[0], 1 + rng.choice(5000, labels.max(), replace=False)])
        return names[labels].astype(np.uint16)

    return model


@settings(max_examples=50)
@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    tile=st.tuples(st.integers(9, 40), st.integers(9, 40)),
    density=st.sampled_from([0.05, 0.3, 0.5, 0.6, 0.8]),
    smooth=st.sampled_from([0, 1, 3]),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_connected_pixels_are_those_of_the_whole_image(shape, tile, density, smooth, seed, data):
    overlap = tuple(data.draw(st.integers(1, size - 4)) for size in tile)
    noise = scipy.ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), smooth)
    pixels = (noise <= np.quantile(noise, density)).astype(np.uint8)
    whole = skimage.measure.label(pixels, connectivity=1)
    batches = batches_of(pixels, tile, overlap, own_ids(seed))
    # One pixel shared is enough: an object is connected, so its parts are the same object.
    made = stitch_instances(batches, min_share=1e-9)
    assert made.dtype == np.int32
    np.testing.assert_array_equal(made, whole)  # skimage numbers in raster order, too
    np.testing.assert_array_equal(stitch_instances(shuffled(batches, seed), min_share=1e-9), whole)


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), tile=st.integers(20, 50))
def test_objects_that_touch_stay_apart(seed, tile):
    # A picture of squares that fill it, each of another value: only values tell them apart.
    rng = np.random.default_rng(seed)
    pixels = np.kron(rng.permutation(225).reshape(15, 15) + 1, np.ones((6, 6), np.int64))
    pixels = pixels.astype(np.uint16)
    names = rng.permutation(300) + 1
    batches = batches_of(pixels, tile, 12, lambda tile: names[tile])
    made = stitch_instances(shuffled(batches, seed))
    np.testing.assert_array_equal(
        made, np.kron(np.arange(225).reshape(15, 15) + 1, np.ones((6, 6)))
    )


def test_the_share_decides_where_tiles_disagree():
    # Two tiles of 4 columns share 2: an object of both pixels there in one, of one in the other.
    first, second = np.array([[0, 0, 7, 7]]), np.array([[0, 9, 9, 9]])
    answers = iter([first, second])
    batches = batches_of(np.zeros((1, 6), np.uint8), (1, 4), (0, 2), lambda _: next(answers))
    # 1 shared pixel of 1 (the smaller, of the second tile, in what both show).
    assert stitch_instances(batches, min_share=1).tolist() == [[0, 0, 1, 1, 1, 1]]
    answers = iter([np.array([[0, 7, 7, 0]]), np.array([[9, 9, 9, 9]])])
    batches = batches_of(np.zeros((1, 6), np.uint8), (1, 4), (0, 2), lambda _: next(answers))
    assert len(np.unique(stitch_instances(batches))) == 2
    answers = iter([np.array([[0, 0, 0, 7]]), np.array([[9, 0, 0, 0]])])
    batches = batches_of(np.zeros((1, 6), np.uint8), (1, 4), (0, 2), lambda _: next(answers))
    # Side by side: each keeps its nearer column, which is empty.
    assert not stitch_instances(batches).any()


def test_a_channel_axis_of_one_is_no_other_answer():
    pixels = (np.random.default_rng(0).random((40, 30)) < 0.4).astype(np.uint8)
    batches = batches_of(pixels, 16, 6, own_ids(0))
    channel = [batch._replace(data=batch.data[:, None]) for batch in batches]
    np.testing.assert_array_equal(stitch_instances(channel), stitch_instances(batches))


def test_what_is_no_whole_image_of_labels_is_refused():
    batches = batches_of(np.ones((40, 30), np.uint8), 16, 6, own_ids(0))
    with pytest.raises(InvalidInputError, match="0 of 0 tiles"):
        stitch_instances([])
    with pytest.raises(InvalidInputError, match="stitching needs every one"):
        stitch_instances(batches[:-1])
    with pytest.raises(InvalidInputError, match="came before"):
        stitch_instances([*batches, batches[0]])
    with pytest.raises(InvalidInputError, match="min_share"):
        stitch_instances(batches, min_share=0)
    with pytest.raises(InvalidInputError, match=r"integers .* float32"):
        stitch_instances([b._replace(data=b.data.astype(np.float32)) for b in batches])
    with pytest.raises(InvalidInputError, match="integers"):
        stitch_instances([b._replace(data=b.data[:, ::2]) for b in batches])
    other = [b._replace(source=["elsewhere"] * len(b.source)) for b in batches[1:]]
    with pytest.raises(InvalidInputError, match="is not of"):
        stitch_instances([batches[0], *other])
