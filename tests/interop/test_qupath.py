"""Objects of QuPath: what is written is what QuPath reads, and comes back as it was."""

from __future__ import annotations

import json
import re
import uuid

import numpy as np
import pyarrow as pa
import pytest
import shapely
from shapely.geometry import shape
from skimage.draw import disk

from microtome.errors import (
    ExistsError,
    FormatError,
    InvalidInputError,
    NotFoundError,
    UnknownNameError,
)
from microtome.interop import (
    QuPathObject,
    area_objects,
    cell_objects,
    read_qupath,
    tile_objects,
    tiles_of_objects,
    write_qupath,
)
from microtome.sources import open_image
from microtome.tiling import TileTable, read_areas

RED, GREEN = (200, 0, 0), (0, 160, 10)


def square(x0, y0, x1, y1):
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]], np.float64)


def tiles_table(**columns):
    return TileTable.from_columns(
        {
            "tissue_id": "t1",
            "tile_id": [4, 7, 9],
            "row": [0, 32, -8],
            "col": [0, 16, 640],
            "tissue_frac": pa.array([0.25, 1.0, 1 / 3], pa.float32()),
            "gain": [5, 6, 7],
            **columns,
        },
        tile_size=(32, 16),
        strategy="grid",
        resolution="1_0mpp",
    )


def features_of(path):
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["type"] == "FeatureCollection"
    return document["features"]


def labels_with_cells():
    labels = np.zeros((120, 200), np.uint32)
    for number, place in enumerate([(20, 30), (60, 150), (100, 40)], 1):
        labels[disk(place, 12, shape=labels.shape)] = number * 5
    labels[20:23, 28:31] = 0  # a hole
    labels[110:112, 190:195] = 5  # and another piece of the same
    return labels


# ---------------------------------------------------------------- tiles


@pytest.mark.parametrize("scale", [1.0, 4.0, (2.5, 0.5), (1 / 3, 1.7)])
def test_a_table_of_tiles_comes_back(tmp_path, scale):
    table = tiles_table(score=[0.5, None, -2.0], kind=["a", "b", None], note=["x", "y", "z"])
    objects = tile_objects(table, scale=scale, classes="kind", colors={"a": RED})
    path = write_qupath(objects, tmp_path / "t.geojson")
    back = tiles_of_objects(
        read_qupath(path, kinds=["tile"]),
        tissue_id="t1",
        scale=scale,
        strategy="grid",
        resolution="1_0mpp",
    )
    assert back.tile_size == table.tile_size
    for name in ("tissue_id", "tile_id", "row", "col", "tissue_frac", "gain", "score"):
        assert back.table[name].equals(table.table[name]), name
    assert back.table["class"].to_pylist() == ["a", "b", None]
    assert "note" not in back.table.column_names


def test_tiles_lie_where_qupath_shows_them(tmp_path):
    path = write_qupath(tile_objects(tiles_table(), scale=(4, 2)), tmp_path / "t.geojson")
    first, second, third = features_of(path)
    assert shape(second["geometry"]).bounds == (32, 128, 64, 256)
    # Whole numbers are written as such.
    assert second["geometry"]["coordinates"][0][0] == [32, 128]
    assert "32.0" not in json.dumps(second["geometry"])
    assert shape(third["geometry"]).bounds == (1280, -32, 1312, 96)
    assert first["properties"]["objectType"] == "tile"
    assert "classification" not in first["properties"]
    measured = first["properties"]["measurements"]
    assert measured == {"tile_id": 4, "tissue_frac": 0.25, "gain": 5}
    assert len({uuid.UUID(each["id"]) for each in (first, second, third)}) == 3
    again = [each.id for each in tile_objects(tiles_table(), scale=3)]
    assert again == [each["id"] for each in (first, second, third)]


def test_tiles_of_one_tissue_alone(tmp_path):
    both = TileTable.concat(
        [
            tiles_table(),
            TileTable.from_columns(
                {"tissue_id": "t2", "row": [3], "col": [5]},
                tile_size=(32, 16),
                strategy="grid",
                resolution="1_0mpp",
            ),
        ]
    )
    with pytest.raises(InvalidInputError, match=r"2 tissues \(t1, t2.*pass tissue_id"):
        tile_objects(both, scale=1)
    with pytest.raises(UnknownNameError, match="'t3'"):
        tile_objects(both, tissue_id="t3", scale=1)
    (only,) = tile_objects(both, tissue_id="t2", scale=1)
    assert only.measurements == {"tile_id": 0}
    with pytest.raises(UnknownNameError, match="'grade'"):
        tile_objects(both, tissue_id="t2", scale=1, classes="grade")


def test_tiles_are_drawn_in_pixels_of_the_picture_that_is_named():
    # Tiles at 1 um on a picture of 0.25 um: as with a scale of 4.
    picture = open_image(np.zeros((8, 8), np.uint8), axes="yx", mpp=0.25)
    for one, other in zip(
        tile_objects(tiles_table(), slide=picture),
        tile_objects(tiles_table(), scale=4),
        strict=True,
    ):
        np.testing.assert_array_equal(one.polygons[0][0], other.polygons[0][0])
    with pytest.raises(InvalidInputError, match=r"pixels of 1_0mpp.*pass slide=, or scale="):
        tile_objects(tiles_table())


def test_tiles_that_qupath_made_are_numbered():
    given = [QuPathObject("tile", ((square(x, 10, x + 8, 18),),)) for x in (0, 8, 16)]
    table = tiles_of_objects(given, tissue_id="t", scale=2)
    assert table.tile_size == (4, 4)
    assert table.column("tile_id").tolist() == [0, 1, 2]
    assert table.column("col").tolist() == [0, 4, 8]
    # As QuPath gives numbers back.
    given[0] = QuPathObject("tile", given[0].polygons, measurements={"tile_id": 3.0, "gain": 2.0})
    assert tiles_of_objects(given[:1], tissue_id="t").column("tile_id").tolist() == [3]


@pytest.mark.parametrize(
    ("rings", "message"),
    [
        ([square(0, 0, 4, 4), square(0, 0, 4, 8)], "of one size, got 4x4 and 8x4"),
        ([square(0.5, 0, 4.5, 4)], "no rectangle on whole pixels; is the scale"),
        ([np.array([[0, 0], [4, 0], [4, 4], [0, 0.0]])], "no rectangle"),
        ([], "no tiles"),
    ],
)
def test_what_is_no_tile_is_refused(rings, message):
    given = [QuPathObject("tile", ((ring,),)) for ring in rings]
    with pytest.raises(InvalidInputError, match=message):
        tiles_of_objects(given, tissue_id="t")


# ---------------------------------------------------------------- cells


@pytest.mark.parametrize("kind", ["detection", "cell"])
def test_cells_have_their_pixels_and_numbers(tmp_path, kind):
    labels = labels_with_cells()
    cells = pa.table(
        {
            "cell_id": [15, 5, 99],
            "tissue_id": ["t", "t", "t"],
            "CD3": [0.5, float("nan"), 1.0],
            "big": [True, False, True],
            "type": ["T cell", None, "B cell"],
        }
    )
    objects = cell_objects(
        open_image(labels, axes="yx", mpp=1.0),
        cells=cells,
        scale=2,
        kind=kind,
        classes="type",
        colors={"T cell": GREEN},
    )
    path = write_qupath(objects, tmp_path / "c.json")
    found = {each["properties"]["name"]: each for each in features_of(path)}
    assert set(found) == {"5", "10", "15"}
    for name, each in found.items():
        outline = shape(each["geometry"])
        assert outline.is_valid
        assert outline.area == 4 * np.count_nonzero(labels == int(name))
        assert each["properties"]["objectType"] == kind
    assert found["5"]["geometry"]["type"] == "MultiPolygon"
    assert found["5"]["properties"]["measurements"] == {"cell_id": 5, "big": 0}
    assert found["10"]["properties"]["measurements"] == {"cell_id": 10}
    assert found["15"]["properties"]["measurements"] == {"cell_id": 15, "CD3": 0.5, "big": 1}
    assert found["15"]["properties"]["classification"] == {"name": "T cell", "color": list(GREEN)}
    back = {each.name: each for each in read_qupath(path)}
    y, x = np.mgrid[:120, :200] * 2 + 1.0
    for name, each in back.items():
        assert each.kind == kind
        whole = shapely.MultiPolygon([(part[0], list(part[1:])) for part in each.polygons])
        np.testing.assert_array_equal(shapely.contains_xy(whole, x, y), labels == int(name))


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"id": [1]}, UnknownNameError, "'cell_id'"),
        ({"cell_id": [1, 1]}, InvalidInputError, "occur once"),
        ({"cell_id": [1.5]}, InvalidInputError, "whole numbers"),
    ],
)
def test_cells_that_are_no_table_of_labels(columns, error, message):
    image = open_image(labels_with_cells(), axes="yx", mpp=1.0)
    with pytest.raises(error, match=message):
        cell_objects(image, cells=pa.table(columns))


# ---------------------------------------------------------------- annotations, and any object


def test_areas_come_back(tmp_path):
    rings = [square(0, 0, 100, 50).tolist(), square(10.25, 10, 20, 20).tolist()]
    other = [[[[0, 60], [9.5, 60], [3, 70], [0, 60]]], [[[50, 60], [59, 60], [53, 70], [50, 60]]]]
    document = {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "geometry": {"type": kind, "coordinates": coordinates},
                "properties": {"objectType": "annotation", "classification": {"name": name}},
            }
            for kind, coordinates, name in [
                ("Polygon", rings, "Tumor"),
                ("MultiPolygon", other, "Stroma"),
            ]
        ],
    }
    (tmp_path / "a.geojson").write_text(json.dumps(document))
    areas = read_areas(tmp_path / "a.geojson")
    path = write_qupath(area_objects(areas, scale=2, colors={"Tumor": RED}), tmp_path / "b.geojson")
    again = read_areas(path)
    assert again.names == areas.names
    for one, two in zip(areas.areas, again.areas, strict=True):
        for part, other_part in zip(one.rings, two.rings, strict=True):
            for ring, other_ring in zip(part, other_part, strict=True):
                np.testing.assert_array_equal(ring * 2, other_ring)
    assert read_qupath(path)[0].color == RED


def test_an_object_comes_back(tmp_path):
    given = QuPathObject(
        "cell",
        ((square(0, 0, 10.125, 10), square(1, 1, 2, 2)), (square(20, 0, 30, 10),)),
        classification="Tumor: Positiv (Ä)",
        color=RED,
        name="№ 7",
        measurements={"a": 1, "b": 0.1, "gone": float("nan"), "far": float("inf")},
        id=str(uuid.UUID(int=7)),
        nucleus=((square(3, 3, 6, 6),),),
    )
    (back,) = read_qupath(write_qupath([given], tmp_path / "o.geojson"))
    for name in ("kind", "classification", "color", "name", "id"):
        assert getattr(back, name) == getattr(given, name)
    assert back.measurements == {"a": 1, "b": 0.1}
    for one, two in [(back.polygons, given.polygons), (back.nucleus, given.nucleus)]:
        for part, other in zip(one, two, strict=True):
            for ring, other_ring in zip(part, other, strict=True):
                np.testing.assert_array_equal(ring, other_ring)


def test_older_and_nested_files_are_read(tmp_path):
    def of(kind, key, x, **properties):
        return {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [square(x, 0, x + 4, 4).tolist()]},
            "properties": {key: kind, **properties},
        }

    inner = of("detection", "objectType", 1, measurements={"a": "NaN", "b": None, "c": 2})
    old = of(
        "annotation",
        "object_type",
        2,
        classification={"name": "Tumor", "colorRGB": -3670016},
        measurements=[{"name": "Area", "value": 16.0}],
    )
    outer = of(
        "annotation", "objectType", 3, classification={"names": ["T", "+"]}, childObjects=[inner]
    )
    (tmp_path / "old.json").write_text(json.dumps([old, outer]))
    first, second, third = read_qupath(tmp_path / "old.json")
    assert (first.classification, first.color) == ("Tumor", (200, 0, 0))
    assert first.measurements == {"Area": 16.0}
    assert (second.classification, third.kind) == ("T: +", "detection")
    assert third.measurements["c"] == 2
    assert np.isnan([third.measurements["a"], third.measurements["b"]]).all()
    assert read_qupath(tmp_path / "old.json", kinds=["detection"])[0].polygons[0][0][0, 0] == 1


def test_no_object_is_a_file_too(tmp_path):
    path = write_qupath([], tmp_path / "e.geojson")
    assert features_of(path) == []
    assert read_qupath(path) == ()


def test_a_file_is_whole_or_not_there(tmp_path):
    def objects():
        yield QuPathObject("tile", ((square(0, 0, 1, 1),),))
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write_qupath(objects(), tmp_path / "o.geojson")
    assert list(tmp_path.iterdir()) == []
    write_qupath([], tmp_path / "o.geojson")
    before = (tmp_path / "o.geojson").read_bytes()
    with pytest.raises(RuntimeError, match="half way"):
        write_qupath(objects(), tmp_path / "o.geojson", overwrite=True)
    assert (tmp_path / "o.geojson").read_bytes() == before
    with pytest.raises(ExistsError, match="or allow overwriting"):
        write_qupath([], tmp_path / "o.geojson")
    with pytest.raises(InvalidInputError, match=re.escape("call it o.geojson")):
        write_qupath([], tmp_path / "o.txt")


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ({"geometry": {"type": "Point", "coordinates": [1, 2]}}, "feature 0 is a Point"),
        ({"properties": {"objectType": "tma_core"}}, "'tma_core'; objects are annotation"),
        ({"properties": {"classification": {"name": "a", "color": [1, 2]}}}, "colour"),
        ({"properties": {"classification": {"name": "a", "color": [1, 2, 256]}}}, "colour"),
        ({"properties": {"measurements": {"a": "much"}}}, "no numbers by name"),
        ({"properties": {"measurements": [{"a": 1}]}}, "no numbers by name"),
        ({"properties": {"measurements": 3}}, "no numbers by name"),
    ],
)
def test_what_qupath_never_wrote_is_refused(tmp_path, feature, message):
    polygon = {"type": "Polygon", "coordinates": [square(0, 0, 1, 1).tolist()]}
    whole = {"type": "Feature", "geometry": polygon, **feature}
    (tmp_path / "x.geojson").write_text(json.dumps(whole))
    with pytest.raises(FormatError, match=message):
        read_qupath(tmp_path / "x.geojson")
    with pytest.raises(NotFoundError, match="no file"):
        read_qupath(tmp_path / "y.geojson")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "cells"}, "kind must be one of"),
        ({"color": (1, 2)}, "colour is three"),
        ({"polygons": ()}, "has no polygon"),
        ({"polygons": ((np.zeros((3, 2)),),)}, "at least four corners"),
        ({"nucleus": ((square(0, 0, 1, 1)[:-1],),)}, "the last the first"),
    ],
)
def test_an_object_that_is_none_is_refused(change, message):
    given = {"kind": "tile", "polygons": ((square(0, 0, 1, 1),),)} | change
    with pytest.raises(InvalidInputError, match=message):
        QuPathObject(**given)


@pytest.mark.parametrize("scale", [0, -1, (1, 2, 3), float("nan"), (1, 0)])
def test_a_scale_that_is_none_is_refused(scale):
    for make in (
        lambda: tile_objects(tiles_table(), scale=scale),
        lambda: cell_objects(np.zeros((4, 4), np.uint8), scale=scale),
    ):
        with pytest.raises(InvalidInputError, match="scale must be"):
            make()


def test_a_kind_that_qupath_has_none_of_is_refused(tmp_path):
    path = write_qupath(tile_objects(tiles_table(), scale=1), tmp_path / "t.geojson")
    for kinds in (["tiles"], ["tile", "point"], "tile"):
        with pytest.raises(
            UnknownNameError, match="some of annotation, tile, detection, cell, got"
        ):
            read_qupath(path, kinds=kinds)
    assert len(read_qupath(path, kinds=["tile", "cell"])) == 3
