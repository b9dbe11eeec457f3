"""The part of a page that speaks of the cohort as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from microtome.cohort import CohortPanel, Finding, cohort_panel, validate
from microtome.coordinates import Resolution
from microtome.panels import ChannelState

from ._charts import HistogramBlock, histogram_axes
from ._cohort_plots import (
    STATE_COLOURS,
    plot_areas,
    plot_channels,
    plot_coverage,
    plot_splits,
    plot_tissue_histograms,
)
from ._figures import OTHER_COLOUR, POINT_COLOURS
from ._histograms import ChannelHistogram
from ._inventory import Inventory, Missing, Tiling, attempt
from ._numbers import TilingNumbers, tiling_of
from ._overview import CohortOverview, overview_of
from ._pictures import Picture, chart_of
from ._sections import Section
from ._slides import Swatch
from ._splits import SplitBalance, balance_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["CohortBlock", "Findings", "PanelBlock", "SpreadBlock", "TilingBlock", "cohort_block"]

_MOST_FINDINGS = 100
_MOST_SPREAD = 48
# Taller, and a picture of so many channels is no picture any more.
_MOST_CHANNELS = 150


@dataclass(frozen=True, slots=True)
class ChannelRow:
    """A channel of a panel, with the number of tissues in each of its states."""

    name: str
    measured: int
    not_measured: int
    failed: int


@dataclass(frozen=True, slots=True)
class PanelBlock:
    """The channels of a modality."""

    modality: str
    tissues: int
    picture: Picture | None
    """None where nobody says who measured what, or there are too many channels to draw."""
    rows: tuple[ChannelRow, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TilingBlock:
    """A tiling of a resolution, with what it covers and wastes."""

    resolution: str
    tiling: Tiling
    numbers: TilingNumbers
    shown: bool
    """Whether pictures on the page show it."""
    picture: Picture | None
    """None where tables do not say enough to draw it."""


@dataclass(frozen=True, slots=True)
class SpreadBlock:
    """The channels of a modality, each in all tissues that are shown."""

    title: str
    charts: tuple[tuple[str, Picture], ...]
    left_out: int
    legend: tuple[Swatch, ...]
    standardization: str | None


@dataclass(frozen=True, slots=True)
class Findings:
    """What `validate` found."""

    errors: int
    warnings: int
    shown: tuple[Finding, ...]
    """Errors first."""

    @property
    def hidden(self) -> int:
        """How many are counted only."""
        return self.errors + self.warnings - len(self.shown)


@dataclass(frozen=True, slots=True)
class CohortBlock:
    """What a page says of the cohort as a whole."""

    overview: CohortOverview
    areas: Picture | None
    panels: tuple[PanelBlock | Missing, ...]
    balance: SplitBalance
    splits: Picture | None
    tilings: tuple[TilingBlock, ...]
    spreads: tuple[SpreadBlock, ...]
    findings: Findings | Missing | None
    """None where it was not asked for."""
    states: tuple[Swatch, ...]
    """Legend of the panels."""


def cohort_block(inventory: Inventory, sections: list[Section], *, validation: bool) -> CohortBlock:
    """Draw and count what concerns the whole cohort.

    Parameters
    ----------
    inventory
        The cohort.
    sections
        The tissues that are shown; their histograms are drawn over each other.
    validation
        Whether to check the cohort.
    """
    overview, balance = overview_of(inventory), balance_of(inventory)
    return CohortBlock(
        overview,
        _areas(overview),
        tuple(_panels(inventory)),
        balance,
        _splits(balance),
        tuple(_tilings(inventory)),
        tuple(_spreads(sections)),
        attempt("validation", lambda: _findings(inventory)) if validation else None,
        (
            Swatch("measured", STATE_COLOURS[ChannelState.MEASURED]),
            Swatch("measured, but failed quality control", STATE_COLOURS[ChannelState.FAILED_QC]),
            Swatch("not measured", STATE_COLOURS[ChannelState.NOT_MEASURED]),
        ),
    )


def _areas(overview: CohortOverview) -> Picture | None:
    if not any(row.areas for row in overview.images):
        return None
    ax = plot_areas(overview)
    parts = [
        f"{row.modality} at {row.resolution} µm from {min(row.areas):.3g} to {max(row.areas):.3g}"
        for row in overview.images
        if row.areas
    ]
    return _chart(ax, f"Square millimetres of every image: {'; '.join(parts)}.")


def _panels(inventory: Inventory) -> Iterator[PanelBlock | Missing]:
    for modality in inventory.layout.modalities():
        if modality.kind != "multiplex":
            continue
        found = attempt(
            f"panel of {modality}", lambda m=modality: cohort_panel(inventory.layout.root, m)
        )
        yield found if isinstance(found, Missing) else _panel(found)


def _panel(found: CohortPanel) -> PanelBlock:
    counts = {state: (found.states == state).sum(axis=0) for state in ChannelState}
    rows = tuple(
        ChannelRow(
            channel.name,
            int(counts[ChannelState.MEASURED][place]),
            int(counts[ChannelState.NOT_MEASURED][place]),
            int(counts[ChannelState.FAILED_QC][place]),
        )
        for place, channel in enumerate(found.panel)
    )
    picture = None
    if found.tissue_ids and 0 < len(rows) <= _MOST_CHANNELS:
        sums = {state: int(counts[state].sum()) for state in ChannelState}
        alt = (
            f"Matrix of {len(rows)} channels of {found.modality} by {len(found.tissue_ids)} tissues: "
            f"{sums[ChannelState.MEASURED]} measured, {sums[ChannelState.NOT_MEASURED]} not measured, "
            f"{sums[ChannelState.FAILED_QC]} failed quality control; the table below has the counts."
        )
        figure = cast("Figure", plot_channels(found, legend=False).figure)
        picture = chart_of(figure, alt)
    return PanelBlock(found.modality, len(found.tissue_ids), picture, rows, found.notes)


def _splits(balance: SplitBalance) -> Picture | None:
    if not balance.has_splits:
        return None
    names = [row.split or "no split" for row in balance.rows]
    return _chart(
        plot_splits(balance),
        f"Shares of patients, tissues, images and tiles in {', '.join(names)}, as in the table.",
    )


def _tilings(inventory: Inventory) -> Iterator[TilingBlock]:
    for resolution, tilings in inventory.tilings.items():
        for place, tiling in enumerate(tilings):
            yield _tiling(resolution, tiling, shown=place == 0)


def _tiling(resolution: Resolution, tiling: Tiling, *, shown: bool) -> TilingBlock:
    numbers = tiling_of(tiling)
    known = [n for n in numbers.tissues.values() if n.coverage is not None and n.waste is not None]
    picture = None
    if shown and known:
        alt = (
            f"Coverage and waste of {tiling.name} in {len(known)} tissues: coverage from "
            f"{min(n.coverage or 0 for n in known):.0%} to {max(n.coverage or 0 for n in known):.0%}, "
            f"waste from {min(n.waste or 0 for n in known):.0%} to "
            f"{max(n.waste or 0 for n in known):.0%}."
        )
        picture = _chart(plot_coverage(numbers.tissues), alt)
    return TilingBlock(f"{resolution} µm", tiling, numbers, shown, picture)


def _spreads(sections: list[Section]) -> Iterator[SpreadBlock]:
    """Draw channels of several tissues over each other, for panels: colours are no markers."""
    found: dict[tuple[str, str], dict[str, dict[str, ChannelHistogram]]] = {}
    specs: dict[tuple[str, str], str | None] = {}
    for section in sections:
        kinds = {m.name: m.kind == "multiplex" for m in section.tissue.modalities}
        for slide in section.slides:
            block = slide.histograms
            if not isinstance(block, HistogramBlock) or not kinds.get(slide.modality):
                continue
            key = slide.modality, str(section.tissue.resolution)
            specs[key] = specs.get(key) or block.standardization
            for channel in block.channels:
                tissues = found.setdefault(key, {}).setdefault(channel.name, {})
                tissues[section.tissue.tissue_id] = channel
    for key, channels in found.items():
        names = list(dict.fromkeys(tissue for tissues in channels.values() for tissue in tissues))
        if len(names) < 2:
            continue
        legend = [Swatch(name, c) for name, c in zip(names, POINT_COLOURS, strict=False)]
        if len(names) > len(legend):
            legend.append(Swatch(f"{len(names) - len(legend)} other tissues", OTHER_COLOUR))
        charts = [
            (name, _spread(name, tissues, names, standardized=specs[key] is not None))
            for name, tissues in list(channels.items())[:_MOST_SPREAD]
        ]
        yield SpreadBlock(
            f"{key[0]} at {key[1]} µm, {len(names)} tissues",
            tuple(charts),
            len(channels) - len(charts),
            tuple(legend),
            specs[key],
        )


def _spread(
    name: str, tissues: dict[str, ChannelHistogram], groups: list[str], *, standardized: bool
) -> Picture:
    figure, axes = histogram_axes(standardized=standardized)
    plot_tissue_histograms(tissues, groups=groups, ax=axes[0])
    if standardized:
        plot_tissue_histograms(tissues, stage="standardized", groups=groups, ax=axes[1])
        axes[1].set_ylabel("")
    stages = "before and after standardization" if standardized else "as stored"
    return chart_of(figure, f"Histograms of {name} in {len(tissues)} tissues, {stages}.")


def _findings(inventory: Inventory) -> Findings:
    found = validate(inventory.layout.root)
    errors = [finding for finding in found if finding.severity == "error"]
    warnings = [finding for finding in found if finding.severity != "error"]
    return Findings(len(errors), len(warnings), tuple([*errors, *warnings][:_MOST_FINDINGS]))


def _chart(ax: Axes, alt: str) -> Picture:
    figure = cast("Figure", ax.figure)
    figure.tight_layout(pad=0.6)
    return chart_of(figure, alt)
