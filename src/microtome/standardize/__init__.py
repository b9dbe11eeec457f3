"""Pixels to standardized pixels: streaming statistics, and what is done with them.

`QuantileCounter` and `Moments` take pixels block by block, in any number of workers, and give
exact quantiles, means and standard deviations. `StatisticsTables` are these on disk, for every
tissue and channel of a cohort. A `Standardizer` applies them to multiplex images by the method
that a `StandardizationSpec` names; an `RgbStandardizer` takes H&E and IHC images.
"""

from ._moments import Moments
from ._quantiles import QuantileCounter
from ._rgb import MEAN_STD, ImageMode, RgbStandardizer
from ._spec import (
    Level,
    StandardizationSpec,
    Transform,
    register_standardizer,
    registered_standardizers,
)
from ._standardizer import Standardizer, build_standardizer
from ._tables import ChannelStatistics, StatisticsTable, StatisticsTables
from ._window import fill_outside

__all__ = [
    "MEAN_STD",
    "ChannelStatistics",
    "ImageMode",
    "Level",
    "Moments",
    "QuantileCounter",
    "RgbStandardizer",
    "StandardizationSpec",
    "Standardizer",
    "StatisticsTable",
    "StatisticsTables",
    "Transform",
    "build_standardizer",
    "fill_outside",
    "register_standardizer",
    "registered_standardizers",
]
