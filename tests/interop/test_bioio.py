"""bioio with its OME-Zarr plugin, in both directions."""

from __future__ import annotations

import numpy as np
import pytest

import microtome as mt

pytestmark = pytest.mark.interop

bioio = pytest.importorskip("bioio", reason="needs the interop extra")
bioio_ome_zarr = pytest.importorskip("bioio_ome_zarr", reason="needs the interop extra")
writers = pytest.importorskip("bioio_ome_zarr.writers", reason="needs the interop extra")


def test_what_it_says_of_an_image(written):
    image = bioio.BioImage(written.path, reader=bioio_ome_zarr.Reader)
    assert image.scenes == (written.name,)
    assert image.reader.dims.order == written.axes.upper()
    assert image.reader.shape == written.levels[0].shape
    sizes = dict(zip(written.axes.upper(), written.levels[0].shape, strict=True))
    assert image.shape == tuple(sizes.get(axis, 1) for axis in "TCZYX")
    assert image.dtype == written.levels[0].dtype
    assert image.resolution_levels == tuple(range(len(written.levels)))
    if written.channel_names is not None:
        assert tuple(image.channel_names) == written.channel_names
    assert image.dimension_properties.Y.unit == "micrometer"


def test_every_level_is_read_as_written(written):
    image = bioio.BioImage(written.path, reader=bioio_ome_zarr.Reader)
    for level, expected in enumerate(written.levels):
        image.set_resolution_level(level)
        sizes = image.physical_pixel_sizes
        assert written.scale(level)[-2:] == (sizes.Y, sizes.X)
        pixels = image.reader.data
        assert pixels.dtype == expected.dtype
        np.testing.assert_array_equal(pixels, expected)


def test_it_finds_its_plugin_by_itself(write_image, digest):
    written = write_image("heat_map")
    before = digest(written.shelf)
    image = bioio.BioImage(written.path)
    assert isinstance(image.reader, bioio_ome_zarr.Reader)
    np.testing.assert_array_equal(image.get_image_data("YX"), written.levels[0])
    assert digest(written.shelf) == before


# ---------------------------------------------------------------- images that it writes


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_what_it_writes_opens(tmp_path, digest, zarr_format):
    path = tmp_path / "theirs.ome.zarr"
    pixels = np.random.default_rng(0).integers(0, 5000, (3, 200, 150), dtype=np.uint16)
    writer = writers.OMEZarrWriter(
        store=str(path),
        level_shapes=[(3, 200, 150), (3, 100, 75)],
        dtype=pixels.dtype,
        zarr_format=zarr_format,
        channels=[writers.Channel(label=name, color="FFFFFF") for name in ("DNA", "CD3", "CD8")],
        axes_names=["c", "y", "x"],
        axes_types=["channel", "space", "space"],
        axes_units=[None, "micrometer", "micrometer"],
        physical_pixel_size=[1.0, 0.5, 0.25],
    )
    writer.write_full_volume(pixels)
    before = digest(path)
    image = mt.open_image(path)
    assert image.axes == "cyx"
    assert (image.mpp.y, image.mpp.x, image.mpp.source) == (0.5, 0.25, "metadata")
    assert image.channel_names == ("DNA", "CD3", "CD8")
    assert [image.level_shape(level) for level in range(2)] == [(3, 200, 150), (3, 100, 75)]
    assert image.level(1).scale == (1.0, 1.0, 0.5)
    np.testing.assert_array_equal(image.level(0)[...], pixels)
    theirs = bioio.BioImage(path, reader=bioio_ome_zarr.Reader)
    theirs.set_resolution_level(1)
    np.testing.assert_array_equal(image.level(1)[...], theirs.reader.data)
    assert digest(path) == before
