"""Batches of float32 that are converted on the way: the bytes that NumPy gives step by step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.errors import InvalidInputError
from microtome.image import MultiscaleImage
from microtome.regions import Windows, read_regions
from microtome.storage import Conversion, Layout, _batches

DTYPES = ["uint8", "uint16", "int8", "int16", "int32", "uint32", "float32", "float64", "uint64"]


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


def random_steps(draw, channels, seed):
    rng = np.random.default_rng(seed)
    steps = []
    for kind in draw(
        st.lists(st.sampled_from(["clip", "subtract", "divide", "multiply", "add"]), max_size=4)
    ):
        numbers = rng.normal(3, 40, channels).astype(np.float32)
        numbers[rng.random(channels) < 0.2] = 0
        if kind == "clip":
            steps.append(
                (kind, numbers, numbers + rng.integers(0, 90, channels).astype(np.float32))
            )
        else:
            steps.append((kind, numbers))
    return Conversion.of(steps)


def by_numpy(pixels, conversion):
    """The steps one after the other, over the whole; an independent way to write them."""
    out = pixels.astype(np.float32)
    column = (slice(None), None, None)
    with np.errstate(all="ignore"):
        for kind, low, high in zip(
            conversion.kinds, conversion.first, conversion.second, strict=True
        ):
            a, b = low[column], high[column]
            out = {
                "clip": lambda x, a=a, b=b: np.clip(x, a, b),
                "subtract": lambda x, a=a: x - a,
                "divide": lambda x, a=a: x / a,
                "multiply": lambda x, a=a: x * a,
                "add": lambda x, a=a: x + a,
            }[kind](out)
    return out


def image_of(path, pixels, layout):
    with MultiscaleImage.create(
        path, type=pixels.dtype, level_shape=pixels.shape, mpp=1.0, layout=layout
    ) as image:
        image["level0"][...] = pixels
    return MultiscaleImage.open(path)


@settings(max_examples=50, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("way", ["compiled", "streamed", "plain"])
def test_the_bytes_are_those_of_numpy(tmp_path_factory, loaded, data, way):
    channels, deep = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 150))
    dtype = np.dtype(data.draw(st.sampled_from(DTYPES)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    pixels = rng.normal(20, 60, (channels, height, width))
    if dtype.kind == "u":
        pixels = abs(pixels)
    pixels = pixels.astype(dtype)
    if dtype.kind == "f":
        special = [np.nan, -0.0, np.inf]
        pixels[rng.random(pixels.shape) < 0.1] = data.draw(st.sampled_from(special))
    layout = Layout((min(deep, channels), 16, 70), None, "fast")
    layout = Layout(
        layout.chunk,
        (layout.chunk[0] * channels, 32, 140),
        data.draw(st.sampled_from(["fast", "small", "raw", "labels"])),
    )
    picked = data.draw(st.lists(st.integers(0, channels - 1), min_size=1, max_size=5))
    conversion = random_steps(data.draw, len(picked), data.draw(st.integers(0, 99)))
    corner = st.tuples(st.integers(-20, height + 5), st.integers(-20, width + 5))
    starts = data.draw(st.lists(corner, min_size=1, max_size=5))
    size = (data.draw(st.integers(1, 30)), data.draw(st.integers(1, 90)))
    whole = np.pad(
        by_numpy(pixels[picked], conversion), [(0, 0), (40, 140), (40, 140)], constant_values=-1.5
    )
    with (
        image_of(tmp_path_factory.mktemp("i") / "i.ome.zarr", pixels, layout) as image,
        pytest.MonkeyPatch.context() as patch,
    ):
        use(patch, way, loaded)
        batch = read_regions(
            [image], Windows.of(0, starts, size), channels=picked, padding=-1.5, convert=conversion
        )
    expected = np.stack(
        [whole[:, y + 40 : y + 40 + size[0], x + 40 : x + 40 + size[1]] for y, x in starts]
    )
    assert batch.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(batch), np.isnan(expected))
    # Which of two zeros a clip gives is the processor's choice, in NumPy too: + 0 makes them one.
    there = ~np.isnan(expected)
    found, wanted = batch[there] + 0, expected[there] + 0
    np.testing.assert_array_equal(found.view(np.uint32), wanted.view(np.uint32))


@pytest.mark.parametrize("way", ["compiled", "streamed", "plain"])
@pytest.mark.parametrize("padding", ["edge", "reflect"])
def test_mirrored_pixels_are_converted_too(tmp_path, loaded, monkeypatch, way, padding):
    use(monkeypatch, way, loaded)
    pixels = np.random.default_rng(0).integers(0, 900, (2, 30, 30), dtype=np.uint16)
    conversion = Conversion.of([("subtract", [10, 20]), ("divide", [3, 7])])
    whole = np.pad(by_numpy(pixels, conversion), [(0, 0), (9, 9), (9, 9)], mode=padding)
    with image_of(tmp_path / "i.ome.zarr", pixels, None) as image:
        starts = [(-9, -9), (3, 4), (29, 29)]
        batch = read_regions(
            [image], Windows.of(0, starts, 10), padding=padding, convert=conversion
        )
    for tile, (y, x) in zip(batch, starts, strict=True):
        np.testing.assert_array_equal(tile, whole[:, y + 9 : y + 19, x + 9 : x + 19])


@pytest.mark.parametrize("way", ["compiled", "streamed", "plain"])
def test_each_image_has_its_own_and_their_types_may_differ(tmp_path, loaded, monkeypatch, way):
    use(monkeypatch, way, loaded)
    rng = np.random.default_rng(0)
    wide, narrow = (
        rng.integers(0, 900, (2, 30, 30), np.uint16),
        rng.integers(0, 200, (2, 30, 30), np.uint8),
    )
    own = {0: Conversion.of([("divide", [2, 3])]), 1: Conversion.of([("multiply", [5, 7])])}
    out = np.zeros((2, 2, 8, 8), np.float32)
    with (
        image_of(tmp_path / "a.ome.zarr", wide, None) as a,
        image_of(tmp_path / "b.ome.zarr", narrow, None) as b,
    ):
        windows = Windows.of([1, 0], [(3, 3), (5, 9)], 8)
        assert read_regions([a, b], windows, convert=own, out=out) is out
    np.testing.assert_array_equal(out[0], by_numpy(narrow, own[1])[:, 3:11, 3:11])
    np.testing.assert_array_equal(out[1], by_numpy(wide, own[0])[:, 5:13, 9:17])


def test_a_conversion_for_other_channels_is_refused(tmp_path):
    pixels = np.zeros((2, 30, 30), np.uint16)
    with (
        image_of(tmp_path / "i.ome.zarr", pixels, None) as image,
        pytest.raises(InvalidInputError, match="is for 3 channels, and 2 are read"),
    ):
        read_regions(
            [image], Windows.of(0, [(0, 0)], 8), convert=Conversion.of([("add", [1, 2, 3])])
        )


@pytest.mark.parametrize(
    "steps",
    [
        [("log", [1, 2])],
        [("add", [1, 2]), ("divide", [1])],
        [("add", [1, np.nan])],
        [("add", 1)],
    ],
    ids=["no such step", "other channels", "no number", "one for all"],
)
def test_steps_that_are_none_are_refused(steps):
    with pytest.raises(InvalidInputError, match="steps"):
        Conversion.of(steps)


@pytest.mark.parametrize("way", ["compiled", "streamed", "plain"])
@pytest.mark.parametrize("kept", ["doubles", "columns", "read-only"])
def test_numbers_kept_in_any_way_do_the_same(tmp_path, loaded, way, kept):
    pixels = np.arange(2 * 30 * 30, dtype=np.uint16).reshape(2, 30, 30)
    usual = Conversion.of([("subtract", [0.1, 7.3]), ("divide", [1.7, 0.3])])
    numbers = {
        "doubles": np.asarray([[0.1, 7.3], [1.7, 0.3]]),
        "columns": np.asarray([[0.1, 1.7], [7.3, 0.3]], np.float32).T,
        "read-only": np.broadcast_to(usual.first, (2, 2)),
    }[kept]
    given = Conversion(usual.kinds, numbers, numbers)
    with (
        image_of(tmp_path / "i.ome.zarr", pixels, None) as image,
        pytest.MonkeyPatch.context() as p,
    ):
        use(p, way, loaded)
        found = read_regions([image], Windows.of(0, [(3, 4)], 20), convert=given)
    assert found.tobytes() == by_numpy(pixels, usual)[:, 3:23, 4:24].tobytes()


def test_numbers_beyond_float32_are_refused():
    with pytest.raises(InvalidInputError, match="need finite numbers"):
        Conversion(("add",), np.full((1, 2), 1e300), np.zeros((1, 2)))
