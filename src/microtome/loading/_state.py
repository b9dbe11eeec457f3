"""Where a loader stands, as plain numbers and strings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict, cast, get_type_hints

from microtome.errors import InvalidInputError
from microtome.normalization import plain_channels

from ._batches import BatchPlan, SharedPlan
from ._order import Order

__all__ = [
    "LoaderState",
    "channels_of",
    "standardization_of",
    "state_of",
    "tiles_of",
    "verify_state",
]

_VERSION = 2
# What must agree for a position inside an epoch to mean the same batches.
# Left out by earlier versions, and of sources that cannot tell: not compared then.
_MAY_BE_UNKNOWN = {"tiles": "", "standardization": "", "channels": ""}
_OF_CHANNELS = ("channel_kind", "channels", "target_channels")
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
    tiles: str
    """What tells the tiles from others of the same number; empty where the source does not say."""
    standardization: str
    """How pixels are standardized; empty where the source does not say."""
    channels: str
    """Which channels tiles have; empty where the source does not say."""
    batch_size: int
    """Tiles in a batch."""
    world_size: int
    """Number of ranks."""
    drop_last: bool
    """Whether what is left over is dropped."""


def tiles_of(source: Any) -> str:
    """Return what tells the tiles of a source from others; empty where it does not say."""
    told = getattr(source, "rows_fingerprint", "")
    return told if isinstance(told, str) else ""


def standardization_of(source: Any) -> str:
    """Return how a source standardizes pixels, as it is written; empty where it does not say."""
    for name in ("standardization", "standardizer"):
        told = getattr(source, name, None)
        if told is not None:
            return str(told)
    return ""


def channels_of(source: Any) -> str:
    """Return which channels are read, as they were asked for; empty where the source does not say."""
    told = {name: getattr(source, name) for name in _OF_CHANNELS if hasattr(source, name)}
    try:
        return ", ".join(f"{name}={plain_channels(each)!r}" for name, each in told.items())
    except (TypeError, ValueError):
        return ""  # a source of somebody's own, which calls something else so


def state_of(
    order: Order,
    plan: BatchPlan | SharedPlan,
    done: int,
    *,
    source: Any = None,
    tiles: str = "",
) -> LoaderState:
    """Return the state of a loader after so many batches of an order, over what its source tells.

    Parameters
    ----------
    order, plan
        Of the loader.
    done
        Batches handed out.
    source
        What is read.
    tiles
        From `tiles_of`: of a long table it takes a second.
    """
    return {
        "version": _VERSION,
        "seed": order.seed,
        "epoch": order.epoch,
        "batch": done,
        "batches": len(plan),
        "count": order.count,
        "order": order.kind,
        "rule": order.rule,
        "tiles": tiles,
        "standardization": standardization_of(source),
        "channels": channels_of(source),
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
    if not isinstance(state, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] - what a checkpoint holds
        msg = f"a state is a dictionary, from state_dict() of a TileLoader, got {state!r}"
        raise InvalidInputError(msg)
    state = {**_MAY_BE_UNKNOWN, **state}
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
        if state["tiles"] and own["tiles"] and state["tiles"] != own["tiles"]:
            msg = (
                f"the state stands at batch {done} of {of} over other tiles: as many as this loader's "
                f"source has, but not the same ones in the same order (fingerprint {state['tiles']}, here "
                f"{own['tiles']}); resume with the table of tiles that it was made with (draws of several "
                "cohorts: also with their seed and rule), or at the start of an epoch"
            )
            raise InvalidInputError(msg)
        for name, what in (
            ("standardization", "of pixels standardized by {}, this loader's are by {}"),
            ("channels", "of tiles with {}, this loader's have {}"),
        ):
            before, here = state[name], mine[name]
            if before and here and before != here:
                told = what.format(before, here)
                msg = (
                    f"the state stands at batch {done} of {of} {told}: resume with the same, or at the "
                    "start of an epoch"
                )
                raise InvalidInputError(msg)
    return done, of
