"""Augmentation: patches turned, mirrored, brightened, with channels left out; each step recorded.

What is done to a patch is a function of (seed, epoch, number of the patch), whoever asks, in whatever
batch. It is recorded in the patch's `additional_metadata`, by which `undo` takes it back.
"""

from ._augmentation import Augmentation, Draws, drawn_records, verified_augmentations
from ._custom import CustomAugmentation
from ._dihedral import DihedralAugmentation
from ._intensity import ChannelDropout, IntensityJitter
from ._undo import undo

__all__ = [
    "Augmentation",
    "ChannelDropout",
    "CustomAugmentation",
    "DihedralAugmentation",
    "Draws",
    "IntensityJitter",
    "drawn_records",
    "undo",
    "verified_augmentations",
]
