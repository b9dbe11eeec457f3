"""Tiles that were chosen elsewhere, in QuPath, TRIDENT or CLAM, as a tiling of a cohort."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from microtome.cohort import CohortLayout, Modality, open_tiles, read_alignments, size_name
from microtome.coordinates import Resolution
from microtome.errors import ExistsError, InvalidInputError
from microtome.storage import locked
from microtome.tiling import TileTable, object_type, read_features

from ._cohort_exports import slide_scales
from ._cohort_tiles import TissueImages
from ._coordinates_h5 import read_h5_coordinates
from ._on_image import moved_objects, onto_image, verify_upright
from ._qupath import QuPathKind, read_qupath, verify_kinds
from ._qupath_tables import tiles_of_objects

__all__ = ["add_tiles"]

_QUPATH, _HDF5 = (".geojson", ".json"), (".h5", ".hdf5")


def add_tiles(  # noqa: PLR0913 - a file, what it is of, and how it is read
    cohort: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    tissue_id: str,
    strategy: str | None = None,
    modality: str | Modality | None = None,
    resolution: float | str | tuple[float, float] | Resolution | None = None,
    source_mpp: float | None = None,
    kind: QuPathKind = "tile",
    overwrite: bool = False,
) -> TileTable:
    """Put the tiles that another program has of a slide into a cohort, as a tiling of its own.

    Tilings of `microtome.tile` are never touched: they have statistics, which these do not.

    Parameters
    ----------
    cohort
        Directory of the cohort.
    path
        Tiles of QuPath, ``.geojson``; or coordinates of
        TRIDENT or CLAM, ``.h5``. All are in pixels of the slide that the tissue was made from.
    tissue_id
        The tissue.
    strategy
        Name of the tiling; ``"qupath"``, ``"trident"`` or ``"clam"`` by default.
    modality
        As which the slide was imaged; by default the tissue's first, H&E before IHC before
        multiplex.
    resolution
        Whose pixels the tiles shall count; may be left out where the cohort has one.
    source_mpp
        Micrometres per pixel of the slide; by default as the cohort knows it.
    kind
        Which objects of QuPath are the tiles; ``"annotation"`` for rectangles that were drawn.
    overwrite
        Whether tiles that this tissue has in the tiling are replaced; those of others stay.

    Returns
    -------
    The tiling, with the tiles of all its tissues.

    Raises
    ------
    NotFoundError
        If there is no such file, or nothing says how large a pixel of the slide is.
    ExistsError
        If the tissue has tiles in the tiling and `overwrite` is false, or `tile` made it.
    FormatError
        If the file is damaged.
    InvalidInputError
        If the file is of neither kind, there is no tile, tiles differ in size, a tile is no whole
        number of pixels at the resolution, or shows nothing of the image; or if a file of TRIDENT or
        CLAM is of an image that lies in its tissue by an alignment.
    UnknownNameError
        If the cohort has no image of the tissue, or QuPath no such kind of objects.
    StorageError
        If the disk refuses.
    """
    verify_kinds([kind])
    images = TissueImages.of_cohort(
        cohort, modality=modality, resolution=resolution, tissues=[tissue_id]
    )
    layout, target = images.layout, images.resolution
    table = _read(Path(path), images, tissue_id, strategy, source_mpp, kind)
    height, width = images[tissue_id].level_shape(0)[-2:]
    (top, left), (bottom, right) = _box_in_frame(images, tissue_id, (height, width))
    rows = table.rows()
    outside = (
        (rows.row >= bottom)
        | (rows.col >= right)
        | (rows.row + table.tile_size[0] <= top)
        | (rows.col + table.tile_size[1] <= left)
    )
    if outside.any():
        at = int(np.flatnonzero(outside)[0])
        msg = f"{path}: tile {at}, at row {rows.row[at]} and col {rows.col[at]}, shows nothing of the {height} x {width} pixels of {tissue_id!r}; is it a file of this slide?"
        raise InvalidInputError(msg)
    place = layout.tile_coordinates(target, table.strategy, size_name(table.tile_size))
    with locked(layout.lock, what=f"the cohort {layout.root}"):
        if layout.tile_stats(target, table.strategy, size_name(table.tile_size)).is_file():
            msg = f"{place} was made by `microtome tile`; name another strategy"
            raise ExistsError(msg)
        made = _joined(layout, target, table, place, overwrite=overwrite)
        made.write(place)
    return made


def _box_in_frame(
    images: TissueImages, tissue_id: str, shape: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the first and the last corner (row, col) of what an image covers, in pixels of the frame."""
    corners = np.array([(x, y, 1) for x in (0, shape[1]) for y in (0, shape[0])], np.float64)
    matrix = onto_image(images, tissue_id, (1.0, 1.0), read_alignments(images.layout))
    if matrix is not None:
        corners = corners @ np.linalg.inv(matrix).T
    return corners[:, 1::-1].min(axis=0), corners[:, 1::-1].max(axis=0)


def _read(
    path: Path,
    images: TissueImages,
    tissue_id: str,
    strategy: str | None,
    source_mpp: float | None,
    kind: QuPathKind,
) -> TileTable:
    scale = slide_scales(images, source_mpp)[tissue_id]
    name = images.resolution.directory
    if path.suffix.lower() in _QUPATH:
        objects = read_qupath(path, kinds=[kind])
        if not objects:
            msg = f"{path} holds no {kind}{_held(path, kind)}"
            raise InvalidInputError(msg)
        matrix = onto_image(images, tissue_id, scale, read_alignments(images.layout))
        return tiles_of_objects(
            moved_objects(
                objects, None if matrix is None else np.asarray(np.linalg.inv(matrix), np.float64)
            ),
            tissue_id=tissue_id,
            scale=scale,
            strategy=strategy or "qupath",
            resolution=name,
        )
    if path.suffix.lower() in _HDF5:
        verify_upright(images, "patches of TRIDENT and CLAM")
        found = read_h5_coordinates(path, tissue_id=tissue_id, scale=scale, resolution=name)
        if not len(found):
            msg = f"{path} has no tile"
            raise InvalidInputError(msg)
        return TileTable(found.table, found.tile_size, strategy or found.strategy, name)
    msg = f"{path} is neither GeoJSON ({', '.join(_QUPATH)}) nor HDF5 ({', '.join(_HDF5)})"
    raise InvalidInputError(msg)


def _held(path: Path, kind: str) -> str:
    """Say what a file of QuPath holds instead of objects of a kind."""
    counts = Counter(object_type(feature) or "annotation" for feature in read_features(path))
    if not counts:
        return ", nor any other object"
    held = " and ".join(f"{count} of kind {name}" for name, count in counts.most_common())
    return (
        f", but {held}; take rectangles of another kind for tiles with --kind (kind=), or make them "
        f"{kind}s in QuPath"
    )


def _joined(
    layout: CohortLayout, resolution: Resolution, table: TileTable, place: Path, *, overwrite: bool
) -> TileTable:
    """Return the tiling with the tiles of one tissue in place of those that it had."""
    if not place.is_file():
        return table
    before = open_tiles(layout, resolution, table.strategy, table.tile_size)
    (tissue,) = table.tissue_ids
    if tissue in before.tissue_ids and not overwrite:
        msg = f"{place} has tiles of {tissue!r}; replace them with --overwrite (overwrite=True) or name another strategy"
        raise ExistsError(msg)
    others = pc.not_equal(before.table["tissue_id"].cast(pa.string()), tissue)
    kept = TileTable(
        before.table.filter(others), before.tile_size, before.strategy, before.resolution
    )
    return TileTable.concat([kept, table]) if len(kept) else table
