"""Tissues of a cohort of which there is no prediction: told in one error, after the others are done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

from microtome.errors import ExistsError, MicrotomeError, ModelError

from ._finished import ADVICE

__all__ = ["refuse"]

# Of any number of tissues that are refused, these are told of.
_NAMED = 5


def refuse(
    refused: Mapping[str, MicrotomeError], count: int, *, also: MicrotomeError | None = None
) -> NoReturn:
    """Say of which tissues there is no prediction, and why.

    Parameters
    ----------
    refused
        What stopped each.
    count
        Of how many.
    also
        What kept the vectors of tiles from being made.

    Raises
    ------
    ModelError
        If the model failed on some; the first of what it raised is the cause.
    ExistsError
        If other predictions were there, and nothing else went wrong.
    MicrotomeError
        Of the kind that all have in common, otherwise.
    """
    there = [
        str(error).removesuffix(ADVICE)
        for error in refused.values()
        if isinstance(error, ExistsError)
    ]
    by_model = {name: error for name, error in refused.items() if isinstance(error, ModelError)}
    others = {
        name: error
        for name, error in refused.items()
        if not isinstance(error, ExistsError | ModelError)
    }
    told = [_told(name, error) for name, error in list(others.items())[:_NAMED]]
    if len(others) > _NAMED:
        told.append(f"and so on for {_listed(list(others)[_NAMED:])}")
    if by_model:
        first, *more = by_model
        told.append(_told(first, by_model[first]))
        if more:
            told.append(f"and the model failed on {_listed(more)}")
    if there:
        more_there = f"; and {len(there) - _NAMED} more" if len(there) > _NAMED else ""
        hint = "replace predictions with --overwrite (overwrite=True), of these tissues alone with --tissue (tissues=)"
        told.append(f"{'; '.join(there[:_NAMED])}{more_there}; {hint}")
    if also is not None:
        told.append(f"vectors of tiles are not made: {also}")
    msg = f"{len(refused)} of {count} tissues are not predicted: {'; '.join(told)}"
    if by_model:
        error = next(iter(by_model.values()))
        raise ModelError(msg) from error.__cause__ or error
    if others:
        raise _common(list(others.values()))(msg) from next(iter(others.values()))
    raise ExistsError(msg)


def _told(name: str, error: MicrotomeError) -> str:
    said = str(error)
    return said if said.startswith(f"{name}: ") else f"{name}: {said}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _common(errors: Sequence[MicrotomeError]) -> type[MicrotomeError]:
    """Return the kind that errors have in common."""
    for kind in type(errors[0]).__mro__:
        if issubclass(kind, MicrotomeError) and all(isinstance(error, kind) for error in errors):
            return kind
    return MicrotomeError
