"""`MicrometreGrid`: pixels, micrometres from the edge, OME-NGFF's space, and back."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.coordinates import FROM_EDGE, MicrometreGrid, counts_from_edge, micrometres_note
from microtome.errors import InvalidInputError

SIZES = st.sampled_from([0.125, 0.25, 0.2528, 0.5, 0.65, 1.0, 2.75])
SHIFTS = st.integers(-10_000, 10_000).map(lambda n: n / 8)


@given(
    size=st.tuples(SIZES, SIZES),
    shift=st.tuples(SHIFTS, SHIFTS),
    level=st.integers(0, 6),
    pixel=st.tuples(st.integers(-50, 10**5), st.integers(-50, 10**5)),
)
def test_a_pixel_of_any_level_lies_where_exact_numbers_say(size, shift, level, pixel):
    # The pyramid rule of our files: the middle of the first block of 2**k pixels.
    scale = tuple(s * 2**level for s in size)
    translation = tuple(t + s * (2**level - 1) / 2 for s, t in zip(size, shift, strict=True))
    grid = MicrometreGrid.from_ngff((1.0, *scale), (0.0, *translation), base=(size, shift))
    assert grid.start == (0.0, 0.0)
    exact = [
        (Fraction(n) + Fraction(1, 2)) * Fraction(s) * 2**level
        for n, s in zip(pixel, size, strict=True)
    ]
    found = grid.middles(pixel)
    np.testing.assert_allclose(found, [float(value) for value in exact], rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(grid.to_pixels(found), np.add(pixel, 0.5), rtol=1e-12, atol=1e-9)
    stored = [t + n * s for n, s, t in zip(pixel, scale, translation, strict=True)]
    np.testing.assert_allclose(grid.to_ngff(found), stored, rtol=1e-9, atol=1e-7)
    np.testing.assert_allclose(grid.places_of_ngff(stored), found, rtol=1e-9, atol=1e-7)


def test_a_level_that_begins_elsewhere_does():
    # A level of another program, which begins two pixels of the finest one further right.
    grid = MicrometreGrid.from_ngff((1.0, 1.0), (0.25, 1.25), base=((0.5, 0.5), (0.0, 0.0)))
    assert grid.start == (0.0, 1.0)
    assert grid.middles([0, 0]).tolist() == [0.5, 1.5]
    assert grid.to_ngff([0.5, 1.5]).tolist() == [0.25, 1.25]
    assert grid.to_pixels([0.5, 1.5]).tolist() == [0.5, 0.5]


def test_without_a_file_the_first_middle_is_ngffs_zero():
    grid = MicrometreGrid.from_mpp((0.5, 0.25))
    assert grid.to_ngff(grid.middles([[0, 0], [4, 4]])).tolist() == [[0.0, 0.0], [2.0, 1.0]]
    assert MicrometreGrid.from_mpp(0.5) == MicrometreGrid((0.5, 0.5))


@given(
    mpp=SIZES,
    pixel=st.integers(0, 10**5),
    size=st.integers(1, 600),
)
def test_a_window_lies_around_the_middle_of_a_pixel(mpp, pixel, size):
    grid = MicrometreGrid.from_mpp(mpp)
    start = int(grid.windows(grid.middles([pixel, pixel]), size)[0])
    # Odd: the pixel is in its middle. Even: of two that are as good, the one further down.
    assert start == pixel - (size - 1) // 2


@given(place=st.floats(0, 1e5), mpp=SIZES, size=st.integers(1, 600))
def test_a_window_lies_around_any_place(place, mpp, size):
    start = int(MicrometreGrid.from_mpp(mpp).windows([place, place], size)[1])
    assert abs(start + size / 2 - place / mpp) <= 0.5 + 2e-6


@pytest.mark.parametrize("mpp", [0, -0.5, float("nan"), float("inf"), (0.5, 0), (1, 2, 3), "x"])
def test_sizes_that_cannot_be_are_refused(mpp):
    with pytest.raises(InvalidInputError, match="mpp must be"):
        MicrometreGrid.from_mpp(mpp)


@pytest.mark.parametrize(
    "values", [((0.0, 1.0),), ((1.0, 1.0), (np.nan, 0.0)), ((1.0, 1.0), (0.0, 0.0), (np.inf, 0.0))]
)
def test_grids_that_cannot_be_are_refused(values):
    with pytest.raises(InvalidInputError, match="above 0 and lie at finite"):
        MicrometreGrid(*values)


def noted(**note):
    return {b"microtome": json.dumps(note).encode()}


@pytest.mark.parametrize("form", ["tile-embeddings", "pooled-labels"])
def test_what_a_table_says(form):
    assert counts_from_edge(noted(format=form, micrometres_from=FROM_EDGE))
    assert not counts_from_edge(noted(format=form, version=1))
    assert "OME-NGFF" in micrometres_note(noted(format=form))["micrometres_from"]
    for others in (
        None,
        {},
        {b"pandas": b"{}"},
        noted(format="tiles"),
        {b"microtome": b"[1]"},
        {b"microtome": b"\xff"},
    ):
        assert counts_from_edge(others)
        assert micrometres_note(others) == {
            "spatial_unit": "micrometer",
            "micrometres_from": FROM_EDGE,
        }
