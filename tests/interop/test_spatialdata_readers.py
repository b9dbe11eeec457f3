"""What tripped a reader of the page on `ImageTilesDataset`: each has a test."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest

import microtome as mt
from microtome.errors import InvalidInputError
from microtome.interop import ImageTilesDataset
from microtome.loading import TileLoader

with warnings.catch_warnings():
    # What it imports warns of its own future, and of a config file that is not there.
    warnings.simplefilter("ignore")
    sd = pytest.importorskip(
        "spatialdata",
        reason="needs a spatialdata that can be imported",
        exc_type=ImportError,
    )
    import anndata as ad
    import geopandas as gpd
    import shapely
    from spatialdata.models import Image2DModel, PointsModel, ShapesModel, TableModel
    from spatialdata.transformations import Affine, Scale

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

SIDE, PLACES = 160, [(40.0, 50.0), (90.0, 60.0), (70.0, 120.0), (31.0, 111.0)]
REGION = {"output": "region", "tile_size": 16}


@pytest.fixture(scope="module")
def pixels():
    """Counts as ion beams give them: mostly none, so that means are below one half."""
    return np.random.default_rng(0).poisson(0.2, (3, SIDE, SIDE)).astype(np.uint16)


@pytest.fixture(scope="module")
def store(pixels, tmp_path_factory):
    path = tmp_path_factory.mktemp("readers") / "a.zarr"
    image = Image2DModel.parse(
        pixels, dims=("c", "y", "x"), transformations={"um": Scale([0.5, 0.5], ("x", "y"))}
    )
    other = Image2DModel.parse(
        pixels[:, ::2, ::2], dims=("c", "y", "x"), transformations={"um": Scale([1, 1], ("x", "y"))}
    )
    turn = np.array([[0, 0.5, 0], [-0.5, 0, 80], [0, 0, 1]])
    turned = Image2DModel.parse(
        np.rot90(pixels, -1, (1, 2)).copy(),
        dims=("c", "y", "x"),
        transformations={"um": Affine(turn, ("x", "y"), ("x", "y"))},
    )
    circles = gpd.GeoDataFrame(
        {"radius": [4.0] * 4}, geometry=[shapely.Point(x / 2, y / 2) for x, y in PLACES]
    )
    spots = ShapesModel.parse(circles, transformations={"um": sd.transformations.Identity()})
    table = TableModel.parse(
        ad.AnnData(
            np.zeros((4, 12), np.float32),
            obs={"region": ["spots"] * 4, "id": range(4)},
            var={"gene": range(12)},
        ),
        region="spots",
        region_key="region",
        instance_key="id",
    )
    table.obs["region"] = table.obs["region"].astype("category")
    sd.SpatialData(
        images={"he": image, "coarse": other, "turned": turned},
        shapes={"spots": spots},
        tables={"table": table},
    ).write(path)
    return path


def tiles(store, image="he", **options):
    return ImageTilesDataset(store, {"spots": image}, {"spots": "um"}, **options)


@pytest.mark.parametrize("method", ["area", "linear"])
def test_means_of_few_counts_are_not_rounded_to_none(store, pixels, method):
    dataset = tiles(
        store,
        output="region",
        tile_size=8,
        tile_dim_in_units=16,
        rasterize=True,
        interpolation=method,
    )
    items = dataset.__getitems__(range(4))
    batch = dataset.read_batch(np.arange(4))
    for row, (x, y) in enumerate(PLACES):
        left, top = int(x - 16), int(y - 16)
        whole = pixels[:, top : top + 32, left : left + 32].astype(np.float64)
        if method == "area":
            wanted = whole.reshape(3, 8, 4, 8, 4).mean((2, 4))
        else:  # in the middle between four pixels
            corner = whole[:, 1::4, 1::4] + whole[:, 2::4, 1::4]
            wanted = (corner + whole[:, 1::4, 2::4] + whole[:, 2::4, 2::4]) / 4
        assert items[row].data.dtype == np.float32
        np.testing.assert_allclose(items[row].data, wanted, atol=1e-6)
        np.testing.assert_allclose(batch.data[row], wanted, atol=1e-6)
        assert 0 < wanted.mean() < 0.5


def test_the_box_is_where_the_pixels_lie(store):
    for dim in (5, 25, 100):
        dataset = tiles(store, ["he", "coarse", "turned"], tile_dim_in_units=dim, **REGION)
        for row, (x, y) in enumerate(PLACES):
            fine, coarse, turned = (
                np.array(region.additional_metadata["box"]) for region in dataset[row]
            )
            middle = np.array([x, y, x, y]) / 2
            # 16 pixels of half a unit, and of one, that begin at a pixel of theirs.
            np.testing.assert_allclose(fine, middle + np.array([-4, -4, 4, 4]))
            np.testing.assert_allclose(coarse[2:] - coarse[:2], [16, 16])
            assert (abs((coarse[:2] + coarse[2:]) / 2 - middle[:2]) <= 0.5).all()
            np.testing.assert_allclose(turned, fine)
            start = dataset[row][0].region_spec["coords"]
            assert [v / 2 for v in start] == [fine[1], fine[0]]
            np.testing.assert_array_equal(
                np.rot90(dataset[row][2].data, 1, (1, 2)), dataset[row][0].data
            )


def test_a_mask_is_not_taken_for_numbers(store):
    dataset = tiles(store, **REGION)
    for wrong in (np.zeros(4, bool), np.array([0.0, 1.0]), np.zeros((2, 2), int)):
        with pytest.raises(InvalidInputError, match=r"by their numbers, \(n,\).*np\.flatnonzero"):
            dataset.read_batch(wrong)


def test_a_loader_does_not_go_on_with_other_tiles(store):
    def loader(**options):
        return TileLoader(tiles(store, **{**REGION, **options}), 2, order="random", seed=0)

    begun = loader()
    batches = iter(begun)
    first = next(batches)
    state = begun.state_dict()
    batches.close()
    again = loader()
    again.load_state_dict(state)
    (rest,) = list(again)
    ids = [f["instance_id"] for b in (first, rest) for f in b.additional_metadata]
    assert sorted(ids) == [0, 1, 2, 3]
    for other in (
        {"tile_size": 8},
        {"tile_scale": 2.0, "rasterize": True},
        {"pixel_size": 2.0},
    ):
        with pytest.raises(InvalidInputError, match="tiles"):
            loader(**other).load_state_dict(state)


def test_others_of_the_same_number_have_another_fingerprint(store):
    sdata = sd.read_zarr(store)
    moved = gpd.GeoDataFrame(
        {"radius": [4.0] * 4}, geometry=[shapely.Point(x / 2 + 1, y / 2) for x, y in PLACES]
    )
    sdata["moved"] = ShapesModel.parse(moved, transformations={"um": sd.transformations.Identity()})
    other = ImageTilesDataset(sdata, {"moved": "he"}, {"moved": "um"}, **REGION)
    assert len(other) == 4
    assert other.rows_fingerprint != tiles(sdata, **REGION).rows_fingerprint
    assert tiles(store, **REGION).rows_fingerprint == tiles(sdata, **REGION).rows_fingerprint


def test_a_transform_that_batches_pass_by_is_told_of_once(store):
    dataset = tiles(store, transform=lambda item: item, **REGION)
    with pytest.warns(UserWarning, match="batches are read without it"):
        dataset.read_batch(np.arange(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset.read_batch(np.arange(2))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"pixel_size": "0.5um"}, "pixel_size is a positive number of units.*'0.5um'"),
        ({"pixel_size": 0}, "pixel_size is a positive number of units"),
        ({"pixel_size": np.nan}, "pixel_size is a positive number of units"),
        ({"tile_size": True}, "positive integers"),
        ({"transform": "x"}, "transform is called with each item, got 'x'"),
        ({"storage_options": {"cache_bytes": 1}}, r"storage_options are StorageOptions"),
        ({"regions_to_labels": "he"}, "regions_to_labels is a mapping.*got 'he'"),
        ({"regions_to_labels": {"spots": "he"}}, "'he' is no labels, but one of the images"),
    ],
)
def test_what_cannot_be_is_told_when_the_dataset_is_made(store, options, told):
    with pytest.raises(InvalidInputError, match=told):
        tiles(store, **{**REGION, **options})


def test_other_things_than_mappings_and_objects_are_told_of(store):
    with pytest.raises(InvalidInputError, match=r"regions_to_images is a mapping.*got 'he'"):
        ImageTilesDataset(store, "he", {"spots": "um"})
    with pytest.raises(InvalidInputError, match="a SpatialData object or the path of its store"):
        ImageTilesDataset(None, {"spots": "he"}, {"spots": "um"})


def test_of_many_columns_it_is_told_that_there_are_more(store):
    with pytest.raises(mt.MicrotomeError, match=re.escape("'7'] and 4 more")):
        tiles(store, table_name="table", return_annotations="knd", **REGION)


def test_points_need_no_more_than_they_did(store):
    sdata = sd.read_zarr(store)
    sdata["dots"] = PointsModel.parse(
        np.array(PLACES) / 2, transformations={"um": sd.transformations.Identity()}
    )
    dataset = ImageTilesDataset(
        sdata, {"dots": "he"}, {"dots": "um"}, tile_dim_in_units=8, **REGION
    )
    spots = tiles(store, **REGION)
    np.testing.assert_array_equal(dataset[1].data, spots[1].data)
