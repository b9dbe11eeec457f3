"""Cells of a cohort: masks in which they are numbered, and the table of them."""

from ._add_cells import add_cells
from ._add_masks import add_cell_masks
from ._cells import (
    INSTANCES,
    CellTable,
    cell_task_names,
    instances_kind,
    open_cell_mask,
    read_label_encoder,
)
from ._measure_cells import measure_cells
from ._put_cells import CELLS_SCHEMA

__all__ = [
    "CELLS_SCHEMA",
    "INSTANCES",
    "CellTable",
    "add_cell_masks",
    "add_cells",
    "cell_task_names",
    "instances_kind",
    "measure_cells",
    "open_cell_mask",
    "read_label_encoder",
]
