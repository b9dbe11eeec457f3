"""What a `RegionDataset` is not made of or asked for, and what tells its patches apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import microtome as mt
from microtome.augmentation import (
    ChannelDropout,
    CustomAugmentation,
    DihedralAugmentation,
)
from microtome.errors import InvalidInputError, OutOfRangeError
from microtome.image import Level, MemoryArray, MultiscaleImage
from microtome.loading import RegionDataset
from microtome.normalization import MeanStdNormalization
from microtome.patching import (
    FixedPatching,
    FixedRandomPatching,
    RandomPatching,
    StratifiedPatching,
)
from microtome.regions import ImageRegionData, Windows, data_shape_of
from microtome.sources import open_stacks

SIZES = ((60, 70), (50, 90))


def pixels_of(seed: int = 0, channels: int = 3, dtype: str = "uint16") -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 900, (channels, *size)).astype(dtype) for size in SIZES]


def shapes() -> list[tuple[int, ...]]:
    return [(1, 3, *size) for size in SIZES]


def a_dataset(patching: Any = None, **options: Any) -> RegionDataset:
    given = RandomPatching(shapes(), (16, 16), seed=1) if patching is None else patching
    return RegionDataset(open_stacks(pixels_of(), "CYX"), given, **options)


def add_noise(patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return patch + rng.normal(size=patch.shape).astype(np.float32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalization": MeanStdNormalization([1.0, 2.0], [1.0, 1.0])}, "2 channels were normal"),
        ({"augmentations": [ChannelDropout(), ChannelDropout()]}, "names differ"),
        ({"target_channels": [0]}, "none are given"),
        ({"seed": -1}, "seed must be"),
        ({"normalization": "mean_std"}, "normalization is a Normalization, .* got 'mean_std'"),
        ({"normalization": MeanStdNormalization}, "normalization is a Normalization"),
        ({"patching": (16, 16)}, r"patching is a Patching, .* got \(16, 16\)"),
        ({"augmentations": ChannelDropout()}, "augmentations are a list"),
        ({"augmentations": [DihedralAugmentation]}, r"class; give DihedralAugmentation\(\)"),
        ({"patching": RandomPatching([(1, 3, 9, 20, 20)], (4, 8, 8))}, "windows need two sizes"),
        ({"patching": FixedPatching(Windows.of([], [], 8))}, "no patches"),
    ],
    ids=[
        "channels",
        "names",
        "targets",
        "seed",
        "normalization",
        "normalization-class",
        "patching",
        "augmentations",
        "augmentation-class",
        "rank",
        "none",
    ],
)
def test_what_does_not_fit_is_refused_when_it_is_made(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        a_dataset(**options)


def test_a_patching_of_other_images_is_refused() -> None:
    more = RandomPatching([*shapes(), (1, 3, 40, 40)], (16, 16))
    with pytest.raises(OutOfRangeError, match="there are 2"):
        a_dataset(more)
    labels = open_stacks([np.zeros(size, np.uint8) for size in SIZES], "YX")
    noise = CustomAugmentation("noise", add_noise, targets=True)
    with pytest.raises(InvalidInputError, match="'noise'"):
        a_dataset(targets=labels, augmentations=[noise])
    with pytest.raises(InvalidInputError, match=r"padding=-1 is no value of uint8"):
        a_dataset(targets=labels, padding=-1)


def test_a_patching_of_another_level_is_refused() -> None:
    fine = np.arange(3 * 64 * 64, dtype=np.uint16).reshape(3, 64, 64)
    levels = [fine, fine[:, ::2, ::2]]
    image = MultiscaleImage(
        [
            Level(str(n), "", MemoryArray(p), "cyx", (1.0, 2.0**n, 2.0**n), (0.0,) * 3)
            for n, p in enumerate(levels)
        ],
        uri="array",
        channel_names=None,
        mpp=None,
    )
    coarse = StratifiedPatching([data_shape_of(image, level=1)], (16, 16))
    for patching, level in ((coarse, 0), (StratifiedPatching([(1, 3, 64, 64)], (16, 16)), 1)):
        with pytest.raises(InvalidInputError, match=r"image 0 is .* the patching is of"):
            RegionDataset([image], patching, level=level)
    assert len(RegionDataset([image], coarse, level=1)) == 4
    given = FixedPatching(Windows.of(0, [[0, 0]], 16, 1))
    with pytest.raises(InvalidInputError, match="lie on level 1, and level 0 is read"):
        RegionDataset([image], given)
    assert RegionDataset([image], given, level=1)[0][0].data.shape == (3, 16, 16)


def test_rows_that_do_not_exist_are_refused() -> None:
    dataset = a_dataset(StratifiedPatching(shapes(), (16, 16)))
    count = len(dataset)
    for row in (count, -count - 1):
        with pytest.raises(OutOfRangeError, match=f"no patch {row}, there are {count}"):
            dataset[row]
    with pytest.raises(OutOfRangeError, match="no patch -1"):
        dataset.read_batch([0, -1])
    for wrong in ("a", 1.5):
        with pytest.raises(InvalidInputError, match="by its number"):
            dataset[wrong]  # type: ignore[index]
    with pytest.raises(InvalidInputError, match="asked for by number"):
        dataset.read_batch([])
    assert dataset.__getitems__([]) == []
    assert isinstance(dataset[np.int64(1)][0], ImageRegionData)


@pytest.mark.parametrize("by_place", [False, True])
def test_blocks_are_of_neighbours(by_place: bool) -> None:
    patching = StratifiedPatching([(1, 3, 640, 640)] * 2, (16, 16), seed=2)
    stacks = open_stacks([np.zeros((3, 640, 640), np.uint8)] * 2, "CYX")
    dataset = RegionDataset(stacks, patching, by_place=by_place)
    assert dataset.tile_bytes == 3 * 16 * 16 * 4
    rows = np.arange(len(dataset))
    blocks = dataset.storage_blocks(rows)
    assert np.bincount(blocks).max() == 32
    for epoch in (0, 3):
        spec: Any = dataset.read_batch(rows, epoch=epoch).region_spec  # type: ignore[union-attr]
        spread = [
            np.ptp(spec["coords"][there], axis=0).mean()
            for block in np.unique(blocks)
            if len(set(spec["data_idx"][there := blocks == block])) == 1
        ]
        # 32 patches as a square have sides of 96 or so, any 32 of the image of 600.
        assert np.mean(spread) < 200


def test_patches_of_one_patching_are_told_from_those_of_another() -> None:
    def told(side: int = 640, seed: int = 2, count: int = 2) -> str:
        patching = StratifiedPatching([(1, 3, side, side)] * count, (16, 16), seed=seed)
        stacks = open_stacks([np.zeros((3, side, side), np.uint8)] * count, "CYX")
        return RegionDataset(stacks, patching).rows_fingerprint

    assert told() == told()
    assert len({told(), told(seed=3), told(side=656), told(count=1)}) == 4


def named(names):
    pixels = np.arange(2 * 32 * 32, dtype=np.uint16).reshape(2, 32, 32)
    return mt.open_image(pixels, axes="cyx", mpp=1.0, channel_names=names)


@pytest.mark.parametrize("others", [["DAPI", "CD8"], ["CD3", "DAPI"]])
def test_images_whose_channels_have_other_names_are_not_mixed(others):
    images = [named(["DAPI", "CD3"]), named(None), named(["0", "1"]), named(others)]
    patching = FixedRandomPatching([data_shape_of(image) for image in images], (8, 8), seed=1)
    with pytest.raises(InvalidInputError, match=r"are DAPI, CD3, .*channels="):
        RegionDataset(images, patching)
    assert len(RegionDataset(images[:3], FixedRandomPatching([(1, 2, 32, 32)] * 3, (8, 8), seed=1)))
    # By number it was chosen; by name it is the same channel wherever it stands.
    assert len(RegionDataset(images, patching, channels=[0, 1])) == patching.n_patches
    named_two = [images[0], images[3]]
    two = FixedRandomPatching([(1, 2, 32, 32)] * 2, (8, 8), seed=1)
    picked = RegionDataset(named_two, two, channels=["DAPI"])
    found = picked.read_batch(np.arange(len(picked)))
    plane = np.asarray([0, others.index("DAPI")])[found.region_spec["data_idx"]]
    corner = np.asarray(found.region_spec["coords"])
    first = plane * 1024 + corner[:, 0] * 32 + corner[:, 1]
    assert np.array_equal(found.data[:, 0, 0, 0], first)
