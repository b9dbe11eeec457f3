"""Samples that torch's own rule of collating would turn inside out: it is told to refuse them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NoReturn

from microtome.errors import InvalidInputError

__all__ = ["RegionSample", "refuse"]


def refuse(kind: type, why: str) -> None:
    """Have torch's `default_collate` refuse values of a type, with a message; nothing without torch.

    Parameters
    ----------
    kind
        The type, not one that it inherits from.
    why
        What to do instead.
    """
    # Only where somebody uses it: torch is not imported for this.
    collate = sys.modules.get("torch.utils.data._utils.collate")
    if collate is not None:
        collate.default_collate_fn_map[kind] = _refusing(why)


def _refusing(why: str) -> Callable[..., NoReturn]:
    def refused(_batch: Any, *, collate_fn_map: Any = None) -> NoReturn:
        del collate_fn_map
        raise InvalidInputError(why)

    return refused


class RegionSample(tuple[Any, ...]):
    """A patch of a `RegionDataset`: a tuple of an input, and its target where there are targets."""

    __slots__ = ()

    @classmethod
    def refused_by_torch(cls) -> None:
        """See to it that torch's own rule refuses samples, whose metadata it would turn inside out."""
        refuse(
            cls,
            "torch's own collate cannot put samples of a RegionDataset together: make the DataLoader with "
            "collate_fn=RegionDataset.collate, or load with TileLoader",
        )
