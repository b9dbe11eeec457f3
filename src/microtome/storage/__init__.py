"""Arrays on disk: create, read into a buffer, write, and make whole directories appear at once."""

from ._addresses import is_address, spelled, verify_here
from ._array import Box, Pending, ReadBatch, StoredArray, array_metadata
from ._batches import BoxBatch
from ._buffers import Buffers
from ._chunk_encoder import Run, expect_encoding
from ._chunk_order import order_chunks
from ._compiler import Compiled, Compiler, jit
from ._conversion import Conversion
from ._disk_cache import DiskCache
from ._documents import OURS, is_group, read_group, write_group
from ._files import locked, replace_file, storage_errors, verify_free
from ._hierarchy import DirectoryStore, DraftStore, is_inside
from ._kept_chunks import KeptChunks
from ._layout import CODECS, Codec, Layout, default_layout, image_layout, label_layout
from ._making import create_array, open_array
from ._opening import begin_store, open_store
from ._publish import Draft, clear_drafts, is_left_over
from ._remote import AtPlace, Place, StorageOptions, place_of
from ._shard_writer import ShardDraft, ShardWriter
from ._store import ImageStore, WritableArray
from ._store_path import (
    FILE_LIST,
    ZARR_DOCUMENTS,
    StorePath,
    file_source,
    names_in,
    path_to_read,
    walked,
)
from ._tally import Tally, tallied
from ._transfers import READ
from ._upload import forget_upload, upload_directory, upload_file, verify_upload
from ._versions import Snapshot, VersionedStore, is_versioned

__all__ = [
    "CODECS",
    "FILE_LIST",
    "OURS",
    "READ",
    "ZARR_DOCUMENTS",
    "AtPlace",
    "Box",
    "BoxBatch",
    "Buffers",
    "Codec",
    "Compiled",
    "Compiler",
    "Conversion",
    "DirectoryStore",
    "DiskCache",
    "Draft",
    "DraftStore",
    "ImageStore",
    "KeptChunks",
    "Layout",
    "Pending",
    "Place",
    "ReadBatch",
    "Run",
    "ShardDraft",
    "ShardWriter",
    "Snapshot",
    "StorageOptions",
    "StorePath",
    "StoredArray",
    "Tally",
    "VersionedStore",
    "WritableArray",
    "array_metadata",
    "begin_store",
    "clear_drafts",
    "create_array",
    "default_layout",
    "expect_encoding",
    "file_source",
    "forget_upload",
    "image_layout",
    "is_address",
    "is_group",
    "is_inside",
    "is_left_over",
    "is_versioned",
    "jit",
    "label_layout",
    "locked",
    "names_in",
    "open_array",
    "open_store",
    "order_chunks",
    "path_to_read",
    "place_of",
    "read_group",
    "replace_file",
    "spelled",
    "storage_errors",
    "tallied",
    "upload_directory",
    "upload_file",
    "verify_free",
    "verify_here",
    "verify_upload",
    "walked",
    "write_group",
]
