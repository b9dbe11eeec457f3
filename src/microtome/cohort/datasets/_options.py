"""Options of datasets that are known by their names only: which there are, and which are none."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable

from microtome.errors import InvalidInputError

from ._dataset import DatasetOptions

__all__ = ["options_of", "verify_options"]


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
