"""Resampled pixels as floating numbers: what they are before they are rounded to the level's type."""

from __future__ import annotations

import numpy as np
import pytest

import microtome as mt
from microtome.errors import InvalidInputError

PIXELS = np.random.default_rng(0).poisson(0.2, (2, 64, 48)).astype(np.uint8)


@pytest.fixture
def image():
    return mt.open_image(PIXELS, axes="cyx", mpp=1.0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_means_are_not_rounded(image, dtype):
    read = image.read_spatial_region(0, None, resample="area", grid_shape=(16, 12), dtype=dtype)
    wanted = PIXELS.reshape(2, 16, 4, 12, 4).mean((2, 4))
    assert read.data.dtype == dtype
    np.testing.assert_allclose(read.data, wanted, atol=1e-6)
    rounded = image.read_spatial_region(0, None, resample="area", grid_shape=(16, 12)).data
    assert rounded.dtype == np.uint8
    np.testing.assert_array_equal(rounded, np.floor(wanted + 0.5))


def test_what_stands_outside_may_be_a_number_of_that_type(image):
    box = (-8.0, -8.0, 8.0, 8.0)
    read = image.read_spatial_region(
        0, box, resample="nearest", grid_shape=(16, 16), pad=-0.5, dtype="float32"
    )
    wanted = np.full((2, 16, 16), -0.5, np.float32)
    wanted[:, 8:, 8:] = PIXELS[:, :8, :8]
    np.testing.assert_array_equal(read.data, wanted)


@pytest.mark.parametrize(
    "options", [{"dtype": "uint16", "resample": "area"}, {"dtype": "float32"}, {"dtype": "int8"}]
)
def test_other_types_are_refused(image, options):
    with pytest.raises(InvalidInputError, match="is for resampled pixels, a floating type"):
        image.read_spatial_region(0, (0, 0, 8, 8), **options)
