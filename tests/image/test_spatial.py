"""Reading boxes: numpy's slices, half-open ends, and the transform back to where they lie."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.coordinates import (
    AffineTransform,
    CoordinateSpace,
    IdentityTransform,
    ScaleTransform,
    TranslationTransform,
)
from microtome.errors import InvalidInputError, OutOfRangeError, UnknownNameError
from microtome.image import MultiscaleImage, channel_indices, halve_mean

XY = ("x", "y")
BASE = np.arange(2 * 33 * 21, dtype=np.uint16).reshape(2, 33, 21)
LEVELS = [BASE, halve_mean(BASE), halve_mean(halve_mean(BASE))]


@pytest.fixture(scope="module")
def image(in_memory):
    return in_memory(LEVELS)


# ------------------------------------------------------------------ which pixels


def touched(start: float, stop: float, factor: int, size: int) -> list[int]:
    """The pixels of a level, `factor` reference pixels wide, that a half-open interval touches."""
    return [i for i in range(size) if i * factor < stop and (i + 1) * factor > start]


@settings(max_examples=200)
@given(data=st.data(), level=st.integers(0, 2))
def test_a_box_is_the_pixels_it_touches(image, data, level):
    # Quarters of a reference pixel are exact, and hit pixel edges often.
    x = sorted(data.draw(st.lists(st.integers(-30, 120), min_size=2, max_size=2, unique=True)))
    y = sorted(data.draw(st.lists(st.integers(-30, 160), min_size=2, max_size=2, unique=True)))
    x0, x1, y0, y1 = (value / 4 for value in (*x, *y))
    stored = LEVELS[level]
    rows = touched(y0, y1, 2**level, stored.shape[1])
    columns = touched(x0, x1, 2**level, stored.shape[2])
    box = (x0, y0, x1, y1)
    if not rows or not columns:
        with pytest.raises(InvalidInputError, match="does not overlap"):
            image.read_spatial_region(level, box)
        return
    read = image.read_spatial_region(level, box)
    np.testing.assert_array_equal(read.data, stored[:, rows][:, :, columns])
    # The corner of a pixel of the result, moved into the reference level, is where it was read.
    corners = [(0, 0), (len(columns), len(rows)), (1, 0)]
    expected = [((columns[0] + i) * 2**level, (rows[0] + j) * 2**level) for i, j in corners]
    np.testing.assert_array_equal(read.coordinate_transform.apply(corners), expected)
    assert read.output_coordinate_space == image.coordinate_space
    assert read.data_coordinate_space.axis_names == XY


def test_both_ends_of_a_box_are_where_they_say(image):
    assert image.read_spatial_region(0, (0, 0, 10, 20)).data.shape == (2, 20, 10)
    assert image.read_spatial_region(1, (0, 0, 10, 20)).data.shape == (2, 10, 5)
    assert image.read_spatial_region(0, (1, 1, 2, 2)).data.tolist() == BASE[:, 1:2, 1:2].tolist()
    assert image.read_spatial_region(0, (0.2, 0.2, 3.5, 3.5)).data.shape == (2, 4, 4)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_neighbours_make_the_whole_and_do_not_overlap(image, level):
    xs, ys = [0, 4, 8, 20, 21], [0, 12, 16, 33]
    rows = [
        np.concatenate(
            [
                image.read_spatial_region(level, (x0, y0, x1, y1)).data
                for x0, x1 in itertools.pairwise(xs)
                if level < 2 or x0 != 20  # 20 to 21 is inside the coarse pixel 20 to 24
            ],
            axis=2,
        )
        for y0, y1 in itertools.pairwise(ys)
    ]
    whole = image.read_spatial_region(level).data
    np.testing.assert_array_equal(
        np.concatenate(rows, axis=1)[..., : whole.shape[-1]], whole[..., : rows[0].shape[-1]]
    )
    np.testing.assert_array_equal(whole, LEVELS[level])


def test_an_edge_that_misses_its_line_by_rounding_takes_no_pixel_more(image):
    third = ScaleTransform(("x", "y"), XY, (0.1, 0.1))
    # 3 * 0.1 is a little more than 0.3, and 21 * 0.1 than 2.1.
    read = image.read_spatial_region(0, (30, 30, 210, 300), region_transform=third)
    np.testing.assert_array_equal(read.data, BASE[:, 3:30, 3:21])


def test_a_level_is_named_or_numbered(image):
    for level in (1, "level1", np.int64(1), -2):
        np.testing.assert_array_equal(image.read_spatial_region(level).data, LEVELS[1])
    with pytest.raises(OutOfRangeError, match="has 3 levels, no level 3"):
        image.read_spatial_region(3)
    with pytest.raises(UnknownNameError, match="no level 'level9', only"):
        image.read_spatial_region("level9")


@pytest.mark.parametrize(
    "region",
    [
        (5, 5, 5, 9),
        (9, 5, 5, 9),
        (5, 9, 9, 5),
        (math.nan, 0, 1, 1),
        (0, 0, math.inf, 1),
        (0, 0, 1),
        (0, 0, 1, 1, 1),
        (),
        (21, 0, 30, 10),
        (-9, -9, 0, 0),
        (0, 33, 5, 40),
    ],
)
def test_a_box_that_holds_nothing_is_refused(image, region):
    with pytest.raises(InvalidInputError, match="region"):
        image.read_spatial_region(0, region)


# ------------------------------------------------------------------ in another space


@settings(max_examples=100)
@given(
    level=st.integers(0, 2),
    scale=st.tuples(st.sampled_from([0.25, 0.5, 2, 4]), st.sampled_from([-4, -0.5, 0.5, 8])),
    shift=st.tuples(st.integers(-9, 9), st.integers(20, 40)),
    corner=st.tuples(st.integers(0, 15), st.integers(0, 20)),
)
def test_a_box_in_another_space_is_read_and_mapped_back_to_it(image, level, scale, shift, corner):
    # From a space of the caller's to reference pixels, mirrored along y in half of the cases.
    there = AffineTransform(("u", "v"), XY, [[scale[0], 0, shift[0]], [0, scale[1], shift[1]]])
    box = (*corner, corner[0] + 5, corner[1] + 6)
    u = np.array([corner[0], corner[0] + 5]) * scale[0] + shift[0]
    v = np.sort(np.array([corner[1], corner[1] + 6]) * scale[1] + shift[1])
    stored = LEVELS[level]
    columns = touched(*u, 2**level, stored.shape[2])
    rows = touched(*v, 2**level, stored.shape[1])
    if not rows or not columns:
        with pytest.raises(InvalidInputError, match="does not overlap"):
            image.read_spatial_region(level, box, region_transform=there)
        return
    space = CoordinateSpace.from_axis_names(("u", "v"), unit="micrometer")
    read = image.read_spatial_region(level, box, region_transform=there, region_coord_space=space)
    np.testing.assert_array_equal(read.data, stored[:, rows][:, :, columns])
    assert read.output_coordinate_space == space
    # Back and forth: from the result into the caller's space, from there to reference pixels.
    back = there.apply(read.coordinate_transform.apply([(0, 0), (2, 3)]))
    expected = [
        ((columns[0] + i) * 2**level, (rows[0] + j) * 2**level) for i, j in [(0, 0), (2, 3)]
    ]
    np.testing.assert_allclose(back, expected, atol=1e-9)


def test_a_rotated_box_is_read_as_its_bounding_box(image):
    diamond = AffineTransform(("a", "b"), XY, [[1, -1, 10], [1, 1, 10]])
    read = image.read_spatial_region(0, (0, 0, 3, 4), region_transform=diamond)
    # Corners (0,0) (3,0) (0,4) (3,4) become (10,10) (13,13) (6,14) (9,17).
    np.testing.assert_array_equal(read.data, BASE[:, 10:17, 6:13])
    assert read.output_coordinate_space.axis_names == ("a", "b")
    np.testing.assert_allclose(diamond.apply(read.coordinate_transform.apply([4, 0])), [10, 10])


def test_a_whole_level_has_a_place_in_another_space_too(image):
    there = TranslationTransform(("u", "v"), XY, (-5, -7))
    read = image.read_spatial_region(1, region_transform=there)
    np.testing.assert_array_equal(read.data, LEVELS[1])
    np.testing.assert_array_equal(read.coordinate_transform.apply([1, 1]), [7, 9])
    assert read.output_coordinate_space.axis_names == ("u", "v")


def test_spaces_that_do_not_fit_are_refused(image):
    there = ScaleTransform(("u", "v"), XY, (2, 2))
    space = CoordinateSpace.from_axis_names(("u", "v"))
    with pytest.raises(InvalidInputError, match="give both or neither"):
        image.read_spatial_region(0, (0, 0, 1, 1), region_coord_space=space)
    with pytest.raises(InvalidInputError, match="region_coord_space has axes"):
        image.read_spatial_region(
            0,
            (0, 0, 1, 1),
            region_transform=there,
            region_coord_space=CoordinateSpace.from_axis_names(XY),
        )
    with pytest.raises(InvalidInputError, match="cannot compose"):
        image.read_spatial_region(
            0, (0, 0, 1, 1), region_transform=ScaleTransform(XY, ("y", "x"), (2, 2))
        )
    with pytest.raises(InvalidInputError, match="cannot be inverted"):
        image.read_spatial_region(
            0, (0, 0, 1, 1), region_transform=AffineTransform(XY, XY, [[1, 0, 3], [1, 0, 3]])
        )


def test_transforms_between_levels(image, in_memory):
    assert image.get_transform_from_level(0) == IdentityTransform(XY, XY)
    assert isinstance(image.get_transform_to_level("level0"), IdentityTransform)
    assert image.get_transform_from_level(2) == ScaleTransform(XY, XY, (4, 4))
    assert image.get_transform_to_level(2) == ScaleTransform(XY, XY, (0.25, 0.25))
    uneven = in_memory([BASE, BASE[:, :11]], factors=[(1, 1), (3, 1)], mpp=(0.5, 0.25))
    assert uneven.get_transform_from_level(1) == ScaleTransform(XY, XY, (1, 3))
    assert uneven.level_mpp(1).y == 1.5
    assert uneven.level_mpp(1).x == 0.25


# ------------------------------------------------------------------ channels


NAMES = ["DNA", "CD3", "CD8", "CD3"]


@pytest.mark.parametrize(
    ("channels", "indices"),
    [
        (None, [0, 1, 2, 3]),
        (2, [2]),
        (-1, [3]),
        (np.int64(2), [2]),
        (np.uint8(2), [2]),
        ("CD8", [2]),
        (np.str_("CD8"), [2]),
        ([2, 0, 2], [2, 0, 2]),
        ((-4, -1), [0, 3]),
        (["CD8", "DNA"], [2, 0]),
        (np.array([3, 1]), [3, 1]),
        (np.array(["DNA"]), [0]),
        (range(1, 3), [1, 2]),
        (slice(1, 3), [1, 2]),
        (slice(None, None, -2), [3, 1]),
        (slice(2, 99), [2, 3]),
        (slice(4, 9), []),
        ([], []),
    ],
    ids=repr,
)
def test_ways_to_name_channels(channels, indices):
    found = channel_indices(channels, NAMES, 4)
    assert found == indices
    assert all(type(index) is int for index in found)


@pytest.mark.parametrize(
    ("channels", "error"),
    [
        (4, OutOfRangeError),
        (-5, OutOfRangeError),
        ([0, 4], OutOfRangeError),
        ("CD4", UnknownNameError),
        (["DNA", "dna"], UnknownNameError),
        ("CD3", UnknownNameError),  # there twice: which one is meant?
        ([True, False, True, False], InvalidInputError),  # a mask is not channels 1 and 0
        (np.array([True, False]), InvalidInputError),
        (True, InvalidInputError),
        (1.0, InvalidInputError),
        ([1.0], InvalidInputError),
        ([1.7], InvalidInputError),
        ([None], InvalidInputError),
        ([[0, 1]], InvalidInputError),
        (np.array([[0, 1]]), InvalidInputError),
    ],
    ids=repr,
)
def test_channels_that_are_not_there(channels, error):
    with pytest.raises(error):
        channel_indices(channels, NAMES, 4)


@pytest.mark.parametrize(
    ("channels", "indices"),
    [(1, [1]), ("C0", [0]), ([1, 0, 1], [1, 0, 1]), (slice(1, 2), [1]), ([], []), (-1, [1])],
    ids=repr,
)
def test_channels_of_a_box(image, channels, indices):
    box = (2, 3, 11, 13)
    read = image.read_spatial_region(0, box, channel_coords=channels)
    np.testing.assert_array_equal(read.data, BASE[indices, 3:13, 2:11])


def test_channels_without_a_channel_axis(in_memory):
    image = in_memory(BASE[0], "yx")
    for channels in (None, 0, -1, [0], slice(None)):
        np.testing.assert_array_equal(
            image.read(0, (1, 3), (2, 5), channels=channels), BASE[0, 1:3, 2:5]
        )
    with pytest.raises(OutOfRangeError):
        image.read(0, (1, 3), (2, 5), channels=1)
    with pytest.raises(UnknownNameError):
        image.read(0, (1, 3), (2, 5), channels="C0")


def test_an_image_on_disk_is_read_alike(written):
    path, pixels = written
    image = MultiscaleImage.open(path)
    read = image.read_spatial_region(0, (2, 3, 21, 29), channel_coords=["CD8", "DNA"])
    np.testing.assert_array_equal(read.data, pixels[[2, 0], 3:29, 2:21])
    assert image.read(0, (0, 0), (0, 21)).shape == (3, 0, 21)
    assert image.read(0, (0, 9), (0, 2), channels=[]).shape == (0, 9, 2)


@pytest.mark.parametrize("y", [(-1, 3), (0, 34), (5, 4), (34, 35)])
@pytest.mark.parametrize("swap", [False, True])
def test_whole_pixels_outside_are_refused_in_memory_as_on_disk(image, written, y, swap):
    for chosen in (image, MultiscaleImage.open(written[0])):
        rows, columns = ((0, 1), y) if swap else (y, (0, 1))
        with pytest.raises(InvalidInputError, match=r"do not lie inside|first before the last"):
            chosen.read(0, rows, columns)


def test_further_axes_are_read_whole(in_memory):
    pixels = np.arange(2 * 3 * 4 * 5 * 6, dtype=np.uint16).reshape(2, 3, 4, 5, 6)
    image = in_memory(pixels, "tczyx")
    read = image.read_spatial_region(0, (1, 2, 4, 5), channel_coords=["C2", "C0"])
    np.testing.assert_array_equal(read.data, pixels[:, [2, 0], :, 2:5, 1:4])


def test_an_image_with_depth_has_a_space_of_three_axes(tmp_path):
    with MultiscaleImage.create(
        tmp_path / "a.ome.zarr",
        type="uint8",
        level_shape=(2, 3, 301, 300),
        data_axis_order=("c", "z", "y", "x"),
        mpp=0.5,
    ) as image:
        image.build_levels()
    image = MultiscaleImage.open(tmp_path / "a.ome.zarr")
    assert image.coordinate_space.axis_names == ("x", "y", "z")
    # y and x are halved, z is not.
    np.testing.assert_allclose(image.get_transform_from_level(1).apply([10, 20, 1]), [20, 40, 1])
    np.testing.assert_allclose(image.get_transform_to_level(1).apply([20, 40, 1]), [10, 20, 1])
    assert image.level_mpp(1).x == 1.0
