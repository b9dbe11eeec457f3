"""Datasets of red, green and blue: H&E and single-marker IHC."""

from __future__ import annotations

import os
from abc import abstractmethod
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from microtome.coordinates import Resolution
from microtome.standardize import RgbStandardizer

from ._dataset import BaseImagingDataset, as_tensor
from ._modality import HEModality, IHCModality, Modality
from ._tissues import HETissue, IHCTissue, ImageMode, TissueKind

__all__ = ["HEImagingDataset", "SingleIHCImagingDataset"]


TissueT = TypeVar("TissueT", HETissue, IHCTissue)


class _BrightfieldDataset(BaseImagingDataset, Generic[TissueT]):
    """What H&E and IHC share: 8-bit RGB, standardized by fixed numbers."""

    def __init__(
        self,
        name: str,
        modality: Modality,
        resolution: float | str | tuple[float, float] | Resolution | None,
        *,
        path: str | os.PathLike[str] | None,
        tile_size: int | tuple[int, int] | None,
        tile_strategy: str | None,
        split: str | None,
        mean_std_type: str,
    ) -> None:
        # First, so that a wrong name is told before any file is touched.
        self.standardizer = RgbStandardizer.preset(mean_std_type)
        super().__init__(
            name,
            modality,
            resolution,
            path=path,
            tile_size=tile_size,
            tile_strategy=tile_strategy,
            split=split,
        )

    def _standardize(
        self,
        stored: NDArray[Any],
        images: NDArray[np.int64],
        valid: NDArray[np.int64],
        select: Any,
    ) -> NDArray[np.float32]:
        del images, select  # one preset for all, all three colours always
        return self.standardizer(stored, valid=valid)

    def get_tissue(self, tissue_id: str, *, image_mode: ImageMode = "CHW") -> TissueT:
        """Read a whole tissue.

        Parameters
        ----------
        tissue_id
            Which.
        image_mode
            ``"CHW"`` or ``"HWC"``.
        """
        return self._result(tissue_id, self._tissue_region(tissue_id), "tissue", image_mode)

    def get_tile(self, tissue_id: str, tile_id: int, *, image_mode: ImageMode = "CHW") -> TissueT:
        """Read a tile by its id, the `tile_id` of the table and not a position in it.

        Raises
        ------
        UnknownNameError
            If there is no such tissue or tile. No other window is ever read in its place.
        """
        return self._result(tissue_id, self._tile_region(tissue_id, tile_id), "tile", image_mode)

    def get_tile_by_coordinates(
        self, tissue_id: str, row: int, col: int, *, image_mode: ImageMode = "CHW"
    ) -> TissueT:
        """Read the tile whose top-left pixel is (row, col); 0 outside the image."""
        region = self._window(tissue_id, row, col, self._tile_shape())
        return self._result(tissue_id, region, "tile", image_mode)

    @abstractmethod
    def _result(self, tissue_id: str, region: Any, kind: TissueKind, mode: ImageMode) -> TissueT:
        """Wrap a region in the type of the modality."""


class HEImagingDataset(_BrightfieldDataset[HETissue]):
    """H&E tiles or tissues of a cohort (seed 003).

    Parameters
    ----------
    name
        Name of the cohort.
    resolution
        Micrometres per pixel; may be left out where the cohort has one.
    path
        Directory of the cohort; `name` inside the directory that SPORA_DATASETS_DIR names by
        default.
    tile_size
        Side of the tiles in pixels, or (height, width); None for whole tissues.
    tile_strategy
        Which tiling; ``"default"`` by default.
    split
        Only tissues of this split; None for all.
    mean_std_type
        ``"imagenet"``, ``"hibou"``, ``"identity"`` (0 to 1) or ``"raw"`` (0 to 255).

    Raises
    ------
    InvalidInputError
        If there is no such resolution, tiling, split or preset.
    """

    def __init__(
        self,
        name: str,
        *,
        resolution: float | str | tuple[float, float] | Resolution | None = None,
        path: str | os.PathLike[str] | None = None,
        tile_size: int | tuple[int, int] | None = None,
        tile_strategy: str | None = None,
        split: str | None = None,
        mean_std_type: str = "imagenet",
    ) -> None:
        super().__init__(
            name,
            HEModality(),
            resolution,
            path=path,
            tile_size=tile_size,
            tile_strategy=tile_strategy,
            split=split,
            mean_std_type=mean_std_type,
        )

    def _result(self, tissue_id: str, region: Any, kind: TissueKind, mode: ImageMode) -> HETissue:
        image = as_tensor(region.data, mode)
        return HETissue(image=image, tissue_id=tissue_id, kind=kind, region=region)


class SingleIHCImagingDataset(_BrightfieldDataset[IHCTissue]):
    """IHC tiles or tissues of one marker (seed 003).

    Parameters
    ----------
    name
        Name of the cohort.
    marker_name
        The marker, with or without ``ihc_``.
    resolution, path, tile_size, tile_strategy, split, mean_std_type
        As for `HEImagingDataset`.
    """

    def __init__(
        self,
        name: str,
        marker_name: str,
        *,
        resolution: float | str | tuple[float, float] | Resolution | None = None,
        path: str | os.PathLike[str] | None = None,
        tile_size: int | tuple[int, int] | None = None,
        tile_strategy: str | None = None,
        split: str | None = None,
        mean_std_type: str = "imagenet",
    ) -> None:
        super().__init__(
            name,
            IHCModality(marker_name),
            resolution,
            path=path,
            tile_size=tile_size,
            tile_strategy=tile_strategy,
            split=split,
            mean_std_type=mean_std_type,
        )

    def _result(self, tissue_id: str, region: Any, kind: TissueKind, mode: ImageMode) -> IHCTissue:
        marker = self.modality.name.removeprefix("ihc_")
        return IHCTissue(
            image=as_tensor(region.data, mode),
            tissue_id=tissue_id,
            kind=kind,
            region=region,
            channels=marker,
        )
