"""Reading places of tissues in several modalities: each image where it lies in the tissue's frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from microtome.cohort._alignment import Alignments
from microtome.coordinates import AffineTransform
from microtome.errors import FormatError

from ._frames import FramePlace
from ._imaging import BaseImagingDataset
from ._tissues import ComposedTissue, ImageMode

__all__ = ["ComposedReader", "kind_for"]


class ComposedReader:
    """What reads places of a cohort's tissues in every modality in which these were imaged.

    Parameters
    ----------
    datasets
        The dataset of each modality, by name.
    modalities_of
        Names of the modalities of each tissue.
    alignments
        How images lie in their tissues; those of other modalities are left out.
    """

    def __init__(
        self,
        datasets: Mapping[str, BaseImagingDataset[Any]],
        modalities_of: Mapping[str, Sequence[str]],
        alignments: Alignments,
    ) -> None:
        self._datasets = datasets
        self._modalities_of = modalities_of
        # How the images of each modality lie, by tissue id.
        self._to_frame: dict[str, dict[str, AffineTransform]] = {name: {} for name in datasets}
        for (tissue, kind), transform in alignments.items():
            if kind in self._to_frame:
                self._to_frame[kind][tissue] = transform
        self._checked: set[str] = set()

    def read(
        self,
        places: Sequence[FramePlace],
        kind: str | None,
        *,
        preprocess: bool,
        image_mode: ImageMode,
        only: Sequence[str] | None = None,
    ) -> list[ComposedTissue]:
        """Read places, in one batch a modality.

        Parameters
        ----------
        places
            Squares of tissues.
        kind, preprocess, image_mode
            As of `BaseImagingDataset.get_tissue`.
        only
            Names of the modalities that are read; None for all.

        Raises
        ------
        FormatError
            If images of a tissue without alignments have no common pixel grid.
        """
        found: list[dict[str, Any]] = [{} for _ in places]
        for place in places:
            self._verify_grid(place.tissue_id)
        for name, dataset in self._datasets.items():
            mine = [
                i
                for i, place in enumerate(places)
                if name in self._modalities_of[place.tissue_id] and (only is None or name in only)
            ]
            results = dataset.read_places(
                [places[i] for i in mine],
                self._to_frame[name],
                kind_for(dataset, kind),
                preprocess=preprocess,
                image_mode=image_mode,
            )
            for i, result in zip(mine, results, strict=True):
                found[i][name] = result
        return [
            ComposedTissue(tissue_id=place.tissue_id, modalities=modalities)
            for place, modalities in zip(places, found, strict=True)
        ]

    def _verify_grid(self, tissue_id: str) -> None:
        """Refuse images of a tissue that neither share a pixel grid nor say how they lie."""
        if tissue_id in self._checked:
            return
        extents: dict[str, tuple[float, float]] = {}
        coarsest = 0.0
        for name in self._modalities_of[tissue_id]:
            if tissue_id in self._to_frame[name]:
                continue
            dataset = self._datasets[name]
            shape, mpp = dataset.image(tissue_id).level_shape(0), dataset.resolution.mpp
            extents[name] = shape[-2] * mpp[0], shape[-1] * mpp[1]
            coarsest = max(coarsest, *mpp)
        if extents:
            spread = np.ptp(np.asarray(list(extents.values())), axis=0)
            if float(spread.max()) > coarsest * (1 + 1e-6):
                shown = ", ".join(
                    f"{name} {height:g} x {width:g} um" for name, (height, width) in extents.items()
                )
                msg = (
                    f"the images of tissue {tissue_id!r} have no common pixel grid: {shown}. Say how "
                    "they lie with set_alignment"
                )
                raise FormatError(msg)
        self._checked.add(tissue_id)


def kind_for(dataset: BaseImagingDataset[Any], kind: str | None) -> str | None:
    """Return which channels are asked of a dataset: only multiplex images have kinds of them."""
    return kind if dataset.modality.kind == "multiplex" else None
