"""`measure_cells`: the table of cells, from the masks in which they are numbered."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from microtome.cohort._cell_inputs import (
    ABOUT,
    MEAN,
    cell_mask_of_tissue,
    cells_parts,
    images_of_tissue,
)
from microtome.cohort._images import open_tissue_image, tissues_with_images, verify_fits
from microtome.cohort._layout import CohortLayout
from microtome.cohort._made_of import Inputs, changed, noted_inputs, told_change
from microtome.cohort._modality import Modality, parse_modality
from microtome.cohort._tables import MeasuredChannels, read_parquet, write_parquet
from microtome.coordinates import MicrometreGrid, Resolution
from microtome.errors import ExistsError
from microtome.image import MultiscaleImage, blocks_of
from microtome.progress import Progress, silent
from microtome.storage import locked

from ._cells import INSTANCES, open_cell_mask
from ._put_cells import put_cells

__all__ = ["measure_cells"]

# Pixels of a mask, and of its image, that are held at a time, in each axis.
_BLOCK = 1024


def measure_cells(
    cohort: str | os.PathLike[str],
    *,
    tissues: Sequence[str] | None = None,
    kind: str = INSTANCES,
    modality: str | Modality | None = None,
    resolution: float | str | tuple[float, float] | Resolution | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> int:
    """Fill the table of cells from the cell masks: where each cell lies, how large, how bright.

    Masks and images are read once, block by block. Columns are `centroid_y` and `centroid_x`, the
    mean of the middles of a cell's pixels in micrometres from the upper left edge of the image, and
    `area_um2`; with a modality `mean_<channel>` of each channel that the tissue measured.

    Parameters
    ----------
    cohort
        Directory of the cohort.
    tissues
        Which; None for all that have an image. Each must have a mask.
    kind
        Of the masks in which each cell has a number.
    modality
        Whose channels are averaged over each cell; None for none.
    resolution
        Whose grid; may be left out where the cohort has one.
    overwrite
        Replace values that are there, and remove cells of these tissues that their masks lack.
    progress
        Called with the tissues done and to do.

    Returns
    -------
    How many cells the masks have.

    Raises
    ------
    NotFoundError
        If a tissue has no such mask.
    FormatError
        If a mask has another shape than its image.
    ExistsError
        If other values are there and `overwrite` is false; lists them.
    UnknownNameError
        If there is no such tissue, modality or kind of mask.
    """
    layout = CohortLayout.open(cohort)
    target = layout.resolution(resolution)
    wanted = None if modality is None else parse_modality(modality)
    only = None if wanted is None else [wanted]
    chosen = tissues_with_images(layout, target, tissues=tissues, modalities=only)
    measured = (
        MeasuredChannels.read(layout, wanted)
        if wanted is not None and wanted.kind == "multiplex"
        else None
    )
    tables: list[pa.Table] = []
    made_of: dict[str, list[Inputs]] = {}
    for done, (tissue_id, modalities) in enumerate(chosen.items(), start=1):
        mask = open_cell_mask(layout, target, kind, tissue_id)
        image = open_tissue_image(layout, modalities[0], target, tissue_id)
        level = image.level(0)
        verify_fits(mask, tissue_id, (level.height, level.width))
        names: Sequence[str] = ()
        if wanted is not None:
            names = image.channel_names or () if measured is None else measured.names_of(tissue_id)
        tables.append(_cells(tissue_id, mask, image, names, target))
        about: dict[str, str | None] = {"resolution": target.directory, "kind": kind}
        about["cell_mask"] = cell_mask_of_tissue(layout, target, kind, tissue_id)
        every = images_of_tissue(layout, target, tissue_id, layout.modalities())
        images = {each: identity for each, identity in every.items() if identity is not None}
        made_of[tissue_id] = [{**about, **images}]
        if wanted is not None:
            # Brightnesses are of this image and no other.
            means = [f"{MEAN}{name}" for name in names]
            own = {wanted.name: images.get(wanted.name)}
            made_of[tissue_id].append({**about, **own, "columns": means})
        progress("cells", done, len(chosen))
    found = _without_empty(pa.concat_tables(tables, promote_options="default"))
    if overwrite:
        _remove_others(layout, list(chosen), found)
    try:
        put_cells(layout, found, "the cells measured", overwrite=overwrite, made_of=made_of)
    except ExistsError as error:
        why = _replaced(layout, made_of)
        if not why:
            raise
        msg = f"cells that are there were made of {why}, which has been replaced since; {error}"
        raise ExistsError(msg) from error
    return found.num_rows


def _cells(
    tissue_id: str,
    mask: MultiscaleImage,
    image: MultiscaleImage,
    names: Sequence[str],
    resolution: Resolution,
) -> pa.Table:
    """Measure the cells of one tissue."""
    level = mask.level(0)
    ids: list[NDArray[np.int64]] = []
    sums: list[NDArray[np.float64]] = []
    for y, x in blocks_of((level.height, level.width), (_BLOCK, _BLOCK)):
        labels = np.asarray(mask.read(0, y, x)).reshape(y[1] - y[0], x[1] - x[0])
        rows, columns = np.nonzero(labels)
        if not rows.size:
            continue
        cells, place = np.unique(labels[rows, columns].astype(np.int64), return_inverse=True)
        weights = [np.ones(rows.size), *np.array([rows + y[0], columns + x[0]], np.float64)]
        if names:
            pixels = np.asarray(image.read(0, y, x)).reshape(len(names), *labels.shape)
            weights += list(pixels[:, rows, columns].astype(np.float64))
        ids.append(cells)
        each_sum = [np.bincount(place, each, cells.size) for each in weights]
        sums.append(np.stack(each_sum, axis=1).astype(np.float64))
    cells, place = np.unique(np.concatenate([np.zeros(0, np.int64), *ids]), return_inverse=True)
    total = np.zeros((cells.size, 3 + len(names)))
    # A cell may lie in several blocks.
    np.add.at(total, place, np.concatenate([np.zeros((0, total.shape[1])), *sums]))
    count = total[:, 0]
    middles = MicrometreGrid.from_mpp(resolution.mpp).middles(total[:, 1:3] / count[:, None])
    return pa.table(
        {
            "tissue_id": pa.array([tissue_id] * cells.size, pa.string()),
            "cell_id": cells,
            "centroid_y": middles[:, 0],
            "centroid_x": middles[:, 1],
            "area_um2": count * float(np.prod(resolution.mpp)),
            **{f"{MEAN}{name}": total[:, 3 + c] / count for c, name in enumerate(names)},
        }
    )


def _without_empty(found: pa.Table) -> pa.Table:
    """Return the cells without means of channels that only tissues without a cell measured."""
    if not found.num_rows:
        return found
    names = found.column_names
    return found.select([n for n in names if found[n].null_count < found.num_rows])


def _replaced(layout: CohortLayout, made_of: Mapping[str, Sequence[Inputs]]) -> str:
    """Say of which other images and masks the cells in the table were made; nothing of the same."""
    noted = noted_inputs(read_parquet(layout.cells, []).schema.metadata)
    stale: dict[str, list[str]] = {}
    for tissue, fresh in made_of.items():
        now = {name: each for part in fresh for name, each in part.items() if name not in ABOUT}
        parts = cells_parts(noted.get(tissue, {}))
        names = [name for part in parts for name in changed(part, now)]
        if names:
            stale[tissue] = list(dict.fromkeys(n for n in names if n not in ABOUT))
    return told_change(stale)


def _remove_others(layout: CohortLayout, tissues: Sequence[str], found: pa.Table) -> None:
    """Remove cells of these tissues that were not found."""
    if not layout.cells.is_file():
        return
    with locked(layout.lock, what=f"the cohort {layout.root}"):
        old = read_parquet(layout.cells, ["tissue_id", "cell_id"])
        names = old["tissue_id"].cast(pa.string())
        mine = pc.is_in(names, value_set=pa.array(tissues, pa.string()))
        there = set(zip(found["tissue_id"].to_pylist(), found["cell_id"].to_pylist(), strict=True))
        rows = zip(names.to_pylist(), old["cell_id"].to_pylist(), mine.to_pylist(), strict=True)
        keep = [not own or (tissue, cell) in there for tissue, cell, own in rows]
        if not all(keep):
            write_parquet(old.filter(pa.array(keep)), layout.cells)
