"""Pixels to standardized pixels: streaming statistics, and what is done with them.

`QuantileCounter` and `Moments` take pixels block by block, in any number of workers, and give
exact quantiles, means and standard deviations. `StatisticsTables` are these on disk, for every
tissue and channel of a cohort. A `Standardizer` applies them to multiplex images by the method
that a `StandardizationSpec` names; an `RgbStandardizer` takes H&E and IHC images. A `FilterChain`
filters either, tile by tile, to what the whole image filtered would be.
"""

from ._between import quantiles_of_counts
from ._channel_statistics import ChannelStatistics, StatisticsTable
from ._filters import (
    Filter,
    FilterChain,
    build_filters,
    register_filter,
    registered_filters,
)
from ._inside import runs_inside
from ._methods import Transform, register_standardizer, registered_standardizers
from ._moments import Moments
from ._quantiles import QuantileCounter
from ._rgb import MEAN_STD, ImageMode, RgbStandardizer, register_mean_std
from ._sketch import QuantileSketch
from ._spec import Level, StandardizationSpec
from ._standardizer import Standardizer, build_standardizer
from ._tables import StatisticsTables
from ._value_counts import ValueCounts
from ._window import fill_outside

__all__ = [
    "MEAN_STD",
    "ChannelStatistics",
    "Filter",
    "FilterChain",
    "ImageMode",
    "Level",
    "Moments",
    "QuantileCounter",
    "QuantileSketch",
    "RgbStandardizer",
    "StandardizationSpec",
    "Standardizer",
    "StatisticsTable",
    "StatisticsTables",
    "Transform",
    "ValueCounts",
    "build_filters",
    "build_standardizer",
    "fill_outside",
    "quantiles_of_counts",
    "register_filter",
    "register_mean_std",
    "register_standardizer",
    "registered_filters",
    "registered_standardizers",
    "runs_inside",
]
