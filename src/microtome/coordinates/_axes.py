"""Named axes and the spaces that they span."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from microtome.errors import InvalidInputError, UnknownNameError

__all__ = ["Axis", "CoordinateSpace"]


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a space.

    Parameters
    ----------
    name
        Name of the axis, for example ``"x"``.
    unit
        Unit in the spelling of OME-NGFF (``"micrometer"``, ``"second"``), or None.

    Raises
    ------
    InvalidInputError
        If the name is empty.
    """

    name: str
    unit: str | None = None

    def __post_init__(self) -> None:
        if not self.name:
            msg = "an axis needs a name, got ''"
            raise InvalidInputError(msg)


@dataclass(frozen=True, slots=True)
class CoordinateSpace(Sequence[Axis]):
    """An ordered set of uniquely named axes.

    Parameters
    ----------
    axes
        The axes, in the order in which coordinates are given: ``(x, y)`` in user-facing space.

    Raises
    ------
    InvalidInputError
        If there is no axis, or two share a name.

    Examples
    --------
    >>> CoordinateSpace.from_axis_names(("x", "y"), unit="micrometer").axis_names
    ('x', 'y')
    """

    axes: tuple[Axis, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", tuple(self.axes))
        names = self.axis_names
        if not names or len(set(names)) != len(names):
            msg = f"a coordinate space needs at least one axis and unique names, got {names}"
            raise InvalidInputError(msg)

    @classmethod
    def from_axis_names(cls, names: Sequence[str], *, unit: str | None = None) -> CoordinateSpace:
        """Build a space whose axes all have the same unit."""
        return cls(tuple(Axis(name, unit) for name in names))

    @property
    def axis_names(self) -> tuple[str, ...]:
        """Names of the axes, in order."""
        return tuple(axis.name for axis in self.axes)

    def axis(self, name: str) -> Axis:
        """Return the axis of that name.

        Raises
        ------
        UnknownNameError
            If there is none.
        """
        for axis in self.axes:
            if axis.name == name:
                return axis
        msg = f"no axis {name!r} in {self.axis_names}"
        raise UnknownNameError(msg)

    def __len__(self) -> int:
        return len(self.axes)

    def __iter__(self) -> Iterator[Axis]:
        return iter(self.axes)

    @overload
    def __getitem__(self, index: int) -> Axis: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Axis, ...]: ...
    def __getitem__(self, index: int | slice) -> Axis | tuple[Axis, ...]:
        return self.axes[index]
