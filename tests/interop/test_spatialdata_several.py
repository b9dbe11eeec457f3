"""Tiles of several images at once, of labels along with them, and around labels with a depth."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import microtome as mt
from microtome.interop import ImageTilesDataset

with warnings.catch_warnings():
    # What it imports warns of its own future, and of a config file that is not there.
    warnings.simplefilter("ignore")
    pytest.importorskip(
        "spatialdata",
        reason="needs a spatialdata that can be imported",
        exc_type=ImportError,
    )
    from spatialdata.datasets import blobs
    from spatialdata.models import Image2DModel, Labels3DModel, ShapesModel
    from spatialdata.transformations import Identity, Scale, set_transformation

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

LABELS = {"blobs_labels": "blobs_labels"}


@pytest.fixture(scope="module")
def sample():
    """Blobs, and the same place in another image of half the resolution and one channel."""
    sdata = blobs(length=160, n_shapes=6)
    fine = sdata["blobs_image"].values
    coarse = np.rint(fine[:1, ::2, ::2] * 100).astype(np.uint16)
    sdata["coarse"] = Image2DModel.parse(
        coarse, dims=("c", "y", "x"), transformations={"global": Scale([2.0, 2.0], ("x", "y"))}
    )
    return sdata


@pytest.fixture(scope="module")
def store(sample, tmp_path_factory):
    path = tmp_path_factory.mktemp("several") / "a.zarr"
    sample.write(path)
    return path


def several(source, **options):
    return ImageTilesDataset(
        source,
        {"blobs_labels": ["blobs_image", "coarse"]},
        {"blobs_labels": "global"},
        tile_dim_in_units=16,
        regions_to_labels=LABELS,
        **options,
    )


def test_an_item_has_each_by_its_name(sample, store):
    for dataset in (several(sample), several(store)):
        assert set(dataset.dataset_index["image"]) == {("blobs_image", "coarse")}
        for row in (0, 5, -1):
            item = dataset[row]
            assert list(item.images) == ["blobs_image", "coarse"]
            assert list(item.labels) == ["blobs_labels"]
            low_x, low_y = dataset.tiles_coords[["minx", "miny"]].to_numpy()[row]
            for name, scale in (("blobs_image", 1), ("blobs_labels", 1), ("coarse", 2)):
                whole = np.asarray(sample[name].values)
                # The pixels whose centres lie in the tile, one by one.
                kept = []
                for low, size in ((low_y, whole.shape[-2]), (low_x, whole.shape[-1])):
                    centres = (np.arange(size) + 0.5) * scale
                    kept.append((centres >= low) & (centres <= low + 16))
                expected = whole[..., kept[0], :][..., kept[1]]
                np.testing.assert_array_equal(item[name].values, expected)
            instance = dataset.dataset_index["instance_id"].to_numpy()[row]
            assert instance in item["blobs_labels"].values


@pytest.mark.parametrize("rasterize", [False, True])
def test_regions_are_a_tuple_of_the_same_place(store, rasterize):
    dataset = several(store, output="region", tile_size=16, rasterize=rasterize, padding=1)
    items = dataset.__getitems__([3, 0, 9])
    fine, coarse, labels = items[0]
    assert [part.additional_metadata["image"] for part in items[0]] == [
        "blobs_image", "coarse", "blobs_labels",
    ]  # fmt: skip
    assert (fine.data.shape, coarse.data.shape) == ((3, 16, 16), (1, 16, 16))
    assert labels.data.shape == (1, 16, 16)
    assert labels.data.dtype.kind == "i"
    # The labels lie on the pixels of the image of the same resolution.
    assert labels.region_spec["coords"] == fine.region_spec["coords"]
    assert dataset.dataset_index["instance_id"][3] in labels.data
    for item, row in zip(items, (3, 0, 9), strict=True):
        for part, alone in zip(item, dataset[row], strict=True):
            np.testing.assert_array_equal(part.data, alone.data)
    batch = dataset.read_batch(np.array([3, 0, 9]))
    assert [part.data.dtype for part in batch] == [np.float32, np.float32, np.int64]
    for number, part in enumerate(batch):
        expected = np.stack([item[number].data for item in items])
        np.testing.assert_array_equal(part.data, expected.astype(part.data.dtype))


def test_rasterized_images_show_the_same_place(sample):
    """A pixel of the tile is one of the coarse image, and two a side of the fine one."""
    sample["even"] = ShapesModel.parse(np.array([[40.0, 50.0]]), geometry=0, radius=4.0)
    fine, coarse = ImageTilesDataset(
        sample,
        {"even": ["blobs_image", "coarse"]},
        {"even": "global"},
        tile_dim_in_units=16,
        rasterize=True,
        output="region",
        tile_size=8,
        interpolation="area",
    )[0]
    np.testing.assert_array_equal(coarse.data, sample["coarse"].values[:, 21:29, 16:24])
    whole = sample["blobs_image"].values[:, 42:58, 32:48]
    means = whole.reshape(3, 8, 2, 8, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(fine.data, means)


def test_a_loader_hands_out_images_and_labels(store):
    dataset = several(store, output="region", tile_size=16)
    seen = 0
    for image, coarse, labels in mt.TileLoader(dataset, batch_size=4, as_torch=False):
        assert len(image.data) == len(coarse.data) == len(labels.data)
        for told, pixels in zip(labels.additional_metadata, labels.data, strict=True):
            assert told["instance_id"] in pixels
            seen += 1
    assert seen == len(dataset)


@pytest.mark.parametrize(
    ("images", "labels", "match"),
    [
        ({"blobs_labels": []}, None, "names no image"),
        ({"blobs_labels": ["coarse", "coarse"]}, None, "named twice"),
        ({"blobs_labels": "blobs_labels"}, None, "named in regions_to_labels"),
        ({"blobs_labels": "coarse"}, {"blobs_labels": "blobs_image"}, "is no labels"),
        ({"blobs_labels": "coarse"}, {"blobs_circles": "blobs_labels"}, "that have no image"),
    ],
)
def test_what_does_not_fit_is_refused(sample, images, labels, match):
    with pytest.raises(mt.MicrotomeError, match=match):
        ImageTilesDataset(sample, images, {"blobs_labels": "global"}, regions_to_labels=labels)


def test_batches_need_as_many_images_for_every_region(sample):
    with pytest.raises(mt.MicrotomeError, match="the same images for every region"):
        ImageTilesDataset(
            sample,
            {"blobs_labels": ["blobs_image", "coarse"], "blobs_circles": "blobs_image"},
            {"blobs_labels": "global", "blobs_circles": "global"},
            output="region",
            tile_size=8,
        )


def test_tiles_around_labels_with_a_depth(monkeypatch, tmp_path):
    from microtome.interop import _instances

    rng = np.random.default_rng(4)
    volume = rng.choice(np.array([0, 1, 2, 7], np.int32), (5, 40, 30))
    sdata = blobs(length=64)
    sdata["volume"] = Labels3DModel.parse(volume, dims=("z", "y", "x"))
    set_transformation(sdata["volume"], Identity(), "global")
    sdata.write(tmp_path / "a.zarr")
    monkeypatch.setattr(_instances, "_BAND", 30 * 7)
    arguments = {"volume": "blobs_image"}, {"volume": "global"}
    for source in (sdata, tmp_path / "a.zarr"):
        dataset = ImageTilesDataset(source, *arguments, tile_dim_in_units=8)
        assert dataset.dataset_index["instance_id"].tolist() == [1, 2, 7]
        for row, label in enumerate([1, 2, 7]):
            _, y, x = np.nonzero(volume == label)
            found = dataset.tiles_coords[["x", "y"]].to_numpy()[row]
            np.testing.assert_allclose(found, [x.mean() + 0.5, y.mean() + 0.5])
        with pytest.raises(mt.MicrotomeError, match="have no size in the plane"):
            ImageTilesDataset(source, *arguments)


def test_tiles_around_circles_with_labels_of_another_system(sample):
    """The region need not be among what is cut."""
    sample["spots"] = ShapesModel.parse(np.array([[40.0, 50.0]]), geometry=0, radius=4.0)
    dataset = ImageTilesDataset(
        sample,
        {"spots": "coarse"},
        {"spots": "global"},
        regions_to_labels={"spots": "blobs_labels"},
    )
    item = dataset[0]
    np.testing.assert_array_equal(
        item["blobs_labels"].values, sample["blobs_labels"].values[46:54, 36:44]
    )
    np.testing.assert_array_equal(item["coarse"].values, sample["coarse"].values[:, 23:27, 18:22])
