"""What the tiles of a tissue are made of, and which of them are to be made again."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from microtome.cohort._cell_inputs import centres_mask
from microtome.cohort._fingerprint import fingerprint
from microtome.cohort._layout import CohortLayout
from microtome.cohort._made_of import (
    Inputs,
    array_identity,
    changed,
    image_of_tissue,
    mask_of_tissue,
    noted_inputs,
    told_change,
)
from microtome.cohort._merge import listed
from microtome.cohort._modality import Modality
from microtome.cohort._tables import read_parquet
from microtome.coordinates import Resolution
from microtome.errors import ExistsError, FormatError
from microtome.tiling import MaskTiling, TileTable

from ._tissue import Annotations, CellTiling

__all__ = [
    "cells_identity",
    "inputs_of",
    "settings_of",
    "still_to_do",
    "tiles_identities",
    "verify_measured",
]

_DIGITS = 16


def inputs_of(
    layout: CohortLayout,
    resolution: Resolution,
    chosen: Mapping[str, Sequence[Modality]],
    areas: Annotations | None,
    cells: Mapping[str, tuple[NDArray[np.int64], NDArray[np.float64]]] | None,
) -> dict[str, Inputs]:
    """Return of each tissue the image and the mask that its tiles are made of, and what else.

    Parameters
    ----------
    layout, resolution
        Where.
    chosen
        Modalities of each tissue; the first is the one whose grid is tiled.
    areas
        What tiles are restricted to.
    cells
        Ids and centres of each tissue's cells; None where tiles do not lie on cells.
    """
    found: dict[str, Inputs] = {}
    noted: dict[str, Inputs] = {}
    if cells is not None:
        noted = noted_inputs(read_parquet(layout.cells, []).schema.metadata)
    for tissue_id, modalities in chosen.items():
        each = {
            "modality": modalities[0].name,
            "image": image_of_tissue(layout, modalities[0], resolution, tissue_id),
            "mask": mask_of_tissue(layout, resolution, tissue_id),
        }
        if areas is not None:
            each["areas"] = fingerprint(areas.of_tissue(tissue_id))[:_DIGITS]
        if cells is not None:
            each["cells"] = cells_identity(*cells.get(tissue_id, _NO_CELLS))
            _, each["cell_mask"] = centres_mask(layout, tissue_id, noted.get(tissue_id, {}))
        found[tissue_id] = each
    return found


def verify_measured(layout: CohortLayout, tissues: Collection[str]) -> None:
    """Refuse cells that were measured in a mask that has been replaced since.

    Raises
    ------
    FormatError
        If there are any; says what to do.
    """
    noted = noted_inputs(read_parquet(layout.cells, []).schema.metadata)
    stale: dict[str, list[str]] = {}
    for tissue_id in sorted(tissues):
        was, now = centres_mask(layout, tissue_id, noted.get(tissue_id, {}))
        if changed({"cell_mask": was}, {"cell_mask": now}):
            stale[tissue_id] = ["cell_mask"]
    if stale:
        msg = f"the cells in {layout.cells} were measured in {told_change(stale)}, which has been replaced since; measure them again with `microtome cohort cells {shlex.quote(str(layout.root))}`, and tile then"
        raise FormatError(msg)


_NO_CELLS = np.zeros(0, np.int64), np.zeros((0, 2))


def cells_identity(ids: NDArray[np.int64], centres: NDArray[np.float64]) -> str:
    """Return what tells the cells of a tissue, as tiles lie on them, from any other.

    Parameters
    ----------
    ids, centres
        (n,) and (n, 2).
    """
    return array_identity(np.column_stack([ids.astype(np.float64), centres]))


def tiles_identities(tiles: TileTable) -> dict[str, str]:
    """Return what tells the tiles of each tissue, as they are numbered and lie, from any others."""
    rows, found = tiles.rows(), dict[str, str]()
    order = np.argsort(rows.tissue, kind="stable")
    ends = np.searchsorted(rows.tissue[order], np.arange(len(tiles.tissue_ids) + 1))
    for number, tissue_id in enumerate(tiles.tissue_ids):
        mine = order[ends[number] : ends[number + 1]]
        places = np.column_stack([rows.tile_id[mine], rows.row[mine], rows.col[mine]])
        found[tissue_id] = array_identity(places, *tiles.tile_size)
    return found


def settings_of(
    tiling: MaskTiling | CellTiling,
    *,
    align: str | None,
    areas: Annotations | None,
    mpp: float | None,
) -> str:
    """Return what tells a way of tiling from any other."""
    drawn = None if areas is None else [areas.classes and sorted(areas.classes), mpp]
    told = [type(tiling).__name__, asdict(tiling), align, drawn]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:_DIGITS]


def still_to_do(
    there: Collection[str],
    before: Mapping[str, Inputs],
    now: Mapping[str, Inputs],
    path: Path,
) -> set[str]:
    """Return the tissues that have no tiles yet, or whose tiles were made of something else.

    Parameters
    ----------
    there
        Tissues that have been tiled.
    before
        What they were made of, as far as the table says it, with the settings.
    now
        The same of the tissues asked for.
    path
        The table.

    Raises
    ------
    ExistsError
        If tissues asked for were tiled with other settings, or nobody knows with which.
    """
    mine = [tissue_id for tissue_id in now if tissue_id in there]
    settings = {t: before.get(t, {}).get("settings") for t in mine}
    unknown = [t for t in mine if settings[t] is None]
    other = [t for t in mine if settings[t] not in {None, now[t]["settings"]}]
    if unknown or other:
        why = (
            f"holds tiles of {listed(other)} made with other settings"
            if other
            else "exists, and does not say with which settings it was made"
        )
        msg = f"{path} {why}; replace it with --overwrite (overwrite=True) or name another strategy"
        raise ExistsError(msg)
    stale = {t for t in mine if changed(before[t], now[t])}
    return stale | {t for t in now if t not in there}
