"""Datasets over one modality, over several of the same tissues, and over several cohorts."""

from ._brightfield import HEImagingDataset, SingleIHCImagingDataset
from ._composed import ComposedImagingDataset
from ._dataset import ModalityDataset
from ._frames import FrameBox, FramePlace
from ._imaging import BaseImagingDataset
from ._multiplex import ChannelKind, MultiplexImagingDataset
from ._options import DatasetOptions
from ._spora import SporaDataset
from ._spora_single import SamplingUnit
from ._spora_tables import Draws
from ._tissues import (
    CellMask,
    ComposedTissue,
    HETissue,
    IHCTissue,
    ImageMode,
    MultiplexTissue,
    TissueKind,
    TissueMask,
)

__all__ = [
    "BaseImagingDataset",
    "CellMask",
    "ChannelKind",
    "ComposedImagingDataset",
    "ComposedTissue",
    "DatasetOptions",
    "Draws",
    "FrameBox",
    "FramePlace",
    "HEImagingDataset",
    "HETissue",
    "IHCTissue",
    "ImageMode",
    "ModalityDataset",
    "MultiplexImagingDataset",
    "MultiplexTissue",
    "SamplingUnit",
    "SingleIHCImagingDataset",
    "SporaDataset",
    "TissueKind",
    "TissueMask",
]
