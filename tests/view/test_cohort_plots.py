"""Plots of a cohort: every mark stands for its number, and a name is a name."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib._pylab_helpers import Gcf
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from microtome.cohort import CohortPanel
from microtome.errors import InvalidInputError
from microtome.panels import Channel, ChannelState, Panel
from microtome.view import (
    ChannelHistogram,
    CohortOverview,
    Histogram,
    ImagesRow,
    SplitBalance,
    SplitRow,
    TileNumbers,
    plot_areas,
    plot_channels,
    plot_coverage,
    plot_splits,
    plot_tissue_histograms,
)
from microtome.view._cohort_plots import STATE_COLOURS

FORMULA = "$\\frac{x$"


def panel_of(states: np.ndarray, names: list[str]) -> CohortPanel:
    tissues = tuple(f"t{i}" for i in range(len(states)))
    panel = Panel(tuple(Channel(name) for name in names))
    return CohortPanel("codex", panel, tissues, states.astype(np.uint8), ())


def drawn(ax) -> np.ndarray:
    ax.figure.canvas.draw()
    return np.asarray(ax.figure.canvas.buffer_rgba())[..., :3]


@pytest.mark.parametrize("tissues", [3, 60])
def test_each_cell_of_the_matrix_has_the_colour_of_its_state(tissues):
    states = np.random.default_rng(1).integers(0, 3, (tissues, 4))
    ax = plot_channels(panel_of(states, ["a", "b", FORMULA, "d"]))
    pixels = drawn(ax)
    for tissue in range(tissues):
        for channel in range(4):
            # A third of a cell off its middle, away from the cross on those that failed.
            x, y = ax.transData.transform((tissue + 0.35, channel + 0.2))
            seen = to_hex(pixels[pixels.shape[0] - 1 - int(y), int(x)] / 255)
            assert seen == STATE_COLOURS[ChannelState(states[tissue, channel])]
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == ["a", "b", FORMULA, "d"]
    assert len(ax.get_xticklabels()) == (tissues if tissues == 3 else 0)
    assert len(ax.get_legend().get_texts()) == 3


def test_names_beside_the_matrix_are_not_cut_off():
    names = ["x", "a name that is long, yes it is"]
    ax = plot_channels(panel_of(np.ones((2, 2)), names), legend=False)
    drawn(ax)
    renderer = ax.figure.canvas.get_renderer()
    width, height = ax.figure.bbox.size
    for label in [*ax.get_xticklabels(), *ax.get_yticklabels()]:
        box = label.get_window_extent(renderer)
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height


def test_bars_of_splits_are_shares_one_after_the_other():
    rows = (
        SplitRow("train", 3, 6, 6, 700),
        SplitRow(FORMULA, 1, 2, 2, 100),
        SplitRow(None, 0, 2, 4, 200),
    )
    ax = plot_splits(SplitBalance(rows, (), (), 0))
    drawn(ax)
    kinds = [label.get_text() for label in ax.get_yticklabels()]
    assert kinds == ["patients", "tissues", "images", "tiles"]
    expected = {
        "train": [75, 60, 50, 70],
        FORMULA: [25, 20, 100 / 6, 10],
        "no split": [0, 20, 100 / 3, 20],
    }
    before = np.zeros(4)
    for bars in ax.containers:
        widths = [bar.get_width() for bar in bars]
        assert np.allclose(widths, expected[bars.get_label()])
        assert np.allclose([bar.get_x() for bar in bars], before)
        before += widths
    assert np.allclose(before, 100)


def test_points_are_coverage_and_waste_of_tissues_that_state_them():
    numbers = {
        "a": TileNumbers(4, 0.9, 0.1, 0.8, 0.2),
        "b": TileNumbers(0, 0.0, None, None, None),
        "c": TileNumbers(9, 0.5, 0.0, 0.25, 0.75),
    }
    ax = plot_coverage(numbers)
    (points,) = ax.collections
    assert np.allclose(points.get_offsets(), [(90, 20), (50, 75)])
    assert not plot_coverage({}).collections


def test_points_are_areas_in_the_row_of_their_modality():
    rows = (
        ImagesRow("he", "0.5", (1.0, 200.0), (3, 3), 0, 10),
        ImagesRow("imc", "1", (), None, 2, 0),
        ImagesRow(FORMULA, "1", (4.0,), (5, 5), 0, 10),
    )
    ax = plot_areas(CohortOverview(3, None, 3, rows, ()))
    drawn(ax)
    assert ax.get_xscale() == "log"
    found = [points.get_offsets().data for points in ax.collections]
    assert [points[:, 0].tolist() for points in found] == [[1.0, 200.0], [4.0]]
    assert np.abs(found[0][:, 1]).max() <= 0.25
    assert found[1][:, 1].tolist() == [1]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["he, 0.5 µm", f"{FORMULA}, 1 µm"]
    even = plot_areas(CohortOverview(1, None, 1, rows[2:], ()))
    assert even.get_xscale() == "linear"


def test_tissues_lie_over_each_other_by_unit_of_intensity():
    narrow = Histogram(np.array([0.0, 1, 2]), np.array([0.5, 0.5]))
    wide = Histogram(np.array([0.0, 10, 20]), np.array([0.25, 0.75]))
    channels = {
        "a": ChannelHistogram("CD3", narrow, wide),
        "b": ChannelHistogram("CD3", wide),
    }
    ax = plot_tissue_histograms(channels, groups=["b"])
    shown = {to_hex(patch.get_edgecolor()): patch.get_data() for patch in ax.patches}
    assert len(shown) == 2
    grey, blue = shown["#8a8f98"], shown["#0072b2"]
    assert np.allclose(grey.values, [50, 50])
    assert np.allclose(blue.values, [2.5, 7.5])
    # One has none after standardization.
    assert len(plot_tissue_histograms(channels, stage="standardized").patches) == 1
    with pytest.raises(InvalidInputError, match=r"\['CD3', 'CD8'\]"):
        plot_tissue_histograms({"a": channels["a"], "b": ChannelHistogram("CD8", wide)})


def test_they_draw_on_the_axes_that_are_given_and_what_is_empty_is_drawn_too():
    nothing = CohortOverview(0, None, 0, (), ())
    for plot, value in (
        (plot_areas, nothing),
        (plot_channels, panel_of(np.zeros((0, 1)), ["a"])),
        (plot_splits, SplitBalance((), (), (), 0)),
        (plot_coverage, {}),
        (plot_tissue_histograms, {}),
    ):
        ax = Figure().add_subplot()
        assert plot(value, ax=ax) is ax
        drawn(plot(value))
    assert Gcf.get_all_fig_managers() == []
