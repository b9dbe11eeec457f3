"""Linear coordinate transforms between named axes.

A transform leads from its input axes to its output axes. `a @ b` applies `b` first. The result
keeps the most specific class that both share, so that a pyramid of pure scales stays one:

    Identity < UniformScale < Scale < Affine,    Identity < Translation < Affine
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.errors import InvalidInputError

__all__ = [
    "AffineTransform",
    "CoordinateTransform",
    "IdentityTransform",
    "ScaleTransform",
    "TranslationTransform",
    "UniformScaleTransform",
    "transform_from_matrix",
]


class CoordinateTransform(ABC):
    """A linear map from one set of named axes to another; an immutable value.

    Parameters
    ----------
    input_axes, output_axes
        Names of the axes that coordinates come in and go out in, in order; equally many.

    Raises
    ------
    InvalidInputError
        If their number differs, is zero, or a name repeats.
    """

    __slots__ = ("_input_axes", "_output_axes")

    def __init__(self, input_axes: Sequence[str], output_axes: Sequence[str]) -> None:
        self._input_axes = _axis_names(input_axes)
        self._output_axes = _axis_names(output_axes)
        if len(self._input_axes) != len(self._output_axes):
            msg = (
                "a transform needs as many output axes as input axes, got "
                f"{self._input_axes} -> {self._output_axes}"
            )
            raise InvalidInputError(msg)

    @property
    def input_axes(self) -> tuple[str, ...]:
        """Axes that coordinates come in."""
        return self._input_axes

    @property
    def output_axes(self) -> tuple[str, ...]:
        """Axes that coordinates go out in."""
        return self._output_axes

    @property
    @abstractmethod
    def linear(self) -> NDArray[np.float64]:
        """Linear part, (n, n)."""

    @property
    def offset(self) -> NDArray[np.float64]:
        """Translation part, (n,)."""
        return np.zeros(len(self._input_axes))

    @property
    def augmented_matrix(self) -> NDArray[np.float64]:
        """Matrix in homogeneous coordinates, (n + 1, n + 1)."""
        rank = len(self._input_axes)
        matrix = np.eye(rank + 1)
        matrix[:rank, :rank] = self.linear
        matrix[:rank, rank] = self.offset
        return matrix

    def apply(self, points: ArrayLike) -> NDArray[np.float64]:
        """Map points.

        Parameters
        ----------
        points
            Coordinates in the order of `input_axes`, (..., n).

        Returns
        -------
        Coordinates in the order of `output_axes`, (..., n), float64.

        Raises
        ------
        InvalidInputError
            If they are not n a point, or one of them is not finite: it lies nowhere.
        """
        array = np.asarray(points, dtype=np.float64)
        if array.shape[-1:] != (len(self._input_axes),):
            msg = f"points over {self._input_axes} need shape (..., {len(self._input_axes)}), got {array.shape}"
            raise InvalidInputError(msg)
        if not np.isfinite(array).all():
            lost = np.argwhere(~np.isfinite(array))[0].tolist()
            msg = f"points need finite coordinates, got {array[tuple(lost)]} at {lost}"
            raise InvalidInputError(msg)
        return array @ self.linear.T + self.offset

    def apply_box(self, box: Sequence[float]) -> tuple[float, ...]:
        """Map a box and return the bounding box of its image.

        Parameters
        ----------
        box
            Lower corner then upper corner, in the order of `input_axes`: ``(x0, y0, x1, y1)``.

        Raises
        ------
        InvalidInputError
            If they are not 2 n numbers, or one of them is not finite.
        """
        rank = len(self._input_axes)
        if len(box) != 2 * rank or not all(map(math.isfinite, box)):
            msg = f"a box over {self._input_axes} needs {2 * rank} finite numbers, got {tuple(box)}"
            raise InvalidInputError(msg)
        first, second = np.asarray(box[:rank], float), np.asarray(box[rank:], float)
        low, high = np.minimum(first, second), np.maximum(first, second)
        # Interval arithmetic: as exact as mapping the corners, without visiting all 2**n of them.
        grows, shrinks = np.maximum(self.linear, 0.0), np.minimum(self.linear, 0.0)
        lower = grows @ low + shrinks @ high + self.offset
        upper = grows @ high + shrinks @ low + self.offset
        return (*lower.tolist(), *upper.tolist())

    def inverse_transform(self) -> CoordinateTransform:
        """Return the transform that undoes this one, of the same class.

        Raises
        ------
        InvalidInputError
            If there is none (a scale of zero, a singular matrix).
        """
        linear = self._inverse_linear()
        if linear is None or not np.isfinite(linear).all():
            msg = f"{self!r} cannot be inverted"
            raise InvalidInputError(msg)
        rank = len(linear)
        matrix = np.eye(rank + 1)
        matrix[:rank, :rank] = linear
        matrix[:rank, rank] = 0.0 - linear @ self.offset  # 0, not -0, for no shift
        return transform_from_matrix(
            self._output_axes, self._input_axes, matrix, like=(type(self),)
        )

    def _inverse_linear(self) -> NDArray[np.float64] | None:
        """Return the inverse of the linear part, None where there is none."""
        linear = self.linear
        # Rows and columns may differ by any power of ten (nanometres beside metres) in a map that
        # is perfectly invertible, so the rank is that of the balanced matrix.
        rows = np.abs(linear).max(axis=1, keepdims=True)
        if not rows.all():
            return None
        balanced = linear / rows
        columns = np.abs(balanced).max(axis=0, keepdims=True)
        if not columns.all() or np.linalg.matrix_rank(balanced / columns) < len(linear):
            return None
        return np.linalg.inv(linear).astype(np.float64, copy=False)

    def __matmul__(self, other: CoordinateTransform) -> CoordinateTransform:
        if not isinstance(other, CoordinateTransform):  # pyright: ignore[reportUnnecessaryIsInstance] - an operator meets anything
            return NotImplemented
        if self._input_axes != other.output_axes:
            msg = (
                f"cannot compose: {other!r} ends in {other.output_axes}, "
                f"{self!r} starts from {self._input_axes}"
            )
            raise InvalidInputError(msg)
        return transform_from_matrix(
            other.input_axes,
            self._output_axes,
            self.augmented_matrix @ other.augmented_matrix,
            like=(type(self), type(other)),
        )

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, CoordinateTransform)
            and self._input_axes == other.input_axes
            and self._output_axes == other.output_axes
            and np.array_equal(self.augmented_matrix, other.augmented_matrix)
        )

    def __hash__(self) -> int:
        # -0.0 equals 0.0, but its bytes differ; adding 0 makes them one.
        numbers = (self.augmented_matrix + 0.0).tobytes()
        return hash((self._input_axes, self._output_axes, numbers))

    def __repr__(self) -> str:
        axes = f"{','.join(self._input_axes)} -> {','.join(self._output_axes)}"
        return f"{type(self).__name__}({axes}{self._describe()})"

    def _describe(self) -> str:
        return ""


@final
class AffineTransform(CoordinateTransform):
    """Any linear map with a translation.

    Parameters
    ----------
    input_axes, output_axes
        Names of the axes.
    matrix
        (n, n), (n, n + 1) or augmented (n + 1, n + 1); the last row must be (0, ..., 0, 1).
    """

    __slots__ = ("_matrix",)

    def __init__(
        self, input_axes: Sequence[str], output_axes: Sequence[str], matrix: ArrayLike
    ) -> None:
        super().__init__(input_axes, output_axes)
        rank = len(self._input_axes)
        given = np.asarray(matrix, dtype=np.float64)
        augmented = np.eye(rank + 1)
        if given.shape == (rank, rank):
            augmented[:rank, :rank] = given
        elif given.shape == (rank, rank + 1):
            augmented[:rank] = given
        elif given.shape == (rank + 1, rank + 1):
            if not np.array_equal(given[rank], augmented[rank]):
                msg = f"the last row of an augmented matrix must be (0, ..., 0, 1), got {given[rank].tolist()}"
                raise InvalidInputError(msg)
            augmented[:] = given
        else:
            msg = f"an affine over {rank} axes needs a matrix ({rank}, {rank}), ({rank}, {rank + 1}) or ({rank + 1}, {rank + 1}), got {given.shape}"
            raise InvalidInputError(msg)
        if not np.isfinite(augmented).all():
            msg = f"an affine needs finite numbers, got {given.tolist()}"
            raise InvalidInputError(msg)
        augmented.flags.writeable = False
        self._matrix = augmented

    @property
    def linear(self) -> NDArray[np.float64]:
        """Linear part, (n, n)."""
        return self._matrix[:-1, :-1]

    @property
    def offset(self) -> NDArray[np.float64]:
        """Translation part, (n,)."""
        return self._matrix[:-1, -1]

    @property
    def augmented_matrix(self) -> NDArray[np.float64]:
        """Matrix in homogeneous coordinates, (n + 1, n + 1)."""
        return self._matrix

    def _describe(self) -> str:
        return f", {self._matrix[:-1].tolist()}"


class ScaleTransform(CoordinateTransform):
    """One factor an axis.

    Parameters
    ----------
    input_axes, output_axes
        Names of the axes.
    scale_factors
        Factors, (n,), finite.
    """

    __slots__ = ("_factors",)

    def __init__(
        self, input_axes: Sequence[str], output_axes: Sequence[str], scale_factors: ArrayLike
    ) -> None:
        super().__init__(input_axes, output_axes)
        self._factors = _vector("a scale", self._input_axes, scale_factors)

    @property
    def scale_factors(self) -> tuple[float, ...]:
        """Factors, one an axis."""
        return self._factors

    @property
    def linear(self) -> NDArray[np.float64]:
        """Linear part, (n, n)."""
        return np.diag(self._factors)

    def _inverse_linear(self) -> NDArray[np.float64] | None:
        if 0.0 in self._factors:
            return None
        with np.errstate(over="ignore"):  # the reciprocal of a denormal, refused as infinite
            return np.diag(1.0 / np.asarray(self._factors))

    def _describe(self) -> str:
        return f", {list(self._factors)}"


class UniformScaleTransform(ScaleTransform):
    """The same factor for every axis."""

    __slots__ = ()

    def __init__(self, input_axes: Sequence[str], output_axes: Sequence[str], scale: float) -> None:
        super().__init__(input_axes, output_axes, [scale] * len(tuple(input_axes)))

    @property
    def scale(self) -> float:
        """The factor."""
        return self._factors[0]


@final
class TranslationTransform(CoordinateTransform):
    """A shift.

    Parameters
    ----------
    input_axes, output_axes
        Names of the axes.
    translation
        Shift, (n,), finite.
    """

    __slots__ = ("_translation",)

    def __init__(
        self, input_axes: Sequence[str], output_axes: Sequence[str], translation: ArrayLike
    ) -> None:
        super().__init__(input_axes, output_axes)
        self._translation = _vector("a translation", self._input_axes, translation)

    @classmethod
    def by_pixels(cls, axes: tuple[str, ...], pixels: tuple[int, ...]) -> TranslationTransform:
        """Return a shift by whole pixels; every read of an image makes one, so nothing is checked.

        Parameters
        ----------
        axes
            Names of the axes, unique.
        pixels
            Shift, one an axis.
        """
        made = cls.__new__(cls)
        made._input_axes = made._output_axes = axes  # noqa: SLF001 - its own
        made._translation = tuple(map(float, pixels))  # noqa: SLF001
        return made

    @property
    def translation(self) -> tuple[float, ...]:
        """Shift, one an axis."""
        return self._translation

    @property
    def linear(self) -> NDArray[np.float64]:
        """Linear part, (n, n)."""
        return np.eye(len(self._input_axes))

    @property
    def offset(self) -> NDArray[np.float64]:
        """Translation part, (n,)."""
        return np.asarray(self._translation)

    def _describe(self) -> str:
        return f", {list(self._translation)}"


@final
class IdentityTransform(UniformScaleTransform):
    """Coordinates unchanged; axes may be renamed."""

    __slots__ = ()

    def __init__(self, input_axes: Sequence[str], output_axes: Sequence[str]) -> None:
        super().__init__(input_axes, output_axes, 1.0)

    def _describe(self) -> str:
        return ""


def transform_from_matrix(
    input_axes: Sequence[str],
    output_axes: Sequence[str],
    matrix: NDArray[np.float64],
    *,
    like: tuple[type[CoordinateTransform], ...],
) -> CoordinateTransform:
    """Build a transform of the most specific class that all of `like` fit into.

    Parameters
    ----------
    input_axes, output_axes
        Names of the axes.
    matrix
        Augmented matrix, (n + 1, n + 1).
    like
        Classes whose least common class is wanted. By class, not by value: composing two scales
        whose product happens to be uniform is still a scale, so types never depend on data.
    """
    if all(kind is IdentityTransform for kind in like):
        return IdentityTransform(input_axes, output_axes)
    if all(issubclass(kind, UniformScaleTransform) for kind in like):
        return UniformScaleTransform(input_axes, output_axes, float(matrix[0, 0]))
    if all(issubclass(kind, ScaleTransform) for kind in like):
        return ScaleTransform(input_axes, output_axes, np.diag(matrix)[:-1])
    if all(kind in {IdentityTransform, TranslationTransform} for kind in like):
        return TranslationTransform(input_axes, output_axes, matrix[:-1, -1])
    return AffineTransform(input_axes, output_axes, matrix)


def _axis_names(names: Sequence[str]) -> tuple[str, ...]:
    result = tuple(names)
    if not result or len(set(result)) != len(result):
        msg = f"a transform needs at least one axis and unique names, got {result}"
        raise InvalidInputError(msg)
    return result


def _vector(what: str, axes: tuple[str, ...], values: ArrayLike) -> tuple[float, ...]:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (len(axes),) or not np.isfinite(array).all():
        msg = f"{what} over {axes} needs {len(axes)} finite numbers, got {array.tolist()}"
        raise InvalidInputError(msg)
    return tuple(array.tolist())
