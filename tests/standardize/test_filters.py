"""Filters of tiles, against SciPy on the whole image."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from microtome.errors import InvalidInputError
from microtome.standardize import build_filters, register_filter, registered_filters

# scipy calls "mirror" what torch and numpy call "reflect": the edge pixel is not repeated.
KERNEL = np.exp(-0.5 * np.arange(-1, 2) ** 2)
KERNEL /= KERNEL.sum()


def blurred(image):
    """The normalized 3 x 3 Gaussian of sigma 1 as one two-dimensional correlation, in doubles."""
    weights = np.outer(KERNEL, KERNEL)[None]
    return ndimage.correlate(image.astype(np.float64), weights, mode="mirror")


def medians(image):
    return ndimage.median_filter(image, (1, 3, 3), mode="mirror")


EXPECTED = {
    ("gaussian_blur",): blurred,
    ("median_filter",): medians,
    ("gaussian_blur", "median_filter"): lambda image: medians(blurred(image)),
    ("median_filter", "gaussian_blur"): lambda image: blurred(medians(image)),
    ("median_filter", "median_filter"): lambda image: medians(medians(image)),
}


def pixels(height, width, channels=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.gamma(0.5, 9.0, (channels, height, width)).astype(np.float32)


def read_tile(image, row, col, size, halo):
    """A tile with the halo around it, and the part of it that lies inside the image."""
    height, width = image.shape[-2:]
    top, left, side = row - halo, col - halo, size + 2 * halo
    tile = np.full((len(image), side, side), -1e6, np.float32)  # what must not be looked at
    y0, y1 = max(top, 0), max(min(top + side, height), top, 0)
    x0, x1 = max(left, 0), max(min(left + side, width), left, 0)
    tile[:, y0 - top : y1 - top, x0 - left : x1 - left] = image[:, y0:y1, x0:x1]
    empty = y1 == y0 or x1 == x0
    return tile, (0, 0, 0, 0) if empty else (y0 - top, x0 - left, y1 - y0, x1 - x0)


@pytest.mark.parametrize("names", EXPECTED, ids="+".join)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2), (3, 40), (61, 47), (300, 301)], ids=str)
def test_a_whole_image_is_what_scipy_makes_of_it(names, size):
    image = pixels(*size)
    before = image.copy()
    result = build_filters(names)(image)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, EXPECTED[names](image), rtol=2e-6)
    np.testing.assert_array_equal(image, before)


def test_medians_are_exact_with_ties_and_signs():
    image = np.random.default_rng(1).integers(-3, 4, (3, 50, 60)).astype(np.float32)
    np.testing.assert_array_equal(build_filters(["median_filter"])(image), medians(image))


@given(
    names=st.lists(st.sampled_from(["gaussian_blur", "median_filter"]), max_size=4),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    corner=st.tuples(st.integers(-12, 42), st.integers(-12, 42)),
    size=st.integers(1, 20),
)
def test_a_tile_with_its_halo_equals_the_crop_of_the_filtered_image(
    names, height, width, corner, size
):
    chain = build_filters(names)
    assert chain.halo == len(names)
    image = pixels(height, width)
    whole = chain(image)
    tile, valid = read_tile(image, *corner, size, chain.halo)
    core = slice(chain.halo, chain.halo + size)
    result = chain(tile, valid=valid)[:, core, core]
    expected, window = read_tile(whole, *corner, size, 0)
    row, col, rows, cols = window
    inside = slice(row, row + rows), slice(col, col + cols)
    np.testing.assert_array_equal(result[:, *inside], expected[:, *inside])


def test_a_batch_of_tiles_with_windows_of_their_own_is_filtered_like_each():
    chain = build_filters(["gaussian_blur", "median_filter"])
    image = pixels(90, 70, channels=3)
    corners = [(-5, -5), (20, 20), (60, 50), (200, 0)]
    read = [read_tile(image, *corner, 32, chain.halo) for corner in corners]
    batch, windows = (np.array(part) for part in zip(*read, strict=True))
    whole = chain(batch, valid=windows)
    for tile, valid, result in zip(batch, windows, whole, strict=True):
        np.testing.assert_array_equal(result, chain(tile, valid=valid))
    assert (whole[3] == -1e6).all()  # outside the image all is left as it is
    np.testing.assert_array_equal(chain(batch[:2])[1], chain(batch[1]))


def test_planes_larger_than_a_piece_are_filtered_strip_by_strip(monkeypatch):
    from microtome.standardize import _filters

    image = pixels(70, 90)
    chain = build_filters(["median_filter", "gaussian_blur"])
    expected = chain(image)
    for piece in (1, 91, 500, 20_000):
        monkeypatch.setattr(_filters, "_PIECE", piece)
        np.testing.assert_array_equal(chain(image), expected)


def test_results_go_where_they_are_wanted():
    image = pixels(20, 20)
    chain = build_filters(["median_filter"])
    expected = chain(image)
    out = np.empty_like(image)
    assert chain(image, out=out) is out
    np.testing.assert_array_equal(out, expected)
    assert chain(image, out=image) is image
    np.testing.assert_array_equal(image, expected)


def test_no_filters_change_nothing_and_integers_become_floats():
    image = np.arange(24, dtype=np.uint16).reshape(1, 4, 6)
    for names in ([], ["median_filter"]):
        assert build_filters(names)(image).dtype == np.float32
    np.testing.assert_array_equal(build_filters([])(image), image)
    assert build_filters([]).halo == 0


def _second_left(planes):
    return planes[:, 2:-2, :-4]


def test_a_filter_of_ones_own_with_a_wider_halo():
    register_filter("two_to_the_left", _second_left, halo=2)
    assert "two_to_the_left" in registered_filters()
    chain = build_filters(["two_to_the_left", "gaussian_blur"])
    assert (chain.halo, chain.names) == (3, ("two_to_the_left", "gaussian_blur"))
    image = pixels(9, 9)
    shifted = np.pad(image, ((0, 0), (0, 0), (2, 2)), mode="reflect")[..., :9]
    np.testing.assert_allclose(chain(image), blurred(shifted), rtol=2e-6)
    # It is known to this process only; the chain takes it along to others.
    again = pickle.loads(pickle.dumps(chain))
    np.testing.assert_array_equal(again(image), chain(image))
    with pytest.raises(InvalidInputError, match="'two_to_the_left' already"):
        register_filter("two_to_the_left", _second_left, halo=2)
    register_filter("forgets_its_halo", _second_left, halo=1)
    with pytest.raises(InvalidInputError, match=r"'forgets_its_halo'.*halo of 1 must give"):
        build_filters(["forgets_its_halo"])(image)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["sharpen"], r"no filter 'sharpen'; there are .*gaussian_blur"),
        ("median_filter", r"\['medi"),
    ],
)
def test_unknown_filters(names, words):
    with pytest.raises(InvalidInputError, match=words):
        build_filters(names)


@pytest.mark.parametrize(("name", "halo"), [("Blur", 1), ("blur/3", 1), ("blur_more", -1)])
def test_names_and_halos_that_are_none(name, halo):
    with pytest.raises(InvalidInputError):
        register_filter(name, _second_left, halo=halo)


@pytest.mark.parametrize(
    ("shape", "valid", "words"),
    [
        ((5, 5), None, "must be"),
        ((1, 5, 5), (0, 0, 6, 5), "reaches out"),
        ((2, 1, 5, 5), [(0, 0, 5, 5)] * 3, "every tile"),
        ((2, 1, 5, 5), (0.0, 0.0, 5.0, 5.0), "every tile"),
    ],
    ids=["axes", "outside", "count", "floats"],
)
def test_wrong_batches(shape, valid, words):
    with pytest.raises(InvalidInputError, match=words):
        build_filters(["median_filter"])(np.zeros(shape, np.float32), valid=valid)
