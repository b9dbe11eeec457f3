"""One pass over the pixels gives NumPy's quantiles, exactly or within the error that is stated."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from microtome.errors import FormatError, InvalidInputError
from microtome.standardize import Moments, QuantileCounter, QuantileSketch, ValueCounts
from microtome.standardize._bins import Bins

NARROW = ["?", "u1", "i1", "u2", "i2", "f2", ">u2", ">f2"]
WIDE = ["u4", "i4", "u8", "i8", "f4", "f8", ">i4", ">f4"]
WANTED = [0.0, 0.01, 0.25, 1 / 3, 0.5, 0.9, 0.99, 0.999, 0.9999, 1.0]
BOUND = 2.0**-11 + 2.0**-23


def sketched(values, cuts=(), **options):
    sketch = QuantileSketch(values.dtype, len(values))
    for block in np.split(values, sorted(cuts), axis=1):
        sketch.update(block, **options)
    return sketch


def verify(values, wanted=WANTED):
    """Every order statistic that NumPy interpolates between is off by its own error at most."""
    sketch = sketched(values)
    found = sketch.quantiles(wanted)
    numbers = values.astype(np.float64)
    if sketch.exact:
        np.testing.assert_array_equal(found, np.quantile(numbers, wanted, axis=1).T)
        return
    low, high = (
        np.quantile(numbers, wanted, axis=1, method=method).T for method in ("lower", "higher")
    )
    slack = sketch.relative_error * np.maximum(abs(low), abs(high)) + 1e-40
    assert sketch.relative_error <= BOUND
    assert (found >= low - slack).all()
    assert (found <= high + slack).all()
    expected = np.quantile(numbers, wanted, axis=1).T
    assert (abs(found - expected) <= slack + 1e-12 * abs(expected)).all()


@st.composite
def pixels(draw, types=(*NARROW, *WIDE)):
    dtype = np.dtype(draw(st.sampled_from(types)))
    elements = None
    if dtype.kind == "f":
        top = float(np.array({2: 3e4, 4: 1e38, 8: 1e38}[dtype.itemsize], dtype))
        elements = st.floats(-top, top, width=8 * dtype.itemsize)
    shape = st.tuples(st.integers(1, 3), st.integers(1, 60))
    return draw(hnp.arrays(dtype, shape, elements=elements))


@given(values=pixels(), wanted=st.lists(st.floats(0, 1), min_size=1, max_size=4))
def test_any_numbers(values, wanted):
    verify(values, wanted)


@given(
    values=pixels(),
    cuts=st.lists(st.integers(0, 60), max_size=5),
    seed=st.integers(0, 99),
    count=st.integers(1, 4),
)
def test_any_partition_in_any_order_counts_the_same(values, cuts, seed, count):
    """Merging is adding whole numbers: who counted what leaves no trace."""
    rng = np.random.default_rng(seed)
    workers = [QuantileSketch(values.dtype, len(values)) for _ in range(count)]
    for block in np.split(values, sorted(cut % (values.shape[1] + 1) for cut in cuts), axis=1):
        workers[rng.integers(count)].update(block)
    together = workers[0]
    for worker in workers[1:]:
        together.merge(pickle.loads(pickle.dumps(worker)))
    whole = sketched(values)
    for mine, theirs in zip(together.counts, whole.counts, strict=True):
        np.testing.assert_array_equal(mine.bins, theirs.bins)
        np.testing.assert_array_equal(mine.counts, theirs.counts)
        if mine.places is not None:
            np.testing.assert_array_equal(mine.places, theirs.places)
    np.testing.assert_array_equal(together.count, [values.shape[1]] * len(values))
    found, expected = together.quantiles(WANTED), whole.quantiles(WANTED)
    np.testing.assert_array_equal(found, expected)


HEAVY = {
    "a marker that one pixel in ten thousand shows": lambda rng, n: np.where(
        rng.random(n) < 1e-4, rng.lognormal(6, 2, n), 0
    ),
    "pareto, without a mean": lambda rng, n: rng.pareto(0.5, n),
    "from 1e-30 to 1e30": lambda rng, n: 10.0 ** rng.uniform(-30, 30, n),
    "two spikes and nothing between": lambda rng, n: np.where(rng.random(n) < 0.99, 1, 1e6),
    "both signs": lambda rng, n: rng.standard_cauchy(n),
    "one value": lambda _, n: np.full(n, 0.1),
    "ascending": lambda _, n: np.linspace(0, 1e5, n),
    "descending by powers": lambda _, n: 1.001 ** -np.arange(n, dtype=float),
}


@pytest.mark.parametrize("name", HEAVY)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_distributions_on_which_sketches_of_ranks_fail(name, dtype):
    """At 0.99 and above a small error of rank is any error of value; ours is one of value."""
    rng = np.random.default_rng(3)
    with np.errstate(over="ignore"):
        values = HEAVY[name](rng, 60_001)[None].clip(-1e38, 1e38).astype(dtype)
    verify(values, [0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 1.0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint32, np.int64])
def test_whole_numbers_below_4096_are_exact_in_any_type(dtype):
    """As the ion counts of mass cytometry are, stored as floats."""
    rng = np.random.default_rng(4)
    values = rng.negative_binomial(0.3, 0.003, (2, 50_000)).clip(0, 4095).astype(dtype)
    found = sketched(values, cuts=[7, 30_000]).quantiles(WANTED)
    np.testing.assert_array_equal(found, np.quantile(values.astype(float), WANTED, axis=1).T)


@given(values=pixels(), seed=st.integers(0, 99))
def test_a_mask_chooses_pixels(values, seed):
    inside = np.random.default_rng(seed).random(values.shape[1]) < 0.6
    masked, chosen = sketched(values, mask=inside), sketched(values[:, inside])
    for mine, theirs in zip(masked.counts, chosen.counts, strict=True):
        np.testing.assert_array_equal(mine.counts, theirs.counts)
        np.testing.assert_array_equal(mine.bins, theirs.bins)


@pytest.mark.parametrize("dtype", ["?", "u1", "u2", "f2", ">u2", "f4", "f8", ">f4"])
def test_a_large_mask_of_areas_and_single_pixels(dtype):
    rng = np.random.default_rng(8)
    values = (rng.gamma(0.5, 20.0, (3, 200_011)) % 256).astype(dtype)
    inside = np.repeat(rng.random(2000) < 0.5, 101)[:200_011] ^ (rng.random(200_011) < 0.01)
    for mask in (inside, np.ones_like(inside), np.zeros_like(inside)):
        found = sketched(values, mask=mask)
        chosen = values[:, mask].astype(float)
        for channel in range(3):
            occurring, counts = found.values(channel)
            assert counts.sum() == mask.sum()
            assert occurring @ counts == pytest.approx(chosen[channel].sum(), rel=1e-7)
        if mask.any() and found.exact:
            np.testing.assert_array_equal(
                found.quantiles(WANTED), np.quantile(chosen, WANTED, axis=1).T
            )
    flipped = sketched(values[:, ::-1], mask=inside[::-1])  # rows that are not contiguous
    np.testing.assert_array_equal(flipped.count, [inside.sum()] * 3)


def test_moments_come_from_the_same_counts():
    rng = np.random.default_rng(9)
    values = rng.gamma(0.4, 50, (2, 80_000)).astype(np.float32)
    sketch, moments = sketched(values), Moments(2)
    for channel in range(2):
        moments.update_counted(*sketch.values(channel), channel)
    exact = values.astype(np.float64)
    np.testing.assert_allclose(moments.mean, exact.mean(1), rtol=1e-12)
    np.testing.assert_allclose(moments.std, exact.std(1), rtol=1e-7)


def test_zeros_of_both_signs_are_one_number():
    for dtype in (np.float16, np.float32):
        values = np.array([[-0.0, 0.0, -0.0, 5.0, -5.0]], dtype)
        result = sketched(values).quantiles([0.3, 0.5, 0.7])
        assert result.tolist() == [[0.0, 0.0, 0.0]]
        assert not np.signbit(result).any()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_infinities_are_numbers_at_the_ends(dtype):
    values = np.array([[-np.inf, 1.0, 2.0, np.inf, np.inf]], dtype)
    result = sketched(values).quantiles([0.0, 0.25, 0.5, 0.8, 1.0])
    assert result.tolist() == [[-np.inf, 1.0, 2.0, np.inf, np.inf]]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("bits", [1, 2], ids=["NaN that looks like infinity", "any NaN"])
def test_a_value_that_is_no_number_is_named(dtype, bits):
    kind = f"u{np.dtype(dtype).itemsize}"
    infinity = np.array(np.inf, dtype).view(kind)
    nan = (infinity | np.array(bits, kind)).view(dtype)
    block = np.array([[1, 2], [3, 4]], dtype)
    block[1, 1] = nan
    with pytest.raises(FormatError, match="tissue t1: channel 1 is nan at pixel 1 of the block"):
        QuantileSketch(dtype, 2).update(block, where="tissue t1")
    counted = QuantileSketch(dtype, 2)
    counted.update(block, mask=np.array([True, False]))  # outside the mask it does not count
    assert counted.count.tolist() == [1, 1]


def test_numbers_beyond_float32_are_refused_with_a_way_out():
    with pytest.raises(InvalidInputError, match=r"t1: channel 0 holds 1e\+39.*exact=True"):
        QuantileSketch(np.float64, 1).update(np.array([[1e39]]), where="t1")
    QuantileSketch(np.uint64, 1).update(np.array([[2**64 - 1]], np.uint64))


def test_tissues_that_measured_different_channels():
    sketch = QuantileSketch(np.uint8, 3)
    sketch.update(np.array([[1, 3], [10, 30]], np.uint8), channels=[2, 0])
    sketch.update(np.array([[5]], np.uint8), channels=[2])
    np.testing.assert_array_equal(sketch.quantiles([0.5]), [[20], [np.nan], [3]])
    assert sketch.count.tolist() == [2, 0, 3]


@pytest.mark.parametrize(
    ("narrow", "wide"), [("u1", "u2"), ("u2", "f4"), ("f4", "f8"), ("u2", "i4")]
)
def test_tissues_of_different_types_go_together_in_the_wider_one(narrow, wide):
    rng = np.random.default_rng(11)
    first = rng.integers(0, 256, (2, 5000)).astype(narrow)
    second = rng.integers(0, 4096, (2, 5000)).astype(wide)
    together = sketched(second)
    together.merge(sketched(first))
    expected = np.quantile(np.concatenate([first, second], axis=1).astype(float), WANTED, axis=1).T
    np.testing.assert_array_equal(together.quantiles(WANTED), expected)
    with pytest.raises(InvalidInputError, match="do not become"):
        sketched(np.full((2, 1), 3, "u2")).merge(sketched(np.full((2, 1), 3, "f4")))
    with pytest.raises(InvalidInputError, match="1 and 2 channels"):
        QuantileSketch(narrow, 1).merge(sketched(first))


def test_counts_can_be_kept_and_taken_up_again():
    values = np.random.default_rng(12).gamma(1, 40, (2, 900)).astype(np.float32)
    sketch = sketched(values)
    again = QuantileSketch.of_counts(np.float32, sketch.counts)
    again.update(values)
    np.testing.assert_array_equal(again.count, 2 * sketch.count)
    np.testing.assert_array_equal(again.quantiles([0.0, 1.0]), sketch.quantiles([0.0, 1.0]))
    one, two = np.array([4, 2], np.uint32), np.array([1, 1])
    for wrong in (
        ValueCounts(one, two),
        ValueCounts(one[:1], two),
        ValueCounts(one[:1], two[:1] - 1),
        ValueCounts(one[:1] + 256, two[:1]),
        ValueCounts(one[:1], two[:1], two[:1]),
    ):
        with pytest.raises(FormatError, match="no counts of uint8"):
            QuantileSketch.of_counts(np.uint8, [wrong])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: QuantileSketch(np.complex64, 1), "not of complex64"),
        (lambda: QuantileSketch(np.uint8, 0), "at least 1"),
        (lambda: QuantileSketch(np.uint8, 1).quantiles([]), "list of numbers"),
        (lambda: QuantileSketch(np.uint8, 1).quantiles([np.nan]), "from 0 to 1"),
        (
            lambda: QuantileSketch(np.uint8, 1).update(np.ones((1, 3), "u2")),
            "got a block of uint16",
        ),
        (lambda: QuantileSketch(np.uint8, 2).update(np.ones((1, 3), "u1")), "1 rows for 2"),
        (
            lambda: QuantileSketch(np.uint8, 1).update(np.ones((1, 3), "u1"), mask=np.ones(3)),
            "as many booleans",
        ),
    ],
    ids=["type", "channels", "none", "nan", "block", "rows", "mask"],
)
def test_wrong_requests_are_refused(call, words):
    with pytest.raises(InvalidInputError, match=words):
        call()


@pytest.mark.parametrize("folder", ["imc/img", "mibi"])
def test_real_channels(shared_data: Path, folder: str):
    """On real channels, sparse and heavy-tailed, the stated error holds at every quantile."""
    files = sorted((shared_data / folder).glob("*.tiff"))
    for path in (file for file in files if "mask" not in file.name):
        image = tifffile.imread(path)
        raw = image.reshape(len(image), -1) if image.ndim == 3 else image.reshape(1, -1)
        verify(raw)
        # Counts are whole numbers; spilled over neighbours or transformed they are not.
        single = raw.astype(np.float32)
        spilled = single * np.float32(0.731) + np.roll(single, 1, axis=1) / 3
        for values in (spilled, np.arcsinh(single / 5)):
            verify(values)
            counter = QuantileCounter(np.float32, len(values), [0.99, 0.999])
            while not counter.done:
                counter.update(values)
                counter.finish_pass()
            sketch = sketched(values)
            np.testing.assert_allclose(
                sketch.quantiles([0.99, 0.999]), counter.quantiles(), rtol=sketch.relative_error
            )
    assert files


@given(
    st.lists(
        st.floats(2.0**-10, 1e6, width=32) | st.integers(0, 5000).map(float),
        min_size=1,
        max_size=60,
    )
)
def test_values_of_a_bin_lie_within_its_half_width(values):
    pixels = np.asarray([values], np.float32)
    sketch = QuantileSketch(np.float32, 1)
    sketch.update(pixels)
    means, counts, widths = sketch.binned(0)
    assert means.shape == counts.shape == widths.shape
    near = np.abs(np.sort(pixels[0].astype(float)) - np.repeat(means, counts))
    assert (near <= np.repeat(widths, counts) * (1 + 1e-9)).all()
    assert not QuantileSketch(np.uint8, 1).binned(0)[2].any()


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_bins_of_nan_and_infinity_are_found_among_any(dtype):
    bins = Bins.of(dtype)
    special = np.zeros(bins.count, np.bool_)
    for part in bins.special_bins:
        special[part] = True
    edges = np.flatnonzero(np.diff(special, prepend=False))
    # At each edge of what is special, the bins beside it and at it; alone, and between others.
    for edge in {*edges.tolist(), 1, bins.count - 1}:
        for chosen in ([edge - 1], [edge], [0, edge - 1], [0, edge], [edge - 1, edge]):
            found = np.unique(chosen).astype(np.uint32)
            assert bins.special(found) == bool(special[found].any())
    assert not bins.special(np.zeros(0, np.uint32))
    assert not Bins.of(np.uint16).special(np.arange(1 << 16, dtype=np.uint32))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_what_is_counted_after_a_question_counts_in_the_next(dtype):
    rng = np.random.default_rng(5)
    # Large enough for the compiled loops.
    blocks = [rng.integers(0, 4000, (2, 1 << 17)).astype(dtype) for _ in range(3)]
    sketch = QuantileSketch(dtype, 2)
    for number, block in enumerate(blocks, start=1):
        sketch.update(block)
        seen = np.concatenate(blocks[:number], axis=1)
        assert (
            sketch.quantiles([0.5, 0.99]).tolist()
            == np.quantile(seen, [0.5, 0.99], axis=1).T.tolist()
        )
        values, counts = sketch.values(1)
        assert np.array_equal(np.repeat(values, counts), np.sort(seen[1]))
        assert sketch.count.tolist() == [seen.shape[1]] * 2
