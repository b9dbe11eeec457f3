"""Whatever goes into SpatialData comes out as it was: pixels, places, names, tiles and cells."""

from __future__ import annotations

import os
import warnings
from itertools import count

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import microtome as mt
from microtome.errors import FormatError, InvalidInputError, NotFoundError
from microtome.interop import (
    cells_from_spatialdata,
    from_spatialdata,
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
    pd = pytest.importorskip("pandas")
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import Affine, get_transformation, set_transformation

# Its own calls of what it is built on, not ours.
pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

# More are asked for by hand: each writes and reads a store.
EXAMPLES = int(os.environ.get("MICROTOME_ROUND_TRIPS", "12"))
SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    # A smaller example takes minutes to find: each one is a store.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
RNG = np.random.default_rng(5)
NUMBER = count()

sizes = st.floats(0.05, 20, allow_nan=False).map(lambda size: round(size, 4))
places = st.floats(-1e4, 1e4, allow_nan=False).map(lambda place: round(place, 3))
names = st.lists(
    st.text("ABCdefg0123 +-(ß", min_size=1, max_size=6).filter(str.strip),
    min_size=1,
    max_size=4,
    unique=True,
)
images = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["uint8", "uint16", "int16", "float32"]),
        "names": names,
        "size": st.tuples(st.integers(17, 90), st.integers(17, 90)),
        "depth": st.none() | st.integers(1, 3),
        "mpp": st.none() | st.tuples(sizes, sizes),
        "place": st.tuples(places, places),
        "z_spacing": sizes,
        "levels": st.booleans(),
    }
)


def made(folder, facts):
    volume = facts["depth"] is not None
    shape = [len(facts["names"]), *([facts["depth"]] if volume else []), *facts["size"]]
    sized = facts["mpp"] is not None
    more = {"mpp": facts["mpp"]} if sized else {}
    if sized:
        more["translation"] = facts["place"]
        if volume:
            more["z_spacing"] = facts["z_spacing"]
    path = folder / f"{next(NUMBER)}.ome.zarr"
    with mt.MultiscaleImage.create(
        path,
        type=facts["type"],
        level_shape=shape,
        channel_names=facts["names"],
        coordinate_space=("x", "y", "z") if volume else ("x", "y"),
        **more,
    ) as image:
        image["level0"][...] = RNG.integers(0, 120, shape).astype(facts["type"])
        if facts["levels"]:
            image.build_levels()
    return mt.open_image(path)


def labels_beside(image):
    pixels = RNG.integers(0, 5, image.level(0).shape[1:], np.int32)
    return mt.open_image(pixels, axes=image.axes[1:], mpp=image.mpp)


@pytest.fixture(scope="module")
def keeps_names(tmp_path_factory):
    """Whether spatialdata itself writes the names of channels: 0.7 does not with ome-zarr 0.18."""
    path = tmp_path_factory.mktemp("names") / "s.zarr"
    element = Image2DModel.parse(
        np.zeros((1, 8, 8), np.uint8), dims=("c", "y", "x"), c_coords=["A"]
    )
    spatialdata.SpatialData(images={"a": element}).write(path)
    return spatialdata.read_zarr(path)["a"].coords["c"].to_numpy().tolist() == ["A"]


def assert_same(back, image, *, placed, named=True):
    assert (back.axes, back.dtype) == (image.axes, image.dtype)
    assert back.kind == ("intensity" if "c" in image.axes else "labels")
    if named:
        assert back.channel_names == image.channel_names
    assert back.level_count == image.level_count
    for index in range(image.level_count):
        np.testing.assert_array_equal(back.level(index)[...], image.level(index)[...])
    if not placed:
        assert back.mpp is None
        return
    assert (back.mpp.y, back.mpp.x) == pytest.approx((image.mpp.y, image.mpp.x), rel=1e-12)
    ours, theirs = image.level(0), back.level(0)
    np.testing.assert_allclose(theirs.scale, ours.scale, rtol=1e-12)
    # To a part of a pixel: half of one is taken off and added to places that may be far away.
    np.testing.assert_allclose(theirs.translation, ours.translation, rtol=1e-12, atol=1e-9)


@SETTINGS
@given(images, st.booleans())
def test_images_and_labels(tmp_path, keeps_names, facts, stored):
    image = made(tmp_path, facts)
    labels = labels_beside(image)
    sdata = to_spatialdata({"he": image}, labels={"cells": labels}, system="slide")
    forms = [sdata]
    if stored:
        path = tmp_path / f"{next(NUMBER)}.zarr"
        sdata.write(path)
        # As spatialdata reads it, and by our own engine alone.
        forms = [spatialdata.read_zarr(path), path]
    for form in forms:
        placed = image.mpp is not None
        asked = {"system": "slide"} if placed else {}
        back, named = from_spatialdata(form, "he", **asked), keeps_names or not stored
        assert_same(back, image, placed=placed, named=named)
        assert_same(from_spatialdata(form, "cells", **asked), labels, placed=placed)


@SETTINGS
@given(sizes, sizes, places, places, st.booleans())
def test_a_place_of_anothers_making(tmp_path, y_size, x_size, y_place, x_place, stored):
    """A transform that spatialdata's user sets is where the pixels lie for us: at their centres."""
    pixels = RNG.integers(0, 99, (1, 20, 30), np.uint8)
    sdata = to_spatialdata({"a": mt.open_image(pixels, axes="cyx")})
    matrix = np.array([[x_size, 0, x_place], [0, y_size, y_place], [0, 0, 1]])
    set_transformation(sdata["a"], Affine(matrix, ("x", "y"), ("x", "y")), "um")
    form = sdata
    if stored:
        form = tmp_path / f"{next(NUMBER)}.zarr"
        sdata.write(form)
    image = from_spatialdata(form, "a", system="um")
    assert (image.mpp.y, image.mpp.x) == pytest.approx((y_size, x_size), rel=1e-12)
    np.testing.assert_allclose(
        image.level(0).translation[1:],
        [y_place + y_size / 2, x_place + x_size / 2],
        rtol=1e-12,
        atol=1e-9,
    )
    # And into another object: the same transform.
    again = to_spatialdata({"b": image}, system="um")
    found = get_transformation(again["b"], "um").to_affine_matrix(("x", "y"), ("x", "y"))
    np.testing.assert_allclose(found, matrix, rtol=1e-12, atol=1e-9)


@st.composite
def tables(draw):
    """A table of tiles with columns of its own, some of them with gaps."""
    rows = draw(st.integers(1, 12))

    def column(values):
        return st.lists(values, min_size=rows, max_size=rows)

    columns = {
        "tissue_id": draw(column(st.sampled_from(["a", "b"]))),
        "tile_id": draw(st.permutations(range(rows))),
        "row": draw(column(st.integers(-40, 2000))),
        "col": draw(column(st.integers(-40, 2000))),
    }
    kinds = {
        "share": (pa.float32(), st.floats(0, 1, width=32)),
        "counts": (pa.int64(), st.none() | st.integers(-(2**62), 2**62)),
        "stain": (pa.string(), st.none() | st.text("abcß ", max_size=4)),
        "kept": (pa.bool_(), st.booleans()),
    }
    for name in draw(st.sets(st.sampled_from(sorted(kinds)))):
        kind, values = kinds[name]
        columns[name] = pa.array(draw(column(values)), kind)
    size = draw(st.tuples(st.integers(1, 64), st.integers(1, 64)))
    resolution = draw(st.none() | st.just("0_5mpp"))
    return TileTable.from_columns(columns, tile_size=size, strategy="mine", resolution=resolution)


@SETTINGS
@given(tables(), st.booleans())
def test_tiles(tmp_path, tiles, stored):
    picture = mt.open_image(np.zeros((1, 64, 64), np.uint8), axes="cyx", mpp=0.25)
    form = to_spatialdata({"a": picture, "b": picture}, tiles=tiles)
    if stored:
        path = tmp_path / f"{next(NUMBER)}.zarr"
        form.write(path)
        form = path
    back = tiles_from_spatialdata(form)
    assert (back.tile_size, back.strategy, back.resolution) == (
        tiles.tile_size,
        tiles.strategy,
        tiles.resolution,
    )
    assert sorted(back.table.column_names) == sorted(tiles.table.column_names)
    for name in tiles.table.column_names:
        assert back.table[name].to_pylist() == tiles.table[name].to_pylist(), name


@SETTINGS
@given(
    st.lists(st.integers(1, 2**31 - 1), min_size=1, max_size=9, unique=True),
    st.data(),
    st.booleans(),
)
def test_cells(tmp_path, ids, data, stored):
    rows = len(ids)
    cells = pd.DataFrame(
        {
            "cell_id": ids,
            "area": data.draw(st.lists(st.floats(0, 1e6), min_size=rows, max_size=rows)),
            "near": data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows)),
        }
    )
    labels = mt.open_image(np.ones((8, 8), np.int32), axes="yx")
    form = to_spatialdata({}, labels={"cells": labels}, cells=cells)
    if stored:
        path = tmp_path / f"{next(NUMBER)}.zarr"
        form.write(path)
        form = path
    pd.testing.assert_frame_equal(cells_from_spatialdata(form), cells)


def test_micrometres_and_pixels_are_not_mixed():
    image = mt.open_image(np.zeros((1, 8, 9), np.uint8), axes="cyx", mpp=(0.5, 0.25))
    labels = np.zeros((8, 9), np.int32)
    with pytest.raises(InvalidInputError, match=r"\['cells'\] state no .*mpp=\(0\.5, 0\.25\)"):
        to_spatialdata({"he": image}, labels={"cells": labels})
    sized = mt.open_image(labels, mpp=image.mpp)
    sdata = to_spatialdata({"he": image}, labels={"cells": sized})
    axes = ("x", "y")
    matrices = [
        get_transformation(sdata[name]).to_affine_matrix(axes, axes) for name in ("he", "cells")
    ]
    np.testing.assert_array_equal(*matrices)
    # The edge of the first pixel, whose centre is at 0.
    assert matrices[0].tolist() == [[0.25, 0, -0.125], [0, 0.5, -0.25], [0, 0, 1]]


def test_a_path_that_holds_no_such_element_is_told(tmp_path):
    with pytest.raises(NotFoundError, match="does not exist"):
        from_spatialdata(tmp_path / "nowhere.zarr", "he")
    path = tmp_path / "a.ome.zarr"
    with mt.MultiscaleImage.create(path, type="uint8", level_shape=(1, 4, 4)) as image:
        image["level0"][...] = np.zeros((1, 4, 4), np.uint8)
    for read in (
        lambda: from_spatialdata(path, "he"),
        lambda: cells_from_spatialdata(path),
        lambda: tiles_from_spatialdata(path),
    ):
        with pytest.raises(FormatError, match="no SpatialData store"):
            read()
    tiles = TileTable.from_columns(
        {"tissue_id": "a", "row": [0], "col": [0]}, tile_size=2, strategy="grid"
    )
    picture = mt.open_image(path)
    sdata = to_spatialdata({"a": picture}, tiles=tiles)
    with pytest.raises(InvalidInputError, match="'a_tiles' is one of the shapes"):
        from_spatialdata(sdata, "a_tiles")
