"""Regions: which windows to read, one function that reads them, and the type they travel in."""

from ._collate import collate_regions, decollate_regions, region_batch
from ._fingerprint import columns_fingerprint, pixels_fingerprint
from ._memory import claim_memory, lock_memory
from ._pairs import paired
from ._read import Padding, read_regions
from ._region import ImageRegionData, PatchSpecs, RegionSpecs, TileSpecs
from ._space import RegionSpace, region_bounds, region_transform
from ._stacks import Stack, data_shape_of
from ._turns import turned
from ._windows import Windows, valid_windows

__all__ = [
    "ImageRegionData",
    "Padding",
    "PatchSpecs",
    "RegionSpace",
    "RegionSpecs",
    "Stack",
    "TileSpecs",
    "Windows",
    "claim_memory",
    "collate_regions",
    "columns_fingerprint",
    "data_shape_of",
    "decollate_regions",
    "lock_memory",
    "paired",
    "pixels_fingerprint",
    "read_regions",
    "region_batch",
    "region_bounds",
    "region_transform",
    "turned",
    "valid_windows",
]
