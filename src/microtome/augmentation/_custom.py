"""A function of the user's as an augmentation."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError

from ._augmentation import Draws

__all__ = ["CustomAugmentation"]


@dataclass(frozen=True, slots=True)
class CustomAugmentation:
    """A function that changes patches.

    Recorded under its name: `seed`, `epoch`, `row` and `number`, which give its random numbers again.

    Parameters
    ----------
    name
        What it is recorded as.
    function
        Called with a normalized patch, float32 C(Z)YX, which it may change, and a
        `numpy.random.Generator`; returns a patch of the same shape. For workers in other processes
        a function of a module, not one inside another.
    targets
        Whether it is also called for the target, with the generator in the same state.
    inverse
        Called likewise, by `undo`; None where there is no way back.
    """

    name: str
    function: Callable[[NDArray[np.float32], np.random.Generator], NDArray[Any]]
    targets: bool = False
    inverse: Callable[[NDArray[np.float32], np.random.Generator], NDArray[Any]] | None = None

    geometric: bool = field(default=False, init=False, repr=False)

    def draw(
        self, rows: NDArray[np.int64], draws: Draws, shape: tuple[int, ...]
    ) -> Sequence[dict[str, int]]:
        """Say which generator each patch has; see `Augmentation.draw`."""
        del shape
        common = {"seed": draws.seed, "epoch": draws.epoch, "number": draws.number}
        return [{**common, "row": row} for row in rows.tolist()]

    def apply(self, pixels: NDArray[Any], record: dict[str, int]) -> NDArray[Any]:
        """Call the function; see `Augmentation.apply`.

        Raises
        ------
        InvalidInputError
            If it returns a patch of another shape.
        """
        return self._called(self.function, pixels, record)

    def undo(self, pixels: Any, record: dict[str, int]) -> Any:
        """Call the inverse; see `Augmentation.undo`.

        Raises
        ------
        InvalidInputError
            If there is none, or it returns pixels of another shape.
        """
        if self.inverse is None:
            msg = f"augmentation {self.name!r} has no inverse, and cannot be undone"
            raise InvalidInputError(msg)
        torch = cast("Any", sys.modules.get("torch"))  # a tensor is there only where torch is
        if torch is None or not isinstance(pixels, torch.Tensor):
            return self._called(self.inverse, np.array(pixels, np.float32), record)
        values = pixels.detach().to("cpu", torch.float32, copy=True).numpy()
        made = np.require(self._called(self.inverse, values, record), requirements=["C", "W"])
        return torch.from_numpy(made).to(pixels.device)

    def _called(
        self, function: Callable[..., Any], pixels: NDArray[Any], record: dict[str, int]
    ) -> NDArray[Any]:
        draws = Draws(record["seed"], record["epoch"], record["number"])
        shape = pixels.shape
        made = np.asarray(function(pixels, draws.generator(record["row"])))
        if made.shape != shape:
            msg = f"augmentation {self.name!r} has to return a patch of {shape}, got {made.shape}"
            raise InvalidInputError(msg)
        return made
