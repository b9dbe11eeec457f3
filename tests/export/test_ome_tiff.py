"""`write_ome_tiff`: pixels, levels, places and names as they are, for us and for other readers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tifffile

from microtome.errors import ExistsError, InvalidInputError
from microtome.export import write_ome_tiff
from microtome.image import MultiscaleImage, halve_labels, halve_mean
from microtome.sources import open_image


def pixels_of(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(size=shape).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype, endpoint=True)


def stored(path, pixels, axes, **options):
    """Write an image with a pyramid."""
    with MultiscaleImage.create(
        path,
        type=pixels.dtype,
        level_shape=pixels.shape,
        data_axis_order=tuple(axes),
        has_channel_axis="c" in axes,
        **options,
    ) as image:
        image["level0"][...] = pixels
        image.build_levels()
    return MultiscaleImage.open(path)


CASES = {
    "channels": ("cyx", (3, 300, 421), "uint16"),
    "plane": ("yx", (301, 200), "uint8"),
    "planes": ("czyx", (2, 4, 150, 260), "int16"),
    "times": ("tcyx", (3, 2, 140, 130), "float32"),
    "all": ("tczyx", (2, 2, 3, 140, 150), "uint8"),
    "wide": ("cyx", (1, 33, 900), "float64"),
    "bytes": ("cyx", (4, 130, 140), "int8"),
    "words": ("cyx", (2, 130, 140), "int32"),
}


@pytest.mark.parametrize(
    ("case", "codec"),
    [
        *((case, "deflate") for case in CASES),
        *((case, codec) for case in ("channels", "times") for codec in ("zstd", "lzw", "none")),
    ],
)
def test_all_levels_come_back_where_they_were(tmp_path, case, codec):
    axes, shape, dtype = CASES[case]
    pixels = pixels_of(shape, dtype)
    options = {"z_spacing": 2.5} if "z" in axes else {}
    image = stored(tmp_path / "i.ome.zarr", pixels, axes, mpp=(0.25, 0.5), name="i", **options)
    assert image.level_count > 1
    told = []
    path = write_ome_tiff(
        image,
        tmp_path / "made" / "o.ome.tif",
        codec=codec,
        tile_size=64,
        progress=lambda *what: told.append(what),
    )
    assert told[-1][1] == told[-1][2] == len(told)
    assert [entry.name for entry in path.parent.iterdir()] == ["o.ome.tif"]
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_bigtiff
        assert tiff.is_ome
        (series,) = tiff.series
        assert len(series.levels) == image.level_count
        for index, level in enumerate(series.levels):
            expected = image.level(index)[...]
            # tifffile leaves axes of one out.
            np.testing.assert_array_equal(level.asarray(), expected.squeeze())
            assert level.keyframe.tile == (64, 64)
        assert series.name == "i"
    again = open_image(path)
    assert again.mpp == (image.mpp) or (again.mpp.y, again.mpp.x) == (0.25, 0.5)
    assert again.dtype == image.dtype
    assert again.level_count == image.level_count
    squeezed = {axis for axis, size in zip(axes, shape, strict=True) if size > 1}
    assert {a for a, n in zip(again.axes, again.level_shape(0), strict=True) if n > 1} == squeezed
    if "c" in axes:
        assert again.channel_names == image.channel_names
    np.testing.assert_array_equal(again.level(0)[...].squeeze(), pixels.squeeze())


def test_three_bytes_a_pixel_are_a_picture_in_colour(tmp_path):
    pixels = pixels_of((3, 260, 290), "uint8")
    image = stored(
        tmp_path / "i.ome.zarr", pixels, "cyx", mpp=0.5, channel_names=("red", "green", "blue")
    )
    path = write_ome_tiff(image, tmp_path / "o.ome.tif", tile_size=128)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.series[0].keyframe
        assert page.photometric.name == "RGB"
        assert page.shape == (260, 290, 3)
        assert len(tiff.pages) == 1
        for index, level in enumerate(tiff.series[0].levels):
            expected = np.moveaxis(image.level(index)[...], 0, -1)
            np.testing.assert_array_equal(level.asarray(), expected)
    np.testing.assert_array_equal(open_image(path).level(0)[...], pixels)


@pytest.mark.parametrize("kind", ["intensity", "labels"])
def test_a_large_image_without_levels_gets_them(tmp_path, kind):
    pixels = pixels_of((301, 530), "uint16") % 5
    if kind == "labels":
        with MultiscaleImage.create(
            tmp_path / "i", type="uint16", level_shape=pixels.shape, has_channel_axis=False,
            kind="labels", mpp=1,
        ) as image:  # fmt: skip
            image["level0"][...] = pixels
        image = MultiscaleImage.open(tmp_path / "i")
    else:
        image = open_image(pixels, axes="yx", mpp=1)
    halve = halve_labels if kind == "labels" else halve_mean
    path = write_ome_tiff(image, tmp_path / "o.ome.tiff", tile_size=64)
    with tifffile.TiffFile(path) as tiff:
        levels = tiff.series[0].levels
        assert [level.shape for level in levels] == [(301, 530), (151, 265), (76, 133), (38, 67)][
            : len(levels)
        ]
        assert len(levels) == 4
        expected = pixels
        for level in levels:
            np.testing.assert_array_equal(level.asarray(), expected)
            expected = halve(expected)
    assert {entry.name for entry in tmp_path.iterdir()} <= {"i", "o.ome.tiff"}


def test_one_channel_that_has_a_name_is_asked_for_by_it(tmp_path):
    pixels = pixels_of((1, 90, 100), "float32")
    image = open_image(pixels, axes="cyx", channel_names=["prob"])
    again = open_image(write_ome_tiff(image, tmp_path / "o.ome.tif"))
    assert (again.axes, again.channel_names) == ("cyx", ("prob",))
    np.testing.assert_array_equal(
        again.read(0, (5, 80), (7, 90), channels=["prob"]), pixels[:, 5:80, 7:90]
    )


def test_what_is_not_known_is_not_stated(tmp_path):
    path = write_ome_tiff(
        open_image(pixels_of((40, 50), "uint8"), axes="yx"), tmp_path / "o.ome.tif"
    )
    assert open_image(path).mpp is None
    with tifffile.TiffFile(path) as tiff:
        assert "PhysicalSize" not in tiff.ome_metadata


def test_other_readers_see_the_same(tmp_path):
    bioio = pytest.importorskip("bioio_tifffile", reason="bioio's reader of TIFF is not installed")
    pixels = pixels_of((3, 140, 150), "uint16")
    image = stored(tmp_path / "i", pixels, "cyx", mpp=0.5, channel_names=("a", "b", "µ"))
    found = bioio.Reader(str(write_ome_tiff(image, tmp_path / "o.ome.tif")))
    np.testing.assert_array_equal(found.data.squeeze(), pixels)


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    image = open_image(pixels_of((300, 50), "uint8"), axes="yx", mpp=1)
    (tmp_path / "o.ome.tif").write_text("old")
    read = type(image.level(0).array).read
    calls = []

    def failing(self, box):
        calls.append(box)
        if len(calls) == 3:
            raise OSError("the disk is gone")
        return read(self, box)

    monkeypatch.setattr(type(image.level(0).array), "read", failing)
    with pytest.raises(OSError, match="gone"):
        write_ome_tiff(image, tmp_path / "o.ome.tif", tile_size=64, overwrite=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["o.ome.tif"]
    assert (tmp_path / "o.ome.tif").read_text() == "old"


def test_what_cannot_be_written_is_refused(tmp_path):
    image = open_image(np.ones((20, 20), np.uint8), axes="yx", mpp=1)
    wide = open_image(np.ones((20, 20), np.int64), axes="yx", mpp=1)
    for given, name, options, told in (
        (image, "o.tif", {}, r"call it o\.ome\.tif"),
        ("a.ome.zarr", "o.ome.tif", {}, r"open_image\(path\)\), got 'a\.ome\.zarr'"),
        (image, "o.ome.tif", {"codec": "jpeg"}, "codec must be one of"),
        (image, "o.ome.tif", {"tile_size": 100}, "multiple of 16"),
        (wide, "o.ome.tif", {}, "no name for int64"),
    ):
        with pytest.raises(InvalidInputError, match=told):
            write_ome_tiff(given, tmp_path / name, **options)
    (tmp_path / "o.ome.tif").write_text("old")
    with pytest.raises(ExistsError, match="allow overwriting"):
        write_ome_tiff(image, tmp_path / "o.ome.tif")
    write_ome_tiff(image, tmp_path / "o.ome.tif", overwrite=True)
    assert open_image(tmp_path / "o.ome.tif").level_shape(0) == (20, 20)


@pytest.mark.parametrize("colour", [False, True])
def test_the_place_and_the_record_of_an_image_come_back(tmp_path, colour):
    names = ["red", "green", "blue"] if colour else ["A", "B"]
    pixels = np.random.default_rng(3).integers(0, 255, (len(names), 70, 90)).astype(np.uint8)
    record = {"prediction": {"model": "a:b <&>", "settings": {"overlap": [64, 64]}}}
    plain = open_image(pixels, axes="cyx", mpp=(0.5, 0.25), channel_names=names)
    level = replace(plain.level(0), translation=(0.0, 120.5, -7.25))
    image = MultiscaleImage(
        [level],
        uri="x",
        channel_names=plain.channel_names,
        mpp=plain.mpp,
        name="x",
        metadata={"microtome": {**record, "level_keys": ["level0"], "mpp_source": "user"}},
    )
    path = write_ome_tiff(image, tmp_path / "a.ome.tif", tile_size=32)
    back = open_image(path)
    assert back.metadata["microtome"] == record
    assert back.channel_names == tuple(names)
    assert (back.mpp.y, back.mpp.x) == (0.5, 0.25)
    np.testing.assert_array_equal(back.level(0)[...], pixels)
    assert back.level_count == 2
    other = open_image(write_ome_tiff(plain, tmp_path / "b.ome.tif", tile_size=32))
    for index in range(back.level_count):
        here, there = (each.level(index).translation for each in (back, other))
        assert np.subtract(here, there).tolist() == [0.0, 120.5, -7.25]
    with tifffile.TiffFile(path) as file:
        planes = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]["Plane"]
    planes = planes if isinstance(planes, list) else [planes]
    assert len(planes) == (1 if colour else 2)
    for plane in planes:
        assert (plane["PositionX"], plane["PositionY"]) == (-7.25, 120.5)


def test_an_image_at_the_origin_states_no_place(tmp_path):
    image = open_image(np.zeros((20, 30), np.uint8), axes="yx", mpp=1.0)
    path = write_ome_tiff(image, tmp_path / "a.ome.tif", tile_size=16)
    with tifffile.TiffFile(path) as file:
        assert "Plane " not in file.ome_metadata
        assert "Annotation" not in file.ome_metadata
    assert "microtome" not in open_image(path).metadata


@pytest.mark.parametrize("text", ["[" * 10**5, "7", '{"y": "far", "q": 3, "x": 1e999}', "{"])
def test_a_place_that_is_none_is_left_out(tmp_path, text):
    path = tmp_path / "a.ome.tif"
    noted = {"Namespace": "microtome", "place": text, "record": text}
    tifffile.imwrite(
        path,
        np.zeros((2, 20, 30), np.uint8),
        metadata={
            "axes": "CYX",
            "PhysicalSizeX": 1.0,
            "PhysicalSizeY": 1.0,
            "MapAnnotation": noted,
        },
    )
    assert open_image(path).level(0).translation == (0.0, 0.0, 0.0)


def test_positions_of_a_stage_are_no_place(tmp_path):
    path = tmp_path / "a.ome.tif"
    at = {"PositionX": [5000.0] * 2, "PositionY": [900.0] * 2}
    tifffile.imwrite(
        path,
        np.zeros((2, 20, 30), np.uint8),
        metadata={"axes": "CYX", "PhysicalSizeX": 1.0, "PhysicalSizeY": 1.0, "Plane": at},
    )
    assert open_image(path).level(0).translation == (0.0, 0.0, 0.0)
