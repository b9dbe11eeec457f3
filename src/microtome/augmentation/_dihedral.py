"""Turns and mirror images in the plane of Y and X."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError
from microtome.regions import turned

from ._augmentation import Draws

__all__ = ["DihedralAugmentation"]

_EVERY = tuple(range(8))


@dataclass(frozen=True, slots=True)
class DihedralAugmentation:
    """The eight turns and mirror images of a patch, all equally likely, in Y and X.

    State `k` is ``k % 4`` quarter turns counter-clockwise (`numpy.rot90`) of the patch, whose last
    axis is mirrored first where ``k >= 4``; 0 is the patch as it is. Of a patch that is not square
    only the four states that keep its shape are drawn: 0, 2, 4 and 6. Recorded as ``"dihedral": k``.

    Parameters
    ----------
    states
        The states that are drawn; all by default.

    Raises
    ------
    InvalidInputError
        If there is no state, or one is not from 0 to 7, or comes twice.
    """

    states: Sequence[int] = _EVERY

    name: str = field(default="dihedral", init=False, repr=False)
    geometric: bool = field(default=True, init=False, repr=False)
    targets: bool = field(default=True, init=False, repr=False)

    def __post_init__(self) -> None:
        given = tuple(int(state) for state in self.states)
        if not given or len(set(given)) < len(given) or not set(given) <= set(_EVERY):
            msg = f"states are different numbers from 0 to 7, got {tuple(self.states)}"
            raise InvalidInputError(msg)
        object.__setattr__(self, "states", given)

    def draw(self, rows: NDArray[np.int64], draws: Draws, shape: tuple[int, ...]) -> Sequence[int]:
        """Choose a state for each patch; see `Augmentation.draw`.

        Raises
        ------
        InvalidInputError
            If the patch is not square and no state keeps its shape.
        """
        kept = [state for state in self.states if shape[-1] == shape[-2] or state % 2 == 0]
        if not kept:
            msg = (
                f"quarter turns do not keep the shape of a patch of {shape[-2]} x {shape[-1]}, and "
                f"states={self.states} are nothing else"
            )
            raise InvalidInputError(msg)
        at = np.floor(draws.uniform(rows, 1)[:, 0] * len(kept)).astype(np.intp)
        return np.asarray(kept)[at].tolist()

    def apply(self, pixels: NDArray[Any], record: int) -> NDArray[Any]:
        """Return a view of a patch, turned; see `Augmentation.apply`."""
        return turned(pixels, record)

    def undo(self, pixels: Any, record: int) -> Any:
        """Turn back pixels of any size; see `Augmentation.undo`."""
        torch = cast("Any", sys.modules.get("torch"))  # a tensor is there only where torch is
        if torch is not None and isinstance(pixels, torch.Tensor):
            turned = torch.rot90(pixels, -(record % 4), (-2, -1))
            return turned.flip(-1) if record >= 4 else turned
        turned = np.rot90(np.asarray(pixels), -(record % 4), axes=(-2, -1))
        return turned[..., ::-1] if record >= 4 else turned
