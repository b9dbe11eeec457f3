"""A level read and written like a numpy array, but never cast and never stepped through."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.errors import InvalidInputError, ModeError, OutOfRangeError
from microtome.image import Level, MemoryArray, MultiscaleImage

SHAPE = (3, 5, 7)
PIXELS = np.arange(105, dtype=np.int16).reshape(SHAPE)


def memory_level(array: np.ndarray) -> Level:
    axes = "tczyx"[-array.ndim :]
    return Level(
        "level0", "level0", MemoryArray(array), axes, (1.0,) * array.ndim, (0.0,) * array.ndim
    )


def parts(size: int):
    ends = st.one_of(st.none(), st.integers(-size - 2, size + 2))
    return st.one_of(
        st.integers(-size, size - 1),
        st.builds(slice, ends, ends, st.sampled_from([None, 1])),
    )


@st.composite
def indices(draw):
    given_parts = [draw(parts(size)) for size in SHAPE]
    kept = draw(st.integers(0, 3))
    if draw(st.booleans()):
        # An ellipsis in place of the axes that are left out, anywhere.
        first = draw(st.integers(0, kept))
        return (*given_parts[:first], ..., *given_parts[3 - (kept - first) :][: kept - first])
    return given_parts[0] if kept == 1 else tuple(given_parts[:kept])


@given(indices())
def test_an_index_reads_what_numpy_reads(index):
    read = memory_level(PIXELS)[index]
    np.testing.assert_array_equal(read, PIXELS[index])
    assert read.shape == PIXELS[index].shape


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    path = tmp_path_factory.mktemp("level") / "a.ome.zarr"
    image = MultiscaleImage.create(path, type="int16", level_shape=SHAPE, mpp=1.0)
    yield image["level0"]
    image.discard()


@given(indices(), st.booleans())
def test_an_index_writes_what_numpy_writes(on_disk, index, lone):
    on_disk[...] = PIXELS
    mirror = PIXELS.copy()
    values = -1 if lone else -mirror[index]
    on_disk[index] = values
    mirror[index] = values
    np.testing.assert_array_equal(on_disk[...], mirror)


def test_values_are_broadcast(on_disk):
    on_disk[...] = np.zeros(SHAPE, np.int16)
    on_disk[1] = np.arange(7, dtype=np.int16)
    on_disk[:, :, 0:1] = np.arange(3, dtype=np.int16)[:, None, None]
    mirror = np.zeros(SHAPE, np.int16)
    mirror[1] = np.arange(7)
    mirror[:, :, 0:1] = np.arange(3)[:, None, None]
    np.testing.assert_array_equal(on_disk[...], mirror)


@pytest.mark.parametrize("shape", [(2,), (6, 7), (1, 3, 5, 8)])
def test_values_that_cannot_be_broadcast_are_refused(on_disk, shape):
    with pytest.raises(InvalidInputError, match="pixels were given"):
        on_disk[...] = np.zeros(shape, np.int16)


@pytest.mark.parametrize(
    "values", [np.zeros(SHAPE, np.int32), np.zeros(7, float), [[1, 2]], np.zeros(7, ">i2")]
)
def test_arrays_of_another_type_are_refused(on_disk, values):
    before = on_disk[...]
    with pytest.raises(InvalidInputError, match="convert it explicitly"):
        on_disk[...] = values
    np.testing.assert_array_equal(on_disk[...], before)


@pytest.mark.parametrize(
    "value",
    [32767, -32768, 5.0, True, np.uint64(7), np.float16(-3), np.array(4, np.int64)],
    ids=repr,
)
def test_a_lone_number_that_fits_is_written(on_disk, value):
    on_disk[0, 0, 0] = value
    assert on_disk[0, 0, 0] == value


@pytest.mark.parametrize(
    "value", [32768, -32769, 0.5, float("nan"), float("inf"), 1e30, 2**70, "5", None, 1j], ids=repr
)
def test_a_lone_number_that_does_not_fit_is_refused(on_disk, value):
    with pytest.raises(InvalidInputError, match="convert it explicitly"):
        on_disk[0, 0, 0] = value


@pytest.mark.parametrize("value", [0.1, 3, np.float64(1 / 3), float("nan"), float("inf"), True])
def test_floats_take_any_number(tmp_path, value):
    with MultiscaleImage.create(
        tmp_path / "a", type="float32", level_shape=(1, 2, 2), mpp=1.0
    ) as image:
        image["level0"][...] = value
        np.testing.assert_array_equal(image["level0"][...], np.full((1, 2, 2), value, np.float32))


@pytest.mark.parametrize("index", [3, -4, (0, 5), (0, 0, 7), (..., -8)])
def test_a_number_outside_is_out_of_range(on_disk, index):
    with pytest.raises(OutOfRangeError, match="is outside an axis of"):
        on_disk[index]
    with pytest.raises(IndexError):
        on_disk[index] = 0


@pytest.mark.parametrize(
    "index",
    [
        (0, 0, 0, 0),
        (..., ...),
        slice(None, None, 2),
        slice(None, None, -1),
        None,
        1.0,
        1.5,
        True,
        np.bool_(True),
        "level0",
        [0, 1],
        np.array([0, 1]),
        np.ones(SHAPE, bool),
        (0, [1, 2]),
    ],
    ids=repr,
)
def test_other_indices_are_refused(on_disk, index):
    with pytest.raises(InvalidInputError):
        on_disk[index]
    with pytest.raises(InvalidInputError):
        on_disk[index] = 0


def test_integers_of_numpy_are_integers(on_disk):
    on_disk[...] = PIXELS
    np.testing.assert_array_equal(on_disk[np.int64(1), np.uint8(2)], PIXELS[1, 2])


def test_a_loop_over_a_level_ends():
    planes = list(memory_level(PIXELS))
    np.testing.assert_array_equal(planes, PIXELS)


def test_memory_is_copied_when_read_and_never_written():
    array = PIXELS.copy()
    level = memory_level(array)
    read = level[...]
    read[...] = 0
    np.testing.assert_array_equal(array, PIXELS)
    with pytest.raises(ModeError, match="read-only"):
        level[0] = 1
    out = np.zeros((1, 2, 2), np.int16)
    level.array.read_into(((1, 2), (0, 2), (3, 5)), out).result(timeout=1)
    np.testing.assert_array_equal(out, PIXELS[1:2, :2, 3:5])
    assert (level.shape, level.dtype, level.height, level.width) == (SHAPE, np.int16, 5, 7)
    assert level.array.chunks == SHAPE


def test_an_image_that_was_opened_is_not_written(written):
    path, pixels = written
    image = MultiscaleImage.open(path)
    with pytest.raises(ModeError, match="open for reading"):
        image["level0"][...] = pixels
    with pytest.raises(ModeError, match="open for reading"):
        image["level0"][0, 0, 0] = 0
