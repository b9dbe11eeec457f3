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

    from .augmentation import ChannelDropout, DihedralAugmentation, IntensityJitter
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
        measure_cells,
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
    from .export import write_ome_tiff
    from .image import MultiscaleImage, SpatialRead
    from .interop import (
        ImageTilesDataset,
        add_tiles,
        cell_objects,
        cells_from_spatialdata,
        cells_to_anndata,
        from_soma,
        from_spatialdata,
        read_qupath,
        tile_objects,
        tiles_from_spatialdata,
        tiles_to_anndata,
        to_soma,
        to_spatialdata,
        write_coco,
        write_qupath,
        write_tiles_parquet,
        write_webdataset,
    )
    from .jobs import process_pool
    from .loading import (
        AugmentedDataset,
        BlockOrder,
        DrawnOrder,
        PanelCollate,
        RegionDataModule,
        RegionDataset,
        TileLoader,
        WeightedOrder,
        bench,
    )
    from .normalization import fit_normalization, load_normalization, save_normalization
    from .packing import pack
    from .panels import ChannelState, Panel, align_channels, read_panel
    from .patching import (
        RandomPatching,
        SequentialPatching,
        StratifiedPatching,
        TiledPatching,
        WholePatching,
        validation_split,
    )
    from .prediction import (
        CellCrops,
        PredictionWriter,
        embed_tiles,
        merge_labels,
        pool_labels,
        predict,
        predict_cohort,
        predict_instances,
        vectors_to_anndata,
    )
    from .regions import (
        ImageRegionData,
        PatchSpecs,
        TileSpecs,
        collate_regions,
        decollate_regions,
        read_regions,
        region_bounds,
        region_transform,
    )
    from .sources import image_names, open_image, open_stacks
    from .storage import Conversion, DiskCache, StorageOptions
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
    "augmentation": ("ChannelDropout", "DihedralAugmentation", "IntensityJitter"),
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
        "measure_cells",
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
    "export": ("write_ome_tiff",),
    "image": ("MultiscaleImage", "SpatialRead"),
    "interop": (
        "ImageTilesDataset",
        "add_tiles",
        "cell_objects",
        "cells_from_spatialdata",
        "cells_to_anndata",
        "from_soma",
        "from_spatialdata",
        "read_qupath",
        "tile_objects",
        "tiles_from_spatialdata",
        "tiles_to_anndata",
        "to_soma",
        "to_spatialdata",
        "write_coco",
        "write_qupath",
        "write_tiles_parquet",
        "write_webdataset",
    ),
    "jobs": ("process_pool",),
    "loading": (
        "AugmentedDataset",
        "BlockOrder",
        "DrawnOrder",
        "PanelCollate",
        "RegionDataModule",
        "RegionDataset",
        "TileLoader",
        "WeightedOrder",
        "bench",
    ),
    "normalization": ("fit_normalization", "load_normalization", "save_normalization"),
    "packing": ("pack",),
    "panels": ("ChannelState", "Panel", "align_channels", "read_panel"),
    "patching": (
        "RandomPatching",
        "SequentialPatching",
        "StratifiedPatching",
        "TiledPatching",
        "WholePatching",
        "validation_split",
    ),
    "prediction": (
        "CellCrops",
        "PredictionWriter",
        "embed_tiles",
        "merge_labels",
        "pool_labels",
        "predict",
        "predict_cohort",
        "predict_instances",
        "vectors_to_anndata",
    ),
    "regions": (
        "ImageRegionData",
        "PatchSpecs",
        "TileSpecs",
        "collate_regions",
        "decollate_regions",
        "read_regions",
        "region_bounds",
        "region_transform",
    ),
    "sources": ("image_names", "open_image", "open_stacks"),
    "storage": ("Conversion", "DiskCache", "StorageOptions"),
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
    "AugmentedDataset",
    "Axis",
    "BaseImagingDataset",
    "BlockOrder",
    "CODEXModality",
    "CellCrops",
    "CellMask",
    "ChannelDropout",
    "ChannelState",
    "ComposedImagingDataset",
    "ComposedTissue",
    "Conversion",
    "CoordinateSpace",
    "CycIFModality",
    "DihedralAugmentation",
    "DiskCache",
    "DrawnOrder",
    "HEImagingDataset",
    "HEModality",
    "HETissue",
    "IHCModality",
    "IHCTissue",
    "IMCModality",
    "IdentityTransform",
    "ImageRegionData",
    "ImageTilesDataset",
    "IntensityJitter",
    "MIBIModality",
    "MicrotomeError",
    "Mpp",
    "MultiplexImagingDataset",
    "MultiplexTissue",
    "MultiscaleImage",
    "Panel",
    "PanelCollate",
    "PatchSpecs",
    "PredictionWriter",
    "RandomPatching",
    "RegionDataModule",
    "RegionDataset",
    "Resolution",
    "ScaleTransform",
    "SequenceTransform",
    "SequentialPatching",
    "SingleIHCImagingDataset",
    "SpatialRead",
    "SporaDataset",
    "StorageOptions",
    "StratifiedPatching",
    "TileLoader",
    "TileSpecs",
    "TileTable",
    "TiledPatching",
    "TissueMask",
    "TranslationTransform",
    "UniformScaleTransform",
    "WeightedOrder",
    "WholePatching",
    "add_cell_masks",
    "add_cells",
    "add_metadata",
    "add_tiles",
    "align_channels",
    "bench",
    "best_mask_tiling_try_to_stop",
    "cell_objects",
    "cells_from_spatialdata",
    "cells_to_anndata",
    "collate_regions",
    "create_cohort",
    "decollate_regions",
    "embed_tiles",
    "fit_normalization",
    "from_soma",
    "from_spatialdata",
    "get_cell_tiles",
    "get_fewest_tiles",
    "get_grid_tile",
    "get_strip_tiles",
    "image_names",
    "info",
    "ingest",
    "ingest_manifest",
    "load_normalization",
    "mask",
    "measure_cells",
    "merge_labels",
    "open_image",
    "open_stacks",
    "pack",
    "pool_labels",
    "predict",
    "predict_cohort",
    "predict_instances",
    "process_pool",
    "read_areas",
    "read_panel",
    "read_qupath",
    "read_regions",
    "region_bounds",
    "region_transform",
    "report",
    "save_normalization",
    "set_alignment",
    "stats",
    "tile",
    "tile_objects",
    "tiles_from_spatialdata",
    "tiles_to_anndata",
    "to_soma",
    "to_spatialdata",
    "update_panel",
    "validate",
    "validation_split",
    "vectors_to_anndata",
    "write_coco",
    "write_ome_tiff",
    "write_qupath",
    "write_tiles_parquet",
    "write_webdataset",
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
