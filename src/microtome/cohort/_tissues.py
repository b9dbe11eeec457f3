"""What a dataset hands out: a tissue or a tile of one modality, as typed values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from microtome.regions import ImageRegionData, PatchSpecs

__all__ = ["HETissue", "IHCTissue", "ImageMode", "MultiplexTissue", "TissueKind", "TissueMask"]

ImageMode = Literal["CHW", "HWC"]
TissueKind = Literal["tissue", "tile"]


class _Brief:
    """Says what a value is in a line, without its pixels."""

    __slots__ = ()

    def __repr__(self) -> str:
        pixels = getattr(self, "image", None)
        if pixels is None:
            pixels = getattr(self, "mask", None)
        shape = tuple(getattr(pixels, "shape", ()))
        what = getattr(self, "kind", "mask")
        tissue = getattr(self, "tissue_id", None)
        return (
            f"{type(self).__name__}({what} of {tissue!r}, {shape} {getattr(pixels, 'dtype', '')})"
        )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class HETissue(_Brief):
    """An H&E tissue or tile (seed 003)."""

    image: Any
    """float32 tensor (3, H, W), or (H, W, 3) where asked for."""
    tissue_id: str
    kind: TissueKind
    region: ImageRegionData[PatchSpecs]
    """The same pixels with their provenance, always channel first."""
    channels: str = "RGB"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class IHCTissue(_Brief):
    """An IHC tissue or tile (seed 003)."""

    image: Any
    """float32 tensor (3, H, W), or (H, W, 3) where asked for."""
    tissue_id: str
    kind: TissueKind
    region: ImageRegionData[PatchSpecs]
    """The same pixels with their provenance, always channel first."""
    channels: str
    """The marker."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class MultiplexTissue(_Brief):
    """A multiplex tissue or tile (seed 003)."""

    image: Any
    """float32 tensor (C, H, W)."""
    tissue_id: str
    kind: TissueKind
    region: ImageRegionData[PatchSpecs]
    """The same pixels with their provenance."""
    channel_names: NDArray[np.str_]
    """Names of the returned channels, (C,)."""
    measured_mask: NDArray[np.bool_]
    """Which channels of the panel this tissue measured, (panel,)."""
    image_loading_mask: NDArray[np.bool_]
    """Which planes of the stored image were returned, (measured,)."""
    uniprot_ids: NDArray[np.object_] | None
    """UniProt accessions of the returned channels, (C,), None for those without."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TissueMask(_Brief):
    """Where the tissue is (seed 003)."""

    mask: NDArray[np.bool_]
    """(H, W)."""
    tissue_id: str
