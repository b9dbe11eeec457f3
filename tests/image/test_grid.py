"""Reading at any pixel size, against exact fractions, block means and scipy's interpolation."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from microtome.coordinates import Mpp
from microtome.errors import InvalidInputError, NoResolutionError, OutOfRangeError
from microtome.image import grid_size, halve_mean

# Ratios of small whole numbers: whether an edge lies on a grid line is never a close call.
RATIOS = st.tuples(st.integers(1, 24), st.integers(1, 9)).map(lambda pq: Fraction(*pq))
PAIRS = st.tuples(st.integers(1, 9), st.integers(1, 9)).map(sorted)
COARSER = PAIRS.map(lambda pair: Fraction(pair[1], pair[0]))
FINER = PAIRS.map(lambda pair: Fraction(pair[0], pair[1] + 1))
SIDES = st.integers(1, 17)


def noise(shape, dtype="uint16", seed=0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    if dtype == "bool":
        return generator.integers(0, 2, shape).astype(bool)
    if np.dtype(dtype).kind == "f":
        return generator.normal(0, 100, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return generator.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


def size_of_grid(size: int, ratio: Fraction) -> int:
    return math.ceil(size / ratio)


def wanted(ratio_y: Fraction, ratio_x: Fraction) -> tuple[float, float]:
    """The pixel size that is this many pixels of 0.5 um."""
    return float(ratio_y / 2), float(ratio_x / 2)


def shares(size: int, ratio: Fraction) -> list[list[Fraction]]:
    """What part of each output pixel each source pixel makes, in exact arithmetic."""
    rows = []
    for j in range(size_of_grid(size, ratio)):
        low, high = j * ratio, min((j + 1) * ratio, Fraction(size))
        parts = [max(min(high, i + 1) - max(low, i), Fraction()) for i in range(size)]
        rows.append([part / sum(parts) for part in parts])
    return rows


def exact_area(plane: np.ndarray, ratio_y: Fraction, ratio_x: Fraction) -> np.ndarray:
    """The area-weighted mean, rounded half up where the type is an integer: a double loop."""
    rows, columns = shares(plane.shape[0], ratio_y), shares(plane.shape[1], ratio_x)
    out = np.empty((len(rows), len(columns)), object)
    for (j, row), (i, column) in itertools.product(enumerate(rows), enumerate(columns)):
        out[j, i] = sum(
            (
                weight_y * weight_x * Fraction(plane[y, x].item())
                for y, weight_y in enumerate(row)
                if weight_y
                for x, weight_x in enumerate(column)
                if weight_x
            ),
            Fraction(),
        )
    if plane.dtype.kind == "b":
        return out >= Fraction(1, 2)
    if plane.dtype.kind in "iu":
        return np.vectorize(lambda v: math.floor(v + Fraction(1, 2)))(out).astype(plane.dtype)
    return out.astype(np.float64)


# ------------------------------------------------------------------ coarser: area


@settings(max_examples=60)
@given(SIDES, SIDES, COARSER, COARSER, st.sampled_from(["uint8", "int16", "bool", "float32"]))
def test_coarser_pixels_are_the_mean_of_the_area_they_cover(in_memory, h, w, ry, rx, dtype):
    pixels = noise((2, h, w), dtype)
    read = in_memory(pixels).read_at(mpp=wanted(ry, rx))
    assert read.dtype == dtype
    assert read.shape == (2, size_of_grid(h, ry), size_of_grid(w, rx))
    for got, plane in zip(read, pixels, strict=True):
        expected = exact_area(plane, ry, rx)
        if dtype == "float32":
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-4)
        else:
            np.testing.assert_array_equal(got, expected)


@given(SIDES, SIDES, st.integers(1, 9), st.integers(1, 9))
def test_a_whole_ratio_is_the_mean_of_blocks(in_memory, h, w, ky, kx):
    pixels = noise((1, h, w), "uint16")
    padded = np.full((-(-h // ky) * ky, -(-w // kx) * kx), np.nan)
    padded[:h, :w] = pixels[0]
    blocks = padded.reshape(padded.shape[0] // ky, ky, padded.shape[1] // kx, kx)
    # Sums of 16-bit numbers are exact, so one division rounds, and half up is sharp.
    sums, counts = np.nansum(blocks, axis=(1, 3)), (~np.isnan(blocks)).sum(axis=(1, 3))
    expected = (2 * sums.astype(np.int64) + counts) // (2 * counts)
    read = in_memory(pixels).read_at(mpp=(0.5 * ky, 0.5 * kx))
    np.testing.assert_array_equal(read[0], expected)


@pytest.mark.parametrize("dtype", ["int64", "uint64", "int32", "uint8"])
def test_the_largest_integers_do_not_wrap(in_memory, dtype):
    limits = np.iinfo(dtype)
    for value in (limits.max, limits.min):
        read = in_memory(np.full((1, 3, 3), value, dtype)).read_at(mpp=(0.75, 0.6))
        # Wide integers have more digits than the arithmetic.
        np.testing.assert_allclose(read.astype(float), float(value), rtol=1e-15)


@given(SIDES, SIDES)
def test_reading_at_twice_the_pixel_is_the_first_level(in_memory, h, w):
    pixels = noise((2, h, w), "uint16")
    halved = halve_mean(pixels)
    both = in_memory([pixels, halved])
    np.testing.assert_array_equal(both.read_at(mpp=1.0), halved)
    np.testing.assert_array_equal(in_memory(pixels).read_at(mpp=1.0), halved)


# ------------------------------------------------------------------ finer: linear


@settings(max_examples=60)
@given(SIDES, SIDES, FINER, FINER, st.sampled_from(["uint8", "int16", "float32", "float64"]))
def test_finer_pixels_are_interpolated_between_centres(in_memory, h, w, ry, rx, dtype):
    pixels = noise((2, h, w), dtype)
    read = in_memory(pixels).read_at(mpp=wanted(ry, rx))
    assert read.dtype == dtype
    y = (np.arange(size_of_grid(h, ry)) + 0.5) * float(ry) - 0.5
    x = (np.arange(size_of_grid(w, rx)) + 0.5) * float(rx) - 0.5
    for got, plane in zip(read, pixels.astype(np.float64), strict=True):
        # Beyond the outer centres the nearest pixel continues.
        inside = np.meshgrid(np.clip(y, 0, h - 1), np.clip(x, 0, w - 1), indexing="ij")
        expected = ndimage.map_coordinates(plane, inside, order=1, mode="nearest")
        if np.dtype(dtype).kind == "f":
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-4)
        else:
            # Both round in float64; where they meet a half from two sides they may differ by one.
            close = np.abs(expected - np.floor(expected) - 0.5) < 1e-6
            np.testing.assert_array_equal(got[~close], np.floor(expected + 0.5)[~close])
            assert (np.abs(got[close] - expected[close]) <= 0.5 + 1e-6).all()


@given(SIDES, SIDES, FINER)
def test_each_axis_is_resampled_in_its_own_way(in_memory, h, w, rx):
    # Coarser along y, finer along x: rows are averaged, whatever columns are.
    pixels = noise((1, h, w), "float64")
    means = np.array([pixels[0, i : i + 2].mean(axis=0) for i in range(0, h, 2)])[None]
    both = in_memory(pixels).read_at(mpp=(1.0, float(rx / 2)))
    expected = in_memory(means, mpp=(1.0, 0.5)).read_at(mpp=(1.0, float(rx / 2)))
    np.testing.assert_allclose(both, expected, rtol=1e-12, atol=1e-12)


# ------------------------------------------------------------------ labels: nearest


@given(SIDES, SIDES, RATIOS, RATIOS)
def test_labels_are_those_under_the_centre(in_memory, h, w, ry, rx):
    labels = np.arange(h * w, dtype=np.uint32).reshape(h, w)
    read = in_memory(labels, "yx", kind="labels").read_at(mpp=wanted(ry, rx))
    for (j, i), label in np.ndenumerate(read):
        y = min(math.floor((j + Fraction(1, 2)) * ry), h - 1)
        x = min(math.floor((i + Fraction(1, 2)) * rx), w - 1)
        assert label == labels[y, x]


@pytest.mark.parametrize("interpolation", ["area", "linear"])
def test_labels_are_never_averaged(in_memory, interpolation):
    labels = in_memory(np.zeros((4, 4), np.uint8), "yx", kind="labels")
    for mpp in (0.5, 1.0):  # also where nothing would be resampled
        with pytest.raises(InvalidInputError, match="labels are never averaged"):
            labels.read_at(mpp=mpp, interpolation=interpolation)


def test_a_method_nobody_knows_is_refused(in_memory):
    image = in_memory(np.zeros((1, 4, 4), np.uint8))
    for mpp in (0.5, 1.0):
        with pytest.raises(InvalidInputError, match="'cubic'"):
            image.read_at(mpp=mpp, interpolation="cubic")


def test_a_method_may_be_chosen(in_memory):
    pixels = np.array([[[0, 10, 20, 30]]], dtype=np.uint8)
    image = in_memory(pixels)
    assert image.read_at(mpp=(0.5, 1.0), interpolation="nearest").tolist() == [[[10, 30]]]
    assert image.read_at(mpp=(0.5, 1.0), interpolation="area").tolist() == [[[5, 25]]]
    assert image.read_at(mpp=(0.5, 1.5), interpolation="linear").tolist() == [[[10, 30]]]
    assert image.read_at(mpp=(0.5, 0.25), interpolation="area").tolist() == [
        [[0, 0, 10, 10, 20, 20, 30, 30]]
    ]


# ------------------------------------------------------------------ pieces and wholes


def cuts(data, size: int) -> list[tuple[int, int]]:
    marks = (
        data.draw(st.lists(st.integers(1, size - 1), max_size=3, unique=True)) if size > 1 else []
    )
    edges = [0, *sorted(marks), size]
    return list(itertools.pairwise(edges))


@settings(max_examples=150)
@given(data=st.data())
def test_a_box_read_whole_is_the_mosaic_of_its_pieces(in_memory, data):
    h, w = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    dtype = data.draw(st.sampled_from(["uint8", "float32", "float64"]))
    pixels = noise((2, h, w), dtype)
    if pixels.dtype.kind == "f":
        # Where nothing is a number, or has an end, the neighbours must not be touched by it.
        pixels.ravel()[:: data.draw(st.integers(3, 50))] = data.draw(
            st.sampled_from([np.nan, np.inf, -np.inf])
        )
    levels = [pixels]
    for _ in range(data.draw(st.integers(0, 2))):
        levels.append(halve_mean(levels[-1]))
    image = in_memory(levels)
    # Any pixel size, awkward ones included.
    mpp = Mpp(data.draw(st.floats(0.11, 4)), data.draw(st.floats(0.11, 4)), "user")
    kind = data.draw(st.sampled_from(["auto", "area", "linear", "nearest"]))
    height, width = image.grid_at(mpp)
    with np.errstate(invalid="ignore"):  # inf - inf, between two infinite neighbours
        whole = image.read_at(mpp=mpp, interpolation=kind)
        assert whole.shape == (2, height, width)
        for y, x in itertools.product(cuts(data, height), cuts(data, width)):
            piece = image.read_grid(mpp, y, x, interpolation=kind)
            np.testing.assert_array_equal(piece, whole[:, slice(*y), slice(*x)])


def test_infinite_pixels_stay_what_they_are(in_memory):
    pixels = np.array([[[1.0, np.inf, 2.0, 3.0]]], dtype=np.float32)
    image = in_memory(pixels)
    # Finer by two: centres at 0.75 and 1.25 lie between the infinite pixel and a neighbour.
    finer = image.read_at(mpp=(0.5, 0.25))
    assert finer.tolist() == [[[1, np.inf, np.inf, np.inf, np.inf, 2.25, 2.75, 3]]]
    # On centres exactly: nothing but the pixel itself has a share.
    assert image.read_at(mpp=(0.5, 1.5), interpolation="linear").tolist() == [[[np.inf, 3]]]
    assert image.read_at(mpp=(0.5, 1.0)).tolist() == [[[np.inf, 2.5]]]


@settings(max_examples=60)
@given(data=st.data())
def test_a_region_in_micrometres_is_the_pixels_it_touches(in_memory, data):
    h, w = data.draw(SIDES), data.draw(SIDES)
    ry, rx = data.draw(RATIOS), data.draw(RATIOS)
    image = in_memory(noise((1, h, w)))
    whole = image.read_at(mpp=wanted(ry, rx))
    # In sixteenths of an output pixel, so that edges lie on grid lines often and exactly.
    bounds = []
    for size in whole.shape[:0:-1]:
        start = data.draw(st.integers(-20, 16 * size - 1))
        bounds.append((start, data.draw(st.integers(max(start, 0) + 1, 16 * size + 40))))
    (x0, x1), (y0, y1) = bounds
    unit_x, unit_y = rx / 32, ry / 32
    region = tuple(map(float, (x0 * unit_x, y0 * unit_y, x1 * unit_x, y1 * unit_y)))
    read = image.read_at(mpp=wanted(ry, rx), region=region)
    rows = slice(max(y0 // 16, 0), -(-y1 // 16))
    columns = slice(max(x0 // 16, 0), -(-x1 // 16))
    np.testing.assert_array_equal(read, whole[:, rows, columns])


def test_neighbouring_regions_share_no_pixel(in_memory):
    # Tiles of 112 um at 0.499 um, as they come out of a table: x * 112 in floating point.
    pixels = noise((1, 3, 700))
    image = in_memory(pixels, mpp=(0.5, 0.499))
    edges = [k * 11.2 for k in range(20)]
    parts = [
        image.read_at(mpp=(0.5, 0.7), region=(a, 0, b, 1.5)) for a, b in itertools.pairwise(edges)
    ]
    assert [part.shape[-1] for part in parts] == [16] * 19
    whole = image.read_at(mpp=(0.5, 0.7), region=(edges[0], 0, edges[-1], 1.5))
    np.testing.assert_array_equal(np.concatenate(parts, axis=-1), whole)


@pytest.mark.parametrize(
    "region",
    [
        (0, 0, 0, 5),
        (5, 5, 1, 1),
        (0, 0, math.nan, 5),
        (0, 0, math.inf, 5),
        (0, 0, 5),
        (100, 0, 200, 5),
        (-5, -5, -1, -1),
        (0, 2.2, 5, 3),
    ],
)
def test_a_region_that_holds_nothing_is_refused(in_memory, region):
    image = in_memory(noise((1, 4, 4)))
    with pytest.raises(InvalidInputError, match="region"):
        image.read_at(mpp=0.7, region=region)


@pytest.mark.parametrize(
    ("y", "x"),
    [((0, 0), (0, 1)), ((0, 1), (3, 2)), ((-1, 1), (0, 1)), ((0, 3), (0, 1)), ((0, 1), (0, 3))],
)
@pytest.mark.parametrize("size", [0.5, 1.0, 1.1])
def test_pixels_outside_the_grid_are_refused(in_memory, y, x, size):
    image = in_memory(noise((1, 2, 2)))
    with pytest.raises(InvalidInputError, match="do not lie inside its grid"):
        image.read_grid(Mpp(size, size, "user"), y, x)


@given(st.integers(1, 10**6), RATIOS)
def test_the_size_of_a_grid(size, ratio):
    assert grid_size(size, float(ratio)) == size_of_grid(size, ratio)


def test_a_pixel_size_that_is_off_by_rounding_makes_no_extra_pixel(in_memory):
    image = in_memory(noise((1, 100, 100)), mpp=(0.1, 0.1))
    for value in (0.3, 0.1 * 3, 0.1 + 0.2, 0.3 + 1e-9):
        assert image.grid_at(Mpp(value, value, "user")) == (34, 34)
    assert image.grid_at(Mpp(0.2, 1 / 3, "user")) == (50, 30)
    assert image.read_at(mpp=0.1 + 1e-12).tolist() == image.read_at(mpp=0.1).tolist()


def test_channels_are_chosen_before_resampling(in_memory):
    pixels = noise((3, 8, 8))
    image = in_memory(pixels)
    whole = image.read_at(mpp=0.8)
    np.testing.assert_array_equal(image.read_at(mpp=0.8, channels=["C2", "C0"]), whole[[2, 0]])
    np.testing.assert_array_equal(image.read_at(mpp=0.5, channels=1), pixels[1:2])


# ------------------------------------------------------------------ which level


def test_the_coarsest_level_that_is_fine_enough_is_read(in_memory):
    # Constant levels: what is read tells where it came from.
    levels = [np.full((1, -(-64 // 2**k), -(-48 // 2**k)), k, np.uint8) for k in range(4)]
    image = in_memory(levels)  # 0.5, 1, 2 and 4 um
    for mpp, level in [
        (0.1, 0), (0.5, 0), (0.99, 0), (1.0, 1), (1.5, 1), (2.0, 2), (3.999, 2), (4.0, 3), (9.0, 3),
        ((1.0, 0.5), 0), ((0.5, 4.0), 0), ((2.0, 1.0), 1), ((8.0, 2.0), 2),
        ((4.0 - 1e-12, 4.0), 3),  # equal but for rounding
    ]:  # fmt: skip
        size = Mpp.from_user(mpp)
        assert image.best_level(size) == level, mpp
        assert set(image.read_at(mpp=mpp).ravel().tolist()) == {level}, mpp


def test_levels_of_any_factor(in_memory):
    levels = [np.full((1, n, n), k, np.uint8) for k, n in enumerate((90, 30, 18))]
    image = in_memory(levels, factors=[(1, 1), (3, 3), (5, 5)])
    assert [image.best_level(Mpp(v, v, "user")) for v in (0.5, 1.4, 1.5, 2.4, 2.5, 7)] == [
        0, 0, 1, 1, 2, 2,
    ]  # fmt: skip
    np.testing.assert_array_equal(image.read_at(mpp=3.0), np.full((1, 15, 15), 2))


def test_a_level_whose_writer_rounded_down_is_continued(in_memory):
    # Other writers halve 5 pixels to 2; the grid of the image has 3.
    base = noise((1, 5, 7), "uint8")
    coarse = halve_mean(base)[:, :2, :3]
    image = in_memory([base, coarse])
    size = Mpp(1.0, 1.0, "user")
    assert image.grid_at(size) == (3, 4)
    assert image.best_level(size) == 1
    read = image.read_at(mpp=1.0)
    np.testing.assert_array_equal(read[:, :2, :3], coarse)
    np.testing.assert_array_equal(read, np.pad(coarse, [(0, 0), (0, 1), (0, 1)], mode="edge"))
    pieces = [image.read_grid(size, (j, j + 1), (0, 4)) for j in range(3)]
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), read)
    assert image.read_at(mpp=1.3).shape == (1, 2, 3)


def test_a_level_that_ends_too_early_is_passed_over(in_memory):
    base = noise((1, 9, 9), "uint8")
    cropped = halve_mean(base)[:, :3, :]  # six of nine rows
    image = in_memory([base, cropped])
    assert image.best_level(Mpp(1.0, 1.0, "user")) == 0
    np.testing.assert_array_equal(image.read_at(mpp=1.0), halve_mean(base))


def test_without_a_pixel_size_there_is_no_grid(in_memory):
    image = in_memory(noise((1, 4, 4)), mpp=None)
    for attempt in (
        lambda: image.read_at(mpp=1.0),
        lambda: image.grid_at(Mpp(1, 1, "user")),
        lambda: image.best_level(Mpp(1, 1, "user")),
        lambda: image.level_mpp(0),
    ):
        with pytest.raises(NoResolutionError, match="--mpp"):
            attempt()
    with pytest.raises(OutOfRangeError):
        image.level(1)
