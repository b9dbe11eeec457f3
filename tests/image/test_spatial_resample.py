"""Regions resampled onto a grid: against scipy on the whole level, exact areas, and landmarks."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.ndimage
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.coordinates import AffineTransform, CoordinateSpace, ScaleTransform
from microtome.errors import InvalidInputError
from microtome.image import Level, MemoryArray, MultiscaleImage, _affine, halve_mean

XY, XYZ = ("x", "y"), ("x", "y", "z")
RNG = np.random.default_rng(11)
BASE = RNG.random((2, 57, 46)).astype(np.float32)
LEVELS = [BASE, halve_mean(BASE), halve_mean(halve_mean(BASE))]


@pytest.fixture(scope="module")
def image(in_memory):
    return in_memory(LEVELS)


def turned(degrees, scale=(1.0, 1.0), shift=(0.0, 0.0), shear=0.0):
    """From a space (u, v) to pixels: sheared, scaled, rotated, moved."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    linear = np.array([[c, -s], [s, c]]) @ np.diag(scale) @ np.array([[1, shear], [0, 1]])
    return AffineTransform(("u", "v"), XY, np.column_stack([linear, shift]))


affines = st.builds(
    turned,
    st.floats(-180, 180),
    st.tuples(st.floats(0.3, 3), st.floats(0.3, 3)),
    st.tuples(st.floats(0, 40), st.floats(0, 50)),
    st.floats(-0.7, 0.7),
)


def by_scipy(stored, factor, there, origin, spacing, shape, order):
    """Resample a whole level; what scipy calls a coordinate is a centre."""
    linear = (there.linear @ np.diag(spacing) / factor)[::-1, ::-1]
    corner = ((there.linear @ origin + there.offset) / factor)[::-1]
    offset = linear @ [0.5, 0.5] + corner - 0.5
    centers = np.moveaxis(np.indices(shape), 0, -1) @ linear.T + offset + 0.5
    inside = ((centers >= 0) & (centers < stored.shape[-2:])).all(-1)
    # On the edge of the image, or where one pixel ends and the next begins for the nearest one,
    # the last digit decides, and it depends on the order of operations.
    lines = centers if order == 0 else np.where(centers > 1, centers - stored.shape[-2:], centers)
    sure = (np.abs(lines - np.round(lines)) > 1e-6) if order == 0 else (np.abs(lines) > 1e-6)
    planes = [
        scipy.ndimage.affine_transform(
            plane.astype(np.float64), linear, offset, shape, order=order, mode="nearest"
        )
        for plane in stored
    ]
    return np.stack(planes), inside, sure.all(-1)


@settings(max_examples=80)
@given(
    there=affines,
    corner=st.tuples(st.floats(-20, 20), st.floats(-20, 20)),
    spacing=st.tuples(st.floats(0.2, 3), st.floats(0.2, 3)),
    shape=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    level=st.integers(0, 2),
    method=st.sampled_from(["linear", "nearest"]),
)
def test_a_resampled_region_is_scipys_on_the_whole_level(
    image, there, corner, spacing, shape, level, method
):
    box = (
        *corner,
        corner[0] + spacing[0] * shape[1],
        corner[1] + spacing[1] * shape[0],
    )
    read = image.read_spatial_region(
        level, box, region_transform=there, resample=method, spacing=spacing, pad=-1
    )
    steps = [(b - a) / n for a, b, n in zip(box[:2], box[2:], shape[::-1], strict=True)]
    expected, inside, sure = by_scipy(
        LEVELS[level], 2**level, there, corner, steps, shape, {"linear": 1, "nearest": 0}[method]
    )
    assert read.data.shape == expected.shape
    assert read.data.dtype == np.float32
    np.testing.assert_allclose(
        read.data[:, sure], np.where(inside, expected, -1)[:, sure], rtol=0, atol=1e-5
    )


@settings(max_examples=60)
@given(there=affines, data=st.data(), method=st.sampled_from(["linear", "nearest", "area"]))
def test_a_part_of_a_grid_is_a_part_of_the_whole(image, there, data, method):
    whole = image.read_spatial_region(
        1, (-10, -8, 22, 24), region_transform=there, resample=method, spacing=0.5, pad=9
    )
    u = sorted(data.draw(st.lists(st.integers(0, 64), min_size=2, max_size=2, unique=True)))
    v = sorted(data.draw(st.lists(st.integers(0, 64), min_size=2, max_size=2, unique=True)))
    box = (-10 + u[0] / 2, -8 + v[0] / 2, -10 + u[1] / 2, -8 + v[1] / 2)
    part = image.read_spatial_region(
        1, box, region_transform=there, resample=method, spacing=0.5, pad=9
    )
    crop = whole.data[:, slice(*v), slice(*u)]
    # Positions counted from another corner differ in their last digit, which may move a sample
    # that lies on the edge of a pixel to the other side.
    differing = ~np.isclose(part.data, crop, rtol=0, atol=1e-5)
    assert differing.mean() < 0.005


def test_the_mosaic_of_a_grid_is_the_whole(image):
    # Numbers that are exact in binary: not a bit may differ.
    there = AffineTransform(("u", "v"), XY, [[0.75, -0.5, 20], [0.5, 1.25, 4]])
    cuts = [0, 3.5, 4, 17, 24]
    for method in ("nearest", "linear", "area"):
        arguments = {"region_transform": there, "resample": method, "spacing": 0.25, "pad": 0}
        whole = image.read_spatial_region(0, (0, 0, 24, 24), **arguments)
        rows = [
            np.concatenate(
                [
                    image.read_spatial_region(0, (u0, v0, u1, v1), **arguments).data
                    for u0, u1 in itertools.pairwise(cuts)
                ],
                axis=2,
            )
            for v0, v1 in itertools.pairwise(cuts)
        ]
        np.testing.assert_array_equal(np.concatenate(rows, axis=1), whole.data)


@pytest.mark.parametrize("method", ["nearest", "linear", "area"])
@pytest.mark.parametrize("pad", [7, "edge", "reflect"])
@pytest.mark.parametrize("degrees", [0, 33])
def test_the_blocks_of_the_computation_do_not_show(image, monkeypatch, method, pad, degrees):
    there = turned(degrees, (1.7, 2.3), (-5, 3))
    arguments = {"region_transform": there, "resample": method, "pad": pad, "grid_shape": (41, 37)}
    box = (-8.3, -9.1, 40.2, 33.3)
    whole = image.read_spatial_region(0, box, **arguments)
    monkeypatch.setattr(_affine, "_SIDE", {2: 13, 3: 13})
    np.testing.assert_array_equal(image.read_spatial_region(0, box, **arguments).data, whole.data)
    # So small that a block is a pixel.
    monkeypatch.setattr(_affine, "_MOST_SOURCE", 20)
    np.testing.assert_array_equal(image.read_spatial_region(0, box, **arguments).data, whole.data)


def test_no_more_of_a_level_is_read_at_once_than_a_block_needs(monkeypatch):
    class Watched(MemoryArray):
        largest = 0

        def read_into(self, box, out):
            self.largest = max(self.largest, out.size)
            return super().read_into(box, out)

    array = Watched(np.ones((900, 1000), np.uint8))
    level = Level("level0", "level0", array, "yx", (1.0, 1.0), (0.0, 0.0))
    image = MultiscaleImage([level], uri="array", channel_names=None, mpp=None)
    monkeypatch.setattr(_affine, "_MOST_SOURCE", 10_000)
    for method, degrees in itertools.product(["nearest", "linear", "area"], [0, 45]):
        read = image.read_spatial_region(
            0, (0, 0, 900, 900), region_transform=turned(degrees), resample=method, spacing=3
        )
        assert read.data.max() == 1
    assert 0 < array.largest <= 10_000


# ------------------------------------------------------------------ areas


def overlap_weights(start, step, count, size):
    """Exactly how much each of `count` pixels covers each of `size` pixels, rows summing to 1."""
    weights = []
    for j in range(count):
        low, high = sorted([start + step * j, start + step * (j + 1)])
        row = [max(Fraction(0), min(high, i + 1) - max(low, Fraction(i))) for i in range(size)]
        total = sum(row)
        weights.append([value / total if total else Fraction(0) for value in row])
    return np.array(weights, dtype=np.float64)


eighths = st.integers(-80, 300).map(lambda n: Fraction(n, 8))


@settings(max_examples=80)
@given(
    start=st.tuples(eighths, eighths),
    step=st.tuples(*[st.integers(1, 90).map(lambda n: Fraction(n, 8))] * 2),
    mirrored=st.tuples(st.booleans(), st.booleans()),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    level=st.integers(0, 1),
)
def test_areas_are_exact_where_axes_stay_parallel(image, start, step, mirrored, shape, level):
    sign = [-1 if flip else 1 for flip in mirrored]
    there = ScaleTransform(("u", "v"), XY, sign)
    box = (*start, *(a + d * n for a, d, n in zip(start, step, shape[::-1], strict=True)))
    read = image.read_spatial_region(
        level,
        [float(value) for value in box],
        region_transform=there,
        resample="area",
        spacing=[float(value) for value in step],
        pad=-1,
    )
    stored, f = LEVELS[level], 2**level
    x = overlap_weights(sign[0] * start[0] / f, sign[0] * step[0] / f, shape[1], stored.shape[2])
    y = overlap_weights(sign[1] * start[1] / f, sign[1] * step[1] / f, shape[0], stored.shape[1])
    expected = np.einsum("ji,cil,kl->cjk", y, stored.astype(np.float64), x)
    covered = np.outer(y.any(axis=1), x.any(axis=1))
    np.testing.assert_allclose(read.data, np.where(covered, expected, -1), atol=1e-5)


@pytest.mark.parametrize("degrees", [90, 180, 270, 45, 20])
def test_areas_of_turned_pixels(image, degrees):
    there = turned(degrees, shift=(24, 27))
    box, spacing = (-6, -9, 6, 9), 3.0
    read = image.read_spatial_region(
        0, box, region_transform=there, resample="area", spacing=spacing
    )
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    expected = np.empty((2, 6, 4))
    for j, i in np.ndindex(6, 4):
        outline = there.apply(corners * spacing + [box[0] + i * spacing, box[1] + j * spacing])
        pixel = shapely.Polygon(outline)
        x0, y0, x1, y1 = (int(v) for v in np.round([*np.floor(outline.min(0)), *outline.max(0)]))
        total = np.zeros(2)
        for y, x in itertools.product(range(y0 - 1, y1 + 2), range(x0 - 1, x1 + 2)):
            total += BASE[:, y, x] * pixel.intersection(shapely.box(x, y, x + 1, y + 1)).area
        expected[:, j, i] = total / 9
    # Right angles are exact; between them samples a third of a pixel apart stand for the area.
    tolerance = 1e-5 if degrees % 90 == 0 else 0.04
    np.testing.assert_allclose(read.data, expected, atol=tolerance)
    assert np.std(read.data - expected) < 0.015


@pytest.mark.parametrize("degrees", [0, 27])
def test_a_ramp_keeps_its_slope(in_memory, degrees):
    # The mean of a ramp over anything symmetric is its value in the middle, and so is linear.
    y, x = np.mgrid[:60, :60]
    image = in_memory((3 * x + 5 * y).astype(np.float64), "yx")
    there = turned(degrees, shift=(30, 30))
    for method, spacing in itertools.product(["linear", "area"], [0.3, 2.0, 4.7]):
        read = image.read_spatial_region(
            0, (-12, -12, 12, 12), region_transform=there, resample=method, spacing=spacing
        )
        i, j = np.meshgrid(np.arange(read.data.shape[1]), np.arange(read.data.shape[0]))
        centers = there.apply(read.coordinate_transform.apply(np.stack([i, j], -1) + 0.5)) - 0.5
        expected = centers @ [3, 5]
        # Small pixels lie in few others: for them the mean is the value of a pixel, not the slope.
        tolerance = 1e-9 if method == "linear" else 8 if spacing < 1 else 1.7
        inner = slice(1, -1), slice(1, -1)
        np.testing.assert_allclose(read.data[inner], expected[inner], atol=tolerance)


def test_edges_are_neither_darkened_nor_brightened(in_memory):
    image = in_memory(np.full((20, 20), 200, np.uint8), "yx")
    for degrees, method in itertools.product([0, 30, 45], ["nearest", "linear", "area"]):
        read = image.read_spatial_region(
            0,
            (-20, -20, 20, 20),
            region_transform=turned(degrees, shift=(10, 10)),
            resample=method,
            spacing=0.7,
            pad=13,
        )
        assert set(np.unique(read.data)) == {13, 200}


# ------------------------------------------------------------------ the grid


def test_the_grid_is_where_the_transform_says(image):
    there = turned(30, (2, 3), (10, 5))
    space = CoordinateSpace.from_axis_names(("u", "v"), unit="micrometer")
    read = image.read_spatial_region(
        1, (1, 2, 7, 9.1), region_transform=there, region_coord_space=space,
        resample="linear", spacing=(0.5, 0.25),
    )  # fmt: skip
    assert read.data.shape == (2, 29, 12)  # 7.1 / 0.25 = 28.4
    assert read.coordinate_transform.input_axes == XY
    np.testing.assert_allclose(
        read.coordinate_transform.apply([[0, 0], [12, 29]]), [[1, 2], [7, 9.25]]
    )
    assert read.output_coordinate_space == space
    filled = image.read_spatial_region(
        1, (1, 2, 7, 9.1), region_transform=there, resample="linear", grid_shape=(10, 4)
    )
    assert filled.data.shape == (2, 10, 4)
    np.testing.assert_allclose(
        filled.coordinate_transform.apply([[0, 0], [4, 10]]), [[1, 2], [7, 9.1]]
    )


def test_by_default_a_step_is_a_pixel_of_the_level(image):
    # One unit of (u, v) is 2 and 3 reference pixels, 1 and 1.5 pixels of level 1.
    read = image.read_spatial_region(
        1, (0, 0, 6, 6), region_transform=turned(30, (2, 3), (20, 20)), resample="linear"
    )
    assert read.data.shape == (2, 9, 6)
    steps = np.diag(read.coordinate_transform.linear)
    np.testing.assert_allclose(steps, [1, 2 / 3])
    # On the level's own grid nothing changes.
    for method, level in itertools.product(["nearest", "linear", "area"], [0, 1, 2]):
        plain = image.read_spatial_region(level, (4, 8, 44, 56))
        same = image.read_spatial_region(level, (4, 8, 44, 56), resample=method)
        np.testing.assert_array_equal(plain.data, same.data)
        assert plain.coordinate_transform == same.coordinate_transform


def test_without_a_region_the_whole_image_is_resampled(image):
    read = image.read_spatial_region(0, resample="area", spacing=2)
    np.testing.assert_allclose(read.data, LEVELS[1], rtol=1e-6)
    tilted = turned(45, shift=(30, -10))
    read = image.read_spatial_region(0, region_transform=tilted, resample="linear", pad=-1)
    corners = tilted.inverse_transform().apply([(0, 0), (46, 0), (0, 57), (46, 57)])
    low = read.coordinate_transform.apply([0, 0])
    high = read.coordinate_transform.apply(read.data.shape[:0:-1])
    np.testing.assert_allclose(low, corners.min(0), atol=1e-9)
    assert (high >= corners.max(0) - 1e-6).all()
    assert abs(int((read.data[0] >= 0).sum()) - 46 * 57) < 100


def test_outside_the_image(image):
    there = turned(45, shift=(200, 200))
    with pytest.raises(InvalidInputError, match="does not overlap"):
        image.read_spatial_region(0, (0, 0, 5, 5), region_transform=there, resample="linear")
    read = image.read_spatial_region(
        0, (0, 0, 5, 5), region_transform=there, resample="linear", pad=4
    )
    np.testing.assert_array_equal(read.data, np.full((2, 5, 5), 4))
    # Partly outside, a grid stays whole.
    read = image.read_spatial_region(0, (40, 50, 60, 60), resample="nearest", spacing=1)
    assert read.data.shape == (2, 10, 20)
    np.testing.assert_array_equal(read.data[:, :7, :6], BASE[:, 50:, 40:])
    assert not read.data[:, 7:].any()
    assert not read.data[:, :, 6:].any()


@pytest.mark.parametrize("method", ["nearest", "linear"])
def test_an_image_ends_before_its_last_edge(image, method):
    # Centres on the edges of pixels: the left edge of the image is in it, the right one is not.
    read = image.read_spatial_region(
        0, (-1.5, 10, 47.5, 11), resample=method, spacing=1, pad=-1, channel_coords=0
    )
    inside = read.data[0, 0] >= 0
    np.testing.assert_array_equal(np.flatnonzero(inside), np.arange(1, 47))


@pytest.mark.parametrize("pad", ["edge", "reflect"])
def test_the_image_goes_on_outside(image, pad):
    there = turned(15, shift=(5, 5))
    box = (-30, -30, 70, 70)
    margin = 150
    whole = np.pad(BASE, [(0, 0), (margin, margin), (margin, margin)], mode=pad)
    read = image.read_spatial_region(
        0, box, region_transform=there, resample="linear", spacing=2.5, pad=pad
    )
    shifted = AffineTransform(
        ("u", "v"), XY, np.column_stack([there.linear, there.offset + margin])
    )
    expected, inside, _ = by_scipy(whole, 1, shifted, box[:2], (2.5, 2.5), (40, 40), 1)
    assert inside.all()
    np.testing.assert_allclose(read.data, expected, atol=1e-5)


@pytest.mark.parametrize(
    "arguments",
    [
        {"spacing": 0},
        {"spacing": -1},
        {"spacing": math.nan},
        {"spacing": math.inf},
        {"spacing": (1, 2, 3)},
        {"spacing": "1"},
        {"spacing": 1e-12},
        {"spacing": 5e-324},
        {"grid_shape": (4,)},
        {"grid_shape": (4, 4, 4)},
        {"grid_shape": (0, 4)},
        {"grid_shape": (4.0, 4.0)},
        {"grid_shape": 4},
        {"grid_shape": (10**9, 10**9)},
        {"grid_shape": (4, 4), "spacing": 2},
    ],
    ids=repr,
)
def test_grids_that_cannot_be(image, arguments):
    with pytest.raises(InvalidInputError):
        image.read_spatial_region(0, (0, 0, 8, 8), resample="linear", **arguments)


# ------------------------------------------------------------------ what pixels are


@given(
    degrees=st.floats(-180, 180),
    scale=st.floats(0.4, 2),
    spot=st.tuples(st.integers(0, 69), st.integers(0, 89)),
    level=st.integers(0, 1),
    method=st.sampled_from(["nearest", "linear", "area", None]),
)
@settings(max_examples=80)
def test_a_landmark_is_found_where_it_was_drawn(in_memory, degrees, scale, spot, level, method):
    pixels = np.zeros((90, 70), np.float32)
    pixels[spot[1], spot[0]] = 1
    image = in_memory([pixels, halve_mean(pixels)], "yx")
    there = turned(degrees, (scale, scale), (35, 45))
    place = there.inverse_transform().apply(np.array(spot) + 0.5)
    box = (*(place - 7.3), *(place + np.array([8.2, 6.4])))
    # Small steps: the landmark is seen whatever the method.
    grid = (
        {} if method is None else {"resample": method, "spacing": 0.4 * 2**level / scale, "pad": 0}
    )
    read = image.read_spatial_region(level, box, region_transform=there, **grid)
    weights = read.data.astype(np.float64)
    assert weights.sum() > 0
    y, x = np.indices(read.data.shape)
    centers = read.coordinate_transform.apply(np.stack([x, y], -1) + 0.5)
    found = (centers * weights[..., None]).sum((0, 1)) / weights.sum()
    # Half a pixel of the level, in the caller's space, is as well as a pixel can be placed.
    assert np.abs(found - place).max() <= 0.75 * 2**level / scale


def test_labels_are_only_taken_never_averaged(in_memory):
    # Too many digits for a float64.
    labels = np.array([[2**53 + 1, 0], [7, 2**62 + 3]], np.uint64)
    image = in_memory(labels, "yx", kind="labels")
    read = image.read_spatial_region(0, resample="nearest", grid_shape=(4, 6))
    np.testing.assert_array_equal(read.data, np.repeat(np.repeat(labels, 2, 0), 3, 1))
    read = image.read_spatial_region(
        0, (-1, -1, 1, 1), region_transform=turned(90, shift=(1, 1)), resample="nearest"
    )
    np.testing.assert_array_equal(read.data, np.rot90(labels))
    for method in ("linear", "area"):
        with pytest.raises(InvalidInputError, match="never averaged"):
            image.read_spatial_region(0, resample=method)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32", "float64", "bool"])
def test_types_stay_and_integers_are_rounded_half_up(in_memory, dtype):
    pixels = np.array([[0, 1], [1, 1]]).astype(dtype)
    image = in_memory(pixels, "yx")
    read = image.read_spatial_region(0, (0.5, 0, 1.5, 1), resample="linear")
    assert read.data.dtype == dtype
    assert read.data.tolist() == [[0.5 if dtype.startswith("float") else 1]]
    mean = image.read_spatial_region(0, resample="area", grid_shape=(1, 1)).data
    assert mean.tolist() == [[0.75 if dtype.startswith("float") else 1]]


@pytest.mark.parametrize("method", ["linear", "area"])
@pytest.mark.parametrize("degrees", [0, 90])
def test_a_pixel_without_a_value_spoils_only_those_that_use_it(in_memory, method, degrees):
    pixels = np.ones((6, 6), np.float32)
    pixels[2, 3] = np.nan
    pixels[5, 0] = np.inf
    image = in_memory(pixels, "yx")
    there = turned(degrees, shift=(6 if degrees else 0, 0))
    read = image.read_spatial_region(
        0, (0, 0, 6, 6), region_transform=there, resample=method, spacing=1
    )
    np.testing.assert_array_equal(read.data, np.rot90(pixels, degrees // 90))


def test_masked_and_resampled(image):
    there = turned(25, (1.5, 1.5), (10, 3))
    shape = shapely.Point(9, 12).buffer(7)
    read = image.read_spatial_region(
        1, shape, region_transform=there, mask_geometry=True, resample="linear", spacing=0.5, pad=-2
    )
    whole = image.read_spatial_region(
        1, shape.bounds, region_transform=there, resample="linear", spacing=0.5, pad=-2
    )
    assert read.data.shape == (2, 28, 28)
    for j, i in np.ndindex(28, 28):
        center = shapely.Point(read.coordinate_transform.apply([i + 0.5, j + 0.5]))
        expected = whole.data[:, j, i] if shape.intersects(center) else [-2, -2]
        np.testing.assert_array_equal(read.data[:, j, i], expected)


def test_channels_and_order_of_a_resampled_region(image):
    arguments = {"region_transform": turned(10), "resample": "linear", "grid_shape": (5, 7)}
    whole = image.read_spatial_region(0, (3, 3, 20, 20), **arguments)
    part = image.read_spatial_region(
        0, (3, 3, 20, 20), channel_coords=["C1"], data_axis_order="xyc", **arguments
    )
    np.testing.assert_array_equal(part.data, whole.data[1:].transpose(2, 1, 0))
    none = image.read_spatial_region(0, (3, 3, 20, 20), channel_coords=[], **arguments)
    assert none.data.shape == (0, 5, 7)


# ------------------------------------------------------------------ three axes


VOLUME = RNG.random((14, 22, 18)).astype(np.float32)


@pytest.fixture(scope="module")
def volume():
    level = Level("level0", "level0", MemoryArray(VOLUME), "zyx", (2.0, 0.5, 0.5), (0.0,) * 3)
    return MultiscaleImage([level], uri="array", channel_names=None, mpp=None)


@pytest.mark.parametrize("method", ["linear", "nearest"])
def test_a_turned_volume_is_scipys(volume, method):
    turn = np.linalg.qr(RNG.normal(size=(3, 3)))[0] @ np.diag([1.1, 0.9, 0.7])
    there = AffineTransform(("a", "b", "c"), XYZ, np.column_stack([turn, [9, 11, 7]]))
    read = volume.read_spatial_region(
        0, (-6, -6, -6, 6, 7, 8), region_transform=there, resample=method, spacing=0.8, pad=-1
    )
    assert read.data.shape == (18, 17, 15)
    linear = (turn * 0.8)[::-1, ::-1]
    offset = (turn @ [-6, -6, -6] + [9, 11, 7])[::-1] + linear @ [0.5, 0.5, 0.5] - 0.5
    centers = np.moveaxis(np.indices(read.data.shape), 0, -1) @ linear.T + offset + 0.5
    inside = ((centers >= 0) & (centers < VOLUME.shape)).all(-1)
    order = 1 if method == "linear" else 0
    expected = scipy.ndimage.affine_transform(
        VOLUME.astype(np.float64), linear, offset, read.data.shape, order=order, mode="nearest"
    )
    np.testing.assert_allclose(read.data, np.where(inside, expected, -1), atol=1e-5)


def test_blocks_of_a_volume_are_averaged(volume):
    read = volume.read_spatial_region(0, resample="area", spacing=(3, 2, 7))
    blocks = VOLUME.reshape(2, 7, 11, 2, 6, 3).mean((1, 3, 5))
    np.testing.assert_allclose(read.data, blocks, rtol=1e-5)
    assert read.coordinate_transform.apply([1, 1, 1]).tolist() == [3, 2, 7]
    # About the z axis by a right angle: samples half a pixel apart are exact too.
    there = AffineTransform(XYZ, XYZ, [[0, -1, 0, 18], [1, 0, 0, 0], [0, 0, 1, 0]])
    turned_volume = volume.read_spatial_region(
        0, (0, 0, 0, 22, 18, 14), region_transform=there, resample="area", spacing=(2, 3, 7)
    )
    np.testing.assert_allclose(turned_volume.data, np.rot90(blocks, axes=(1, 2)), rtol=1e-5)
