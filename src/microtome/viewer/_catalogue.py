"""What there is to look at: a cohort's tissues, or one image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from microtome.cohort import CohortLayout, Modality, panel
from microtome.coordinates import Mpp
from microtome.errors import InvalidInputError, MicrotomeError, UnknownNameError
from microtome.image import MultiscaleImage
from microtome.sources import open_image
from microtome.view import Inventory, take_inventory

from ._cells import plain
from ._cohort_slides import Picture, open_slide
from ._plane import pixels_to_um
from ._slide import ChannelFacts, Placed, Slide, identity_of

__all__ = ["Catalogue", "catalogue_of"]


class Catalogue(Protocol):
    """What there is to look at."""

    def facts(self) -> dict[str, Any]:
        """Return tissues, modalities and metadata, as JSON has them."""
        ...

    def open(self, tissue_id: str, modality: str) -> Slide:
        """Open a picture; names are looked up, and never become part of a path otherwise.

        Raises
        ------
        UnknownNameError
            If there is no such tissue or modality.
        """
        ...


def catalogue_of(
    path: str | os.PathLike[str],
    *,
    mpp: float | tuple[float, float] | Mpp | None = None,
    image: str | int | None = None,
) -> Catalogue:
    """Look at what lies at a path.

    Parameters
    ----------
    path
        Directory of a cohort, or an image in any format that can be read.
    mpp, image
        Of an image: as for `microtome.open_image`.

    Raises
    ------
    NotFoundError, FormatError, NoResolutionError
        If there is nothing, nothing that can be read, or an image without a pixel size.
    InvalidInputError
        If a pixel size or a name is given for a cohort.
    """
    if CohortLayout(Path(path)).has_begun:
        if mpp is not None or image is not None:
            msg = f"{path} is a cohort, whose images state their pixel sizes: leave out --mpp (mpp=) and --image (image=)"
            raise InvalidInputError(msg)
        return _Cohort(take_inventory(Path(path)))
    opened = open_image(path, mpp=mpp, image=image)
    return _Single(opened, Path(path).name or str(path))


class _Single:
    """One image: one tissue with one modality."""

    def __init__(self, image: MultiscaleImage, title: str) -> None:
        self._title = title
        names = image.channel_names or ("intensity",)
        lowered = tuple(name.lower() for name in names)
        rgb = image.dtype == np.uint8 and lowered in {("red", "green", "blue"), ("r", "g", "b")}
        self._slide = Slide(
            Placed(image, pixels_to_um(image, (0.0, 0.0)), identity_of(image)),
            rgb,
            tuple(ChannelFacts(name) for name in names),
            {},
            (),
        )

    def facts(self) -> dict[str, Any]:
        """Return the image as the only tissue."""
        channels = [channel.name for channel in self._slide.channels]
        return {
            "title": self._title,
            "kind": "image",
            "tissues": [{"tissue_id": "image", "modalities": ["image"], "metadata": {}}],
            "columns": [],
            "modalities": ["image"],
            "panels": {} if self._slide.rgb else {"image": channels},
        }

    def open(self, tissue_id: str, modality: str) -> Slide:
        """Return the image."""
        if (tissue_id, modality) != ("image", "image"):
            msg = f"there is one image here, called 'image', not {tissue_id!r} as {modality!r}"
            raise UnknownNameError(msg)
        return self._slide


@dataclass(frozen=True)
class _Cohort:
    """The tissues of a cohort, each modality at its finest resolution."""

    inventory: Inventory

    @cached_property
    def _pictures(self) -> dict[str, dict[str, Picture]]:
        """Pictures by tissue and modality: the only names that are opened."""
        layout: CohortLayout = self.inventory.layout
        found: dict[str, dict[str, Picture]] = {}
        for tissue in self.inventory.tissues:  # finest resolution first
            for modality in tissue.modalities:
                if layout.image(modality, tissue.resolution, tissue.tissue_id).is_dir():
                    own = found.setdefault(tissue.tissue_id, {})
                    own.setdefault(modality.name, Picture(tissue, modality))
        order = list(dict.fromkeys(str(row["tissue_id"]) for row in self.inventory.rows))
        return {tissue: found[tissue] for tissue in order if tissue in found}

    def facts(self) -> dict[str, Any]:
        """Return the tissues, and the columns that tell them apart."""
        tissues: list[dict[str, Any]] = []
        columns: dict[str, set[str]] = {}
        modalities: dict[str, Modality] = {}
        for tissue_id, pictures in self._pictures.items():
            values: dict[str, Any] = {}
            for picture in pictures.values():
                tissue = picture.tissue
                values |= {k: plain(v) for k, v in tissue.values.items()}
                if tissue.split is not None:
                    values["split"] = tissue.split
                modalities.setdefault(picture.modality.name, picture.modality)
            for name, value in values.items():
                columns.setdefault(name, set()).add(str(value))
            tissues.append(
                {"tissue_id": tissue_id, "modalities": list(pictures), "metadata": values}
            )
        return {
            "title": self.inventory.layout.root.resolve().name,
            "kind": "cohort",
            "tissues": tissues,
            # A column of one value tells nobody apart.
            "columns": [
                name
                for name, known in columns.items()
                if len(known) > 1 or any(name not in t["metadata"] for t in tissues)
            ],
            "modalities": list(modalities),
            "panels": self._panels(list(modalities.values())),
        }

    def _panels(self, modalities: Sequence[Modality]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for modality in modalities:
            if self.inventory.layout.channels(modality).is_file():
                try:
                    rows = panel(self.inventory.layout, modality)
                except MicrotomeError:  # told where a picture of it is opened
                    continue
                found[modality.name] = [str(v) for v in rows["channel_name"].to_pylist()]
        return found

    def open(self, tissue_id: str, modality: str) -> Slide:
        """Open a picture of the table of tissues."""
        if tissue_id not in self._pictures:
            msg = f"this cohort has no pictures of a tissue {tissue_id!r}"
            raise UnknownNameError(msg)
        pictures = self._pictures[tissue_id]
        if modality not in pictures:
            msg = f"tissue {tissue_id!r} is imaged as {', '.join(pictures)}, not as {modality!r}"
            raise UnknownNameError(msg)
        return open_slide(self.inventory, list(pictures.values()), pictures[modality])
