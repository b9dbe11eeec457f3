"""Exports of a whole cohort: what others keep as one file a slide, one after the other."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from microtome.cohort import CohortLayout, open_cell_mask, read_parquet
from microtome.errors import (
    InvalidInputError,
    NotFoundError,
    UnknownNameError,
)
from microtome.image import MultiscaleImage
from microtome.progress import Progress, silent
from microtome.storage import Draft, verify_free

from ._cohort_tiles import CohortTiles, TissueImages, source_scale
from ._to_spatialdata import to_spatialdata, write_object

__all__ = [
    "cell_mask_of",
    "cells_by_tissue",
    "each_tissue",
    "export_spatialdata",
    "slide_scales",
]

_log = logging.getLogger(__name__)
_INSTANCES = "instances"
_Key = TypeVar("_Key")


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
                labels[f"{tissue}_cells"] = cell_mask_of(images, tissue)
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
    known = cells_by_tissue(images.layout)
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


# ------------------------------------------------------------------ what they share


def each_tissue(
    files: Mapping[_Key, Path],
    write: Callable[[_Key, Path], None],
    *,
    overwrite: bool = False,
    progress: Progress = silent,
) -> list[Path]:
    """Write a file a tissue, or an image, once it is known that none is in the way.

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


def cell_mask_of(images: TissueImages, tissue: str) -> MultiscaleImage:
    """Open the cell mask of a tissue.

    Raises
    ------
    NotFoundError, UnknownNameError
        If there is none.
    """
    return open_cell_mask(images.layout, images.resolution, _INSTANCES, tissue)


def cells_by_tissue(layout: CohortLayout) -> Callable[[str], pa.Table | None]:
    """Return what looks up the rows of a tissue in the table of cells; None where there is none."""
    if not layout.cells.is_file():
        return lambda _: None
    table = read_parquet(layout.cells, [])
    if "tissue_id" not in table.column_names:
        msg = f"{layout.cells} has no column tissue_id; it has {', '.join(table.column_names)}"
        raise UnknownNameError(msg)
    names = table["tissue_id"].cast(pa.string())
    return lambda tissue: table.filter(pc.equal(names, tissue))
