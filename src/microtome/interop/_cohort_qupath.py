"""Tiles and cells of a whole cohort for QuPath: a GeoJSON file an image, in the pixels of its slide."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from microtome.cohort import read_alignments
from microtome.errors import InvalidInputError
from microtome.progress import Progress, silent

from ._cohort_exports import cell_mask_of, cells_by_tissue, each_tissue, slide_scales
from ._cohort_tiles import CohortTiles, TissueImages
from ._on_image import moved_objects, onto_image
from ._qupath import Color, write_qupath
from ._qupath_tables import cell_objects, tile_objects

__all__ = ["export_qupath_cells", "export_qupath_tiles"]


def export_qupath_tiles(
    tiles: CohortTiles,
    out: str | os.PathLike[str],
    *,
    classes: str | None = None,
    colors: Mapping[str, Color] | None = None,
    source_mpp: float | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> list[Path]:
    """Write the tiles of each tissue as GeoJSON for the slide that the tissue was made from.

    Tiles are counted in the tissue's frame; on an image that lies in it by an alignment they are drawn
    where they lie on it, turned if need be.

    Parameters
    ----------
    tiles
        Which tiles.
    out
        Directory of the files, ``<tissue_id>.geojson``.
    classes, colors
        As of `tile_objects`.
    source_mpp
        Micrometres per pixel of the slides; by default as the cohort knows it.
    overwrite
        Whether files that are there are replaced; else none is written if one is there.
    progress
        Called with the tissues done and to do.

    Returns
    -------
    The files.

    Raises
    ------
    ExistsError
        If there is a file.
    NotFoundError
        If nothing says how large a pixel of a slide is.
    UnknownNameError
        If there is no column of the classes.
    StorageError
        If the disk refuses.
    """
    scales = slide_scales(tiles.images, source_mpp)
    known = read_alignments(tiles.images.layout)

    def write(tissue: str, path: Path) -> None:
        drawn = tile_objects(
            tiles.tiles, tissue_id=tissue, scale=scales[tissue], classes=classes, colors=colors
        )
        matrix = onto_image(tiles.images, tissue, scales[tissue], known)
        write_qupath(moved_objects(drawn, matrix), path, overwrite=overwrite)

    files = {tissue: Path(out) / f"{tissue}.geojson" for tissue in tiles.images}
    return each_tissue(files, write, overwrite=overwrite, progress=progress)


def export_qupath_cells(
    images: TissueImages | Sequence[TissueImages],
    out: str | os.PathLike[str],
    *,
    kind: Literal["detection", "cell"] = "detection",
    classes: str | None = None,
    colors: Mapping[str, Color] | None = None,
    source_mpp: float | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> list[Path]:
    """Write the outlines of the cells of each tissue as GeoJSON for its slides.

    Masks are counted in the tissue's frame; on an image that lies in it by an alignment cells are
    outlined where they lie on it.

    Parameters
    ----------
    images
        Which images, of one modality or, as `TissueImages.of_each_modality` finds them, of several; the
        cells are the cohort's cell masks ``"instances"``, and what is known of them its table of
        cells, where there is one.
    out
        Directory of the files, ``<tissue_id>.geojson``; of several modalities
        ``<modality>/<tissue_id>.geojson``.
    kind, classes, colors
        As of `cell_objects`.
    source_mpp
        As of `export_qupath_tiles`; of images of one modality.
    overwrite, progress
        As of `export_qupath_tiles`.

    Returns
    -------
    The files.

    Raises
    ------
    ExistsError
        If there is a file.
    NotFoundError
        If a tissue has no cell mask, or nothing says how large a pixel of its slide is.
    UnknownNameError
        If the cohort has no cell masks, or no column of the classes.
    InvalidInputError
        If there are no images, or one size of pixels is stated for slides of several modalities.
    StorageError
        If the disk refuses.
    """
    groups = [images] if isinstance(images, TissueImages) else list(images)
    if not groups:
        msg = "no images to draw cells on; take those of TissueImages.of_each_modality"
        raise InvalidInputError(msg)
    if source_mpp is not None and len(groups) > 1:
        names = ", ".join(str(group.modality) for group in groups)
        msg = f"{source_mpp} um per pixel are those of slides of one modality, and these are {names}; say which with --modality (modality=)"
        raise InvalidInputError(msg)
    scales = [slide_scales(group, source_mpp) for group in groups]
    masks = [{tissue: cell_mask_of(group, tissue) for tissue in group} for group in groups]
    files = {
        (at, tissue): Path(out)
        / (group.modality.name if len(groups) > 1 else "")
        / f"{tissue}.geojson"
        for at, group in enumerate(groups)
        for tissue in group
    }
    cells = cells_by_tissue(groups[0].layout)
    known = read_alignments(groups[0].layout)

    def write(image: tuple[int, str], path: Path) -> None:
        at, tissue = image
        outlined = cell_objects(
            masks[at][tissue],
            cells=cells(tissue),
            scale=scales[at][tissue],
            kind=kind,
            classes=classes,
            colors=colors,
        )
        matrix = onto_image(groups[at], tissue, scales[at][tissue], known)
        write_qupath(moved_objects(outlined, matrix), path, overwrite=overwrite)

    return each_tissue(files, write, overwrite=overwrite, progress=progress)
