"""What earlier runs of `measure_cells` measured, and whether that is of what there is now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from microtome.cohort._cell_inputs import ABOUT, BROUGHT_OF, MEAN, cells_parts
from microtome.cohort._layout import CohortLayout
from microtome.cohort._made_of import Inputs, changed, noted_inputs, told_change
from microtome.cohort._tables import read_parquet

from ._put_cells import Anew

__all__ = ["MeasuredBefore"]

_PLACES = frozenset({"centroid_y", "centroid_x", "area_um2"})

State = Literal["same", "stale", "other"]
"""`same`: measured of what there is now. `stale`: of something that was replaced since, and of nothing
else. `other`: not yet, or nobody knows of what, or partly by somebody else."""


@dataclass(frozen=True, slots=True)
class MeasuredBefore:
    """Cells that are in the table, and what it says they were measured of."""

    noted: Mapping[str, Inputs]
    counts: Mapping[str, int]
    """Cells by tissue."""

    @classmethod
    def read(cls, layout: CohortLayout) -> MeasuredBefore:
        """Read the table of cells; nothing where there is none.

        Raises
        ------
        FormatError
            If it is damaged.
        """
        if not layout.cells.is_file():
            return cls({}, {})
        table = read_parquet(layout.cells, ["tissue_id", "cell_id"])
        names: list[Any] = table["tissue_id"].cast(pa.string()).to_pylist()
        return cls(noted_inputs(table.schema.metadata), Counter(names))

    def state(self, tissue_id: str, fresh: Sequence[Inputs], modality: str | None) -> State:
        """Return whether a tissue's cells have to be measured.

        Parameters
        ----------
        tissue_id
            Which.
        fresh
            What its cells would be made of now: of their places, and of means of channels.
        modality
            Whose channels; None for none.
        """
        places, means = fresh[0], fresh[-1] if modality is not None else None
        columns = _PLACES | set(means["columns"] if means is not None else ())
        own, others = self._parts(tissue_id, places)
        if any(_speaks_of(part, columns) for part in others):
            return "other"
        of_places = [part for part in own if _speaks_of(part, _PLACES)]
        of_means = [part for part in own if means is not None and _is_of(part, modality)]
        if any(_replaced(part, places) for part in of_places):
            return "stale"
        if means is None:
            return "same" if _covers(of_places, _PLACES, places, ["cell_mask"]) else "other"
        if any(_replaced(part, means) for part in of_means):
            return "stale"
        known = _covers(of_places, _PLACES, places, ["cell_mask"])
        known = known and _covers(of_means, means["columns"], means, ["cell_mask", str(modality)])
        return "same" if known else "other"

    def anew(
        self, tissue_id: str, fresh: Sequence[Inputs], modality: str | None, *, overwrite: bool
    ) -> Anew:
        """Return what is forgotten of a tissue when it is measured anew.

        Without `overwrite` no cell is lost of which anybody else said something.
        """
        own, _ = self._parts(tissue_id, fresh[0])
        forget = {name for part in own if _is_of(part, modality) for name in _means_in(part)}
        if overwrite:
            return Anew(frozenset(forget), None)
        parts = cells_parts(self.noted.get(tissue_id, {}))
        measured = {n for p in parts if p.get("kind") is not None for n in p.get("columns") or ()}
        brought = {n for p in parts if p.get("kind") is None for n in p.get("columns") or ()}
        return Anew(frozenset(forget), frozenset(measured - brought))

    def told(self, made_of: Mapping[str, Sequence[Inputs]]) -> str:
        """Say of which other images and masks cells were made; nothing of the same."""
        stale: dict[str, list[str]] = {}
        for tissue, fresh in made_of.items():
            now = {name: each for part in fresh for name, each in part.items()}
            kind = fresh[0]["kind"]
            parts = cells_parts(self.noted.get(tissue, {}))
            parts = [part for part in parts if (part.get("kind") or BROUGHT_OF) == kind]
            names = [name for part in parts for name in _replaced(part, now)]
            if names:
                stale[tissue] = list(dict.fromkeys(names))
        return told_change(stale)

    def _parts(
        self, tissue_id: str, fresh: Inputs
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return the parts that were measured on this grid in masks of this kind, and all others."""
        parts = cells_parts(self.noted.get(tissue_id, {}))
        alike = [all(p.get(n) == fresh[n] for n in ("kind", "resolution")) for p in parts]
        own = [part for part, mine in zip(parts, alike, strict=True) if mine]
        return own, [part for part, mine in zip(parts, alike, strict=True) if not mine]


def _speaks_of(part: Inputs, columns: set[str] | frozenset[str]) -> bool:
    names = part.get("columns")
    return names is None or not columns.isdisjoint(names)


def _means_in(part: Inputs) -> list[str]:
    return [name for name in part.get("columns") or () if name.startswith(MEAN)]


def _is_of(part: Inputs, modality: str | None) -> bool:
    """Whether a part speaks of means of a modality's channels."""
    return modality is not None and modality in part and bool(_means_in(part))


def _replaced(part: Inputs, now: Inputs) -> list[str]:
    return [name for name in changed(part, now) if name not in ABOUT]


def _covers(
    parts: Sequence[Inputs], columns: Sequence[str] | frozenset[str], now: Inputs, names: list[str]
) -> bool:
    """Whether columns are known to be of the same that there is now."""
    wanted = [now.get(name) for name in names]
    if None in wanted:
        return False
    same = [part for part in parts if [part.get(name) for name in names] == wanted]
    return set(columns) <= {name for part in same for name in part.get("columns") or ()}
