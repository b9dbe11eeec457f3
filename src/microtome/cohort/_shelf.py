"""The images of a dataset, opened when first needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from microtome.coordinates import Resolution
from microtome.image import MultiscaleImage

from ._images import open_tissue_image
from ._layout import CohortLayout
from ._modality import Modality

__all__ = ["ImageShelf"]


class ImageShelf(Sequence[MultiscaleImage]):
    """Images by number, each opened at its first use and kept.

    Sent to another process it takes along their places only, and opens them there.

    Parameters
    ----------
    layout, modality, resolution
        Where the images are.
    tissue_ids
        Whose.
    """

    def __init__(
        self,
        layout: CohortLayout,
        modality: Modality,
        resolution: Resolution,
        tissue_ids: Sequence[str],
    ) -> None:
        self._place = layout, modality, resolution
        self._tissue_ids = list(tissue_ids)
        self._open: dict[int, MultiscaleImage] = {}

    @overload
    def __getitem__(self, index: int) -> MultiscaleImage: ...
    @overload
    def __getitem__(self, index: slice) -> ImageShelf: ...
    def __getitem__(self, index: int | slice) -> MultiscaleImage | ImageShelf:
        if isinstance(index, slice):
            return ImageShelf(*self._place, self._tissue_ids[index])
        image = self._open.get(index)
        if image is None:
            image = open_tissue_image(*self._place, self._tissue_ids[index])
            self._open[index] = image
        return image

    def __len__(self) -> int:
        return len(self._tissue_ids)

    def __reduce__(self) -> tuple[type[ImageShelf], tuple[object, ...]]:
        return ImageShelf, (*self._place, self._tissue_ids)
