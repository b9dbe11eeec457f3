"""The short way of a spatial read gives what the general way gives, or leaves it to it."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from microtome.image import MultiscaleImage
from microtome.image._plain import read_plain
from microtome.image._spatial import read_spatial_region

edges = st.one_of(st.integers(-9, 40), st.floats(-9, 40), st.sampled_from([2 + 1e-9, 4 - 1e-9]))
QUIET = [HealthCheck.function_scoped_fixture]


def general(image, level, region, channels=None, pad=False):
    return read_spatial_region(
        image,
        level,
        region,
        channel_coords=channels,
        region_transform=None,
        region_coord_space=None,
        result_order="row-major",
        data_axis_order=None,
        pad=pad,
        mask_geometry=False,
        resample=None,
        grid_shape=None,
        spacing=None,
    )


def same(read, expected):
    np.testing.assert_array_equal(read.data, expected.data)
    assert read.data.dtype == expected.data.dtype
    assert read.data.flags.c_contiguous
    assert read.data.flags.writeable
    assert read.coordinate_transform == expected.coordinate_transform
    assert type(read.coordinate_transform) is type(expected.coordinate_transform)
    assert read.data_coordinate_space == expected.data_coordinate_space
    assert read.output_coordinate_space == expected.output_coordinate_space
    assert read.data_axis_order == expected.data_axis_order


def outcome(read):
    try:
        return read()
    except (ValueError, LookupError) as error:
        return type(error), str(error)


@settings(max_examples=300, suppress_health_check=QUIET, deadline=None)
@given(
    corners=st.tuples(edges, edges, edges, edges),
    level=st.integers(-3, 2),
    channels=st.sampled_from([None, 1, "CD8", [2, 0], slice(0, 2)]),
    pad=st.sampled_from([False, 0]),
)
def test_any_box_of_a_stored_image(written, corners, level, channels, pad):
    image = MultiscaleImage.open(written[0])
    region = corners
    read = outcome(
        lambda: image.read_spatial_region(level, region, channel_coords=channels, pad=pad)
    )
    expected = outcome(lambda: general(image, level, region, channels, pad))
    if isinstance(expected, tuple):
        assert read == expected
    else:
        same(read, expected)


@settings(max_examples=100, suppress_health_check=QUIET, deadline=None)
@given(corners=st.tuples(edges, edges, edges, edges), level=st.integers(0, 1))
def test_any_box_of_an_image_in_memory_whose_levels_are_no_halves(in_memory, corners, level):
    rng = np.random.default_rng(0)
    levels = [rng.integers(0, 99, shape).astype(np.uint8) for shape in ((31, 37), (13, 12))]
    image = in_memory(levels, "yx", factors=[(1.0, 1.0), (2.4, 3.1)])
    read = outcome(lambda: image.read_spatial_region(level, corners))
    expected = outcome(lambda: general(image, level, corners))
    if isinstance(expected, tuple):
        assert read == expected
    else:
        same(read, expected)


@pytest.mark.parametrize(
    "region",
    [(1, 2, 3, 4), [1, 2, 3, 4], (1.0, 2, 3, 4.5), tuple(np.array([1, 2, 3, 4])), (0, 0, 21, 29)],
    ids=repr,
)
def test_the_common_case_goes_the_short_way(written, region):
    image = MultiscaleImage.open(written[0])
    base = image.level(0)
    same(read_plain(base, base, region, None, clip=True), general(image, 0, region))


@pytest.mark.parametrize(
    "region",
    [None, 5, "1234", (1, 2, 3), (1, 2, 3, 4, 5), (3, 2, 1, 4), (1, 2, float("nan"), 4),
     (1, 2, 10**400, 4), (1, 2, float("inf"), 4), ("a", 2, 3, 4), (50, 50, 60, 60), (0, 0, 1e300, 1),
     np.array([1, 2, 3, 4]), {1, 2, 3, 4}, (-(10.0**18), 0, 5, 5)],
    ids=repr,
)  # fmt: skip
def test_all_else_is_left_to_the_general_way(written, region):
    image = MultiscaleImage.open(written[0])
    base = image.level(0)
    assert read_plain(base, base, region, None, clip=True) is None


def test_an_image_with_depth_is_left_to_the_general_way(in_memory):
    image = in_memory(np.zeros((4, 9, 8), np.uint8), "zyx")
    base = image.level(0)
    assert read_plain(base, base, (1, 2, 3, 4), None, clip=True) is None
    assert image.read_spatial_region(0, (1, 2, 3, 4)).data.shape == (4, 2, 2)


def test_a_read_can_be_sent_to_another_process(written):
    image = MultiscaleImage.open(written[0])
    for level in (0, 1):
        read = image.read_spatial_region(level, (2, 4, 8, 9))
        again = pickle.loads(pickle.dumps(read))
        same(again, read)
        assert again.coordinate_transform.apply([0, 0]).tolist() == [2, 4]
