"""Whether cells that somebody brings are in the cell masks that a cohort has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from microtome.cohort._cell_inputs import BROUGHT_OF
from microtome.cohort._images import is_there, open_labels
from microtome.cohort._layout import CohortLayout
from microtome.errors import InvalidInputError, MicrotomeError
from microtome.image import MultiscaleImage, blocks_of

__all__ = ["verify_in_masks"]

# Larger masks are left to `validate`, which reads them when it is asked to: this many pixels take
# about two seconds.
_PIXELS = 1 << 28
_BLOCK = 2048
# Up to this a label is looked up in a table of bytes.
_TABLE = 1 << 27


def verify_in_masks(layout: CohortLayout, given: pa.Table, place: str) -> None:
    """Refuse cells that are in none of the `instances` masks of their tissue.

    Tissues without a mask, or with one that is very large or damaged, are not looked at. Cells that
    a mask lost when it was put on the pixels of the cohort are known by their number.

    Parameters
    ----------
    layout
        The cohort.
    given
        Cells with `tissue_id` and `cell_id`.
    place
        Where they come from, for the message.

    Raises
    ------
    InvalidInputError
        If there are such cells; names the first.
    """
    codes: Any = given["tissue_id"].combine_chunks().dictionary_encode()
    number, ids = codes.indices.to_numpy(), given["cell_id"].to_numpy().astype(np.int64)
    for code, tissue in enumerate(codes.dictionary.to_pylist()):
        mine = np.unique(ids[number == code])
        try:
            lost, mask = _not_in_masks(layout, tissue, mine)
        except MicrotomeError:
            continue  # a damaged mask is no reason to refuse cells, and `validate` tells of it
        if lost.size:
            more = f" and {lost.size - 1} more of its {mine.size} cells" if lost.size > 1 else ""
            are = "are" if more else "is"
            msg = f"{place}: cell {lost[0]} of tissue {tissue!r}{more} {are} not in its cell mask, {mask}: are table and mask of one segmentation? Leave such cells out, or replace the mask first: `microtome cohort add-mask --overwrite`"
            raise InvalidInputError(msg)


def _not_in_masks(
    layout: CohortLayout, tissue: str, ids: NDArray[np.int64]
) -> tuple[NDArray[np.int64], str]:
    """Return which of some cells are in no mask of a tissue, and where one of the masks is."""
    lost, told = ids, ""
    for resolution in reversed(layout.resolutions()):
        path = layout.cell_mask(resolution, BROUGHT_OF, tissue)
        if not lost.size or not is_there(path):
            continue
        labels = open_labels(path, resolution)
        level = labels.level(0)
        if level.height * level.width > _PIXELS:
            return lost[:0], ""
        told = told or str(path)
        lost = lost[~_found_in(labels, lost)]
        note = labels.metadata.get("microtome", {}).get("cell_mask", {}).get("lost") or {}
        if lost.size and lost.size <= note.get("count", 0) and lost[-1] <= note.get("largest", 0):
            return lost[:0], ""
    return (lost, told) if told else (lost[:0], "")


def _found_in(labels: MultiscaleImage, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which of some labels, in ascending order, a mask has; reads no more of it than it must."""
    level, top = labels.level(0), int(ids[-1])
    present = np.zeros(top + 2, np.bool_) if top < _TABLE else None
    found = np.zeros(ids.size, np.bool_)
    for y, x in blocks_of((level.height, level.width), (_BLOCK, _BLOCK)):
        block: NDArray[Any] = level[..., slice(*y), slice(*x)]
        if present is None:
            found |= np.isin(ids, np.unique(block).astype(np.int64))
        else:
            present[np.clip(block, 0, top + 1).astype(np.int64).ravel()] = True
            found = present[ids]
        if found.all():
            break
    return found
