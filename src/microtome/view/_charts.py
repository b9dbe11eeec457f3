"""How bright the channels of a slide are, as charts for a page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from microtome.cohort import Modality
from microtome.image import MultiscaleImage
from microtome.standardize import (
    StandardizationSpec,
    Standardizer,
    StatisticsTables,
    build_standardizer,
)

from ._figures import new_figure, plot_histograms
from ._histograms import ChannelHistogram, histograms
from ._inventory import Inventory, Missing, Tissue, attempt, standardization_tables
from ._pictures import Picture, chart_of
from ._thumbnails import frame_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["HistogramBlock", "histogram_axes", "histogram_block"]

_SIZE = 768
_MOST_CHARTS = 48
# Pixels beside the axes of histograms, and between two of them.
_LEFT, _RIGHT, _ABOVE, _BELOW, _BETWEEN = 76, 22, 8, 44, 66


@dataclass(frozen=True, slots=True)
class HistogramBlock:
    """Charts of the brightness of a slide's channels."""

    charts: tuple[tuple[str, Picture], ...]
    """Title and chart."""
    left_out: int
    """Channels that are not shown."""
    standardization: str | None
    """Which, where charts show the pixels after it as well."""
    inside: bool
    """Whether only pixels inside the tissue mask were counted."""
    mpp: float
    """Pixel size that was counted at."""
    channels: tuple[ChannelHistogram, ...]
    """What the charts show, of all channels."""
    notes: tuple[Missing, ...]


def histogram_block(
    inventory: Inventory,
    tissue: Tissue,
    modality: Modality,
    image: MultiscaleImage,
    mask: MultiscaleImage | None,
    *,
    drawn: bool = True,
) -> HistogramBlock | Missing:
    """Draw histograms of every channel, before and, where there are tables, after standardization.

    Parameters
    ----------
    inventory, tissue, modality
        Whose they are.
    image
        The image.
    mask
        Its tissue mask; None counts every pixel.
    drawn
        Whether channels of a panel have charts; without, they are only counted.
    """
    notes: list[Missing] = []
    directory = standardization_tables(inventory.layout, modality, tissue.resolution)
    standardizer: Standardizer | None = None
    if directory is not None:
        built = attempt(
            f"standardization {directory}", lambda: _standardizer(directory, tissue, image)
        )
        if isinstance(built, Missing):
            notes.append(built)
        else:
            standardizer = built
    elif modality.kind == "multiplex":
        command = inventory.command("stats", tissue.resolution)
        notes.append(Missing("This modality has no standardization tables.", command))
    found = histograms(image, mask=mask, standardizer=standardizer, size=_SIZE)
    if not found:
        return Missing("No pixel lies inside the tissue mask: there is nothing to count.")
    groups = [found] if modality.kind == "brightfield" else [[channel] for channel in found]
    if not drawn and modality.kind == "multiplex":
        groups = []
    charts = tuple(
        _chart(group, tissue.tissue_id, standardized=standardizer is not None)
        for group in groups[:_MOST_CHARTS]
    )
    return HistogramBlock(
        charts,
        len(groups) - len(charts),
        None if standardizer is None else str(standardizer.spec),
        mask is not None,
        frame_of(image, _SIZE).step_y,
        tuple(found),
        tuple(notes),
    )


def _standardizer(directory: Path, tissue: Tissue, image: MultiscaleImage) -> Standardizer:
    spec = StandardizationSpec.parse(f"{directory.parent.name}/{directory.name}")
    # Of statistics at both levels, the one that every tissue shares is the usual one.
    shared = "global" in StatisticsTables.levels_of_means(directory)
    tables = StatisticsTables.read(
        directory,
        quantile_level=spec.quantile_level,
        stats_level="global" if shared else None,
    )
    return build_standardizer(
        spec,
        image.channel_names or (),
        tables=tables,
        tissue_id=tissue.tissue_id,
        use_mean_std=tables.means is not None,
    )


def histogram_axes(*, standardized: bool) -> tuple[Figure, list[Axes]]:
    """Return a figure with axes of one stage or two, of always the same size.

    Margins that follow from the letters of each chart cost as much as all the rest of it, and a
    panel has dozens: these hold the widest numbers that a histogram has.
    """
    width, height = 520 if standardized else 420, 180
    count = 2 if standardized else 1
    figure = new_figure(width, height)
    across = (width - (count - 1) * _BETWEEN - _LEFT - _RIGHT) / count
    axes = [
        figure.add_axes(
            (
                (_LEFT + i * (across + _BETWEEN)) / width,
                _BELOW / height,
                across / width,
                (height - _BELOW - _ABOVE) / height,
            )
        )
        for i in range(count)
    ]
    return figure, axes


def _chart(
    channels: list[ChannelHistogram], tissue_id: str, *, standardized: bool
) -> tuple[str, Picture]:
    figure, axes = histogram_axes(standardized=standardized)
    # A marker is dark in most of the tissue: on a linear scale there would be one bar.
    log = len(channels) == 1
    plot_histograms(channels, log=log, ax=axes[0])
    if standardized:
        plot_histograms(channels, stage="standardized", log=log, ax=axes[1])
        axes[1].set_ylabel("")
        if channels[0].standardized is None:
            axes[1].clear()
            axes[1].set_axis_off()
            axes[1].text(0.5, 0.5, "no signal to standardize by", ha="center", va="center")
    title = ", ".join(channel.name for channel in channels)
    stages = "before and after standardization" if standardized else "as stored"
    return title, chart_of(figure, f"Histogram of {title} in {tissue_id}, {stages}.")
