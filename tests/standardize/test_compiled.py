"""What is counted is the same with Numba and without."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from microtome.errors import FormatError, InvalidInputError
from microtome.standardize import QuantileSketch, _compiled, _sketch, _tallies, runs_inside
from microtome.standardize._counter import PIECES
from microtome.standardize._inside import PIECE

TYPES = ["?", "u1", "i1", "u2", "i2", "f2", ">u2", "u4", "i4", "u8", "f4", "f8", ">f4"]


@pytest.fixture
def compiled(monkeypatch):
    """Blocks of any size are counted by compiled loops; gives what turns that off."""
    pytest.importorskip("numba")
    monkeypatch.setattr(_sketch, "WORTH", 0)
    return lambda: monkeypatch.setattr(_sketch, "compiled_counting", lambda: None)


def block_of(dtype, shape, seed):
    rng = np.random.default_rng(seed)
    numbers = rng.gamma(0.5, 40, shape) * (rng.random(shape) < 0.6)
    if np.dtype(dtype).kind in "if":
        numbers *= rng.choice([-1, 1], shape)
    return numbers.clip(-100, 250 if np.dtype(dtype) != np.int8 else 127).astype(dtype)


def counted(values, mask):
    sketch = QuantileSketch(values.dtype, len(values))
    sketch.update(values, mask=mask)
    sketch.update(values[:, ::-1])
    return sketch.counts


def verify_equal(found, expected):
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine.bins, theirs.bins)
        np.testing.assert_array_equal(mine.counts, theirs.counts)
        assert (mine.places is None) == (theirs.places is None)
        if mine.places is not None:
            np.testing.assert_array_equal(mine.places, theirs.places)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("masked", ["all", "none", "some", "no mask"])
def test_the_same_counts(compiled, dtype, masked):
    values = block_of(dtype, (2, 5000), 3)
    mask = {
        "all": np.ones(5000, bool),
        "none": np.zeros(5000, bool),
        "some": np.random.default_rng(1).random(5000) < 0.4,
        "no mask": None,
    }[masked]
    found = counted(values, mask)
    compiled()
    verify_equal(found, counted(values, mask))


@given(seed=st.integers(0, 2**32 - 1), data=st.data())
def test_any_bits_of_a_float(seed, data):
    """Every pattern of bits that is a finite number is counted once, in its bin."""
    loops = pytest.importorskip("numba") and _compiled.compiled_counting()
    bits = np.random.default_rng(seed).integers(0, 2**32, 300, np.uint32)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=300, max_size=300)))
    counts, touched = np.zeros((2, 1 << 20), np.uint64), np.zeros(1 << 11, bool)
    loops.placed(bits, runs_inside(mask), counts, touched, 12, 32, 9)
    inside = bits[mask]
    expected = np.bincount(inside >> 12, minlength=1 << 20)
    np.testing.assert_array_equal(counts.sum(axis=0) & 0xFFFFFFFF, expected)
    places = np.bincount(inside >> 12, weights=inside & 4095, minlength=1 << 20).astype(np.int64)
    np.testing.assert_array_equal(counts.sum(axis=0) >> 32, places)
    np.testing.assert_array_equal(touched, expected.reshape(-1, 512).any(axis=1))
    bins = np.empty(512 * 300, np.uint32)
    found, sums = np.empty((2, 512 * 300), np.int64)
    size = loops.collected(counts, touched, 9, 32, bins, found, sums)
    np.testing.assert_array_equal(bins[:size], np.flatnonzero(expected))
    np.testing.assert_array_equal(found[:size], expected[bins[:size]])
    np.testing.assert_array_equal(sums[:size], places[bins[:size]])
    assert not counts.any()
    assert not touched.any()


@given(mask=arrays(np.bool_, st.integers(0, 40)))
def test_runs_of_a_mask_are_the_mask(mask):
    runs = runs_inside(mask)
    again = np.zeros(mask.size + 2, bool)
    for first, last in runs.tolist():
        assert first < last
        # None touches the one before.
        assert not again[first]
        again[first + 1 : last + 1] = True
    np.testing.assert_array_equal(again[1:-1], mask)


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_rows_longer_than_a_table_adds_up_are_cut(compiled, monkeypatch, dtype):
    """What a table has no room for is taken in between, and runs are cut where it is."""
    monkeypatch.setattr(_tallies, "_MOST", 70)
    monkeypatch.setattr(_tallies, "_ROOM", 90)
    values = block_of(dtype, (2, 1000), 5)
    mask = np.random.default_rng(2).random(1000) < 0.7
    mask[130:290] = True
    found = counted(values, mask)
    compiled()
    verify_equal(found, counted(values, mask))


@pytest.mark.parametrize("with_numba", [True, False])
def test_more_pixels_than_a_bin_adds_up_at_once(compiled, with_numba):
    """Without Numba the sum of places has 31 bits: rows longer than those hold are taken in between."""
    if not with_numba:
        compiled()
    number = np.uint32(0x3F800FFF).view(np.float32)  # the last place of its bin
    pixels = PIECE * PIECES + 7
    sketch = QuantileSketch(np.float32, 1)
    sketch.update(np.full((1, pixels), number))
    (found,) = sketch.counts
    assert found.counts.tolist() == [pixels]
    assert found.places.tolist() == [pixels * 4095]


def test_what_was_counted_between_looks_adds_up(compiled):
    """Looking, pickling and merging in between changes nothing, nor does numpy's turn."""
    values = block_of("f4", (3, 4000), 7)
    expected = QuantileSketch(np.float32, 3)
    expected.update(values)
    sketch = QuantileSketch(np.float32, 3)
    for part in np.split(values, [100, 700, 701, 3000], axis=1):
        sketch.update(part)
        assert sketch.count.max() > 0
        sketch = pickle.loads(pickle.dumps(sketch))
    verify_equal(sketch.counts, expected.counts)
    compiled()
    sketch.update(values)
    doubled = QuantileSketch(np.float32, 3)
    doubled.merge(expected)
    doubled.merge(expected)
    verify_equal(sketch.counts, doubled.counts)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_infinities_count_and_nan_is_refused_whatever_was_before(compiled, dtype):
    sketch = QuantileSketch(dtype, 2)
    sketch.update(np.array([[np.inf, 1.0], [-np.inf, 2.0]], dtype))
    sketch.update(np.ones((2, 3), dtype))
    assert sketch.quantiles([0, 1]).tolist() == [[1.0, np.inf], [-np.inf, 2.0]]
    with pytest.raises(FormatError, match="channel 1 is nan at pixel 1"):
        sketch.update(np.array([[1.0, 1.0], [1.0, np.nan]], dtype))


def test_outside_the_mask_nothing_is_refused(compiled):
    values = np.array([[1.0, np.nan, np.inf, 2.0]], np.float32)
    sketch = QuantileSketch(np.float32, 1)
    sketch.update(values, mask=np.array([True, False, False, True]))
    assert sketch.count.tolist() == [2]
    with pytest.raises(FormatError, match=r"channel 0 is nan at pixel 1 of the block"):
        sketch.update(values)
    with pytest.raises(InvalidInputError, match="as many booleans"):
        sketch.update(values, mask=np.ones(3, bool))


def test_small_blocks_do_not_import_numba(monkeypatch):
    def refuse():
        raise AssertionError

    monkeypatch.setattr(_sketch, "compiled_counting", refuse)
    QuantileSketch(np.uint8, 1).update(np.ones((1, _sketch.WORTH - 1), np.uint8))


def test_without_numba_there_are_no_loops(monkeypatch):
    monkeypatch.setattr(_compiled, "find_spec", lambda _: None)
    assert _compiled.compiled_counting.__wrapped__() is None
