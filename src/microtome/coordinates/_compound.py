"""Transforms made of others: one after the other, and one with an inverse of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError

from ._transforms import CoordinateTransform

__all__ = ["BijectionTransform", "SequenceTransform"]


@final
class SequenceTransform(CoordinateTransform):
    """Transforms applied one after the other, kept apart.

    Composing with `@` gives one matrix; a sequence remembers its steps, as OME-NGFF stores them.

    Parameters
    ----------
    transformations
        The first is applied first; each starts from the axes that the one before ends in.

    Raises
    ------
    InvalidInputError
        If there is none, or two neighbours do not fit.
    """

    __slots__ = ("_matrix", "_steps")

    def __init__(self, transformations: Sequence[CoordinateTransform]) -> None:
        steps = tuple(transformations)
        if not steps:
            msg = "a sequence needs at least one transform"
            raise InvalidInputError(msg)
        super().__init__(steps[0].input_axes, steps[-1].output_axes)
        whole = steps[0]
        for step in steps[1:]:
            whole = step @ whole
        self._steps = steps
        self._matrix = whole.augmented_matrix

    @property
    def transformations(self) -> tuple[CoordinateTransform, ...]:
        """The steps, first applied first."""
        return self._steps

    @property
    def linear(self) -> NDArray[np.float64]:
        """Linear part, (n, n)."""
        return self._matrix[:-1, :-1]

    @property
    def offset(self) -> NDArray[np.float64]:
        """Translation part, (n,)."""
        return self._matrix[:-1, -1]

    def inverse_transform(self) -> SequenceTransform:
        """Return the inverses of the steps in the opposite order."""
        return SequenceTransform([step.inverse_transform() for step in reversed(self._steps)])

    def _describe(self) -> str:
        return f", {list(self._steps)}"


@final
class BijectionTransform(CoordinateTransform):
    """A transform that states its own inverse (RFC-5).

    Parameters
    ----------
    forward
        From input to output axes.
    inverse
        From output to input axes; taken at its word, as the specification says, even where it is
        not the inverse of `forward`.

    Raises
    ------
    InvalidInputError
        If the inverse does not lead back to the axes that `forward` starts from.
    """

    __slots__ = ("_forward", "_inverse")

    def __init__(self, forward: CoordinateTransform, inverse: CoordinateTransform) -> None:
        super().__init__(forward.input_axes, forward.output_axes)
        if (inverse.input_axes, inverse.output_axes) != (forward.output_axes, forward.input_axes):
            msg = f"the inverse of {forward!r} must lead back, got {inverse!r}"
            raise InvalidInputError(msg)
        self._forward = forward
        self._inverse = inverse

    @property
    def forward(self) -> CoordinateTransform:
        """From input to output axes."""
        return self._forward

    @property
    def linear(self) -> NDArray[np.float64]:
        """Linear part, (n, n)."""
        return self._forward.linear

    @property
    def offset(self) -> NDArray[np.float64]:
        """Translation part, (n,)."""
        return self._forward.offset

    def inverse_transform(self) -> BijectionTransform:
        """Return the same with the two directions exchanged."""
        return BijectionTransform(self._inverse, self._forward)

    def _describe(self) -> str:
        return f", {self._forward!r}, {self._inverse!r}"
