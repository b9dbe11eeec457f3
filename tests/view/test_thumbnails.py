"""A picture lies where the image lies, whatever its size, and other images lie right on it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.errors import (
    InvalidInputError,
    NoResolutionError,
    OutOfRangeError,
    UnknownNameError,
)
from microtome.sources import open_image
from microtome.view import Frame, _thumbnails, nuclear_channels, thumbnail
from microtome.view._thumbnails import frame_of, sample


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 1200))
def test_a_frame_ends_where_the_image_ends(height, width, size):
    image = open_image(np.broadcast_to(np.uint8(0), (height, width)), mpp=(0.3, 0.7))
    frame = frame_of(image, size)
    left, right, bottom, top = frame.extent
    assert (left, top) == (-0.35, -0.15)
    assert right - left == pytest.approx(width * 0.7)
    assert bottom - top == pytest.approx(height * 0.3)
    assert max(frame.height, frame.width) == min(size, max(height, width))


def test_a_picture_of_half_the_size_is_the_mean_of_four_pixels(new_image):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 60, 84), np.uint8)
    image = new_image(pixels, channel_names=["red", "green", "blue"])
    quads = pixels.reshape(3, 30, 2, 42, 2).astype(np.float64).mean(axis=(2, 4))
    assert np.array_equal(
        thumbnail(image, size=42).pixels, np.moveaxis(np.floor(quads + 0.5), 0, -1)
    )


def test_a_small_image_is_not_enlarged(new_image):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 31), np.uint8)
    image = new_image(pixels, channel_names=["R", "G", "B"])
    shown = thumbnail(image)
    assert np.array_equal(shown.pixels, np.moveaxis(pixels, 0, -1))
    assert shown.channels == ()


def test_reading_in_bands_changes_nothing(monkeypatch):
    # One level: the case that bands are for.
    image = open_image(
        np.random.default_rng(1).integers(0, 4000, (2, 203, 157), np.uint16),
        axes="cyx",
        channel_names=["a", "b"],
        mpp=1.0,
    )
    whole = thumbnail(image, size=50).pixels
    monkeypatch.setattr(_thumbnails, "_BAND", 2000)
    assert np.array_equal(thumbnail(image, size=50).pixels, whole)


def test_channels_of_a_composite_shine_in_the_colours_of_the_legend(new_image):
    pixels = np.zeros((3, 40, 40), np.float32)
    pixels[0, :20], pixels[2, :, :20] = 8, 5
    image = new_image(pixels, channel_names=["first", "dark", "last"])
    shown = thumbnail(image, channels=["first", "last"])
    first, last = ([int(c.colour[i : i + 2], 16) for i in (1, 3, 5)] for c in shown.channels)
    assert shown.pixels[5, 30].tolist() == first
    assert shown.pixels[30, 5].tolist() == last
    assert shown.pixels[5, 5].tolist() == np.minimum(np.add(first, last), 255).tolist()
    assert shown.pixels[30, 30].tolist() == [0, 0, 0]
    assert [(c.name, c.low, c.high) for c in shown.channels] == [("first", 0, 8), ("last", 0, 5)]
    assert shown.channel_count == 3


def test_a_sparse_channel_and_missing_values_still_show(new_image):
    pixels = np.zeros((1, 100, 100), np.float32)
    pixels[0, 3, 4], pixels[0, 50] = 7, np.nan
    shown = thumbnail(new_image(pixels, channel_names=["rare"]))
    # A single channel is shown in grey.
    assert shown.pixels[3, 4].tolist() == [255, 255, 255]
    assert shown.pixels[50].max() == 0


def test_one_channel_without_an_axis(new_image):
    shown = thumbnail(new_image(np.arange(100, dtype=np.uint8).reshape(10, 10)))
    assert [channel.name for channel in shown.channels] == ["intensity"]
    assert shown.pixels[9, 9].tolist() == [255, 255, 255]


# Sampling is linear between pixels, and the mean of whole pixels of a ramp is the ramp at their
# middle: a ramp over space stays that ramp, whatever grids it passes through.
@pytest.mark.parametrize("mpp", [(0.35, 0.3), (0.7, 0.6), (0.175, 0.8), (0.8, 0.9), (3.0, 2.0)])
@pytest.mark.parametrize("edge", [(0.0, 0.0), (-3.7, 12.4)])
def test_a_ramp_over_space_is_found_at_every_place(new_image, mpp, edge):
    height, width = 120, 160
    y = edge[0] + (np.arange(height) + 0.5) * mpp[0]
    x = edge[1] + (np.arange(width) + 0.5) * mpp[1]
    image = new_image((3 * y[:, None] - 2 * x[None]).astype(np.float64), mpp, edge=edge)
    frame = Frame(height=70, width=90, top=2.0, left=9.0, step_y=0.7, step_x=0.6)
    centers = 2.0 + (np.arange(70) + 0.5) * 0.7, 9.0 + (np.arange(90) + 0.5) * 0.6
    inside = [
        (center > start) & (center < start + count * size)
        for center, start, count, size in zip(centers, edge, (height, width), mpp, strict=True)
    ]
    found = sample(image, frame)
    assert np.array_equal(np.isfinite(found), np.outer(*inside))
    # Within a pixel of the edge there is nothing beyond to interpolate with.
    far = [
        (center > start + max(size, 0.7)) & (center < start + count * size - max(size, 0.7))
        for center, start, count, size in zip(centers, edge, (height, width), mpp, strict=True)
    ]
    assert np.outer(*far).any()
    expected = 3 * centers[0][:, None] - 2 * centers[1][None]
    assert np.allclose(found[np.ix_(*far)], expected[np.ix_(*far)], atol=1e-3)


def test_the_same_grid_is_read_as_it_is(new_image):
    pixels = np.random.default_rng(2).normal(size=(2, 33, 47)).astype(np.float32)
    image = new_image(pixels, 0.3, edge=(1.1, -7.3), channel_names=["a", "b"])
    assert np.array_equal(sample(image, frame_of(image), channel="b"), pixels[1])


def test_labels_are_never_mixed(new_image):
    labels = np.random.default_rng(3).choice(np.array([0, 7, 90], np.uint16), (40, 40))
    image = new_image(labels, 2.0, edge=(0.0, 0.0), kind="labels")
    frame = Frame(height=100, width=100, top=1.0, left=3.0, step_y=0.5, step_x=0.5)
    rows = ((1.0 + (np.arange(100) + 0.5) * 0.5) // 2.0).astype(int)
    columns = ((3.0 + (np.arange(100) + 0.5) * 0.5) // 2.0).astype(int)
    assert np.array_equal(sample(image, frame), labels[np.ix_(rows, columns)])


def test_an_image_elsewhere_is_nowhere_on_the_grid(new_image):
    image = new_image(np.ones((10, 10), np.float32), 1.0, edge=(500.0, 0.0))
    frame = Frame(height=5, width=6, top=0.0, left=0.0, step_y=1.0, step_x=1.0)
    assert np.isnan(sample(image, frame)).all()


def test_what_cannot_be_shown_is_refused(new_image):
    planes = new_image(np.zeros((8, 9, 9), np.uint16), channel_names=list("abcdefgh"))
    with pytest.raises(InvalidInputError, match="1 to 6 channels, got 7"):
        thumbnail(planes, channels=range(7))
    with pytest.raises(InvalidInputError, match="1 to 6 channels, got 0"):
        thumbnail(planes, channels=[])
    with pytest.raises(UnknownNameError, match="'z'"):
        thumbnail(planes, channels=["z"])
    with pytest.raises(OutOfRangeError, match="channel 8"):
        thumbnail(planes, channels=[8])
    with pytest.raises(InvalidInputError, match="not red, green and blue"):
        thumbnail(planes, rgb=True)
    with pytest.raises(InvalidInputError, match="at least 1 pixel"):
        thumbnail(planes, size=0)
    with pytest.raises(NoResolutionError):
        thumbnail(open_image(np.zeros((5, 5), np.uint8)))
    with pytest.raises(InvalidInputError, match="'zyx'"):
        thumbnail(open_image(np.zeros((2, 5, 5), np.uint8), axes="zyx", mpp=1.0))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["CD3", "DAPI", "CD8"], [False, True, False]),
        (["Ki67", "HH3 (89)", "DNA1"], [False, True, True]),
        (["H3K27Ac_1977((2242))Yb172", "10326031-79_191Ir"], [False, True]),
        (["hematoxylin", "DAB"], [True, False]),
        (["Nuclear envelope", "Hoechst_2", "CDNA"], [True, True, False]),
    ],
)
def test_nuclei_are_known_by_mark_or_name(names, expected):
    assert nuclear_channels(names, [False] * len(names)) == expected
    marked = [index == 0 for index in range(len(names))]
    assert nuclear_channels(names, marked) == marked, "a mark goes before names"


def test_blue_is_for_nuclei_and_the_last_choice_without(new_image):
    pixels = np.zeros((3, 8, 8), np.uint16)
    without = thumbnail(new_image(pixels, channel_names=["CD3", "CD8", "CD20"]))
    assert "#4a7dff" not in [channel.colour for channel in without.channels]
    with_nuclei = thumbnail(new_image(pixels, channel_names=["DAPI", "CD8", "CD20"]))
    assert [c.name for c in with_nuclei.channels if c.colour == "#4a7dff"] == ["DAPI"]
