"""What a dataset hands out: a tissue or a tile of one modality, as typed values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from microtome.regions import ImageRegionData, PatchSpecs

__all__ = [
    "CellMask",
    "ComposedTissue",
    "HETissue",
    "IHCTissue",
    "ImageMode",
    "MultiplexTissue",
    "TissueKind",
    "TissueMask",
]

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


class _Placed(_Brief):
    """Has a region, and with it what came along."""

    __slots__ = ()
    region: ImageRegionData[PatchSpecs]

    def _known(self, what: str) -> Any:
        return dict(cast("Mapping[str, Any]", self.region.additional_metadata)).get(what)

    @property
    def tissue_mask(self) -> NDArray[np.bool_] | None:
        """Where the tissue is, (H, W); None unless `with_masks`."""
        return self._known("tissue_mask")

    @property
    def cell_mask(self) -> NDArray[np.integer[Any]] | None:
        """Numbers of the cells, (H, W); None unless `with_masks` and the cohort has them."""
        return self._known("cell_mask")

    @property
    def cells(self) -> pa.Table | None:
        """Rows of the table of cells that lie here; None unless `with_cells`."""
        return self._known("cells")

    @property
    def label(self) -> Any:
        """The tissue's label; None unless the dataset has labels."""
        return self._known("label")

    @property
    def label_code(self) -> int | float | None:
        """The code of the tissue's class, or its number; None unless the dataset has labels."""
        return self._known("label_code")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class HETissue(_Placed):
    """An H&E tissue or tile (as in spora_io)."""

    image: Any
    """float32 tensor (3, H, W), or (H, W, 3) where asked for."""
    tissue_id: str
    kind: TissueKind
    region: ImageRegionData[PatchSpecs]
    """The same pixels with their provenance, always channel first."""
    channels: str = "RGB"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class IHCTissue(_Placed):
    """An IHC tissue or tile (as in spora_io)."""

    image: Any
    """float32 tensor (3, H, W), or (H, W, 3) where asked for."""
    tissue_id: str
    kind: TissueKind
    region: ImageRegionData[PatchSpecs]
    """The same pixels with their provenance, always channel first."""
    channels: str
    """The marker."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class MultiplexTissue(_Placed):
    """A multiplex tissue or tile (as in spora_io).

    `image` is float32 (C, H, W), `channel_names` and `uniprot_ids` say what its channels are, (C,).
    `measured_mask`, (panel,), says which channels of the cohort's panel this tissue measured, and
    `image_loading_mask`, (measured,), which of the planes that its image has were returned: with
    `kind="complete"` all of them. `region` has the same pixels with their provenance.
    """

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposedTissue:
    """A tissue or tile in every modality in which it was imaged (as in spora_io)."""

    tissue_id: str
    modalities: dict[str, HETissue | IHCTissue | MultiplexTissue]
    """By the name of the modality."""

    @property
    def regions(self) -> dict[str, ImageRegionData[PatchSpecs]]:
        """The pixels of each modality with their provenance."""
        return {name: found.region for name, found in self.modalities.items()}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CellMask(_Brief):
    """Cells of a tissue, or the labels of a task (as in spora_io)."""

    mask: NDArray[np.integer[Any]]
    """(H, W), 0 for the background."""
    tissue_id: str
    mapping: dict[int, str] | None
    """Names of a task's labels; None for instances, and where the cohort has none."""
    region: ImageRegionData[PatchSpecs]
    """The same labels with their provenance, (1, H, W)."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TissueMask(_Brief):
    """Where the tissue is (as in spora_io)."""

    mask: NDArray[np.bool_]
    """(H, W)."""
    tissue_id: str
    region: ImageRegionData[PatchSpecs]
    """The same with its provenance, (1, H, W)."""
