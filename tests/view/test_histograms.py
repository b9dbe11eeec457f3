"""Histograms count the pixels inside the mask, each once."""

from __future__ import annotations

import numpy as np
import pytest

from microtome.standardize import ChannelStatistics, StandardizationSpec, Standardizer
from microtome.view import Histogram, histograms

RNG = np.random.default_rng(11)


def shares(values, edges):
    """Count one by one; what lies beyond an end is in the last bin there."""
    counts = np.zeros(len(edges) - 1)
    for value in values.tolist():
        place = np.searchsorted(edges, value, side="right") - 1
        counts[min(max(place, 0), len(counts) - 1)] += 1
    return counts / len(values)


def test_eight_bits_are_counted_in_64_bins(new_image):
    pixels = RNG.integers(0, 256, (3, 40, 50), np.uint8)
    found = histograms(new_image(pixels, channel_names=["red", "green", "blue"]))
    assert [channel.name for channel in found] == ["red", "green", "blue"]
    for channel, plane in zip(found, pixels, strict=True):
        assert channel.stored.edges.tolist() == list(range(0, 257, 4))
        assert np.allclose(
            channel.stored.share, np.bincount(plane.ravel() // 4, minlength=64) / 2000
        )
        assert channel.standardized is None


def test_only_pixels_inside_the_mask_count(new_image):
    pixels = np.full((3, 40, 50), 200, np.uint8)
    pixels[:, 10:20, 5:25] = 30
    mask = np.zeros((10, 10), np.uint8)
    mask[2:4, 1:5] = 1  # rows 10 to 20 and columns 5 to 25 of the image, in pixels of 2.5 um
    labels = new_image(mask, 2.5, edge=(-0.25, -0.25), kind="labels")
    image = new_image(pixels, 0.5, channel_names=["red", "green", "blue"])
    assert histograms(image, mask=labels)[0].stored.share[30 // 4] == 1


def test_no_pixel_inside_no_histogram(new_image):
    image = new_image(np.zeros((1, 8, 8), np.uint16))
    empty = new_image(np.zeros((8, 8), np.uint8), kind="labels")
    assert histograms(image, mask=empty) == []


@pytest.mark.parametrize("top", [3, 50, 5000])
def test_every_bin_of_integers_holds_as_many_of_them(new_image, top):
    # Each integer equally often: without care, bins would hold now one and now two of them.
    pixels = np.tile(np.arange(top + 1, dtype=np.uint16), 40)[None, None]
    (channel,) = histograms(new_image(pixels), size=10**6)
    assert np.ptp(channel.stored.share[:-1]) < 1e-12
    assert channel.stored.share.sum() == pytest.approx(1)
    assert len(channel.stored.share) <= 64


def test_floats_are_counted_up_to_a_quantile_and_the_rest_is_in_the_last_bin(new_image):
    pixels = RNG.normal(5, 2, (1, 60, 60)).astype(np.float32)
    pixels[0, 0, 0], pixels[0, 0, 1] = 1e6, np.nan
    (channel,) = histograms(new_image(pixels))
    values = pixels[np.isfinite(pixels)]
    assert channel.stored.edges[0] == min(0, values.min())
    assert channel.stored.edges[-1] == pytest.approx(np.quantile(values, 0.999))
    assert np.allclose(channel.stored.share, shares(values, channel.stored.edges), atol=2 / 3600)


def test_standardized_pixels_are_those_of_the_standardizer(new_image):
    pixels = RNG.gamma(2, 50, (2, 64, 64)).astype(np.float32)
    statistics = ChannelStatistics(
        ("signal", "none"),
        upper=np.array([200, 0], np.float32),
        mean=np.array([0.4, 0], np.float32),
        std=np.array([0.2, 0], np.float32),
    )
    spec = StandardizationSpec.parse("quantile_clipping/uq_0.99_image")
    image = new_image(pixels, channel_names=["signal", "none"])
    signal, none = histograms(image, standardizer=Standardizer(spec, statistics))
    expected = (np.minimum(pixels[0], 200) / 200 - 0.4) / 0.2
    assert signal.standardized is not None
    assert signal.standardized.edges[0] == pytest.approx(expected.min(), abs=1e-4)
    assert signal.standardized.edges[-1] == pytest.approx(3.0, abs=1e-4)
    counted = shares(expected.ravel(), signal.standardized.edges)
    # A value on an edge may fall to either side, by rounding.
    assert np.allclose(signal.standardized.share, counted, atol=5 / 4096)
    # Its upper quantile is 0: there is nothing to divide by.
    assert none.standardized is None
    assert none.stored.share.sum() == pytest.approx(1)


def test_a_constant_has_one_bar():
    histogram = Histogram.of(np.full(9, 4.0), 4.0, 4.0, bins=5)
    assert histogram.share.tolist() == [1, 0, 0, 0, 0]
    assert histogram.edges[0] == 4
