"""What a model says about a place is drawn on that place."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, binary_erosion

from microtome.errors import DependencyError, UnknownNameError
from microtome.view import heat_on, plot_heatmap, thumbnail

HEIGHT, WIDTH, MPP = 600, 800, 0.5
# The square, in pixels of the slide, and the part of the slide that the prediction covers.
ROWS, COLUMNS = (148, 248), (300, 448)
TOP, LEFT, BOTTOM, RIGHT = 100, 200, 500, 680


@pytest.fixture
def slide(new_image):
    pixels = np.full((3, HEIGHT, WIDTH), 180, np.uint8)
    pixels[:, slice(*ROWS), slice(*COLUMNS)] = 60
    return thumbnail(new_image(pixels, MPP, channel_names=["red", "green", "blue"]))


@pytest.fixture(params=[1, 4], ids=["same pixels", "four times coarser"])
def prediction(request, new_image, slide):
    factor = request.param
    values = np.zeros(((BOTTOM - TOP) // factor, (RIGHT - LEFT) // factor), np.float32)
    rows, columns = (
        slice((start - corner) // factor, (stop - corner) // factor)
        for (start, stop), corner in ((ROWS, TOP), (COLUMNS, LEFT))
    )
    values[rows, columns] = 1
    # The slide's own corner is half a pixel before its first centre, which is at 0.
    edge = (TOP * MPP - MPP / 2, LEFT * MPP - MPP / 2)
    return new_image(values[None], MPP * factor, edge=edge, channel_names=["square"])


def box(rows, columns):
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[slice(*rows), slice(*columns)] = True
    return inside


def test_the_heat_sits_on_the_square(slide, prediction):
    heat = heat_on(slide, prediction, "square")
    # Linear between coarse centres, so the value crosses a half exactly at the square's edge; only
    # at its corners, where two halves meet, is the pixel itself below.
    wrong = np.argwhere((heat.values > 0.5) != box(ROWS, COLUMNS))
    corners = {(row, col) for row in (ROWS[0], ROWS[1] - 1) for col in (COLUMNS[0], COLUMNS[1] - 1)}
    assert {tuple(place) for place in wrong.tolist()} <= corners
    assert np.array_equal(np.isfinite(heat.values), box((TOP, BOTTOM), (LEFT, RIGHT)))
    assert (heat.low, heat.high) == (0, 1)


def test_the_overlay_is_strong_on_the_square_and_clear_elsewhere(slide, prediction):
    alpha = heat_on(slide, prediction).rgba[..., 3]
    square = box(ROWS, COLUMNS)
    assert alpha[binary_erosion(square, iterations=4)].min() > 0.85
    assert alpha[~binary_dilation(square, iterations=4)].max() == 0


def test_the_drawn_pixels_are_coloured_on_the_square_alone(slide, prediction):
    ax = plot_heatmap(slide, prediction, colorbar=False)
    ax.figure.canvas.draw()
    drawn = np.asarray(ax.figure.canvas.buffer_rgba())[..., :3].astype(int)
    assert drawn.shape[:2] == (HEIGHT, WIDTH)
    coloured = drawn.max(axis=2) - drawn.min(axis=2) > 30
    square = box(ROWS, COLUMNS)
    assert coloured[binary_erosion(square, iterations=4)].all()
    assert not coloured[~binary_dilation(square, iterations=4)].any()


def test_a_thumbnail_of_another_size_changes_nothing(new_image, prediction):
    pixels = np.full((3, HEIGHT, WIDTH), 180, np.uint8)
    small = thumbnail(new_image(pixels, MPP, channel_names=["red", "green", "blue"]), size=200)
    hot = heat_on(small, prediction).values > 0.5
    y = (np.arange(HEIGHT // 4) + 0.5) * 4
    x = (np.arange(WIDTH // 4) + 0.5) * 4
    expected = np.outer((y > ROWS[0]) & (y < ROWS[1]), (x > COLUMNS[0]) & (x < COLUMNS[1]))
    assert np.array_equal(hot, expected)


def test_limits_are_the_callers_or_come_from_the_values(new_image, slide):
    values = np.linspace(-2, 10, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    image = new_image(values[None], MPP, channel_names=["ramp"])
    heat = heat_on(slide, image)
    assert (heat.low, heat.high) == pytest.approx((-1.94, 9.94), abs=1e-3)
    assert (heat_on(slide, image, limits=(3.0, 4.0)).low) == 3.0
    plain = heat_on(slide, image, blend=False, limits=(3.0, 4.0)).rgba
    assert np.array_equal(plain[0, 0], plain[200, 0])
    assert (plain[..., 3] == 1).all()


def test_a_rare_value_is_not_lost_and_a_constant_one_has_a_range(new_image, slide):
    values = np.zeros((2, HEIGHT, WIDTH), np.float32)
    values[0, 5, 5] = 0.25
    image = new_image(values, MPP, channel_names=["rare", "never"])
    assert heat_on(slide, image, "rare").high == 0.25
    assert (heat_on(slide, image, "never").low, heat_on(slide, image, "never").high) == (0, 1)


def test_a_prediction_elsewhere_leaves_the_slide_clear(new_image, slide):
    image = new_image(np.ones((1, 50, 50), np.float32), 1.0, edge=(9000.0, 9000.0))
    assert heat_on(slide, image).rgba.max() == 0


def test_a_channel_that_is_not_there_is_named(slide, prediction):
    with pytest.raises(UnknownNameError, match="'nuclei'"):
        plot_heatmap(slide, prediction, "nuclei")


def test_without_matplotlib_the_extra_is_named(monkeypatch, slide, prediction):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(DependencyError, match=r"microtome\[report\]"):
        heat_on(slide, prediction)
