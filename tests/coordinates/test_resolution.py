"""Pixel sizes that know where they come from, and the resolution that names a cohort's folders."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.coordinates import MPP_SOURCES, Mpp, Resolution
from microtome.errors import InvalidInputError, NoResolutionError

# ------------------------------------------------------------------ Mpp


def test_one_number_or_a_pair_or_itself():
    assert Mpp.from_user(0.5) == Mpp(0.5, 0.5, "user")
    assert Mpp.from_user((0.5, 0.25)) == Mpp(0.5, 0.25, "user")
    assert Mpp.from_user(np.float32(0.5)) == Mpp(0.5, 0.5, "user")
    read = Mpp(0.5, 0.5, "tag")
    assert Mpp.from_user(read) is read


def test_a_coarser_level_has_larger_pixels_and_the_same_source():
    assert Mpp(0.5, 0.25, "tag").scaled(4) == Mpp(2.0, 1.0, "tag")
    assert Mpp(0.5, 0.25, "tag").scaled(2, 8) == Mpp(1.0, 2.0, "tag")


def test_it_says_where_it_came_from():
    assert str(Mpp(0.499, 0.499, "metadata")) == "0.499 um/px (from metadata)"
    assert str(Mpp(0.5, 0.25, "user")) == "0.5 x 0.25 (y, x) um/px (from user)"


@pytest.mark.parametrize("value", [0.0, -0.5, 1e-5, 1001.0, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1])
def test_an_impossible_pixel_size_names_the_override(value, place):
    y, x = [(value, 0.5), (0.5, value)][place]
    with pytest.raises(NoResolutionError, match="--mpp"):
        Mpp(y, x, "metadata")
    with pytest.raises(NoResolutionError, match="from user"):
        Mpp.from_user((y, x))


@pytest.mark.parametrize("value", [1e-4, 1e3])
def test_the_ends_of_the_possible_are_possible(value):
    assert Mpp(value, value, "tag").y == value
    assert Resolution.parse(value).mpp == (value, value)


@pytest.mark.parametrize(
    "value", [None, "half", [0.5, 0.5], (0.5,), (0.5, 0.5, 0.5), ("a", 1)], ids=repr
)
def test_what_is_no_pixel_size_is_refused(value):
    with pytest.raises(InvalidInputError, match="micrometres per pixel"):
        Mpp.from_user(value)


def test_a_source_that_nobody_knows_is_refused():
    with pytest.raises(InvalidInputError, match="guess"):
        Mpp(0.5, 0.5, "guess")
    assert {Mpp(1, 1, source).source for source in MPP_SOURCES} == set(MPP_SOURCES)


# ------------------------------------------------------------------ Resolution


@pytest.mark.parametrize(
    "value",
    [1, 1.0, "1", "1.0", "1_0mpp", "1mpp", "1.", "1e0", "01.00", "1_0x1_0mpp", (1, "1.0")],
    ids=repr,
)
def test_spellings_of_one_micrometre(value):
    one = Resolution.parse(value)
    assert one == Resolution(Decimal(1), Decimal(1))
    assert hash(one) == hash(Resolution.parse(1))
    assert one.directory == "1_0mpp"
    assert one.mpp == (1.0, 1.0)
    assert str(one) == "1"


@pytest.mark.parametrize(
    ("value", "directory"),
    [
        (0.65, "0_65mpp"),
        ("0_65mpp", "0_65mpp"),
        (np.float32(0.65), "0_65mpp"),
        (np.float64(0.65), "0_65mpp"),
        (".65", "0_65mpp"),
        ("0_5x0_65mpp", "0_5x0_65mpp"),
        ((0.5, 0.65), "0_5x0_65mpp"),
        (1e-4, "0_0001mpp"),
        (100, "100_0mpp"),
        ("1e2", "100_0mpp"),
        (0.499, "0_499mpp"),
    ],
    ids=repr,
)
def test_the_directory_of_a_resolution(value, directory):
    parsed = Resolution.parse(value)
    assert parsed.directory == directory
    assert Resolution.parse(directory) == parsed
    assert Resolution.parse(parsed) is parsed


def test_height_comes_first():
    assert Resolution.parse("0_5x0_65mpp").mpp == (0.5, 0.65)
    assert str(Resolution.parse((0.5, 0.65))) == "0.5 x 0.65"


@pytest.mark.parametrize(
    "value",
    [
        "",
        ".",
        "abc",
        "mpp",
        "0_5",  # Decimal would read five micrometres here
        "5_0_0mpp",
        "1_0mpp\n",
        " 1",
        "1_0 mpp",
        "1_mpp",
        "x1mpp",
        "0_5xmpp",
        "\u0661mpp",  # an Arabic-Indic one, which Decimal reads
        "-1",
        "+1",
        "0",
        "0_0mpp",
        "nan",
        "sNaN",
        "inf",
        "1e9",
        "1e999999999",
        "0.00001",
        1001,
        0,
        -1,
        math.nan,
        math.inf,
        None,
        True,
        [0.5, 0.5],
        (0.5,),
        (0.5, 0.5, 0.5),
        (),
        (0.5, None),
        1j,
    ],
    ids=repr,
)
def test_nonsense_is_refused(value):
    with pytest.raises(InvalidInputError, match="resolution"):
        Resolution.parse(value)


@given(st.integers(1, 10**7), st.integers(1, 10**7))
def test_a_directory_names_one_resolution_and_gives_it_back(y, x):
    # Ten-thousandths of a micrometre, as exact fractions: no decimal arithmetic of the code's own.
    text = [f"{value // 10000}.{value % 10000:04}" for value in (y, x)]
    parsed = Resolution.parse((text[0], text[1]))
    assert (Fraction(parsed.y), Fraction(parsed.x)) == (Fraction(y, 10000), Fraction(x, 10000))
    assert Resolution.parse(parsed.directory) == parsed
    assert Resolution.parse((float(text[0]), float(text[1]))) == parsed
    assert parsed.mpp == (y / 10000, x / 10000)
    assert "." not in parsed.directory
