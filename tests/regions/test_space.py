"""Where regions lie in micrometres: against `read_at`, and pixel by pixel against numpy's turns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.coordinates import Mpp
from microtome.errors import InvalidInputError, NoResolutionError
from microtome.image import ArrayStack, MemoryArray, MultiscaleImage
from microtome.regions import (
    ImageRegionData,
    Windows,
    decollate_regions,
    read_regions,
    region_batch,
    region_bounds,
    region_transform,
)
from microtome.storage import Layout


def turned(pixels: np.ndarray, state: int) -> np.ndarray:
    """The eight states by numpy: mirrored along the last axis, then turned counter-clockwise."""
    mirrored = np.flip(pixels, -1) if state >= 4 else pixels
    return np.rot90(mirrored, state % 4, axes=(-2, -1))


def centres(shape: tuple[int, ...]) -> np.ndarray:
    """The middle of every pixel, (n, d)."""
    return np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(
        -1, len(shape)
    ) + np.float64(0.5)


@given(st.data())
def test_every_pixel_of_a_crop_is_found_again(data) -> None:
    rank = data.draw(st.sampled_from([2, 3]))
    shape = tuple(data.draw(st.lists(st.integers(9, 20), min_size=rank, max_size=rank)))
    size = tuple(data.draw(st.lists(st.integers(1, 6), min_size=rank, max_size=rank)))
    start = [data.draw(st.integers(0, a - b)) for a, b in zip(shape, size, strict=True)]
    mpp = data.draw(st.tuples(st.sampled_from([0.25, 0.499, 1.0]), st.sampled_from([0.5, 2.0])))
    state = data.draw(st.integers(0, 7))
    pixels = np.arange(np.prod(shape), dtype=np.uint32).reshape(shape)
    axes = "ZYX"[-rank:]
    image = ArrayStack(MemoryArray(pixels), axes, mpp=Mpp(*mpp, "user"))
    windows = Windows.of(0, [start], size)
    crop = read_regions([image], windows)
    batch = region_batch([image], windows, crop, metadata=[{"augmentation": {"dihedral": state}}])
    (region,) = decollate_regions(batch)
    region = region._replace(data=turned(region.data, state))
    place = region_transform(region)
    points = centres(region.data.shape[1:])
    found = place.apply(points)
    spacing = np.asarray([1.0, *mpp][-rank:])
    at = np.floor(found[:, ::-1] / spacing + 1e-9).astype(int)
    np.testing.assert_array_equal(pixels[tuple(at.T)], region.data.reshape(-1))
    np.testing.assert_allclose(place.inverse_transform().apply(found), points, atol=1e-9)
    box = region_bounds(region)
    assert (found >= box[:rank]).all()
    assert (found <= box[rank:]).all()
    np.testing.assert_allclose(
        place.apply_box([0.0] * rank + list(region.data.shape[1:])), box, atol=1e-9
    )
    # A model whose answer has other pixels covers the same box.
    answer = np.zeros((2, *(2 * n for n in region.data.shape[1:])))
    finer = region_transform(ImageRegionData.from_model_output(region, answer))
    np.testing.assert_allclose(finer.apply(points * 2), found, atol=1e-9)


def made(path, pixels: np.ndarray, axes: str, **options) -> MultiscaleImage:
    rank = len(axes)
    with MultiscaleImage.create(
        path,
        type=pixels.dtype,
        level_shape=pixels.shape,
        data_axis_order=axes,
        has_channel_axis="c" in axes,
        layout=Layout((1,) * (rank - 2) + (16, 16), (1,) * (rank - 2) + (32, 32)),
        **options,
    ) as image:
        image["level0"][...] = pixels
        image.build_levels()
    return MultiscaleImage.open(path)


def test_a_box_is_where_the_image_is_read(tmp_path) -> None:
    pixels = np.random.default_rng(0).integers(0, 999, (2, 128, 96), np.uint16)
    image = made(tmp_path / "a", pixels, "cyx", mpp=(0.5, 0.25), translation=(100.0, -7.0))
    for level in range(3):
        size = (12, 8)
        windows = Windows.of([0, 0], [[3, 5], [10, 2]], size, level)
        batch = region_batch([image], windows, read_regions([image], windows))
        for box, read in zip(region_bounds(batch), batch.data, strict=True):
            y, x = (image.level_mpp(level).y, image.level_mpp(level).x)
            np.testing.assert_array_equal(image.read_at(mpp=(y, x), region=box.tolist()), read)
        # In the space that the image states, its first pixel's centre is its translation.
        world = region_bounds(batch, space="world")
        np.testing.assert_allclose(
            world - region_bounds(batch), [[-7.125, 99.75, -7.125, 99.75]] * 2
        )
        level_of = image.level(level)
        for one, transform in zip(
            decollate_regions(batch), region_transform(batch, space="world"), strict=True
        ):
            (row, column) = one.region_spec["coords"]
            centre = transform.apply([0.5, 0.5])
            np.testing.assert_allclose(
                centre[::-1],
                np.asarray(level_of.translation[1:])
                + np.asarray(level_of.scale[1:]) * (row, column),
            )
            np.testing.assert_array_equal(region_bounds(one, space="world"), world[0])
            world = world[1:]


def test_depth_is_measured_where_the_image_says_how_far_planes_are(tmp_path) -> None:
    pixels = np.zeros((8, 32, 32), np.uint8)
    measured = made(tmp_path / "a", pixels, "zyx", mpp=0.5, z_spacing=3.0)
    plain = ArrayStack(MemoryArray(pixels), "ZYX", mpp=Mpp(0.5, 0.5, "user"))
    windows = Windows.of([0, 1], [[2, 4, 8]] * 2, (3, 8, 8))
    batch = region_batch([measured, plain], windows, read_regions([measured, plain], windows))
    np.testing.assert_allclose(region_bounds(batch), [[4, 2, 6, 8, 6, 15], [4, 2, 2, 8, 6, 5]])


def test_what_lies_nowhere_is_told() -> None:
    image = ArrayStack(MemoryArray(np.zeros((9, 9), np.uint8)), "YX")
    windows = Windows.of(0, [[0, 0]], 4)
    batch = region_batch([image], windows, read_regions([image], windows))
    with pytest.raises(NoResolutionError, match="open the image with mpp="):
        region_bounds(batch)
    with pytest.raises(NoResolutionError, match="open the image with mpp="):
        region_transform(batch)
    known = ArrayStack(MemoryArray(np.zeros((9, 9), np.uint8)), "YX", mpp=Mpp(1, 1, "user"))
    (region,) = decollate_regions(region_batch([known], windows, batch.data))
    with pytest.raises(InvalidInputError, match="space is one of"):
        region_bounds(region, space="stage")  # type: ignore[arg-type]
    wrong = {**region.additional_metadata, "augmentation": {"dihedral": 8}}
    with pytest.raises(InvalidInputError, match="from 0 to 7, got 8"):
        region_transform(region._replace(additional_metadata=wrong))
    with pytest.raises(InvalidInputError, match="along 2 axes"):
        region_transform(region._replace(data=np.zeros((4, 4))))
