"""The pyramid rule, held against a loop over blocks in exact arithmetic."""

from __future__ import annotations

import itertools
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from microtome.image import blocks_of, halve_labels, halve_mean, pyramid_shapes

# Each of these runs for many types.
FEWER = settings(max_examples=40)
INTEGERS = [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
FLOATS = ["float16", "float32", "float64"]
# Odd, even and single edges in both directions, with and without a leading axis.
SHAPES = hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=7)


def blocks(plane):
    """The part of each 2 x 2 block that exists, as lists, in row-major order."""
    height, width = plane.shape
    for i, j in itertools.product(range(0, height, 2), range(0, width, 2)):
        yield plane[i : i + 2, j : j + 2].ravel().tolist()


def brute_force(pixels, one_of_block, dtype):
    planes = pixels.reshape(-1, *pixels.shape[-2:])
    height, width = (-(-n // 2) for n in pixels.shape[-2:])
    results = [[one_of_block(block) for block in blocks(plane)] for plane in planes]
    return np.array(results, dtype=dtype).reshape(*pixels.shape[:-2], height, width)


def mean_half_up(values):
    return (Fraction(sum(values), len(values)) + Fraction(1, 2)).__floor__()


def most_frequent(values):
    counts = Counter(values)
    most = max(counts.values())
    tied = [value for value, count in counts.items() if count == most]
    return min((value for value in tied if value != 0), default=0)


@pytest.mark.parametrize("dtype", INTEGERS)
@FEWER
@given(data=st.data())
def test_integers_are_averaged_and_rounded_half_up(dtype, data):
    pixels = data.draw(hnp.arrays(dtype, SHAPES))
    halved = halve_mean(pixels)
    assert halved.dtype == pixels.dtype
    np.testing.assert_array_equal(halved, brute_force(pixels, mean_half_up, dtype))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_the_ends_of_the_range_do_not_overflow(dtype):
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    extremes = list(
        itertools.product([low, low + 1, -1 if low else 0, 0, 1, high - 1, high], repeat=4)
    )
    pixels = np.array(extremes, dtype=dtype).reshape(-1, 2, 2)
    expected = [[[mean_half_up(values)]] for values in extremes]
    np.testing.assert_array_equal(halve_mean(pixels), np.array(expected, dtype=dtype))


@pytest.mark.parametrize("dtype", FLOATS)
@FEWER
@given(data=st.data())
def test_floats_are_averaged(dtype, data):
    width = np.dtype(dtype).itemsize * 8
    elements = st.floats(-1000, 1000, width=width)
    pixels = data.draw(hnp.arrays(dtype, SHAPES, elements=elements))
    halved = halve_mean(pixels)
    assert halved.dtype == pixels.dtype
    expected = brute_force(
        pixels, lambda v: float(sum(map(Fraction, v), Fraction()) / len(v)), np.float64
    )
    # Half a unit in the last place of the type, and as much again for the sum in float64.
    np.testing.assert_allclose(
        halved.astype(np.float64),
        expected,
        rtol=np.finfo(dtype).eps,
        atol=float(np.finfo(dtype).smallest_subnormal) + 1e-12,
    )


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_largest_float_is_its_own_mean(dtype):
    pixels = np.full((3, 3), np.finfo(dtype).max, dtype)
    np.testing.assert_array_equal(halve_mean(pixels), pixels[:2, :2])


def test_a_block_with_nan_is_nan_and_no_other():
    pixels = np.arange(30, dtype=np.float32).reshape(5, 6)
    pixels[1, 2] = np.nan
    halved = halve_mean(pixels)
    assert np.argwhere(np.isnan(halved)).tolist() == [[0, 1]]


def test_infinities():
    inf = np.inf
    pixels = np.array([[inf, 1, inf, -inf], [2, 3, 0, 0]], dtype=np.float32)
    np.testing.assert_array_equal(halve_mean(pixels), [[inf, np.nan]])


@given(hnp.arrays(np.bool_, SHAPES))
def test_a_truth_value_is_that_of_at_least_half_the_block(pixels):
    halved = halve_mean(pixels)
    assert halved.dtype == np.bool_
    expected = brute_force(pixels, lambda values: 2 * sum(values) >= len(values), np.bool_)
    np.testing.assert_array_equal(halved, expected)


@pytest.mark.parametrize("dtype", [*INTEGERS, "bool"])
@FEWER
@given(data=st.data())
def test_labels_are_voted_for(dtype, data):
    # Few different labels, so that majorities and every kind of tie come up.
    values = [0, 1] if dtype == "bool" else [0, 1, 2, 3, int(np.iinfo(dtype).max)]
    labels = data.draw(hnp.arrays(dtype, SHAPES, elements=st.sampled_from(values)))
    halved = halve_labels(labels)
    assert halved.dtype == labels.dtype
    np.testing.assert_array_equal(halved, brute_force(labels, most_frequent, dtype))


@pytest.mark.parametrize(
    ("block", "label"),
    [
        ([[0, 0], [5, 5]], 5),  # a tie with the background goes to the object
        ([[0, 0], [0, 5]], 0),
        ([[7, 5], [5, 7]], 5),
        ([[9, 0], [3, 0]], 0),
        ([[4, 3], [2, 1]], 1),
        ([[0, 3], [2, 9]], 2),
        ([[0, 5]], 5),  # an odd edge
        ([[7], [0]], 7),
        ([[0]], 0),
        ([[-3, 2], [2, -3]], -3),
    ],
)
def test_ties_of_labels(block, label):
    np.testing.assert_array_equal(halve_labels(np.array(block)), [[label]])


def test_input_is_not_changed():
    pixels = np.arange(15, dtype=np.uint8).reshape(3, 5)
    copy = pixels.copy()
    halve_mean(pixels)
    halve_labels(pixels)
    np.testing.assert_array_equal(pixels, copy)


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 300))
def test_levels_halve_until_the_larger_side_is_one_chunk(height, width, chunk):
    shapes = pyramid_shapes((3, height, width), chunk)
    # Level k by definition: every pixel of it stands for the part of 2**k that exists.
    for k, shape in enumerate(shapes):
        assert shape == (3, -(-height // 2**k), -(-width // 2**k))
    sides = [max(shape[1:]) for shape in shapes]
    assert sides[-1] <= chunk
    assert all(side > chunk for side in sides[:-1])


@given(st.lists(st.tuples(st.integers(1, 12), st.integers(1, 15)), min_size=1, max_size=3))
def test_blocks_cover_every_pixel_once(sizes):
    shape = tuple(size for size, _ in sizes)
    unit = tuple(step for _, step in sizes)
    seen = np.zeros(shape, int)
    corners = []
    for block in blocks_of(shape, unit):
        seen[tuple(slice(a, b) for a, b in block)] += 1
        corners.append(tuple(a for a, _ in block))
        assert all(
            a % step == 0 and b - a <= step for (a, b), step in zip(block, unit, strict=True)
        )
    assert (seen == 1).all()
    assert corners == sorted(corners)
