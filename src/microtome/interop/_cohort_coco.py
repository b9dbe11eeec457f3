"""Tiles of a whole cohort and the cells in them as COCO has them, a directory a tissue."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from microtome.errors import ExistsError
from microtome.image import MultiscaleImage
from microtome.progress import Progress, silent
from microtome.storage import verify_free

from ._coco import verify_coco, write_coco
from ._cohort_exports import cell_mask_of, cells_by_tissue, each_tissue
from ._cohort_tiles import CohortTiles
from ._exported_from import (
    cells_identity,
    differences,
    labels_identity,
    picture_identity,
    places_identity,
    read_record,
    write_record,
)

__all__ = ["export_coco"]

_RECORD = "tiles.json"
_WORDS = {
    "tiles": "tiles at other places",
    "image": "another image",
    "cell_mask": "another cell mask",
    "cells": "other classes of cells",
}


def export_coco(
    tiles: CohortTiles,
    out: str | os.PathLike[str],
    *,
    classes: str | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> list[Path]:
    """Write the tiles of each tissue and the cells in them for programs that train on COCO.

    A job that was stopped goes on with the tissues that are missing: beside the JSON file of each
    lies one that says of which tiles, image, cell mask and classes it is.

    Parameters
    ----------
    tiles
        Which tiles; the cells are the cohort's cell masks ``"instances"``.
    out
        Directory; that of a tissue in it is called as the tissue.
    classes
        As of `write_coco`: a column of the cohort's table of cells.
    overwrite
        Whether what is there of other tiles, or of what was replaced in the cohort since, is
        written anew; what is as it would be now stays.
    progress
        Called with the tissues done and to do.

    Returns
    -------
    The JSON files.

    Raises
    ------
    ExistsError
        If `out` holds other tiles of a tissue, or of another image, cell mask or classes, and
        `overwrite` is false; nothing is written then.
    NotFoundError
        If a tissue has no cell mask.
    UnknownNameError, InvalidInputError
        As `write_coco`.
    StorageError
        If the disk refuses.
    """
    masks = {tissue: cell_mask_of(tiles.images, tissue) for tissue in tiles.images}
    cells = cells_by_tissue(tiles.images.layout)

    def write(tissue: str, path: Path) -> None:
        write_coco(
            tiles.images[tissue],
            masks[tissue],
            tiles.tiles,
            path.parent,
            tissue_id=tissue,
            cells=cells(tissue),
            classes=classes,
        )

    files = {tissue: Path(out) / tissue / "annotations.json" for tissue in tiles.images}
    records = {
        tissue: _record(tiles, tissue, masks[tissue], cells(tissue), classes) for tissue in files
    }
    missing = {
        tissue: path
        for tissue, path in files.items()
        if not _is_done(path, records[tissue], overwrite=overwrite)
    }
    # All of them are looked at before the first is written: what fails late leaves the others.
    for tissue in missing:
        verify_coco(tiles.images[tissue], masks[tissue])
    for tissue, path in missing.items():
        # What is stale goes first: a job that is stopped leaves nothing that passes as new.
        path.unlink(missing_ok=True)
        _remove_others(path.parent / "images", tissue, tiles)
        write_record(path.with_name(_RECORD), records[tissue])
    each_tissue(missing, write, progress=progress)
    return list(files.values())


def _record(
    tiles: CohortTiles,
    tissue: str,
    mask: MultiscaleImage,
    cells: pa.Table | None,
    classes: str | None,
) -> dict[str, Any]:
    """Return what the pictures of a tissue are of, and the objects in them."""
    return {
        "format": "microtome-coco",
        "modality": tiles.images.modality.name,
        "resolution": tiles.images.resolution.directory,
        "tile_size": list(tiles.tiles.tile_size),
        "classes": classes,
        "tiles": places_identity(tiles.tiles.for_tissue(tissue)),
        "image": picture_identity(tiles.images[tissue]),
        "cell_mask": labels_identity(mask),
        "cells": cells_identity(cells, classes),
    }


def _is_done(path: Path, record: Mapping[str, Any], *, overwrite: bool) -> bool:
    """Whether the file of a job is there; what is of another one is refused, or is none."""
    there = read_record(path.with_name(_RECORD))
    if there is None:
        verify_free(path, overwrite=overwrite)
        return False
    other = differences(there, record, _WORDS)
    if other and not overwrite:
        msg = (
            f"{path.parent} was exported of something else, which differs in: {other}; write it anew "
            "with --overwrite (overwrite=True), or choose another place"
        )
        raise ExistsError(msg)
    return path.is_file() and not other


def _remove_others(folder: Path, tissue: str, tiles: CohortTiles) -> None:
    """Remove pictures of tiles that are none any more."""
    ids = tiles.tiles.for_tissue(tissue).rows().tile_id.tolist()
    names = {f"{tissue}_{number}.png" for number in ids}
    for path in folder.glob("*.png"):
        if path.name.startswith(f"{tissue}_") and path.name not in names:
            path.unlink()
