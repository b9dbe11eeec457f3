"""`measure_cells`: the table of cells, from the masks in which they are numbered."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from microtome.cohort._cell_inputs import MEAN, cell_mask_of_tissue, images_of_tissue
from microtome.cohort._images import open_tissue_image, tissues_with_images, verify_fits
from microtome.cohort._layout import CohortLayout
from microtome.cohort._made_of import Inputs
from microtome.cohort._modality import Modality, parse_modality
from microtome.cohort._panels import MeasuredChannels, verify_planes
from microtome.coordinates import MicrometreGrid, Resolution
from microtome.errors import ExistsError
from microtome.image import MultiscaleImage, blocks_of
from microtome.progress import Progress, silent

from ._cells import INSTANCES, open_cell_mask
from ._measured_before import MeasuredBefore
from ._put_cells import put_cells

__all__ = ["measure_cells"]

_log = logging.getLogger(__name__)

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

    The table says of which mask and images they are. Tissues whose cells are of those that there are
    now are left as they are; those of which one has been replaced since are measured anew, and the
    table is as if all had been. What others have brought is never lost so: a cell that the mask lacks
    and that has a value of theirs is refused.

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
        Measure all of them, replace values that are there, and remove cells that the masks lack.
    progress
        Called with the tissues done and to do.

    Returns
    -------
    How many cells the masks have.

    Raises
    ------
    NotFoundError
        If a tissue that is to be measured has no such mask.
    FormatError
        If a mask has another shape than its image, or an image other channels than the panel says.
    ExistsError
        If other values are there, or cells that are gone have values that were brought, and
        `overwrite` is false; lists them.
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
    before = MeasuredBefore.read(layout)
    tasks = [
        _task(layout, target, tissue_id, kind, modalities[0], wanted, measured)
        for tissue_id, modalities in chosen.items()
    ]
    own = None if wanted is None else wanted.name
    states = {t.tissue_id: before.state(t.tissue_id, t.made_of, own) for t in tasks}
    todo = [task for task in tasks if overwrite or states[task.tissue_id] != "same"]
    kept = [task.tissue_id for task in tasks if task not in todo]
    if kept:
        _log.info(
            "%d of %d tissues keep their cells, which are of the same masks and images",
            len(kept),
            len(tasks),
        )
    count = sum(before.counts.get(tissue_id, 0) for tissue_id in kept)
    if not todo:
        return count
    tables: list[pa.Table] = []
    for done, task in enumerate(todo, start=1):
        tables.append(_measured(layout, target, task))
        progress("cells", done, len(todo))
    found = _without_empty(pa.concat_tables(tables, promote_options="default"))
    made_of = {task.tissue_id: task.made_of for task in todo}
    anew = {
        tissue_id: before.anew(tissue_id, parts, own, overwrite=overwrite)
        for tissue_id, parts in made_of.items()
        if overwrite or states[tissue_id] == "stale"
    }
    if not overwrite and anew:
        _log.warning(
            "%s: cells are measured anew that were made of %s",
            layout.cells,
            before.told({tissue_id: made_of[tissue_id] for tissue_id in anew}),
        )
    try:
        put_cells(
            layout, found, "the cells measured", overwrite=overwrite, made_of=made_of, anew=anew
        )
    except ExistsError as error:
        why = before.told(made_of)
        if not why:
            raise
        msg = f"cells that are there were made of {why}, which has been replaced since; {error}"
        raise ExistsError(msg) from error
    return count + found.num_rows


@dataclass(frozen=True, slots=True)
class _Task:
    """One tissue to measure."""

    tissue_id: str
    kind: str
    modality: Modality
    """Whose image is opened."""
    names: Sequence[str]
    """Channels that are averaged."""
    made_of: list[Inputs]
    """What its cells are made of: places of each image that there is, means of their own."""


def _task(
    layout: CohortLayout,
    target: Resolution,
    tissue_id: str,
    kind: str,
    modality: Modality,
    wanted: Modality | None,
    measured: MeasuredChannels | None,
) -> _Task:
    about: dict[str, Any] = {"resolution": target.directory, "kind": kind}
    about["cell_mask"] = cell_mask_of_tissue(layout, target, kind, tissue_id)
    every = images_of_tissue(layout, target, tissue_id, layout.modalities())
    images = {each: identity for each, identity in every.items() if identity is not None}
    made_of: list[Inputs] = [{**about, **images}]
    names: Sequence[str] = ()
    if wanted is not None:
        names = (
            open_tissue_image(layout, wanted, target, tissue_id).channel_names or ()
            if measured is None
            else measured.names_of(tissue_id)
        )
        # Brightnesses are of this image and no other.
        own = {wanted.name: images.get(wanted.name)}
        made_of.append({**about, **own, "columns": [f"{MEAN}{name}" for name in names]})
    return _Task(tissue_id, kind, modality, names, made_of)


def _measured(layout: CohortLayout, target: Resolution, task: _Task) -> pa.Table:
    """Open a tissue's mask and image, and measure its cells."""
    mask = open_cell_mask(layout, target, task.kind, task.tissue_id)
    image = open_tissue_image(layout, task.modality, target, task.tissue_id)
    level = image.level(0)
    verify_fits(mask, task.tissue_id, (level.height, level.width))
    if task.names:
        verify_planes(image, task.names, said_by=f"the panel of {task.modality}")
    return _cells(task.tissue_id, mask, image, task.names, target)


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
