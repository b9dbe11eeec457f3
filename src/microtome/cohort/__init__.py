"""A cohort: a directory of tissues that share a study, in the SPORA layout.

`ingest`, `mask`, `tile` and `stats` fill it, datasets such as `HEImagingDataset` read it.
"""

from ._add_masks import add_cell_masks
from ._brightfield import HEImagingDataset, SingleIHCImagingDataset
from ._create import create_cohort
from ._dataset import DatasetOptions
from ._images import (
    open_tissue_image,
    open_tissue_mask,
    read_tissue_mask,
    tissues_with_images,
)
from ._imaging import BaseImagingDataset
from ._info import CohortInfo, ImageInfo, LevelInfo, info
from ._ingest import ingest
from ._layout import CohortLayout, check_tissue_id
from ._manifest import OnError, ingest_manifest
from ._masks import mask
from ._metadata import add_cells, add_metadata
from ._modality import (
    CODEXModality,
    CycIFModality,
    HEModality,
    IHCModality,
    IMCModality,
    MIBIModality,
    Modality,
    ModalityKind,
    StainsModality,
    modality_names,
    parse_modality,
    register_modality,
)
from ._multiplex import ChannelKind, MultiplexImagingDataset
from ._stats import stats
from ._tables import measured_channels, panel, read_tissues, tissue_row
from ._tiles import TilingMethod, open_tiles, tile, tile_statistics
from ._tissues import (
    CellMask,
    HETissue,
    IHCTissue,
    ImageMode,
    MultiplexTissue,
    TissueKind,
    TissueMask,
)

__all__ = [
    "BaseImagingDataset",
    "CODEXModality",
    "CellMask",
    "ChannelKind",
    "CohortInfo",
    "CohortLayout",
    "CycIFModality",
    "DatasetOptions",
    "HEImagingDataset",
    "HEModality",
    "HETissue",
    "IHCModality",
    "IHCTissue",
    "IMCModality",
    "ImageInfo",
    "ImageMode",
    "LevelInfo",
    "MIBIModality",
    "Modality",
    "ModalityKind",
    "MultiplexImagingDataset",
    "MultiplexTissue",
    "OnError",
    "SingleIHCImagingDataset",
    "StainsModality",
    "TilingMethod",
    "TissueKind",
    "TissueMask",
    "add_cell_masks",
    "add_cells",
    "add_metadata",
    "check_tissue_id",
    "create_cohort",
    "info",
    "ingest",
    "ingest_manifest",
    "mask",
    "measured_channels",
    "modality_names",
    "open_tiles",
    "open_tissue_image",
    "open_tissue_mask",
    "panel",
    "parse_modality",
    "read_tissue_mask",
    "read_tissues",
    "register_modality",
    "stats",
    "tile",
    "tile_statistics",
    "tissue_row",
    "tissues_with_images",
]
