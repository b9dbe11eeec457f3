"""Scale and translation of OME-NGFF 0.4 and 0.5, in both directions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.coordinates import (
    AffineTransform,
    CoordinateTransform,
    IdentityTransform,
    ScaleTransform,
    TranslationTransform,
    transform_from_ngff,
    transform_to_ngff,
)
from microtome.errors import FormatError, InvalidInputError

sizes = st.floats(1e-3, 1e3)
shifts = st.floats(-1e5, 1e5)


def stated(scale, translation=None):
    steps = [{"type": "scale", "scale": list(scale)}]
    if translation is not None:
        steps.append({"type": "translation", "translation": list(translation)})
    return steps


@given(data=st.data(), axes=st.sampled_from(["yx", "cyx", "zyx", "tczyx"]))
def test_centres_lie_where_the_file_says(data, axes):
    scale = [data.draw(sizes) for _ in axes]
    translation = [data.draw(shifts) for _ in axes]
    pixel = np.array([data.draw(st.integers(0, 10**5)) for _ in axes])
    transform = transform_from_ngff(stated(scale, translation), axes)
    expected = np.array(translation) + np.array(scale) * pixel
    np.testing.assert_allclose(transform.apply(pixel + 0.5), expected, rtol=1e-12, atol=1e-9)


@given(data=st.data(), axes=st.sampled_from(["yx", "cyx", "tczyx"]))
def test_there_and_back(data, axes):
    scale = [data.draw(sizes) for _ in axes]
    translation = [data.draw(shifts) for _ in axes]
    once = transform_from_ngff(stated(scale, translation), axes)
    (first, second) = transform_to_ngff(once)
    assert first == {"type": "scale", "scale": scale}
    np.testing.assert_allclose(second["translation"], translation, rtol=1e-12, atol=1e-12)
    back = once.inverse_transform() @ once
    np.testing.assert_allclose(back.augmented_matrix, np.eye(len(axes) + 1), atol=1e-6)


@given(data=st.data())
def test_levels_compose_as_the_pyramid_says(data):
    # Level k stands for blocks of 2 ** k pixels: between edges it is a factor, and nothing else.
    y, x = data.draw(sizes), data.draw(sizes)
    origin = np.array([data.draw(shifts), data.draw(shifts)])
    base = transform_from_ngff(stated([y, x], origin), "yx")
    k = data.draw(st.integers(0, 8))
    level = transform_from_ngff(
        stated([y * 2**k, x * 2**k], origin + np.array([y, x]) * (2**k - 1) / 2), "yx"
    )
    between = base.inverse_transform() @ level
    np.testing.assert_allclose(between.linear, np.diag([2**k, 2**k]), rtol=1e-9)
    np.testing.assert_allclose(
        between.offset, [0, 0], atol=1e-6 * (1 + abs(origin).max() / min(y, x))
    )


def test_classes_are_as_plain_as_they_can_be():
    edge = transform_from_ngff(stated([2.0, 4.0], [1.0, 2.0]), "yx")
    assert edge == ScaleTransform("yx", "yx", [2.0, 4.0])
    assert isinstance(edge, ScaleTransform)
    assert isinstance(transform_from_ngff(stated([2.0, 4.0]), "yx"), AffineTransform)
    renamed = transform_from_ngff(stated([2.0, 4.0]), "yx", ("v", "u"))
    assert renamed.output_axes == ("v", "u")


@pytest.mark.parametrize(
    "transform",
    [
        IdentityTransform("yx", "yx"),
        ScaleTransform("yx", "yx", [2, 3]),
        TranslationTransform("yx", "yx", [2, 3]),
        AffineTransform("yx", "yx", [[2, 0, 1], [0, 3, 5]]),
        AffineTransform("yx", "yx", [[-2, 0, 1], [0, 3, 5]]),
    ],
)
def test_what_can_be_said_is_said(transform: CoordinateTransform):
    again = transform_from_ngff(transform_to_ngff(transform), "yx")
    np.testing.assert_array_equal(again.augmented_matrix, transform.augmented_matrix)


@pytest.mark.parametrize(
    "transform",
    [
        AffineTransform("yx", "yx", [[2, 0.1, 1], [0, 3, 5]]),
        AffineTransform("yx", "yx", [[0, 1, 0], [1, 0, 0]]),
        ScaleTransform("yx", "yx", [0, 1]),
    ],
)
def test_what_cannot_be_said_is_refused(transform: CoordinateTransform):
    with pytest.raises(InvalidInputError, match=r"all that OME-NGFF 0\.4 and 0\.5"):
        transform_to_ngff(transform)


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [{"type": "translation", "translation": [0, 0]}],
        [*stated([1, 1]), *stated([1, 1])],
        [*stated([1, 1], [0, 0]), {"type": "translation", "translation": [0, 0]}],
        [{"type": "translation", "translation": [0, 0]}, *stated([1, 1])],
        [{"type": "identity"}],
        [{"type": "scale"}],
        stated([1, 1, 1]),
        stated([1, 1], [0]),
        stated([0, 1]),
        stated([float("nan"), 1]),
        stated([1, 1], [float("inf"), 1]),
        [{"type": "scale", "scale": "ab"}],
        [{"type": "scale", "scale": None}],
    ],
    ids=str,
)
def test_what_a_dataset_cannot_state(steps):
    with pytest.raises(FormatError):
        transform_from_ngff(steps, "yx")
