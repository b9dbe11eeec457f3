"""`mask`: where the tissue is, stored as labels on the cohort's pixel grid."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.coordinates import Mpp, Resolution
from microtome.errors import ExistsError, InvalidInputError
from microtome.image import MultiscaleImage, begin_image, blocks_of
from microtome.jobs import run_each
from microtome.progress import Progress, silent
from microtome.segmentation import detect_tissue
from microtome.sources import image_from_array

from ._images import (
    is_there,
    open_tissue_image,
    open_tissue_mask,
    tissues_with_images,
)
from ._layout import CohortLayout
from ._made_of import array_identity, changed, image_of_tissue
from ._merge import listed
from ._modality import Modality, parse_modality

__all__ = ["mask", "mask_inputs", "mask_inputs_now"]

_log = logging.getLogger(__name__)

# Glands and vessels are tens of micrometres: 8 um a pixel keeps their outline and is 1/256 of the
# work at 0.5 um.
_COARSE = 8.0
# Pixels of a mask that are held at a time.
_BLOCK = 2048


def mask(
    cohort: str | os.PathLike[str],
    *,
    tissues: Sequence[str] | None = None,
    modality: str | Modality | None = None,
    resolution: float | str | tuple[float, float] | Resolution | None = None,
    method: str = "otsu",
    overwrite: bool = False,
    executor: Executor | None = None,
    progress: Progress = silent,
) -> dict[str, float]:
    """Find the tissue of every slide and store it as labels (1 tissue, 0 background).

    A multiplex image in which no background is told apart from tissue is taken whole, with a warning.

    Detection runs at 8 um a pixel (or the image's own size where that is coarser) and is stored at
    the cohort's resolution, so that a tile and its mask share their pixel grid. A mask says of which
    image it was made: where that has been replaced, `mask` again makes it anew.

    Parameters
    ----------
    cohort
        Directory of the cohort.
    tissues
        Which tissues; None for all.
    modality
        Which image to look at; by default H&E where there is one, then IHC, then multiplex.
    resolution
        Which resolution; may be left out where the cohort has one.
    method
        ``"otsu"``, or ``"whole"`` for regions that were chosen to be tissue; see
        `microtome.segmentation.detect_tissue`.
    overwrite
        Replace masks that are there; otherwise those are kept that were not made of another image
        than there is now.
    executor
        Where the tissues are looked at: any `concurrent.futures` executor, such as that of
        `microtome.jobs.process_pool`; by default here, one after the other.
    progress
        Called with the tissues done and to do.

    Returns
    -------
    Share of each image that is tissue, by tissue id.

    Raises
    ------
    UnknownNameError, InvalidInputError
        If a tissue, modality or resolution is not in the cohort.
    """
    layout = CohortLayout.open(cohort)
    target = layout.resolution(resolution)
    only = [parse_modality(modality)] if modality is not None else None
    chosen = tissues_with_images(layout, target, tissues=tissues, modalities=only)
    tasks = [
        _Task(layout, target, tissue_id, kinds[0], method, overwrite)
        for tissue_id, kinds in chosen.items()
    ]
    shares: dict[str, float] = {}
    uncut: list[str] = []
    empty: list[str] = []
    for done, (task, (share, made)) in enumerate(
        zip(tasks, run_each(_fill, tasks, executor), strict=True), start=1
    ):
        shares[task.tissue_id] = share
        if made and share == 1.0 and method == "otsu" and task.modality.kind == "multiplex":
            uncut.append(task.tissue_id)
        if made and not share:
            empty.append(task.tissue_id)
        progress("mask", done, len(tasks))
    if empty:
        _log.warning(
            "no tissue was found in %d of %d images (%s): they get no tiles and no statistics. If they "
            "are all tissue, method 'whole' says so",
            len(empty),
            len(tasks),
            listed(empty),
        )
    if uncut:
        _log.warning(
            "no background that is clearly darker than tissue in %d of %d multiplex images (%s): all "
            "of each is taken as tissue. If that is right, method 'whole' says so; if not, detect it "
            "on another modality of the tissue (modality), or tile inside annotations",
            len(uncut),
            len(tasks),
            listed(uncut),
        )
    return shares


@dataclass(frozen=True, slots=True)
class _Task:
    """One tissue to find, as it travels to a worker."""

    layout: CohortLayout
    resolution: Resolution
    tissue_id: str
    modality: Modality
    method: str
    overwrite: bool


def _fill(task: _Task) -> tuple[float, bool]:
    """Find a tissue unless that was done; returns its share of the image, and whether it was made."""
    path = task.layout.tissue_mask(task.resolution, task.tissue_id)
    made = not is_there(path) or task.overwrite or _is_stale(task, path)
    if not made:
        _log.info("%s is there already", path)
    else:
        image = open_tissue_image(task.layout, task.modality, task.resolution, task.tissue_id)
        found = _detect(image, task.method, task.modality)
        _store(found, image, path, task)
    return _share(open_tissue_mask(task.layout, task.resolution, task.tissue_id)), made


def _is_stale(task: _Task, path: Path) -> bool:
    """Whether a mask is known to be of another image than there is now."""
    inputs = mask_inputs(path)
    now = mask_inputs_now(task.layout, task.resolution, task.tissue_id, inputs)
    if not changed(inputs, now):
        return False
    _log.warning("%s was made of another image, and is made anew", path)
    return True


def mask_inputs(path: Path) -> dict[str, Any]:
    """Return the modality and the identity of the image that a mask was made of; {} if unknown."""
    if path.suffix == ".npz":
        return {}
    noted = MultiscaleImage.open(path).metadata.get("microtome", {}).get("mask", {})
    return {"modality": noted.get("from"), "image": noted.get("image")} if noted else {}


def mask_inputs_now(
    layout: CohortLayout, resolution: Resolution, tissue_id: str, inputs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the same of the image that there is now."""
    name = inputs.get("modality")
    if name is None:
        return {}
    image = image_of_tissue(layout, parse_modality(name), resolution, tissue_id)
    return {"modality": name, "image": image}


def _detect(
    image: MultiscaleImage, method: str, modality: Modality
) -> tuple[NDArray[np.bool_], Mpp]:
    own = image.require_mpp()
    coarse = Mpp(max(_COARSE, own.y), max(_COARSE, own.x), own.source)
    pixels = image.read_at(mpp=coarse)
    try:
        found = detect_tissue(pixels, method=method, mpp=(coarse.y, coarse.x), kind=modality.kind)
    except InvalidInputError as error:
        msg = f"{image.uri} ({modality}): {error}"
        raise InvalidInputError(msg) from error
    return found, coarse


def _store(
    found: tuple[NDArray[np.bool_], Mpp],
    image: MultiscaleImage,
    path: Path,
    task: _Task,
) -> None:
    tissue, coarse = found
    if path.suffix == ".npz":
        msg = f"the mask of tissue {task.tissue_id!r}, {path}, was made by another tool; remove it first"
        raise ExistsError(msg)
    own, base = image.require_mpp(), image.level(0)
    note = {
        "from": task.modality.name,
        "mpp": [coarse.y, coarse.x],
        "method": task.method,
        "image": image_of_tissue(task.layout, task.modality, task.resolution, task.tissue_id),
        "identity": array_identity(
            tissue, coarse.y, coarse.x, own.y, own.x, base.height, base.width
        ),
    }
    labels = image_from_array(tissue.astype(np.uint8), axes="yx", mpp=coarse)
    with begin_image(
        path,
        dtype=np.uint8,
        shape=(base.height, base.width),
        axes="yx",
        channel_names=None,
        mpp=own,
        kind="labels",
        overwrite=True,
        metadata={"microtome": {"mask": note}},
    ) as made:
        level = made.level(0)
        # Block by block: at full size a mask of a slide may not fit in memory.
        for y, x in blocks_of(level.shape, (_BLOCK, _BLOCK)):
            level[slice(*y), slice(*x)] = labels.read_grid(own, y, x, interpolation="nearest")
        made.build_levels()


def _share(labels: MultiscaleImage) -> float:
    """Return the share of pixels that are tissue, counted at full size."""
    level = labels.level(0)
    inside = sum(
        int(np.count_nonzero(labels.read(0, y, x)))
        for y, x in blocks_of((level.height, level.width), (_BLOCK, _BLOCK))
    )
    return inside / (level.height * level.width)
