"""Which of the cohorts that a `SporaDataset` is asked for are drawn from."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence

from microtome.cohort._directory import cohort_directory
from microtome.errors import InvalidInputError
from microtome.storage import StorageOptions

from ._spora_arguments import Options, tell_unused, verify_there
from ._spora_index import CohortIndex, CohortWish, read_cohort_index

__all__ = ["open_cohorts"]

_log = logging.getLogger(__name__)


def open_cohorts(
    names: Sequence[str],
    directory: str | os.PathLike[str] | None,
    wish: CohortWish,
    options: Mapping[str, Options],
    *,
    storage_options: StorageOptions | None,
) -> list[CohortIndex]:
    """Read the tables of cohorts; those without an image that is asked for are told and left out.

    Parameters
    ----------
    names
        The cohorts.
    directory
        Where they lie; None for where SPORA_DATASETS_DIR says.
    wish
        What is asked of each.
    options
        Of modalities, by cohort.
    storage_options
        How stores are reached.

    Raises
    ------
    NotFoundError
        If there is no such cohort, or it lacks an image or a table.
    InvalidInputError
        If none is left.
    """
    found: list[CohortIndex] = []
    for name in names:
        path = cohort_directory(name, None, among=directory, said_by="datasets_dir=")
        verify_there(name, path)
        cohort = read_cohort_index(name, path, wish, options[name], storage_options=storage_options)
        if cohort is None:
            _log.warning(
                "dataset %r is skipped: it has no images%s at %s um per pixel or finer",
                name,
                f" of {', '.join(map(str, wish.modalities))}"
                if wish.modalities is not None
                else "",
                wish.resolution,
            )
            continue
        cohort.verify_statistics(wish, options[name])
        found.append(cohort)
    if not found:
        msg = (
            f"none of the datasets {list(names)} has images of {wish.modalities or 'any modality'}"
        )
        raise InvalidInputError(msg)
    tell_unused(options, found)
    return found
