"""Streaming quantiles are those that NumPy finds in everything at once, to the last bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from microtome.errors import FormatError, InvalidInputError
from microtome.standardize import QuantileCounter

DTYPES = ["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"]
DTYPES += [">u2", ">i4", ">f4", ">f8"]
WANTED = [0.0, 0.01, 0.25, 1 / 3, 0.5, 0.99, 0.999, 1.0]
PASSES = {1: 1, 2: 1, 4: 2, 8: 4}


def count(blocks, dtype, channels, wanted):
    counter = QuantileCounter(dtype, channels, wanted)
    while not counter.done:
        for block in blocks:
            counter.update(block)
        counter.finish_pass()
    return counter


@st.composite
def pixels(draw):
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    elements = None
    if dtype.kind == "f":
        # Halves keep the difference of any two finite values finite, as numpy.quantile needs.
        top = {2: 3e4, 4: 1e38, 8: 8e307}[dtype.itemsize]
        top = float(np.array(top, dtype))
        elements = st.floats(-top, top, width=8 * dtype.itemsize)
    return draw(
        hnp.arrays(dtype, st.tuples(st.integers(1, 3), st.integers(1, 50)), elements=elements)
    )


@given(
    values=pixels(),
    cuts=st.lists(st.integers(0, 50), max_size=3),
    wanted=st.lists(st.floats(0, 1), min_size=1, max_size=4),
)
def test_any_numbers(values, cuts, wanted):
    blocks = np.split(values, sorted(cut % (values.shape[1] + 1) for cut in cuts), axis=1)
    counter = count(blocks, values.dtype, len(values), wanted)
    expected = np.quantile(values.astype(np.float64), wanted, axis=1, method="linear").T
    np.testing.assert_array_equal(counter.quantiles(), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_many_numbers_of_every_type(dtype):
    rng = np.random.default_rng(5)
    values = (rng.gamma(0.5, 20.0, (2, 70_001)) - 3).clip(0 if "u" in dtype else -9).astype(dtype)
    counter = count(np.array_split(values, 3, axis=1), dtype, 2, WANTED)
    expected = np.quantile(values.astype(np.float64), WANTED, axis=1).T
    np.testing.assert_array_equal(counter.quantiles(), expected)
    assert counter.passes == PASSES[np.dtype(dtype).itemsize]


def test_more_pixels_than_are_keyed_at_a_time():
    values = np.random.default_rng(6).standard_normal((1, (1 << 20) + 77), np.float32)
    counter = count([values], np.float32, 1, [0.99])
    assert counter.quantiles()[0, 0] == np.quantile(values.astype(float), 0.99)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_workers_count_apart_and_are_merged(dtype):
    values = np.random.default_rng(7).gamma(1, 50, (2, 3000)).astype(dtype)
    counter = QuantileCounter(dtype, 2, [0.1, 0.99])
    while not counter.done:
        workers = [counter.blank() for _ in range(3)]
        for worker, block in zip(workers, np.array_split(values, 3, axis=1), strict=True):
            worker.update(block)
        for worker in reversed(workers):
            counter.merge(worker)
        counter.finish_pass()
    expected = np.quantile(values.astype(float), [0.1, 0.99], axis=1).T
    np.testing.assert_array_equal(counter.quantiles(), expected)


def test_counters_of_something_else_are_not_merged():
    counter = QuantileCounter(np.float32, 1, [0.5])
    for other in (
        QuantileCounter(np.float32, 1, [0.6]),
        QuantileCounter(np.int32, 1, [0.5]),
        QuantileCounter(np.float32, 2, [0.5]),
    ):
        with pytest.raises(InvalidInputError, match=r"made from this one by blank"):
            counter.merge(other)
    elsewhere = counter.blank()
    for each, value in ((counter, 1.0), (elsewhere, 2000.0)):
        each.update(np.full((1, 3), value, np.float32))
        each.finish_pass()
    with pytest.raises(InvalidInputError, match=r"made from this one by blank"):
        counter.merge(elsewhere)


def test_zeros_of_both_signs_are_one_number():
    values = np.array([[-0.0, 0.0, -0.0, 5.0, -5.0]], np.float32)
    result = count([values], np.float32, 1, [0.3, 0.5, 0.7]).quantiles()
    assert result.tolist() == [[0.0, 0.0, 0.0]]
    assert not np.signbit(result).any()


def test_infinities_are_numbers_at_the_ends():
    values = np.array([[-np.inf, 1.0, 2.0, np.inf, np.inf]])
    result = count([values], np.float64, 1, [0.0, 0.25, 0.5, 0.8, 1.0]).quantiles()
    assert result.tolist() == [[-np.inf, 1.0, 2.0, np.inf, np.inf]]


def test_tissues_that_measured_different_channels():
    counter = QuantileCounter(np.uint8, 3, [0.5])
    counter.update(np.array([[1, 3], [10, 30]], np.uint8), channels=[2, 0])
    counter.update(np.array([[5]], np.uint8), channels=[2])
    counter.finish_pass()
    np.testing.assert_array_equal(counter.quantiles(), [[20], [np.nan], [3]])


def test_a_value_that_is_no_number_is_named():
    block = np.array([[1, 2], [3, np.nan]], np.float32)
    with pytest.raises(FormatError, match=r"tissue t1: channel 1 is nan at pixel 1 of the block"):
        QuantileCounter(np.float32, 2, [0.5]).update(block, where="tissue t1")


def test_passes_must_see_the_same_pixels():
    counter = QuantileCounter(np.float32, 2, [0.5])
    counter.update(np.ones((2, 10), np.float32))
    with pytest.raises(InvalidInputError, match="2 of 2 passes are left"):
        counter.quantiles()
    counter.finish_pass()
    counter.update(np.ones((1, 9), np.float32), channels=[1])
    counter.update(np.ones((1, 10), np.float32), channels=[0])
    with pytest.raises(InvalidInputError, match="pass 2 saw 9 pixels of channel 1, pass 1 saw 10"):
        counter.finish_pass()
    counter.update(np.ones((1, 1), np.float32), channels=[1])
    counter.finish_pass()
    assert counter.quantiles().tolist() == [[1.0], [1.0]]
    with pytest.raises(InvalidInputError, match="all 2 passes are finished"):
        counter.update(np.ones((2, 1), np.float32))
    with pytest.raises(InvalidInputError, match="all 2 passes are finished"):
        counter.finish_pass()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.complex64, 1, [0.5]), "not of complex64"),
        ((np.uint8, 0, [0.5]), "channels must be at least 1"),
        ((np.uint8, 1, []), "list of numbers"),
        ((np.uint8, 1, [1.5]), "from 0 to 1"),
        ((np.uint8, 1, [np.nan]), "from 0 to 1"),
    ],
)
def test_wrong_requests_are_refused(arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        QuantileCounter(*arguments)


def test_another_type_of_pixels_is_refused():
    with pytest.raises(InvalidInputError, match="counter of uint16 got a block of uint8"):
        QuantileCounter(np.uint16, 1, [0.5]).update(np.ones((1, 3), np.uint8))
