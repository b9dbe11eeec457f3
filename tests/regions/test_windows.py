"""Windows as columns, and which part of each lies inside its image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.errors import InvalidInputError, OutOfRangeError
from microtome.regions import Windows, valid_windows


@pytest.mark.parametrize(
    ("image", "start", "size", "expected"),
    [
        (0, [1, 2], 5, ([0], [[1, 2]], (5, 5))),
        (0, [[1, 2], [3, 4]], (5, 6), ([0, 0], [[1, 2], [3, 4]], (5, 6))),
        ([2, 1], [[1, 2], [3, 4]], np.int64(5), ([2, 1], [[1, 2], [3, 4]], (5, 5))),
        ([0], [[1, 2, 3]], 4, ([0], [[1, 2, 3]], (4, 4, 4))),
        (0, [1, 2, 3], [4, 5, 6], ([0], [[1, 2, 3]], (4, 5, 6))),
        ([], [], 5, ([], np.zeros((0, 2)), (5, 5))),
        ([], [], (4, 5, 6), ([], np.zeros((0, 3)), (4, 5, 6))),
        ([], np.zeros((0, 2)), 5, ([], np.zeros((0, 2)), (5, 5))),
        (np.uint8(1), np.array([[1, 2]], np.int16), 5, ([1], [[1, 2]], (5, 5))),
    ],
)
def test_windows_of_anything(image, start, size, expected):
    windows = Windows.of(image, start, size, level=1)
    assert windows.image.dtype == windows.start.dtype == np.int64
    np.testing.assert_array_equal(windows.image, expected[0])
    np.testing.assert_array_equal(windows.start, expected[1])
    assert windows.start.shape == np.shape(expected[1])
    assert windows.size == expected[2]
    assert (windows.level, len(windows)) == (1, len(expected[0]))


@pytest.mark.parametrize(
    ("image", "start", "size"),
    [
        (0, [[1.5, 2.0]], 5),  # half a pixel, which would be dropped
        (0.5, [[1, 2]], 5),
        (0, [[True, False]], 5),
        (0, [["1", "2"]], 5),
        (0, [1], 5),
        (0, [1, 2, 3, 4], 5),
        (0, [[1, 2, 3]], (5, 5)),
        (0, [[1, 2]], (5, 5, 5)),
        (0, [[1, 2]], (5,)),
        (0, [[1, 2]], 0),
        (0, [[1, 2]], (5, -5)),
        (0, [[1, 2]], ()),
        ([[0]], [[1, 2]], 5),
    ],
)
def test_what_are_no_windows(image, start, size):
    with pytest.raises(InvalidInputError):
        Windows.of(image, start, size)


def test_as_many_images_as_windows():
    with pytest.raises(InvalidInputError, match="for 3 images"):
        Windows.of([0, 1, 2], [[1, 2], [3, 4]], 5)
    with pytest.raises(InvalidInputError):
        Windows(np.array([0, 1]), np.array([[1, 2]]), (5, 5))
    with pytest.raises(InvalidInputError, match="whole numbers"):
        Windows(np.array([0]), np.array([[1.0, 2.0]]), (5, 5))


def test_some_of_the_windows():
    windows = Windows.of([3, 4, 5], [[0, 1], [2, 3], [4, 5]], 7, level=2)
    for rows in ([2, 0, 2], np.array([True, False, True]), [], np.array([-1])):
        taken = windows.take(rows)
        at = np.arange(3)[np.asarray(rows, int if not len(rows) else None)]
        np.testing.assert_array_equal(taken.image, np.array([3, 4, 5])[at])
        np.testing.assert_array_equal(taken.start[:, 0], np.array([0, 2, 4])[at])
        assert (taken.size, taken.level) == ((7, 7), 2)


@given(
    st.lists(st.tuples(st.integers(-20, 20), st.integers(-20, 20)), max_size=5),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_the_valid_part_of_a_window(in_memory, starts, size):
    image = in_memory(np.zeros((2, 7, 11), np.uint8))
    windows = Windows.of([0] * len(starts), starts, size)
    valid = valid_windows([image], windows)
    assert valid.shape == (len(starts), 2, 2)
    for start, parts in zip(starts, valid.tolist(), strict=True):
        for first, count, length, (low, high) in zip(start, size, (7, 11), parts, strict=True):
            inside = [i for i in range(count) if 0 <= first + i < length]
            assert 0 <= low <= high <= count
            assert list(range(low, high)) == inside


def test_only_the_images_of_the_windows_are_looked_at(in_memory):
    class Closed:
        def __getattr__(self, name):
            raise AssertionError(name)

    images = [Closed(), in_memory(np.zeros((1, 5, 6), np.uint8)), Closed()]
    valid = valid_windows(images, Windows.of([1, 1], [[0, 0], [3, 3]], 4))
    assert valid.tolist() == [[[0, 4], [0, 4]], [[0, 2], [0, 3]]]
    assert valid_windows(images, Windows.of([], [], 4)).shape == (0, 2, 2)
    assert valid_windows([], Windows.of([], [], 4)).shape == (0, 2, 2)


@pytest.mark.parametrize("number", [-1, 2, 99])
def test_an_image_that_is_not_there(in_memory, number):
    images = [in_memory(np.zeros((1, 5, 6), np.uint8))] * 2
    with pytest.raises(OutOfRangeError, match="there are 2"):
        valid_windows(images, Windows.of([0, number], [[0, 0], [3, 3]], 4))
