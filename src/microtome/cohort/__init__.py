"""A cohort: a directory of tissues that share a study, in the SPORA layout.

`ingest`, `mask`, `tile` and `stats` fill it, datasets such as `HEImagingDataset` read it.
"""

from ._alignment import Alignments, read_alignments, set_alignment, tell_aligned
from ._create import create_cohort
from ._file_list import write_file_list
from ._images import (
    open_tissue_image,
    open_tissue_mask,
    read_tissue_mask,
    tissues_with_images,
)
from ._info import CohortInfo, ContainerInfo, ImageInfo, LevelInfo, info
from ._layout import CohortLayout, check_tissue_id, size_name, tile_size_of
from ._made_of import Inputs, identity_in, image_of_tissue, note_inputs, noted_inputs
from ._masks import mask
from ._metadata import add_metadata
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
from ._packed_from import PackedFrom, packing_inputs
from ._panels import measured_channels, panel
from ._standardized_by import note_statistics
from ._tables import read_parquet, read_tissues, tissue_row
from .cells import add_cell_masks, add_cells, measure_cells, open_cell_mask
from .channels import CohortPanel, PanelMatch, PanelUpdate, cohort_panel, update_panel
from .datasets import (
    BaseImagingDataset,
    CellMask,
    ChannelKind,
    ComposedImagingDataset,
    ComposedTissue,
    DatasetOptions,
    Draws,
    FrameBox,
    FramePlace,
    HEImagingDataset,
    HETissue,
    IHCTissue,
    ImageMode,
    MultiplexImagingDataset,
    MultiplexTissue,
    SamplingUnit,
    SingleIHCImagingDataset,
    SporaDataset,
    TissueKind,
    TissueMask,
)
from .ingestion import IngestOutcome, IngestState, OnError, ingest, ingest_manifest
from .statistics import stats
from .tiles import TilingMethod, open_tiles, tile, tile_statistics, tiles_identities
from .validation import Finding, Severity, validate

__all__ = [
    "Alignments",
    "BaseImagingDataset",
    "CODEXModality",
    "CellMask",
    "ChannelKind",
    "CohortInfo",
    "CohortLayout",
    "CohortPanel",
    "ComposedImagingDataset",
    "ComposedTissue",
    "ContainerInfo",
    "CycIFModality",
    "DatasetOptions",
    "Draws",
    "Finding",
    "FrameBox",
    "FramePlace",
    "HEImagingDataset",
    "HEModality",
    "HETissue",
    "IHCModality",
    "IHCTissue",
    "IMCModality",
    "ImageInfo",
    "ImageMode",
    "IngestOutcome",
    "IngestState",
    "Inputs",
    "LevelInfo",
    "MIBIModality",
    "Modality",
    "ModalityKind",
    "MultiplexImagingDataset",
    "MultiplexTissue",
    "OnError",
    "PackedFrom",
    "PanelMatch",
    "PanelUpdate",
    "SamplingUnit",
    "Severity",
    "SingleIHCImagingDataset",
    "SporaDataset",
    "StainsModality",
    "TilingMethod",
    "TissueKind",
    "TissueMask",
    "add_cell_masks",
    "add_cells",
    "add_metadata",
    "check_tissue_id",
    "cohort_panel",
    "create_cohort",
    "identity_in",
    "image_of_tissue",
    "info",
    "ingest",
    "ingest_manifest",
    "mask",
    "measure_cells",
    "measured_channels",
    "modality_names",
    "note_inputs",
    "note_statistics",
    "noted_inputs",
    "open_cell_mask",
    "open_tiles",
    "open_tissue_image",
    "open_tissue_mask",
    "packing_inputs",
    "panel",
    "parse_modality",
    "read_alignments",
    "read_parquet",
    "read_tissue_mask",
    "read_tissues",
    "register_modality",
    "set_alignment",
    "size_name",
    "stats",
    "tell_aligned",
    "tile",
    "tile_size_of",
    "tile_statistics",
    "tiles_identities",
    "tissue_row",
    "tissues_with_images",
    "update_panel",
    "validate",
    "write_file_list",
]
