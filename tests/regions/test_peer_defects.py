"""Wrong results found by probing CAREamics 0.3.5, by their numbers in the page on regions.

The page says where the others are tested.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from microtome.errors import InvalidInputError, NotFoundError
from microtome.image import ArrayStack, MemoryArray, MultiscaleImage
from microtome.jobs import process_pool
from microtome.patching import RandomPatching, StratifiedPatching
from microtome.regions import (
    Windows,
    collate_regions,
    decollate_regions,
    paired,
    read_regions,
    region_batch,
)
from microtome.sources import open_image, open_stacks
from microtome.storage import Layout

REPOSITORY = Path(__file__).parents[2]


def test_every_defect_has_its_test() -> None:
    page = (REPOSITORY / "docs" / "concepts" / "regions.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d+) \|.*`(tests/[\w/]+\.py)::(\w+)` \|$", page, re.MULTILINE)
    assert [int(number) for number, _, _ in rows] == list(range(1, 14))
    for _, file, name in rows:
        assert f"def {name}(" in (REPOSITORY / file).read_text("utf-8"), (file, name)


def noise(shape: tuple[int, ...], dtype: str = "uint16", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 250, shape).astype(dtype)


def test_2_workers_do_not_replay_one_random_stream() -> None:
    # The peer's 64 patches have 64 / 32 / 16 places at 0 / 2 / 4 workers, and others each epoch
    # only as long as its workers live.
    rows = np.arange(64)
    for epoch in (3, 4):
        with process_pool(2) as pool:  # new processes each time
            for make in (RandomPatching, StratifiedPatching):
                patching = make([(1, 1, 4000, 4000)], (500, 500), seed=1)
                tasks = [pool.submit(patching.windows, rows[w::4], epoch=epoch) for w in range(4)]
                there = np.empty((64, 2), np.int64)
                for worker, task in enumerate(tasks):
                    there[worker::4] = task.result().start
                assert len(np.unique(there, axis=0)) == 64
                assert np.array_equal(there, patching.windows(rows, epoch=epoch).start)
                assert not np.array_equal(there, patching.windows(rows, epoch=7 - epoch).start)


def test_5_a_target_of_another_size_is_no_target() -> None:
    image = ArrayStack(MemoryArray(noise((100, 100))), "YX")
    target = ArrayStack(MemoryArray(noise((50, 50))), "YX")
    with pytest.raises(InvalidInputError, match=r"100 x 100 pixels, its target .*50 x 50"):
        paired([image], [target])


@pytest.mark.parametrize("kind", [list, tuple])
def test_6_missing_files_are_named_and_a_tuple_is_a_list(tmp_path: Path, kind) -> None:
    for name in "ab":
        tifffile.imwrite(tmp_path / f"{name}.tif", noise((9, 9)))
    there = [tmp_path / "a.tif", tmp_path / "b.tif"]
    assert len(open_stacks(kind(there))) == 2
    with pytest.raises(NotFoundError, match=r"c\.tif, .*d\.tif do not exist"):
        open_stacks(kind([there[0], tmp_path / "c.tif", there[1], tmp_path / "d.tif"]))
    with pytest.raises(NotFoundError, match=r"c\.tif does not exist"):
        open_stacks(kind([tmp_path / "c.tif"]))


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_7_sharded_and_plain_images_share_a_batch_in_any_order(tmp_path: Path, order) -> None:
    pixels = noise((3, 40, 40))
    zarr.create_array(tmp_path / "a", data=pixels, chunks=(1, 8, 8), shards=(3, 16, 16))
    zarr.create_array(tmp_path / "b", data=pixels, chunks=(3, 10, 10))
    stacks = [*open_stacks([tmp_path / "a", tmp_path / "b"], "CYX"), *open_stacks(pixels, "CYX")]
    layouts = [((1, 8, 8), (3, 16, 16)), ((3, 10, 10), None), ((3, 40, 40), None)]
    windows = Windows.of(order, [[4, 5]] * 3, 9)
    batch = region_batch(stacks, windows, read_regions(stacks, windows))
    again = collate_regions(decollate_regions(batch))
    for described in (batch, again):
        for which, facts in zip(order, described.additional_metadata, strict=True):
            assert (facts["chunks"], facts["shards"]) == layouts[which]
        np.testing.assert_array_equal(described.data, [pixels[:, 4:13, 5:14]] * 3)


def test_8_an_ome_zarr_is_one_image_wherever_it_lies(tmp_path: Path) -> None:
    pixels = noise((2, 64, 64))

    def write(path: Path) -> None:
        with MultiscaleImage.create(
            path,
            type=pixels.dtype,
            level_shape=pixels.shape,
            mpp=0.5,
            layout=Layout((1, 16, 16), (2, 32, 32)),
        ) as image:
            image["level0"][...] = pixels
            image.build_levels()

    root, nested = tmp_path / "a.zarr", tmp_path / "b.zarr" / "deep" / "image"
    write(root)
    zarr.create_group(tmp_path / "b.zarr").create_group("deep")
    write(nested)
    array = tmp_path / "c.zarr"
    zarr.create_array(array, data=pixels, chunks=(1, 16, 16))
    places = [root, root.as_uri(), nested, nested.as_uri()]
    opened = open_stacks(places) + open_stacks([array, array.as_uri()], "CYX")
    # The peer takes every level for an image of its own, and fails on the others.
    assert len(opened) == 6
    assert all(isinstance(image, MultiscaleImage) for image in opened[:4])
    assert opened[0].level_count == 3
    batch = read_regions(opened, Windows.of(range(6), [[3, 50]] * 6, 16))
    frame = np.pad(pixels, [(0, 0), (0, 9), (0, 9)])
    np.testing.assert_array_equal(batch, [frame[:, 3:19, 50:66]] * 6)
    with pytest.raises(InvalidInputError, match=r"its groups: \['deep'\]"):
        open_stacks(tmp_path / "b.zarr")


class OwnFormat:
    """A format of somebody's own that counts what is asked of it."""

    source, original_axes, data_dtype = "own", "CYX", "uint16"

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels, self.asked = pixels, 0
        self.original_data_shape = pixels.shape
        self.data_shape = (1, *pixels.shape)

    def extract_patch(self, sample_idx, channels, coords, patch_size):
        self.asked += int(np.prod(patch_size))
        at = tuple(slice(a, a + n) for a, n in zip(coords, patch_size, strict=True))
        return self.pixels[(channels, *at)]


def test_10_a_format_of_ones_own_is_read_by_patches() -> None:
    # The peer has no way to a custom format that is not in memory.
    images = [OwnFormat(noise((2, 300, 200), seed=i)) for i in range(3)]
    patching = RandomPatching([image.data_shape for image in images], (32, 32), seed=2)
    windows = patching.windows(np.random.default_rng(0).permutation(len(patching))[:40])
    batch = read_regions(images, windows)
    for row, (image, (y, x)) in enumerate(zip(windows.image, windows.start, strict=True)):
        expected = images[image].pixels[:, y : y + 32, x : x + 32]
        np.testing.assert_array_equal(batch[row], expected)
    assert sum(image.asked for image in images) == 40 * 32 * 32


def test_13_shuffled_files_are_not_loaded_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The peer loads whole files: 119 times for 8 of them in one shuffled epoch.
    for i in range(8):
        tifffile.imwrite(tmp_path / f"{i}.tif", noise((256, 256), seed=i), tile=(64, 64))
    opened: list[str] = []
    original = tifffile.TiffFile.__init__

    def counted(self, file, *args, **kwargs):
        opened.append(str(file))
        original(self, file, *args, **kwargs)

    monkeypatch.setattr(tifffile.TiffFile, "__init__", counted)
    images = open_stacks(tmp_path, suffix=".tif")
    monkeypatch.setattr(tifffile.TiffFile, "asarray", None)
    patching = RandomPatching([(1, 1, 256, 256)] * 8, (64, 64))
    for begin in range(0, 128, 16):
        rows = np.random.default_rng(0).permutation(128)[begin : begin + 16]
        windows = patching.windows(rows)
        batch = read_regions(images, windows)
        for read, image, (y, x) in zip(batch, windows.image, windows.start, strict=True):
            whole = noise((256, 256), seed=int(image))
            np.testing.assert_array_equal(read[0], whole[y : y + 64, x : x + 64])
    assert sorted(opened) == [str(tmp_path / f"{i}.tif") for i in range(8)]


@pytest.mark.parametrize("start", [(-2, -2), (-3, 6), (7, -1), (-9, 0), (8, 8)])
def test_11_a_window_over_the_edge_has_the_image_in_it_wherever_that_lies(
    tmp_path: Path, start: tuple[int, int]
) -> None:
    pixels = noise((9, 9)) + 1
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    zarr.create_array(tmp_path / "b", data=pixels, chunks=(4, 4))
    images = [
        *open_stacks([tmp_path / "a.tif", tmp_path / "b"]),
        *open_stacks(pixels),
        open_image(pixels),
    ]
    batch = read_regions(images, Windows.of(range(4), [start] * 4, 4))
    y, x = start[0] + 9, start[1] + 9
    expected = np.pad(pixels, 9)[y : y + 4, x : x + 4]
    np.testing.assert_array_equal(batch[:, 0], [expected] * 4)
    own = [image.extract_patch(0, None, start, (4, 4)) for image in images[1:3]]
    np.testing.assert_array_equal(own, [expected[None]] * 2)


@pytest.mark.parametrize("dtype", ["uint32", "int32", "uint64"])
def test_12_labels_keep_every_digit(tmp_path: Path, dtype: str) -> None:
    labels = noise((20, 20), dtype) + np.array(2**24 + 1, dtype)  # 2**24 as float32
    zarr.create_array(tmp_path / "a", data=labels, chunks=(8, 8))
    stacks = [*open_stacks(labels), *open_stacks(tmp_path / "a")]
    windows = Windows.of([0, 1], [[1, 2], [1, 2]], 8)
    batch = region_batch(stacks, windows, read_regions(stacks, windows))
    for region in decollate_regions(batch):
        assert region.data.dtype == dtype
        np.testing.assert_array_equal(region.data[0], labels[1:9, 2:10])
