"""Arrays on disk: create, read into a buffer, write, and make whole directories appear at once."""

from ._array import Box, Pending, StoredArray, array_metadata, create_array, open_array
from ._layout import CODECS, Codec, Layout, image_layout, label_layout
from ._publish import (
    Draft,
    is_group,
    locked,
    read_group,
    replace_file,
    storage_errors,
    write_group,
)

__all__ = [
    "CODECS",
    "Box",
    "Codec",
    "Draft",
    "Layout",
    "Pending",
    "StoredArray",
    "array_metadata",
    "create_array",
    "image_layout",
    "is_group",
    "label_layout",
    "locked",
    "open_array",
    "read_group",
    "replace_file",
    "storage_errors",
    "write_group",
]
