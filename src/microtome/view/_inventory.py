"""What a cohort holds, as far as it holds it: a missing piece is told, not raised."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from microtome.cohort import (
    CohortLayout,
    Modality,
    open_tiles,
    parse_modality,
    read_tissues,
    tile_size_of,
    tile_statistics,
)
from microtome.coordinates import Resolution
from microtome.errors import FormatError, MicrotomeError, UnknownNameError
from microtome.storage import StorageOptions, StorePath
from microtome.tiling import TileTable

__all__ = [
    "Inventory",
    "Missing",
    "Tiling",
    "Tissue",
    "attempt",
    "is_in_store",
    "open_tiling",
    "standardization_tables",
    "take_inventory",
]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

# What every tissue table has; any other column is the cohort's own.
_KNOWN = frozenset(
    [
        "tissue_id",
        "dataset",
        "modality",
        "split",
        "mpp",
        "mpp_source",
        "width",
        "height",
        "source",
        "sha256",
    ]
)


@dataclass(frozen=True, slots=True)
class Missing:
    """What is not there, and the command that makes it."""

    text: str
    command: str | None = None


@dataclass(frozen=True, slots=True)
class Tiling:
    """A tiling of a resolution."""

    strategy: str
    size: str
    tiles: int
    """On all tissues."""
    statistics: dict[str, dict[str, Any]]
    """Rows of its statistics by tissue; empty where there are none."""
    table: TileTable

    @property
    def name(self) -> str:
        """Strategy and size."""
        return f"{self.strategy} {self.size} px"

    def row(self, tissue_id: str) -> dict[str, Any]:
        """Return the statistics of a tissue; empty where there are none."""
        return self.statistics.get(tissue_id, {})

    def count(self, tissue_id: str) -> int:
        """Return how many tiles lie on a tissue."""
        try:
            return int(self.table.positions(tissue_id).size)
        except UnknownNameError:
            return 0


@dataclass(frozen=True, slots=True)
class Tissue:
    """A tissue at a resolution, with the images that there should be of it."""

    tissue_id: str
    resolution: Resolution
    modalities: tuple[Modality, ...]
    """Brightfield first."""
    values: dict[str, Any]
    """What else the tissue table says: clinical columns and the like."""
    split: str | None


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a cohort holds."""

    layout: CohortLayout
    rows: tuple[dict[str, Any], ...]
    """Of the tissue table."""
    resolutions: tuple[Resolution, ...]
    tissues: tuple[Tissue, ...]
    """Resolution by resolution, in the order of the tissue table."""
    tilings: dict[Resolution, tuple[Tiling, ...]]
    """The tiling that pictures show comes first: ``"default"`` where there is one."""
    models: dict[Resolution, tuple[str, ...]]
    """Names of the models that predicted something."""
    problems: tuple[str, ...]
    """What is there but cannot be read."""

    def command(self, verb: str, resolution: Resolution | None = None, *options: str) -> str:
        """Return the command line of a verb, such as ``"cohort validate"``, on this cohort."""
        parts = [str(self.layout.root)]
        if resolution is not None and len(self.resolutions) > 1:
            parts += ["--resolution", str(resolution)]
        return f"microtome {verb} {shlex.join([*parts, *options])}"

    def tiling(self, resolution: Resolution) -> Tiling | None:
        """Return the tiling that pictures show."""
        found = self.tilings.get(resolution, ())
        return found[0] if found else None


def is_in_store(layout: CohortLayout) -> bool:
    """Whether a cohort lies in a store, where files are neither listed whole nor measured."""
    return isinstance(cast("object", layout.root), StorePath)


def attempt(what: str, function: Callable[[], _T]) -> _T | Missing:
    """Return what a function returns, or what is wrong with the cohort's files.

    Parameters
    ----------
    what
        What is attempted, for the log.
    function
        Without arguments.
    """
    try:
        return function()
    except MicrotomeError as error:
        _log.warning("report: %s: %s", what, error)
        return Missing(str(error))


def standardization_tables(
    layout: CohortLayout, modality: Modality, resolution: Resolution
) -> Path | None:
    """Return the first directory of standardization tables of a panel; None where it has none."""
    if modality.kind != "multiplex":
        return None
    base = layout.standardization(modality, resolution)
    return next((p.parent for p in sorted(base.glob("*/*/*_upper_quantiles.parquet"))), None)


def take_inventory(
    cohort: str | os.PathLike[str], storage_options: StorageOptions | None = None
) -> Inventory:
    """Look at what lies in a cohort.

    Parameters
    ----------
    cohort
        Its directory, or its address in a store.
    storage_options
        How stores are reached.

    Raises
    ------
    NotFoundError, FormatError
        If it is no cohort, or its tissue table is damaged.
    """
    layout = CohortLayout.open(cohort, reading=True, storage_options=storage_options)
    rows: list[dict[str, Any]] = read_tissues(layout).to_pylist()
    resolutions = tuple(layout.resolutions())
    problems: list[str] = []
    tilings: dict[Resolution, tuple[Tiling, ...]] = {}
    models: dict[Resolution, tuple[str, ...]] = {}
    tissues: list[Tissue] = []
    for resolution in resolutions:
        tissues += _tissues(layout, rows, resolution, problems)
        found: list[Tiling] = []
        for strategy, size in layout.tilings(resolution):
            opened = attempt(
                f"tiles {strategy} {size}",
                lambda s=strategy, n=size, r=resolution: _tiling(layout, r, s, n),
            )
            if isinstance(opened, Missing):
                problems.append(opened.text)
            else:
                found.append(opened)
        tilings[resolution] = tuple(sorted(found, key=lambda tiling: tiling.strategy != "default"))
        base = layout.predictions(resolution, "any").parent
        models[resolution] = tuple(
            sorted(p.name for p in base.glob("*") if p.is_dir() and not p.name.startswith("."))
        )
    return Inventory(
        layout, tuple(rows), resolutions, tuple(tissues), tilings, models, tuple(problems)
    )


def _tissues(
    layout: CohortLayout,
    rows: list[dict[str, Any]],
    resolution: Resolution,
    problems: list[str],
) -> list[Tissue]:
    modalities: dict[str, list[Modality]] = {}
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        modality = attempt("the tissue table", lambda r=row: parse_modality(str(r["modality"])))
        tissue_id = str(row["tissue_id"])
        if isinstance(modality, Missing):
            problems.append(f"tissue {tissue_id!r}: {modality.text}")
        elif layout.images(modality, resolution).is_dir():
            modalities.setdefault(tissue_id, []).append(modality)
            # Values that stand in one of its rows only are still the tissue's.
            known = first.setdefault(tissue_id, {})
            known.update({k: v for k, v in row.items() if known.get(k) is None})
    return [
        Tissue(
            tissue_id,
            resolution,
            tuple(sorted(kinds, key=lambda m: (m.name != "he", m.kind != "brightfield", m.name))),
            {k: v for k, v in first[tissue_id].items() if k not in _KNOWN and v is not None},
            first[tissue_id].get("split"),
        )
        for tissue_id, kinds in modalities.items()
    ]


def _tiling(layout: CohortLayout, resolution: Resolution, strategy: str, size: str) -> Tiling:
    try:
        sides = tile_size_of(size)
    except FormatError as error:
        path = layout.tile_coordinates(resolution, strategy, size)
        msg = f"{path}: the name of a table of tiles begins with their size, {size!r} is none"
        raise FormatError(msg) from error
    return open_tiling(layout, resolution, strategy, sides)


def open_tiling(
    layout: CohortLayout, resolution: Resolution, strategy: str, tile_size: tuple[int, int]
) -> Tiling:
    """Open a table of tiles with its statistics.

    Parameters
    ----------
    layout, resolution, strategy, tile_size
        Which; the size is (height, width) in pixels.

    Raises
    ------
    InvalidInputError
        If there is none.
    FormatError
        If a table is damaged.
    """
    table = open_tiles(layout, resolution, strategy, tile_size)
    height, width = tile_size
    size = str(height) if height == width else f"{height}x{width}"
    statistics: dict[str, dict[str, Any]] = {}
    if layout.tile_stats(resolution, strategy, size).is_file():
        for row in tile_statistics(layout, resolution, strategy, size):
            statistics[str(row.get("tissue_id"))] = row
    return Tiling(strategy, size, len(table), statistics, table)
