"""`ImageTilesDataset` beside spatialdata's: same tiles where it is right, the stated ones where not.

Needs a spatialdata that can be imported: 0.7.0 asks for `pkg_resources`, which setuptools 82
removed; 0.7.3 does not.
"""

from __future__ import annotations

import pickle
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

import microtome as mt
from microtome.interop import ImageTilesDataset

with warnings.catch_warnings():
    # What it imports warns of its own future, and of a config file that is not there.
    warnings.simplefilter("ignore")
    spatialdata = pytest.importorskip(
        "spatialdata",
        reason="needs a spatialdata that can be imported",
        exc_type=ImportError,
    )
    ad = pytest.importorskip("anndata")
    from dask.base import is_dask_collection
    from spatialdata.dataloader import ImageTilesDataset as Peer
    from spatialdata.datasets import blobs
    from spatialdata.models import Image2DModel, Image3DModel, ShapesModel, TableModel
    from spatialdata.transformations import (
        Affine,
        Identity,
        Scale,
        Sequence,
        Translation,
        get_transformation,
        set_transformation,
    )

# Its own calls of what it is built on, not ours.
pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

TURN = np.deg2rad(30)
SYSTEMS = {
    "global": Identity(),
    "scaled": Scale([2.0, 0.5], axes=("x", "y")),
    "shifted": Sequence([Scale([4.0, 4.0], axes=("x", "y")), Translation([7.0, -3.0], ("x", "y"))]),
    "turned": Affine(
        [[np.cos(TURN), -np.sin(TURN), 40.0], [np.sin(TURN), np.cos(TURN), -20.0], [0, 0, 1]],
        ("x", "y"),
        ("x", "y"),
    ),
}
REGIONS = [
    "blobs_circles",
    "blobs_polygons",
    "blobs_multipolygons",
    "blobs_labels",
    "blobs_multiscale_labels",
]
IMAGES = ["blobs_image", "blobs_multiscale_image"]


def with_table(sdata, region):
    """Annotate every instance of a region, in an order of the table's own, and some of others."""
    if region in sdata.labels:
        element = sdata[region]
        array = element["scale0"]["image"] if hasattr(element, "children") else element
        ids = np.unique(array.values)[1:]
    else:
        ids = sdata[region].index.to_numpy()
    order = np.random.default_rng(5).permutation(np.concatenate([ids, [9001, 9002]]))
    table = ad.AnnData(
        X=np.stack([order * 1.5, order + 0.25], axis=1).astype(np.float32),
        layers={"counts": np.stack([order, order * 2], axis=1)},
        obsm={"where": np.stack([order, -order, order * 0.5], axis=1)},
    )
    table.var_names = ["CD3", "CD8"]
    table.obs["region"] = region
    table.obs["region"] = table.obs["region"].astype("category")
    table.obs["instance_id"] = order
    table.obs["area"] = order * 10.0
    table.obs["type"] = np.where(order % 2, "odd", "even")
    table.obs["type"] = table.obs["type"].astype("category")
    sdata.tables["notes"] = TableModel.parse(
        table, region=region, region_key="region", instance_key="instance_id"
    )
    return sdata


def fresh():
    sdata = blobs(length=160, n_shapes=6)
    for name in [*IMAGES, *REGIONS, "blobs_points"]:
        for system, transform in SYSTEMS.items():
            set_transformation(sdata[name], transform, system)
    return sdata


@pytest.fixture(scope="module")
def sample():
    return fresh()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("spatialdata") / "a.zarr"
    with_table(fresh(), "blobs_labels").write(path)
    return path


def matrix(element, system):
    return get_transformation(element, system).to_affine_matrix(("x", "y"), ("x", "y"))


def peer_of(*arguments, **options):
    """Build the peer on an object of its own: it changes circles in place."""
    return Peer(fresh(), *arguments, **options)


# -- where the peer is right: the same


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("system", ["global", "shifted", "turned"])
@pytest.mark.parametrize("image", IMAGES)
def test_cut_tiles_are_those_of_spatialdata(sample, region, system, image):
    arguments = {region: image}, {region: system}
    ours = ImageTilesDataset(sample, *arguments, tile_dim_in_units=21.3)
    peer = peer_of(*arguments, tile_dim_in_units=21.3)
    assert len(ours) == len(peer)
    columns = ["x", "y", "extent", "minx", "miny", "maxx", "maxy"]
    np.testing.assert_allclose(ours.tiles_coords[columns], peer.tiles_coords[columns])
    assert ours.dataset_index.astype(object).equals(peer.dataset_index.astype(object))
    assert set(ours.dims) == set(peer.dims)
    for index in range(len(peer)):
        mine, theirs = ours[index], peer[index]
        assert list(mine.images) == list(theirs.images) == [image]
        tile, expected = mine[image], theirs[image]
        assert tile.dims == expected.dims
        assert tile.dtype == expected.dtype
        np.testing.assert_array_equal(tile.values, expected.values)
        for axis in tile.dims:
            known = expected.coords[axis].to_numpy()
            if axis != "c":
                known = known - known[0] + 0.5  # of 0.8, they go on counting in the whole image
            np.testing.assert_array_equal(tile.coords[axis], known)


@pytest.mark.parametrize("region", ["blobs_circles", "blobs_labels"])
def test_tiles_follow_the_size_of_their_instance(sample, region):
    arguments = {region: "blobs_image"}, {region: "global"}
    ours = ImageTilesDataset(sample, *arguments, tile_scale=1.7)
    peer = peer_of(*arguments, tile_scale=1.7)
    np.testing.assert_allclose(ours.tiles_coords["extent"], peer.tiles_coords["extent"])
    for index in range(len(peer)):
        np.testing.assert_array_equal(
            ours[index]["blobs_image"].values, peer[index]["blobs_image"].values
        )


@pytest.mark.parametrize("names", ["area", ["area", "instance_id"], "CD8", ["CD8", "CD3"]])
@pytest.mark.parametrize("rasterize", [False, True])
def test_annotations_go_with_their_tile(names, rasterize):
    sdata = with_table(fresh(), "blobs_labels")
    options = {
        "tile_dim_in_units": 16,
        "table_name": "notes",
        "return_annotations": names,
        "rasterize": rasterize,
        "rasterize_kwargs": {"target_width": 16} if rasterize else {},
    }
    arguments = {"blobs_labels": "blobs_image"}, {"blobs_labels": "global"}
    ours = ImageTilesDataset(sdata, *arguments, **options)
    peer = Peer(with_table(fresh(), "blobs_labels"), *arguments, **options)
    assert ours.dataset_table.obs.equals(peer.dataset_table.obs)
    np.testing.assert_array_equal(ours.dataset_table.X, peer.dataset_table.X)
    for index in (0, 3, -1):
        tile, values = ours[index]
        expected, theirs = peer[index]
        assert tile.shape == expected.shape
        assert values.shape == theirs.shape
        np.testing.assert_array_equal(values, np.asarray(theirs))
    # A table's row goes along with a SpatialData item.
    whole = ImageTilesDataset(sdata, *arguments, tile_dim_in_units=16, table_name="notes")[2]
    assert whole["notes"].obs["instance_id"].tolist() == [ours.dataset_index["instance_id"][2]]


def test_rasterized_without_resampling_is_the_pixels():
    sdata = blobs(length=128)
    points = np.array([[20, 30], [64, 64], [100, 41]], np.float64)
    sdata["spots"] = ShapesModel.parse(points, geometry=0, radius=5.0)
    options = {
        "tile_dim_in_units": 16,
        "rasterize": True,
        "rasterize_kwargs": {"target_unit_to_pixels": 1},
    }
    arguments = {"spots": "blobs_image"}, {"spots": "global"}
    ours, peer = ImageTilesDataset(sdata, *arguments, **options), Peer(sdata, *arguments, **options)
    for index, (x, y) in enumerate(points.astype(int)):
        tile = ours[index]["blobs_image"]
        np.testing.assert_array_equal(tile.values, peer[index]["blobs_image"].values)
        whole = sdata["blobs_image"].values[:, y - 8 : y + 8, x - 8 : x + 8]
        np.testing.assert_array_equal(tile.values, whole)


@pytest.mark.parametrize("interpolation", ["nearest", "linear"])
def test_rasterized_into_a_turned_system(interpolation):
    """The peer samples corners of pixels; on a smooth image that is a small difference."""
    sdata = fresh()
    y, x = np.mgrid[0:160, 0:160] + 0.5
    sdata["ramp"] = Image2DModel.parse(np.stack([3 * x + y])[:1], dims=("c", "y", "x"))
    set_transformation(sdata["ramp"], SYSTEMS["turned"], "turned")
    sdata["spots"] = ShapesModel.parse(np.array([[80.0, 70.0]]), geometry=0, radius=5.0)
    set_transformation(sdata["spots"], SYSTEMS["turned"], "turned")
    dataset = ImageTilesDataset(
        sdata,
        {"spots": "ramp"},
        {"spots": "turned"},
        tile_dim_in_units=30,
        rasterize=True,
        rasterize_kwargs={"target_width": 45},
        interpolation=interpolation,
    )
    tile = dataset[0]["ramp"]
    # Where the centre of each pixel lies in the image, by the transforms of the item alone.
    back = np.linalg.inv(matrix(sdata["ramp"], "turned")) @ matrix(tile, "turned")
    rows, columns = np.mgrid[0:45, 0:45] + 0.5
    px, py, _ = np.tensordot(back, np.stack([columns, rows, np.ones_like(rows)]), 1)
    atol = 1e-8 if interpolation == "linear" else 2.0
    np.testing.assert_allclose(tile.values[0], 3 * px + py, atol=atol)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"return_annotations": "area"}, ValueError),
        ({"regions_to_coordinate_systems": {"blobs_circles": "global"}}, ValueError),
        ({"regions_to_images": {"blobs_labels": "nothing"}}, KeyError),
        ({"regions_to_images": {"blobs_labels": "blobs_multiscale_labels"}}, ValueError),
        ({"regions_to_coordinate_systems": {"blobs_labels": "nowhere"}}, ValueError),
        ({"table_name": "nothing"}, KeyError),
        ({"tile_dim_in_units": 0}, ValueError),
        ({"tile_dim_in_units": None, "tile_scale": -1}, ValueError),
        ({"rasterize": True}, ValueError),
        ({"rasterize": True, "rasterize_kwargs": {"target_width": 3, "agg": 1}}, ValueError),
        ({"table_name": "notes", "return_annotations": ["area", "nothing"]}, KeyError),
        ({"output": "region"}, ValueError),
        ({"output": "region", "tile_size": 0}, ValueError),
        ({"output": "tensor"}, ValueError),
    ],
)
def test_refused_at_construction(change, error):
    options = {
        "regions_to_images": {"blobs_labels": "blobs_image"},
        "regions_to_coordinate_systems": {"blobs_labels": "global"},
        "tile_dim_in_units": 16,
    }
    with pytest.raises(error) as caught:
        ImageTilesDataset(with_table(fresh(), "blobs_labels"), **{**options, **change})
    assert isinstance(caught.value, mt.MicrotomeError)


def test_instances_without_a_row_are_refused():
    sdata = with_table(fresh(), "blobs_labels")
    sdata.tables["notes"] = sdata.tables["notes"][:-4].copy()
    with pytest.raises(RuntimeError, match="have no row in table 'notes'"):
        ImageTilesDataset(
            sdata,
            {"blobs_labels": "blobs_image"},
            {"blobs_labels": "global"},
            table_name="notes",
        )


@pytest.mark.filterwarnings("default")
def test_options_that_do_nothing_are_told(sample):
    with pytest.warns(UserWarning, match="rasterize is False"):
        ImageTilesDataset(
            sample,
            {"blobs_circles": "blobs_image"},
            {"blobs_circles": "global"},
            rasterize_kwargs={"target_width": 8},
        )


def test_numbers_of_tiles(sample):
    dataset = ImageTilesDataset(
        sample, {"blobs_circles": "blobs_image"}, {"blobs_circles": "global"}, tile_dim_in_units=9
    )
    last = dataset[len(dataset) - 1]["blobs_image"].values
    np.testing.assert_array_equal(dataset[-1]["blobs_image"].values, last)
    np.testing.assert_array_equal(dataset[np.int64(-1)]["blobs_image"].values, last)
    with pytest.raises(IndexError, match="no tile"):
        dataset[len(dataset)]


# -- where it is not: its defects, by their numbers in the reference


def two_regions():
    sdata = fresh()
    parts = [
        with_table(sdata, region).tables["notes"] for region in ("blobs_circles", "blobs_labels")
    ]
    table = ad.concat(parts)
    table.obs_names_make_unique()
    table.obs["region"] = table.obs["region"].astype("category")
    sdata.tables["notes"] = TableModel.parse(
        table,
        region=["blobs_circles", "blobs_labels"],
        region_key="region",
        instance_key="instance_id",
    )
    return sdata


@pytest.mark.parametrize("regions", [["blobs_circles"], ["blobs_labels", "blobs_circles"]])
def test_b1_a_table_of_several_regions(regions):
    dataset = ImageTilesDataset(
        two_regions(),
        dict.fromkeys(regions, "blobs_image"),
        dict.fromkeys(regions, "global"),
        tile_dim_in_units=16,
        table_name="notes",
        return_annotations=["region", "instance_id"],
    )
    index = dataset.dataset_index
    assert list(dict.fromkeys(index["region"])) == regions
    for row in range(len(dataset)):
        assert dataset[row][1].tolist() == [[index["region"][row], index["instance_id"][row]]]
    TableModel().validate(dataset.dataset_table)


def test_b2_nothing_is_changed():
    sdata = fresh()
    before = sdata["blobs_circles"].copy(deep=True)
    systems = set(get_transformation(sdata["blobs_circles"], get_all=True))
    for _ in range(2):
        dataset = ImageTilesDataset(
            sdata, {"blobs_circles": "blobs_image"}, {"blobs_circles": "global"}, tile_scale=3
        )
        np.testing.assert_allclose(dataset.tiles_coords["extent"], before["radius"] * 6)
    assert sdata["blobs_circles"].equals(before)
    assert set(get_transformation(sdata["blobs_circles"], get_all=True)) == systems


@pytest.mark.parametrize(("system", "growth"), [("shifted", 4.0), ("scaled", 1.0), ("turned", 1.0)])
def test_b3_sides_are_in_units_of_the_system(sample, system, growth):
    dataset = ImageTilesDataset(
        sample, {"blobs_circles": "blobs_image"}, {"blobs_circles": system}, tile_scale=1
    )
    radii = sample["blobs_circles"]["radius"]
    np.testing.assert_allclose(dataset.tiles_coords["extent"], radii * 2 * growth)


def test_b4_a_region_with_one_instance():
    sdata = blobs(length=64)
    sdata["spot"] = ShapesModel.parse(np.array([[30.0, 20.0]]), geometry=0, radius=4.0)
    dataset = ImageTilesDataset(sdata, {"spot": "blobs_image"}, {"spot": "global"})
    (item,) = [dataset[index] for index in range(len(dataset))]
    expected = sdata["blobs_image"].values[:, 16:24, 26:34]
    np.testing.assert_array_equal(item["blobs_image"].values, expected)


@pytest.mark.parametrize("x", [30.0, 30.3, 30.5, 30.7])
@pytest.mark.parametrize("system", list(SYSTEMS))
def test_b5_b6_tiles_lie_where_their_pixels_do(x, system):
    sdata = fresh()
    at = SYSTEMS[system].to_affine_matrix(("x", "y"), ("x", "y")) @ [x, 40.1, 1]
    sdata["spot"] = ShapesModel.parse(at[None, :2], geometry=0, radius=1.0)
    set_transformation(sdata["spot"], Identity(), system)
    y, columns = np.mgrid[0:160, 0:160]
    pixels = np.stack([columns, y]).astype(np.int32)
    sdata["places"] = Image2DModel.parse(pixels, dims=("c", "y", "x"))
    for name, transform in SYSTEMS.items():
        set_transformation(sdata["places"], transform, name)
    tile = ImageTilesDataset(sdata, {"spot": "places"}, {"spot": system}, tile_dim_in_units=20)[0][
        "places"
    ]
    first = tile.values[:, 0, 0]
    for name in SYSTEMS:
        corner = matrix(tile, name) @ [0, 0, 1]
        np.testing.assert_allclose(corner, matrix(sdata["places"], name) @ [*first, 1])


def test_b8_several_scales_in_memory_travel_to_workers(sample):
    dataset = ImageTilesDataset(
        sample,
        {"blobs_circles": "blobs_multiscale_image"},
        {"blobs_circles": "global"},
        tile_dim_in_units=9,
        output="region",
        tile_size=9,
    )
    again = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(again[1].data, dataset[1].data)
    with pytest.raises(mt.MicrotomeError, match="stayed in the process"):
        _ = again.sdata


@pytest.mark.parametrize("kind", ["csr_matrix", "csr_array", "csc_matrix"])
def test_b9_genes_of_a_sparse_table(kind):
    from scipy import sparse

    sdata = with_table(fresh(), "blobs_labels")
    dense = np.asarray(sdata.tables["notes"].X)
    sdata.tables["notes"].X = getattr(sparse, kind)(dense)
    dataset = ImageTilesDataset(
        sdata,
        {"blobs_labels": "blobs_image"},
        {"blobs_labels": "global"},
        tile_dim_in_units=9,
        table_name="notes",
        return_annotations=["CD8"],
    )
    instance = dataset.dataset_index["instance_id"][4]
    assert dataset[4][1].tolist() == [[instance + 0.25]]


def test_b10_pixels_are_sampled_at_their_centres():
    """Four pixels a target pixel: its centre is at 2 of them, not at 0."""
    sdata = blobs(length=64)
    pixels = np.broadcast_to(np.arange(64, dtype=np.int32), (1, 64, 64))
    sdata["columns"] = Image2DModel.parse(np.ascontiguousarray(pixels), dims=("c", "y", "x"))
    sdata["spot"] = ShapesModel.parse(np.array([[32.0, 32.0]]), geometry=0, radius=16.0)
    options = {
        "rasterize": True,
        "rasterize_kwargs": {"target_width": 8},
        "interpolation": "area",
    }
    tile = ImageTilesDataset(sdata, {"spot": "columns"}, {"spot": "global"}, **options)[0][
        "columns"
    ]
    # The mean of columns 16 to 19 is 17.5, rounded half up.
    assert tile.values[0, 0].tolist() == list(range(18, 50, 4))


def test_b11_labels_of_any_value_are_counted_in_bands(monkeypatch):
    from microtome.interop import _instances

    rng = np.random.default_rng(2)
    pixels = rng.choice(np.array([0, 3, 2**40, 2**40 + 1, 77]), (53, 31))
    monkeypatch.setattr(_instances, "_BAND", 31 * 4)
    found = _instances.instances_of_labels(
        mt.MultiscaleImage([mt.open_image(pixels).level(0)], uri="a", channel_names=None, mpp=None)
    )
    assert found.ids.tolist() == [3, 77, 2**40, 2**40 + 1]
    for label, centre, radius in zip(found.ids, found.centres, found.radii, strict=True):
        y, x = np.nonzero(pixels == label)
        np.testing.assert_allclose(centre, [x.mean() + 0.5, y.mean() + 0.5])
        np.testing.assert_allclose(radius, np.sqrt(len(x) / np.pi))


# -- what the peer has not


@pytest.mark.parametrize("rasterize", [False, True])
@pytest.mark.parametrize("system", ["global", "shifted"])
def test_regions_of_fixed_size(sample, rasterize, system):
    """Windows of one size, padded; a tile of 12 pixels a side is 48 units in the larger system."""
    side = 12 * (4 if system == "shifted" else 1)
    dataset = ImageTilesDataset(
        sample,
        {"blobs_labels": "blobs_image"},
        {"blobs_labels": system},
        tile_dim_in_units=side,
        rasterize=rasterize,
        output="region",
        tile_size=12,
    )
    whole = np.pad(sample["blobs_image"].values, ((0, 0), (16, 16), (16, 16)))
    items = dataset.__getitems__(list(range(len(dataset))))
    for index, item in enumerate(items):
        assert item.data.shape == (3, 12, 12)
        y, x = item.region_spec["coords"]
        assert (
            item.additional_metadata["instance_id"] == dataset.dataset_index["instance_id"][index]
        )
        np.testing.assert_array_equal(item.data, whole[:, y + 16 : y + 28, x + 16 : x + 28])
        np.testing.assert_array_equal(dataset[index].data, item.data)
    batch = dataset.read_batch(np.array([3, 0, 3]))
    assert batch.data.dtype == np.float32
    for place, row in enumerate([3, 0, 3]):
        np.testing.assert_array_equal(batch.data[place], items[row].data.astype(np.float32))


def test_the_loader_reads_it(store):
    dataset = ImageTilesDataset(
        store,
        {"blobs_labels": "blobs_image"},
        {"blobs_labels": "turned"},
        tile_dim_in_units=20,
        rasterize=True,
        table_name="notes",
        return_annotations=["area", "layers/counts/CD8", "obsm/where"],
        output="region",
        tile_size=10,
        interpolation="linear",
    )
    seen = []
    for batch in mt.TileLoader(dataset, batch_size=4, seed=1):
        for told in batch.additional_metadata:
            instance = told["instance_id"]
            seen.append(instance)
            assert told["annotations"] == [
                instance * 10, instance * 2, instance, -instance, instance * 0.5
            ]  # fmt: skip
    assert sorted(seen) == sorted(dataset.dataset_index["instance_id"])


def test_the_level_that_suits(store):
    dataset = ImageTilesDataset(
        store,
        {"blobs_circles": "blobs_multiscale_image"},
        {"blobs_circles": "shifted"},
        tile_dim_in_units=1,
        output="region",
        tile_size=7,
        pixel_size=9,
    )
    # A pixel of the finest level is 4 units, one of the next 8, and of the last 16.
    item = dataset[0]
    assert item.additional_metadata["level"] == 1
    level = fresh()["blobs_multiscale_image"]["scale1"]["image"].values
    x, y = dataset.tiles_coords[["x", "y"]].to_numpy()[0]
    row, column = int(np.floor((y + 3) / 8 - 3)), int(np.floor((x - 7) / 8 - 3))
    padded = np.pad(level, ((0, 0), (8, 8), (8, 8)))
    expected = padded[:, row + 8 : row + 15, column + 8 : column + 15]
    np.testing.assert_array_equal(item.data, expected)


@pytest.mark.parametrize("region", [*REGIONS, "blobs_points"])
@pytest.mark.parametrize("system", ["shifted", "turned"])
def test_a_store_is_what_is_read_of_it(store, region, system):
    opened = spatialdata.read_zarr(store)
    arguments = {region: "blobs_image"}, {region: system}
    direct = ImageTilesDataset(store, *arguments, tile_dim_in_units=15)
    loaded = ImageTilesDataset(opened, *arguments, tile_dim_in_units=15)
    assert direct.dataset_index.equals(loaded.dataset_index)
    np.testing.assert_allclose(direct.tiles_coords, loaded.tiles_coords)
    # Not one task of dask: both read the store with our engine.
    assert all(
        type(d._pairs[0].picture.image.level(0).array).__name__ == "StoredArray"
        for d in (direct, loaded)
    )
    np.testing.assert_array_equal(direct[0]["blobs_image"].values, loaded[0]["blobs_image"].values)


def _first_pixels(dataset, rows):
    return [float(dataset[row].data.sum()) for row in rows]


def test_spawned_workers(store):
    dataset = ImageTilesDataset(
        store,
        {"blobs_labels": "blobs_image"},
        {"blobs_labels": "global"},
        tile_dim_in_units=9,
        output="region",
        tile_size=9,
    )
    assert len(pickle.dumps(dataset)) < 10_000
    rows = list(range(len(dataset)))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        found = pool.submit(_first_pixels, dataset, rows).result()
    assert found == _first_pixels(dataset, rows)


def test_volumes():
    sdata = fresh()
    pixels = np.random.default_rng(1).integers(0, 2**16, (2, 5, 160, 160), np.uint16)
    sdata["volume"] = Image3DModel.parse(pixels, dims=("c", "z", "y", "x"))
    arguments = {"blobs_labels": "volume"}, {"blobs_labels": "global"}
    tile = ImageTilesDataset(sdata, *arguments, tile_dim_in_units=16)[3]["volume"]
    peer = Peer(sdata, *arguments, tile_dim_in_units=16)[3]["volume"]
    np.testing.assert_array_equal(tile.values, peer.values)
    region = ImageTilesDataset(
        sdata, *arguments, tile_dim_in_units=16, output="region", tile_size=16
    )[3]
    assert region.data.shape == (2, 5, 16, 16)


def test_ten_to_the_five_circles_are_columns():
    rng = np.random.default_rng(0)
    sdata = blobs(length=64)
    sdata["many"] = ShapesModel.parse(rng.uniform(0, 64, (100_000, 2)), geometry=0, radius=1.0)
    dataset = ImageTilesDataset(sdata, {"many": "blobs_image"}, {"many": "global"})
    assert len(dataset) == 100_000
    sdata["few"] = sdata["many"].iloc[:5000]
    few = ImageTilesDataset(sdata, {"few": "blobs_image"}, {"few": "global"}, tile_dim_in_units=9)
    # Columns alone; the small image in memory has its pixels with it.
    assert len(pickle.dumps(few._plan)) < 100_000
    x, y = dataset.tiles_coords[["x", "y"]].to_numpy()[77]
    shape = sdata["many"].geometry.iloc[77]
    assert (x, y) == (shape.x, shape.y)


def test_a_tile_outside_the_image_is_named_or_padded():
    sdata = blobs(length=64)
    sdata["far"] = ShapesModel.parse(np.array([[-90.0, 20.0]]), geometry=0, radius=4.0)
    arguments = {"far": "blobs_image"}, {"far": "global"}
    dataset = ImageTilesDataset(sdata, *arguments)
    with pytest.raises(ValueError, match="tile 0, of instance 0 of 'far', lies outside"):
        dataset[0]
    padded = ImageTilesDataset(sdata, *arguments, output="region", tile_size=8, padding=7)[0]
    assert (padded.data == 7).all()


def test_a_category_is_an_array():
    dataset = ImageTilesDataset(
        with_table(fresh(), "blobs_labels"),
        {"blobs_labels": "blobs_image"},
        {"blobs_labels": "global"},
        tile_dim_in_units=9,
        table_name="notes",
        return_annotations="type",
    )
    instance = dataset.dataset_index["instance_id"][2]
    assert dataset[2][1].tolist() == [["odd" if instance % 2 else "even"]]


def test_rows_of_a_table_are_those_of_anndata():
    from scipy import sparse

    from microtome.interop._rows import TableRows

    sdata = with_table(fresh(), "blobs_labels")
    table = sdata.tables["notes"]
    table.X = sparse.csr_matrix(table.X)
    table.uns["of"] = {"a": [1, 2]}
    table.varm["v"] = np.arange(4.0).reshape(2, 2)
    for change in ("none", "colors", "obsp"):
        if change == "colors":
            table.uns["type_colors"] = ["#000000", "#ffffff"]
        elif change == "obsp":
            table.obsp["near"] = sparse.eye(len(table), format="csr")
        row = TableRows(table).row(3)
        expected = table[3].copy()
        del expected.uns["spatialdata_attrs"]
        assert not row.is_view
        assert row.obs.equals(expected.obs)
        assert [str(row.obs[c].dtype) for c in row.obs] == [str(d) for d in expected.obs.dtypes]
        assert row.var.equals(expected.var)
        assert row.uns.keys() == expected.uns.keys()
        np.testing.assert_array_equal(row.X.toarray(), expected.X.toarray())
        for part in ("obsm", "layers", "varm", "obsp"):
            ours, theirs = getattr(row, part), getattr(expected, part)
            assert ours.keys() == theirs.keys()
            for key in theirs:
                np.testing.assert_array_equal(_plain(ours[key]), _plain(theirs[key]))
        # Nothing of it is the table's.
        row.obsm["where"][:] = 0
        row.uns["of"]["a"].append(3)
        assert table.obsm["where"].any()
        assert table.uns["of"]["a"] == [1, 2]


def _plain(values):
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values)


def test_pixels_of_an_item_are_there_and_dask_as_well(sample):
    dataset = ImageTilesDataset(
        sample, {"blobs_circles": "blobs_image"}, {"blobs_circles": "global"}, tile_dim_in_units=9
    )
    item = dataset[1]
    tile = item["blobs_image"]
    assert is_dask_collection(tile.data)
    pixels = tile.values
    assert np.shares_memory(pixels, tile.values)
    np.testing.assert_array_equal(tile.data.compute(), pixels)
    np.testing.assert_array_equal((tile + 1).values, pixels + 1)
    np.testing.assert_array_equal(np.asarray(tile.data, np.float32), pixels.astype(np.float32))
    again = pickle.loads(pickle.dumps(tile))
    np.testing.assert_array_equal(again.values, pixels)
    # Items have names of their own in dask, and may be computed together.
    both = [dataset[row]["blobs_image"].data.sum() for row in (0, 1)]
    assert [int(part.compute()) for part in both] == [
        int(dataset[row]["blobs_image"].values.sum()) for row in (0, 1)
    ]
