"""ome-zarr-py, the reference implementation of OME-Zarr in Python, in both directions."""

from __future__ import annotations

import numpy as np
import pytest

import microtome as mt

pytestmark = pytest.mark.interop

ome_zarr_io = pytest.importorskip("ome_zarr.io", reason="needs ome-zarr")
ome_zarr_reader = pytest.importorskip("ome_zarr.reader", reason="needs ome-zarr")
ome_zarr_writer = pytest.importorskip("ome_zarr.writer", reason="needs ome-zarr")
zarr = pytest.importorskip("zarr", reason="needs the interop extra")


def nodes(path):
    return list(ome_zarr_reader.Reader(ome_zarr_io.parse_url(str(path), mode="r"))())


def test_every_level_is_read_as_written(written):
    (node,) = nodes(written.path)
    assert node.metadata["name"] == written.name
    assert [axis["name"] for axis in node.metadata["axes"]] == list(written.axes)
    assert len(node.data) == len(written.levels)
    for level, (pixels, expected) in enumerate(zip(node.data, written.levels, strict=True)):
        scale, translation = node.metadata["coordinateTransformations"][level]
        assert tuple(scale["scale"]) == written.scale(level)
        assert tuple(translation["translation"]) == written.translation(level)
        assert pixels.dtype == expected.dtype
        np.testing.assert_array_equal(pixels.compute(), expected)


def test_channel_names(written_image):
    (node,) = nodes(written_image.path)
    names = written_image.channel_names or (written_image.name,)
    assert tuple(node.metadata["channel_names"]) == names


def test_labels_are_labels(written_labels):
    (node,) = nodes(written_labels.path)
    assert [type(spec) for spec in node.specs] == [
        ome_zarr_reader.Label,
        ome_zarr_reader.Multiscales,
    ]


# ---------------------------------------------------------------- images that it writes


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_what_it_writes_opens(tmp_path, digest, version):
    from ome_zarr.format import format_from_version

    path, form = tmp_path / "theirs.ome.zarr", format_from_version(version)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 5000, (3, 200, 151), dtype=np.uint16)
    labels = rng.integers(0, 2**20, (200, 151), dtype=np.uint32)
    group = zarr.open_group(path, mode="w", zarr_format=form.zarr_format)
    about = {
        "scale_factors": (2, 4),
        "fmt": form,
        "axes_units": {"y": "micrometer", "x": "micrometer"},
    }
    ome_zarr_writer.write_image(
        pixels, group, axes="cyx", scale={"c": 1.0, "y": 0.5, "x": 0.25}, **about
    )
    ome_zarr_writer.write_labels(
        labels, group, name="cells", axes="yx", scale={"y": 0.5, "x": 0.25}, scaler=None, **about
    )
    before = digest(path)
    image, cells = mt.open_image(path), mt.open_image(path / "labels" / "cells")
    assert image.axes == "cyx"
    assert (image.mpp.y, image.mpp.x, image.mpp.source) == (0.5, 0.25, "metadata")
    # It writes no names.
    assert image.channel_names == ("channel 0", "channel 1", "channel 2")
    assert (image.kind, cells.kind) == ("intensity", "labels")
    assert (cells.mpp.y, cells.mpp.x) == (0.5, 0.25)
    np.testing.assert_array_equal(image.level(0)[...], pixels)
    np.testing.assert_array_equal(cells.level(0)[...], labels)
    # Its levels drop an odd last column and say so in the scale: 151 -> 75 columns.
    assert image.level_shape(1) == (3, 100, 75)
    assert image.level(1).scale == pytest.approx((1.0, 1.0, 0.25 * 151 / 75), rel=1e-12)
    for ours, theirs in ((image, group), (cells, group["labels/cells"])):
        assert ours.level_count >= 3
        for level in range(ours.level_count):
            np.testing.assert_array_equal(ours.level(level)[...], theirs[f"s{level}"][...])
    assert digest(path) == before
