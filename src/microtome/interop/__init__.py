"""Neighbours' data structures: each is optional, and imported nowhere else.

`ImageTilesDataset` gives tiles around the regions of a SpatialData object. Its annotations are
named by their place in the table: a column of ``obs``, a variable of ``X``, ``"layers/LAYER/NAME"``
or ``"obsm/KEY"``. `to_spatialdata` takes images, labels, tiles and cells there; `from_spatialdata`,
`tiles_from_spatialdata` and `cells_from_spatialdata` bring them back.

`write_qupath` and `read_qupath` are QuPath's GeoJSON; `tile_objects`, `cell_objects` and
`area_objects` make what is written, `tiles_of_objects` a table of tiles of what was read.
`write_trident_coordinates`, `write_clam_coordinates` and `read_h5_coordinates` are where patches
lie for TRIDENT and CLAM. `write_webdataset` writes tiles in tar files, `write_coco` as pictures
with their objects, `write_tiles_parquet` as rows of a Parquet file. `napari_layers` and
`napari_tiles` are layers of napari. `to_soma` and `from_soma` are images in tiledbsoma, `tiles_to_anndata` and `cells_to_anndata` tables in
AnnData.

`CohortTiles` is a tiling of a cohort with its images, which `write_webdataset` takes, too; the
`export_...` functions write what others keep as one file a slide, and `add_tiles` takes tiles back.
"""

from ._anndata import cells_to_anndata, tiles_to_anndata
from ._coco import write_coco
from ._cohort_coco import export_coco
from ._cohort_exports import export_spatialdata
from ._cohort_imports import add_tiles
from ._cohort_patches import export_clam, export_trident
from ._cohort_qupath import export_qupath_cells, export_qupath_tiles
from ._cohort_tiles import CohortTiles, TissueImages
from ._coordinates_h5 import (
    read_h5_coordinates,
    write_clam_coordinates,
    write_trident_coordinates,
)
from ._napari import LayerData, napari_get_reader, napari_layers, napari_tiles
from ._parquet import write_tiles_parquet
from ._qupath import Color, Polygons, QuPathKind, QuPathObject, read_qupath, write_qupath
from ._qupath_tables import area_objects, cell_objects, tile_objects, tiles_of_objects
from ._soma import from_soma, to_soma
from ._spatial_tables import cells_from_spatialdata, tiles_from_spatialdata
from ._tiles_dataset import ImageTilesDataset
from ._to_spatialdata import from_spatialdata, to_spatialdata
from ._webdataset import write_webdataset

__all__ = [
    "CohortTiles",
    "Color",
    "ImageTilesDataset",
    "LayerData",
    "Polygons",
    "QuPathKind",
    "QuPathObject",
    "TissueImages",
    "add_tiles",
    "area_objects",
    "cell_objects",
    "cells_from_spatialdata",
    "cells_to_anndata",
    "export_clam",
    "export_coco",
    "export_qupath_cells",
    "export_qupath_tiles",
    "export_spatialdata",
    "export_trident",
    "from_soma",
    "from_spatialdata",
    "napari_get_reader",
    "napari_layers",
    "napari_tiles",
    "read_h5_coordinates",
    "read_qupath",
    "tile_objects",
    "tiles_from_spatialdata",
    "tiles_of_objects",
    "tiles_to_anndata",
    "to_soma",
    "to_spatialdata",
    "write_clam_coordinates",
    "write_coco",
    "write_qupath",
    "write_tiles_parquet",
    "write_trident_coordinates",
    "write_webdataset",
]
