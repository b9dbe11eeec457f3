"""The images and masks of a dataset, opened when first needed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import overload

from microtome.cohort._images import open_tissue_image, open_tissue_mask, verify_fits
from microtome.cohort._layout import CohortLayout
from microtome.cohort._modality import Modality
from microtome.cohort.cells import open_cell_mask
from microtome.coordinates import Resolution
from microtome.image import MultiscaleImage

__all__ = ["ImageShelf", "OpenCellMask", "OpenImage", "OpenTissueMask"]


@dataclass(frozen=True, slots=True)
class OpenImage:
    """Opens the images of a modality, by tissue."""

    layout: CohortLayout
    modality: Modality
    resolution: Resolution

    def __call__(self, tissue_id: str) -> MultiscaleImage:
        """Open the image of a tissue."""
        return open_tissue_image(self.layout, self.modality, self.resolution, tissue_id)

    def verify_fits(self, labels: MultiscaleImage, tissue_id: str) -> MultiscaleImage:
        """Return labels that lie on the pixel grid of a tissue's image.

        Raises
        ------
        FormatError
            If they have another shape.
        """
        verify_fits(labels, tissue_id, self(tissue_id).level_shape(0)[-2:])
        return labels


@dataclass(frozen=True, slots=True)
class OpenTissueMask:
    """Opens tissue masks, which must fit the images."""

    images: OpenImage

    def __call__(self, tissue_id: str) -> MultiscaleImage:
        """Open the tissue mask of a tissue."""
        of = self.images
        found = open_tissue_mask(of.layout, of.resolution, tissue_id)
        return of.verify_fits(found, tissue_id)


@dataclass(frozen=True, slots=True)
class OpenCellMask:
    """Opens cell masks of a kind, which must fit the images."""

    images: OpenImage
    kind: str

    def __call__(self, tissue_id: str) -> MultiscaleImage:
        """Open the cell mask of a tissue."""
        of = self.images
        found = open_cell_mask(of.layout, of.resolution, self.kind, tissue_id)
        return of.verify_fits(found, tissue_id)


class ImageShelf(Sequence[MultiscaleImage]):
    """Images by number, each opened at its first use and kept.

    Sent to another process it takes along their places only, and opens them there.

    Parameters
    ----------
    opener
        Opens the image of a tissue.
    tissue_ids
        The tissues, in the order of the numbers.
    """

    def __init__(self, opener: Callable[[str], MultiscaleImage], tissue_ids: Sequence[str]) -> None:
        self._opener = opener
        self._tissue_ids = list(tissue_ids)
        self._open: dict[int, MultiscaleImage] = {}
        self._opening: dict[int, threading.Lock] = {}

    @overload
    def __getitem__(self, index: int) -> MultiscaleImage: ...
    @overload
    def __getitem__(self, index: slice) -> ImageShelf: ...
    def __getitem__(self, index: int | slice) -> MultiscaleImage | ImageShelf:
        if isinstance(index, slice):
            return ImageShelf(self._opener, self._tissue_ids[index])
        image = self._open.get(index)
        return self._opened(index) if image is None else image

    def _opened(self, index: int) -> MultiscaleImage:
        # One lock an image: of a store each would be asked for by several threads at once, and those
        # of others need not wait.
        with self._opening.setdefault(index, threading.Lock()):
            image = self._open.get(index)
            if image is None:
                image = self._open[index] = self._opener(self._tissue_ids[index])
        self._opening.pop(index, None)
        return image

    def __len__(self) -> int:
        return len(self._tissue_ids)

    def __reduce__(self) -> tuple[type[ImageShelf], tuple[object, ...]]:
        return ImageShelf, (self._opener, self._tissue_ids)
