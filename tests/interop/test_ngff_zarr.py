"""ngff-zarr, in both directions: it checks metadata by the schemas of the specification itself."""

from __future__ import annotations

import json

import numpy as np
import pytest

import microtome as mt

pytestmark = pytest.mark.interop

ngff_zarr = pytest.importorskip("ngff_zarr", reason="needs the interop extra")


def test_the_schemas_of_the_specification(written):
    attributes = json.loads((written.path / "zarr.json").read_text())["attributes"]
    ngff_zarr.validate(attributes, version="0.5", model="image")
    if written.is_labels:
        ngff_zarr.validate(attributes, version="0.5", model="label")


def test_every_level_is_read_as_written(written):
    found = ngff_zarr.from_ngff_zarr(str(written.path), validate=True)
    assert len(found.images) == len(written.levels)
    for level, (image, expected) in enumerate(zip(found.images, written.levels, strict=True)):
        assert image.name == written.name
        assert tuple(image.dims) == tuple(written.axes)
        assert image.scale == dict(zip(written.axes, written.scale(level), strict=True))
        assert image.translation == dict(zip(written.axes, written.translation(level), strict=True))
        assert {image.axes_units[axis] for axis in "yx"} == {"micrometer"}
        pixels = image.data.compute()
        assert pixels.dtype == expected.dtype
        np.testing.assert_array_equal(pixels, expected)


def test_channel_names(written_image):
    omero = ngff_zarr.from_ngff_zarr(str(written_image.path)).metadata.omero
    names = written_image.channel_names or (written_image.name,)
    assert tuple(channel.label for channel in omero.channels) == names


# ---------------------------------------------------------------- images that it writes


def write(path, version, *, units="micrometer", omero=None):
    pixels = np.random.default_rng(0).integers(0, 5000, (3, 200, 150), dtype=np.uint16)
    image = ngff_zarr.to_ngff_image(
        pixels,
        dims=("c", "y", "x"),
        scale={"c": 1.0, "y": 0.5, "x": 0.25},
        translation={"c": 0.0, "y": 10.0, "x": 20.0},
        axes_units=units and dict.fromkeys("yx", units),
        name="theirs",
    )
    # Not its default method, which compiles WebAssembly for half a minute.
    method = ngff_zarr.Methods.DASK_BIN_SHRINK
    levels = ngff_zarr.to_multiscales(image, scale_factors=[2, 4], chunks=64, method=method)
    levels.metadata.omero = omero
    ngff_zarr.to_ngff_zarr(str(path), levels, version=version)
    return [np.asarray(level.data) for level in levels.images]


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6"])
def test_what_it_writes_opens(tmp_path, digest, version):
    path = tmp_path / "theirs.ome.zarr"
    expected = write(path, version)
    before = digest(path)
    image = mt.open_image(path)
    assert image.level_count == 3
    assert image.axes == "cyx"
    assert (image.mpp.y, image.mpp.x, image.mpp.source) == (0.5, 0.25, "metadata")
    assert image.level(0).translation == (0.0, 10.0, 20.0)
    assert image.channel_names == ("channel 0", "channel 1", "channel 2")
    for level, pixels in enumerate(expected):
        factor = 2**level
        assert image.level(level).scale == (1.0, 0.5 * factor, 0.25 * factor)
        assert image.level_shape(level) == pixels.shape
        np.testing.assert_array_equal(image.level(level)[...], pixels)
    assert digest(path) == before


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6"])
def test_its_channel_names_are_kept(tmp_path, version):
    channels = [
        ngff_zarr.OmeroChannel(
            color="FFFFFF", label=name, window=ngff_zarr.OmeroWindow(min=0, max=9, start=0, end=9)
        )
        for name in ("DNA", "CD3", "CD8")
    ]
    write(tmp_path / "a.ome.zarr", version, omero=ngff_zarr.Omero(channels=channels))
    assert mt.open_image(tmp_path / "a.ome.zarr").channel_names == ("DNA", "CD3", "CD8")


def test_its_units_are_converted(tmp_path):
    write(tmp_path / "a.ome.zarr", "0.5", units="nanometer")
    image = mt.open_image(tmp_path / "a.ome.zarr")
    assert (image.mpp.y, image.mpp.x) == pytest.approx((0.0005, 0.00025), rel=1e-12)


def test_without_units_nothing_is_assumed(tmp_path):
    expected = write(tmp_path / "a.ome.zarr", "0.5", units=None)
    image = mt.open_image(tmp_path / "a.ome.zarr")
    assert image.mpp is None
    with pytest.raises(mt.MicrotomeError, match="--mpp"):
        image.read_at(mpp=1.0)
    given = mt.open_image(tmp_path / "a.ome.zarr", mpp=0.5)
    assert (given.mpp.y, given.mpp.x, given.mpp.source) == (0.5, 0.5, "user")
    np.testing.assert_array_equal(given.level(0)[...], expected[0])
