"""A picture of a cohort with all that the cohort can lay over it, each at its micrometre."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from microtome.cohort import (
    CohortLayout,
    Modality,
    open_cell_mask,
    open_tissue_mask,
    panel,
    read_alignments,
    read_parquet,
)
from microtome.coordinates import Resolution
from microtome.errors import FormatError
from microtome.image import MultiscaleImage
from microtome.view import Inventory, Missing, Tissue, find_predictions

from ._cells import read_cell
from ._plane import Plane, corner_of, pixels_to_um, scaling, shifting
from ._slide import (
    CellSource,
    ChannelFacts,
    Layer,
    LayerKind,
    Placed,
    Slide,
    TilingLayer,
    identity_of,
)

__all__ = ["Picture", "open_slide"]


_log = logging.getLogger(__name__)

# Masks whose labels are the numbers of cells, the one first that tables of cells speak of.
_NUMBERED = ("instances", "instances_virtues")


@dataclass(frozen=True, slots=True)
class Picture:
    """A tissue, at the resolution at which it is shown as a modality."""

    tissue: Tissue
    modality: Modality


@dataclass(frozen=True)
class _Frame:
    """The space that the images of a tissue share; see `microtome.cohort.set_alignment`.

    Its origin is the upper left corner of the tissue's first image without an alignment; masks,
    cells and tiles are counted from there. An image that the table of alignments speaks of lies
    where that says, any other as far from the first one as both state.
    """

    inventory: Inventory
    pictures: Sequence[Picture]

    @cached_property
    def alignments(self) -> dict[str, Plane]:
        """Transforms of the tissue's images, by modality."""
        known = read_alignments(self.inventory.layout)
        keys = {p.modality.name: (p.tissue.tissue_id, p.modality.name) for p in self.pictures}
        return {
            name: np.asarray(known[key].augmented_matrix, np.float64)
            for name, key in keys.items()
            if key in known
        }

    @cached_property
    def origin(self) -> tuple[float, float]:
        """The frame's origin (x, y) as the first image counts micrometres."""
        for picture in self.pictures:
            if picture.modality.name not in self.alignments:
                return corner_of(self.image(picture))
        return 0.0, 0.0

    def image(self, picture: Picture) -> MultiscaleImage:
        layout, tissue = self.inventory.layout, picture.tissue
        path = layout.image(picture.modality, tissue.resolution, tissue.tissue_id)
        return MultiscaleImage.open(path)

    def open(self, picture: Picture) -> Placed:
        """Open a picture at its place."""
        image, aligned = self.image(picture), self.alignments.get(picture.modality.name)
        if aligned is not None:
            return _placed(image, aligned @ pixels_to_um(image, (0.0, 0.0)))
        return _placed(image, self._stated(image))

    def on_grid(self, image: MultiscaleImage) -> Placed:
        """Place labels that lie on the grid that tiles are counted on."""
        return _placed(image, pixels_to_um(image, (0.0, 0.0)))

    def predicted(self, image: MultiscaleImage, source: Modality | None) -> Placed:
        """Place a prediction, which lies in the space of the image that it was made from."""
        for picture in self.pictures:
            aligned = self.alignments.get(picture.modality.name)
            if picture.modality == source and aligned is not None:
                x, y = corner_of(self.image(picture))
                own = pixels_to_um(image, corner_of(image))
                return _placed(image, aligned @ shifting(-x, -y) @ own)
        return _placed(image, self._stated(image))

    def _stated(self, image: MultiscaleImage) -> Plane:
        (x, y), (x0, y0) = corner_of(image), self.origin
        return pixels_to_um(image, (x - x0, y - y0))


def open_slide(inventory: Inventory, pictures: Sequence[Picture], picture: Picture) -> Slide:
    """Open a picture.

    Parameters
    ----------
    inventory
        What the cohort holds.
    pictures
        All pictures of the tissue, the reference first.
    picture
        The one to open.

    Raises
    ------
    NotFoundError, FormatError, NoResolutionError
        If the image cannot be read.
    """
    frame = _Frame(inventory, pictures)
    placed = frame.open(picture)
    image = placed.image
    true_colour = (
        picture.modality.kind == "brightfield" and image.nchannels == 3 and image.dtype == np.uint8
    )
    layers: dict[LayerKind, tuple[Layer, ...]] = {
        "masks": tuple(_masks(frame, picture)),
        "cells": tuple(_cells(frame, picture)),
        "predictions": tuple(_predictions(frame, picture)),
    }
    return Slide(
        placed,
        true_colour,
        _channels(inventory, picture, image),
        layers,
        tuple(_tilings(frame, picture)),
        _source(frame, picture, layers["cells"]),
    )


def _source(frame: _Frame, picture: Picture, masks: Sequence[Layer]) -> CellSource | None:
    layout, tissue_id = frame.inventory.layout, picture.tissue.tissue_id
    there = {layer.id for layer in masks}
    for kind in _NUMBERED:
        if kind in there:
            return CellSource(
                kind, lambda cell: read_cell(layout, tissue_id, cell), layout.cells.is_file()
            )
    return None


def _channels(
    inventory: Inventory, picture: Picture, image: MultiscaleImage
) -> tuple[ChannelFacts, ...]:
    names = image.channel_names or ("intensity",)
    if not inventory.layout.channels(picture.modality).is_file():
        return tuple(ChannelFacts(name) for name in names)
    rows = {
        str(r["channel_name"]): r for r in panel(inventory.layout, picture.modality).to_pylist()
    }
    there = [
        ChannelFacts(
            name,
            qc_pass=rows.get(name, {}).get("qc_pass") is not False,
            nuclear=bool(rows.get(name, {}).get("is_nuclear_marker", False)),
        )
        for name in names
    ]
    lacking = [ChannelFacts(name, measured=False) for name in rows if name not in names]
    return (*there, *lacking)


def _resolutions(frame: _Frame, picture: Picture) -> list[Resolution]:
    """Return the resolutions of a cohort, that of the picture first."""
    own = picture.tissue.resolution
    return [own, *(r for r in frame.inventory.resolutions if r != own)]


def _masks(frame: _Frame, picture: Picture) -> list[Layer]:
    layout, tissue_id = frame.inventory.layout, picture.tissue.tissue_id
    for resolution in _resolutions(frame, picture):
        if layout.tissue_mask(resolution, tissue_id).exists():

            def opened(r: Resolution = resolution) -> Placed:
                return frame.on_grid(open_tissue_mask(layout, r, tissue_id))

            return [Layer("tissue", "tissue", opened)]
    return []


def _cells(frame: _Frame, picture: Picture) -> list[Layer]:
    layout, tissue_id = frame.inventory.layout, picture.tissue.tissue_id
    found: dict[str, Layer] = {}
    for resolution in _resolutions(frame, picture):
        for kind in layout.cell_mask_kinds(resolution):
            if kind in found or not layout.cell_mask(resolution, kind, tissue_id).exists():
                continue

            def opened(r: Resolution = resolution, k: str = kind) -> Placed:
                return frame.on_grid(open_cell_mask(layout, r, k, tissue_id))

            names = _names(layout, resolution, kind)
            found[kind] = Layer(kind, kind.replace("_", " "), opened, names)
    return list(found.values())


def _names(layout: CohortLayout, resolution: Resolution, kind: str) -> dict[int, str]:
    """Return what a task's labels mean; the background has no name."""
    path = layout.label_encoder(resolution, kind)
    if kind in _NUMBERED or not path.is_file():
        return {}
    try:
        table = read_parquet(path, ["id", "name"])
    except FormatError as error:  # without names there are numbers
        _log.warning("viewer: %s", error)
        return {}
    rows = table.select(["id", "name"]).to_pylist()
    return {int(row["id"]): str(row["name"]) for row in rows if row["id"]}


def _predictions(frame: _Frame, picture: Picture) -> list[Layer]:
    found: dict[str, Layer] = {}
    for tissue in frame.inventory.tissues:
        if tissue.tissue_id != picture.tissue.tissue_id:
            continue
        several = len(frame.inventory.resolutions) > 1
        for each in find_predictions(frame.inventory, tissue):
            if isinstance(each.image, Missing):  # told by the inventory's log
                continue
            name = f"{each.model} at {tissue.resolution} µm" if several else each.model
            key = f"{each.model}@{tissue.resolution.directory}" if several else each.model
            placed = frame.predicted(each.image, each.source)
            found[key] = Layer(key, name, lambda p=placed: p)
    return list(found.values())


def _tilings(frame: _Frame, picture: Picture) -> list[TilingLayer]:
    found: list[TilingLayer] = []
    tissue_id = picture.tissue.tissue_id
    several = len(frame.inventory.resolutions) > 1
    for resolution in _resolutions(frame, picture):
        for tiling in frame.inventory.tilings.get(resolution, ()):
            count = tiling.count(tissue_id)
            if not count:
                continue
            key = f"{tiling.strategy}-{tiling.size}"
            name = tiling.name
            if several:
                key, name = f"{key}@{resolution.directory}", f"{name} at {resolution} µm"
            y, x = resolution.mpp
            place = scaling(x, y)
            found.append(TilingLayer(key, name, tiling.table, tissue_id, place, count))
    return found


def _placed(image: MultiscaleImage, to_um: Plane) -> Placed:
    place = hashlib.blake2b(to_um.tobytes(), digest_size=6).hexdigest()
    return Placed(image, to_um, f"{identity_of(image)}{place}")
