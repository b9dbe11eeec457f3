"""Plots of a whole cohort, as matplotlib axes.

Like the pictures of slides: each function draws on the axes that it is given, or on a new figure of
its own (`ax.figure`) that pyplot knows nothing of, and returns the axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from microtome.cohort import CohortPanel
from microtome.errors import InvalidInputError
from microtome.panels import ChannelState

from ._figures import DPI, OTHER_COLOUR, POINT_COLOURS, new_figure
from ._histograms import ChannelHistogram, Histogram
from ._numbers import TileNumbers
from ._overview import CohortOverview
from ._splits import SplitBalance

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "STATE_COLOURS",
    "plot_areas",
    "plot_channels",
    "plot_coverage",
    "plot_splits",
    "plot_tissue_histograms",
]

# Told apart by lightness too, so that they are without colour.
STATE_COLOURS = {
    ChannelState.NOT_MEASURED: "#e3e6ea",
    ChannelState.MEASURED: "#0072b2",
    ChannelState.FAILED_QC: "#e69f00",
}
_STATE_NAMES = {
    ChannelState.NOT_MEASURED: "not measured",
    ChannelState.MEASURED: "measured",
    ChannelState.FAILED_QC: "failed QC",
}
# Pixels of a row and of a column of the matrix; points of the names beside it.
_ROW, _CELL, _TEXT = 16, 24, 8.0
# Names and crosses of more would be on top of each other.
_MOST_NAMED = 40
_LONGEST_NAME = 28
_GOLDEN = 0.6180339887498949
# Sizes that differ by more than this are told apart on a logarithmic scale only.
_WIDE = 20
# A bar of fewer percent is narrower than its own number.
_READABLE = 8


def plot_areas(overview: CohortOverview, *, ax: Axes | None = None) -> Axes:
    """Draw the size of every image in square millimetres, a row for each modality and resolution.

    Parameters
    ----------
    overview
        As `cohort_overview` returns it.
    ax
        Axes to draw on; by default those of a new figure.

    Raises
    ------
    DependencyError
        If matplotlib is not installed.
    """
    rows = [row for row in overview.images if row.areas]
    if ax is None:
        ax = new_figure(620, 60 + 34 * max(1, len(rows))).add_subplot()
    for place, row in enumerate(rows):
        areas = np.asarray(row.areas)
        # Points of one row beside each other, always in the same way.
        shift = (np.arange(areas.size) * _GOLDEN % 1 - 0.5) * 0.5 if areas.size > 1 else 0.0
        ax.scatter(
            areas, place + shift, s=18, color=POINT_COLOURS[0], alpha=0.7, linewidths=0, zorder=3
        )
    every = [area for row in rows for area in row.areas if area > 0]
    if every and max(every) > _WIDE * min(every):
        ax.set_xscale("log")
    ax.set_ylim(max(1, len(rows)) - 0.5, -0.5)
    _name(ax, "y", [f"{row.modality}, {row.resolution} µm" for row in rows])
    ax.set_xlabel("mm² of an image")
    ax.grid(axis="x", color="#e3e6ea", linewidth=0.7)
    _plain(ax)
    return ax


def plot_channels(panel: CohortPanel, *, legend: bool = True, ax: Axes | None = None) -> Axes:
    """Draw which tissue has which channel: measured, not measured, or measured and failed QC.

    Parameters
    ----------
    panel
        As `cohort_panel` returns it; channels are drawn as rows, tissues as columns.
    legend
        Whether to name the colours of the three states.
    ax
        Axes to draw on; by default those of a new figure.

    Raises
    ------
    DependencyError
        If matplotlib is not installed.
    """
    from matplotlib.colors import ListedColormap

    states = np.asarray(panel.states).T
    channels, tissues = len(panel.panel), len(panel.tissue_ids)
    named = 0 < tissues <= _MOST_NAMED
    if ax is None:
        ax = _matrix_axes(
            [channel.name for channel in panel.panel], panel.tissue_ids if named else [], legend
        )
    if states.size:
        colours = ListedColormap([STATE_COLOURS[state] for state in ChannelState])
        ax.imshow(
            states,
            cmap=colours,
            vmin=-0.5,
            vmax=len(ChannelState) - 0.5,
            aspect="auto",
            interpolation="nearest",
        )
    _name(ax, "y", [channel.name for channel in panel.panel], fontsize=_TEXT)
    ax.tick_params(length=0)
    if named:
        _name(ax, "x", panel.tissue_ids, rotation=60, ha="right", fontsize=_TEXT)
        ax.set_xticks(np.arange(tissues + 1) - 0.5, minor=True)
        ax.set_yticks(np.arange(channels + 1) - 0.5, minor=True)
        ax.grid(which="minor", color="white", linewidth=1.2)
        ax.tick_params(which="minor", length=0)
        failed = np.argwhere(states == ChannelState.FAILED_QC)
        if failed.size:
            ax.scatter(failed[:, 1], failed[:, 0], marker="x", s=16, color="black", linewidths=1)
    else:
        ax.set_xticks([])
        ax.set_xlabel(f"{tissues} tissues, in the order of the table" if tissues else "no table")
    ax.spines[:].set_visible(False)
    if legend:
        from matplotlib.patches import Patch

        handles = [Patch(color=STATE_COLOURS[s], label=_STATE_NAMES[s]) for s in _STATE_NAMES]
        ax.legend(
            handles=handles, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, frameon=False
        )
    return ax


def plot_splits(balance: SplitBalance, *, ax: Axes | None = None) -> Axes:
    """Draw which share of patients, tissues, images and tiles is in which split.

    A patient in two splits is counted in both.

    Parameters
    ----------
    balance
        As `split_balance` returns it.
    ax
        Axes to draw on; by default those of a new figure.

    Raises
    ------
    DependencyError
        If matplotlib is not installed.
    """
    kinds = [
        kind
        for kind in ("patients", "tissues", "images", "tiles")
        if sum(getattr(row, kind) or 0 for row in balance.rows)
    ]
    if ax is None:
        ax = new_figure(620, 80 + 30 * max(1, len(kinds))).add_subplot()
    before = np.zeros(len(kinds))
    totals = np.array([sum(getattr(r, k) or 0 for r in balance.rows) for k in kinds], float)
    for place, row in enumerate(balance.rows):
        shares = np.array([getattr(row, kind) or 0 for kind in kinds]) / totals * 100
        colour = OTHER_COLOUR if row.split is None else POINT_COLOURS[place % len(POINT_COLOURS)]
        name = "no split" if row.split is None else _short(row.split)
        ax.barh(kinds, shares, left=before, color=colour, edgecolor="white", label=name)
        for line, (start, share) in enumerate(zip(before, shares, strict=True)):
            if share < _READABLE:
                continue
            ink = "white" if colour == POINT_COLOURS[0] else "black"
            middle = start + share / 2
            ax.text(middle, line, f"{share:.0f}%", ha="center", va="center", color=ink)
        before = before + shares
    ax.invert_yaxis()
    ax.set_xlim(0, 100)
    ax.set_xlabel("% of the cohort")
    if balance.rows:
        drawn = ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=5, frameon=False)
        for text in drawn.get_texts():
            text.set_parse_math(False)
    _plain(ax)
    return ax


def plot_coverage(numbers: Mapping[str, TileNumbers], *, ax: Axes | None = None) -> Axes:
    """Draw how much of each tissue its tiles cover, and how much of them is background.

    Parameters
    ----------
    numbers
        By tissue, as in `tiling_numbers(...).tissues`; one without tiles, or of which the tables
        do not say, is left out.
    ax
        Axes to draw on; by default those of a new figure.

    Raises
    ------
    DependencyError
        If matplotlib is not installed.
    """
    if ax is None:
        ax = new_figure(460, 320).add_subplot()
    points = [
        (100 * n.coverage, 100 * n.waste)
        for n in numbers.values()
        if n.coverage is not None and n.waste is not None
    ]
    if points:
        ax.scatter(
            *np.asarray(points).T, s=24, color=POINT_COLOURS[0], alpha=0.7, linewidths=0, zorder=3
        )
    ax.set(xlim=(-2, 102), ylim=(-2, 102))
    ax.set_xlabel("coverage: % of the tissue in a tile")
    ax.set_ylabel("waste: % of tiles that is background")
    ax.grid(color="#e3e6ea", linewidth=0.7)
    _plain(ax)
    return ax


def plot_tissue_histograms(
    histograms: Mapping[str, ChannelHistogram],
    *,
    stage: Literal["stored", "standardized"] = "stored",
    groups: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw one channel of several tissues over each other, before or after standardization.

    What standardization is for is seen here: lines that lay apart before lie together after.

    Parameters
    ----------
    histograms
        The channel's histogram in each tissue, by tissue.
    stage
        Before or after standardization; a tissue that has none after is left out.
    groups
        Tissues that get a colour of their own; by default the first six. All others are grey.
    ax
        Axes to draw on; by default those of a new figure.

    Raises
    ------
    DependencyError
        If matplotlib is not installed.
    InvalidInputError
        If the histograms are of different channels.
    """
    names = {histogram.name for histogram in histograms.values()}
    if len(names) > 1:
        msg = f"one channel of several tissues can be drawn, got {sorted(names)}"
        raise InvalidInputError(msg)
    if ax is None:
        ax = new_figure(420, 240).add_subplot()
    colour_of = dict(zip(histograms if groups is None else groups, POINT_COLOURS, strict=False))
    # Grey ones first: they lie below those that the legend names.
    for tissue in sorted(histograms, key=lambda name: name in colour_of):
        shown: Histogram | None = getattr(histograms[tissue], stage)
        if shown is None:
            continue
        # Bins differ from tissue to tissue: what can be compared is the share by width.
        ax.stairs(
            shown.share * 100 / np.diff(shown.edges),
            shown.edges,
            baseline=None,
            color=colour_of.get(tissue, OTHER_COLOUR),
            alpha=0.9 if tissue in colour_of else 0.4,
            linewidth=1.1,
        )
    if ax.patches:
        ax.set_yscale("log")
    ax.margins(x=0)
    ax.set_xlabel("intensity" if stage == "stored" else "standardized")
    ax.set_ylabel("% of pixels by unit")
    _plain(ax)
    return ax


def _matrix_axes(rows: Sequence[str], columns: Sequence[str], legend: bool) -> Axes:  # noqa: FBT001
    """Return axes whose cells have the same size whatever the names beside them need."""
    left = 16 + max(map(_width, rows), default=0.0)
    # Names of columns lean to the left by 60 degrees.
    longest = max(map(_width, columns), default=0.0)
    below = 24 + (0.87 * longest + 8 if columns else 12)
    left = max(left, 16 + 0.5 * longest)
    above = 36 if legend else 8
    inner_width = max(180, _CELL * len(columns)) if columns else 620
    inner_height = _ROW * max(1, len(rows))
    width, height = left + inner_width + 16, above + inner_height + below
    figure = new_figure(round(width), round(height))
    return figure.add_axes(
        (left / width, below / height, inner_width / width, inner_height / height)
    )


def _width(name: str) -> float:
    """Return the pixels that a name takes beside the matrix."""
    from matplotlib.textpath import TextPath

    # What is measured is text, not a formula.
    drawn = TextPath((0, 0), _short(name).replace("$", "S"), size=_TEXT)
    return float(drawn.get_extents().width) * DPI / 72


def _plain(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)


def _name(ax: Axes, axis: Literal["x", "y"], names: Sequence[str], **options: Any) -> None:
    """Write names at 0, 1, ...; a name is not a formula, whatever dollar signs it has."""
    getattr(ax, f"set_{axis}ticks")(range(len(names)), [_short(name) for name in names], **options)
    for label in getattr(ax, f"get_{axis}ticklabels")():
        label.set_parse_math(False)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
