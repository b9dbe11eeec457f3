"""`MultiscaleImage`: the levels of one picture, and where every pixel lies."""

from ._affine import Resampling
from ._channels import Channels, channel_indices, channel_runs
from ._growing import GrowingLevels, halved_box
from ._html import CardPicture, html_card, html_of, short_list
from ._image import MultiscaleImage
from ._level import Level, MemoryArray, PixelArray, as_array
from ._ngff import DatasetEntry, ImageMetadata, Kind, read_metadata, write_metadata
from ._plain import ResultOrder, SpatialRead
from ._pyramid import blocks_of, halve_labels, halve_mean, pyramid_shapes
from ._resample import Interpolation, grid_size
from ._resolved import level_for_means
from ._stack import STACK_AXES, ArrayStack, ImageStack, stack_axes
from ._view import image_at
from ._window import Padding
from ._writer import begin_image

__all__ = [
    "STACK_AXES",
    "ArrayStack",
    "CardPicture",
    "Channels",
    "DatasetEntry",
    "GrowingLevels",
    "ImageMetadata",
    "ImageStack",
    "Interpolation",
    "Kind",
    "Level",
    "MemoryArray",
    "MultiscaleImage",
    "Padding",
    "PixelArray",
    "Resampling",
    "ResultOrder",
    "SpatialRead",
    "as_array",
    "begin_image",
    "blocks_of",
    "channel_indices",
    "channel_runs",
    "grid_size",
    "halve_labels",
    "halve_mean",
    "halved_box",
    "html_card",
    "html_of",
    "image_at",
    "level_for_means",
    "pyramid_shapes",
    "read_metadata",
    "short_list",
    "stack_axes",
    "write_metadata",
]
