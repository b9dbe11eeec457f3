"""Our own reads change nothing, and the check of that would notice if they did."""

from __future__ import annotations

import numpy as np
import pytest

import microtome as mt

pytestmark = pytest.mark.interop


def test_ours_reads_what_was_written_and_writes_nothing(written):
    image = mt.open_image(written.path)
    assert image.axes == written.axes
    assert image.name == written.name
    assert image.channel_names == written.channel_names
    assert (image.kind == "labels") == written.is_labels
    assert (image.mpp.y, image.mpp.x) == written.mpp
    assert image.level_count == len(written.levels)
    for level, expected in enumerate(written.levels):
        assert image.level(level).scale == written.scale(level)
        assert image.level(level).translation == written.translation(level)
        assert image.level(level).dtype == expected.dtype
        np.testing.assert_array_equal(image.level(level)[...], expected)


def test_every_way_of_reading_writes_nothing(written):
    assert mt.MultiscaleImage.exists(written.path)
    mt.info(written.path)
    image = mt.MultiscaleImage.open(written.path)
    image.read(0, (3, 40), (5, 60))
    image.read_spatial_region(1, (10, 10, 90, 70))
    image.read_at(mpp=written.mpp[0] * 1.7)
    image.close()


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "a" / "pixels").write_bytes(b"\1\2\4"),
        lambda root: (root / "a" / "pixels").rename(root / "a" / "pixel"),
        lambda root: (root / "a" / "empty").touch(),
        lambda root: (root / "folder").mkdir(),
        lambda root: (root / "zarr.json").unlink(),
    ],
    ids=["byte", "name", "empty file", "empty folder", "missing file"],
)
def test_a_change_is_noticed(tmp_path, digest, change):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "pixels").write_bytes(b"\1\2\3")
    (tmp_path / "zarr.json").write_text("{}")
    before = digest(tmp_path)
    assert digest(tmp_path) == before
    change(tmp_path)
    assert digest(tmp_path) != before
