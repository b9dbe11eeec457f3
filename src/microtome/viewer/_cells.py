"""What is known of a cell: its row of the cohort's table, and what masks of tasks call it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from microtome.cohort import CohortLayout
from microtome.errors import FormatError, MicrotomeError, OutOfRangeError, UnknownNameError

from ._overlays import sampled
from ._slide import CellSource, Layer, Slide
from ._zoom import Window

__all__ = ["cell_at", "cell_of", "plain", "read_cell"]

_KEYS = ("tissue_id", "cell_id")
# Labels of a mask have 32 bits, and so have those that are asked for.
_MOST_CELL = (1 << 32) - 1


def read_cell(layout: CohortLayout, tissue_id: str, cell_id: int) -> dict[str, Any] | None:
    """Read a cell's row of the cohort's table, without the names that found it.

    Only the parts of the file are read whose limits allow the cell: a table of all cells of a
    study may be larger than memory.

    Parameters
    ----------
    layout
        The cohort.
    tissue_id, cell_id
        Which cell.

    Returns
    -------
    Values by column, as JSON has them; None where there is no table, or no row of this cell.

    Raises
    ------
    FormatError
        If the file is no table of cells, or has two rows of the cell.
    """
    path = layout.cells
    if not path.is_file():
        return None
    try:
        schema = pq.read_schema(path)
        missing = [name for name in _KEYS if name not in schema.names]
        if missing:
            msg = f"{path} lacks the columns {missing}; it has {schema.names}"
            raise FormatError(msg)
        if not pa.types.is_integer(schema.field("cell_id").type):
            msg = f"{path}: cell_id must be integers, the labels of a mask, got {schema.field('cell_id').type}"
            raise FormatError(msg)
        text = schema.field("tissue_id").type
        text = text.value_type if isinstance(text, pa.DictionaryType) else text
        if not (pa.types.is_string(text) or pa.types.is_large_string(text)):
            msg = f"{path}: tissue_id must be text, got {text}"
            raise FormatError(msg)
        own = (pc.field("tissue_id") == tissue_id) & (pc.field("cell_id") == cell_id)
        rows = pq.read_table(path, filters=own).to_pylist()
    except pa.ArrowException as error:
        msg = f"{path} cannot be read as a table of cells: {error}"
        raise FormatError(msg) from error
    if len(rows) > 1:
        msg = f"{path}: cell {cell_id} of tissue {tissue_id!r} is there {len(rows)} times"
        raise FormatError(msg)
    if not rows:
        return None
    return {name: plain(value) for name, value in rows[0].items() if name not in _KEYS}


def cell_at(slide: Slide, x: int, y: int) -> dict[str, Any] | None:
    """Return the cell at a level-0 pixel; None where there is none.

    Parameters
    ----------
    slide
        The picture.
    x, y
        Column and row.

    Returns
    -------
    As `cell_of`.

    Raises
    ------
    OutOfRangeError
        If it lies outside the picture.
    UnknownNameError
        If the cells of this tissue are not numbered.
    FormatError
        If mask or table are damaged.
    """
    here = slide.window_at(x, y)
    source = _source(slide)
    found = _label(slide, slide.layer("cells", source.layer), here)
    return None if not found else _told(slide, source, found, here)


def cell_of(slide: Slide, number: int) -> dict[str, Any]:
    """Return what is known of a cell.

    Parameters
    ----------
    slide
        The picture.
    number
        The cell's label.

    Returns
    -------
    `id`; `layer`, the mask that it is drawn in; `row` of the table, None where it has none;
    `table`, whether there is one; `kinds`, what masks of tasks have where the cell is known to lie.

    Raises
    ------
    UnknownNameError
        If the cells of this tissue are not numbered.
    OutOfRangeError
        If no label is so large.
    FormatError
        If the table is damaged.
    """
    if not 1 <= number <= _MOST_CELL:
        msg = f"cells are numbered from 1 to {_MOST_CELL}, got {number}"
        raise OutOfRangeError(msg)
    return _told(slide, _source(slide), number, None)


def _source(slide: Slide) -> CellSource:
    if slide.cells is None:
        msg = "this tissue has no mask whose labels are the numbers of cells"
        raise UnknownNameError(msg)
    return slide.cells


def _told(slide: Slide, source: CellSource, number: int, at: Window | None) -> dict[str, Any]:
    row = source.row(number)
    if at is None and row is not None:
        at = _centre(slide, source, number, row)
    kinds: dict[str, Any] = {}
    for layer in slide.layers.get("cells", ()):
        if layer.id == source.layer or at is None:
            continue
        try:
            value = _label(slide, layer, at)
        except MicrotomeError:  # told where that mask is drawn
            continue
        if value:
            kinds[layer.name] = layer.names.get(value, value)
    return {
        "id": number,
        "layer": source.layer,
        "row": row,
        "table": source.table,
        "kinds": kinds,
    }


def _centre(slide: Slide, source: CellSource, number: int, row: Mapping[str, Any]) -> Window | None:
    """Return the pixel of the centre that the table states, if it lies in the cell."""
    y, x = row.get("centroid_y"), row.get("centroid_x")
    if not (isinstance(y, int | float) and isinstance(x, int | float)):
        return None
    place = np.linalg.inv(slide.placed.to_um) @ np.array([x, y, 1.0])
    column, line = (math.floor(v) for v in place[:2])
    try:
        here = slide.window_at(column, line)
    except OutOfRangeError:
        return None
    layer = slide.layer("cells", source.layer)
    return here if _label(slide, layer, here) == number else None


def _label(slide: Slide, layer: Layer, here: Window) -> int:
    """Return a layer's label at a pixel; 0 for none."""
    value, known = sampled(layer.open(), slide.placed.to_um, here)
    return int(value[0, 0]) if known[0, 0] else 0


def plain(value: Any) -> Any:
    """Return a cell of a table as JSON has it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | bool) or value is None else str(value)
