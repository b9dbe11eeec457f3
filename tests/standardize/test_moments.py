"""Streaming mean and deviation, against exact fractions and NumPy on everything at once."""

from fractions import Fraction
from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from microtome.errors import FormatError, InvalidInputError
from microtome.standardize import Moments


def exactly(values):
    """Mean and population deviation of one channel, rounded once at the end."""
    numbers = [Fraction(value) for value in values.tolist()]
    mean = sum(numbers) / len(numbers)
    variance = sum((number - mean) ** 2 for number in numbers) / len(numbers)
    return float(mean), sqrt(variance)


def blocks(values, cuts):
    return np.split(values, sorted(cut % (values.shape[1] + 1) for cut in cuts), axis=1)


@given(
    values=hnp.arrays(
        st.sampled_from([np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64]),
        st.tuples(st.just(2), st.integers(1, 40)),
    ),
    cuts=st.lists(st.integers(0, 40), max_size=4),
)
def test_integers_of_any_size(values, cuts):
    moments = Moments(2)
    for block in blocks(values, cuts):
        moments.update(block)
    for channel in range(2):
        mean, std = exactly(values[channel])
        assert moments.mean[channel] == pytest.approx(mean, rel=1e-14, abs=1e-14 * std)
        assert moments.std[channel] == pytest.approx(std, rel=1e-12, abs=1e-7)
    assert moments.count.tolist() == [values.shape[1]] * 2


@given(
    values=hnp.arrays(
        np.float32,
        st.tuples(st.just(2), st.integers(1, 40)),
        elements=st.floats(-1e6, 1e6, width=32),
    ),
    cuts=st.lists(st.integers(0, 40), max_size=4),
    seed=st.integers(0, 99),
)
def test_floats_in_any_order_and_by_any_number_of_workers(values, cuts, seed):
    workers = [Moments(2) for _ in range(3)]
    parts = blocks(values, cuts)
    rng = np.random.default_rng(seed)
    for index in rng.permutation(len(parts)):
        workers[rng.integers(3)].update(parts[index])
    first, *others = workers
    for other in others:
        first.merge(other)
    scale = float(np.abs(values).max())
    np.testing.assert_allclose(
        first.mean, values.astype(float).mean(axis=1), rtol=1e-14, atol=1e-14 * scale
    )
    np.testing.assert_allclose(
        first.std, values.astype(float).std(axis=1), rtol=1e-9, atol=1e-8 * scale
    )


def test_one_block_of_integers_is_rounded_once():
    values = np.random.default_rng(0).integers(0, 2**32, (1, 5000), np.uint32)
    moments = Moments(1)
    moments.update(values)
    mean, std = exactly(values[0])
    assert moments.mean[0] == mean
    assert moments.std[0] == pytest.approx(std, rel=3e-16)


def test_a_small_spread_on_a_large_offset_is_kept():
    """E[x^2] - E[x]^2 in float64 gives 0 or less here: the defect of one-pass sums."""
    values = 1e9 + np.tile([0.0, 1.0], 5000)
    naive = np.mean(values**2) - np.mean(values) ** 2
    assert not 0.2 < naive < 0.3
    moments = Moments(1)
    for part in np.split(values, 10):
        moments.update(part[None])
    assert moments.std[0] == pytest.approx(0.5, rel=1e-9)


def test_tissues_that_measured_different_channels():
    moments = Moments(3)
    moments.update(np.array([[1.0, 3.0], [10.0, 30.0]]), channels=[2, 0])
    moments.update(np.array([[5.0]]), channels=[2])
    assert moments.count.tolist() == [2, 0, 3]
    np.testing.assert_allclose(moments.mean, [20, np.nan, 3])
    np.testing.assert_allclose(moments.std, [10, np.nan, np.sqrt(8 / 3)])


def test_nothing_counted_is_not_a_number():
    moments = Moments(1)
    moments.update(np.zeros((1, 0)))
    moments.merge(Moments(1))
    assert np.isnan(moments.mean[0])
    assert np.isnan(moments.std[0])


def test_values_that_are_not_numbers_are_named():
    block = np.ones((2, 4), np.float32)
    block[1, 2] = np.inf
    with pytest.raises(FormatError, match=r"tissue t1: channel 7 is inf at pixel 2 of the block"):
        Moments(8).update(block, channels=[3, 7], where="tissue t1")


@pytest.mark.parametrize(
    ("values", "channels", "message"),
    [
        (np.ones(3), None, r"shape \(3,\)"),
        (np.ones((2, 3), complex), None, "complex128"),
        (np.ones((3, 4)), None, "3 rows for 2 channels"),
        (np.ones((2, 4)), [0, 0], "different numbers from 0 to 1"),
        (np.ones((1, 4)), [2], "different numbers from 0 to 1"),
    ],
)
def test_wrong_blocks_are_refused(values, channels, message):
    with pytest.raises(InvalidInputError, match=message):
        Moments(2).update(values, channels=channels)


def test_moments_of_other_channels_do_not_go_together():
    with pytest.raises(InvalidInputError, match="2 and 3 channels"):
        Moments(2).merge(Moments(3))
    with pytest.raises(InvalidInputError, match="at least 1"):
        Moments(0)
