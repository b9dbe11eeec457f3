"""Images, labels and cells into SpatialData, onto its disk, and back: same pixels, same places."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

import microtome as mt
from microtome.interop import ImageTilesDataset, from_spatialdata, to_spatialdata

with warnings.catch_warnings():
    # What it imports warns of its own future, and of a config file that is not there.
    warnings.simplefilter("ignore")
    spatialdata = pytest.importorskip(
        "spatialdata", reason="needs a spatialdata that can be imported", exc_type=ImportError
    )
    anndata = pytest.importorskip("anndata")
    pd = pytest.importorskip("pandas")
    from spatialdata.dataloader import ImageTilesDataset as Peer
    from spatialdata.datasets import blobs
    from spatialdata.models import ShapesModel, TableModel
    from spatialdata.transformations import Affine, get_transformation, set_transformation

# Its own calls of what it is built on, not ours.
pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

MIBI = Path(__file__).parents[3] / "shared" / "data" / "mibi"
RNG = np.random.default_rng(4)


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "a.ome.zarr"
    with mt.MultiscaleImage.create(
        path,
        type="uint16",
        level_shape=(2, 201, 333),
        channel_names=["DNA", "CD3"],
        mpp=(0.5, 0.25),
    ) as made:
        made["level0"][...] = RNG.integers(0, 2**16, (2, 201, 333), np.uint16)
        made.build_levels()
    return mt.open_image(path)


def labels_of(image):
    pixels = np.zeros(image.level(0).shape[-2:], np.int32)
    for number, (y, x) in enumerate([(30, 40), (100, 300), (150, 77)], start=4):
        pixels[y - 5 : y + 6, x - 7 : x + 8] = number
    return mt.open_image(pixels, mpp=image.mpp)


def test_there_and_back(image, tmp_path):
    cells = pd.DataFrame({"cell_id": [6, 4, 5], "area": [1.5, 2.5, 3.5]})
    sdata = to_spatialdata({"he": image}, labels={"cells": labels_of(image)}, cells=cells)
    path = tmp_path / "b.zarr"
    sdata.write(path)
    again = spatialdata.read_zarr(path)
    back = from_spatialdata(again, "he", system="global")
    assert back.level_count == image.level_count
    assert back.channel_names == image.channel_names
    assert (back.mpp.y, back.mpp.x) == (0.5, 0.25)
    for index in range(image.level_count):
        np.testing.assert_array_equal(back.level(index)[...], image.level(index)[...])
    np.testing.assert_allclose(back.level(0).translation, image.level(0).translation)
    matrix = get_transformation(again["he"], "global").to_affine_matrix(("x", "y"), ("x", "y"))
    # The centre of pixel 0 is the origin of ours.
    np.testing.assert_allclose(matrix @ [40.5, 30.5, 1], [10, 15, 1])
    dataset = ImageTilesDataset(
        path,
        {"cells": "he"},
        {"cells": "global"},
        tile_dim_in_units=4,
        table_name="table",
        return_annotations="area",
    )
    assert dataset.dataset_index["instance_id"].tolist() == [4, 5, 6]
    assert [dataset[row][1].item() for row in range(3)] == [2.5, 3.5, 1.5]
    # 4 um are 8 rows of 0.5 and 16 columns of 0.25; the centre of the cell is that of pixel (30, 40),
    # so that both ends lie on centres.
    np.testing.assert_array_equal(dataset[0][0].values, image.level(0)[:, 26:35, 32:49])


def test_what_has_no_pixel_size_is_refused():
    sdata = blobs(length=64)
    turned = Affine([[0, 1, 0], [1, 0, 0], [0, 0, 1]], ("x", "y"), ("x", "y"))
    set_transformation(sdata["blobs_image"], turned, "turned")
    with pytest.raises(mt.MicrotomeError, match="turned, sheared or mirrored"):
        from_spatialdata(sdata, "blobs_image", system="turned")
    with pytest.raises(mt.MicrotomeError, match="not in coordinate system"):
        from_spatialdata(sdata, "blobs_image", system="nowhere")
    assert from_spatialdata(sdata, "blobs_image").mpp is None


def test_what_does_not_fit_is_refused(image):
    cells = pd.DataFrame({"cell_id": [4]})
    with pytest.raises(mt.MicrotomeError, match="has axes 'cyx'"):
        to_spatialdata({}, labels={"cells": image})
    with pytest.raises(mt.MicrotomeError, match="cells_of must name the labels"):
        to_spatialdata({"he": image}, cells=cells)
    with pytest.raises(mt.MicrotomeError, match="need a column 'cell_id'"):
        to_spatialdata(
            {"he": image}, labels={"cells": labels_of(image)}, cells=cells.rename(columns=str.upper)
        )


@pytest.mark.skipif(not MIBI.is_dir(), reason="needs the real images of shared/data")
def test_cells_of_a_mibi_field(tmp_path):
    (field,) = MIBI.glob("fov8_RowNumber*.tiff")
    image = mt.open_image(field)
    mask = mt.open_image(MIBI / "fov8_whole_cell_mask.tiff")
    pixels = np.asarray(mask.level(0)[...]).reshape(1024, 1024)
    labels = mt.open_image(pixels.astype(np.int32), mpp=image.mpp)
    sdata = to_spatialdata({"mibi": image}, labels={"cells": labels})
    # The peer cuts around the same cells, found by another library, as circles.
    values = np.unique(pixels)[1:]
    centres = np.array(ndimage.center_of_mass(pixels > 0, pixels, values))[:, ::-1] + 0.5
    to_global = get_transformation(sdata["mibi"], "global").to_affine_matrix(("x", "y"), ("x", "y"))
    places = centres @ to_global[:2, :2].T + to_global[:2, 2]
    sdata["spots"] = ShapesModel.parse(places, geometry=0, radius=1.0, index=values)
    sdata.write(tmp_path / "mibi.zarr")
    opened = spatialdata.read_zarr(tmp_path / "mibi.zarr")
    ours = ImageTilesDataset(
        tmp_path / "mibi.zarr", {"cells": "mibi"}, {"cells": "global"}, tile_dim_in_units=12
    )
    peer = Peer(opened, {"spots": "mibi"}, {"spots": "global"}, tile_dim_in_units=12)
    assert len(ours) == len(peer) == 272
    columns = ["x", "y", "extent", "minx", "miny", "maxx", "maxy"]  # 0.8 has one of slices, too
    np.testing.assert_allclose(ours.tiles_coords[columns], peer.tiles_coords[columns])
    assert ours.dataset_index["instance_id"].tolist() == values.tolist()
    for index in range(0, 272, 17):
        np.testing.assert_array_equal(ours[index]["mibi"].values, peer[index]["mibi"].values)


@pytest.fixture(scope="module")
def field():
    """A field of MIBI with its cells as circles and polygons, and a table of the latter."""
    if not MIBI.is_dir():
        pytest.skip("needs the real images of shared/data")
    import geopandas
    import shapely

    (path,) = MIBI.glob("fov8_RowNumber*.tiff")
    image = mt.open_image(path)
    mask = np.asarray(mt.open_image(MIBI / "fov8_whole_cell_mask.tiff").level(0)[...])
    mask = mask.reshape(1024, 1024)
    sdata = to_spatialdata({"mibi": image})
    values = np.unique(mask)[1:]
    hulls = []
    for label, (rows, columns) in zip(values, ndimage.find_objects(mask), strict=True):
        y, x = np.nonzero(mask[rows, columns] == label)
        corners = np.stack([x + columns.start, y + rows.start], axis=1).astype(float)
        around = corners[:, None] + np.array([[0, 0], [1, 1], [0, 1], [1, 0]])
        hulls.append(shapely.MultiPoint(around.reshape(-1, 2)).convex_hull)
    place = get_transformation(sdata["mibi"], "global")
    frame = geopandas.GeoDataFrame(geometry=hulls, index=values)
    sdata["polygons"] = ShapesModel.parse(frame, transformations={"global": place})
    centres = np.array([[hull.centroid.x, hull.centroid.y] for hull in hulls])
    radii = np.sqrt([hull.area / np.pi for hull in hulls])
    sdata["circles"] = ShapesModel.parse(
        centres, geometry=0, radius=radii, index=values, transformations={"global": place}
    )
    for region in ("polygons", "circles"):
        table = anndata.AnnData(values[::-1, None] * np.float32([1, 2]))
        table.obs["region"] = pd.Categorical([region] * len(values))
        table.obs["cell_id"] = values[::-1].astype(np.int64)
        table.obs["area"] = radii[::-1]
        sdata[f"table_{region}"] = TableModel.parse(
            table, region=region, region_key="region", instance_key="cell_id"
        )
    return sdata


@pytest.mark.parametrize("names", [None, ["area", "cell_id"], ["0", "1"]], ids=["none", "obs", "X"])
@pytest.mark.parametrize("side", [12, 15.7])
@pytest.mark.parametrize("region", ["polygons", "circles"])
def test_tiles_of_real_cells_are_those_of_spatialdata(field, region, side, names):
    options = {
        "tile_dim_in_units": side,
        "table_name": f"table_{region}",
        "return_annotations": names,
    }
    arguments = {region: "mibi"}, {region: "global"}
    ours = ImageTilesDataset(field, *arguments, **options)
    peer = Peer(field, *arguments, **options)
    assert len(ours) == len(peer) == 272
    columns = ["x", "y", "extent", "minx", "miny", "maxx", "maxy"]
    np.testing.assert_allclose(ours.tiles_coords[columns], peer.tiles_coords[columns])
    assert ours.dataset_index["instance_id"].tolist() == peer.dataset_index["instance_id"].tolist()
    for index in range(0, 272, 23):
        mine, theirs = ours[index], peer[index]
        if names is None:
            np.testing.assert_array_equal(mine["mibi"].values, theirs["mibi"].values)
            name = f"table_{region}"
            assert mine[name].obs["cell_id"].tolist() == theirs[name].obs["cell_id"].tolist()
            continue
        np.testing.assert_array_equal(mine[0].values, theirs[0].values)
        np.testing.assert_array_equal(mine[1], np.asarray(theirs[1]))
