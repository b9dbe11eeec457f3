"""`label_outlines`: polygons that are valid, and that cover an object's pixels and no others."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from microtome.errors import InvalidInputError
from microtome.export import label_outlines
from microtome.image import MultiscaleImage
from microtome.sources import open_image


def opened(pixels, axes="yx"):
    return open_image(np.asarray(pixels), axes=axes, mpp=1.0)


def outlines(pixels, **options):
    return list(label_outlines(opened(pixels), **options))


def as_shape(polygons):
    return shapely.MultiPolygon([(part[0], list(part[1:])) for part in polygons])


def check(pixels, **options):
    """Compare every polygon with the pixels, by shapely and by scipy."""
    found = outlines(pixels, **options)
    names = [label for label, _ in found]
    assert sorted(names) == sorted(set(np.unique(pixels).tolist()) - {0})
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]] + 0.5
    for label, polygons in found:
        own = pixels == label
        shape = as_shape(polygons)
        assert shape.is_valid, shapely.is_valid_reason(shape)
        assert shape.area == np.count_nonzero(own)
        np.testing.assert_array_equal(shapely.contains_xy(shape, x, y), own)
        # One polygon for pixels that share sides, and no corner that is none.
        assert len(polygons) == ndimage.label(own)[1]
        for part in polygons:
            for number, ring in enumerate(part):
                assert (ring[0] == ring[-1]).all()
                assert shapely.LinearRing(ring).is_ccw == (number == 0)
                steps = np.diff(ring, axis=0)
                assert ((steps == 0).sum(axis=1) == 1).all()
                turned = np.concatenate([steps, steps[:1]])[:, 0] == 0
                assert (turned[1:] != turned[:-1]).all()
    return found


TOUCHING = np.array([[1, 0, 2, 2], [0, 1, 2, 0], [1, 1, 0, 2], [0, 0, 2, 2]])
# A hole that meets the outside at a corner, and an object in a hole of its own.
RINGED = np.array(
    [
        [1, 1, 1, 1, 1, 0],
        [1, 0, 0, 0, 1, 0],
        [1, 0, 1, 0, 1, 1],
        [1, 0, 0, 0, 1, 0],
        [1, 1, 1, 1, 0, 1],
        [0, 1, 0, 1, 1, 1],
    ]
)
PINCHED = np.array([[0, 1, 1, 1], [1, 0, 1, 0], [1, 1, 1, 1], [1, 0, 0, 1], [1, 1, 1, 1]])


@settings(max_examples=300, deadline=None)
@given(
    arrays(
        np.uint16, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 3)
    ),
    st.sampled_from([None, 1, 2, 5]),
)
@example(TOUCHING, None)
@example(RINGED, 1)
@example(PINCHED, 2)
def test_an_outline_encloses_the_pixels_of_its_object(pixels, strip):
    check(pixels, strip=strip)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_an_object_with_thousands_of_holes_is_one_object(share):
    pixels = (np.random.default_rng(0).random((97, 113)) < share).astype(np.uint8)
    check(pixels, strip=10)


def test_strips_do_not_matter_but_for_the_order():
    rng = np.random.default_rng(1)
    pixels = np.kron(rng.integers(0, 9, (20, 20)), np.ones((5, 7), int)).astype(np.uint32)
    whole = dict(outlines(pixels))
    for strip in (1, 3, 64, 1000):
        parts = outlines(pixels, strip=strip)
        assert len(parts) == len(whole)
        for label, polygons in parts:
            for part, expected in zip(polygons, whole[label], strict=True):
                assert all((a == b).all() for a, b in zip(part, expected, strict=True))


def test_objects_leave_when_they_end():
    pixels = np.zeros((60, 10), np.uint8)
    pixels[0:5, :4] = 3
    pixels[20:22] = 2
    pixels[58:, 9] = 3
    told = []
    found = check(pixels, strip=10)
    assert [label for label, _ in found] == [2, 3]
    walk = label_outlines(opened(pixels), strip=10, progress=lambda *what: told.append(what))
    assert next(walk)[0] == 2
    # Six strips to see where labels end, and of the outlines those down to the one that follows.
    assert told[-1] == ("outline", 9, 12)
    assert [label for label, _ in walk] == [3]
    assert told[-1] == ("outline", 12, 12)


def test_labels_on_disk_and_levels(tmp_path):
    pixels = np.zeros((64, 96), np.uint32)
    pixels[8:32, 16:48] = 7
    pixels[40:60, 70:96] = 4_000_000_000
    with MultiscaleImage.create(
        tmp_path / "l.ome.zarr",
        type="uint32",
        level_shape=(64, 96),
        data_axis_order=("y", "x"),
        has_channel_axis=False,
        mpp=0.5,
    ) as image:
        image["level0"][...] = pixels
        image.add_new_level("half", shape=(32, 48))
        image["half"][...] = pixels[::2, ::2]
    image = MultiscaleImage.open(tmp_path / "l.ome.zarr")
    fine, coarse = dict(label_outlines(image)), dict(label_outlines(image, level=1))
    assert list(fine) == [7, 4_000_000_000]
    assert as_shape(coarse[7]).bounds == (8, 4, 24, 16)
    np.testing.assert_array_equal(fine[7][0][0], [[16, 8], [48, 8], [48, 32], [16, 32], [16, 8]])


def test_real_cells_are_outlined(shared_data):
    image = open_image(shared_data / "mibi" / "fov8_whole_cell_mask.tiff", mpp=0.5)
    pixels = np.asarray(image.level(0)[...]).squeeze()
    areas = np.bincount(pixels.ravel())
    found = list(label_outlines(image, strip=100))
    assert len(found) == np.count_nonzero(areas[1:]) > 200
    for label, polygons in found:
        shape = as_shape(polygons)
        assert shape.is_valid
        assert shape.area == areas[label]
    whole = shapely.union_all([as_shape(polygons) for _, polygons in found])
    assert whole.area == np.count_nonzero(pixels)


def test_no_object_no_outline():
    assert outlines(np.zeros((5, 5), np.uint8)) == []
    assert len(list(label_outlines(opened(np.ones((1, 5, 5), np.uint8), "cyx")))) == 1


@pytest.mark.parametrize(
    ("pixels", "axes", "options", "message"),
    [
        (np.zeros((2, 4, 4), np.uint8), "cyx", {}, "integers over y and x"),
        (np.zeros((4, 4), np.float32), "yx", {}, "integers over y and x"),
        (np.full((4, 4), -2, np.int32), "yx", {}, "the label -2"),
        (np.full((4, 4), 2**64 - 1, np.uint64), "yx", {}, "at most 2"),
        (np.zeros((4, 4), np.uint8), "yx", {"strip": -1}, "at least 1 row"),
    ],
)
def test_what_is_no_labels_is_refused(pixels, axes, options, message):
    with pytest.raises(InvalidInputError, match=message):
        list(label_outlines(opened(pixels, axes), **options))


def test_a_path_is_refused_with_the_way_to_open_it():
    with pytest.raises(InvalidInputError, match=r"open_image\(path\)\), got 'cells\.ome\.zarr'"):
        list(label_outlines("cells.ome.zarr"))
