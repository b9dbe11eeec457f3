"""Coordinates of TRIDENT and CLAM: what their readers find, and what theirs say, as tables of tiles."""

from __future__ import annotations

import sys

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.coordinates import Resolution
from microtome.errors import (
    DependencyError,
    ExistsError,
    FormatError,
    InvalidInputError,
    NotFoundError,
    OutOfRangeError,
    UnknownNameError,
)
from microtome.image import MultiscaleImage
from microtome.interop import (
    read_h5_coordinates,
    write_clam_coordinates,
    write_trident_coordinates,
)
from microtome.sources import open_image
from microtome.tiling import TileTable


def table(side=224, tissue_id="s1", rows=(0, 224, -16), cols=(0, 448, 7)):
    return TileTable.from_columns(
        {"tissue_id": tissue_id, "row": list(rows), "col": list(cols)},
        tile_size=side,
        strategy="grid",
    )


def slide(height=3000, width=4001):
    return open_image(np.zeros((height, width), np.uint8), axes="yx", mpp=0.25)


@pytest.fixture
def pyramid(tmp_path):
    with MultiscaleImage.create(
        tmp_path / "s1.ome.zarr",
        type="uint8",
        level_shape=(1000, 1501),
        data_axis_order=("y", "x"),
        has_channel_axis=False,
        mpp=0.25,
    ) as image:
        image["level0"][...] = 0
        image.build_levels()
    return MultiscaleImage.open(tmp_path / "s1.ome.zarr")


def stored(path):
    """Read as both programs do."""
    with h5py.File(path) as file:
        return file["coords"][:], dict(file["coords"].attrs)


def written(path, coordinates, **attributes):
    with h5py.File(path, "w") as file:
        made = file.create_dataset("coords", data=coordinates)
        made.attrs.update(attributes)
    return path


def same(one, other):
    assert one.tile_size == other.tile_size
    for name in ("tissue_id", "tile_id", "row", "col"):
        assert one.table[name].equals(other.table[name]), name


# ---------------------------------------------------------------- TRIDENT


@pytest.mark.parametrize(
    ("scale", "magnification", "target"), [(1, 20, 20), (2, 40, 20), (4.03, 40, 40 / 4.03)]
)
def test_trident_finds_what_it_asks_for(tmp_path, scale, magnification, target):
    path = write_trident_coordinates(
        table(),
        tmp_path / "job" / "patches" / "s1_patches.h5",
        magnification=magnification,
        slide=slide(),
        scale=scale,
    )
    coordinates, attributes = stored(path)
    assert coordinates.dtype == np.int64
    expected = [
        [0, 0],
        [round(448 * scale), round(224 * scale)],
        [round(7 * scale), round(-16 * scale)],
    ]
    np.testing.assert_array_equal(coordinates, expected)
    assert attributes["patch_size"] == 224
    assert attributes["patch_size_level0"] == round(224 * scale)
    assert attributes["level0_magnification"] == magnification
    assert attributes["target_magnification"] == target
    assert (attributes["level0_width"], attributes["level0_height"]) == (4001, 3000)
    assert attributes["overlap"] == 0
    assert attributes["savetodir"] == str(tmp_path / "job")
    # The reader makes a patch of as many pixels by itself.
    downsample = attributes["level0_magnification"] / attributes["target_magnification"]
    assert round(attributes["patch_size"] * downsample) == attributes["patch_size_level0"]
    back = read_h5_coordinates(path, tissue_id="s1")
    same(back, table())
    assert back.strategy == "trident"


def test_files_of_trident_are_read(tmp_path):
    path = written(
        tmp_path / "TCGA-01_patches.h5",
        np.array([[1000, 512], [1512, 512]]),
        patch_size=256,
        patch_size_level0=512,
        level0_magnification=40,
        target_magnification=20,
        overlap=0,
        name="TCGA-01",
        savetodir="out",
    )
    tiles = read_h5_coordinates(path)
    assert tiles.tissue_ids == ("TCGA-01",)
    assert tiles.tile_size == (256, 256)
    assert tiles.column("col").tolist() == [500, 756]
    assert tiles.column("row").tolist() == [256, 256]
    fine = read_h5_coordinates(path, scale=1, tissue_id="t", resolution="0_25mpp")
    assert (fine.tile_size, fine.resolution) == ((512, 512), "0_25mpp")
    assert fine.column("col").tolist() == [1000, 1512]
    assert read_h5_coordinates(path, scale=4).tile_size == (128, 128)
    with pytest.raises(InvalidInputError, match="no whole number of pixels"):
        read_h5_coordinates(path, scale=7)


def test_patches_that_are_rounded_on_the_finest_level(tmp_path):
    # 256 * 40 // 30, as TRIDENT computes it: the patch is 256 pixels all the same.
    path = written(
        tmp_path / "x.h5",
        np.array([[[341, 682]]]),
        patch_size=256,
        patch_size_level0=341,
        level0_magnification=40,
        target_magnification=30,
        name="None",
    )
    tiles = read_h5_coordinates(path)
    assert tiles.tissue_ids == ("x",)
    assert tiles.tile_size == (256, 256)
    assert (tiles.column("col")[0], tiles.column("row")[0]) == (256, 512)


# ---------------------------------------------------------------- CLAM


@pytest.mark.parametrize("level", [0, 1, -1])
def test_clam_finds_what_it_asks_for(tmp_path, pyramid, level):
    given = table(64, rows=(0, 64, 3), cols=(0, 5, 128))
    number = level % pyramid.level_count
    height, width = pyramid.level_shape(number)
    path = write_clam_coordinates(
        given,
        tmp_path / "patches" / "s1.h5",
        slide=pyramid,
        level=level,
        scale=(1000 / height, 1501 / width),
    )
    coordinates, attributes = stored(path)
    assert attributes["patch_size"] == 64
    assert attributes["patch_level"] == number
    assert attributes["level_dim"].tolist() == [width, height]
    assert attributes["downsampled_level_dim"].tolist() == [width, height]
    factor = np.array([1501 / width, 1000 / height])
    np.testing.assert_allclose(attributes["downsample"], factor)
    pixels = np.stack([given.column("col"), given.column("row")], axis=1)
    np.testing.assert_array_equal(coordinates, np.rint(pixels * factor))
    back = read_h5_coordinates(path, tissue_id="s1")
    same(back, given)
    assert back.strategy == "clam"


def test_files_of_clam_are_read(tmp_path):
    path = written(
        tmp_path / "slide_7.h5",
        np.array([[4000, 8000]], np.int32),
        patch_size=256,
        patch_level=1,
        downsample=(4.0, 4.0),
        level_dim=(100, 100),
        name=b"slide_7",
    )
    tiles = read_h5_coordinates(path)
    assert tiles.tissue_ids == ("slide_7",)
    assert (tiles.column("col")[0], tiles.column("row")[0]) == (1000, 2000)
    assert read_h5_coordinates(path, scale=(2, 2)).tile_size == (512, 512)
    # As features of others have it: level 0, read twice as coarse.
    path = written(
        tmp_path / "old.h5",
        np.array([[100, 60]]),
        patch_size=256,
        patch_level=0,
        custom_downsample=2,
    )
    tiles = read_h5_coordinates(path)
    assert (tiles.column("col")[0], tiles.tile_size) == (50, (256, 256))


def test_a_level_that_nobody_knows_the_size_of(tmp_path):
    path = written(tmp_path / "x.h5", np.array([[4, 8]]), patch_size=256, patch_level=2)
    with pytest.raises(InvalidInputError, match=r"how much coarser level 2 is; pass scale"):
        read_h5_coordinates(path)
    with pytest.raises(InvalidInputError, match="unknown size"):
        read_h5_coordinates(path, scale=4)


# ---------------------------------------------------------------- both


def test_no_tile_is_a_file_too(tmp_path, pyramid):
    empty = table(rows=(), cols=())
    one = write_trident_coordinates(
        empty, tmp_path / "a.h5", magnification=20, slide=pyramid, scale=1
    )
    two = write_clam_coordinates(empty, tmp_path / "b.h5", slide=pyramid, scale=1)
    for path in (one, two):
        assert stored(path)[0].shape == (0, 2)
        assert len(read_h5_coordinates(path)) == 0


def test_a_file_that_is_there_stays(tmp_path, pyramid):
    options = {"magnification": 20, "slide": pyramid, "scale": 1}
    path = write_trident_coordinates(table(), tmp_path / "a.h5", **options)
    before = path.read_bytes()
    with pytest.raises(ExistsError, match="or allow overwriting"):
        write_clam_coordinates(table(), path, slide=pyramid, scale=1)
    assert path.read_bytes() == before
    write_clam_coordinates(table(), path, slide=pyramid, scale=1, overwrite=True)
    assert "patch_level" in stored(path)[1]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.h5", "s1.ome.zarr"]


@pytest.mark.parametrize(
    ("tiles", "options", "error", "message"),
    [
        (table((8, 16)), {}, InvalidInputError, "square, the tiles of the table are 8x16"),
        (table(), {"scale": 0.25}, InvalidInputError, "several pixels of the table are one pixel"),
        (table(), {"scale": -1}, InvalidInputError, "scale must be"),
        (table(), {"magnification": 0}, InvalidInputError, "magnification must be positive"),
        (table(), {"overlap": -1}, InvalidInputError, "overlap not negative"),
        (table(), {"tissue_id": "s2"}, UnknownNameError, "'s2'"),
        (table(tissue_id=["a", "b", "a"]), {}, InvalidInputError, "2 tissues"),
        (
            table(),
            {"scale": (2, 3)},
            InvalidInputError,
            r"not square: one of the tiles is 2\.0 x 3\.0",
        ),
        (table(), {"path": "a.txt"}, InvalidInputError, "call it a.h5"),
    ],
)
def test_what_the_file_cannot_hold_is_refused(tmp_path, tiles, options, error, message):
    given = {"magnification": 20, "slide": slide(), "path": "a.h5", "scale": 1} | options
    with pytest.raises(error, match=message):
        write_trident_coordinates(tiles, tmp_path / given.pop("path"), **given)
    assert list(tmp_path.iterdir()) == []


def test_a_level_that_is_not_there(tmp_path, pyramid):
    with pytest.raises(OutOfRangeError):
        write_clam_coordinates(table(), tmp_path / "a.h5", slide=pyramid, level=99, scale=1)


CLAM = {"patch_size": 256, "patch_level": 0}
TRIDENT = {"patch_size": 256, "level0_magnification": 40, "target_magnification": 20}


@pytest.mark.parametrize(
    ("coordinates", "attributes", "message"),
    [
        (np.zeros((2, 3)), CLAM, "must be"),
        (np.array([[0.5, 0]]), CLAM, "whole pixels"),
        (np.array([[np.nan, 0]]), CLAM, "whole pixels"),
        (np.zeros((1, 2), int), {}, "no attribute"),
        (np.zeros((1, 2), int), {"patch_size": 256}, "neither patch_level"),
        (np.zeros((1, 2), int), CLAM | {"patch_size": 0}, "states the patch size 0"),
        (np.zeros((1, 2), int), CLAM | {"patch_size": "big"}, "no numbers"),
        (np.zeros((1, 2), int), CLAM | {"downsample": (0.0, 1.0)}, "times coarser"),
        (np.zeros((1, 2), int), CLAM | {"downsample": (1.0, 1.0, 1.0)}, "times coarser"),
        (np.zeros((1, 2), int), TRIDENT | {"target_magnification": 0}, "times coarser"),
    ],
)
def test_what_are_no_coordinates_is_refused(tmp_path, coordinates, attributes, message):
    path = written(tmp_path / "x.h5", coordinates, **attributes)
    with pytest.raises(FormatError, match=message):
        read_h5_coordinates(path)


def test_files_that_are_none(tmp_path):
    with pytest.raises(NotFoundError, match="no file"):
        read_h5_coordinates(tmp_path / "x.h5")
    (tmp_path / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n nothing of the kind")
    with pytest.raises(FormatError, match="damaged or no HDF5"):
        read_h5_coordinates(tmp_path / "x.h5")
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file.create_dataset("features", data=np.zeros(3))
    with pytest.raises(FormatError, match="no dataset coords; it has features"):
        read_h5_coordinates(tmp_path / "y.h5")


def test_without_h5py(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DependencyError, match=r"pip install 'microtome\[anndata\]'"):
        read_h5_coordinates(tmp_path / "x.h5")


@pytest.mark.parametrize("program", ["trident", "clam"])
def test_tiles_over_the_edge_are_told_or_left_out(tmp_path, caplog, program):
    # The slide is 4001 x 3000: inside, up to the edge, one pixel over it on each side, and outside.
    rows = (0, 3000 - 224, 3000 - 223, 500, 500, -1, 5000)
    cols = (0, 4001 - 224, 0, 4001 - 223, -1, 0, 0)
    options = {"tiles": table(rows=rows, cols=cols), "slide": slide(), "scale": 1}

    def write(name, **more):
        path = tmp_path / f"{name}.h5"
        if program == "clam":
            write_clam_coordinates(path=path, **options, **more)
        else:
            write_trident_coordinates(path=path, magnification=20, **options, **more)
        return stored(path)[0].tolist()

    everything = [list(each) for each in zip(cols, rows, strict=True)]
    assert write("all") == everything
    assert "5 of 7 tiles hang over the edge" in caplog.text
    assert "black" in caplog.text
    assert write("inside", edge="drop") == everything[:2]
    with pytest.raises(InvalidInputError, match="edge must be one of"):
        write("none", edge="move")


def test_what_is_left_of_a_pixel_of_the_table_is_no_overhang(tmp_path, caplog):
    # At scale 4 an image of a slide of 4001 x 3000 has 1001 columns, the last of one pixel's width.
    write_trident_coordinates(
        table(side=200, rows=(550,), cols=(801,)),
        tmp_path / "a.h5",
        magnification=20,
        slide=slide(),
        scale=4,
    )
    assert not caplog.records


# ---------------------------------------------------------------- how large a pixel is


def stating(resolution, side=64):
    return TileTable.from_columns(
        {"tissue_id": "s1", "row": [0, 64, 131], "col": [0, 5, 512]},
        tile_size=side,
        strategy="grid",
        resolution=resolution,
    )


@pytest.mark.parametrize("mpp", [0.25, 0.499, 1.0])
def test_the_scale_is_what_table_and_slide_state(tmp_path, mpp):
    tiles, one = stating("1_0mpp"), open_image(np.zeros((3000, 4001), np.uint8), axes="yx", mpp=mpp)
    expected = np.rint(np.array([[0, 0], [5, 64], [512, 131]]) / mpp)
    clam = write_clam_coordinates(tiles, tmp_path / "c.h5", slide=one)
    trident = write_trident_coordinates(tiles, tmp_path / "t.h5", slide=one, magnification=20)
    for path, side in ((clam, "patch_size"), (trident, "patch_size_level0")):
        coordinates, attributes = stored(path)
        np.testing.assert_array_equal(coordinates, expected)
        assert attributes[side] == round(64 / mpp)
    # What is said counts for more than what is stated.
    told = write_clam_coordinates(tiles, tmp_path / "d.h5", slide=one, scale=3)
    assert stored(told)[0].tolist() == [[0, 0], [15, 192], [1536, 393]]


def test_clam_reads_tiles_of_any_resolution_from_any_level(tmp_path, pyramid):
    # Tiles at 1 um, the slide at 0.25: four of its pixels, two of its next level's.
    path = write_clam_coordinates(stating("1_0mpp"), tmp_path / "c.h5", slide=pyramid, level=1)
    coordinates, attributes = stored(path)
    assert coordinates.tolist() == [[0, 0], [20, 256], [2048, 524]]
    assert (attributes["patch_size"], attributes["patch_level"]) == (128, 1)
    same(
        read_h5_coordinates(path, tissue_id="s1", scale=4),
        stating("1_0mpp"),
    )
    with pytest.raises(InvalidInputError, match="less than a pixel of that level"):
        write_clam_coordinates(
            stating("0_25mpp", side=1), tmp_path / "x.h5", slide=pyramid, level=2
        )


@pytest.mark.parametrize("program", ["trident", "clam"])
def test_a_scale_that_nobody_knows_is_refused(tmp_path, program):
    def write(tiles, mpp):
        one = open_image(np.zeros((30, 40), np.uint8), axes="yx", mpp=mpp)
        if program == "clam":
            write_clam_coordinates(tiles, tmp_path / "a.h5", slide=one)
        else:
            write_trident_coordinates(tiles, tmp_path / "a.h5", slide=one, magnification=20)

    with pytest.raises(InvalidInputError, match=r"does not say at which resolution.*pass scale="):
        write(table(), 0.25)
    with pytest.raises(
        InvalidInputError, match=r"pixels of 1_0mpp, and .* does not state.*with mpp="
    ):
        write(stating("1_0mpp"), None)
    assert not (tmp_path / "a.h5").exists()


@given(
    mpp=st.floats(0.2, 1.0),
    resolution=st.sampled_from(["1_0mpp", "2_0mpp", "1_25mpp"]),
    places=st.lists(
        st.tuples(st.integers(-50, 40_000), st.integers(-50, 40_000)), min_size=1, max_size=8
    ),
    side=st.integers(1, 512),
)
@settings(deadline=None, max_examples=40)
def test_patches_cover_what_tiles_cover(tmp_path_factory, mpp, resolution, places, side):
    folder = tmp_path_factory.mktemp("h5")
    rows, cols = (list(each) for each in zip(*places, strict=True))
    tiles = TileTable.from_columns(
        {"tissue_id": "s1", "row": rows, "col": cols},
        tile_size=side,
        strategy="grid",
        resolution=resolution,
    )
    one = open_image(np.zeros((300, 400), np.uint8), axes="yx", mpp=mpp)
    coarse = Resolution.parse(resolution).mpp[0]
    clam = write_clam_coordinates(tiles, folder / "c.h5", slide=one)
    trident = write_trident_coordinates(tiles, folder / "t.h5", slide=one, magnification=20)
    for path, name in ((clam, "patch_size"), (trident, "patch_size_level0")):
        coordinates, attributes = stored(path)
        # In micrometres, to half a pixel of the slide.
        expected = np.array([cols, rows]).T * coarse
        assert np.abs(coordinates * mpp - expected).max() <= mpp / 2 * (1 + 1e-6)
        assert abs(attributes[name] * mpp - side * coarse) <= mpp / 2 * (1 + 1e-6)
