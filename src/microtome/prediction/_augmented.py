"""A model asked about every turn and mirror image of a batch, and the mean of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError

from ._model import copy_on, model_name, running
from ._output import as_array

__all__ = ["TestTimeAugmentation"]

_RANK = 4


class TestTimeAugmentation:
    """A model whose answer is the mean over the turns and mirror images of what it is shown.

    It is a model itself: for `predict`, or any loop. The model below is asked `states` times a
    batch. Where that model turns with its input, the answer is the same as without.

    Parameters
    ----------
    model
        A torch module or any callable from (B, C, Y, X) to (B, C', Y', X') of floating numbers.
        Its `channel_names`, where it has them, are this one's.
    states
        8 for all turns and mirror images, which need square tiles; 4 for those that keep the
        shape of any tile: none, both mirrors, half a turn.

    Raises
    ------
    InvalidInputError
        If `states` is neither, or the model cannot be called.
    """

    __test__ = False  # pytest takes what is called Test for tests

    def __init__(self, model: Any, states: int = 8) -> None:
        if states not in (4, 8):
            msg = f"states must be 4 or 8, got {states!r}"
            raise InvalidInputError(msg)
        with running(model):
            pass  # refuses what is no model, now rather than at the first batch
        self.model = model
        self.states = states

    @property
    def channel_names(self) -> Sequence[str] | None:
        """Names of the channels of the answer, where the model has them."""
        return getattr(self.model, "channel_names", None)

    @property
    def microtome_name(self) -> str:
        """What an image says that it was predicted with."""
        return f"TestTimeAugmentation({model_name(self.model)}, states={self.states})"

    def microtome_on(self, device: Any) -> TestTimeAugmentation:
        """Return one whose model is a copy on a device: what `predict` asks for with `devices`."""
        return TestTimeAugmentation(copy_on(self.model, device), self.states)

    def __call__(self, batch: Any) -> NDArray[Any]:
        """Return the mean answer.

        Parameters
        ----------
        batch
            (B, C, Y, X), an array or a tensor; with 8 states, Y = X.

        Returns
        -------
        (B, C', Y', X'), in the model's dtype; the mean is taken in float64.

        Raises
        ------
        InvalidInputError
            If the batch or the answer has another shape, or the answer is of integers: those are
            labels, of which there is no mean.
        """
        shown = as_array(batch)
        if shown.ndim != _RANK:
            msg = f"turns and mirrors are those of flat tiles, (B, C, Y, X); got {shown.shape}"
            raise InvalidInputError(msg)
        height, width = shown.shape[-2:]
        if self.states == 8 and height != width:
            msg = f"8 states need square tiles, got {height} x {width}; use states=4"
            raise InvalidInputError(msg)
        # Once a batch, not once a state: a module's parts are walked through each time.
        with running(self.model) as run:
            first = _answer(run, shown, 0, mirrored=False)
            total = first.astype(np.float64)
            for turn in range(0, 4, 1 if self.states == 8 else 2):
                for mirrored in (False, True):
                    if not turn and not mirrored:
                        continue
                    made = _answer(run, shown, turn, mirrored=mirrored)
                    if made.shape != first.shape:
                        msg = f"the model returned {first.shape} for a batch and {made.shape} for a turned one"
                        raise InvalidInputError(msg)
                    total += made
        total /= self.states
        return total.astype(first.dtype)


def _answer(run: Any, batch: NDArray[Any], turn: int, *, mirrored: bool) -> NDArray[Any]:
    """Turn a batch, mirror it, and take both back from the model's answer."""
    shown = np.rot90(batch, turn, (-2, -1))
    shown = shown[..., ::-1] if mirrored else shown
    made = as_array(run(np.ascontiguousarray(shown)))
    if made.dtype.kind != "f":
        msg = f"the mean of {made.dtype} labels has no meaning; the model must return floating numbers"
        raise InvalidInputError(msg)
    if made.ndim != _RANK:
        msg = f"the model must return (B, C, Y, X), got {made.shape}"
        raise InvalidInputError(msg)
    return np.rot90(made[..., ::-1] if mirrored else made, -turn, (-2, -1))
