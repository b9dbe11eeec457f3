"""Datasets of red, green and blue: H&E and single-marker IHC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from microtome.cohort._modality import HEModality, IHCModality, Modality
from microtome.errors import InvalidInputError
from microtome.standardize import RgbStandardizer
from microtome.storage import Conversion

from ._imaging import BaseImagingDataset, TissueT, as_tensor
from ._options import DatasetOptions, options_of, verify_options
from ._request import Request
from ._tissues import HETissue, IHCTissue, ImageMode, TissueKind

__all__ = ["HEImagingDataset", "SingleIHCImagingDataset"]


class _BrightfieldDataset(BaseImagingDataset[TissueT]):
    """What H&E and IHC share: 8-bit RGB, standardized by fixed numbers."""

    def __init__(
        self, name: str, modality: Modality, mean_std_type: str, **options: Unpack[DatasetOptions]
    ) -> None:
        verify_options(type(self).__name__, options, options_of(type(self)))
        # First, so that a wrong name is told before any file is touched.
        self.standardizer = RgbStandardizer.preset(mean_std_type)
        super().__init__(name, modality, **options)

    def _standardize(
        self,
        stored: NDArray[Any],
        images: NDArray[np.int64],
        valid: NDArray[np.int64],
        select: Any,
    ) -> NDArray[np.float32]:
        del images, select  # one preset for all, all three colours always
        return self.standardizer(stored, valid=valid)

    def _conversions(
        self, images: NDArray[np.int64], select: Any
    ) -> Mapping[int, Conversion] | None:
        del select
        # All else is refused by the standardizer, in its own words.
        forms = {(self._images[i].nchannels, str(self._images[i].dtype)) for i in images.tolist()}
        return (
            dict.fromkeys(images.tolist(), self.standardizer.conversion)
            if forms == {(3, "uint8")}
            else None
        )

    def _selection(self, kind: str | None) -> Any:
        if kind not in {None, "complete"}:
            msg = f"{self.modality} has three colours and no panel: kind must be 'complete', got {kind!r}"
            raise InvalidInputError(msg)
        return None


class HEImagingDataset(_BrightfieldDataset[HETissue]):
    """H&E tiles or tissues of a cohort (as in spora_io).

    Parameters
    ----------
    name
        Name of the cohort.
    mean_std_type
        ``"imagenet"``, ``"hibou"``, ``"identity"`` (0 to 1) or ``"raw"`` (0 to 255).
    **options
        Those of `BaseImagingDataset`: resolution, path, tile_size, tile_strategy, split, labels,
        masks and cells, filters.

    Raises
    ------
    InvalidInputError
        If there is no such resolution, tiling, split or preset.
    """

    def __init__(
        self, name: str, *, mean_std_type: str = "imagenet", **options: Unpack[DatasetOptions]
    ) -> None:
        super().__init__(name, HEModality(), mean_std_type, **options)

    def _result(
        self, tissue_id: str, region: Any, kind: TissueKind, mode: ImageMode, request: Request
    ) -> HETissue:
        del request
        image = as_tensor(region.data, mode)
        return HETissue(image=image, tissue_id=tissue_id, kind=kind, region=region)


class SingleIHCImagingDataset(_BrightfieldDataset[IHCTissue]):
    """IHC tiles or tissues of one marker (as in spora_io).

    Parameters
    ----------
    name
        Name of the cohort.
    marker_name
        The marker, with or without ``ihc_``.
    mean_std_type
        ``"imagenet"``, ``"hibou"``, ``"identity"`` (0 to 1) or ``"raw"`` (0 to 255).
    **options
        Those of `BaseImagingDataset`.
    """

    def __init__(
        self,
        name: str,
        marker_name: str,
        *,
        mean_std_type: str = "imagenet",
        **options: Unpack[DatasetOptions],
    ) -> None:
        super().__init__(name, IHCModality(marker_name), mean_std_type, **options)

    def _result(
        self, tissue_id: str, region: Any, kind: TissueKind, mode: ImageMode, request: Request
    ) -> IHCTissue:
        del request
        marker = self.modality.name.removeprefix("ihc_")
        return IHCTissue(
            image=as_tensor(region.data, mode),
            tissue_id=tissue_id,
            kind=kind,
            region=region,
            channels=marker,
        )
