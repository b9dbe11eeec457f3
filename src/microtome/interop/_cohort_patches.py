"""Tiles of a whole cohort as the coordinates of TRIDENT and CLAM, a file a slide."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from microtome.cohort import tissue_row
from microtome.errors import InvalidInputError, NotFoundError
from microtome.image import MultiscaleImage
from microtome.progress import Progress, silent
from microtome.sources import image_names, open_image

from ._cohort_exports import each_tissue, slide_scales
from ._cohort_tiles import CohortTiles, TissueImages
from ._coordinates_h5 import (
    SlideEdge,
    slide_name,
    write_clam_coordinates,
    write_trident_coordinates,
)
from ._on_image import verify_upright

__all__ = ["export_clam", "export_trident"]


def export_trident(
    tiles: CohortTiles,
    out: str | os.PathLike[str],
    *,
    magnification: float,
    slides: str | os.PathLike[str] | None = None,
    edge: SlideEdge = "overhang",
    overwrite: bool = False,
    progress: Progress = silent,
) -> list[Path]:
    """Write the tiles of each tissue as the coordinates from which TRIDENT extracts features.

    Parameters
    ----------
    tiles
        Which tiles.
    out
        Directory of TRIDENT's job: files go to ``patches/<slide>_patches.h5``.
    magnification
        As of `write_trident_coordinates`, of all slides.
    slides
        Directory of the slides, where they are no longer where they were ingested from.
    edge
        As of `write_trident_coordinates`.
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
        If a slide is not there.
    InvalidInputError
        If tissues are of one slide, or of one of several images in a file, images are aligned, pixels are not square, or as `write_trident_coordinates`.
    StorageError
        If the disk refuses.
    """
    verify_upright(tiles.images, "patches of TRIDENT")
    opened = _slides(tiles.images, slides)
    scales = slide_scales(tiles.images, None)

    def write(tissue: str, path: Path) -> None:
        write_trident_coordinates(
            tiles.tiles,
            path,
            magnification=magnification,
            slide=opened[tissue],
            tissue_id=tissue,
            scale=scales[tissue],
            edge=edge,
            overwrite=overwrite,
        )

    folder = Path(out) / "patches"
    files = {tissue: folder / f"{slide_name(slide)}_patches.h5" for tissue, slide in opened.items()}
    return each_tissue(files, write, overwrite=overwrite, progress=progress)


def export_clam(
    tiles: CohortTiles,
    out: str | os.PathLike[str],
    *,
    level: int = 0,
    slides: str | os.PathLike[str] | None = None,
    edge: SlideEdge = "overhang",
    overwrite: bool = False,
    progress: Progress = silent,
) -> list[Path]:
    """Write the tiles of each tissue as the coordinates that CLAM reads patches by.

    CLAM reads whole pixels of one of the slide's own levels: the side of a patch is rounded to these,
    its place to pixels of the finest level.

    Parameters
    ----------
    tiles
        Which tiles.
    out
        Directory of CLAM's job: files go to ``patches/<slide>.h5``.
    level
        Index of the level of the slides that patches are read from.
    slides, edge, overwrite, progress
        As of `export_trident`.

    Returns
    -------
    The files.

    Raises
    ------
    ExistsError
        If there is a file.
    NotFoundError
        If a slide is not there.
    OutOfRangeError
        If a slide has no such level.
    InvalidInputError
        If tissues are of one slide, or of one of several images in a file, images are aligned, or tiles are not square there.
    StorageError
        If the disk refuses.
    """
    verify_upright(tiles.images, "patches of CLAM")
    opened = _slides(tiles.images, slides)
    scales = slide_scales(tiles.images, None)

    def write(tissue: str, path: Path) -> None:
        write_clam_coordinates(
            tiles.tiles,
            path,
            slide=opened[tissue],
            level=level,
            tissue_id=tissue,
            scale=scales[tissue],
            edge=edge,
            overwrite=overwrite,
        )

    folder = Path(out) / "patches"
    files = {tissue: folder / f"{slide_name(slide)}.h5" for tissue, slide in opened.items()}
    return each_tissue(files, write, overwrite=overwrite, progress=progress)


def _slides(
    images: TissueImages, folder: str | os.PathLike[str] | None
) -> dict[str, MultiscaleImage]:
    """Open the files that tissues were made from."""
    found: dict[str, MultiscaleImage] = {}
    for tissue in images:
        row = tissue_row(images.layout, tissue, images.modality) or {}
        source = row.get("source")
        if not source:
            msg = f"{images.layout.tissues} does not say which file {tissue!r} ({images.modality}) was made from"
            raise NotFoundError(msg)
        place = Path(source) if folder is None else Path(folder) / Path(source).name
        if not place.exists():
            msg = f"{place}, of which {tissue!r} was made, is not there; say in which directory the slides are with --slides (slides=)"
            raise NotFoundError(msg)
        found[tissue] = _slide(place, row, tissue)
    names = [slide_name(slide) for slide in found.values()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        msg = f"several tissues are of a slide called {twice[0]!r}, and a slide has one file of patches; export them apart, with --tissue (tissues=)"
        raise InvalidInputError(msg)
    return found


def _slide(place: Path, row: Mapping[str, Any], tissue: str) -> MultiscaleImage:
    """Open the picture that a file is of; label, macro and thumbnail beside it are no slides."""
    more = (
        "and TRIDENT and CLAM read a file as one slide; export its tiles as webdataset or parquet, or "
        "its image with `microtome export ome-tiff`"
    )
    try:
        slide = open_image(place, mpp=row.get("mpp"))
    except InvalidInputError as error:
        names = image_names(place)
        if len(names) < 2:
            raise
        msg = f"{tissue!r} was made from one of the images of {place} ({', '.join(names)}), {more}"
        raise InvalidInputError(msg) from error
    # A table of somebody else may say neither.
    sides = (row.get("height"), row.get("width"))
    there = slide.level(0)
    if None not in sides and sides != (there.height, there.width):
        msg = (
            f"{tissue!r} was made from a picture of {sides[0]}x{sides[1]} pixels, the slide of {place} "
            f"has {there.height}x{there.width}: it is another image of that file, {more}"
        )
        raise InvalidInputError(msg)
    return slide
