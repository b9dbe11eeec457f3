"""What cell masks, and tables of cells, were made of."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from microtome.coordinates import Resolution
from microtome.errors import MicrotomeError
from microtome.image import MultiscaleImage

from ._layout import CohortLayout
from ._made_of import Inputs, image_of_tissue
from ._modality import Modality

__all__ = ["cell_mask_inputs", "cells_inputs", "images_of_tissue"]


def images_of_tissue(
    layout: CohortLayout, resolution: Resolution, tissue_id: str, modalities: Sequence[Modality]
) -> dict[str, str | None]:
    """Return the identities of a tissue's images by modality.

    Nobody says of which of them cells were found, so that a change of any is told.
    """
    return {
        modality.name: image_of_tissue(layout, modality, resolution, tissue_id)
        for modality in modalities
    }


def cells_inputs(layout: CohortLayout, tissues: Sequence[str]) -> dict[str, Inputs]:
    """Return what there is of some tissues when their cells are added: images by modality.

    Nothing of a tissue without images that say what they are.
    """
    found: dict[str, Inputs] = {}
    resolutions = layout.resolutions()
    if not resolutions:
        return found
    # What all images are fine enough for.
    coarsest, modalities = resolutions[-1], layout.modalities()
    for tissue_id in tissues:
        # A damaged image is no reason to refuse cells.
        with suppress(MicrotomeError):
            images = images_of_tissue(layout, coarsest, tissue_id, modalities)
            known = {name: image for name, image in images.items() if image is not None}
            if known:
                found[tissue_id] = {"resolution": coarsest.directory, **known}
    return found


def cell_mask_inputs(path: Path) -> Inputs:
    """Return the images, by modality, that there were of the tissue when a mask was added."""
    if path.suffix == ".npz":
        return {}
    noted = MultiscaleImage.open(path).metadata.get("microtome", {}).get("cell_mask", {})
    return dict(noted.get("images") or {})
