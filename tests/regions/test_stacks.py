"""Stacks with axes in any order against numpy, pairs, samples of windows, answers of models."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.errors import InvalidInputError, OutOfRangeError
from microtome.image import ArrayStack, MemoryArray
from microtome.regions import (
    ImageRegionData,
    Windows,
    collate_regions,
    data_shape_of,
    paired,
    read_regions,
)


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
    flat, series = np.zeros((1, 5, 5), np.uint8), np.zeros((2, 5, 5), np.uint8)
    with pytest.raises(OutOfRangeError, match="has 1 samples, no sample 1"):
        read_regions([in_memory(flat)], windows)
    # The first sample's pixels are never given out for another's.
    with pytest.raises(InvalidInputError, match="windows of sample 1"):
        read_regions([in_memory(series, "tyx")], windows)
    with pytest.raises(InvalidInputError, match="got a ArrayStack"):
        read_regions([stack((5, 5), "YX")], Windows.of(0, [[0, 0]], 2))


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
