"""Tissue images from the microscope's files to model-ready tiles, and the answers back.

Three values, one road:

* `MultiscaleImage`: the levels of one picture and where their pixels lie. `open_image` makes one
  of any file, `ingest` writes one into a cohort.
* `TileTable`: which windows to read, in what order. `tile` makes one from tissue masks.
* `ImageRegionData`: pixels with exactly where they came from. Datasets such as
  `HEImagingDataset` give one a tile, `TileLoader` batches of them, and `predict` takes a model's
  answers back onto the tissue.

Importing this package does no work: names are looked up when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.metadata import version

    from .cohort import (
        BaseImagingDataset,
        CellMask,
        CODEXModality,
        ComposedImagingDataset,
        ComposedTissue,
        CycIFModality,
        HEImagingDataset,
        HEModality,
        HETissue,
        IHCModality,
        IHCTissue,
        IMCModality,
        MIBIModality,
        MultiplexImagingDataset,
        MultiplexTissue,
        SingleIHCImagingDataset,
        SporaDataset,
        TissueMask,
        add_cell_masks,
        add_cells,
        add_metadata,
        create_cohort,
        info,
        ingest,
        ingest_manifest,
        mask,
        set_alignment,
        stats,
        tile,
        update_panel,
        validate,
    )
    from .coordinates import (
        AffineTransform,
        Axis,
        CoordinateSpace,
        IdentityTransform,
        Mpp,
        Resolution,
        ScaleTransform,
        SequenceTransform,
        TranslationTransform,
        UniformScaleTransform,
    )
    from .errors import MicrotomeError
    from .image import MultiscaleImage, SpatialRead
    from .interop import ImageTilesDataset, from_spatialdata, to_spatialdata
    from .jobs import process_pool
    from .loading import TileLoader
    from .panels import (
        ChannelState,
        Panel,
        align_channels,
        read_panel,
    )
    from .prediction import embed_tiles, predict, predict_cohort
    from .regions import (
        ImageRegionData,
        PatchSpecs,
        TileSpecs,
        collate_regions,
        decollate_regions,
        read_regions,
    )
    from .sources import open_image
    from .storage import StorageOptions
    from .tiling import (
        TileTable,
        best_mask_tiling_try_to_stop,
        get_cell_tiles,
        get_fewest_tiles,
        get_grid_tile,
        get_strip_tiles,
        read_areas,
    )
    from .view import report

    __version__ = version("microtome")

_ROOMS = {
    "cohort": (
        "BaseImagingDataset",
        "CODEXModality",
        "CellMask",
        "ComposedImagingDataset",
        "ComposedTissue",
        "CycIFModality",
        "HEImagingDataset",
        "HEModality",
        "HETissue",
        "IHCModality",
        "IHCTissue",
        "IMCModality",
        "MIBIModality",
        "MultiplexImagingDataset",
        "MultiplexTissue",
        "SingleIHCImagingDataset",
        "SporaDataset",
        "TissueMask",
        "add_cell_masks",
        "add_cells",
        "add_metadata",
        "create_cohort",
        "info",
        "ingest",
        "ingest_manifest",
        "mask",
        "set_alignment",
        "stats",
        "tile",
        "update_panel",
        "validate",
    ),
    "coordinates": (
        "AffineTransform",
        "Axis",
        "CoordinateSpace",
        "IdentityTransform",
        "Mpp",
        "Resolution",
        "ScaleTransform",
        "SequenceTransform",
        "TranslationTransform",
        "UniformScaleTransform",
    ),
    "errors": ("MicrotomeError",),
    "image": ("MultiscaleImage", "SpatialRead"),
    "interop": ("ImageTilesDataset", "from_spatialdata", "to_spatialdata"),
    "jobs": ("process_pool",),
    "loading": ("TileLoader",),
    "panels": (
        "ChannelState",
        "Panel",
        "align_channels",
        "read_panel",
    ),
    "prediction": ("embed_tiles", "predict", "predict_cohort"),
    "regions": (
        "ImageRegionData",
        "PatchSpecs",
        "TileSpecs",
        "collate_regions",
        "decollate_regions",
        "read_regions",
    ),
    "sources": ("open_image",),
    "storage": ("StorageOptions",),
    "tiling": (
        "TileTable",
        "best_mask_tiling_try_to_stop",
        "get_cell_tiles",
        "get_fewest_tiles",
        "get_grid_tile",
        "get_strip_tiles",
        "read_areas",
    ),
    "view": ("report",),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "AffineTransform",
    "Axis",
    "BaseImagingDataset",
    "CODEXModality",
    "CellMask",
    "ChannelState",
    "ComposedImagingDataset",
    "ComposedTissue",
    "CoordinateSpace",
    "CycIFModality",
    "HEImagingDataset",
    "HEModality",
    "HETissue",
    "IHCModality",
    "IHCTissue",
    "IMCModality",
    "IdentityTransform",
    "ImageRegionData",
    "ImageTilesDataset",
    "MIBIModality",
    "MicrotomeError",
    "Mpp",
    "MultiplexImagingDataset",
    "MultiplexTissue",
    "MultiscaleImage",
    "Panel",
    "PatchSpecs",
    "Resolution",
    "ScaleTransform",
    "SequenceTransform",
    "SingleIHCImagingDataset",
    "SpatialRead",
    "SporaDataset",
    "StorageOptions",
    "TileLoader",
    "TileSpecs",
    "TileTable",
    "TissueMask",
    "TranslationTransform",
    "UniformScaleTransform",
    "add_cell_masks",
    "add_cells",
    "add_metadata",
    "align_channels",
    "best_mask_tiling_try_to_stop",
    "collate_regions",
    "create_cohort",
    "decollate_regions",
    "embed_tiles",
    "from_spatialdata",
    "get_cell_tiles",
    "get_fewest_tiles",
    "get_grid_tile",
    "get_strip_tiles",
    "info",
    "ingest",
    "ingest_manifest",
    "mask",
    "open_image",
    "predict",
    "predict_cohort",
    "process_pool",
    "read_areas",
    "read_panel",
    "read_regions",
    "report",
    "set_alignment",
    "stats",
    "tile",
    "to_spatialdata",
    "update_panel",
    "validate",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("microtome")
    if name in _ROOMS:
        # `mt.cohort.validate` shall not depend on whether another name was asked for before.
        return importlib.import_module(f"microtome.{name}")
    room = _ROOM_OF.get(name)
    if room is None:
        msg = f"module 'microtome' has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(importlib.import_module(f"microtome.{room}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
