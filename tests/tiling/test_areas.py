"""Areas of GeoJSON files: what is read, what is refused, and which pixels are inside."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.errors import (
    DependencyError,
    FormatError,
    InvalidInputError,
    UnknownNameError,
)
from microtome.tiling import Area, AreaSet, read_areas


def feature(geometry, name="Tumor", **properties):
    classification = None if name is None else {"name": name, "color": [200, 0, 0]}
    return {
        "type": "Feature",
        "id": "5b2f",
        "geometry": geometry,
        "properties": {
            "objectType": "annotation",
            "classification": classification,
            **properties,
        },
    }


def square(x0, y0, x1, y1):
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]


def polygon(*rings):
    return {"type": "Polygon", "coordinates": list(rings)}


def write(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def pixels_by_shapely(geometry, height, width):
    y, x = np.mgrid[:height, :width] + 0.5
    return shapely.contains_xy(geometry, x, y)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_pixels_inside_are_those_whose_centre_is(data):
    # Corners on thirds: no centre of a pixel lies on an edge that is a row or a column.
    seed = data.draw(st.integers(0, 9999))
    rng = np.random.default_rng(seed)
    count = data.draw(st.integers(3, 9))
    points = shapely.points(rng.integers(-30, 90, (count, 2)) / 3)
    outline = shapely.buffer(
        shapely.convex_hull(shapely.multipoints(points)), data.draw(st.integers(0, 3)) / 3
    )
    hole = shapely.affinity.scale(outline, 0.5, 0.4)
    geometry = outline.difference(hole) if data.draw(st.booleans()) else outline
    if geometry.geom_type != "Polygon" or geometry.is_empty:
        return
    rings = tuple(np.array(ring.coords) for ring in (geometry.exterior, *geometry.interiors))
    areas = AreaSet((Area(None, (rings,)),), "test")
    height, width = 24, 31
    cut = data.draw(st.integers(0, height))
    found = np.concatenate([areas.rows(width, 0, cut), areas.rows(width, cut, height)])
    # A centre that lies on a slanted edge belongs to either side.
    y, x = np.mgrid[:height, :width] + 0.5
    sure = shapely.distance(geometry.boundary, shapely.points(x, y)) > 1e-9
    expected = pixels_by_shapely(geometry, height, width)
    np.testing.assert_array_equal(found[sure], expected[sure])


def test_areas_side_by_side_share_no_pixel_and_leave_none_out():
    left = AreaSet((Area(None, ((np.array(square(0, 0, 2.5, 4), float),),)),), "l")
    right = AreaSet((Area(None, ((np.array(square(2.5, 0, 5, 4), float),),)),), "r")
    both = left.rows(5, 0, 4).astype(int) + right.rows(5, 0, 4)
    assert (both == 1).all()
    assert left.rows(5, 0, 4)[:, :2].all()


def test_a_file_of_qupath(tmp_path):
    content = {
        "type": "FeatureCollection",
        "features": [
            feature(polygon(square(2, 2, 12, 12), square(5, 5, 8, 8))),
            feature(
                {
                    "type": "MultiPolygon",
                    "coordinates": [[square(0, 15, 4, 18)], [square(10, 15, 14, 18)]],
                },
                "Stroma",
            ),
            feature(polygon(square(15, 0, 18, 3)), None),
            feature(polygon(square(0, 0, 1, 1)), "Tumor", objectType="cell"),
        ],
    }
    areas = read_areas(write(tmp_path / "t1.geojson", content))
    assert len(areas) == 3
    assert areas.names == ["Stroma", "Tumor"]
    expected = np.zeros((20, 20), bool)
    expected[2:12, 2:12] = True
    expected[5:8, 5:8] = False
    tumor = read_areas(tmp_path / "t1.geojson", classes=["Tumor"])
    np.testing.assert_array_equal(tumor.rows(20, 0, 20), expected)
    expected[15:18, 0:4] = expected[15:18, 10:14] = expected[0:3, 15:18] = True
    np.testing.assert_array_equal(areas.rows(20, 0, 20), expected)
    doubled = areas.scaled(0.5, 2)
    np.testing.assert_array_equal(
        doubled.rows(40, 0, 10), np.kron(expected, [[1, 1]])[1::2].astype(bool)
    )
    points = np.array([[3.0, 3.0], [6.0, 6.0], [16.0, 12.0], [19.0, 19.0]])
    assert areas.contains(points).tolist() == [True, False, True, False]


@pytest.mark.parametrize("kind", ["collection", "list", "single"])
def test_features_alone_in_a_list_or_in_a_collection(tmp_path, kind):
    one = feature(polygon(square(0, 0, 4, 4)))
    content = {"collection": {"type": "FeatureCollection", "features": [one]}, "list": [one]}
    path = write(tmp_path / "a.geojson", content.get(kind, one))
    assert read_areas(path).rows(5, 0, 5).sum() == 16


def test_areas_that_overlap_count_once(tmp_path):
    content = [feature(polygon(square(0, 0, 4, 4))), feature(polygon(square(2, 2, 6, 6)))]
    assert read_areas(write(tmp_path / "a.geojson", content)).rows(8, 0, 8).sum() == 28


def test_names_of_derived_classes(tmp_path):
    old = feature(polygon(square(0, 0, 4, 4)), None)
    old["properties"]["classification"] = {"names": ["Tumor", "Positive"]}
    plain = feature(polygon(square(0, 0, 4, 4)), None)
    plain["properties"]["classification"] = "Stroma"
    assert read_areas(write(tmp_path / "a.geojson", [old, plain])).names == [
        "Stroma",
        "Tumor: Positive",
    ]


BAD = {
    "no JSON": ("{", "is not GeoJSON"),
    "a number": (5, "neither features"),
    "no features": ({"type": "FeatureCollection"}, "neither features"),
    "a bare geometry": (polygon(square(0, 0, 1, 1)), "feature 0 is no GeoJSON Feature"),
    "properties are a list": (
        {"type": "Feature", "properties": []},
        "feature 0 is no GeoJSON Feature",
    ),
    "a point": (
        [feature(polygon(square(0, 0, 1, 1))), feature({"type": "Point", "coordinates": [1, 1]})],
        "feature 1 is a Point",
    ),
    "no geometry": ([feature(None)], "feature 0 is a feature without geometry"),
    "three corners": ([feature(polygon([[0, 0], [1, 1], [0, 0]]))], "at least four corners"),
    "not closed": ([feature(polygon([[0, 0], [4, 0], [4, 4], [0, 4]]))], "does not end where"),
    "not finite": ([feature(polygon(square(0, 0, float("nan"), 4)))], "not finite"),
    "words": ([feature(polygon(square("a", 0, 4, 4)))], "no usable coordinates"),
    "no rings": ([feature(polygon())], "no outline"),
    "no coordinates": ([feature({"type": "Polygon"})], "no usable coordinates"),
    "a bow tie": (
        [feature(polygon([[0, 0], [4, 4], [4, 0], [0, 4], [0, 0]]))],
        "Self-intersection",
    ),
    "hole outside": (
        [feature(polygon(square(0, 0, 4, 4), square(9, 9, 11, 11)))],
        "Hole lies outside",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_area_is_refused(tmp_path, case):
    content, words = BAD[case]
    path = tmp_path / "t1.geojson"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(FormatError, match=rf"t1\.geojson.*{words}"):
        read_areas(path)


def test_classes_that_are_not_there(tmp_path):
    path = write(tmp_path / "a.geojson", [feature(polygon(square(0, 0, 4, 4)))])
    with pytest.raises(UnknownNameError, match="no area of class 'tumor'; it has 'Tumor'"):
        read_areas(path, classes=["Tumor", "tumor"])
    with pytest.raises(InvalidInputError, match="no annotations"):
        read_areas(write(tmp_path / "b.geojson", []))


def test_only_the_areas_that_are_asked_for_must_be_valid(tmp_path):
    content = [
        feature(polygon(square(0, 0, 4, 4))),
        feature({"type": "LineString", "coordinates": [[0, 0], [1, 1]]}, "Ruler"),
    ]
    path = write(tmp_path / "a.geojson", content)
    assert len(read_areas(path, classes=["Tumor"])) == 1
    with pytest.raises(FormatError, match="feature 1 is a LineString"):
        read_areas(path)


@pytest.mark.parametrize(
    ("box", "fits"),
    [
        ((0, 0, 200, 100), True),
        ((-1, -1, 202, 101), True),
        ((0, 0, 210, 50), False),
        ((0, 0, 50, 110), False),
        ((-9, 0, 50, 50), False),
    ],
)
def test_areas_of_another_image_are_refused(box, fits):
    areas = AreaSet((Area("Tumor", ((np.array(square(*box), float),),)),), "a.geojson")
    if fits:
        areas.verify_inside((100, 200))
    else:
        with pytest.raises(InvalidInputError, match=r"area 0 \(Tumor\).*200 x 100.*annotation_mpp"):
            areas.verify_inside((100, 200))


def test_without_shapely(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "shapely", None)
    path = write(tmp_path / "a.geojson", [feature(polygon(square(0, 0, 4, 4)))])
    with pytest.raises(DependencyError, match=r"microtome\[geometry\]"):
        read_areas(path)
