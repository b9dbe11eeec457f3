"""What cell masks, and tables of cells, were made of."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from microtome.coordinates import Resolution
from microtome.errors import MicrotomeError
from microtome.image import MultiscaleImage

from ._images import is_there
from ._layout import CohortLayout
from ._made_of import Inputs, image_of_tissue, mask_identity
from ._modality import Modality

__all__ = [
    "ABOUT",
    "BROUGHT_OF",
    "MEAN",
    "cell_mask_inputs",
    "cell_mask_of_tissue",
    "cells_inputs",
    "cells_parts",
    "centres_mask",
    "images_of_tissue",
    "with_columns",
]

ABOUT = frozenset({"columns", "resolution", "kind"})
"""What a part of a table of cells says beside identities: its columns, whose grid, and which masks."""

MEAN = "mean_"
"""What the columns of `measure_cells` begin with that hold the mean of a channel."""


BROUGHT_OF = "instances"
"""Kind of the cell masks that cells are of which somebody brings."""


def images_of_tissue(
    layout: CohortLayout, resolution: Resolution, tissue_id: str, modalities: Sequence[Modality]
) -> dict[str, str | None]:
    """Return the identities of a tissue's images by modality.

    Nobody says of which of them cells were found, so that a change of any is told.
    """
    return {
        modality.name: image_of_tissue(layout, modality, resolution, tissue_id)
        for modality in modalities
    }


def cells_inputs(layout: CohortLayout, tissues: Sequence[str]) -> dict[str, Inputs]:
    """Return what there is of some tissues when their cells are added: images by modality, and a mask.

    Nothing of a tissue without any that say what they are.
    """
    found: dict[str, Inputs] = {}
    resolutions = layout.resolutions()
    if not resolutions:
        return found
    # What all images are fine enough for.
    coarsest, modalities = resolutions[-1], layout.modalities()
    for tissue_id in tissues:
        # A damaged image is no reason to refuse cells.
        with suppress(MicrotomeError):
            images = images_of_tissue(layout, coarsest, tissue_id, modalities)
            # Their numbers are labels of these, where they are there.
            images["cell_mask"] = cell_mask_of_tissue(layout, coarsest, BROUGHT_OF, tissue_id)
            known = {name: image for name, image in images.items() if image is not None}
            if known:
                found[tissue_id] = {"resolution": coarsest.directory, **known}
    return found


def cell_mask_inputs(path: Path) -> Inputs:
    """Return the images, by modality, that there were of the tissue when a mask was added."""
    if path.suffix == ".npz":
        return {}
    noted = MultiscaleImage.open(path).metadata.get("microtome", {}).get("cell_mask", {})
    return dict(noted.get("images") or {})


def cell_mask_of_tissue(
    layout: CohortLayout, resolution: Resolution, kind: str, tissue_id: str
) -> str | None:
    """Return the identity of the cell mask that is read at a resolution."""
    finer = [r for r in layout.resolutions() if r != resolution and r.serves(resolution)]
    for each in (resolution, *reversed(finer)):
        path = layout.cell_mask(each, kind, tissue_id)
        if is_there(path):
            return mask_identity(path)
    return None


def cells_parts(noted: Inputs) -> list[dict[str, Any]]:
    """Return what the columns of a tissue's cells were made of, columns that are of the same together.

    Without `columns`, as an earlier microtome noted it, a part speaks of all.
    """
    parts = noted.get("parts")
    if parts is None:
        return [dict(noted)] if noted else []
    return (
        [dict(part) for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    )


def centres_mask(
    layout: CohortLayout, tissue_id: str, noted: Inputs
) -> tuple[str | None, str | None]:
    """Return the identity of the cell mask that a tissue's centres were measured in, and of that now.

    None where nobody knows it: of centres that were brought, and of masks that say nothing.

    Parameters
    ----------
    layout, tissue_id
        Whose.
    noted
        What the table of cells says of the tissue.
    """
    parts = [
        part
        for part in cells_parts(noted)
        if not _CENTRE.isdisjoint(part.get("columns") or _CENTRE)
    ]
    if len(parts) != 1 or parts[0].get("kind") is None:
        return None, None
    kind, resolution = str(parts[0]["kind"]), Resolution.parse(str(parts[0].get("resolution")))
    return parts[0].get("cell_mask"), cell_mask_of_tissue(layout, resolution, kind, tissue_id)


_CENTRE = frozenset({"centroid_y", "centroid_x"})


def with_columns(
    noted: Mapping[str, Inputs],
    tables: tuple[pa.Table, pa.Table, pa.Table],
    sources: Mapping[str, Sequence[Inputs]],
    *,
    replaced: Collection[str],
) -> dict[str, Inputs]:
    """Return what cells were made of, after columns of some were given.

    A column is of its old source too while a cell of the tissue has a value that was not given.

    Parameters
    ----------
    noted
        What is said of each tissue so far.
    tables
        The cells before, those that are given, and what became of both.
    sources
        What the given columns of each tissue are made of: a part without `columns` for all that no
        other part names.
    replaced
        Tissues of which what is given takes the place of what is the same already.
    """
    before, given, after = (_valued(table, sources.keys()) for table in tables)
    found = dict(noted)
    for tissue, fresh in sources.items():
        mine, old, new = (each.get(tissue, {}) for each in (given, before, after))
        anew = tissue in replaced
        told = {n for n in mine if anew or old.get(n, 0) < new.get(n, 0)}
        gone = {n for n in told if not old.get(n) or (anew and mine[n] >= new.get(n, 0))}
        parts: list[dict[str, Any]] = []
        for part in cells_parts(noted.get(tissue, {})):
            kept = [n for n in part.get("columns") or old if n not in gone and n in new]
            if kept:
                parts.append({**part, "columns": kept})
        named = {n for part in fresh for n in part.get("columns", ())}
        for part in fresh:
            own = set(part["columns"]) if "columns" in part else mine.keys() - named
            _join(parts, {**part, "columns": [n for n in mine if n in own & told]})
        if parts:
            found[tissue] = {"parts": parts}
        else:
            found.pop(tissue, None)
    return found


def _join(parts: list[dict[str, Any]], part: dict[str, Any]) -> None:
    """Put a part to others; its columns to those of one that is of the same."""
    if not part["columns"]:
        return
    for each in parts:
        if {**each, "columns": ()} == {**part, "columns": ()}:
            each["columns"] = list(dict.fromkeys([*each["columns"], *part["columns"]]))
            return
    parts.append(part)


def _valued(table: pa.Table, tissues: Collection[str]) -> dict[str, dict[str, int]]:
    """Return of each tissue the columns in which cells have a value, and how many have one."""
    names = [name for name in table.column_names if name != "tissue_id"]
    ids = table["tissue_id"].cast(pa.string())
    plain = pa.table({"tissue_id": ids, **{n: table[n].is_valid() for n in names}})
    plain = plain.filter(pc.is_in(ids, value_set=pa.array(list(tissues), pa.string())))
    counted = plain.group_by("tissue_id").aggregate([(name, "sum") for name in names])
    return {
        row["tissue_id"]: {name: row[f"{name}_sum"] for name in names if row[f"{name}_sum"]}
        for row in counted.to_pylist()
    }
