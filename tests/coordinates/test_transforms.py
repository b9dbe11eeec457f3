"""Linear transforms: what they do to points and boxes, how they compose, what class comes out.

The reference is homogeneous matrices put together here, by hand.
"""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from microtome.coordinates import (
    AffineTransform,
    CoordinateTransform,
    IdentityTransform,
    ScaleTransform,
    TranslationTransform,
    UniformScaleTransform,
)
from microtome.errors import InvalidInputError

XY = ("x", "y")
KINDS = (
    IdentityTransform,
    UniformScaleTransform,
    ScaleTransform,
    TranslationTransform,
    AffineTransform,
)
# Binary fractions of moderate size: products and sums of a few of them are exact in float64.
EXACT = st.integers(-64, 64).map(lambda value: value / 8)
NONZERO = EXACT.filter(bool)


def matrix_of(kind: type, numbers: tuple) -> np.ndarray:
    """The homogeneous matrix that such a transform must have."""
    matrix = np.eye(3)
    if kind in {UniformScaleTransform, ScaleTransform}:
        matrix[0, 0], matrix[1, 1] = numbers[0], numbers[-1]
    elif kind is TranslationTransform:
        matrix[:2, 2] = numbers
    elif kind is AffineTransform:
        matrix[:2] = np.reshape(numbers, (2, 3))
    return matrix


def build(kind: type, numbers: tuple, source=XY, target=XY) -> CoordinateTransform:
    if kind is IdentityTransform:
        return kind(source, target)
    if kind is UniformScaleTransform:
        return kind(source, target, numbers[0])
    if kind is AffineTransform:
        return kind(source, target, np.reshape(numbers, (2, 3)))
    return kind(source, target, numbers)


@st.composite
def transforms(draw, invertible=False):
    kind = draw(st.sampled_from(KINDS))
    factor = NONZERO if invertible else EXACT
    size = {IdentityTransform: 0, UniformScaleTransform: 1, AffineTransform: 6}.get(kind, 2)
    scales = kind in {UniformScaleTransform, ScaleTransform}
    numbers = tuple(draw(factor if scales else EXACT) for _ in range(size))
    matrix = matrix_of(kind, numbers)
    if invertible:
        assume(abs(np.linalg.det(matrix)) > 0.01)
    return build(kind, numbers), kind, matrix


points = st.lists(st.tuples(EXACT, EXACT), max_size=4).map(lambda p: np.reshape(p, (-1, 2)))


@given(transforms(), points)
def test_apply_is_the_homogeneous_matrix(transform, points):
    ours, _, matrix = transform
    expected = (np.c_[points, np.ones(len(points))] @ matrix.T)[:, :2]
    np.testing.assert_array_equal(ours.apply(points), expected)
    np.testing.assert_array_equal(ours.augmented_matrix, matrix)
    np.testing.assert_array_equal(ours.linear, matrix[:2, :2])
    np.testing.assert_array_equal(ours.offset, matrix[:2, 2])


def test_apply_keeps_leading_axes():
    shift = TranslationTransform(XY, XY, (1, 2))
    assert shift.apply((3, 4)).tolist() == [4, 6]
    assert shift.apply(np.zeros((5, 0, 2))).shape == (5, 0, 2)
    np.testing.assert_array_equal(
        shift.apply(np.ones((2, 3, 2), np.int8)), np.tile([2.0, 3.0], (2, 3, 1))
    )


@pytest.mark.parametrize("points", [5, (1, 2, 3), np.zeros((2, 3)), []])
def test_points_of_another_dimension_are_refused(points):
    with pytest.raises(InvalidInputError, match="need shape"):
        IdentityTransform(XY, XY).apply(points)


@given(transforms(), transforms(), points)
def test_composition_applies_the_right_one_first(first, second, points):
    (a, _, matrix_a), (b, _, matrix_b) = first, second
    both = a @ b
    np.testing.assert_array_equal(both.augmented_matrix, matrix_a @ matrix_b)
    np.testing.assert_array_equal(both.apply(points), a.apply(b.apply(points)))


@given(transforms(), transforms(), transforms())
def test_composition_is_associative(a, b, c):
    a, b, c = a[0], b[0], c[0]
    assert (a @ b) @ c == a @ (b @ c)
    assert type((a @ b) @ c) is type(a @ (b @ c))


# Every pair, written out: the least class that holds both. Not computed from the class hierarchy.
LEAST = {frozenset({IdentityTransform, other}): other for other in KINDS} | {
    frozenset({UniformScaleTransform}): UniformScaleTransform,
    frozenset({UniformScaleTransform, ScaleTransform}): ScaleTransform,
    frozenset({UniformScaleTransform, TranslationTransform}): AffineTransform,
    frozenset({ScaleTransform}): ScaleTransform,
    frozenset({ScaleTransform, TranslationTransform}): AffineTransform,
    frozenset({TranslationTransform}): TranslationTransform,
    **{frozenset({AffineTransform, other}): AffineTransform for other in KINDS},
}


@pytest.mark.parametrize(("a", "b"), list(itertools.product(KINDS, KINDS)))
def test_the_class_of_a_composition_depends_on_classes_only(a, b):
    # Numbers for which a cleverer code could find a simpler class.
    ones = {UniformScaleTransform: (1.0,), ScaleTransform: (1.0, 1.0)}
    ones |= {TranslationTransform: (0.0, 0.0), AffineTransform: (1, 0, 0, 0, 1, 0)}
    both = build(a, ones.get(a, ())) @ build(b, ones.get(b, ()))
    assert type(both) is LEAST[frozenset({a, b})]


@given(transforms(invertible=True), points)
def test_the_inverse_undoes_and_keeps_the_class(transform, points):
    ours, kind, _ = transform
    inverse = ours.inverse_transform()
    assert type(inverse) is type(ours) is kind
    np.testing.assert_allclose(inverse.apply(ours.apply(points)), points, rtol=0, atol=1e-9)
    np.testing.assert_allclose((ours @ inverse).augmented_matrix, np.eye(3), rtol=0, atol=1e-9)
    assert (inverse.input_axes, inverse.output_axes) == (ours.output_axes, ours.input_axes)


def test_the_inverse_of_a_scale_is_the_reciprocal_to_the_last_bit():
    scale = ScaleTransform(XY, XY, (3.0, 0.499)).inverse_transform()
    assert scale.scale_factors == (1 / 3.0, 1 / 0.499)


@pytest.mark.parametrize(
    "transform",
    [
        ScaleTransform(XY, XY, (1e-9, 1e9)),
        UniformScaleTransform(XY, XY, 1e-300),
        TranslationTransform(XY, XY, (1e20, -1e-20)),
        AffineTransform(XY, XY, [[1e-4, 0, 1e12], [0, 1e-4, 0]]),
        AffineTransform(XY, XY, [[1e-9, 2e-9, 0], [-3e9, 1e9, 5]]),
        AffineTransform(XY, XY, [[1e-9, 0, 0], [0, 1e9, 0]]),
    ],
)
def test_units_far_apart_can_be_inverted(transform):
    product = (transform.inverse_transform() @ transform).linear
    np.testing.assert_allclose(product, np.eye(2), atol=1e-12)


@pytest.mark.parametrize(
    "transform",
    [
        UniformScaleTransform(XY, XY, 0),
        ScaleTransform(XY, XY, (2, 0)),
        UniformScaleTransform(XY, XY, 1e-320),  # its reciprocal is infinite
        AffineTransform(XY, XY, [[1, 2], [2, 4]]),
        AffineTransform(XY, XY, [[1, 1], [0, 0]]),
        AffineTransform(XY, XY, [[1, 0], [1, 0]]),
        AffineTransform(XY, XY, [[0.1, 0.3], [0.2, 0.6]]),
        AffineTransform(("x", "y", "z"), ("x", "y", "z"), np.arange(9).reshape(3, 3)),
    ],
)
def test_what_cannot_be_inverted_says_so(transform):
    with pytest.raises(InvalidInputError, match="cannot be inverted"):
        transform.inverse_transform()


boxes = st.tuples(EXACT, EXACT, EXACT, EXACT)


@given(transforms(), boxes)
def test_a_box_becomes_the_bounding_box_of_its_corners(transform, box):
    ours, _, _ = transform
    corners = ours.apply(list(itertools.product(box[0::2], box[1::2])))
    assert ours.apply_box(box) == (*corners.min(axis=0), *corners.max(axis=0))


def test_a_box_is_exact_where_its_corners_are():
    # 0.1 + 0.7 over two is not halfway: centre and half width would move both edges.
    box = (0.1, 0.3, 0.7, 1e9 + 0.1)
    assert IdentityTransform(XY, XY).apply_box(box) == box
    scale = ScaleTransform(XY, XY, (3.0, 0.499))
    assert scale.apply_box(box) == (0.1 * 3.0, 0.3 * 0.499, 0.7 * 3.0, (1e9 + 0.1) * 0.499)


@pytest.mark.parametrize("box", [(), (1, 2), (1, 2, 3), (1, 2, 3, 4, 5)])
def test_a_box_of_another_dimension_is_refused(box):
    with pytest.raises(InvalidInputError, match="needs 4 finite numbers"):
        IdentityTransform(XY, XY).apply_box(box)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_coordinates_that_are_not_finite_are_refused(kind, value):
    transform = build(kind, (2, 3, 4, 5, 6, 7) if kind is AffineTransform else (2, 3))
    for place in range(4):
        box = [0.0, 0.0, 1.0, 1.0]
        box[place] = value
        with pytest.raises(InvalidInputError, match=r"4 finite numbers.*(nan|inf)"):
            transform.apply_box(box)
        with pytest.raises(InvalidInputError, match=rf"finite coordinates, got {value} at"):
            transform.apply(np.reshape(box, (2, 2)))


def test_axes_must_meet():
    to_um = ScaleTransform(XY, ("x_um", "y_um"), (0.5, 0.5))
    assert (to_um.inverse_transform() @ to_um).input_axes == XY
    assert (to_um @ IdentityTransform(("i", "j"), XY)).input_axes == ("i", "j")
    with pytest.raises(InvalidInputError, match="cannot compose"):
        to_um @ to_um
    with pytest.raises(InvalidInputError, match="cannot compose"):
        to_um @ IdentityTransform(("y", "x"), ("y", "x"))


def test_composing_with_something_else_is_a_type_error():
    with pytest.raises(TypeError):
        IdentityTransform(XY, XY) @ 3
    with pytest.raises(TypeError):
        3 @ IdentityTransform(XY, XY)


def test_equality_is_of_the_map_and_its_axes():
    assert IdentityTransform(XY, XY) == ScaleTransform(XY, XY, (1, 1))
    assert ScaleTransform(XY, XY, (2, 2)) == UniformScaleTransform(XY, XY, 2)
    assert ScaleTransform(XY, XY, (2, 3)) != ScaleTransform(XY, XY, (3, 2))
    assert IdentityTransform(XY, XY) != IdentityTransform(XY, ("a", "b"))
    assert IdentityTransform(XY, XY) != "identity"


def test_equal_transforms_have_equal_hashes():
    zero = TranslationTransform(XY, XY, (0.0, 0.0))
    negative = TranslationTransform(XY, XY, (-0.0, 0.0))
    assert zero == negative
    assert len({zero, negative, zero.inverse_transform(), IdentityTransform(XY, XY)}) == 1


@given(transforms())
def test_a_transform_survives_pickling(transform):
    ours, kind, _ = transform
    copy = pickle.loads(pickle.dumps(ours))
    assert copy == ours
    assert type(copy) is kind


@pytest.mark.parametrize("shape", [(2, 2), (2, 3), (3, 3)])
def test_an_affine_takes_three_shapes_of_matrix(shape):
    whole = np.array([[1.0, 2, 0], [3, 4, 0], [0, 0, 1]])
    ours = AffineTransform(XY, XY, whole[: shape[0], : shape[1]])
    np.testing.assert_array_equal(ours.augmented_matrix, whole)
    with pytest.raises(ValueError, match="read-only"):
        ours.augmented_matrix[0, 0] = 5


@pytest.mark.parametrize(
    ("matrix", "complaint"),
    [
        (np.eye(4), "needs a matrix"),
        (np.zeros((3, 2)), "needs a matrix"),
        ([1, 2], "needs a matrix"),
        ([[1, 0, 0], [0, 1, 0], [0, 1, 1]], "last row"),
        ([[1, 0, 0], [0, 1, 0], [0, 0, 2]], "last row"),
        ([[np.nan, 0], [0, 1]], "finite"),
        ([[1, 0, np.inf], [0, 1, 0]], "finite"),
    ],
)
def test_a_matrix_that_is_no_affine_is_refused(matrix, complaint):
    with pytest.raises(InvalidInputError, match=complaint):
        AffineTransform(XY, XY, matrix)


@pytest.mark.parametrize("kind", [ScaleTransform, TranslationTransform])
@pytest.mark.parametrize("numbers", [(1,), (1, 2, 3), (1, np.nan), (np.inf, 1), 2, [[1, 2]]])
def test_numbers_that_do_not_fit_the_axes_are_refused(kind, numbers):
    with pytest.raises(InvalidInputError, match="needs 2 finite numbers"):
        kind(XY, XY, numbers)


@pytest.mark.parametrize(
    ("source", "target"), [((), ()), (("x", "x"), XY), (XY, ("a", "a")), (XY, ("x",))]
)
def test_axes_that_do_not_fit_are_refused(source, target):
    with pytest.raises(InvalidInputError):
        IdentityTransform(source, target)


def test_the_base_class_is_no_transform():
    with pytest.raises(TypeError, match="abstract"):
        CoordinateTransform(XY, XY)


def test_what_a_transform_shows():
    assert repr(IdentityTransform(XY, ("a", "b"))) == "IdentityTransform(x,y -> a,b)"
    assert repr(ScaleTransform(XY, XY, (2, 3))) == "ScaleTransform(x,y -> x,y, [2.0, 3.0])"
    assert UniformScaleTransform(XY, XY, 2).scale == 2
    assert TranslationTransform(XY, XY, (2, 3)).translation == (2, 3)
