"""Cells of a cohort: the table of them, and the masks in which they are numbered."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from microtome.cohort._images import open_labels_at
from microtome.cohort._layout import CohortLayout
from microtome.cohort._tables import read_parquet
from microtome.coordinates import Resolution
from microtome.errors import FormatError, NotFoundError, UnknownNameError
from microtome.image import MultiscaleImage

__all__ = [
    "INSTANCES",
    "CellTable",
    "cell_task_names",
    "instances_kind",
    "open_cell_mask",
    "read_label_encoder",
]

INSTANCES = "instances"
_FROM_VIRTUES = "instances_virtues"


@dataclass(frozen=True, slots=True, eq=False)
class CellTable:
    """The cells of some tissues, grouped by tissue.

    Parameters
    ----------
    table
        The rows, tissue after tissue: tissue_id, cell_id and any others.
    offsets
        Where each tissue's rows begin and end.
    centroids
        Centre of each cell in micrometres, (n, 2), (y, x); None where the table has none.
    """

    table: pa.Table
    offsets: dict[str, tuple[int, int]]
    centroids: NDArray[np.float64] | None

    @classmethod
    def read(cls, layout: CohortLayout, tissue_ids: Sequence[str]) -> CellTable:
        """Read the cells of some tissues.

        Raises
        ------
        NotFoundError
            If the cohort has no table of cells.
        FormatError
            If a column is missing or a cell is there twice.
        """
        if not layout.cells.is_file():
            msg = f"{layout.root} has no table of cells ({layout.cells}); add one with `microtome cohort add-cells`"
            raise NotFoundError(msg)
        table = read_parquet(layout.cells, ["tissue_id", "cell_id"])
        names = table["tissue_id"].cast(pa.string())
        table = table.set_column(table.column_names.index("tissue_id"), "tissue_id", names)
        table = table.filter(pc.is_in(names, value_set=pa.array(list(tissue_ids), pa.string())))
        for name in ("tissue_id", "cell_id"):
            if table[name].null_count:
                msg = f"{layout.cells}: {table[name].null_count} rows have no {name}"
                raise FormatError(msg)
        if not pa.types.is_integer(table["cell_id"].type):
            msg = f"{layout.cells}: cell_id must be integers, the labels of a mask, got {table['cell_id'].type}"
            raise FormatError(msg)
        codes = table["tissue_id"].combine_chunks().dictionary_encode()
        tissue, ids = codes.indices.to_numpy(), table["cell_id"].to_numpy()
        order = np.lexsort((ids, tissue))
        again = np.flatnonzero(
            (tissue[order][1:] == tissue[order][:-1]) & (ids[order][1:] == ids[order][:-1])
        )
        if again.size:
            row = table.slice(int(order[again[0]]), 1).to_pylist()[0]
            msg = f"{layout.cells}: cell {row['cell_id']} of tissue {row['tissue_id']!r} is there more than once"
            raise FormatError(msg)
        table = table.take(pa.array(order))
        places = np.searchsorted(tissue[order], np.arange(len(codes.dictionary) + 1))
        offsets = {
            name: (int(places[i]), int(places[i + 1]))
            for i, name in enumerate(codes.dictionary.to_pylist())
        }
        return cls(table, offsets, _centroids(layout, table))

    def for_tissue(self, tissue_id: str) -> pa.Table:
        """Return the cells of a tissue, by cell id; none where the table does not speak of it."""
        start, stop = self.offsets.get(tissue_id, (0, 0))
        return self.table.slice(start, stop - start)

    def inside(
        self, tissue_id: str, low: tuple[float, float], high: tuple[float, float]
    ) -> pa.Table:
        """Return the cells of a tissue whose centres lie in a half-open box of micrometres (y, x).

        Raises
        ------
        NotFoundError
            If the table has no centroids.
        """
        if self.centroids is None:
            msg = (
                "the table of cells has no columns centroid_y and centroid_x (micrometres), so "
                "that nothing says which cells lie in a tile"
            )
            raise NotFoundError(msg)
        start, stop = self.offsets.get(tissue_id, (0, 0))
        at = self.centroids[start:stop]
        within = ((at >= low) & (at < high)).all(axis=1)
        return self.table.take(pa.array(start + np.flatnonzero(within)))


def _centroids(layout: CohortLayout, table: pa.Table) -> NDArray[np.float64] | None:
    names = ["centroid_y", "centroid_x"]
    if not set(names) <= set(table.column_names):
        return None
    columns: list[NDArray[np.float64]] = []
    for name in names:
        try:
            columns.append(table[name].cast(pa.float64()).to_numpy())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            msg = f"{layout.cells}: {name} must hold micrometres, got {table[name].type}"
            raise FormatError(msg) from error
    return np.stack(columns, axis=1)


def open_cell_mask(
    layout: CohortLayout, resolution: Resolution, kind: str, tissue_id: str
) -> MultiscaleImage:
    """Open a cell mask as an image of labels.

    Parameters
    ----------
    kind
        ``"instances"``, or a task.

    Raises
    ------
    NotFoundError
        If the tissue has none.
    UnknownNameError
        If the cohort has no masks of this kind.
    FormatError
        If an `.npz` is damaged, holds no array "mask", or holds pickled objects.
    """
    found = open_labels_at(layout, resolution, lambda r: layout.cell_mask(r, kind, tissue_id))
    if found is not None:
        return found
    there = sorted({k for r in layout.resolutions() for k in layout.cell_mask_kinds(r)})
    if kind not in there:
        msg = f"{layout.root} has no cell masks {kind!r}; it has {there or 'none'}; {_how(layout, kind, tissue_id)}"
        raise UnknownNameError(msg)
    msg = f"tissue {tissue_id!r} has no cell mask ({layout.cell_mask(resolution, kind, tissue_id)}); {_how(layout, kind, tissue_id)}"
    raise NotFoundError(msg)


def _how(layout: CohortLayout, kind: str, tissue_id: str) -> str:
    """Return how a mask comes into a cohort."""
    of = "" if kind == INSTANCES else f" --kind {shlex.quote(kind)}"
    root = shlex.quote(str(layout.root))
    return f"bring one with `microtome cohort add-mask {root} MASK --tissue {tissue_id}{of}` (add_cell_masks)"


def instances_kind(*, from_virtues: bool) -> str:
    """Return the directory of instance masks: our users' own, or those that VirTues made."""
    return _FROM_VIRTUES if from_virtues else INSTANCES


def cell_task_names(layout: CohortLayout, resolution: Resolution) -> list[str]:
    """Return the tasks for which there are cell masks, at this resolution or a finer one."""
    found = {
        kind
        for r in layout.resolutions()
        if r.serves(resolution)
        for kind in layout.cell_mask_kinds(r)
    }
    return sorted(found - {INSTANCES, _FROM_VIRTUES})


def read_label_encoder(
    layout: CohortLayout, resolution: Resolution, task: str
) -> dict[int, str] | None:
    """Return the names of a task's labels; None where there is no such table.

    Raises
    ------
    FormatError
        If a label is there twice or has no name.
    """
    finest = [r for r in layout.resolutions() if r.serves(resolution)]
    for r in [resolution, *reversed(finest)]:
        path = layout.label_encoder(r, task)
        if path.is_file():
            rows = read_parquet(path, ["id", "name"]).select(["id", "name"]).to_pylist()
            mapping = {row["id"]: row["name"] for row in rows}
            if len(mapping) < len(rows) or None in mapping or None in mapping.values():
                msg = f"{path}: every id has one name, got {rows}"
                raise FormatError(msg)
            return mapping
    return None
