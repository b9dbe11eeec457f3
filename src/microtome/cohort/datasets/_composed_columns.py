"""What tables say of the tissues of a composed dataset, whichever modality they say it of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from microtome.errors import InvalidInputError, UnknownNameError
from microtome.tiling import TileTable

from ._imaging import BaseImagingDataset

__all__ = ["composed_column"]


def composed_column(
    name: str,
    datasets: Mapping[str, BaseImagingDataset[Any]],
    tissue_ids: Sequence[str],
    tiles: TileTable | None,
    rows: NDArray[np.int64] | None,
) -> NDArray[Any]:
    """Return what a column says of each tile, or of each tissue where there are no tiles.

    Parameters
    ----------
    name
        ``"label"``, a column of the table of tiles, or one of the table of tissues.
    datasets
        The datasets of the modalities, by name.
    tissue_ids
        All tissues.
    tiles, rows
        The table of tiles, and those of its rows that count, all by default.

    Raises
    ------
    UnknownNameError
        If there is no such column.
    InvalidInputError
        If it says something else of a tissue in one modality than in another.
    """
    if tiles is not None and name in tiles.table.column_names and name != "tissue_id":
        column = tiles.table[name] if rows is None else tiles.table[name].take(pa.array(rows))
        return column.to_numpy(zero_copy_only=False)
    known = _of_tissues(name, datasets, tissue_ids, tiles)
    if tiles is None:
        return known
    number = {tissue: i for i, tissue in enumerate(tissue_ids)}
    place = np.asarray([number.get(tissue, -1) for tissue in tiles.tissue_ids], np.int64)
    found = tiles.rows(slice(None) if rows is None else rows).tissue
    return known[place[found]]


def _of_tissues(
    name: str,
    datasets: Mapping[str, BaseImagingDataset[Any]],
    tissue_ids: Sequence[str],
    tiles: TileTable | None,
) -> NDArray[Any]:
    if name == "tissue_id":
        return np.asarray(tissue_ids)
    said: dict[str, tuple[str, Any]] = {}
    columns: dict[str, None] = {}
    asked = False
    for modality, dataset in datasets.items():
        table = dataset.tissue_modality_metadata
        columns |= dict.fromkeys(table.column_names)
        labels = dataset.records.labels
        values: list[Any]
        if name == "label" and labels is not None:
            values = [labels.values[tissue] for tissue in dataset.records.tissue_ids]
        elif name in table.column_names:
            values = table[name].to_pylist()
        else:
            continue
        asked = True
        for tissue, value in zip(dataset.records.tissue_ids, values, strict=True):
            if value is None:
                continue
            other, before = said.setdefault(tissue, (modality, value))
            if before != value and not (before != before and value != value):  # noqa: PLR0124 - NaN
                msg = (
                    f"column {name!r} says {before!r} of tissue {tissue!r} as {other} and {value!r} as "
                    f"{modality}; choose a column that says the same of all modalities"
                )
                raise InvalidInputError(msg)
    if not asked:
        of_tiles = (
            "" if tiles is None else f"of the tiles ({', '.join(tiles.table.column_names)}) nor "
        )
        msg = f"nothing says {name!r}: it is no column {of_tiles}of the tissues ({', '.join(columns)})"
        raise UnknownNameError(msg)
    # Arrow decides the type as it does for one modality: numbers stay numbers, gaps in text are None.
    found = pa.array([said.get(tissue, ("", None))[1] for tissue in tissue_ids])
    return found.to_numpy(zero_copy_only=False)
