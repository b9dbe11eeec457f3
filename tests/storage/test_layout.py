"""How arrays are cut up: what is a layout at all, and what the measured defaults are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.errors import InvalidInputError
from microtome.storage import CODECS, Layout, image_layout, label_layout


@pytest.mark.parametrize(
    ("chunk", "shard", "complaint"),
    [
        ((), None, "positive"),
        ((0, 4), None, "positive"),
        ((4, -4), None, "positive"),
        ((4, 4), (8,), "multiple"),
        ((4, 4), (8, 8, 8), "multiple"),
        ((4, 4), (8, 6), "multiple"),
        ((4, 4), (8, 0), "multiple"),
        ((4, 4), (-8, 8), "multiple"),
        ((4, 4), (2, 2), "multiple"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(chunk, shard, complaint):
    with pytest.raises(InvalidInputError, match=complaint):
        Layout(chunk, shard)


def test_a_codec_nobody_knows_is_refused():
    with pytest.raises(
        InvalidInputError, match="'fast', 'train', 'panel', 'small', 'labels', 'raw'"
    ):
        Layout((4,), None, "lz4")


def test_a_file_holds_a_shard_or_else_a_chunk():
    assert Layout((4, 4), (8, 12)).write_unit == (8, 12)
    assert Layout((4, 4), None).write_unit == (4, 4)


@given(
    st.lists(
        st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 60)), min_size=1, max_size=4
    )
)
def test_a_fitted_shard_is_the_least_that_the_shape_fills(sizes):
    chunk = tuple(c for c, _, _ in sizes)
    shard = tuple(c * n for c, n, _ in sizes)
    shape = tuple(s for _, _, s in sizes)
    fitted = Layout(chunk, shard, "small").fitted(shape)
    assert (fitted.chunk, fitted.codec) == (chunk, "small")
    for c, most, size, got in zip(chunk, shard, shape, fitted.shard, strict=True):
        # Brute force: the first multiple of the chunk that holds the axis, unless the shard ends.
        multiples = range(c, most + 1, c)
        assert got == next((m for m in multiples if m >= size), most)


def test_without_shards_nothing_is_fitted():
    layout = Layout((4, 4), None)
    assert layout.fitted((1, 1)) is layout


@pytest.mark.parametrize("codec", CODECS[:2])
@pytest.mark.parametrize(
    ("axes", "shape", "chunk", "shard"),
    [
        ("yx", (5000, 4000), (128, 128), (2048, 2048)),
        ("cyx", (3, 50, 40), (1, 128, 128), (3, 2048, 2048)),
        ("cyx", (8, 50, 40), (1, 128, 128), (8, 2048, 2048)),
        ("cyx", (9, 50, 40), (1, 128, 128), (9, 1024, 1024)),
        ("cyx", (32, 50, 40), (1, 128, 128), (32, 1024, 1024)),
        ("cyx", (33, 50, 40), (1, 128, 128), (33, 512, 512)),
        ("czyx", (2, 7, 50, 40), (1, 1, 128, 128), (2, 1, 2048, 2048)),
        ("tczyx", (3, 2, 7, 50, 40), (1, 1, 1, 128, 128), (1, 2, 1, 2048, 2048)),
    ],
)
def test_the_default_of_an_image(axes, shape, chunk, shard, codec):
    assert image_layout(axes, shape, codec=codec) == Layout(chunk, shard, codec)


def test_the_default_of_labels():
    assert label_layout("yx", (9, 9)) == Layout((256, 256), (2048, 2048), "labels")
    assert label_layout("zyx", (9, 9, 9)) == Layout((1, 256, 256), (1, 2048, 2048), "labels")
