"""Foreign formats as read-only images: one file a format, found through one registry."""

from ._array import image_from_array, image_from_levels
from ._choice import SeveralImagesError
from ._format import SourceFormat
from ._npy_header import npy_header
from ._own_files import image_files
from ._registry import image_names, open_image, register_source, source_formats
from ._stacks import open_stacks
from ._xarray import element_transform

__all__ = [
    "SeveralImagesError",
    "SourceFormat",
    "element_transform",
    "image_files",
    "image_from_array",
    "image_from_levels",
    "image_names",
    "npy_header",
    "open_image",
    "open_stacks",
    "register_source",
    "source_formats",
]
