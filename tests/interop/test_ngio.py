"""ngio, in both directions; opened read-only, since by its default it writes to what it opens."""

from __future__ import annotations

import numpy as np
import pytest

import microtome as mt

pytestmark = pytest.mark.interop

ngio = pytest.importorskip("ngio", reason="needs ngio")


def test_every_level_is_read_as_written(written):
    container = ngio.open_ome_zarr_container(str(written.path), mode="r")
    assert container.level_paths == [str(level) for level in range(len(written.levels))]
    assert container.space_unit == "micrometer"
    assert container.list_labels() == []
    for level, expected in enumerate(written.levels):
        image = container.get_image(path=str(level))
        assert tuple(image.axes) == tuple(written.axes)
        assert image.shape == expected.shape
        assert (image.pixel_size.y, image.pixel_size.x) == written.scale(level)[-2:]
        assert tuple(image.dataset.scale) == written.scale(level)
        assert tuple(image.dataset.translation) == written.translation(level)
        np.testing.assert_array_equal(image.get_as_numpy(), expected)


def test_channel_names(written_image):
    container = ngio.open_ome_zarr_container(str(written_image.path), mode="r")
    names = written_image.channel_names or (written_image.name,)
    assert tuple(container.channel_labels) == names


def test_labels(written_labels):
    for level, expected in enumerate(written_labels.levels):
        label = ngio.open_label(str(written_labels.path), path=str(level), mode="r")
        assert (label.pixel_size.y, label.pixel_size.x) == written_labels.scale(level)
        np.testing.assert_array_equal(label.get_as_numpy(), expected)


# ---------------------------------------------------------------- images that it writes


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_what_it_writes_opens(tmp_path, digest, version):
    path = tmp_path / "theirs.ome.zarr"
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 5000, (3, 200, 150), dtype=np.uint16)
    labels = rng.integers(0, 2**20, (200, 150), dtype=np.uint32)
    container = ngio.create_ome_zarr_from_array(
        str(path),
        pixels,
        pixelsize=(0.5, 0.25),
        axes_names=("c", "y", "x"),
        channels_meta=["DNA", "CD3", "CD8"],
        levels=3,
        ngff_version=version,
    )
    drawn = container.derive_label("cells")
    drawn.set_array(labels)
    drawn.consolidate()
    before = digest(path)
    image, cells = mt.open_image(path), mt.open_image(path / "labels" / "cells")
    assert image.axes == "cyx"
    assert image.channel_names == ("DNA", "CD3", "CD8")
    assert (image.kind, cells.kind) == ("intensity", "labels")
    np.testing.assert_array_equal(image.level(0)[...], pixels)
    np.testing.assert_array_equal(cells.level(0)[...], labels)
    for ours, theirs in ((image, container.get_image), (cells, container.get_label)):
        assert (ours.mpp.y, ours.mpp.x, ours.mpp.source) == (0.5, 0.25, "metadata")
        assert ours.level_count == 3
        for level in range(3):
            name = {} if theirs == container.get_image else {"name": "cells"}
            expected = theirs(path=container.level_paths[level], **name)
            assert ours.level(level).scale[-2:] == (expected.pixel_size.y, expected.pixel_size.x)
            np.testing.assert_array_equal(ours.level(level)[...], expected.get_as_numpy())
    assert digest(path) == before
