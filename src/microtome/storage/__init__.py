"""Arrays on disk: create, read into a buffer, write, and make whole directories appear at once."""

from ._array import Box, Pending, StoredArray, array_metadata, create_array, open_array
from ._documents import is_group, read_group, write_group
from ._files import locked, replace_file, storage_errors
from ._layout import CODECS, Codec, Layout, image_layout, label_layout
from ._publish import Draft
from ._remote import Place, StorageOptions, place_of

__all__ = [
    "CODECS",
    "Box",
    "Codec",
    "Draft",
    "Layout",
    "Pending",
    "Place",
    "StorageOptions",
    "StoredArray",
    "array_metadata",
    "create_array",
    "image_layout",
    "is_group",
    "label_layout",
    "locked",
    "open_array",
    "place_of",
    "read_group",
    "replace_file",
    "storage_errors",
    "write_group",
]
