"""Charts and photographs of a page, against what matplotlib itself writes."""

from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from microtome.view import ChannelHistogram, Histogram, plot_histograms
from microtome.view._charts import _chart, histogram_axes
from microtome.view._figures import new_figure
from microtome.view._pictures import chart_of, drawn, own_style, photograph_of

WIDE = Histogram(np.array([0.0, 2.5e6, 5e6, 6.5e6]), np.array([0.99, 0.01 - 1e-9, 1e-9]))
FINE = Histogram(np.array([-1.25e-5, 0.0, 1.25e-5]), np.array([1 - 1e-12, 1e-12]))


def pixels_of(picture):
    data = base64.b64decode(picture.source.split(",")[1])
    return np.asarray(Image.open(BytesIO(data)).convert("RGB")).astype(int)


def figure(dpi=None):
    made = new_figure(420, 180)
    plot_histograms([ChannelHistogram("CD3", WIDE)], log=True, ax=made.add_subplot())
    if dpi is not None:
        made.set_dpi(dpi)
    return made


def saved(made, dpi):
    buffer = BytesIO()
    made.savefig(buffer, format="png", dpi=dpi)
    return np.asarray(Image.open(buffer).convert("RGB")).astype(int)


@pytest.mark.parametrize("dpi", [100, 200])
def test_what_is_drawn_is_what_matplotlib_saves(dpi):
    expected = saved(figure(), dpi)
    found = drawn(figure(dpi))
    np.testing.assert_array_equal(found, expected)


def test_a_chart_has_twice_the_pixels_and_the_same_colours():
    expected = saved(figure(), 200)
    picture = chart_of(figure(), "alt")
    assert (picture.width, picture.height, picture.kind) == (420, 180, "chart")
    found = pixels_of(picture)
    assert found.shape == (360, 840, 3)
    np.testing.assert_array_equal(found, expected)


def test_a_photograph_has_the_pixels_of_its_figure():
    made = new_figure(60, 40)
    rows = np.linspace(0, 1, 40)[:, None] * np.ones(60)
    ax = made.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    ax.imshow(rows, cmap="gray", aspect="auto")
    picture = photograph_of(ax, "alt")
    assert (picture.width, picture.height, picture.kind) == (60, 40, "photograph")
    assert np.abs(pixels_of(picture)[..., 0] - np.rint(rows * 255)).max() < 6


@pytest.mark.parametrize("standardized", [False, True])
@pytest.mark.parametrize("stored", [WIDE, FINE])
def test_the_widest_numbers_fit_beside_histograms(stored, standardized):
    with own_style():
        made, axes = histogram_axes(standardized=standardized)
        channel = ChannelHistogram("CD3", stored, FINE)
        for ax, stage in zip(axes, ("stored", "standardized"), strict=False):
            plot_histograms([channel], stage=stage, log=True, ax=ax)
        if standardized:
            axes[1].set_ylabel("")
        made.canvas.draw()
        renderer = made.canvas.get_renderer()
        boxes = [ax.get_tightbbox(renderer) for ax in axes]
        assert min(box.x0 for box in boxes) >= 0
        assert min(box.y0 for box in boxes) >= 0
        assert max(box.x1 for box in boxes) <= made.bbox.width
        assert max(box.y1 for box in boxes) <= made.bbox.height
        if standardized:
            assert boxes[0].x1 <= boxes[1].x0


def test_a_channel_without_signal_says_so_in_place_of_a_chart():
    with own_style():
        title, picture = _chart([ChannelHistogram("CD3", WIDE)], "t", standardized=True)
    assert title == "CD3"
    right = pixels_of(picture)[:, 620:]
    assert (right.min(-1) < 100).any(), "it says nothing"
    assert not ((right[..., 2] - right[..., 0]) > 40).any(), "there is a chart"
