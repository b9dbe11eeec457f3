"""Tiles of one tissue: a task that travels to whoever does it, and what comes back."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from microtome.cohort._images import open_tissue_image, open_tissue_mask, verify_fits
from microtome.cohort._layout import CohortLayout
from microtome.cohort._modality import Modality
from microtome.cohort._tables import read_tissues
from microtome.cohort.cells import CellTable
from microtome.coordinates import Resolution
from microtome.errors import InvalidInputError, NotFoundError, UnknownNameError
from microtome.tiling import (
    AreaSet,
    EdgePolicy,
    MaskBands,
    MaskTiling,
    TileSelection,
    TileStats,
    chunks_touched,
    get_cell_tiles,
    open_mask,
    read_areas,
)

__all__ = [
    "Annotations",
    "CellTiling",
    "Chosen",
    "TissueTask",
    "cells_of",
    "choose_tiles",
    "source_mpp",
]

_SUFFIXES = (".geojson", ".json")


@dataclass(frozen=True, slots=True)
class CellTiling:
    """One tile on each cell; as of `get_cell_tiles`."""

    tile_size: tuple[int, int]
    edge: EdgePolicy
    tolerance: float | None


@dataclass(frozen=True, slots=True)
class Annotations:
    """Areas that tiles are restricted to, and where they are kept."""

    path: Path
    """A file of one tissue, or a directory with a file a tissue, called as the tissue."""
    classes: tuple[str, ...] | None
    mpp: float | Mapping[str, float]
    """Micrometres of one unit of the coordinates, or what they are for each tissue."""

    def of_tissue(self, tissue_id: str) -> Path:
        """Return the file of a tissue.

        Raises
        ------
        NotFoundError
            If there is none.
        """
        if self.path.is_file():
            return self.path
        for suffix in _SUFFIXES:
            found = self.path / f"{tissue_id}{suffix}"
            if found.is_file():
                return found
        msg = f"tissue {tissue_id!r} has no annotations: there is no {self.path / tissue_id}.geojson; choose the tissues that have some (--tissue, tissues=)"
        raise NotFoundError(msg)

    def unit(self, tissue_id: str) -> float:
        """Return the micrometres of one unit of a tissue's coordinates."""
        return self.mpp[tissue_id] if isinstance(self.mpp, Mapping) else self.mpp

    def verify(self, tissues: Sequence[str]) -> None:
        """Refuse what is not there, before the first tissue is tiled.

        Raises
        ------
        NotFoundError
            If the path, or the file of a tissue, is not there.
        InvalidInputError
            If one file is given for several tissues.
        """
        if not self.path.exists():
            msg = f"there are no annotations at {self.path}"
            raise NotFoundError(msg)
        if self.path.is_file() and len(tissues) > 1:
            msg = f"{self.path} has the annotations of one tissue, but {len(tissues)} are to be tiled; choose one (--tissue, tissues=), or give a directory with <tissue id>.geojson for each"
            raise InvalidInputError(msg)
        for tissue_id in tissues:
            self.of_tissue(tissue_id)

    def verify_seen(self, seen: Collection[str]) -> None:
        """Refuse a class that no tissue has.

        Raises
        ------
        UnknownNameError
            If there is one.
        """
        unknown = sorted(set(self.classes or ()) - set(seen))
        if unknown:
            there = ", ".join(map(repr, sorted(seen))) or "none with a class"
            msg = f"none of the annotations in {self.path} has the class {', '.join(map(repr, unknown))}; there are {there}"
            raise UnknownNameError(msg)


@dataclass(frozen=True, slots=True, eq=False)
class TissueTask:
    """One tissue to tile, as it travels to a worker."""

    layout: CohortLayout
    resolution: Resolution
    tissue_id: str
    modality: Modality
    tiling: MaskTiling | CellTiling
    align: bool = False
    """Whether tiles shall begin where chunks of the image do."""
    annotations: Annotations | None = None
    cells: tuple[NDArray[np.int64], NDArray[np.float64]] | None = field(default=None)
    """(n,) ids and (n, 2) centres, (y, x) in micrometres."""


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """What came of it."""

    tissue_id: str
    tiles: TileSelection
    stats: TileStats
    classes: frozenset[str] = frozenset()
    """Classes that its annotations have, those that were not asked for too."""


def choose_tiles(task: TissueTask) -> Chosen:
    """Choose the tiles of a tissue, holding no more of its mask than a band.

    Raises
    ------
    NotFoundError
        If the tissue has no mask or, where they are asked for, no annotations or cells.
    FormatError
        If its mask has another shape than its image, or its annotations are no polygons.
    InvalidInputError
        If its annotations reach out of the image, or a cell lies outside it.
    """
    image = open_tissue_image(task.layout, task.modality, task.resolution, task.tissue_id)
    level = image.level(0)
    shape = level.height, level.width
    labels = open_tissue_mask(task.layout, task.resolution, task.tissue_id)
    verify_fits(labels, task.tissue_id, shape)
    mask = open_mask(labels)
    areas = _areas(task, shape)
    if areas is not None:
        drawn = areas
        mask = mask.within(lambda top, bottom: drawn.rows(shape[1], top, bottom))
    chunk = level.array.chunks[-2], level.array.chunks[-1]
    if isinstance(task.tiling, CellTiling):
        tiles, stats = _around_cells(task, task.tiling, mask, areas)
    else:
        tiling = task.tiling.aligned_to(chunk) if task.align else task.tiling
        tiles, stats = tiling.choose(mask)
    stats["chunks_touched"] = chunks_touched(tiles.row, tiles.col, tiles.tile_size, shape, chunk)
    classes = frozenset(areas.all_names) if areas is not None else frozenset[str]()
    return Chosen(task.tissue_id, tiles, stats, classes)


def _areas(task: TissueTask, shape: tuple[int, int]) -> AreaSet | None:
    if task.annotations is None:
        return None
    path = task.annotations.of_tissue(task.tissue_id)
    unit, own = task.annotations.unit(task.tissue_id), task.resolution.mpp
    # A tissue may lack a class; that no tissue has one is found when all are done.
    areas = read_areas(path, classes=task.annotations.classes, missing_ok=True)
    areas = areas.scaled(unit / own[0], unit / own[1])
    areas.verify_inside(shape)
    return areas


def _around_cells(
    task: TissueTask, tiling: CellTiling, mask: MaskBands, areas: AreaSet | None
) -> tuple[TileSelection, TileStats]:
    ids, centres = task.cells or (np.zeros(0, np.int64), np.zeros((0, 2)))
    if areas is not None:
        inside = areas.contains(centres / task.resolution.mpp)
        ids, centres = ids[inside], centres[inside]
    try:
        return get_cell_tiles(
            centres,
            tiling.tile_size,
            mpp=task.resolution.mpp,
            mask=mask,
            cell_ids=ids,
            edge=tiling.edge,
            tolerance=tiling.tolerance,
        )
    except InvalidInputError as error:
        msg = f"tissue {task.tissue_id!r}: {error}"
        raise InvalidInputError(msg) from error


def cells_of(
    layout: CohortLayout, tissues: Sequence[str]
) -> dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Return ids and centres of the cells of some tissues.

    Raises
    ------
    NotFoundError
        If the cohort has no table of cells, or the table no centroids.
    """
    table = CellTable.read(layout, tissues)
    if table.centroids is None:
        msg = f"{layout.cells} has no columns centroid_y and centroid_x (micrometres), so that nothing says where to put the tiles"
        raise NotFoundError(msg)
    ids = table.table["cell_id"].to_numpy().astype(np.int64)
    return {
        tissue_id: (ids[start:stop], table.centroids[start:stop])
        for tissue_id, (start, stop) in table.offsets.items()
    }


def source_mpp(layout: CohortLayout, chosen: Mapping[str, Modality]) -> dict[str, float]:
    """Return the micrometres per pixel of the files that images were made from, by tissue.

    Parameters
    ----------
    layout
        The cohort.
    chosen
        Of each tissue the modality whose image it is.

    Raises
    ------
    NotFoundError
        If the table of tissues does not say it of one.
    """
    table = read_tissues(layout)
    found: dict[str, float] = {}
    if "mpp" in table.column_names:
        for row in table.select(["tissue_id", "modality", "mpp"]).to_pylist():
            tissue_id = str(row["tissue_id"])
            kind = chosen.get(tissue_id)
            if kind is not None and row["modality"] == kind.name and row["mpp"] is not None:
                found[tissue_id] = float(row["mpp"])
    for tissue_id, kind in chosen.items():
        if tissue_id not in found:
            msg = f"{layout.tissues} does not say how large a pixel of the source of {tissue_id!r} ({kind}) is, in which annotations are drawn; say how many micrometres one unit of their coordinates is (annotation_mpp)"
            raise NotFoundError(msg)
    return found
