"""Looking at a cohort: one page about all of it, and its pictures one by one.

`report` writes a self-contained page. The functions that draw its pictures return matplotlib axes
and are there for notebooks too.
"""

from ._embeddings import EmbeddingMap, embedding_map
from ._figures import plot_embeddings, plot_heatmap, plot_histograms, plot_overview
from ._heat import Heat, heat_on
from ._histograms import ChannelHistogram, Histogram, histograms
from ._inventory import Inventory, Missing, Tiling, Tissue, take_inventory
from ._predictions import Found, find_predictions
from ._report import report
from ._thumbnails import Frame, ShownChannel, Thumbnail, thumbnail

__all__ = [
    "ChannelHistogram",
    "EmbeddingMap",
    "Found",
    "Frame",
    "Heat",
    "Histogram",
    "Inventory",
    "Missing",
    "ShownChannel",
    "Thumbnail",
    "Tiling",
    "Tissue",
    "embedding_map",
    "find_predictions",
    "heat_on",
    "histograms",
    "plot_embeddings",
    "plot_heatmap",
    "plot_histograms",
    "plot_overview",
    "report",
    "take_inventory",
    "thumbnail",
]
