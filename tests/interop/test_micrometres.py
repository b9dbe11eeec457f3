"""The same cell has the same micrometre in every table: counted from the upper left edge of its image."""

from __future__ import annotations

import json
import warnings

import anndata
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import microtome as mt
from microtome.cohort import CohortLayout, add_cell_masks, add_cells, ingest, tile
from microtome.coordinates import MicrometreGrid
from microtome.errors import FormatError, InvalidInputError
from microtome.interop import (
    cell_objects,
    cells_from_spatialdata,
    cells_to_anndata,
    from_spatialdata,
    napari_layers,
    napari_tiles,
    tile_objects,
    tiles_to_anndata,
    to_spatialdata,
    write_qupath,
    write_tiles_parquet,
)
from microtome.prediction import CellCrops, embed_tiles, pool_labels, vectors_to_anndata
from microtome.regions import region_bounds

SHAPE, MPP, CELL = (240, 320), (0.5, 0.25), (10, 6)
# Upper left pixels of cells at level 0, even, so that the same cells are whole pixels at level 1.
CORNERS = np.array([[0, 0], [0, 314], [42, 60], [120, 14], [230, 314], [200, 150]])
IDS = np.array([3, 4, 10, 11, 200, 7])
# In micrometres from the upper left edge, (y, x): worked out by hand from the edges of the cells.
PLACES = np.array([[(row + 5) * 0.5, (col + 3) * 0.25] for row, col in CORNERS.tolist()])
ORDER = np.argsort(IDS)


def labels_at(level):
    step = 2**level
    made = np.zeros((SHAPE[0] // step, SHAPE[1] // step), np.uint16)
    for (row, col), label in zip((CORNERS // step).tolist(), IDS.tolist(), strict=True):
        made[row : row + CELL[0] // step, col : col + CELL[1] // step] = label
    return made


def at(table):
    return np.stack([np.asarray(table["centroid_y"]), np.asarray(table["centroid_x"])], axis=1)


def mean(batch):
    return np.asarray(batch, np.float32).mean((2, 3))


@pytest.fixture(params=[(0.0, 0.0), (37.25, -11.5)], ids=["at 0", "elsewhere"])
def image(request, tmp_path):
    """An image of two channels with three levels, whose first middle lies at some place in OME-NGFF."""
    path = tmp_path / "t1.ome.zarr"
    pixels = np.random.default_rng(0).integers(0, 255, (2, *SHAPE)).astype(np.uint8)
    with mt.MultiscaleImage.create(
        path,
        type="uint8",
        level_shape=pixels.shape,
        mpp=MPP,
        translation=request.param,
        channel_names=["DNA", "CD3"],
    ) as made:
        made["level0"][...] = pixels
        made.build_levels()
    return mt.open_image(path)


@pytest.mark.parametrize("level", [0, 1])
def test_vectors_of_cells_and_crops_around_them(image, tmp_path, level):
    pytest.importorskip("anndata")
    labels = mt.open_image(labels_at(level), axes="yx")
    pooled = pool_labels(image, labels, tmp_path / "p.parquet", tissue_id="t1", level=level)
    means = pq.read_table(pooled)
    assert means["cell_id"].to_pylist() == IDS[ORDER].tolist()
    np.testing.assert_array_equal(at(means), PLACES[ORDER])

    # A cell is 10 x 6 pixels, then 5 x 3: a crop of even sides lies on its middle, then one of odd.
    size = 8 - level
    crops = CellCrops(image, at(means), means["cell_id"].to_pylist(), size=size, level=level)
    batch = crops.read_batch(np.arange(len(crops)))
    boxes = region_bounds(batch)
    np.testing.assert_array_equal((boxes[:, [1, 0]] + boxes[:, [3, 2]]) / 2, PLACES[ORDER])
    base = image.level(0)
    grid = MicrometreGrid.of_level(image.level(level), base)
    world = region_bounds(batch, space="world")
    np.testing.assert_allclose(
        (world[:, [1, 0]] + world[:, [3, 2]]) / 2, grid.to_ngff(PLACES[ORDER])
    )
    first = np.asarray(base.translation[-2:]) - np.asarray(MPP) / 2
    np.testing.assert_array_equal(grid.to_ngff([0, 0]), first)

    vectors = embed_tiles(mean, crops, tmp_path / "v.parquet", batch_size=4)
    np.testing.assert_array_equal(at(pq.read_table(vectors)), PLACES[ORDER])
    for table in (vectors, pooled):
        made = vectors_to_anndata(table)
        np.testing.assert_array_equal(made.obsm["spatial"], PLACES[ORDER][:, ::-1])
        assert made.uns["microtome"]["micrometres_from"] == "upper left edge of the image"
        assert made.uns["microtome"]["spatial_unit"] == "micrometer"


def test_crops_of_any_size_lie_around_the_cell(image):
    rng = np.random.default_rng(3)
    places = rng.uniform(0, (SHAPE[0] * MPP[0], SHAPE[1] * MPP[1]), (200, 2))
    for level, size in ((0, 5), (1, (8, 3)), (2, 4)):
        boxes = region_bounds(
            CellCrops(image, places, size=size, level=level).read_batch(np.arange(200))
        )
        off = (boxes[:, [1, 0]] + boxes[:, [3, 2]]) / 2 - places
        assert (np.abs(off) <= np.asarray(MPP) * 2**level / 2 + 1e-5).all()


@pytest.fixture
def study(image, tmp_path):
    """A cohort of the same pixels, whose table of cells is what was pooled."""
    root = tmp_path / "study"
    ingest(
        image,
        cohort=root,
        tissue_id="t1",
        modality="imc",
        resolution=MPP,
    )
    add_cell_masks(root, "t1", labels_at(0), mpp=MPP)
    pooled = pool_labels(
        image, mt.open_image(labels_at(0), axes="yx"), tmp_path / "cells.parquet", tissue_id="t1"
    )
    assert add_cells(root, pooled) == len(IDS)
    mask = CohortLayout.open(root).tissue_mask(mt.Resolution.parse(MPP), "t1")
    with mt.MultiscaleImage.create(
        mask, type="uint8", level_shape=SHAPE, has_channel_axis=False, mpp=MPP, kind="labels"
    ) as made:
        made["level0"][...] = np.ones(SHAPE, np.uint8)
        made.build_levels()
    return root


def test_a_cohort_and_what_is_made_of_it(study, image, tmp_path):
    cells = pq.read_table(study / "metadata/cells.parquet")
    np.testing.assert_array_equal(at(cells), PLACES[ORDER])
    np.testing.assert_array_equal(cells_to_anndata(cells).obsm["spatial"], PLACES[ORDER][:, ::-1])

    tiles = tile(study, tile_size=8, method="cells", resolution=MPP)
    order = np.argsort(np.asarray(tiles.table["cell_id"]))
    np.testing.assert_array_equal(
        tiles_to_anndata(tiles).obsm["spatial"][order], PLACES[ORDER][:, ::-1]
    )
    dataset = mt.MultiplexImagingDataset(
        "study",
        "imc",
        path=study,
        resolution=MPP,
        tile_size=8,
        tile_strategy="cells",
        standardization="identity",
    )
    vectors = pq.read_table(embed_tiles(mean, dataset, tmp_path / "v.parquet"))
    placed = dict(zip(vectors["tile_id"].to_pylist(), at(vectors).tolist(), strict=True))
    found = [placed[number] for number in tiles.table["tile_id"].to_pylist()]
    np.testing.assert_array_equal(np.array(found)[order], PLACES[ORDER])

    # Of the image wherever it lies: its tiles are counted from its edge.
    rows = pq.read_table(write_tiles_parquet({"t1": image}, tiles, tmp_path / "t.parquet"))
    middle = np.stack([rows["y"], rows["x"]], 1) + 4 * np.asarray(MPP)
    np.testing.assert_array_equal(middle[order], PLACES[ORDER])


def test_objects_of_qupath(study, tmp_path):
    cells = pq.read_table(study / "metadata/cells.parquet")
    tiles = tile(study, tile_size=8, method="cells", resolution=MPP)
    drawn = cell_objects(mt.open_image(labels_at(0), axes="yx"), cells=cells)
    outlined = json.loads(write_qupath(drawn, tmp_path / "c.geojson").read_text())["features"]
    assert len(outlined) == len(IDS)
    for feature in outlined:
        ring = np.array(feature["geometry"]["coordinates"][0])
        middle = (ring.min(0) + ring.max(0)) / 2 * MPP[::-1]
        told = feature["properties"]["measurements"]
        expected = PLACES[IDS.tolist().index(told["cell_id"])][::-1]
        np.testing.assert_array_equal(middle, expected)
        np.testing.assert_array_equal([told["centroid_x"], told["centroid_y"]], expected)
    # On a slide of finer pixels, four times and twice as many.
    for one in tile_objects(tiles, scale=(4, 2)):
        ring = one.polygons[0][0]
        middle = (ring.min(0) + ring.max(0)) / 2 * (0.125, 0.125)
        expected = PLACES[IDS.tolist().index(int(one.measurements["cell_id"]))][::-1]
        np.testing.assert_array_equal(middle, expected)


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore")
def test_spatialdata_places_cells_as_far_from_the_edge(study, image):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spatialdata = pytest.importorskip("spatialdata", exc_type=ImportError)
        from spatialdata.transformations import get_transformation
    tiles = tile(study, tile_size=8, method="cells", resolution=MPP)
    base = image.level(0)
    labels = mt.open_image(labels_at(0), axes="yx", mpp=MPP)
    object_ = to_spatialdata(
        {"t1": image},
        labels={"cells": labels},
        cells=pq.read_table(study / "metadata/cells.parquet").to_pandas(),
        tiles=tiles,
    )
    grid = MicrometreGrid.of_level(base, base)
    # `global` is the space of the file; from the image's edge, everything is where its table says.
    shapes = spatialdata.transform(object_["t1_tiles"], to_coordinate_system="global")
    middles = np.stack([shapes.geometry.centroid.y, shapes.geometry.centroid.x], axis=1)
    order = np.argsort(np.asarray(tiles.table["cell_id"]))
    np.testing.assert_allclose(grid.places_of_ngff(middles)[order], PLACES[ORDER], atol=1e-9)
    matrix = get_transformation(object_["t1"]).to_affine_matrix(("y", "x"), ("y", "x"))
    np.testing.assert_allclose(matrix[:2, 2], grid.to_ngff([0, 0]))
    own = spatialdata.get_centroids(object_["cells"], coordinate_system="global").compute()
    where = own.loc[IDS[ORDER]][["y", "x"]].to_numpy()
    unmoved = MicrometreGrid.from_mpp(MPP)
    np.testing.assert_allclose(unmoved.places_of_ngff(where), PLACES[ORDER], atol=1e-9)
    np.testing.assert_array_equal(at(cells_from_spatialdata(object_)), PLACES[ORDER])

    # Or it is the space of the tables itself.
    object_ = to_spatialdata(
        {"t1": image},
        labels={"cells": labels},
        cells=pq.read_table(study / "metadata/cells.parquet").to_pandas(),
        tiles=tiles,
        from_edge=True,
    )
    shapes = spatialdata.transform(object_["t1_tiles"], to_coordinate_system="global")
    middles = np.stack([shapes.geometry.centroid.y, shapes.geometry.centroid.x], axis=1)
    np.testing.assert_allclose(middles[order], PLACES[ORDER], atol=1e-9)
    own = spatialdata.get_centroids(object_["cells"], coordinate_system="global").compute()
    np.testing.assert_allclose(own.loc[IDS[ORDER]][["y", "x"]].to_numpy(), PLACES[ORDER], atol=1e-9)
    table = object_["table"].obs
    np.testing.assert_allclose(
        table[["centroid_y", "centroid_x"]].to_numpy(), own.loc[table["cell_id"]][["y", "x"]]
    )
    back = from_spatialdata(object_, "t1", system="global")
    for level in range(image.level_count):
        grid = MicrometreGrid.of_level(back.level(level), back.level(0))
        np.testing.assert_allclose(grid.to_ngff([0.0, 0.0]), 0, atol=1e-12)
        np.testing.assert_allclose(grid.size, np.asarray(MPP) * 2**level)


@pytest.mark.parametrize("resolution", ["0_5x0_25mpp", "1_0x0_5mpp"])
def test_tiles_lie_on_the_layers_of_an_image_in_napari(image, resolution):
    size = mt.Resolution.parse(resolution).mpp
    tiles = mt.TileTable.from_columns(
        {"tissue_id": ["t1", "t1"], "row": [0, 13], "col": [7, -2]},
        tile_size=(16, 10),
        strategy="grid",
        resolution=resolution,
    )
    shapes, options, _ = napari_tiles(tiles, image=image)
    # As napari has it: places of data, where whole numbers are the middles of pixels, in the world.
    world = np.asarray(shapes) * options["scale"] + options["translate"]
    _, layer, _ = napari_layers(image)[0]
    edge = np.asarray(layer["translate"]) - np.asarray(layer["scale"]) / 2
    expected = np.array([[0, 7], [13, -2]]) * size
    np.testing.assert_allclose(world.min(axis=1) - edge, expected, atol=1e-9)
    np.testing.assert_allclose(world.max(axis=1) - edge, expected + np.array([16, 10]) * size)
    nameless = mt.TileTable(tiles.table, tiles.tile_size, "grid")
    with pytest.raises(InvalidInputError, match="give mpp="):
        napari_tiles(nameless, image=image)
    again, same, _ = napari_tiles(nameless, image=image, mpp=mt.Mpp(*size, "user"))
    np.testing.assert_array_equal(again, shapes)
    assert (same["scale"], same["translate"]) == (options["scale"], options["translate"])


def older(path, image, tmp_path):
    """A table as microtome wrote it before: from the middle of the first pixel, and silent on it."""
    table = pq.read_table(
        pool_labels(
            image, mt.open_image(labels_at(0), axes="yx"), tmp_path / "new.parquet", tissue_id="t1"
        )
    )
    note = json.loads(table.schema.metadata[b"microtome"])
    del note["micrometres_from"]
    note["version"] = 1
    grid = MicrometreGrid.of_level(image.level(0), image.level(0))
    for axis, values in zip("yx", grid.to_ngff(at(table)).T, strict=True):
        place = table.column_names.index(f"centroid_{axis}")
        table = table.set_column(place, f"centroid_{axis}", pa.array(values))
    pq.write_table(table.replace_schema_metadata({b"microtome": json.dumps(note).encode()}), path)
    return path


def test_tables_of_an_earlier_microtome_say_what_they_count_from(study, image, tmp_path):
    table = older(tmp_path / "old.parquet", image, tmp_path)
    stored = at(pq.read_table(table))
    for made in (
        vectors_to_anndata(table, tmp_path / "old.h5ad"),
        anndata.read_h5ad(tmp_path / "old.h5ad"),
        cells_to_anndata(table),
    ):
        np.testing.assert_array_equal(made.obsm["spatial"], stored[:, ::-1])
        assert "OME-NGFF" in made.uns["microtome"]["micrometres_from"]
    # Places come from the cohort's cells there, and the vectors have none of their own.
    cells = study / "metadata/cells.parquet"
    made = cells_to_anndata(cells, vectors=table)
    np.testing.assert_array_equal(made.obsm["spatial"], PLACES[ORDER][:, ::-1])
    assert made.uns["microtome"]["micrometres_from"] == "upper left edge of the image"
    before = cells.read_bytes()
    for given in (table, pq.read_table(table)):
        with pytest.raises(FormatError, match="earlier microtome, whose centroids count from"):
            add_cells(study, given, overwrite=True)
    assert cells.read_bytes() == before
    # Without its places it is a table like any other.
    rest = pq.read_table(table).drop(["centroid_y", "centroid_x"])
    assert add_cells(study, rest) == 0
