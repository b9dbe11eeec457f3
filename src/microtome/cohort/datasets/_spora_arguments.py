"""What a `SporaDataset` is given by name, and the samples that it gives."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.cohort._merge import listed
from microtome.cohort._modality import Modality, parse_modality
from microtome.errors import InvalidInputError, NotFoundError, UnknownNameError
from microtome.storage import StorePath

from ._composed import ComposedImagingDataset
from ._spora_index import CohortIndex
from ._tissues import ComposedTissue

__all__ = [
    "Options",
    "by_name",
    "item_numbers",
    "merged_options",
    "sample_of",
    "tell_unused",
    "verify_names",
    "verify_there",
]

_log = logging.getLogger(__name__)

_IHC = "ihc"

Options = Mapping[str, Mapping[str, Any]]
"""Options of a modality's dataset, by its name."""


def by_name(
    what: str, given: Mapping[str, Any] | None, names: Sequence[str], used: Sequence[str]
) -> tuple[Any, ...] | None:
    """Return values in the order of the cohorts that are drawn from; others may have one, too.

    Raises
    ------
    UnknownNameError
        If a value is of no cohort.
    InvalidInputError
        If a cohort has no value, or values have no names.
    """
    if given is None:
        return None
    if not isinstance(given, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] (callers need not be typed)
        msg = f"{what} are numbers by the name of the dataset, of {list(names)}; got {given!r}"
        raise InvalidInputError(msg)
    unknown = sorted(set(given) - set(names))
    if unknown:
        msg = f"{what} speaks of {unknown}, which are none of the datasets {list(names)}"
        raise UnknownNameError(msg)
    missing = [name for name in used if name not in given]
    if missing:
        msg = f"{what} says nothing of {missing}; give them 0 to leave them out"
        raise InvalidInputError(msg)
    return tuple(given[name] for name in used)


def verify_names(
    names: Sequence[str],
    modalities: Sequence[str | Modality] | None,
    by_dataset: Mapping[str, Options] | None,
) -> None:
    """Refuse names that are no lists of names, given twice, or of nothing that is there."""
    for what, given in (("dataset_names", names), ("modalities", modalities)):
        if isinstance(given, str):
            msg = f"{what} is a list of names, got {given!r}"
            raise InvalidInputError(msg)
    twice = {name for name in names if list(names).count(name) > 1}
    if twice or not names:
        what = f"names {sorted(twice)} more than once" if twice else "is empty"
        msg = f"dataset_names {what}"
        raise InvalidInputError(msg)
    unknown = sorted(set(by_dataset or {}) - set(names))
    if unknown:
        msg = f"dataset_modality_kwargs speaks of {unknown}, which are none of {list(names)}"
        raise UnknownNameError(msg)


def verify_there(name: str, path: object) -> None:
    """Refuse a name of none of the cohorts in a directory; an address is asked when it is opened.

    Raises
    ------
    NotFoundError
        If there is no such directory; names the cohorts that lie beside it.
    """
    if not isinstance(path, Path) or isinstance(path, StorePath) or path.is_dir():
        return
    if not path.parent.is_dir():
        msg = f"there is no cohort at {path}: there is no directory {path.parent}"
        raise NotFoundError(msg)
    tables = path.parent.glob("*/metadata/tissues.parquet")
    there = sorted(table.parents[1].name for table in tables)
    beside = f"there are {listed(there)}" if there else "there are no cohorts"
    msg = f"there is no cohort at {path}, {name!r}; in {path.parent} {beside}"
    raise NotFoundError(msg)


def merged_options(shared: Options | None, own: Options | None) -> dict[str, dict[str, Any]]:
    """Return options by modality, a cohort's own on top of those of all."""
    found = {name: dict(options) for name, options in (shared or {}).items()}
    for name, options in (own or {}).items():
        found[name] = {**found.get(name, {}), **options}
    return found


def tell_unused(options: Mapping[str, Options], cohorts: Sequence[CohortIndex]) -> None:
    """Tell of options of modalities that no cohort has; they may be meant for other cohorts.

    Parameters
    ----------
    options
        By cohort, by modality.
    cohorts
        What is drawn from.
    """
    there = {m.name for cohort in cohorts for m in cohort.layout.modalities()}
    there |= {_IHC} & {name.partition("_")[0] for name in there}
    given = dict.fromkeys(name for own in options.values() for name in own)
    for name in given:
        known = name if name == _IHC else parse_modality(name).name
        if known not in there:
            _log.warning(
                "options of modality %r are of no use: the datasets %s have %s",
                name,
                ", ".join(cohort.name for cohort in cohorts),
                ", ".join(sorted(there)),
            )


def item_numbers(dataset: ComposedImagingDataset, rows: NDArray[np.int64]) -> list[int]:
    """Return the numbers that a dataset gives to rows of its table of tiles."""
    mine = dataset.tile_rows
    if mine is None:
        return rows.tolist()
    items = np.searchsorted(mine, rows)
    known = items < mine.size
    if not known.all() or not np.array_equal(mine[items], rows):
        msg = f"{dataset.layout.root} changed since it was opened: it has not the tiles that it had"
        raise InvalidInputError(msg)
    return items.tolist()


def sample_of(dataset_name: str, result: ComposedTissue, tile_id: int | None) -> dict[str, Any]:
    """Return a sample as spora_io has it."""
    sample: dict[str, Any] = {"dataset_name": dataset_name, "tissue_id": result.tissue_id}
    if tile_id is not None:
        sample["tile_id"] = tile_id
    sample["modalities"] = result.modalities
    return sample
