"""Tiles for prediction: their kept parts partition the image."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.errors import InvalidInputError, OutOfRangeError
from microtome.tiling import plan_tiles


@st.composite
def requests(draw):
    rank = draw(st.integers(1, 3))
    shape = draw(st.tuples(*[st.integers(1, 24)] * rank))
    tile = draw(st.tuples(*[st.integers(1, 12)] * rank))
    overlap = tuple(draw(st.integers(0, side - 1)) for side in tile)
    return shape, tile, overlap


def kept(plan, index):
    start, size = plan.stitch[index], plan.crop_size[index]
    return tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))


@given(requests())
def test_kept_parts_write_every_pixel_exactly_once(request):
    shape, tile, overlap = request
    plan = plan_tiles(shape, tile, overlap)
    written = np.zeros(shape, int)
    for index in range(len(plan)):
        written[kept(plan, index)] += 1
    assert (written == 1).all()


@given(requests())
def test_kept_parts_lie_inside_tiles_and_tiles_inside_the_image(request):
    shape, tile, overlap = map(np.array, request)
    plan = plan_tiles(tuple(shape), tuple(tile), tuple(overlap))
    assert (plan.crop_size > 0).all()
    assert (plan.crop >= 0).all()
    assert (plan.crop + plan.crop_size <= tile).all()
    assert (plan.coords >= 0).all()
    assert (plan.coords + plan.crop == plan.stitch).all()
    fits = shape >= tile
    assert (plan.coords + tile <= shape)[:, fits].all()
    assert (plan.coords == 0)[:, ~fits].all()
    # At a seam inside the image both sides keep their distance from their own border.
    before = np.where(plan.stitch > 0, plan.crop, overlap)
    assert (before >= overlap // 2).all()
    ends = plan.stitch + plan.crop_size
    after = np.where(ends < shape, tile - plan.crop - plan.crop_size, overlap)
    assert (after >= overlap // 2).all()


@given(requests(), st.integers(0, 2**32 - 1))
def test_stitching_what_was_read_gives_the_image_back(request, seed):
    shape, tile, overlap = request
    image = np.random.default_rng(seed).random(shape)
    padded = np.pad(image, [(0, side) for side in tile])
    plan = plan_tiles(shape, tile, overlap)
    out = np.full(shape, np.nan)
    for index in range(len(plan)):
        window = tuple(slice(a, a + n) for a, n in zip(plan.coords[index], tile, strict=True))
        part = tuple(
            slice(a, a + n) for a, n in zip(plan.crop[index], plan.crop_size[index], strict=True)
        )
        out[kept(plan, index)] = padded[window][part]
    np.testing.assert_array_equal(out, image)


@pytest.mark.parametrize(
    ("length", "tile", "overlap", "coords", "stitch", "sizes"),
    [
        (100, 64, 16, [0, 36], [0, 56], [56, 44]),
        (65, 64, 16, [0, 1], [0, 56], [56, 9]),
        (64, 64, 16, [0], [0], [64]),
        (50, 64, 16, [0], [0], [50]),
        (9, 4, 0, [0, 4, 5], [0, 4, 8], [4, 4, 1]),
    ],
)
def test_numbers_of_careamics(length, tile, overlap, coords, stitch, sizes):
    plan = plan_tiles((length,), tile, overlap)
    assert plan.coords[:, 0].tolist() == coords
    assert plan.stitch[:, 0].tolist() == stitch
    assert plan.crop_size[:, 0].tolist() == sizes


def careamics_axis(length, tile, overlap):
    """The published rule for one axis, for even overlaps."""
    if length <= tile:
        return [(0, 0, 0, length)]
    out, kept_to = [], 0
    for start in range(0, max(1, length - overlap), tile - overlap):
        if start == 0:
            out.append((0, 0, 0, tile - overlap // 2))
        elif start + tile < length:
            out.append((start, kept_to, overlap // 2, tile - overlap))
        else:
            begin = length - tile
            out.append((begin, kept_to, kept_to - begin, length - kept_to))
        kept_to = out[-1][1] + out[-1][3]
    return out


@given(st.integers(1, 200), st.integers(1, 64), st.data())
def test_even_overlaps_give_the_numbers_of_the_published_rule(length, tile, data):
    overlap = 2 * data.draw(st.integers(0, (tile - 1) // 2))
    plan = plan_tiles((length,), tile, overlap)
    columns = (plan.coords, plan.stitch, plan.crop, plan.crop_size)
    assert np.concatenate(columns, axis=1).tolist() == [
        list(numbers) for numbers in careamics_axis(length, tile, overlap)
    ]


def test_a_slide_takes_as_many_tiles_as_careamics_counts():
    assert len(plan_tiles((8192, 8192), 256, 48)) == 1600


def test_a_million_tiles_are_arithmetic():
    plan = plan_tiles((64_000, 64_000), 64, 0)
    assert len(plan) == 1_000_000
    last = plan.take([999_999, 1_000])
    assert last.coords.tolist() == [[63_936, 63_936], [64, 0]]


def test_some_tiles_are_those_rows_of_all():
    plan = plan_tiles((3, 50, 61), (2, 16, 16), (1, 4, 5))
    for indices in (slice(3, 9), slice(None, None, 7), [5, 0, 5], np.array([], int)):
        part = plan.take(indices)
        for name in ("coords", "stitch", "crop", "crop_size"):
            whole = getattr(plan, name)
            assert whole.dtype == np.int64
            np.testing.assert_array_equal(getattr(part, name), whole[np.arange(len(plan))[indices]])
    assert plan.grid == (2, 4, 6)
    # Row-major: the last axis runs fastest.
    assert plan.coords[:7].tolist()[-2:] == [[0, 0, 45], [0, 12, 0]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((10, 10), 4, 4), "overlap must be smaller"),
        (((10, 10), (4, 2), 3), "overlap must be smaller"),
        (((10, 10), 4, -1), "overlap must be at least 0"),
        (((10, 10), 0, 0), "tile_size must be at least 1"),
        (((10, 0), 4, 0), "shape must be at least 1"),
        (((), 4, 0), "shape must be"),
        (((10, 10), (4, 4, 4), 0), "tile_size must be one integer or 2 of them"),
        (((10, 10), 4.5, 0), "tile_size must be integers"),
    ],
)
def test_wrong_requests_are_refused(arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        plan_tiles(*arguments)


def test_tiles_outside_the_plan_are_refused():
    plan = plan_tiles((10, 10), 4, 0)
    with pytest.raises(OutOfRangeError, match="tile 9 of a plan of 9"):
        plan.take([0, 9])
    with pytest.raises(OutOfRangeError, match="tile -1"):
        plan.take([-1])
    with pytest.raises(InvalidInputError, match="list of integers"):
        plan.take([0.5])
