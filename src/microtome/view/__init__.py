"""Looking at a cohort: one page about all of it, and its pictures one by one.

`report` writes a self-contained page. The functions that draw its pictures return matplotlib axes
and are there for notebooks too; `cohort_overview`, `split_balance` and `tiling_numbers` count what
they draw.
"""

from ._cohort_plots import (
    plot_areas,
    plot_channels,
    plot_coverage,
    plot_splits,
    plot_tissue_histograms,
)
from ._embeddings import EmbeddingMap, embedding_map
from ._figures import plot_embeddings, plot_heatmap, plot_histograms, plot_overview
from ._heat import Heat, heat_on
from ._histograms import ChannelHistogram, Histogram, histograms
from ._inventory import Inventory, Missing, Tiling, Tissue, take_inventory
from ._nuclei import nuclear_channels
from ._numbers import TileNumbers, TilingNumbers, tiling_numbers
from ._overview import CohortOverview, ImagesRow, StorageRow, cohort_overview
from ._predictions import Found, find_predictions
from ._report import report
from ._splits import SharedPatient, SplitBalance, SplitRow, split_balance
from ._thumbnails import Frame, ShownChannel, Thumbnail, thumbnail

__all__ = [
    "ChannelHistogram",
    "CohortOverview",
    "EmbeddingMap",
    "Found",
    "Frame",
    "Heat",
    "Histogram",
    "ImagesRow",
    "Inventory",
    "Missing",
    "SharedPatient",
    "ShownChannel",
    "SplitBalance",
    "SplitRow",
    "StorageRow",
    "Thumbnail",
    "TileNumbers",
    "Tiling",
    "TilingNumbers",
    "Tissue",
    "cohort_overview",
    "embedding_map",
    "find_predictions",
    "heat_on",
    "histograms",
    "nuclear_channels",
    "plot_areas",
    "plot_channels",
    "plot_coverage",
    "plot_embeddings",
    "plot_heatmap",
    "plot_histograms",
    "plot_overview",
    "plot_splits",
    "plot_tissue_histograms",
    "report",
    "split_balance",
    "take_inventory",
    "thumbnail",
    "tiling_numbers",
]
