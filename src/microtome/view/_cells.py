"""Cells of a cohort on a page: how many there are, their masks, and what is known of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from microtome.cohort import open_cell_mask
from microtome.errors import FormatError
from microtome.image import MultiscaleImage

from ._inventory import Inventory, Missing, Tissue, attempt

__all__ = ["CellColumn", "CellNumbers", "CellsBlock", "MaskRow", "cell_numbers", "cells_block"]

# Masks whose labels are the numbers of cells; those of tasks hold kinds.
_NUMBERED = ("instances", "instances_virtues")
_KEYS = ("tissue_id", "cell_id")
_PLACE = ("centroid_y", "centroid_x")
# Columns that are told of; a panel has some tens.
_MOST_COLUMNS = 80
_MOST_FREQUENT = 5
_QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True, slots=True)
class CellColumn:
    """A column of the table of cells."""

    name: str
    known: int
    """Cells that have a value; of numbers a finite one."""
    infinite: int
    """Cells whose number is infinite, and counts for none of the next three."""
    low: float | None
    """5 % of the cells are below; None of what is no number, or known of no cell."""
    median: float | None
    high: float | None
    """5 % of the cells are above."""
    frequent: tuple[tuple[str, int], ...]
    """Of what is no number: the most frequent values, and how many cells have each."""
    others: int
    """Different values that are not among these."""


@dataclass(frozen=True, slots=True)
class MaskRow:
    """Cell masks of one kind."""

    kind: str
    resolution: str
    tissues: int


@dataclass(frozen=True, slots=True)
class CellsBlock:
    """What a cohort knows of cells."""

    total: int | None
    """Rows of the table of cells; None where there is no table."""
    counts: Mapping[str, int]
    """Rows of the table by tissue."""
    columns: tuple[CellColumn, ...]
    left_out: int
    """Columns that are not told of."""
    masks: tuple[MaskRow, ...]
    advice: Missing | None
    """What makes the table, where there are only masks."""


@dataclass(frozen=True, slots=True)
class CellNumbers:
    """The cells of one tissue."""

    cells: int | None
    """Rows of the table; None where there is no table."""
    kinds: tuple[str, ...]
    """Masks of cells that the tissue has."""
    mask: MultiscaleImage | Missing | None
    """The one in which cells are numbered; None where there is none."""


def cells_block(inventory: Inventory) -> CellsBlock | None:
    """Count cells and what is known of them; None where a cohort has none.

    The table is read column by column: of a large study it may not fit into memory.

    Parameters
    ----------
    inventory
        The cohort.

    Raises
    ------
    FormatError
        If the table of cells is damaged.
    """
    path, masks = inventory.layout.cells, tuple(_masks(inventory))
    if not path.is_file():
        if not masks:
            return None
        text = "There are cell masks, but no table of cells: nothing was measured in them."
        command = inventory.command("cohort cells")
        return CellsBlock(None, {}, (), 0, masks, Missing(text, command))
    try:
        with path.open("rb") as opened:
            file = pq.ParquetFile(opened)
            counts = _counts(file, path)
            names = [n for n in file.schema_arrow.names if n not in (*_KEYS, *_PLACE)]
            told = [n for n in names if _is_plain(file.schema_arrow.field(n).type)]
            columns = tuple(
                _column(name, file.read(columns=[name])[name]) for name in told[:_MOST_COLUMNS]
            )
    except pa.ArrowException as error:
        msg = f"{path} cannot be read as a table of cells: {error}"
        raise FormatError(msg) from error
    left_out = len(names) - len(columns)
    return CellsBlock(sum(counts.values()), counts, columns, left_out, masks, None)


def cell_numbers(
    inventory: Inventory, tissue: Tissue, cells: CellsBlock | None
) -> CellNumbers | None:
    """Return what is known of the cells of a tissue; None where there are none.

    Parameters
    ----------
    inventory, tissue
        Which.
    cells
        Those of the cohort.
    """
    if cells is None:
        return None
    layout, resolution = inventory.layout, tissue.resolution
    kinds = tuple(
        kind
        for kind in layout.cell_mask_kinds(resolution)
        if layout.cell_mask(resolution, kind, tissue.tissue_id).exists()
    )
    count = None if cells.total is None else cells.counts.get(tissue.tissue_id, 0)
    if not count and not kinds:
        return None
    numbered = next((kind for kind in _NUMBERED if kind in kinds), None)
    mask = numbered and attempt(
        f"cell mask of {tissue.tissue_id}",
        lambda: open_cell_mask(layout, resolution, numbered, tissue.tissue_id),
    )
    return CellNumbers(count, kinds, mask or None)


def _masks(inventory: Inventory) -> Iterator[MaskRow]:
    layout = inventory.layout
    for resolution in inventory.resolutions:
        tissues = [t.tissue_id for t in inventory.tissues if t.resolution == resolution]
        for kind in layout.cell_mask_kinds(resolution):
            there = sum(layout.cell_mask(resolution, kind, t).exists() for t in tissues)
            if there:
                yield MaskRow(kind, str(resolution), there)


def _counts(file: pq.ParquetFile, path: Path) -> dict[str, int]:
    missing = [name for name in _KEYS if name not in file.schema_arrow.names]
    if missing:
        msg = f"{path} lacks the columns {missing}; it has {file.schema_arrow.names}"
        raise FormatError(msg)
    counted = pc.value_counts(file.read(columns=["tissue_id"])["tissue_id"]).to_pylist()
    return {str(row["values"]): int(row["counts"]) for row in counted}


def _is_plain(kind: pa.DataType) -> bool:
    inner = kind.value_type if isinstance(kind, pa.DictionaryType) else kind
    return (
        pa.types.is_integer(inner)
        or pa.types.is_floating(inner)
        or pa.types.is_boolean(inner)
        or pa.types.is_string(inner)
        or pa.types.is_large_string(inner)
    )


def _column(name: str, column: pa.ChunkedArray) -> CellColumn:
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        values = column.drop_null().cast(pa.float64()).to_numpy()
        infinite = int(np.isinf(values).sum())
        values = values[np.isfinite(values)]
        if not values.size:
            return CellColumn(name, 0, infinite, None, None, None, (), 0)
        low, median, high = (float(value) for value in np.quantile(values, _QUANTILES))
        return CellColumn(name, int(values.size), infinite, low, median, high, (), 0)
    counted = [
        (str(row["values"]), int(row["counts"]))
        for row in pc.value_counts(column.drop_null()).to_pylist()
    ]
    counted.sort(key=lambda pair: (-pair[1], pair[0]))
    known = len(column) - column.null_count
    frequent = tuple(counted[:_MOST_FREQUENT])
    return CellColumn(name, known, 0, None, None, None, frequent, len(counted) - len(frequent))
