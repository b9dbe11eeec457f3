"""Looking at a cohort: one page about all of it, and its pictures one by one.

`report` writes a self-contained page. The functions that draw its pictures return matplotlib axes
and are there for notebooks too.
"""

from ._embeddings import EmbeddingMap, embedding_map
from ._figures import plot_embeddings, plot_heatmap, plot_histograms, plot_overview
from ._heat import Heat, heat_on
from ._histograms import ChannelHistogram, Histogram, histograms
from ._report import report
from ._thumbnails import Frame, ShownChannel, Thumbnail, thumbnail

__all__ = [
    "ChannelHistogram",
    "EmbeddingMap",
    "Frame",
    "Heat",
    "Histogram",
    "ShownChannel",
    "Thumbnail",
    "embedding_map",
    "heat_on",
    "histograms",
    "plot_embeddings",
    "plot_heatmap",
    "plot_histograms",
    "plot_overview",
    "report",
    "thumbnail",
]
