"""Exports of a whole cohort: what others keep as one file a slide, one after the other."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from microtome.cohort import CohortLayout, open_cell_mask, read_parquet
from microtome.errors import (
    ExistsError,
    FormatError,
    InvalidInputError,
    NotFoundError,
    UnknownNameError,
)
from microtome.image import MultiscaleImage
from microtome.progress import Progress, silent
from microtome.storage import Draft, replace_file, verify_free

from ._coco import verify_coco, write_coco
from ._cohort_tiles import CohortTiles, TissueImages, source_scale
from ._qupath import Color, write_qupath
from ._qupath_tables import cell_objects, tile_objects
from ._to_spatialdata import to_spatialdata, write_object

__all__ = [
    "each_tissue",
    "export_coco",
    "export_qupath_cells",
    "export_qupath_tiles",
    "export_spatialdata",
    "slide_scales",
]

_log = logging.getLogger(__name__)
_INSTANCES = "instances"
_COCO_JOB = "tiles.json"


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

    def write(tissue: str, path: Path) -> None:
        drawn = tile_objects(
            tiles.tiles, tissue_id=tissue, scale=scales[tissue], classes=classes, colors=colors
        )
        write_qupath(drawn, path, overwrite=overwrite)

    files = {tissue: Path(out) / f"{tissue}.geojson" for tissue in tiles.images}
    return each_tissue(files, write, overwrite=overwrite, progress=progress)


def export_qupath_cells(
    images: TissueImages,
    out: str | os.PathLike[str],
    *,
    kind: Literal["detection", "cell"] = "detection",
    classes: str | None = None,
    colors: Mapping[str, Color] | None = None,
    source_mpp: float | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> list[Path]:
    """Write the outlines of the cells of each tissue as GeoJSON for its slide.

    Parameters
    ----------
    images
        Which tissues; the cells are the cohort's cell masks ``"instances"``, and what is known of
        them its table of cells, where there is one.
    out
        Directory of the files, ``<tissue_id>.geojson``.
    kind, classes, colors
        As of `cell_objects`.
    source_mpp, overwrite, progress
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
    StorageError
        If the disk refuses.
    """
    scales = slide_scales(images, source_mpp)
    masks = {tissue: _cell_mask(images, tissue) for tissue in images}
    cells = _cells_by_tissue(images.layout)

    def write(tissue: str, path: Path) -> None:
        outlined = cell_objects(
            masks[tissue],
            cells=cells(tissue),
            scale=scales[tissue],
            kind=kind,
            classes=classes,
            colors=colors,
        )
        write_qupath(outlined, path, overwrite=overwrite)

    files = {tissue: Path(out) / f"{tissue}.geojson" for tissue in images}
    return each_tissue(files, write, overwrite=overwrite, progress=progress)


def export_coco(
    tiles: CohortTiles,
    out: str | os.PathLike[str],
    *,
    classes: str | None = None,
    progress: Progress = silent,
) -> list[Path]:
    """Write the tiles of each tissue and the cells in them for programs that train on COCO.

    A job that was stopped goes on with the tissues that are missing: beside the JSON file of each
    lies one that says of which tiles it is.

    Parameters
    ----------
    tiles
        Which tiles; the cells are the cohort's cell masks ``"instances"``.
    out
        Directory; that of a tissue in it is called as the tissue.
    classes
        As of `write_coco`: a column of the cohort's table of cells.
    progress
        Called with the tissues done and to do.

    Returns
    -------
    The JSON files.

    Raises
    ------
    ExistsError
        If `out` holds other tiles of a tissue.
    NotFoundError
        If a tissue has no cell mask.
    UnknownNameError, InvalidInputError
        As `write_coco`.
    StorageError
        If the disk refuses.
    """
    masks = {tissue: _cell_mask(tiles.images, tissue) for tissue in tiles.images}
    cells = _cells_by_tissue(tiles.images.layout)

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
    jobs = {tissue: _coco_job(tiles, tissue, classes) for tissue in files}
    missing = {tissue: path for tissue, path in files.items() if not _is_done(path, jobs[tissue])}
    # All of them are looked at before the first is written: what fails late leaves the others.
    for tissue in missing:
        verify_coco(tiles.images[tissue], masks[tissue])
    for tissue, path in missing.items():
        with replace_file(path.with_name(_COCO_JOB)) as temporary:
            text = json.dumps(jobs[tissue], indent=2)
            temporary.write_text(text + "\n", encoding="utf-8")
    each_tissue(missing, write, progress=progress)
    return list(files.values())


def export_spatialdata(
    tiles: CohortTiles,
    out: str | os.PathLike[str],
) -> Path:
    """Write the images, cell masks and tiles of tissues as one SpatialData store.

    The image of a tissue is called as the tissue, its cell mask, where it has one, `<tissue>_cells`,
    its tiles `<tissue>_tiles`; all lie in the system ``"global"``, in micrometres from the upper left
    edge of each image, as in the cohort's tables. What the cohort knows of the cells of these masks
    comes along as the table `table`.

    Parameters
    ----------
    tiles
        Which tissues and tiles.
    out
        Directory of the store, which appears whole; there must be none.

    Returns
    -------
    The directory.

    Raises
    ------
    ExistsError
        If there is something at `out`.
    DependencyError
        If spatialdata is not installed.
    InvalidInputError
        As `to_spatialdata`.
    StorageError
        If the disk refuses.
    """
    images = tiles.images
    labels: dict[str, MultiscaleImage] = {}
    if _INSTANCES in images.layout.cell_mask_kinds(images.resolution):
        for tissue in images:
            # One whose cells were not looked for has none; nothing is made up.
            with contextlib.suppress(NotFoundError):
                labels[f"{tissue}_cells"] = _cell_mask(images, tissue)
    made = to_spatialdata(
        images,
        labels=labels,
        cells=_cells_in(images, labels),
        tiles=tiles.tiles,
        from_edge=True,
    )
    with Draft(out) as draft:
        draft.path.rmdir()  # spatialdata writes where there is nothing
        write_object(made, draft.path)
        draft.publish()
    return Path(out)


def _cells_in(images: TissueImages, labels: Mapping[str, MultiscaleImage]) -> Any:
    """Return what is known of the cells of some masks as a DataFrame, or None."""
    known = _cells_by_tissue(images.layout)
    tables: list[pa.Table] = []
    for tissue in images:
        rows, name = known(tissue), f"{tissue}_cells"
        if rows is None or not rows.num_rows:
            continue
        if name not in labels:
            _log.warning(
                "%s: no cell mask, so what is known of its %d cells stays behind",
                tissue,
                rows.num_rows,
            )
            continue
        if "region" in rows.column_names:
            msg = f"{images.layout.cells} has a column 'region', which names the cells' labels in SpatialData; rename it"
            raise InvalidInputError(msg)
        tables.append(rows.append_column("region", pa.array([name] * rows.num_rows)))
    if not tables:
        return None
    joined = pa.concat_tables(tables)
    return joined.rename_columns(_storable(joined.column_names)).to_pandas()


def _storable(names: list[str]) -> list[str]:
    """Return names as SpatialData takes them.

    Of letters, digits, underscores, dots and hyphens, and no two that differ in capitals only.
    """
    found: list[str] = []
    taken: set[str] = set()
    for name in names:
        plain = "".join(c if c.isalnum() or c in "_.-" else "_" for c in name)
        new, number = plain, 1
        while new.lower() in taken:
            number += 1
            new = f"{plain}_{number}"
        taken.add(new.lower())
        found.append(new)
    other = [f"{old!r} {new!r}" for old, new in zip(names, found, strict=True) if old != new]
    if other:
        _log.info("SpatialData stores these columns of cells by other names: %s", ", ".join(other))
    return found


def _coco_job(tiles: CohortTiles, tissue: str, classes: str | None) -> dict[str, Any]:
    """Return what the pictures of a tissue are of: other tiles are another job."""
    rows = tiles.tiles.rows(tiles.tiles.positions(tissue))
    places = np.stack([rows.tile_id, rows.row, rows.col]).astype("<i8")
    return {
        "format": "microtome-coco",
        "modality": tiles.images.modality.name,
        "resolution": tiles.images.resolution.directory,
        "tile_size": list(tiles.tiles.tile_size),
        "classes": classes,
        "tiles_sha256": hashlib.sha256(places.tobytes()).hexdigest(),
    }


def _is_done(path: Path, job: Mapping[str, Any]) -> bool:
    """Whether the file of a job is there; nothing of another job may be."""
    place = path.with_name(_COCO_JOB)
    if not place.is_file():
        verify_free(path, overwrite=False)
        return False
    try:
        there: Any = json.loads(place.read_text(encoding="utf-8"))
    except ValueError as error:
        msg = f"{place} is damaged: {error}"
        raise FormatError(msg) from error
    if there != job:
        told: dict[str, Any] = there if isinstance(there, dict) else {}
        changed = ", ".join(name for name in job if told.get(name) != job[name]) or "more"
        msg = f"{path.parent} holds other tiles, which differ in {changed}; choose another place"
        raise ExistsError(msg)
    return path.is_file()


# ------------------------------------------------------------------ what they share


def each_tissue(
    files: Mapping[str, Path],
    write: Callable[[str, Path], None],
    *,
    overwrite: bool = False,
    progress: Progress = silent,
) -> list[Path]:
    """Write a file a tissue, once it is known that none is in the way.

    Raises
    ------
    ExistsError
        If there is one, unless it is a file and `overwrite` is true.
    """
    for path in files.values():
        verify_free(path, overwrite=overwrite)
    for done, (tissue, path) in enumerate(files.items(), 1):
        write(tissue, path)
        progress("export", done, len(files))
    return list(files.values())


def slide_scales(images: TissueImages, source_mpp: float | None) -> dict[str, tuple[float, float]]:
    """Return how many pixels of its slide one of each tissue's images is, (y, x).

    Raises
    ------
    NotFoundError
        If nothing says it, and `source_mpp` is None.
    InvalidInputError
        If that is not positive.
    """
    if source_mpp is None:
        return {
            tissue: source_scale(images.layout, images.modality, images.resolution, tissue)
            for tissue in images
        }
    if not np.isfinite(source_mpp) or source_mpp <= 0:
        msg = f"micrometres per pixel of the slides must be positive, got {source_mpp}"
        raise InvalidInputError(msg)
    y, x = images.resolution.mpp
    return dict.fromkeys(images, (y / source_mpp, x / source_mpp))


def _cell_mask(images: TissueImages, tissue: str) -> MultiscaleImage:
    return open_cell_mask(images.layout, images.resolution, _INSTANCES, tissue)


def _cells_by_tissue(layout: CohortLayout) -> Callable[[str], pa.Table | None]:
    """Return what looks up the rows of a tissue in the table of cells; None where there is none."""
    if not layout.cells.is_file():
        return lambda _: None
    table = read_parquet(layout.cells, [])
    if "tissue_id" not in table.column_names:
        msg = f"{layout.cells} has no column tissue_id; it has {', '.join(table.column_names)}"
        raise UnknownNameError(msg)
    names = table["tissue_id"].cast(pa.string())
    return lambda tissue: table.filter(pc.equal(names, tissue))
