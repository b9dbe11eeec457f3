"""Options of datasets of one modality: which there are, and which are none."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, TypedDict

from microtome.coordinates import Resolution
from microtome.errors import InvalidInputError
from microtome.storage import Place, StorageOptions, StorePath

from ._labels import LabelType, MissingLabels

__all__ = ["DatasetOptions", "options_of", "verify_options"]


class DatasetOptions(TypedDict, total=False):
    """What every dataset of one modality takes beside its name; see `BaseImagingDataset`."""

    resolution: float | str | tuple[float, float] | Resolution | None
    path: str | os.PathLike[str] | Place | StorePath | None
    storage_options: StorageOptions | None
    tile_size: int | tuple[int, int] | None
    tile_strategy: str | None
    split: str | None
    label: str | None
    labels_to_keep: Sequence[Any] | None
    label_modifying_fn: Callable[[Any], Any] | None
    label_type: LabelType
    missing_labels: MissingLabels
    load_cell_metadata: bool
    with_masks: bool
    with_cells: bool
    filter_list: Sequence[str] | None
    verbose: bool


def options_of(dataset: type) -> tuple[str, ...]:
    """Return the names of the options that a class of datasets takes, its own first."""
    parameters = inspect.signature(dataset).parameters.values()
    own = [each.name for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY]
    return (*own, *DatasetOptions.__annotations__)


def verify_options(what: str, given: Iterable[str], known: Collection[str]) -> None:
    """Refuse options that there are not.

    Parameters
    ----------
    what
        Whose they are, for the message.
    given, known
        Names of those that are given, and of all that there are.

    Raises
    ------
    InvalidInputError
        If there are others among them; lists those that there are.
    """
    unknown = [name for name in given if name not in known]
    if unknown:
        shown = ", ".join(map(repr, unknown))
        msg = f"{what} has no option {shown}; there are {', '.join(known)}"
        raise InvalidInputError(msg)
