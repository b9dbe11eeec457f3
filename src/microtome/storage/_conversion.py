"""What is done to pixels on the way into a batch of float32: a few steps, one number a channel each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError

__all__ = ["STEP_KINDS", "Conversion", "StepKind"]

StepKind = Literal["clip", "subtract", "divide", "multiply", "add"]
"""What a step does; ``"clip"`` has two numbers a channel, all others one."""

STEP_KINDS: tuple[StepKind, ...] = get_args(StepKind)


@dataclass(frozen=True, slots=True, eq=False)
class Conversion:
    """Pixels as float32, and steps that every pixel is taken through by itself, channel by channel.

    Without steps, the conversion alone. Reads that have one do both while the pixels are in the
    processor's cache; the bytes are those that NumPy gives for one step after the other.

    Parameters
    ----------
    kinds
        The steps, in order.
    first
        The number of each channel in each step, (steps, channels); for ``"clip"`` the least value.
    second
        The greatest value of ``"clip"``; of no meaning in other steps.

    Raises
    ------
    InvalidInputError
        If a step is none, or numbers are not finite or of another shape.

    Examples
    --------
    >>> import numpy as np
    >>> half = Conversion.of([("clip", [0, 0], [100, 50]), ("divide", [100, 50])])
    >>> pixels = np.array([[[0, 50, 200]], [[0, 50, 200]]], np.float32)
    >>> half.apply(pixels).tolist()
    [[[0.0, 0.5, 1.0]], [[0.0, 1.0, 1.0]]]
    """

    kinds: tuple[StepKind, ...]
    first: NDArray[np.float32]
    second: NDArray[np.float32]

    def __post_init__(self) -> None:
        # Compiled code takes nothing else, and NumPy would count in another precision.
        for name in ("first", "second"):
            with np.errstate(over="ignore"):  # refused below
                numbers = np.require(getattr(self, name), np.float32, ["C", "W"])
            object.__setattr__(self, name, numbers)
        wrong = [kind for kind in self.kinds if kind not in STEP_KINDS]
        shape = self.first.shape
        if wrong or len(shape) != 2 or shape != self.second.shape or shape[0] != len(self.kinds):
            msg = (
                f"steps are of {', '.join(STEP_KINDS)} and have a number a channel each, got "
                f"{self.kinds} with numbers of shape {shape} and {self.second.shape}"
            )
            raise InvalidInputError(msg)
        if not (np.isfinite(self.first).all() and np.isfinite(self.second).all()):
            msg = f"steps {self.kinds} need finite numbers"
            raise InvalidInputError(msg)

    @classmethod
    def of(cls, steps: Sequence[tuple[Any, ...]] = ()) -> Conversion:
        """Make one of steps such as ``("clip", least, greatest)`` and ``("divide", numbers)``."""
        kinds = tuple(step[0] for step in steps)
        first = [np.asarray(step[1], np.float32) for step in steps]
        second = [np.asarray(step[-1], np.float32) for step in steps]
        if not steps:
            return cls((), np.zeros((0, 0), np.float32), np.zeros((0, 0), np.float32))
        if len({numbers.shape for numbers in (*first, *second)}) > 1:
            msg = f"steps {kinds} need as many numbers as there are channels, each of them"
            raise InvalidInputError(msg)
        return cls(kinds, np.stack(first), np.stack(second))

    @property
    def channels(self) -> int | None:
        """How many channels it is for; None for any number."""
        return self.first.shape[1] if self.kinds else None

    @property
    def codes(self) -> NDArray[np.int64]:
        """The steps by number in `STEP_KINDS`."""
        return np.asarray([STEP_KINDS.index(kind) for kind in self.kinds], np.int64)

    def apply(self, pixels: NDArray[np.float32], *, axis: int = 0) -> NDArray[np.float32]:
        """Take float pixels through the steps, in place, and return them.

        Parameters
        ----------
        pixels
            Any shape.
        axis
            The axis of the channels.
        """
        shape = [1] * pixels.ndim
        shape[axis] = -1
        # What a step makes of a pixel that is no number, or of a division by 0, is no news.
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            for kind, low, high in zip(self.kinds, self.first, self.second, strict=True):
                a = low.reshape(shape)
                if kind == "clip":
                    np.clip(pixels, a, high.reshape(shape), out=pixels)
                elif kind == "subtract":
                    pixels -= a
                elif kind == "divide":
                    pixels /= a
                elif kind == "multiply":
                    pixels *= a
                else:
                    pixels += a
        return pixels
