"""Normalization: one shift and one scale a channel, fitted on all pixels, and back again.

`fit_normalization` counts every pixel of the images in one pass; what it returns is applied to
batches by `normalize` and taken back by `denormalize`, travels as a dictionary or a JSON file, and
says what it was fitted on.
"""

from ._blocks import verify_alike
from ._fit import Kind, fit_normalization, plain_channels
from ._normalization import (
    MeanStdNormalization,
    MinMaxNormalization,
    NoNormalization,
    Normalization,
    QuantileNormalization,
    normalization_from_dict,
)
from ._stored import load_normalization, save_normalization

__all__ = [
    "Kind",
    "MeanStdNormalization",
    "MinMaxNormalization",
    "NoNormalization",
    "Normalization",
    "QuantileNormalization",
    "fit_normalization",
    "load_normalization",
    "normalization_from_dict",
    "plain_channels",
    "save_normalization",
    "verify_alike",
]
