"""Regions into a batch and back, exactly; and the batch that a read describes at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.errors import InvalidInputError, UnknownNameError
from microtome.image import MultiscaleImage
from microtome.regions import (
    ImageRegionData,
    Windows,
    collate_regions,
    decollate_regions,
    read_regions,
    region_batch,
)


def region(data, **changes) -> ImageRegionData:
    spec = {"data_idx": 3, "sample_idx": 0, "coords": (4, 5), "patch_size": (8, 8)}
    fields = {
        "source": "a.zarr",
        "data_shape": (1, 3, 40, 50),
        "dtype": "uint16",
        "axes": "CYX",
        "original_data_shape": (3, 40, 50),
        "region_spec": spec,
        "additional_metadata": {"mpp": (0.5, 0.5), "tissue_id": "t1"},
    }
    return ImageRegionData(data=data, **{**fields, **changes})


def same(one: ImageRegionData, other: ImageRegionData) -> bool:
    if type(one.data) is not type(other.data) or str(one.data.dtype) != str(other.data.dtype):
        return False
    pixels = np.asarray(one.data)
    return (
        pixels.shape == np.asarray(other.data).shape
        and pixels.tobytes() == np.asarray(other.data).tobytes()
        and one[1:] == other[1:]
    )


def test_regions_of_several_images_become_a_batch_of_each():
    pixels = np.arange(24).reshape(2, 3, 2, 2)
    masks = pixels[:, :1] > 4
    pairs = [(region(p), region(m, source="m.zarr")) for p, m in zip(pixels, masks, strict=True)]
    images, labels = collate_regions(pairs)
    np.testing.assert_array_equal(images.data, pixels)
    np.testing.assert_array_equal(labels.data, masks)
    assert (images.source, labels.source) == (["a.zarr"] * 2, ["m.zarr"] * 2)
    with pytest.raises(InvalidInputError, match=r"as many regions each, got \[1, 2\]"):
        collate_regions([pairs[0], pairs[1][:1]])


# ------------------------------------------------------------------ there and back

COUNTS = st.integers(0, 2**62)


@st.composite
def batches(draw):
    """Regions of one batch from sources that differ in everything else."""
    rank = draw(st.sampled_from([2, 3]))
    shape = (draw(st.integers(0, 3)), *draw(st.tuples(*[st.integers(1, 4)] * rank)))
    dtype = draw(st.sampled_from(["uint8", "int16", "float32", "bool"]))
    as_torch = draw(st.booleans())
    keys = (
        ["crop_coords", "crop_size", "stitch_coords", "total_tiles"] if draw(st.booleans()) else []
    )

    def one():
        bits = draw(st.binary(min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
        pixels = np.frombuffer(bits, np.uint8).reshape(shape).astype(dtype)
        place = st.tuples(*[st.integers(-(2**40), 2**40)] * rank)
        spec = {"data_idx": draw(COUNTS), "sample_idx": draw(COUNTS)}
        spec |= {key: draw(place) for key in ("coords", "patch_size")}
        spec |= {key: draw(COUNTS) if key == "total_tiles" else draw(place) for key in keys}
        axes = draw(st.sampled_from(["YX", "CYX", "ZYX", "CZYX", "TCZYX"]))
        sizes = st.tuples(*[st.integers(1, 10**6)] * len(axes))
        return ImageRegionData(
            data=torch.from_numpy(pixels) if as_torch else pixels,
            source=draw(st.sampled_from(["array", "/a b/ü.ome.zarr"])),
            data_shape=draw(st.tuples(*[st.integers(1, 10**6)] * draw(st.sampled_from([4, 5])))),
            dtype=draw(st.sampled_from(["uint8", "float32"])),
            axes=axes,
            original_data_shape=draw(sizes),
            region_spec=spec,
            additional_metadata=draw(
                st.dictionaries(
                    st.text(max_size=3), st.none() | st.integers() | st.text(max_size=3)
                )
            ),
        )

    return [one() for _ in range(draw(st.integers(1, 4)))]


@settings(max_examples=150)
@given(batches())
def test_decollating_undoes_collating(regions):
    batch = collate_regions(regions)
    again = decollate_regions(batch)
    assert len(again) == len(regions)
    assert all(same(one, other) for one, other in zip(again, regions, strict=True))
    # And the other way round.
    twice = collate_regions(again)
    assert np.asarray(twice.data).tobytes() == np.asarray(batch.data).tobytes()
    assert twice[1:6] == batch[1:6]
    assert twice.additional_metadata == batch.additional_metadata
    assert list(twice.region_spec) == list(batch.region_spec)
    for key, column in batch.region_spec.items():
        np.testing.assert_array_equal(twice.region_spec[key], column)


def test_the_collated_form():
    batch = collate_regions(
        [
            region(np.zeros((3, 8, 8), np.uint16)),
            region(
                np.ones((3, 8, 8), np.uint16),
                source="b",
                axes="CZYX",
                data_shape=(1, 3, 9, 40, 50),
                original_data_shape=(3, 9, 40, 50),
                region_spec={
                    "data_idx": 7,
                    "sample_idx": 1,
                    "coords": (-4, 0),
                    "patch_size": (8, 8),
                },
            ),
        ]
    )
    assert batch.data.shape == (2, 3, 8, 8)
    assert batch.source == ["a.zarr", "b"]
    # One tuple of length B a dimension; an axis that one lacks is -1.
    assert batch.data_shape == [(1, 1), (3, 3), (40, 9), (50, 40), (-1, 50)]
    assert batch.original_data_shape == [(3, 3), (40, 9), (50, 40), (-1, 50)]
    assert batch.axes == ["CYX", "CZYX"]
    assert batch.dtype == ["uint16", "uint16"]
    np.testing.assert_array_equal(batch.region_spec["data_idx"], [3, 7])
    np.testing.assert_array_equal(batch.region_spec["coords"], [[4, 5], [-4, 0]])
    assert [m["tissue_id"] for m in batch.additional_metadata] == ["t1", "t1"]


@pytest.mark.parametrize(
    "values",
    [
        ["a", "b"],
        ["a", 1],  # numpy would make a text of the number
        [1, None],
        [1, 2.5],
        [True, False],
        [(1, 2), (3, 4, 5)],
        [(1, "x"), (2, "y")],
        [2**70, 1],
        [{"k": 1}, {"k": 2}],
        [(), ()],
    ],
    ids=repr,
)
def test_further_columns_come_back_as_they_were(values):
    regions = [
        region(np.zeros((1, 2, 2)), region_spec={"data_idx": i, "extra": v})
        for i, v in enumerate(values)
    ]
    again = decollate_regions(collate_regions(regions))
    for one, value in zip(again, values, strict=True):
        assert one.region_spec["extra"] == value
        assert type(one.region_spec["extra"]) is type(value)


def test_views_of_the_batch_not_copies():
    batch = collate_regions([region(np.zeros((1, 2, 2))), region(np.ones((1, 2, 2)))])
    decollate_regions(batch)[1].data[...] = 5
    assert batch.data[1].tolist() == [[[5, 5], [5, 5]]]


def test_the_output_of_a_model_is_decollated_alike():
    regions = [region(np.zeros((3, 8, 8), np.uint16)), region(np.zeros((3, 8, 8), np.uint16))]
    answer = torch.arange(2 * 5 * 4).reshape(2, 5, 4)
    again = decollate_regions(collate_regions(regions)._replace(data=answer))
    assert torch.equal(again[1].data, answer[1])
    assert again[1].region_spec == regions[1].region_spec


def test_the_order_of_keys_does_not_matter():
    spec = region(np.zeros(1)).region_spec
    turned = dict(reversed(spec.items()))
    regions = [region(np.zeros((1, 2, 2))), region(np.zeros((1, 2, 2)), region_spec=turned)]
    assert decollate_regions(collate_regions(regions))[1].region_spec == spec


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    "others",
    [
        [np.zeros((1, 2, 3), np.uint8)],
        [np.zeros((2, 2), np.uint8)],
        [np.zeros((1, 2, 2), np.float32)],  # numpy would cast the first to float
        [torch.zeros((1, 2, 2), dtype=torch.uint8)],
        [torch.zeros((1, 2, 2), dtype=torch.float32)],
    ],
    ids=lambda others: f"{type(others[0]).__name__} {tuple(others[0].shape)} {others[0].dtype}",
)
def test_data_that_do_not_fit_are_refused(others):
    first = region(np.zeros((1, 2, 2), np.uint8))
    for order in (1, -1):
        with pytest.raises(InvalidInputError, match="regions of one batch"):
            collate_regions([first, *(region(data) for data in others)][::order])


def test_specifications_that_do_not_fit_are_refused():
    data = np.zeros((1, 2, 2))
    tile = region(data, region_spec={**region(data).region_spec, "total_tiles": 3})
    with pytest.raises(InvalidInputError, match=r"one kind of specification.*total_tiles"):
        collate_regions([region(data), tile])


def test_nothing_is_no_batch():
    with pytest.raises(InvalidInputError, match="no regions"):
        collate_regions([])


def test_what_is_not_collated_is_not_decollated():
    with pytest.raises(InvalidInputError, match="not a collated batch"):
        decollate_regions(region(np.zeros((6, 2, 2))))
    batch = collate_regions([region(np.zeros((1, 2, 2)))] * 3)
    with pytest.raises(InvalidInputError, match="data of length 2"):
        decollate_regions(batch._replace(data=batch.data[:2]))


# ------------------------------------------------------------------ described at once


@pytest.fixture
def images(tmp_path, in_memory, on_disk):
    pixels = np.arange(4 * 30 * 40, dtype=np.uint16).reshape(4, 30, 40)
    names = ["A", "B", "C", "D"]
    return [
        on_disk(tmp_path / "one.ome.zarr", pixels, channel_names=names),
        in_memory([pixels[:, None], pixels[:, None, ::2, ::2]], "czyx", uri="two"),
    ]


def test_a_batch_says_where_its_pixels_are_from(images):
    windows = Windows.of([1, 0, 1], [[0, 1], [-2, 3], [9, 9]], (6, 7), level=1)
    channels = [2, 0]
    data = read_regions(images, windows, channels=channels)
    batch = region_batch(
        images, windows, data, channels=channels, metadata=[{"tile_id": i} for i in (5, 6, 7)]
    )
    assert batch.data is data
    one, two, three = decollate_regions(batch)
    assert (one.source, two.source) == ("two", images[0].uri)
    assert (one.data_shape, two.data_shape) == ((1, 2, 1, 15, 20), (1, 2, 15, 20))
    assert (one.original_data_shape, two.original_data_shape) == ((4, 1, 15, 20), (4, 15, 20))
    assert (one.axes, two.axes) == ("CZYX", "CYX")
    assert one.dtype == two.dtype == "uint16"
    assert two.region_spec == {
        "data_idx": 0,
        "sample_idx": 0,
        "coords": (-2, 3),
        "patch_size": (6, 7),
    }
    assert three.region_spec["coords"] == (9, 9)
    assert two.additional_metadata == {
        "level": 1, "mpp": (1.0, 1.0), "channel_names": ("C", "A"),
        "chunks": (1, 8, 8), "shards": (2, 16, 16), "origin": (-0.25, -0.25), "tile_id": 6,
    }  # fmt: skip
    assert one.additional_metadata["mpp"] is None
    assert one.additional_metadata["channel_names"] == ("C2", "C0")
    assert one.additional_metadata["shards"] is None
    np.testing.assert_array_equal(two.data, data[1])
    # What is described at once is what would have been collated one by one.
    collated = collate_regions([one, two, three])
    assert collated[1:6] == batch[1:6]
    for key, column in batch.region_spec.items():
        np.testing.assert_array_equal(collated.region_spec[key], column)
    assert collated.additional_metadata == batch.additional_metadata


def test_channels_image_by_image_and_further_columns(images):
    windows = Windows.of([1, 0], [[0, 1], [2, 3]], 6)
    channels = {0: ["B", "D"], 1: [3, 3]}
    data = read_regions(images, windows, channels=channels)
    batch = region_batch(
        images, windows, data, channels=channels,
        specs={"crop_coords": np.array([[1, 1], [0, 2]]), "total_tiles": [4, 9]},
    )  # fmt: skip
    one, two = decollate_regions(batch)
    assert one.additional_metadata["channel_names"] == ("C3", "C3")
    assert two.additional_metadata["channel_names"] == ("B", "D")
    assert two.region_spec["crop_coords"] == (0, 2)
    assert one.region_spec["total_tiles"] == 4
    with pytest.raises(UnknownNameError):
        region_batch(images, windows, data, channels=["E"])


def test_no_windows_are_an_empty_batch(images):
    windows = Windows.of([], [], 6)
    batch = region_batch(images, windows, read_regions(images, windows))
    assert len(batch.data) == 0
    assert decollate_regions(batch) == []


def test_an_image_without_names(in_memory):
    image = in_memory(np.zeros((9, 9), np.uint8), "yx")
    windows = Windows.of(0, [[0, 0]], 4)
    (one,) = decollate_regions(region_batch([image], windows, read_regions([image], windows)))
    assert isinstance(image, MultiscaleImage)
    assert one.data_shape == (1, 1, 9, 9)
    assert one.original_data_shape == (9, 9)
    assert one.additional_metadata["channel_names"] is None
