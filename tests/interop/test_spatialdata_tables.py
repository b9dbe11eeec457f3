"""Tiles and cells as elements and tables of SpatialData, onto its disk, and back."""

from __future__ import annotations

import warnings

import numpy as np
import pyarrow as pa
import pytest

import microtome as mt
from microtome.errors import FormatError, InvalidInputError, UnknownNameError
from microtome.interop import (
    ImageTilesDataset,
    cells_from_spatialdata,
    tiles_from_spatialdata,
    to_spatialdata,
)
from microtome.tiling import TileTable

with warnings.catch_warnings():
    # What it imports warns of its own future, and of a config file that is not there.
    warnings.simplefilter("ignore")
    spatialdata = pytest.importorskip(
        "spatialdata", reason="needs a spatialdata that can be imported", exc_type=ImportError
    )
    anndata = pytest.importorskip("anndata")
    pd = pytest.importorskip("pandas")
    shapely = pytest.importorskip("shapely")
    from spatialdata.transformations import get_transformation

# Its own calls of what it is built on, not ours.
pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

RNG = np.random.default_rng(8)
PIXELS = RNG.integers(0, 2**16, (2, 301, 233), np.uint16)
CELLS = pd.DataFrame(
    {"cell_id": [6, 4, 5], "area": [1.5, np.nan, 3.5], "type": pd.Categorical(["T", "B", "T"])}
)


def image_of(path, name, mpp=(0.5, 0.25)):
    with mt.MultiscaleImage.create(
        path / name,
        type="uint16",
        level_shape=PIXELS.shape,
        channel_names=["DNA", "CD3"],
        mpp=mpp,
    ) as made:
        made["level0"][...] = PIXELS
        made.build_levels()
    return mt.open_image(path / name)


def labels():
    pixels = np.zeros(PIXELS.shape[1:], np.int32)
    for number, (y, x) in enumerate([(30, 40), (100, 200), (150, 77)], start=4):
        pixels[y - 5 : y + 6, x - 7 : x + 8] = number
    return mt.open_image(pixels, mpp=(0.5, 0.25))


TILES = TileTable.from_columns(
    {
        # Not sorted by tissue: the order is that of reading.
        "tissue_id": ["b", "a", "b", "a", "a"],
        "tile_id": [7, 1, 3, 2, 0],
        "row": [0, 16, -8, 200, 31],
        "col": [5, 0, 12, 77, 100],
        "tissue_frac": np.array([0.1, 0.25, 1, 0.5, 0.75], np.float32),
        "gain": pa.array([1, None, 3, 2**60 + 1, 5]),
        "stain": pa.array(["x", "y", None, "x", "z"]),
        "kept": [True, False, True, True, False],
    },
    tile_size=(32, 64),
    strategy="grid",
    resolution="1_0mpp",
)


def assert_same(back, tiles):
    assert (back.tile_size, back.strategy, back.resolution) == (
        tiles.tile_size,
        tiles.strategy,
        tiles.resolution,
    )
    assert sorted(back.table.column_names) == sorted(tiles.table.column_names)
    for name in tiles.table.column_names:
        assert back.table[name].to_pylist() == tiles.table[name].to_pylist(), name
        assert back.table[name].type == tiles.table[name].type, name


@pytest.mark.parametrize("stored", [False, True])
def test_tiles_of_two_images_come_back_column_by_column(tmp_path, stored):
    images = {name: image_of(tmp_path, f"{name}.ome.zarr") for name in "ab"}
    sdata = to_spatialdata(images, tiles=TILES)
    if stored:
        sdata.write(tmp_path / "s.zarr")
        sdata = spatialdata.read_zarr(tmp_path / "s.zarr")
    assert sorted(sdata.shapes) == ["a_tiles", "b_tiles"]
    assert_same(tiles_from_spatialdata(sdata), TILES)
    # Rows go with squares as spatialdata itself joins them.
    joined, rows = spatialdata.join_spatialelement_table(
        sdata=sdata, spatial_element_names="a_tiles", table_name="tiles", how="left"
    )
    assert rows.obs["tile_id"].tolist() == [1, 2, 0]
    corners = [square.bounds for square in joined["a_tiles"].geometry]
    assert corners == [(0, 16, 64, 48), (77, 200, 141, 232), (100, 31, 164, 63)]


@pytest.mark.parametrize("mpp", [(0.5, 0.25), None])
@pytest.mark.parametrize("level", [0, "level1"])
def test_squares_lie_on_the_pixels_of_their_level(tmp_path, level, mpp):
    image = image_of(tmp_path, "a.ome.zarr", mpp)
    tiles = TileTable.from_columns(
        {"tissue_id": "a", "row": [0, 16, 60], "col": [5, 0, 30]}, tile_size=24, strategy="grid"
    )
    path = tmp_path / "s.zarr"
    to_spatialdata({"a": image}, tiles=tiles, tiles_level=level, system="slide").write(path)
    sdata = spatialdata.read_zarr(path)
    assert_same(tiles_from_spatialdata(sdata), tiles)
    dataset = ImageTilesDataset(
        path,
        {"a_tiles": "a"},
        {"a_tiles": "slide"},
        tile_dim_in_units=1,
        table_name="tiles",
        return_annotations="tile_id",
        output="region",
        tile_size=24,
        # The coarser side of the pixels of that level, in units.
        pixel_size=301 / image.level(level).shape[1] * (0.5 if mpp else 1),
    )
    pixels = image.level(level)[...]
    for row, (top, left) in enumerate([(0, 5), (16, 0), (60, 30)]):
        expected = pixels[:, top : top + 24, left : left + 24]
        np.testing.assert_array_equal(dataset[row].data, expected)
        assert dataset[row].additional_metadata["annotations"] == [row]
    # Where spatialdata has the corner of the image is that of the level.
    (_, height, width), axes = pixels.shape, ("x", "y")
    to_slide = [
        get_transformation(sdata[name], "slide").to_affine_matrix(axes, axes)
        for name in ("a_tiles", "a")
    ]
    np.testing.assert_allclose(to_slide[0] @ [width, height, 1], to_slide[1] @ [233, 301, 1])


@pytest.mark.parametrize("stored", [False, True])
def test_cells_come_back(tmp_path, stored):
    sdata = to_spatialdata({}, labels={"cells": labels()}, cells=CELLS)
    if stored:
        sdata.write(tmp_path / "s.zarr")
        sdata = spatialdata.read_zarr(tmp_path / "s.zarr")
    pd.testing.assert_frame_equal(cells_from_spatialdata(sdata), CELLS)
    pd.testing.assert_frame_equal(cells_from_spatialdata(sdata, labels="cells"), CELLS)


@pytest.mark.parametrize("sparse", [False, True])
def test_cells_with_values_of_genes(tmp_path, sparse):
    from scipy.sparse import csr_matrix

    values = np.float32([[0, 1], [2, 0], [0, 3]])
    table = anndata.AnnData(
        csr_matrix(values) if sparse else values, obs=CELLS.set_index(pd.Index(list("uvw")))
    )
    table.var_names = ["CD3", "CD8"]
    table.obsm["embedding"] = values
    sdata = to_spatialdata(
        {}, labels={"cells": labels(), "nuclei": labels()}, cells=table, cells_of="nuclei"
    )
    assert "region" not in table.obs.columns
    sdata.write(tmp_path / "s.zarr")
    sdata = spatialdata.read_zarr(tmp_path / "s.zarr")
    np.testing.assert_array_equal(sdata["table"].obsm["embedding"], values)
    back = cells_from_spatialdata(sdata)
    assert back.columns.tolist() == ["cell_id", "area", "type", "CD3", "CD8"]
    np.testing.assert_array_equal(back[["CD3", "CD8"]], values)
    assert back["cell_id"].tolist() == [6, 4, 5]
    # It goes in again as it came out.
    again = to_spatialdata({}, labels={"nuclei": labels()}, cells=sdata["table"])
    pd.testing.assert_frame_equal(cells_from_spatialdata(again), back)


def test_what_does_not_fit_is_refused(tmp_path):
    image = image_of(tmp_path, "a.ome.zarr")
    tile = {"tissue_id": "a", "row": [0], "col": [0]}

    def of(**more):
        return TileTable.from_columns({**tile, **more}, tile_size=8, strategy="grid")

    with pytest.raises(UnknownNameError, match=r"none 'b' among \['a'\]"):
        to_spatialdata({"a": image}, tiles=TILES)
    with pytest.raises(UnknownNameError, match="level9"):
        to_spatialdata({"a": image}, tiles=of(), tiles_level="level9")
    with pytest.raises(InvalidInputError, match="the column 'region' of the tiles"):
        to_spatialdata({"a": image}, tiles=of(region=["x"]))
    with pytest.raises(InvalidInputError, match="'boxes' of list"):
        to_spatialdata({"a": image}, tiles=of(boxes=pa.array([[1, 2]])))
    with pytest.raises(InvalidInputError, match="no tiles"):
        to_spatialdata({"a": image}, tiles=_no_tiles())
    with pytest.raises(InvalidInputError, match=r"\['a'\] twice"):
        to_spatialdata({"a": image}, labels={"a": labels()})
    with pytest.raises(
        InvalidInputError, match="1 cells occur more than once, among them 4 of 'cells'"
    ):
        to_spatialdata({}, labels={"cells": labels()}, cells=pd.DataFrame({"cell_id": [4, 5, 4]}))
    with pytest.raises(InvalidInputError, match="the column 'region' of the cells"):
        to_spatialdata({}, labels={"cells": labels()}, cells=CELLS.assign(region="left"))


def _no_tiles():
    return TileTable.from_columns(
        {"tissue_id": pa.array([], pa.string()), "row": [], "col": []}, tile_size=8, strategy="grid"
    )


def test_shapes_that_are_no_tiles_are_refused(tmp_path):
    image = image_of(tmp_path, "a.ome.zarr")
    tiles = TILES.for_tissue("a")

    def changed(square):
        sdata = to_spatialdata({"a": image}, tiles=tiles)
        squares = sdata["a_tiles"].geometry.copy()
        squares.iloc[1] = square
        sdata["a_tiles"]["geometry"] = squares
        return sdata

    for square, words in (
        (shapely.box(0.5, 0, 64.5, 32), "shape 1 of 'a_tiles'.*no rectangle on whole pixels"),
        (shapely.Polygon([(0, 0), (64, 0), (64, 32)]), "no rectangle on whole pixels"),
        (shapely.box(0, 0, 65, 32), "are 32x64 and 32x65"),
    ):
        with pytest.raises(InvalidInputError, match=words):
            tiles_from_spatialdata(changed(square))
    sdata = to_spatialdata({"a": image}, tiles=tiles)
    with pytest.raises(UnknownNameError, match="no table 'squares'"):
        tiles_from_spatialdata(sdata, "squares")
    sdata["a_tiles"] = sdata["a_tiles"].iloc[:2]
    with pytest.raises(
        InvalidInputError, match=r"no shapes of 1 rows of 'tiles', among them \[2\]"
    ):
        tiles_from_spatialdata(sdata)


def test_cells_of_several_labels_are_asked_for_by_name():
    first = to_spatialdata({}, labels={"cells": labels()}, cells=CELLS)["table"]
    second = first.copy()
    second.obs["region"] = pd.Categorical(["nuclei"] * 3)
    both = anndata.concat([first, second], index_unique="_")
    both.uns["spatialdata_attrs"] = {
        "region": ["cells", "nuclei"],
        "region_key": "region",
        "instance_key": "cell_id",
    }
    sdata = spatialdata.SpatialData(tables={"table": both})
    with pytest.raises(InvalidInputError, match=r"annotates \['cells', 'nuclei'\]; pass labels"):
        cells_from_spatialdata(sdata)
    with pytest.raises(UnknownNameError, match="not 'spots'"):
        cells_from_spatialdata(sdata, labels="spots")
    back = cells_from_spatialdata(sdata, labels="nuclei")
    assert back["cell_id"].tolist() == [6, 4, 5]
    assert len(cells_from_spatialdata(sdata, labels="cells")) == 3
    del both.uns["spatialdata_attrs"]
    with pytest.raises(FormatError, match="does not say what it annotates"):
        cells_from_spatialdata(spatialdata.SpatialData(tables={"table": both}))


def test_a_column_names_the_labels_of_each_cell():
    named = {"cells": labels(), "nuclei": labels()}
    cells = pd.concat([CELLS.assign(region="cells"), CELLS.assign(region="nuclei")])
    made = to_spatialdata({}, labels=named, cells=cells)
    assert made["table"].uns["spatialdata_attrs"]["region"] == ["cells", "nuclei"]
    for name in named:
        back = cells_from_spatialdata(made, labels=name)
        assert back["cell_id"].tolist() == CELLS["cell_id"].tolist()
    with pytest.raises(InvalidInputError, match="cells_of must name"):
        to_spatialdata({}, labels=named, cells=cells.replace({"nuclei": "spots"}))
    twice = pd.concat([cells, cells.iloc[:1]])
    with pytest.raises(InvalidInputError, match="1 cells occur more than once, among them"):
        to_spatialdata({}, labels=named, cells=twice)
