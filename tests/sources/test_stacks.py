"""Anything that regions are read from, opened by one function; pixels against numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from microtome.errors import FormatError, InvalidInputError, NotFoundError
from microtome.image import ArrayStack, MultiscaleImage
from microtome.regions import Windows, data_shape_of, read_regions
from microtome.sources import open_image, open_stacks


def noise(shape, dtype="uint16", seed=0):
    return np.random.default_rng(seed).integers(0, 250, shape).astype(dtype)


@pytest.fixture
def folder(tmp_path):
    """Three TIFF files, written out of order, and what else lies about."""
    for i in (2, 0, 1):
        tifffile.imwrite(tmp_path / f"{i}.tif", noise((20 + i, 30), seed=i))
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_arrays_of_any_library_with_their_axes_in_any_order(tmp_path):
    torch = pytest.importorskip("torch")
    pixels = noise((9, 8, 2, 3), "uint8")
    stored = zarr.create_array(tmp_path / "a", data=pixels, chunks=(4, 4, 1, 2))
    named = zarr.create_array(tmp_path / "b", data=pixels, dimension_names=["y", "x", "s", "c"])
    given = [pixels, torch.from_numpy(pixels), stored, pixels.byteswap().view(">u1")]
    stacks = open_stacks(given, "YXSC") + open_stacks(named)
    windows = Windows.of(range(5), [[2, 3]] * 5, 4, sample=1)
    batch = read_regions(stacks, windows, channels=[2, 0])
    expected = pixels[2:6, 3:7, 1].transpose(2, 0, 1)[[2, 0]]
    np.testing.assert_array_equal(batch, [expected] * 5)
    assert [data_shape_of(stack) for stack in stacks] == [(2, 3, 9, 8)] * 5


@pytest.mark.parametrize("dtype", [">u2", ">f4", "uint32"])
def test_an_array_keeps_its_values_whatever_its_byte_order(dtype):
    pixels = noise((5, 6), dtype) + np.array(2**24 + 1 if dtype == "uint32" else 0, dtype)
    [stack] = open_stacks(pixels)  # (Y, X) needs no axes
    batch = read_regions([stack], Windows.of(0, [[0, 0]], (5, 6)))
    assert batch.dtype == pixels.dtype.newbyteorder("=")
    np.testing.assert_array_equal(batch[0, 0], pixels)


def test_an_array_without_axes_is_told_which_would_fit():
    with pytest.raises(InvalidInputError, match=r"of type ndarray: .* do not fit .*'CYX'"):
        open_stacks([noise((3, 9, 9))])
    with pytest.raises(InvalidInputError, match="has no pixels"):
        open_stacks(noise((0, 9)))


def test_a_folder_is_its_files_by_name(folder):
    images = open_stacks(folder, suffix=".tif")
    assert [data_shape_of(image)[2] for image in images] == [20, 21, 22]
    assert [image.uri for image in images] == [
        image.uri for image in open_stacks(str(folder / "*.tif"))
    ]
    batch = read_regions(images, Windows.of([2, 0], [[1, 1], [16, 26]], 4))
    np.testing.assert_array_equal(batch[0, 0], noise((22, 30), seed=2)[1:5, 1:5])
    np.testing.assert_array_equal(batch[1, 0], noise((20, 30))[16:, 26:])
    with pytest.raises(InvalidInputError, match=r"nothing in the folder .* ends in '\.png'"):
        open_stacks(folder, suffix=".png")


def test_files_of_other_axes_are_refused(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", noise((3, 9, 8)), photometric="minisblack", metadata={"axes": "CYX"}
    )
    for axes in ("CYX", "yxc"):  # images have one order, whatever that of the file was
        assert data_shape_of(open_stacks(tmp_path / "a.tif", axes)[0]) == (1, 3, 9, 8)
    for axes in ("SYX", "YX", "CZYX"):
        with pytest.raises(InvalidInputError, match=rf"a\.tif has axes 'CYX' of .*, not '{axes}'"):
            open_stacks(tmp_path / "a.tif", axes)


def canonical(pixels: np.ndarray, axes: str) -> np.ndarray:
    """SC(Z)YX by numpy alone: missing S, T and C added, S outside T."""
    missing = [axis for axis in "STC" if axis not in axes]
    names = "".join(missing) + axes
    full = pixels.reshape((1,) * len(missing) + pixels.shape)
    full = full.transpose([names.index(a) for a in ("STCZYX" if "Z" in axes else "STCYX")])
    return full.reshape((full.shape[0] * full.shape[1], *full.shape[2:]))


@pytest.mark.parametrize(
    ("stated", "axes"),
    [
        (None, "SYX"),
        (None, "ZYX"),
        ("TYX", "SYX"),
        ("SYX", "SYX"),
        ("SYX", "CYX"),
        ("QCYX", "SCYX"),
        ("QCYX", "TCYX"),
        ("QQYX", "STYX"),
        ("QCZYX", "SCZYX"),
        ("STCZYX", "STCZYX"),
    ],
)
@pytest.mark.parametrize("tile", [None, (16, 16)], ids=["strips", "tiles"])
def test_a_tiff_may_be_told_its_axes(tmp_path, stated, axes, tile):
    shape = (2, 3, 2, 4, 40, 30)[-len(axes) :]
    pixels = noise(shape)
    path = tmp_path / "a.tif"
    metadata = None if stated is None else {"axes": stated}
    tifffile.imwrite(
        path, pixels, photometric="minisblack", metadata=metadata, tile=tile,
        compression="zlib" if tile else None, resolution=(20000, 20000), resolutionunit=3,
    )  # fmt: skip
    [stack] = open_stacks(path, axes)
    whole = canonical(pixels, axes)
    assert data_shape_of(stack) == whole.shape
    assert stack.source == str(path)
    assert stack.mpp.x == pytest.approx(0.5)
    rank = whole.ndim - 2
    starts = np.random.default_rng(1).integers(-5, 35, (20, rank))
    samples = np.arange(20) % len(whole)
    windows = Windows.of(0, starts, (3, 9, 7)[-rank:], sample=samples)
    frame = np.pad(whole, [(0, 0)] * 2 + [(9, 50)] * rank)
    batch = read_regions([stack], windows)
    for row, (sample, start) in enumerate(zip(samples, starts + 9, strict=True)):
        at = tuple(slice(a, a + n) for a, n in zip(start, windows.size, strict=True))
        np.testing.assert_array_equal(batch[row], frame[(sample, slice(None), *at)])


def test_samples_of_a_pixel_are_channels_whatever_pages_are_called(tmp_path):
    pixels = noise((4, 30, 20, 3), "uint8")
    for name, planar in (("a", "contig"), ("b", "separate")):
        stored = pixels if planar == "contig" else pixels.transpose(0, 3, 1, 2)
        tifffile.imwrite(
            tmp_path / f"{name}.tif", stored, photometric="rgb", planarconfig=planar, metadata=None
        )
    [one] = open_stacks(tmp_path / "a.tif", "SYXC")
    [other] = open_stacks(tmp_path / "b.tif", "SCYX")
    windows = Windows.of([0, 1], [[3, 5], [25, -4]], 9, sample=[2, 3])
    batch = read_regions([one, other], windows, channels=[2, 0])
    frame = np.pad(pixels, [(0, 0), (9, 9), (9, 9), (0, 0)]).transpose(0, 3, 1, 2)[:, [2, 0]]
    np.testing.assert_array_equal(batch[0], frame[2, :, 12:21, 14:23])
    np.testing.assert_array_equal(batch[1], frame[3, :, 34:43, 5:14])
    with pytest.raises(FormatError, match=r"axes 'IYXS' .* cannot be read"):
        open_stacks(tmp_path / "a.tif", "SYXZ")


@pytest.mark.parametrize("axes", ["TYX", "SCYX"])
def test_a_damaged_tiff_is_told_whatever_axes_are_given(tmp_path, axes):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise((3, 40, 40)), photometric="minisblack")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(FormatError, match=r"a\.tif"):
        open_stacks(path, axes)


def test_a_zarr_group_of_arrays_is_a_stack_each(tmp_path):
    root = tmp_path / "x.zarr"
    group = zarr.create_group(root)
    arrays = {name: noise((2, 25, 18 + i), seed=i) for i, name in enumerate("bac")}
    for name, pixels in arrays.items():
        group.create_array(name, data=pixels, chunks=(1, 8, 8))
    nested = group.create_group("deep/er")
    nested.create_array("d", data=noise((20, 21, 3), "uint16", 9), chunks=(8, 8, 3))
    stacks = open_stacks(root, "SYX")
    assert [stack.source.rsplit("/", 1)[-1] for stack in stacks] == ["a", "b", "c"]
    windows = Windows.of([0, 1, 2], [[5, 6], [-2, 3], [20, 12]], 8, sample=[1, 0, 1])
    batch = read_regions(stacks, windows)
    for row, (name, sample) in enumerate([("a", 1), ("b", 0), ("c", 1)]):
        y, x = windows.start[row] + 8
        frame = np.pad(arrays[name], [(0, 0), (8, 8), (8, 8)])
        np.testing.assert_array_equal(batch[row, 0], frame[sample, y : y + 8, x : x + 8])
    for place in (root / "deep" / "er", (root / "deep" / "er" / "d").as_uri()):
        [deep] = open_stacks(place, "YXC")
        assert data_shape_of(deep) == (1, 3, 20, 21)
    with pytest.raises(InvalidInputError, match=r"holds no array .* its groups: \['er'\]"):
        open_stacks(root / "deep", "YXC")
    with pytest.raises(InvalidInputError, match=r"x\.zarr/a: axes .* do not fit"):
        open_stacks(root)


def test_an_array_of_zarr_states_its_axes(tmp_path):
    pixels = noise((2, 3, 20, 20))
    zarr.create_array(tmp_path / "a.zarr", data=pixels, dimension_names=["t", "c", "y", "x"])
    zarr.create_array(tmp_path / "old.zarr", data=pixels[0, 0], zarr_format=2)
    stacks = open_stacks([tmp_path / "a.zarr", tmp_path / "old.zarr"], mpp=0.5)
    assert [data_shape_of(stack) for stack in stacks] == [(2, 3, 20, 20), (1, 1, 20, 20)]
    assert stacks[1].mpp.y == 0.5
    batch = read_regions(stacks, Windows.of([0, 1], [[2, 3]] * 2, 5, sample=[1, 0]), channels=[0])
    np.testing.assert_array_equal(batch[:, 0], pixels[[1, 0], 0, 2:7, 3:8])
    # The axes that are typed go before those that are stated.
    assert data_shape_of(open_stacks(tmp_path / "a.zarr", "CSYX")[0]) == (3, 2, 20, 20)


def test_all_that_is_missing_is_named_at_once(folder):
    names = [folder / "0.tif", folder / "x.tif", noise((4, 4)), folder / "y" / "*.png"]
    with pytest.raises(NotFoundError, match=r"x\.tif, .*\*\.png do not exist"):
        open_stacks(names)
    with pytest.raises(NotFoundError, match=r"x\.tif does not exist"):
        open_stacks(folder / "x.tif")
    with pytest.raises(InvalidInputError, match="nothing to open"):
        open_stacks([])


def test_a_name_with_brackets_is_a_file_first(tmp_path):
    for name in ("a[1].tif", "a1.tif"):
        tifffile.imwrite(tmp_path / name, noise((9, len(name) + 9)))
    assert [data_shape_of(i)[3] for i in open_stacks(tmp_path / "a[1].tif")] == [17]
    assert [data_shape_of(i)[3] for i in open_stacks(tmp_path / "a[0-9].tif")] == [15]


def test_an_image_with_levels_is_one_image(tmp_path):
    pixels = noise((2, 64, 64))
    path = tmp_path / "a.zarr"
    with MultiscaleImage.create(
        path,
        type=pixels.dtype,
        level_shape=pixels.shape,
        data_axis_order="cyx",
        has_channel_axis=True,
        mpp=0.5,
    ) as image:
        image["level0"][...] = pixels
        image.build_levels()
    opened = open_stacks([path, path.as_uri(), open_image(path), zarr.open_group(path)])
    opened += open_stacks(tmp_path, suffix=".zarr") + open_stacks(path, suffix=".zarr")
    assert all(isinstance(one, MultiscaleImage) for one in opened)
    assert len(opened) == 6
    batch = read_regions(opened, Windows.of(range(6), [[5, 6]] * 6, 7))
    np.testing.assert_array_equal(batch, [pixels[:, 5:12, 6:13]] * 6)


def test_what_is_open_is_returned_as_it_is():
    class Mine:
        source, original_axes, data_dtype = "mine", "SCYX", "uint8"
        data_shape = original_data_shape = (1, 1, 5, 5)

        def extract_patch(self, sample_idx, channels, coords, patch_size):
            return np.full((len(channels), *patch_size), 7, np.uint8)

    mine, image = Mine(), open_image(noise((5, 5), "uint8"))
    [array] = open_stacks(noise((5, 5), "uint8"), mpp=0.5)
    assert isinstance(array, ArrayStack)
    assert array.mpp.x == 0.5
    opened = open_stacks([mine, image, array])
    assert all(one is other for one, other in zip(opened, [mine, image, array], strict=True))
    assert read_regions(opened, Windows.of(0, [[0, 4]], 2)).tolist() == [[[[7, 0], [7, 0]]]]


def test_a_file_of_several_images_says_how_to_give_them(tmp_path: Path) -> None:
    path = tmp_path / "run"
    (path / "img").mkdir(parents=True)
    for name in "ab":
        tifffile.imwrite(path / f"img/{name}.tiff", np.zeros((2, 8, 8), np.uint8))
    (path / "panel.csv").write_text("name\nDNA\nCD3\n")
    with pytest.raises(InvalidInputError) as caught:
        open_stacks([path])
    told = str(caught.value)
    assert f"in a list of open_image({str(path)!r}, image=name): 'a', 'b'" in told
    assert "--image" not in told
    opened = open_stacks([open_image(path, image=name) for name in ("a", "b")])
    assert [getattr(image, "name", None) for image in opened] == ["a", "b"]
