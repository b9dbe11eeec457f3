"""Arrays of dask, xarray, zarr-python and SpatialData: lazily read, from threads, where they lie."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import microtome as mt
from microtome.coordinates import AffineTransform, IdentityTransform, ScaleTransform
from microtome.errors import FormatError, InvalidInputError, UnknownNameError
from microtome.sources import element_transform

RNG = np.random.default_rng(5)
SIZES = {"t": 2, "c": 3, "z": 4, "y": 61, "x": 47}


class Counted:
    """An array that counts the pixels that were taken from it, for dask to be made from."""

    def __init__(self, values):
        self.values, self.shape, self.dtype, self.ndim = (
            values, values.shape, values.dtype, values.ndim,
        )  # fmt: skip
        self.parts: list[tuple[int, ...]] = []
        self.guard = threading.Lock()

    def __getitem__(self, key):
        part = self.values[key]
        with self.guard:
            self.parts.append(part.shape)
        return part


def numbers(axes, dtype="uint16"):
    return RNG.integers(0, 200, [SIZES[a] for a in axes]).astype(dtype)


@pytest.mark.parametrize("axes", ["yx", "cyx", "yxc", "xyc", "zyx", "czyx", "tczyx"])
@pytest.mark.parametrize("dtype", ["uint16", "float32", ">i4"])
def test_dask_arrays_in_any_order_of_axes(axes, dtype, pixels_equal):
    dask = pytest.importorskip("dask.array")
    values = numbers(axes, dtype)
    image = mt.open_image(dask.from_array(values, chunks=17), axes=axes, mpp=0.5)
    ordered = "".join(a for a in "tczyx" if a in axes)
    expected = values.transpose([axes.index(a) for a in ordered])
    assert image.axes == ordered
    assert image.level(0).array.chunks == tuple(min(17, SIZES[a]) for a in ordered)
    if len(ordered) == 3 and "c" in ordered:
        pixels_equal(image, expected)
    np.testing.assert_array_equal(image.level(0)[...], expected)
    np.testing.assert_array_equal(image.read(0, (3, 40), (9, 11)), expected[..., 3:40, 9:11])


def test_only_the_chunks_that_a_read_touches_are_computed():
    dask = pytest.importorskip("dask.array")
    source = Counted(numbers("cyx"))
    image = mt.open_image(dask.from_array(source, chunks=(1, 16, 16)), axes="cyx", mpp=1)
    assert sum(map(np.prod, source.parts)) == 0  # an empty slice, to learn the type
    source.parts.clear()
    found = image.read(0, (15, 17), (20, 30), channels=[1])
    np.testing.assert_array_equal(found, source.values[1:2, 15:17, 20:30])
    # Of one channel, in two chunks above each other, of which dask takes what it needs.
    assert len(source.parts) == 2
    source.parts.clear()
    read = image.read_spatial_region(0, (40, 50, 60, 70), pad=7)
    assert read.data.shape == (3, 20, 20)
    np.testing.assert_array_equal(read.data[:, :11, :7], source.values[:, 50:, 40:])
    assert (read.data[:, 11:] == 7).all()
    assert sum(np.prod(part) for part in source.parts) <= 3 * 16 * 16 * 2


def test_threads_share_a_dask_image():
    dask = pytest.importorskip("dask.array")
    values = numbers("cyx")
    image = mt.open_image(dask.from_array(values, chunks=(1, 9, 9)), axes="cyx", mpp=1)
    boxes = [(y, y + 11, x, x + 13) for y in range(0, 50, 7) for x in range(0, 34, 5)]

    def same(box):
        y0, y1, x0, x1 = box
        return np.array_equal(image.read(0, (y0, y1), (x0, x1)), values[:, y0:y1, x0:x1])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(same, boxes))


def test_what_is_read_is_the_readers_own():
    xarray = pytest.importorskip("xarray")
    values = numbers("yx")
    image = mt.open_image(xarray.DataArray(values, dims=("y", "x")))
    image.read(0, (0, 61), (0, 47))[...] = 0
    assert values.any()


def test_dask_arrays_that_are_no_images():
    dask = pytest.importorskip("dask.array")
    unknown = dask.from_array(np.arange(12).reshape(4, 3), chunks=2)
    unknown = unknown[unknown[:, 0] > 3]
    with pytest.raises(InvalidInputError, match="compute_chunk_sizes"):
        mt.open_image(unknown)
    with pytest.raises(InvalidInputError, match="dask array of complex128"):
        mt.open_image(dask.zeros((3, 3), dtype=complex))
    with pytest.raises(InvalidInputError, match="has no pixels"):
        mt.open_image(dask.zeros((0, 3)))
    with pytest.raises(InvalidInputError, match="axes="):
        mt.open_image(dask.zeros((3, 3, 3)))


@pytest.mark.parametrize("lazy", [True, False])
def test_a_data_array_names_its_axes_and_channels(lazy, pixels_equal):
    xarray = pytest.importorskip("xarray")
    dask = pytest.importorskip("dask.array")
    values = numbers("yxc")
    image = mt.open_image(
        xarray.DataArray(
            dask.from_array(values, chunks=10) if lazy else values,
            dims=("y", "x", "c"),
            coords={"c": ["DNA", "CD3", "CD8"]},
            name="slide",
        ),
        mpp=0.25,
    )
    assert (image.axes, image.channel_names, image.name) == ("cyx", ("DNA", "CD3", "CD8"), "slide")
    assert image.kind == "intensity"
    pixels_equal(image, values.transpose(2, 0, 1))
    np.testing.assert_array_equal(
        image.read_spatial_region(0, (3, 5, 9, 8), channel_coords=["CD8", "DNA"]).data,
        values.transpose(2, 0, 1)[[2, 0], 5:8, 3:9],
    )


def test_names_of_dimensions_and_channels():
    xarray = pytest.importorskip("xarray")
    named = xarray.DataArray(numbers("cyx"), dims=("channel", "Y", "X"))
    assert mt.open_image(named).channel_names == ("channel 0", "channel 1", "channel 2")
    assert mt.open_image(named, channel_names=["a", "b", "d"]).channel_names == ("a", "b", "d")
    numbered = named.assign_coords(channel=[0, 1, 2])
    assert mt.open_image(numbered).channel_names == ("channel 0", "channel 1", "channel 2")
    assert mt.open_image(named.assign_coords(channel=[89, 91, 7])).channel_names == (
        "89",
        "91",
        "7",
    )
    odd = xarray.DataArray(numbers("yx"), dims=("row", "col"))
    with pytest.raises(InvalidInputError, match=r"'row', 'col'.*axes="):
        mt.open_image(odd)
    assert mt.open_image(odd, axes="yx").axes == "yx"
    with pytest.raises(InvalidInputError, match="axes="):
        mt.open_image(xarray.DataArray(numbers("yx"), dims=("y", "q")))


def test_a_data_array_that_reads_from_a_file_is_not_loaded_whole():
    xarray = pytest.importorskip("xarray")
    from xarray.backends import BackendArray
    from xarray.core import indexing

    class File(BackendArray):
        shape, dtype, taken = (61, 47), np.dtype("u2"), []

        def __getitem__(self, key):
            return indexing.explicit_indexing_adapter(
                key, self.shape, indexing.IndexingSupport.BASIC, self.take
            )

        def take(self, key):
            part = values[key]
            self.taken.append(part.size)
            return part

    values = numbers("yx")
    lazy = indexing.LazilyIndexedArray(File())
    image = mt.open_image(xarray.DataArray(xarray.Variable(("y", "x"), lazy)))
    np.testing.assert_array_equal(image.read(0, (3, 5), (7, 10)), values[3:5, 7:10])
    assert File.taken == [6]


@pytest.mark.parametrize("stored", [True, False])
def test_zarr_python_arrays(stored, tmp_path, pixels_equal):
    zarr = pytest.importorskip("zarr")
    values = numbers("yxc")
    array = zarr.create_array(
        tmp_path / "a" if stored else zarr.storage.MemoryStore(),
        shape=values.shape,
        chunks=(20, 20, 3),
        dtype=values.dtype,
        dimension_names=("y", "x", "c"),
    )
    array[...] = values
    image = mt.open_image(array, mpp=1)
    assert image.level(0).array.chunks == (3, 20, 20)
    pixels_equal(image, values.transpose(2, 0, 1))
    unnamed = zarr.create_array(zarr.storage.MemoryStore(), data=values, chunks=(20, 20, 3))
    with pytest.raises(InvalidInputError, match="axes="):
        mt.open_image(unnamed)
    pixels_equal(mt.open_image(unnamed, axes="yxc"), values.transpose(2, 0, 1))


@pytest.mark.parametrize("stored", [True, False])
def test_zarr_python_groups(stored, tmp_path):
    zarr = pytest.importorskip("zarr")
    values = numbers("cyx")
    with mt.MultiscaleImage.create(
        tmp_path / "a.ome.zarr",
        type="uint16",
        level_shape=values.shape,
        mpp=0.5,
        channel_names=["a", "b", "d"],
    ) as image:
        image["level0"][...] = values
        image.add_new_level("level1", shape=(3, 31, 24))[...] = values[:, ::2, ::2]
    store: Any = tmp_path / "a.ome.zarr"
    if not stored:
        store = zarr.storage.MemoryStore()
        copy = zarr.open_group(store, mode="w")
        group = zarr.open_group(tmp_path / "a.ome.zarr", mode="r")
        copy.attrs.update(dict(group.attrs))
        for path in ("0", "level1", "1"):
            if path in group:
                copy.create_array(path, data=group[path][...], chunks=(1, 16, 16))
    known = mt.open_image(tmp_path / "a.ome.zarr")
    opened = mt.open_image(zarr.open_group(store, mode="r"))
    assert (opened.mpp.y, opened.axes, opened.level_count) == (known.mpp.y, "cyx", 2)
    assert opened.channel_names == ("a", "b", "d")
    for level in range(2):
        assert opened.level(level).scale == known.level(level).scale
        np.testing.assert_array_equal(opened.level(level)[...], known.level(level)[...])
    assert mt.open_image(zarr.open_group(store, mode="r"), mpp=2.0).level(1).scale[-1] == 4.0
    renamed = mt.open_image(zarr.open_group(store, mode="r"), channel_names=["e", "f", "g"])
    assert renamed.channel_names == ("e", "f", "g")
    with pytest.raises(InvalidInputError, match="names its axes itself"):
        mt.open_image(zarr.open_group(store, mode="r"), axes="cyx")


def test_zarr_python_groups_that_are_no_images():
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(zarr.storage.MemoryStore(), mode="w")
    with pytest.raises(FormatError):
        mt.open_image(group)
    dataset = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 1]}]}
    axes = [{"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"axes": axes, "datasets": [dataset]}],
    }
    with pytest.raises(FormatError, match="no array over 'yx' at '0'"):
        mt.open_image(group)


def test_whatever_speaks_dlpack():
    class Speaks:
        def __init__(self, values):
            self.values = values

        def __dlpack__(self, **more):
            return self.values.__dlpack__(**more)

        def __dlpack_device__(self):
            return self.values.__dlpack_device__()

    values = numbers("cyx")
    np.testing.assert_array_equal(mt.open_image(Speaks(values), axes="cyx").level(0)[...], values)


class Transform:
    """As SpatialData's: of axes, to a matrix."""

    def __init__(self, matrix):
        self.matrix = np.asarray(matrix, float)

    def to_affine_matrix(self, input_axes, output_axes):
        assert input_axes == output_axes
        # Written for (x, y).
        order = [*("xy".index(a) for a in input_axes), 2]
        return self.matrix[np.ix_(order, order)]


def scaled(x, y, dx=0.0, dy=0.0):
    return Transform([[x, 0, dx], [0, y, dy], [0, 0, 1]])


def element(values, dims, **transforms):
    xarray = pytest.importorskip("xarray")
    return xarray.DataArray(values, dims=tuple(dims), name="image", attrs={"transform": transforms})


def tree(**levels):
    xarray = pytest.importorskip("xarray")
    return xarray.DataTree.from_dict(
        {name: xarray.Dataset({"image": level}) for name, level in levels.items()}
    )


def test_an_element_of_spatialdata():
    values = numbers("cyx")
    base = scaled(0.5, 0.5, 100, 200)
    half = Transform(base.matrix @ scaled(47 / 23, 61 / 30).matrix)
    source = tree(
        scale0=element(values, "cyx", tissue=base),
        scale1=element(values[:, :60:2, :46:2], "cyx", tissue=half),
    )
    image = mt.open_image(source)
    assert image.mpp is None
    assert image.kind == "intensity"
    assert image.level_count == 2
    np.testing.assert_allclose(image.level(1).scale, (1, 61 / 30, 47 / 23))
    np.testing.assert_allclose(image.level(1).translation, (0, 31 / 60, 12 / 23))
    assert mt.open_image(source, mpp=0.5).level(1).scale[-1] == pytest.approx(0.5 * 47 / 23)
    to_tissue = element_transform(source)
    assert to_tissue == element_transform(source, "tissue")
    assert isinstance(to_tissue, AffineTransform)
    read = image.read_spatial_region(
        0, (105, 210, 110, 214), region_transform=to_tissue.inverse_transform()
    )
    np.testing.assert_array_equal(read.data, values[:, 20:28, 10:20])
    assert read.coordinate_transform.apply_box((0, 0, 10, 8)) == (105, 210, 110, 214)


def test_labels_of_spatialdata_and_plain_arrays():
    values = numbers("yx", "int32")
    source = element(values, "yx", a=scaled(1, 1), b=scaled(2, 3))
    assert mt.open_image(source).kind == "labels"
    plain = source.copy()
    plain.attrs = {}
    assert mt.open_image(plain).kind == "intensity"
    assert isinstance(element_transform(source, "a"), IdentityTransform)
    assert element_transform(source, "b") == ScaleTransform("xy", "xy", [2, 3])
    with pytest.raises(InvalidInputError, match=r"name one: \['a', 'b'\]"):
        element_transform(source)
    with pytest.raises(UnknownNameError, match="'c'"):
        element_transform(source, "c")
    for nothing in (plain, values, None):
        with pytest.raises(InvalidInputError, match="without transforms"):
            element_transform(nothing)


def test_trees_that_are_no_image():
    values = numbers("cyx")
    fine = element(values, "cyx", a=scaled(1, 1))
    turned = Transform([[0, 2, 0], [2, 0, 0], [0, 0, 1]])
    half = values[:, :60:2, :46:2]
    with pytest.raises(InvalidInputError, match="turned"):
        mt.open_image(tree(scale0=fine, scale1=element(half, "cyx", a=turned)))
    with pytest.raises(InvalidInputError, match="not in coordinate system 'a'"):
        mt.open_image(tree(scale0=fine, scale1=element(half, "cyx", b=scaled(1, 1))))
    with pytest.raises(InvalidInputError, match="same dimensions"):
        mt.open_image(tree(scale0=fine, scale1=element(half[0], "yx", a=scaled(2, 2))))
    with pytest.raises(InvalidInputError, match="without levels"):
        mt.open_image(tree())
    xarray = pytest.importorskip("xarray")
    two = xarray.DataTree.from_dict({"scale0": xarray.Dataset({"a": fine, "b": fine})})
    with pytest.raises(InvalidInputError, match="one array"):
        mt.open_image(two)


def test_a_tree_without_transforms_lies_as_its_shapes_say():
    xarray = pytest.importorskip("xarray")
    values = numbers("zyx")
    levels = {
        f"scale{i}": xarray.Dataset({"image": (("z", "y", "x"), values[::step, ::step, ::step])})
        for i, step in enumerate((1, 2))
    }
    image = mt.open_image(xarray.DataTree.from_dict(levels), mpp=0.5)
    assert image.level(1).scale == (2.0, 1.0, 1.0)
    assert image.level(1).translation == (0.5, 0.25, 0.25)


def test_a_lazy_image_travels():
    dask = pytest.importorskip("dask.array")
    values = numbers("yx")
    array = mt.open_image(dask.from_array(values, chunks=9)).level(0).array
    again = pickle.loads(pickle.dumps(array))
    np.testing.assert_array_equal(again.read(((3, 9), (4, 20))), values[3:9, 4:20])


def test_opening_an_array_imports_none_of_these():
    code = (
        "import sys, numpy, microtome; microtome.open_image(numpy.zeros((3, 3)));"
        "print([m for m in ('dask', 'xarray', 'zarr', 'spatialdata') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
