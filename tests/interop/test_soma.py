"""`to_soma` and `from_soma`: tiledbsoma reads what we write, and we read what it writes."""

from __future__ import annotations

import json
import pickle
import shutil
import sys

import numpy as np
import pyarrow as pa
import pytest

import microtome as mt
from microtome.errors import (
    DependencyError,
    ExistsError,
    FormatError,
    InvalidInputError,
    NotFoundError,
    StorageError,
)
from microtome.interop import from_soma, to_soma
from microtome.regions import Windows, read_regions


def test_without_tiledbsoma_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tiledbsoma", None)
    image = mt.open_image(np.zeros((8, 8), np.uint8), axes="yx", mpp=1.0)
    with pytest.raises(DependencyError, match=r"microtome\[soma\]"):
        to_soma(image, tmp_path / "a.soma")
    with pytest.raises(DependencyError, match=r"microtome\[soma\]"):
        from_soma(tmp_path / "a.soma")
    assert list(tmp_path.iterdir()) == []


try:
    import tiledbsoma
except ImportError:
    tiledbsoma = None
needs_soma = pytest.mark.skipif(
    tiledbsoma is None, reason="tiledbsoma is not installed: make soma tests it"
)
pytestmark = [
    pytest.mark.interop,
    pytest.mark.filterwarnings("ignore:Support for spatial types is experimental"),
]


def pyramid(path, shape=(3, 301, 405), dtype="uint16", **options):
    """Write an image of ours with three levels, of sides that do not divide by two."""
    rng = np.random.default_rng(5)
    pixels = rng.uniform(0, 250, shape).astype(dtype)
    with mt.MultiscaleImage.create(
        path,
        type=dtype,
        level_shape=shape,
        has_channel_axis=len(shape) == 3,
        mpp=options.pop("mpp", (0.5, 0.25)),
        **options,
    ) as image:
        image["level0"][...] = pixels
        image.build_levels()
    return mt.open_image(path)


@needs_soma
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("shape", [(3, 301, 405), (2, 129, 400), (301, 405)])
def test_an_image_goes_there_and_comes_back_the_same(tmp_path, dtype, shape):
    names = {3: ["DAPI", "CD3 (é)", ""], 2: ["a", "b"], 301: None}[shape[0]]
    image = pyramid(
        tmp_path / "a.ome.zarr", shape, dtype, channel_names=names, translation=(12.5, -3.0)
    )
    told = []
    place = to_soma(image, tmp_path / "a.soma", progress=lambda *what: told.append(what))
    assert told[-1][1:] == (image.level_count, image.level_count)
    back = from_soma(place)
    assert image.level_count > 1
    assert list(back) == list(image)
    for level in image:
        assert back[level].dtype == np.dtype(dtype)
        np.testing.assert_array_equal(back[level][...], image[level][...])
        assert back[level].scale == image[level].scale
        assert back[level].translation == image[level].translation
    assert (back.axes, back.channel_names, back.mpp) == (
        image.axes,
        image.channel_names,
        image.mpp,
    )
    assert (back.name, back.kind) == (image.name, image.kind)
    assert back.coordinate_space == image.coordinate_space
    box = (20.2, 31.0, 77.7, 60.0)
    ours, theirs = (one.read_spatial_region(1, box) for one in (image, back))
    np.testing.assert_array_equal(theirs.data, ours.data)
    assert theirs.coordinate_transform == ours.coordinate_transform


@needs_soma
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_tiledbsoma_reads_it_as_its_own(tmp_path, dtype):
    image = pyramid(tmp_path / "a.ome.zarr", dtype=dtype)
    to_soma(image, tmp_path / "a.soma", tile_size=100)
    with tiledbsoma.MultiscaleImage.open(str(tmp_path / "a.soma")) as there:
        assert there.data_axis_order == ("soma_channel", "y", "x")
        assert there.coordinate_space.axis_names == ("x", "y")
        assert there.level_count == image.level_count
        for number, level in enumerate(image.values()):
            assert there.level_shape(number) == level.shape
            whole = there.read_spatial_region(number).data.to_numpy()
            np.testing.assert_array_equal(whole, level[...])
            assert whole.dtype == level.dtype
        # Its boxes include their ends; ours do not.
        read = there.read_spatial_region(0, (30, 20, 89, 59))
        ours = image.read_spatial_region(0, (30, 20, 90, 60))
        np.testing.assert_array_equal(read.data.to_numpy(), ours.data)
        np.testing.assert_array_equal(
            read.coordinate_transform.augmented_matrix,
            ours.coordinate_transform.augmented_matrix,
        )
        tiles = json.loads(there["level0"].schema_config_options().dims)
        assert [tiles[f"soma_dim_{axis}"]["tile"] for axis in range(3)] == ["1", "100", "100"]


@needs_soma
@pytest.mark.parametrize("order", [None, ("y", "x", "soma_channel"), ("x", "soma_channel", "y")])
def test_an_image_that_tiledbsoma_wrote_is_read(tmp_path, order):
    stored = order or ("soma_channel", "y", "x")
    sizes = {"soma_channel": 2, "y": 80, "x": 60}
    shape = tuple(sizes[axis] for axis in stored)
    pixels = np.random.default_rng(1).integers(0, 60000, shape).astype(np.uint16)
    whole = (slice(None),) * 3
    path = str(tmp_path / "theirs")
    with tiledbsoma.MultiscaleImage.create(
        path, type=pa.uint16(), level_shape=shape, data_axis_order=order
    ) as there:
        there["level0"].write(whole, pa.Tensor.from_numpy(pixels))
        half = tuple(
            size if axis == "soma_channel" else size // 2
            for axis, size in zip(stored, shape, strict=True)
        )
        steps = tuple(slice(None, None, 1 if axis == "soma_channel" else 2) for axis in stored)
        coarse = np.ascontiguousarray(pixels[steps])
        assert coarse.shape == half
        there.add_new_level("half", shape=half).write(whole, pa.Tensor.from_numpy(coarse))
    image = from_soma(path, mpp=0.5)
    to_ours = [stored.index(axis) for axis in ("soma_channel", "y", "x")]
    assert (image.axes, image.level_count, image.name) == ("cyx", 2, "theirs")
    np.testing.assert_array_equal(image.level(0)[...], pixels.transpose(to_ours))
    np.testing.assert_array_equal(image.level(1)[...], coarse.transpose(to_ours))
    np.testing.assert_array_equal(
        image.level(0)[1, 10:30, 7:8], pixels.transpose(to_ours)[1, 10:30, 7:8]
    )
    assert image.level(0)[:, 5:5].shape == (2, 0, 60)
    assert (image.mpp.y, image.level_mpp(1).x) == (0.5, 1.0)
    assert from_soma(path).mpp is None


@needs_soma
def test_regions_are_read_from_it_and_it_travels_as_its_address(tmp_path):
    image = pyramid(tmp_path / "a.ome.zarr")
    back = from_soma(to_soma(image, tmp_path / "a.soma"))
    windows = Windows.of(0, [[-5, 10], [290, 390], [100, 100]], (32, 48))
    expected = read_regions([image], windows)
    np.testing.assert_array_equal(read_regions([back], windows), expected)
    array = pickle.loads(pickle.dumps(back.level(1).array))
    np.testing.assert_array_equal(array.read(((0, 3), (0, 9), (4, 6))), image.level(1)[:, :9, 4:6])
    # And from there into an image of ours again.
    moved = (tmp_path / "a.soma").rename(tmp_path / "b.soma")
    np.testing.assert_array_equal(from_soma(moved).level(-1)[...], image.level(-1)[...])


@needs_soma
def test_large_levels_are_written_in_few_strips(tmp_path, monkeypatch):
    monkeypatch.setattr("microtome.interop._soma._WRITE_BYTES", 100_000)
    image = pyramid(tmp_path / "a.ome.zarr")
    told = []
    to_soma(image, tmp_path / "a.soma", tile_size=64, progress=lambda *what: told.append(what))
    assert told[-1][1] == told[-1][2] > 10
    back = from_soma(tmp_path / "a.soma")
    for level in image:
        np.testing.assert_array_equal(back[level][...], image[level][...])


@needs_soma
def test_labels_stay_labels(tmp_path):
    image = pyramid(tmp_path / "a.ome.zarr", (200, 300), "uint32", kind="labels")
    back = from_soma(to_soma(image, tmp_path / "a.soma"))
    assert back.kind == "labels"
    assert back.channel_names is None
    np.testing.assert_array_equal(back.level(-1)[...], image.level(-1)[...])


@needs_soma
def test_what_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    image = mt.open_image(np.ones((2, 20, 30), np.uint8), axes="cyx", mpp=0.5)
    target = tmp_path / "a.soma"
    planes = mt.open_image(np.ones((2, 20, 30), np.uint8), axes="zyx", mpp=0.5)
    with pytest.raises(InvalidInputError, match="axes zyx"):
        to_soma(planes, target)
    half = mt.open_image(np.ones((20, 30), np.float16), axes="yx", mpp=0.5)
    with pytest.raises(InvalidInputError, match="holds float16"):
        to_soma(half, target)
    with pytest.raises(InvalidInputError, match="directory of this machine"):
        to_soma(image, "s3://bucket/a")
    with pytest.raises(InvalidInputError, match="tile_size"):
        to_soma(image, target, tile_size=0)

    def fail(*_):
        raise tiledbsoma.SOMAError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tiledbsoma.DenseNDArray, "write", fail)
        with pytest.raises(StorageError, match=r"could not write .*: no space left"):
            to_soma(image, target)
    assert list(tmp_path.iterdir()) == []
    to_soma(image, target)
    with pytest.raises(ExistsError):
        to_soma(image, target)
    assert [path.name for path in tmp_path.iterdir()] == ["a.soma"]


@needs_soma
def test_what_cannot_be_read_is_told(tmp_path):
    with pytest.raises(NotFoundError, match="no SOMA MultiscaleImage"):
        from_soma(tmp_path / "none")
    image = mt.open_image(np.ones((2, 20, 30), np.uint8), axes="cyx", mpp=0.5)
    target = to_soma(image, tmp_path / "a.soma")
    with pytest.raises(InvalidInputError, match="states its own pixel size"):
        from_soma(target, mpp=1.0)
    for note in (
        "{",
        "[]",
        '{"format": "x", "version": 1}',
        '{"format": "microtome-image", "version": 1}',
    ):
        with tiledbsoma.MultiscaleImage.open(target, "w") as there:
            there.metadata["microtome"] = note
        with pytest.raises(FormatError, match=r"a\.soma"):
            from_soma(target)
    shutil.rmtree(f"{target}/level0")
    with tiledbsoma.MultiscaleImage.open(target, "w") as there:
        del there.metadata["microtome"]
    with pytest.raises((FormatError, NotFoundError), match=r"a\.soma"):
        from_soma(target)
    deep = str(tmp_path / "deep")
    with tiledbsoma.MultiscaleImage.create(
        deep, type=pa.uint8(), level_shape=(2, 4, 5, 6), coordinate_space=("x", "y", "z")
    ):
        pass
    with pytest.raises(InvalidInputError, match="channels, y and x are read"):
        from_soma(deep)
