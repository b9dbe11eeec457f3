"""Axes: boxes and outlines in micrometres, names as they are, no trace in pyplot."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib._pylab_helpers import Gcf
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from microtome.errors import DependencyError, InvalidInputError
from microtome.tiling import TileTable
from microtome.view import (
    ChannelHistogram,
    Frame,
    Histogram,
    plot_heatmap,
    plot_histograms,
    plot_overview,
)
from microtome.view._figures import TILE_COLOUR, scale_bar_length

RGB = ["red", "green", "blue"]


@pytest.fixture
def slide(new_image):
    return new_image(np.full((3, 200, 300), 255, np.uint8), 0.5, edge=(7, -20), channel_names=RGB)


def boxes(ax):
    (drawn,) = [c for c in ax.collections if isinstance(c, PolyCollection)]
    return sorted(
        tuple(np.concatenate([p.vertices.min(axis=0), p.vertices.max(axis=0)]).tolist())
        for p in drawn.get_paths()
    )


def outlines(ax):
    return [c for c in ax.collections if not isinstance(c, PolyCollection)]


def test_tiles_lie_in_micrometres_where_their_pixels_are(slide):
    tiles = TileTable.from_columns(
        {"tissue_id": "t", "row": [0, -10, 190], "col": [0, 40, 280]},
        tile_size=(20, 30),
        strategy="grid",
    )
    ax = plot_overview(slide, tiles=tiles)
    # (x0, y0, x1, y1) = the slide's corner (-20, 7) and half a micrometre a pixel.
    expected = [(-20, 7, -5, 17), (0, 2, 15, 12), (120, 102, 135, 112)]
    assert np.allclose(boxes(ax), expected)
    # Tiles that hang over the edge must not widen the view.
    assert (ax.get_xlim(), ax.get_ylim()) == ((-20, 130), (107, 7))


def test_a_tile_is_drawn_on_its_pixels(slide):
    tiles = TileTable.from_columns(
        {"tissue_id": "t", "row": [60], "col": [90]}, tile_size=(50, 80), strategy="grid"
    )
    ax = plot_overview(slide, tiles=tiles, legend=False)
    ax.figure.canvas.draw()
    drawn = np.asarray(ax.figure.canvas.buffer_rgba())[..., :3].astype(int)
    zoom = drawn.shape[0] // 200
    assert drawn.shape == (200 * zoom, 300 * zoom, 3)
    target = [int(TILE_COLOUR[i : i + 2], 16) for i in (1, 3, 5)]
    strong = np.abs(drawn - target).sum(axis=2) < 120
    rows, columns = np.nonzero(strong)
    # To a line's width; the corners of the half-open box in pixels of the figure.
    assert abs(rows.min() - 60 * zoom) <= zoom
    assert abs(rows.max() - 110 * zoom) <= zoom
    assert abs(columns.min() - 90 * zoom) <= zoom
    assert abs(columns.max() - 170 * zoom) <= zoom


def test_the_outline_of_a_mask_lies_on_its_edges(slide, new_image):
    # Eight times coarser than the slide, and shifted: its own place counts.
    mask = np.zeros((20, 20), np.uint8)
    mask[2:7, 3:11] = 1
    labels = new_image(mask, 4.0, edge=(11.0, -16.0), kind="labels")
    corners = np.concatenate(
        [
            path.vertices
            for drawn in outlines(plot_overview(slide, mask=labels))
            for path in drawn.get_paths()
        ]
    )
    # x from -16 + 3 * 4 to -16 + 11 * 4, y from 11 + 2 * 4 to 11 + 7 * 4, to a quarter of a pixel.
    assert corners.min(axis=0) == pytest.approx((-4, 19), abs=0.26)
    assert corners.max(axis=0) == pytest.approx((28, 39), abs=0.26)


@pytest.mark.parametrize(("value", "lines"), [(0, 0), (1, 2)])
def test_a_mask_of_nothing_has_no_outline_and_one_of_all_has(slide, new_image, value, lines):
    labels = new_image(np.full((200, 300), value, np.uint8), 0.5, edge=(7, -20), kind="labels")
    drawn = outlines(plot_overview(slide, mask=labels))
    # A line and its dark rim.
    assert len(drawn) == lines
    for line in drawn:
        corners = np.concatenate([path.vertices for path in line.get_paths()])
        # Along the edges of the slide, to half a pixel.
        assert corners.min(axis=0) == pytest.approx((-20, 7), abs=0.26)
        assert corners.max(axis=0) == pytest.approx((130, 107), abs=0.26)


def test_tiles_of_several_tissues_are_refused(slide):
    tiles = TileTable.from_columns(
        {"tissue_id": ["a", "b"], "row": [0, 0], "col": [0, 0]}, tile_size=8, strategy="grid"
    )
    with pytest.raises(InvalidInputError, match="2 tissues; use tiles"):
        plot_overview(slide, tiles=tiles)


def test_a_name_is_no_formula(new_image):
    names = ["$\\frac{$", "a_b^$x$"]
    image = new_image(np.ones((2, 30, 30), np.float32), channel_names=names)
    ax = plot_overview(image)
    ax.figure.canvas.draw()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == names


def test_pictures_go_to_the_axes_that_are_given_and_none_to_pyplot(slide, new_image):
    ax = Figure().add_subplot()
    assert plot_overview(slide, ax=ax) is ax
    assert plot_heatmap(slide, new_image(np.ones((1, 9, 9), np.float32)), ax=ax) is ax
    assert len(ax.figure.axes) == 2  # with the colour bar
    assert plot_histograms([], ax=ax) is ax
    plot_overview(slide)
    assert Gcf.get_all_fig_managers() == []


def test_a_very_small_and_a_very_thin_slide_can_be_drawn(new_image):
    for shape in ((3, 1, 1), (3, 2, 900), (3, 900, 2)):
        ax = plot_overview(new_image(np.full(shape, 9, np.uint8), channel_names=RGB))
        ax.figure.canvas.draw()


def test_three_histograms_are_red_green_and_blue():
    edges = np.linspace(0, 256, 5)
    shares = np.array([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1], [1, 0, 0, 0]])
    channels = [ChannelHistogram(n, Histogram(edges, s)) for n, s in zip(RGB, shares, strict=True)]
    ax = plot_histograms(channels)
    lines = [patch for patch in ax.patches if not patch.get_fill()]
    for line, share, strongest in zip(lines, shares, range(3), strict=True):
        values, drawn_edges, _ = line.get_data()
        assert np.allclose(values, share * 100)
        assert np.array_equal(drawn_edges, edges)
        colour = to_hex(line.get_edgecolor())
        levels = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert int(np.argmax(levels)) == strongest
    # None of them has been standardized: nothing to draw.
    assert not plot_histograms(channels, stage="standardized").patches


@given(st.floats(1e-3, 1e6))
def test_a_scale_bar_is_one_two_or_five_and_as_long_as_fits(width):
    length = scale_bar_length(Frame(10, 100, 0, 0, 1.0, width / 100))
    digits = f"{length:.0e}".split("e")
    assert digits[0] in {"1", "2", "5"}
    assert float("e".join(digits)) == pytest.approx(length)
    longer = length * (2.5 if digits[0] == "2" else 2)
    assert length <= width / 5 * (1 + 1e-9)
    assert longer > width / 5 * (1 - 1e-9)


def test_without_matplotlib_the_extra_is_named(monkeypatch, slide):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(DependencyError, match=r"microtome\[report\]"):
        plot_overview(slide)
