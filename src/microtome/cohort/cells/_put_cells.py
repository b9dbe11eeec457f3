"""Cells put into the table of a cohort: rows and columns joined, with what they were made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from microtome.cohort._cell_inputs import cells_inputs, with_columns
from microtome.cohort._layout import CohortLayout, is_written
from microtome.cohort._made_of import Inputs, note_inputs, noted_inputs
from microtome.cohort._merge import Merge, listed, refuse_repeated
from microtome.cohort._tables import read_parquet, read_tissues, write_parquet
from microtome.coordinates import MicrometreGrid
from microtome.errors import FormatError, InvalidInputError, MicrotomeError, UnknownNameError
from microtome.image import MultiscaleImage
from microtome.storage import locked

from ._anew import Anew, forgotten, in_place
from ._in_mask import verify_in_masks

__all__ = ["CELLS_SCHEMA", "CellsAdded", "put_cells"]

CELLS_SCHEMA = pa.schema(
    [
        ("tissue_id", pa.string()),
        ("cell_id", pa.int64()),
        # In micrometres from the upper left edge of the tissue's image.
        ("centroid_y", pa.float64()),
        ("centroid_x", pa.float64()),
    ]
)

_KEYS = ("tissue_id", "cell_id")
_CENTRE = ("centroid_y", "centroid_x")


class CellsAdded(int):
    """How many cells were added to a table, as a number."""

    changed: int
    """How many cells that were there got another value, or one where they had none."""

    def __new__(cls, added: int, changed: int) -> Self:
        """Note both numbers."""
        made = super().__new__(cls, added)
        made.changed = changed
        return made

    def __reduce__(self) -> tuple[type[CellsAdded], tuple[int, int]]:
        return CellsAdded, (int(self), self.changed)


def put_cells(
    layout: CohortLayout,
    given: pa.Table,
    place: str,
    *,
    overwrite: bool,
    made_of: Mapping[str, Sequence[Inputs]] | None = None,
    anew: Mapping[str, Anew] | None = None,
) -> CellsAdded:
    """Put cells into the table of a cohort and note what they were made of; see `add_cells`.

    Parameters
    ----------
    layout
        The cohort.
    given
        Cells with `tissue_id` and `cell_id`.
    place
        Where they come from, for messages.
    overwrite
        Replace values that are there by others.
    made_of
        What columns of each tissue are made of, see `with_columns`; None for the images there are.
    anew
        Tissues of which `given` holds all cells: what it says takes the place of what is there, and
        cells that it lacks are removed.

    Returns
    -------
    How many cells were added, and how many were changed.
    """
    _verify_cells(given, place)
    known = set(read_tissues(layout)["tissue_id"].cast(pa.string()).to_pylist())
    unknown = sorted(set(pc.unique(given["tissue_id"]).to_pylist()) - known)
    if unknown:
        msg = f"{place} has cells of tissues that {layout.root} does not have: {listed(unknown)}"
        raise UnknownNameError(msg)
    if made_of is None:
        _verify_inside(layout, given, place)
        verify_in_masks(layout, given, place)
    with locked(layout.lock, what=f"the cohort {layout.root}"):
        old = CELLS_SCHEMA.empty_table().select(["tissue_id", "cell_id"])
        noted: dict[str, Inputs] = {}
        if layout.cells.is_file():
            old = read_parquet(layout.cells, ["tissue_id", "cell_id"])
            noted = noted_inputs(old.schema.metadata)
            old = old.replace_schema_metadata(None)
        merge = Merge.of(old, given, _KEYS, str(layout.cells))
        added, before = _joined(layout, merge, given, anew or {}, overwrite=overwrite)
        if made_of is None:
            tissues = pc.unique(given["tissue_id"]).to_pylist()
            made_of = {t: [part] for t, part in cells_inputs(layout, tissues).items()}
        replaced = made_of.keys() if overwrite else (anew or {}).keys()
        now = with_columns(noted, (before, given, added), made_of, replaced=replaced)
        # The same cells once more, said to be of the images that there are now.
        if not added.equals(old) or (replaced and now != noted):
            kept = added.replace_schema_metadata(note_inputs(None, now))
            write_parquet(kept, layout.cells)
    there = np.unique(merge.sources).size
    return CellsAdded(given.num_rows - there, _changed(merge, added.schema))


def _joined(
    layout: CohortLayout,
    merge: Merge,
    given: pa.Table,
    anew: Mapping[str, Anew],
    *,
    overwrite: bool,
) -> tuple[pa.Table, pa.Table]:
    """Return the cells that there are then, and those that were there without what is forgotten."""
    kinds = {field.name: field.type for field in CELLS_SCHEMA}
    if not anew:
        return merge.apply(overwrite=overwrite, add_rows=True, known=kinds), merge.old
    before, rows = forgotten(merge, anew)
    fresh = pc.is_in(given["tissue_id"], value_set=pa.array(list(anew), pa.string()))
    joined = before
    for part, over in ((given.filter(fresh), True), (given.filter(pc.invert(fresh)), overwrite)):
        step = Merge.of(joined, part, _KEYS, str(layout.cells))
        joined = step.apply(overwrite=over, add_rows=True, known=kinds)
    return in_place(joined, merge.old, rows, anew), before


def _changed(merge: Merge, kinds: pa.Schema) -> int:
    """Return how many rows that were there are given another value."""
    rows, sources = pa.array(merge.rows), pa.array(merge.sources)
    found = np.zeros(len(rows), np.bool_)
    for name in merge.given.column_names:
        if name in _KEYS:
            continue
        theirs = merge.given[name].take(sources).cast(kinds.field(name).type)
        other = theirs.is_valid()
        if name in merge.old.column_names:
            mine = merge.old[name].cast(kinds.field(name).type).take(rows)
            other = pc.and_(other, pc.fill_null(pc.not_equal(mine, theirs), True))
        found |= other.to_numpy()
    return int(np.count_nonzero(found))


def _verify_inside(layout: CohortLayout, given: pa.Table, place: str) -> None:
    """Refuse cells whose centres lie outside of all images of their tissue."""
    if not set(_CENTRE) <= set(given.column_names):
        return
    number = (pa.types.is_floating, pa.types.is_integer)
    if any(not any(is_a(given[name].type) for is_a in number) for name in _CENTRE):
        return  # told when it meets the column of the cohort
    codes = given["tissue_id"].combine_chunks().dictionary_encode()
    tissues: list[str] = codes.dictionary.to_pylist()
    ends = np.array([_end_of(layout, tissue) for tissue in tissues]).reshape(-1, 2)
    limits = ends[codes.indices.to_numpy()]
    columns = [given[name].cast(pa.float64()).to_numpy() for name in _CENTRE]
    centres: NDArray[np.float64] = np.stack(columns, axis=1)
    # A centre that is missing is not outside.
    outside = np.flatnonzero(((centres < 0) | (centres > limits)).any(axis=1))
    if outside.size:
        (y, x), (height, width) = centres[outside[0]], limits[outside[0]]
        row = given.slice(int(outside[0]), 1).to_pylist()[0]
        more = f" and {outside.size - 1} more" if outside.size > 1 else ""
        lie = "lie" if more else "lies"
        msg = f"{place}: cell {row['cell_id']} of tissue {row['tissue_id']!r} at (y, x) = ({y:g}, {x:g}) um{more} {lie} outside of the tissue's image, which is {height:g} x {width:g} um; centroids are micrometres from its upper left edge: are these pixels, or of another image?"
        raise InvalidInputError(msg)


def _end_of(layout: CohortLayout, tissue_id: str) -> tuple[float, float]:
    """Return how far the images of a tissue reach, (y, x) in micrometres; infinite where none opens."""
    ends: list[NDArray[np.float64]] = []
    for modality in layout.modalities():
        for resolution in layout.resolutions(modality):
            path = layout.image(modality, resolution, tissue_id)
            # A damaged image is no reason to refuse cells.
            with suppress(MicrotomeError):
                if is_written(path):
                    size = MultiscaleImage.open(path).level_shape(0)[-2:]
                    ends.append(MicrometreGrid.from_mpp(resolution.mpp).from_pixels(size))
                    break
    if not ends:
        return np.inf, np.inf
    height, width = np.max(ends, axis=0).tolist()
    return height, width


def _verify_cells(given: pa.Table, place: str) -> None:
    refuse_repeated(given, ["tissue_id", "cell_id"], place)
    if not pa.types.is_integer(given["cell_id"].type):
        msg = f"{place}: cell_id must hold integers, the labels of a mask, got {given['cell_id'].type}"
        raise FormatError(msg)
    if given.num_rows and pc.min(given["cell_id"]).as_py() < 1:
        msg = f"{place}: cell ids begin at 1, 0 is the background; got {pc.min(given['cell_id']).as_py()}"
        raise FormatError(msg)
