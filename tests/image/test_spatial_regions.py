"""Regions beyond plain boxes: three axes, geometries, padding, and the order of the result."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.coordinates import (
    AffineTransform,
    BijectionTransform,
    CoordinateSpace,
    IdentityTransform,
    ScaleTransform,
    SequenceTransform,
    TranslationTransform,
    UniformScaleTransform,
)
from microtome.errors import InvalidInputError
from microtome.image import Level, MemoryArray, MultiscaleImage, halve_mean

XY, XYZ = ("x", "y"), ("x", "y", "z")
BASE = np.arange(2 * 33 * 21, dtype=np.uint16).reshape(2, 33, 21) + 1
LEVELS = [BASE, halve_mean(BASE), halve_mean(halve_mean(BASE))]
# Anisotropic: the second level is 2 x coarser along z, 3 x along y and not at all along x.
VOLUME = np.arange(2 * 6 * 9 * 7, dtype=np.int32).reshape(2, 6, 9, 7) + 1
COARSE = VOLUME[:, ::2, ::3, :].copy()


@pytest.fixture(scope="module")
def image(in_memory):
    return in_memory(LEVELS)


@pytest.fixture(scope="module")
def volume():
    scales = [(1.0, 2.0, 0.5, 0.25), (1.0, 4.0, 1.5, 0.25)]
    levels = [
        Level(key, key, MemoryArray(array), "czyx", scale, (0.0,) * 4)
        for key, array, scale in zip(["fine", "coarse"], [VOLUME, COARSE], scales, strict=True)
    ]
    return MultiscaleImage(levels, uri="array", channel_names=["a", "b"], mpp=None)


# ------------------------------------------------------------------ three axes


@given(data=st.data())
def test_a_box_of_six_numbers_is_a_block_of_the_volume(volume, data):
    level = data.draw(st.sampled_from(["fine", "coarse"]))
    stored, factor = {"fine": (VOLUME, (1, 1, 1)), "coarse": (COARSE, (1, 3, 2))}[level]
    ends = [
        sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True)))
        for n in (7, 9, 6)
    ]
    x, y, z = (slice(a // f, math.ceil(b / f)) for (a, b), f in zip(ends, factor, strict=True))
    box = (*(a for a, _ in ends), *(b for _, b in ends))
    read = volume.read_spatial_region(level, box)
    np.testing.assert_array_equal(read.data, stored[:, z, y, x])
    corner = [x.start * factor[0], y.start * factor[1], z.start * factor[2]]
    np.testing.assert_array_equal(read.coordinate_transform.apply([0, 0, 0]), corner)
    step = read.coordinate_transform.apply([1, 1, 1]) - corner
    np.testing.assert_array_equal(step, factor)
    assert read.data_coordinate_space.axis_names == XYZ
    assert read.output_coordinate_space.axis_names == XYZ


def test_four_numbers_or_a_polygon_mean_all_of_z(volume):
    for region in ((1, 3, 5, 9), shapely.box(1, 3, 5, 9)):
        read = volume.read_spatial_region("coarse", region)
        np.testing.assert_array_equal(read.data, COARSE[:, :, 1:3, 1:5])
        assert read.coordinate_transform.apply([0, 0, 0]).tolist() == [1, 3, 0]


def test_a_volume_in_another_space(volume):
    # Millimetres that count z downwards, in another order of names.
    there = AffineTransform(("r", "s", "d"), XYZ, [[2, 0, 0, 1], [0, 3, 0, 0], [0, 0, -1, 6]])
    read = volume.read_spatial_region("fine", (0, 1, 1, 2, 2, 3), region_transform=there)
    np.testing.assert_array_equal(read.data, VOLUME[:, 3:5, 3:6, 1:5])
    # The first plane read is the one farthest from the origin of d.
    assert read.coordinate_transform.apply([0, 0, 0]).tolist() == [0, 1, 3]
    assert read.coordinate_transform.apply([4, 3, 2]).tolist() == [2, 2, 1]
    with pytest.raises(InvalidInputError, match="says nothing about 'd'"):
        volume.read_spatial_region("fine", (0, 1, 2, 2), region_transform=there)


def test_a_plane_stands_for_the_whole_stack(volume):
    there = TranslationTransform(("u", "v"), XY, (1, 2))
    read = volume.read_spatial_region("fine", (0, 0, 3, 4), region_transform=there)
    np.testing.assert_array_equal(read.data, VOLUME[:, :, 2:6, 1:4])
    assert read.data_coordinate_space.axis_names == XY
    with pytest.raises(InvalidInputError, match="four finite numbers"):
        volume.read_spatial_region("fine", (0, 0, 0, 3, 4, 5), region_transform=there)


# ------------------------------------------------------------------ any space that leads here


@pytest.mark.parametrize(
    "there",
    [
        IdentityTransform(("u", "v"), XY),
        UniformScaleTransform(("u", "v"), XY, 2),
        ScaleTransform(("u", "v"), XY, (2, 0.5)),
        ScaleTransform(("u", "v"), XY, (-2, -0.5)),
        TranslationTransform(("u", "v"), XY, (3, -2)),
        AffineTransform(("u", "v"), XY, [[2, 0, 3], [0, -0.5, 20]]),
        AffineTransform(("u", "v"), XY, [[0, -1, 14], [1, 0, 9]]),
        AffineTransform(("u", "v"), XY, [[0.6, -0.8, 9], [0.8, 0.6, 9]]),
        SequenceTransform(
            [
                ScaleTransform(("u", "v"), ("a", "b"), (2, 3)),
                TranslationTransform(("a", "b"), XY, (4, 5)),
            ]
        ),
        BijectionTransform(
            ScaleTransform(("u", "v"), XY, (2, 4)), ScaleTransform(XY, ("u", "v"), (0.5, 0.25))
        ),
    ],
    ids=lambda there: repr(there)[:60],
)
@pytest.mark.parametrize("level", [0, 1, 2])
def test_every_linear_transform_leads_here(image, there, level):
    box = (-2.0, 1.0, 6.0, 7.0) if there.linear[0, 0] >= 0 else (-6.0, -30.0, -1.0, -1.0)
    corners = there.apply([(x, y) for x in box[::2] for y in box[1::2]]) / 2**level
    (x0, y0), (x1, y1) = np.floor(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int)
    stored = LEVELS[level]
    rows, columns = slice(max(y0, 0), y1), slice(max(x0, 0), x1)
    read = image.read_spatial_region(level, box, region_transform=there)
    np.testing.assert_array_equal(read.data, stored[:, rows, columns])
    # Centres of the result's pixels, led back, are the centres of the pixels they were read from.
    i, j = np.meshgrid(np.arange(read.data.shape[2]), np.arange(read.data.shape[1]))
    centers = np.stack([i, j], -1) + 0.5
    back = there.apply(read.coordinate_transform.apply(centers)) / 2**level
    np.testing.assert_allclose(back, centers + np.array([columns.start, rows.start]), atol=1e-9)


def test_a_bijection_is_taken_at_its_word(image):
    there = BijectionTransform(
        ScaleTransform(("u", "v"), XY, (2, 2)), ScaleTransform(XY, ("u", "v"), (0.25, 0.25))
    )
    read = image.read_spatial_region(0, (1, 1, 3, 3), region_transform=there)
    np.testing.assert_array_equal(read.data, BASE[:, 2:6, 2:6])
    assert read.coordinate_transform.apply([0, 0]).tolist() == [0.5, 0.5]


def test_the_transform_is_as_simple_as_the_read(image):
    assert isinstance(image.read_spatial_region(0).coordinate_transform, IdentityTransform)
    moved = image.read_spatial_region(0, (2, 3, 5, 9)).coordinate_transform
    assert moved == TranslationTransform(XY, XY, (2, 3))
    assert isinstance(moved, TranslationTransform)
    scaled = image.read_spatial_region(2, (0, 0, 5, 9)).coordinate_transform
    assert isinstance(scaled, ScaleTransform)
    assert scaled == ScaleTransform(XY, XY, (4, 4))


# ------------------------------------------------------------------ over the edge


@settings(max_examples=150)
@given(
    corner=st.tuples(st.integers(-60, 60), st.integers(-60, 60)),
    size=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    pad=st.sampled_from([0, 7, 65535, "edge", "reflect"]),
    level=st.integers(0, 1),
)
def test_a_padded_box_is_a_window_of_the_padded_whole(image, corner, size, pad, level):
    f, margin = 2**level, 120
    stored = LEVELS[level]
    around = [(0, 0), (margin, margin), (margin, margin)]
    if isinstance(pad, str):
        whole = np.pad(stored, around, mode=pad)
    else:
        whole = np.pad(stored, around, constant_values=pad)
    box = (corner[0] * f, corner[1] * f, (corner[0] + size[0]) * f, (corner[1] + size[1]) * f)
    read = image.read_spatial_region(level, box, pad=pad, channel_coords=[1, 0])
    x, y = corner[0] + margin, corner[1] + margin
    np.testing.assert_array_equal(read.data, whole[::-1, y : y + size[1], x : x + size[0]])
    assert read.coordinate_transform.apply([0, 0]).tolist() == [box[0], box[1]]
    assert read.data.dtype == np.uint16


def test_padding_along_all_three_axes(volume):
    read = volume.read_spatial_region("fine", (-2, 3, -1, 3, 11, 8), pad=-5)
    whole = np.pad(VOLUME, [(0, 0), (1, 2), (0, 2), (2, 0)], constant_values=-5)
    np.testing.assert_array_equal(read.data, whole[:, :9, 3:, :5])


def test_one_pixel_has_no_mirror_image_but_itself(in_memory):
    image = in_memory(np.array([[9]], np.uint8), "yx")
    read = image.read_spatial_region(0, (-2, -1, 3, 2), pad="reflect")
    np.testing.assert_array_equal(read.data, np.full((3, 5), 9))


@pytest.mark.parametrize(
    "pad", [True, "wrap", -1, 1.5, 70000, math.nan, [0], None, np.array([1, 2])], ids=repr
)
def test_what_cannot_stand_outside_is_refused(image, pad):
    with pytest.raises(InvalidInputError, match="pad"):
        image.read_spatial_region(0, (0, 0, 50, 50), pad=pad)


def test_an_image_of_floats_is_padded_with_nan(in_memory):
    image = in_memory(np.ones((2, 2), np.float32), "yx")
    read = image.read_spatial_region(0, (1, 1, 3, 3), pad=math.nan)
    np.testing.assert_array_equal(read.data, [[1, np.nan], [np.nan, np.nan]])
    with pytest.raises(InvalidInputError, match="no value of the image's pixels"):
        image.read_spatial_region(0, (1, 1, 3, 3), pad=1e300)


def test_zero_is_a_padding_and_false_is_none(image):
    assert image.read_spatial_region(0, (-2, 0, 3, 4), pad=0).data.shape == (2, 4, 5)
    assert image.read_spatial_region(0, (-2, 0, 3, 4), pad=False).data.shape == (2, 4, 3)
    with pytest.raises(InvalidInputError, match="give pad= to read outside"):
        image.read_spatial_region(0, (-5, 0, -2, 4))
    assert not image.read_spatial_region(0, (-5, 0, -2, 4), pad=0).data.any()


def test_neighbours_tile_an_image_and_its_surroundings(image):
    # Any edges on pixels of the level: every pixel is in exactly one box.
    xs, ys = [-4, 2, 4, 14, 26], [-6, 0, 10, 12, 40]
    rows = [
        np.concatenate(
            [
                image.read_spatial_region(1, (x0, y0, x1, y1), pad=0).data
                for x0, x1 in itertools.pairwise(xs)
            ],
            axis=2,
        )
        for y0, y1 in itertools.pairwise(ys)
    ]
    whole = np.pad(LEVELS[1], [(0, 0), (3, 3), (2, 2)])
    np.testing.assert_array_equal(np.concatenate(rows, axis=1), whole)


def test_regions_that_no_memory_holds(image):
    for box in ((0, 0, 1e9, 1e9), (0, 0, 1e300, 1)):
        for pad in (0, "edge"):
            with pytest.raises(InvalidInputError, match="pixels were asked for"):
                image.read_spatial_region(0, box, pad=pad)
        # Clipped, they are the image.
        assert image.read_spatial_region(0, box).data.shape[2] == 21
    huge = ScaleTransform(XY, XY, (1e200, 1e200))
    with pytest.raises(InvalidInputError, match="too large"):
        image.read_spatial_region(0, (0, 0, 1e200, 1), region_transform=huge)


def test_a_box_however_small_lies_in_a_pixel(image):
    for low, high, pixel in [(5, 5 + 1e-9, 5), (5 - 1e-9, 5 + 1e-9, 5), (5.3, 5.3 + 1e-12, 5)]:
        read = image.read_spatial_region(0, (low, low, high, high))
        np.testing.assert_array_equal(read.data, BASE[:, pixel : pixel + 1, pixel : pixel + 1])


# ------------------------------------------------------------------ geometries


STAR = shapely.Polygon([(10, 0.4), (13, 11), (20.5, 12), (14, 17), (16, 30.2), (9, 20), (1, 25)])
RING = shapely.Point(10, 16).buffer(9.3).difference(shapely.Point(11, 15).buffer(4.1))
with np.errstate(invalid="ignore"):
    BROKEN = shapely.from_wkt("POLYGON((0 0, nan 0, 0 9, 0 0))")
TWO = shapely.MultiPolygon([shapely.box(1, 2, 4.6, 9), shapely.box(12.5, 20, 30, 50)])


@pytest.mark.parametrize("geometry", [STAR, RING, TWO], ids=["star", "ring", "two"])
@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize(
    "there",
    [None, AffineTransform(("u", "v"), XY, [[0.8, -0.5, 5], [0.4, 0.9, -3]])],
    ids=["own", "affine"],
)
def test_pixels_with_their_centre_outside_are_blank(image, geometry, level, there):
    read = image.read_spatial_region(
        level, geometry, region_transform=there, mask_geometry=True, pad=3
    )
    box = image.read_spatial_region(level, geometry.bounds, region_transform=there, pad=3)
    np.testing.assert_array_equal(
        read.coordinate_transform.augmented_matrix, box.coordinate_transform.augmented_matrix
    )
    expected = box.data.copy()
    for j, i in np.ndindex(*expected.shape[-2:]):
        center = read.coordinate_transform.apply([i + 0.5, j + 0.5])
        if not geometry.intersects(shapely.Point(center)):
            expected[:, j, i] = 3
    assert 0 < (expected != 3).sum() < expected.size
    np.testing.assert_array_equal(read.data, expected)


def test_a_geometry_unmasked_is_its_bounding_box(image):
    read = image.read_spatial_region(1, STAR)
    box = image.read_spatial_region(1, STAR.bounds)
    np.testing.assert_array_equal(read.data, box.data)


def test_a_large_outline_is_followed_pixel_by_pixel(in_memory):
    # Larger than the blocks that are looked at first, with blocks inside, outside and between.
    image = in_memory(np.ones((300, 400), np.uint8), "yx")
    circle = shapely.Point(210.2, 140.7).buffer(120.4, quad_segs=64)
    read = image.read_spatial_region(0, circle, mask_geometry=True)
    x0, y0 = read.coordinate_transform.apply([0.5, 0.5])
    y, x = np.mgrid[: read.data.shape[0], : read.data.shape[1]]
    away = np.hypot(x + x0 - 210.2, y + y0 - 140.7)
    assert read.data[away < 120.3].all()
    assert not read.data[away > 120.4].any()
    assert abs(int(read.data.sum()) - circle.area) < 100


def test_every_plane_of_a_volume_is_masked(volume):
    triangle = shapely.Polygon([(0, 0), (7, 0), (0, 9)])
    read = volume.read_spatial_region("fine", triangle, mask_geometry=True)
    j, i = np.mgrid[:9, :7]
    inside = (i + 0.5) / 7 + (j + 0.5) / 9 <= 1
    np.testing.assert_array_equal(read.data, np.where(inside, VOLUME, 0))


def test_a_geometry_is_left_as_it_was(image):
    copy = shapely.from_wkb(shapely.to_wkb(STAR))
    image.read_spatial_region(0, copy, mask_geometry=True)
    assert not shapely.is_prepared(copy)


@pytest.mark.parametrize(
    ("geometry", "reason"),
    [
        (shapely.Polygon(), "with an area"),
        (shapely.Point(3, 3), "with an area"),
        (shapely.LineString([(0, 0), (5, 5)]), "with an area"),
        (shapely.Polygon([(0, 0), (math.inf, 0), (0, 9)]), "finite coordinates"),
        (BROKEN, "finite coordinates"),
    ],
    ids=["empty", "point", "line", "infinite", "nan"],
)
def test_geometries_that_hold_nothing_are_refused(image, geometry, reason):
    with pytest.raises(InvalidInputError, match=reason):
        image.read_spatial_region(0, geometry)


def test_masks_need_a_valid_outline(image):
    bow = shapely.Polygon([(0, 0), (9, 9), (9, 0), (0, 6)])
    assert image.read_spatial_region(0, bow).data.shape == (2, 9, 9)
    with pytest.raises(InvalidInputError, match=r"not valid: Self-intersection.*make_valid"):
        image.read_spatial_region(0, bow, mask_geometry=True)
    for region in ((0, 0, 5, 5), None):
        with pytest.raises(InvalidInputError, match="needs a shapely geometry"):
            image.read_spatial_region(0, region, mask_geometry=True)


def test_boxes_need_no_shapely():
    script = """
import sys
sys.modules["shapely"] = None  # an import of it fails
import numpy as np
import microtome as mt
image = mt.open_image(np.ones((9, 9), np.uint8), axes="yx", mpp=1)
assert image.read_spatial_region(0, (1, 2, 5, 9)).data.shape == (7, 4)
assert image.read_spatial_region(0, (1, 2, 5, 9), resample="linear").data.shape == (7, 4)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


# ------------------------------------------------------------------ order of the result


@pytest.mark.parametrize("order", list(itertools.permutations("cyx")), ids="".join)
def test_axes_come_in_the_order_asked_for(image, order):
    box = (3, 4, 12, 20)
    plain = BASE[:, 4:20, 3:12]
    turned = np.einsum(f"cyx->{''.join(order)}", plain)
    read = image.read_spatial_region(0, box, data_axis_order=order)
    np.testing.assert_array_equal(read.data, turned)
    assert read.data_axis_order == order
    assert read.data.flags.c_contiguous
    # The other order is the same memory, counted from the other end.
    other = image.read_spatial_region(0, box, data_axis_order=order, result_order="column-major")
    np.testing.assert_array_equal(other.data, turned.T)
    assert other.data_axis_order == order[::-1]
    assert other.data.flags.f_contiguous
    # Where the pixels lie does not depend on how they are laid out.
    assert read.coordinate_transform == other.coordinate_transform


def test_column_major_turns_the_axes_about(image):
    read = image.read_spatial_region(1, (0, 0, 10, 20), result_order="column-major")
    assert read.data.shape == (5, 10, 2)
    assert read.data_axis_order == ("x", "y", "c")
    masked = image.read_spatial_region(0, STAR, result_order="column-major", mask_geometry=True)
    plain = image.read_spatial_region(0, STAR, mask_geometry=True)
    np.testing.assert_array_equal(masked.data, plain.data.transpose(2, 1, 0))


def test_a_volume_in_another_order(volume):
    read = volume.read_spatial_region(
        "fine", (1, 2, 3, 5, 6, 6), data_axis_order="yxzc", channel_coords="b"
    )
    np.testing.assert_array_equal(read.data, VOLUME[1:, 3:6, 2:6, 1:5].transpose(2, 3, 1, 0))


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"region": (9, 0, 1, 5)}, "half-open with x0 < x1"),
        ({"region": (0, 0, 1, 1, 1, 1)}, "four finite numbers"),
        ({"region": "abcd"}, "four finite numbers"),
        ({"region": 5}, "four finite numbers"),
        ({"region": (0, 0, 10**400, 1)}, "four finite numbers"),
        ({"region": {"type": "Polygon"}}, "four finite numbers"),
        ({"region_transform": np.eye(3)}, "is a CoordinateTransform"),
        ({"region_transform": ScaleTransform(XY, ("y", "x"), (1, 1))}, "lead to their axes"),
        ({"region_transform": ScaleTransform(XYZ, XYZ, (1, 1, 1))}, "lead to their axes"),
        ({"region_transform": ScaleTransform(XY, XY, (1, 0))}, "cannot be inverted"),
        ({"region_coord_space": CoordinateSpace.from_axis_names(XY)}, "both or neither"),
        ({"result_order": "auto"}, "result_order must be"),
        ({"data_axis_order": "yx"}, "some order of"),
        ({"data_axis_order": "ccyx"}, "some order of"),
        ({"data_axis_order": ("soma_channel", "y", "x")}, "some order of"),
        ({"resample": "cubic"}, "resample must be"),
        ({"grid_shape": (4, 4)}, "give resample="),
        ({"spacing": 2}, "give resample="),
    ],
    ids=repr,
)
def test_requests_that_make_no_sense(image, arguments, reason):
    with pytest.raises(InvalidInputError, match=reason):
        image.read_spatial_region(0, **{"region": (0, 0, 5, 5), **arguments})


def test_channels_of_an_image_that_has_none(in_memory):
    image = in_memory(BASE[0], "yx")
    with pytest.raises(InvalidInputError, match="has no channel axis"):
        image.read_spatial_region(0, channel_coords=0)
    np.testing.assert_array_equal(image.read_spatial_region(0).data, BASE[0])
