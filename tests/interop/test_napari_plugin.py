"""The reader that napari finds by our manifest: layers where the image says, read where shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import microtome.interop
from microtome.errors import InvalidInputError
from microtome.image import MultiscaleImage
from microtome.interop import napari_get_reader, napari_layers, napari_tiles
from microtome.sources import open_image
from microtome.tiling import TileTable

RNG = np.random.default_rng(0)
MANIFEST = Path(microtome.interop.__file__).parent / "napari.yaml"


def stored(path, pixels, axes, **options):
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


def tiles(tissue_id="t1"):
    return TileTable.from_columns(
        {"tissue_id": tissue_id, "row": [0, 20], "col": [4, 8], "tissue_frac": [0.5, 1.0]},
        tile_size=(10, 20),
        strategy="grid",
    )


def test_a_channel_is_a_layer(tmp_path):
    pixels = RNG.integers(0, 65535, (3, 300, 420), np.uint16)
    image = stored(tmp_path / "a.ome.zarr", pixels, "cyx", mpp=(0.25, 0.5), name="a")
    reader = napari_get_reader(str(tmp_path / "a.ome.zarr"))
    layers = reader(str(tmp_path / "a.ome.zarr"))
    assert len(layers) == 3
    for number, (data, options, kind) in enumerate(layers):
        assert (kind, options["multiscale"]) == ("image", True)
        assert options["scale"] == [0.25, 0.5]
        assert options["units"] == ["micrometer", "micrometer"]
        assert options["contrast_limits"] == (0, 65535)
        for index, level in enumerate(data):
            expected = image.level(index)[...][number]
            assert (level.shape, level.ndim, level.dtype) == (expected.shape, 2, expected.dtype)
            np.testing.assert_array_equal(np.asarray(level), expected)


def test_colour_is_one_layer_and_labels_are_labels(tmp_path):
    pixels = RNG.integers(0, 255, (3, 40, 50), np.uint8)
    image = open_image(pixels, axes="cyx", mpp=1.0, channel_names=["Red", "green", "blue"])
    ((data, options, kind),) = napari_layers(image)
    assert (kind, options["rgb"], options["multiscale"]) == ("image", True, False)
    np.testing.assert_array_equal(np.asarray(data), np.moveaxis(pixels, 0, -1))
    labels = open_image(pixels[0].astype(np.uint32), axes="yx", kind="labels")
    ((data, options, kind),) = napari_layers(labels)
    assert kind == "labels"
    assert "contrast_limits" not in options
    assert labels.mpp is None
    assert "units" not in options
    np.testing.assert_array_equal(data[...], pixels[0])


@pytest.mark.parametrize(
    "key",
    [
        ...,
        3,
        (1, slice(2, 9)),
        (slice(None), 5),
        (slice(3, None, 4), slice(None, None, -3)),
        (slice(20, 10), slice(1, 2)),
        (..., slice(4, 6)),
        (-1, -2),
        (1, ..., np.int64(3)),
    ],
    ids=str,
)
def test_pixels_are_indexed_as_by_numpy(key):
    pixels = RNG.integers(0, 9999, (2, 31, 43), np.uint16)
    image = open_image(pixels, axes="cyx", mpp=1.0)
    for number, (data, _, _) in enumerate(napari_layers(image)):
        np.testing.assert_array_equal(data[key], pixels[number][key])


def test_tiles_lie_on_the_pixels_they_show():
    shapes, options, kind = napari_tiles(tiles(), mpp=0.5)
    assert kind == "shapes"
    assert options["scale"] == (0.5, 0.5)
    np.testing.assert_array_equal(shapes[1], [[19.5, 7.5], [19.5, 27.5], [29.5, 27.5], [29.5, 7.5]])
    assert options["features"]["tissue_frac"] == [0.5, 1.0]
    assert options["features"]["tile_id"] == [0, 1]
    with pytest.raises(InvalidInputError, match="2 tissues"):
        napari_tiles(tiles(["t1", "t2"]))


def test_what_is_no_image_is_left_to_others(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"nothing")
    assert napari_get_reader(str(tmp_path / "a.tif")) is None
    assert napari_get_reader(str(tmp_path)) is None
    assert napari_get_reader([str(tmp_path / "a.tif")]) is None


def test_the_log_says_why_a_file_is_left_to_others(tmp_path, caplog):
    (tmp_path / "a.tif").write_bytes(b"nothing")
    assert napari_get_reader(str(tmp_path / "a.tif")) is None
    (record,) = caplog.records
    assert "a.tif to other readers: " in record.getMessage()


def test_a_file_of_several_images_is_refused_with_the_reason(shared_data):
    path = str(shared_data / "imc/raw/20210305_NE_mockData2.mcd")
    reader = napari_get_reader(path)
    assert reader is not None
    with pytest.raises(InvalidInputError, match=r"holds 3 images; say which.*napari_layers\("):
        reader(path)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (
            np.array([[[-1.5, 2], [7, 0]], [[3, np.nan], [np.inf, 4]]], np.float32),
            [(-1.5, 7), (3, 4)],
        ),
        (np.array([[[5, 9], [70_000, 6]], [[0, 0], [0, 0]]], np.uint32), [(5, 70_000), (0, 1)]),
        (np.full((2, 2, 2), np.nan, np.float64), [None, None]),
        (np.zeros((2, 2, 2), np.uint8), [(0, 255), (0, 255)]),
    ],
    ids=["float", "long", "nan", "byte"],
)
def test_contrast_is_what_a_channel_has(pixels, expected):
    image = open_image(pixels, axes="cyx", mpp=1.0)
    found = [options.get("contrast_limits") for _, options, _ in napari_layers(image)]
    assert found == expected


def test_contrast_is_looked_up_in_the_middle_of_the_coarsest_level(tmp_path):
    pixels = RNG.normal(0, 50, (2, 600, 700)).astype(np.float32)
    image = stored(tmp_path / "a.ome.zarr", pixels, "cyx", mpp=1.0)
    coarsest = image.level(image.level_count - 1)[...]
    for number, (_, options, _) in enumerate(napari_layers(image)):
        seen = coarsest[number]
        assert options["contrast_limits"] == (seen.min(), seen.max())
    # One level alone, and larger than what is looked at.
    strip = np.zeros((1, 3, 5000), np.float32)
    strip[..., 0], strip[..., 2500] = 9, 4
    ((_, options, _),) = napari_layers(open_image(strip, axes="cyx", mpp=1.0))
    assert options["contrast_limits"] == (0, 4)


@pytest.mark.interop
def test_the_manifest_names_what_there_is():
    npe2 = pytest.importorskip("npe2", reason="needs the interop extra")
    manifest = npe2.PluginManifest.from_file(MANIFEST)
    assert manifest.name == "microtome"
    (command,) = manifest.contributions.commands
    assert command.python_name == "microtome.interop:napari_get_reader"
    (reader,) = manifest.contributions.readers
    assert reader.command == command.id
    assert reader.accepts_directories


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_napari_shows_the_layers(tmp_path):
    components = pytest.importorskip("napari.components", reason="needs the interop extra")
    pixels = RNG.integers(0, 65535, (2, 300, 420), np.uint16)
    image = stored(tmp_path / "a.ome.zarr", pixels, "cyx", mpp=0.5, name="a")
    viewer = components.ViewerModel()
    for data, options, kind in [*napari_layers(image), napari_tiles(tiles(), mpp=0.5)]:
        getattr(viewer, f"add_{kind}")(data, **options)
    first, second, drawn = viewer.layers
    for number, layer in enumerate((first, second)):
        assert tuple(layer.scale) == (0.5, 0.5)
        assert len(layer.data) == image.level_count
        np.testing.assert_array_equal(np.asarray(layer.data[0]), pixels[number])
    assert len(drawn.data) == 2
    assert list(drawn.features["tissue_frac"]) == [0.5, 1.0]
    # In micrometres a tile covers the pixels that it is of.
    low, high = drawn.extent.world
    np.testing.assert_allclose(high - low, [15.0, 12.0], atol=1.0)
