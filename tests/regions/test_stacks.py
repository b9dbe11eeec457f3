"""Stacks with axes in any order against numpy, pairs, samples of windows, answers of models."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from microtome.errors import InvalidInputError, OutOfRangeError
from microtome.image import ArrayStack, MemoryArray
from microtome.regions import (
    ImageRegionData,
    Windows,
    collate_regions,
    data_shape_of,
    decollate_regions,
    paired,
    read_regions,
    region_batch,
)
from microtome.storage import StoredArray


def stack(shape, axes, dtype="uint32", source="array") -> ArrayStack:
    pixels = np.arange(np.prod(shape)).reshape(shape) + 2**24  # float32 would lose the last digit
    return ArrayStack(MemoryArray(pixels.astype(dtype)), axes, source=source)


def canonical(pixels: np.ndarray, axes: str) -> np.ndarray:
    """SC(Z)YX by numpy alone: missing S, T and C added, S outside T."""
    order = "STCZYX" if "Z" in axes else "STCYX"
    missing = [axis for axis in "STC" if axis not in axes]
    full = pixels.reshape((1,) * len(missing) + pixels.shape)
    names = "".join(missing) + axes
    full = full.transpose([names.index(axis) for axis in order])
    return full.reshape((full.shape[0] * full.shape[1], *full.shape[2:]))


@given(st.data())
def test_a_patch_is_what_numpy_cuts_of_the_whole(data):
    extra = data.draw(st.sets(st.sampled_from("SCTZ")))
    axes = "".join(data.draw(st.permutations(sorted({"Y", "X"} | extra))))
    shape = data.draw(st.tuples(*[st.integers(1, 4)] * len(axes)))
    one = stack(shape, data.draw(st.sampled_from([axes, axes.lower()])))
    whole = canonical(one.array.read(tuple((0, n) for n in shape)), axes)
    assert data_shape_of(one) == one.data_shape == whole.shape
    rank = whole.ndim - 2
    coords = data.draw(st.tuples(*[st.integers(-6, 6)] * rank))
    size = data.draw(st.tuples(*[st.integers(1, 6)] * rank))
    sample = data.draw(st.integers(0, whole.shape[0] - 1))
    channels = data.draw(st.none() | st.lists(st.integers(0, whole.shape[1] - 1), min_size=1))
    frame = np.pad(whole[sample], [(0, 0)] + [(12, 12)] * rank)
    window = tuple(slice(a + 12, a + 12 + n) for a, n in zip(coords, size, strict=True))
    expected = frame[(slice(None) if channels is None else channels, *window)]
    found = one.extract_patch(sample, channels, coords, size)
    assert found.dtype == np.uint32
    np.testing.assert_array_equal(found, expected)


class Foreign:
    """Somebody else's format: what the protocol asks for and nothing more."""

    source, original_axes, data_dtype = "foreign", "SCZYX", "uint32"

    def __init__(self, whole):
        self.whole, self.asked = whole, []
        self.data_shape = self.original_data_shape = whole.shape

    def extract_patch(self, sample_idx, channels, coords, patch_size):
        self.asked.append(channels)
        window = tuple(slice(a, a + n) for a, n in zip(coords, patch_size, strict=True))
        found = self.whole[sample_idx][(channels, *window)]
        assert found.shape[1:] == tuple(patch_size)  # only boxes inside are asked for
        return found


MODES = {0: {}, 7: {"constant_values": 7}, "edge": {"mode": "edge"}, "reflect": {"mode": "reflect"}}


@given(st.data())
def test_regions_are_what_numpy_cuts_of_the_whole(data):
    axes = "".join(
        data.draw(st.permutations(sorted({"Y", "X"} | data.draw(st.sets(st.sampled_from("SCTZ"))))))
    )
    shape = data.draw(st.tuples(*[st.integers(1, 4)] * len(axes)))
    one = stack(shape, axes)
    whole = canonical(one.array.read(tuple((0, n) for n in shape)), axes)
    images = [one, Foreign(whole)]
    flat = whole.shape[2] == 1 and data.draw(st.booleans())  # the only plane needs no third size
    rank = 2 if flat else whole.ndim - 2
    count = data.draw(st.integers(1, 5))
    draw = lambda low, high, *n: np.array(  # noqa: E731 - short for what follows
        data.draw(
            st.lists(st.integers(low, high), min_size=int(np.prod(n)), max_size=int(np.prod(n)))
        )
    ).reshape(n)
    starts, which, sample = (
        draw(-6, 6, count, rank),
        draw(0, 1, count),
        draw(0, len(whole) - 1, count),
    )
    size = tuple(draw(1, 6, rank).tolist())
    channels = data.draw(st.none() | st.lists(st.integers(0, whole.shape[1] - 1), min_size=1))
    padding = data.draw(st.sampled_from(list(MODES)))
    windows = Windows.of(which, starts, size, sample=sample)
    batch = read_regions(images, windows, channels=channels, padding=padding)
    assert batch.dtype == np.uint32
    pixels = whole[:, slice(None) if channels is None else channels]
    pixels = pixels.reshape(*pixels.shape[:2], *pixels.shape[-rank:])
    frame = np.pad(pixels, [(0, 0)] * 2 + [(12, 12)] * rank, **MODES[padding])
    for row, (s, start) in enumerate(zip(sample, starts, strict=True)):
        window = tuple(slice(a + 12, a + 12 + n) for a, n in zip(start, size, strict=True))
        np.testing.assert_array_equal(batch[row], frame[(s, slice(None), *window)])
    described = region_batch(images, windows, batch, channels=channels)
    for row, region in enumerate(decollate_regions(described)):
        assert region.data_shape == (*pixels.shape[:2], *whole.shape[2:])
        assert region.region_spec["sample_idx"] == sample[row]
        own = images[which[row]]
        assert (region.source, region.axes) == (own.source, own.original_axes)
        assert region.original_data_shape == own.original_data_shape


@pytest.mark.parametrize("axes", ["SCYX", "YXCS", "XSYC", "CYXT", "TSYX"])
def test_regions_of_an_array_on_disk_with_its_axes_in_any_order(tmp_path, axes):
    shape = tuple({"S": 3, "T": 2, "C": 4, "Y": 30, "X": 23}[axis] for axis in axes)
    pixels = np.random.default_rng(0).integers(0, 2**32, shape, np.uint32)
    zarr.create_array(tmp_path / "a", data=pixels, chunks=tuple(min(n, 7) for n in shape))
    one = ArrayStack(StoredArray(tmp_path / "a"), axes)
    whole = canonical(pixels, axes)
    generator = np.random.default_rng(1)
    sample, starts = generator.integers(0, len(whole), 40), generator.integers(-9, 30, (40, 2))
    channels = [0] if "C" not in axes else [3, 0, 1]
    windows = Windows.of(0, starts, (9, 8), sample=sample)
    out = np.ones((40, len(channels), 9, 8), np.uint32)
    assert read_regions([one], windows, channels=channels, out=out) is out
    frame = np.pad(whole[:, channels], [(0, 0)] * 2 + [(9, 40)] * 2)
    for row, (s, (y, x)) in enumerate(zip(sample, starts, strict=True)):
        np.testing.assert_array_equal(out[row], frame[s, :, y + 9 : y + 18, x + 9 : x + 17])


def test_time_points_of_an_image_are_its_samples(tmp_path, in_memory, on_disk):
    pixels = np.arange(3 * 2 * 20 * 20, dtype=np.uint16).reshape(3, 2, 20, 20)
    windows = Windows.of([0, 1, 0, 1], [[1, 2]] * 4, 5, sample=[2, 1, 0, 2])
    images = [in_memory(pixels, "tcyx"), on_disk(tmp_path / "a", pixels, "tcyx")]
    batch = read_regions(images, windows, channels=[1, 0])
    np.testing.assert_array_equal(batch, pixels[[2, 1, 0, 2], ::-1, 1:6, 2:7])
    assert region_batch(images, windows, batch).region_spec["sample_idx"].tolist() == [2, 1, 0, 2]


@pytest.mark.parametrize("wrong", [np.zeros((1, 2, 2), "uint16"), np.zeros((1, 1, 2), "uint32")])
def test_a_stack_that_returns_something_else_is_told(wrong):
    class Wrong(Foreign):
        def extract_patch(self, *_):
            return wrong

    images = [Wrong(np.zeros((1, 1, 5, 5), np.uint32))]
    with pytest.raises(
        InvalidInputError,
        match=r"Wrong has to return \(1, 2, 2\) uint32.*image foreign, .*\[3, 1\]",
    ):
        read_regions(images, Windows.of(0, [[3, 1]], 2))


def test_what_no_stack_is_is_refused():
    windows = Windows.of(0, [[0, 0]], 2)
    with pytest.raises(InvalidInputError, match="got a ndarray; open it with"):
        read_regions([np.zeros((5, 5))], windows)
    with pytest.raises(InvalidInputError, match=r"has 3 samples; .* which sample="):
        read_regions([stack((3, 5, 5), "SYX")], windows)
    with pytest.raises(OutOfRangeError, match="is a stack, which has one level, no level 1"):
        read_regions([stack((5, 5), "YX")], Windows.of(0, [[0, 0]], 2, level=1))


@pytest.mark.parametrize("axes", ["YX", "CYXX", "CZX", "CQYX", "", "CZYXT"])
def test_axes_that_do_not_fit_are_refused_with_some_that_would(axes):
    with pytest.raises(InvalidInputError, match=r"a\.tif: axes .*'CYX'"):
        stack((2, 3, 4), axes, source="a.tif")


def test_a_sample_that_is_not_there():
    with pytest.raises(OutOfRangeError, match="has 6 samples of 1 channels"):
        stack((2, 3, 4, 4), "STYX").extract_patch(6, None, (0, 0), (2, 2))


@pytest.mark.parametrize(
    ("shape", "axes", "told"),
    [((50, 50), "YX", "1 sample of 50 x 50"), ((2, 100, 100), "SYX", "2 samples of 100 x 100")],
)
def test_a_target_that_does_not_lie_on_its_image_is_refused(shape, axes, told):
    images = [stack((3, 100, 100), "CYX", source="in.tif")]
    with pytest.raises(
        InvalidInputError, match=rf"in\.tif, has 1 sample of 100 x 100.*out\.tif {told}"
    ):
        paired(images, [stack(shape, axes, source="out.tif")])


def test_targets_that_lie_on_their_images():
    images = [stack((3, 9, 8), "CYX")]
    paired(images, None)
    paired(images, [stack((9, 8), "YX", "int32")], labels=True)
    with pytest.raises(InvalidInputError, match="labels are integers, got float32"):
        paired(images, [stack((9, 8), "YX", "float32")], labels=True)
    with pytest.raises(InvalidInputError, match="1 images have a target each, got 2"):
        paired(images, images * 2)


def test_samples_of_windows(in_memory):
    windows = Windows.of([0, 0], [[0, 0], [1, 1]], 2, sample=[1, 0])
    assert windows.take([1]).sample.tolist() == [0]
    assert Windows.of([0, 0], [[0, 0], [1, 1]], 2, sample=1).sample.tolist() == [1, 1]
    with pytest.raises(InvalidInputError, match="a sample each"):
        Windows.of([0, 0], [[0, 0], [1, 1]], 2, sample=[1, 0, 1])
    flat = np.zeros((1, 5, 5), np.uint8)
    with pytest.raises(OutOfRangeError, match="has 1 samples, no sample 1"):
        read_regions([in_memory(flat)], windows)


def test_an_answer_keeps_the_place_and_nothing_else_changes():
    spec = {"data_idx": 0, "sample_idx": 0, "coords": (1, 2), "patch_size": (4, 4)}
    region = ImageRegionData(
        np.zeros((3, 4, 4)), "a", (1, 3, 9, 9), "uint8", "CYX", (3, 9, 9), spec, {"level": 0}
    )
    answer = np.ones((1, 8, 8), np.float32)
    found = ImageRegionData.from_model_output(region, answer)
    assert found.data is answer
    assert found[1:] == region[1:]
    assert region.data.shape == (3, 4, 4)
    batch = collate_regions([region, region])
    assert ImageRegionData.from_model_output(batch, answer.repeat(2, 0)).source == ["a", "a"]
    with pytest.raises(InvalidInputError, match=r"batch of 2 regions .* shape \(1, 8, 8\)"):
        ImageRegionData.from_model_output(batch, answer)
