"""Where a loader stands, as plain numbers and strings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict, cast, get_type_hints

from microtome.errors import InvalidInputError

from ._batches import BatchPlan, SharedPlan
from ._order import Order

__all__ = ["LoaderState", "state_of", "verify_state"]

_VERSION = 2
# What must agree for a position inside an epoch to mean the same batches.
_FIXED_IN_AN_EPOCH = ("count", "order", "rule", "batch_size", "world_size", "drop_last")


class LoaderState(TypedDict):
    """Where a loader stands: plain numbers and strings, the same on every rank."""

    version: int
    """Version of this form."""
    seed: int
    """Seed of the order."""
    epoch: int
    """The epoch that is being read."""
    batch: int
    """How many of its batches have been handed out."""
    batches: int
    """How many it has."""
    count: int
    """Positions of an epoch."""
    order: str
    """Kind of the order."""
    rule: str
    """What else the order depends on."""
    batch_size: int
    """Tiles in a batch."""
    world_size: int
    """Number of ranks."""
    drop_last: bool
    """Whether what is left over is dropped."""


def state_of(order: Order, plan: BatchPlan | SharedPlan, done: int) -> LoaderState:
    """Return the state of a loader after so many batches of an order."""
    return {
        "version": _VERSION,
        "seed": order.seed,
        "epoch": order.epoch,
        "batch": done,
        "batches": len(plan),
        "count": order.count,
        "order": order.kind,
        "rule": order.rule,
        "batch_size": plan.batch_size,
        "world_size": plan.world_size,
        "drop_last": plan.drop_last,
    }


def verify_state(state: Mapping[str, Any], own: LoaderState) -> tuple[int, int]:
    """Return at which batch a state stands and of how many, if a loader can go on there.

    Parameters
    ----------
    state
        What is to be gone on with.
    own
        The loader's own state.

    Raises
    ------
    InvalidInputError
        If it is no state, or stands in the middle of an epoch that the loader would cut otherwise.
    """
    wrong = [
        name
        for name, kind in get_type_hints(LoaderState).items()
        if type(state.get(name)) is not kind
    ]
    if wrong or state["version"] != _VERSION:
        msg = f"not the state of a TileLoader, version {_VERSION}: {dict(state)}"
        raise InvalidInputError(msg)
    done, of = int(state["batch"]), int(state["batches"])
    if not 0 <= done <= of:
        msg = f"a state cannot stand at batch {done} of {of}"
        raise InvalidInputError(msg)
    # Between epochs anything may change; inside one, the same batches must come out.
    if 0 < done < of:
        mine = cast("dict[str, Any]", own)
        for name in _FIXED_IN_AN_EPOCH:
            if state[name] != mine[name]:
                msg = (
                    f"the state stands at batch {done} of {of} with {name} {state[name]!r}, this "
                    f"loader has {mine[name]!r}: resume with the same, or at the start of an epoch"
                )
                raise InvalidInputError(msg)
    return done, of
