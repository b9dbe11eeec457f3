"""Axes and the spaces they span."""

from __future__ import annotations

import pytest

from microtome.coordinates import Axis, CoordinateSpace
from microtome.errors import InvalidInputError, UnknownNameError


def test_a_space_is_a_sequence_of_its_axes():
    space = CoordinateSpace((Axis("x", "micrometer"), Axis("y")))
    assert (len(space), list(space)) == (2, [Axis("x", "micrometer"), Axis("y")])
    assert space[0] == Axis("x", "micrometer")
    assert space[-1:] == (Axis("y"),)
    assert Axis("y") in space
    assert Axis("y", "second") not in space
    assert space.axis_names == ("x", "y")
    assert space.axis("x").unit == "micrometer"


def test_a_space_is_a_value():
    ours = CoordinateSpace.from_axis_names(["x", "y"], unit="micrometer")
    assert ours == CoordinateSpace([Axis("x", "micrometer"), Axis("y", "micrometer")])
    assert hash(ours) == hash(CoordinateSpace.from_axis_names("xy", unit="micrometer"))
    assert ours != CoordinateSpace.from_axis_names(("y", "x"), unit="micrometer")
    assert ours != CoordinateSpace.from_axis_names(("x", "y"))
    with pytest.raises(AttributeError):
        ours.axes = ()


def test_an_axis_that_is_not_there_is_named():
    with pytest.raises(UnknownNameError, match=r"no axis 'z' in \('x', 'y'\)"):
        CoordinateSpace.from_axis_names("xy").axis("z")


@pytest.mark.parametrize("names", [(), ("x", "x"), ("x", "y", "x")])
def test_no_axes_or_a_name_twice_is_refused(names):
    with pytest.raises(InvalidInputError, match="unique names"):
        CoordinateSpace.from_axis_names(names)


def test_an_axis_without_a_name_is_refused():
    with pytest.raises(InvalidInputError, match="needs a name"):
        Axis("")
