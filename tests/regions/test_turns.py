"""Windows that are turned on their way into the batch: what `numpy.rot90` makes of them as read."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.errors import InvalidInputError
from microtome.image import ArrayStack, MultiscaleImage
from microtome.regions import Windows, read_regions
from microtome.storage import Conversion, Layout, StoredArray, _batches

DTYPES = ["uint8", "uint16", "int32", "float32", "float64"]


@pytest.fixture(scope="module", autouse=True)
def loaded():
    """Compiled code is there before a test asks for it, where Numba is."""
    return _batches._COMPILER.load()


def use(patch, way, loaded):
    if way != "plain" and loaded is None:
        pytest.skip("Numba is not installed")
    patch.setattr(_batches._COMPILER, "after", lambda _: loaded if way != "plain" else None)
    if way == "streamed":
        patch.setattr(_batches, "_STREAMED", 0)


def by_numpy(window, turn):
    mirrored = np.flip(window, -1) if turn >= 4 else window
    return np.rot90(mirrored, turn % 4, axes=(-2, -1))


def image_of(path, pixels, axes, layout):
    with MultiscaleImage.create(
        path,
        type=pixels.dtype,
        level_shape=pixels.shape,
        data_axis_order=axes,
        has_channel_axis="c" in axes,
        mpp=1.0,
        layout=layout,
    ) as image:
        image["level0"][...] = pixels
    return MultiscaleImage.open(path)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("way", ["compiled", "streamed", "plain"])
def test_a_turned_window_is_the_window_turned(tmp_path_factory, loaded, data, way):
    axes = data.draw(st.sampled_from(["cyx", "yx", "czyx", "tcyx"]))
    sides = {"t": 1, "c": data.draw(st.integers(1, 3)), "z": 4}
    sides |= {"y": data.draw(st.integers(1, 60)), "x": data.draw(st.integers(1, 150))}
    dtype = np.dtype(data.draw(st.sampled_from(DTYPES)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    pixels = rng.integers(0, 200, [sides[axis] for axis in axes]).astype(dtype)
    chunk = tuple({"t": 1, "c": 1, "z": 2, "y": 16, "x": 35}[axis] for axis in axes)
    codec = data.draw(st.sampled_from(["fast", "small", "raw", "labels"]))
    layout = Layout(chunk, tuple(2 * side for side in chunk), codec)
    square = data.draw(st.booleans())
    height = data.draw(st.integers(1, 40))
    size = (height, height if square else data.draw(st.integers(1, 90)))
    corner = st.tuples(st.integers(-20, sides["y"] + 5), st.integers(-20, sides["x"] + 5))
    starts = data.draw(st.lists(corner, min_size=1, max_size=5))
    turns = [data.draw(st.integers(0, 7)) for _ in starts]
    if size[0] != size[1]:
        turns = [turn // 2 * 2 for turn in turns]
    if "z" in axes:
        size, starts = (3, *size), [(data.draw(st.integers(-1, 2)), *start) for start in starts]
    padding = data.draw(st.sampled_from([0, 7, "edge", "reflect"]))
    steps = Conversion.of(
        [
            ("subtract", np.arange(sides["c"] if "c" in axes else 1) + 0.5),
            ("divide", np.arange(sides["c"] if "c" in axes else 1) + 3),
        ]
    )
    convert = data.draw(st.sampled_from([None, Conversion.of(), steps]))
    with (
        image_of(tmp_path_factory.mktemp("i") / "i.ome.zarr", pixels, axes, layout) as image,
        pytest.MonkeyPatch.context() as patch,
    ):
        use(patch, way, loaded)
        windows = Windows.of(0, starts, size)
        upright = read_regions([image], windows, padding=padding, convert=convert)
        found = read_regions([image], windows, padding=padding, convert=convert, turns=turns)
    wanted = np.stack([by_numpy(window, k) for window, k in zip(upright, turns, strict=True)])
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("turns", "size", "told"),
    [
        ([1], 8, "one whole number a window"),
        ([1, 2, 3], 8, "one whole number a window"),
        ([0.0, 1.0], 8, "one whole number a window"),
        ([0, 8], 8, "from 0 to 7, got 8"),
        ([-1, 0], 8, "from 0 to 7, got -1"),
        ([2, 3], (8, 6), "8 x 6 cannot be turned by a quarter"),
    ],
)
def test_turns_that_are_none_are_refused(in_memory, turns, size, told):
    image = in_memory(np.zeros((1, 20, 20), np.uint8))
    with pytest.raises(InvalidInputError, match=told):
        read_regions([image], Windows.of(0, [(0, 0), (4, 4)], size), turns=turns)


@pytest.mark.parametrize("axes", ["CYX", "YXC", "XYC"])
def test_windows_of_an_array_with_its_axes_in_any_order(tmp_path, axes):
    shape = tuple({"C": 3, "Y": 60, "X": 50}[axis] for axis in axes)
    pixels = np.random.default_rng(0).integers(0, 999, shape, np.uint16)
    zarr.create_array(tmp_path / "a", data=pixels, chunks=tuple(min(n, 17) for n in shape))
    stack = ArrayStack(StoredArray(tmp_path / "a"), axes)
    upright = np.transpose(pixels, [axes.index(axis) for axis in "CYX"])
    starts = [(3 * k, 2 * k) for k in range(8)]
    windows = Windows.of(0, starts, 24, sample=np.zeros(8, np.int64))
    found = read_regions([stack], windows, convert=Conversion.of(), turns=range(8))
    for k, (y, x) in enumerate(starts):
        np.testing.assert_array_equal(found[k], by_numpy(upright[:, y : y + 24, x : x + 24], k))
