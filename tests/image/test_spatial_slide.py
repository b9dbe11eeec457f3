"""Spatial reads of a real slide, read in place, against the whole of it in memory."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.ndimage
import shapely
import tifffile

import microtome as mt
from microtome.coordinates import (
    AffineTransform,
    CoordinateSpace,
    ScaleTransform,
    SequenceTransform,
)


@pytest.fixture(scope="module")
def slide(shared_data):
    path = shared_data / "wsi" / "cmu-1-small-region.svs"
    return mt.open_image(path), np.moveaxis(tifffile.imread(path), -1, 0)


def test_a_slide_is_read_in_micrometres_and_turned(slide):
    image, pixels = slide
    mpp = image.mpp.x
    space = CoordinateSpace.from_axis_names(("x", "y"), unit="micrometer")
    to_pixels = ScaleTransform(("x", "y"), ("x", "y"), (1 / mpp, 1 / image.mpp.y))
    read = image.read_spatial_region(
        0, (100.2, 200.7, 180, 260), region_transform=to_pixels, region_coord_space=space
    )
    x0, y0 = math.floor(100.2 / mpp), math.floor(200.7 / mpp)
    x1, y1 = math.ceil(180 / mpp), math.ceil(260 / mpp)
    np.testing.assert_array_equal(read.data, pixels[:, y0:y1, x0:x1])
    np.testing.assert_allclose(read.coordinate_transform.apply([0, 0]), [x0 * mpp, y0 * mpp])

    # A section that was laid on the glass 30 degrees askew, straightened at 1 um a pixel.
    c, s = math.cos(math.radians(30)), math.sin(math.radians(30))
    askew = AffineTransform(("u", "v"), ("x", "y"), [[c, -s, 500], [s, c, 700]])
    straight = SequenceTransform([askew, to_pixels])
    read = image.read_spatial_region(
        0, (0, 0, 300, 200), region_transform=straight, resample="linear", spacing=1
    )
    linear = straight.linear[::-1, ::-1]
    offset = straight.offset[::-1] + linear @ [0.5, 0.5] - 0.5
    expected = [
        scipy.ndimage.affine_transform(
            plane.astype(np.float64), linear, offset, (200, 300), order=1
        )
        for plane in pixels
    ]
    assert read.data.dtype == np.uint8
    # Half up to rounding of the last digit of a float.
    np.testing.assert_allclose(read.data, expected, rtol=0, atol=0.5 + 1e-6)
    assert np.std(expected) > 10  # tissue, not empty glass


def test_a_ring_of_tissue_is_cut_out(slide):
    image, pixels = slide
    ring = shapely.Point(1100, 1500).buffer(400, quad_segs=64) - shapely.Point(1100, 1500).buffer(
        150
    )
    read = image.read_spatial_region(0, ring, mask_geometry=True, pad=255)
    y, x = np.mgrid[:800, :800] + 0.5
    away = np.hypot(x - 400, y - 400)
    inside, outside = (away > 151) & (away < 399.8), (away < 149.6) | (away > 400)
    whole = pixels[:, 1100:1900, 700:1500]
    np.testing.assert_array_equal(read.data[:, inside], whole[:, inside])
    assert (read.data[:, outside] == 255).all()
