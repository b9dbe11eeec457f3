"""zarr-python, the reference implementation of the storage: groups, arrays and every pixel."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.interop

zarr = pytest.importorskip("zarr", reason="needs the interop extra")


def test_a_group_of_arrays_and_nothing_else(written):
    group = zarr.open_group(written.path, mode="r")
    assert group.metadata.zarr_format == 3
    assert sorted(group.keys()) == [str(level) for level in range(len(written.levels))]
    assert sorted(group.array_keys()) == sorted(group.keys())
    assert group.attrs["ome"]["version"] == "0.5"


def test_arrays(written):
    group = zarr.open_group(written.path, mode="r")
    for level, expected in enumerate(written.levels):
        array = group[str(level)]
        assert array.shape == expected.shape
        assert array.dtype == expected.dtype
        assert array.metadata.dimension_names == tuple(written.axes)
        # Few files a slide, and one plane a chunk: the only layout that web viewers accept.
        assert array.shards is not None
        assert array.chunks[:-2] == (1,) * (len(written.axes) - 2)
        np.testing.assert_array_equal(array[...], expected)


def test_windows_across_chunks_and_shards(write_image, digest):
    written = write_image("multiplex")
    before = digest(written.shelf)
    pixels = written.levels[0]
    array = zarr.open_array(written.path / "0", mode="r")
    assert array.shape[-2] > array.shards[-2]
    for window in (np.s_[3, 1000:1030, 120:140], np.s_[::7, 127:129, 250:], np.s_[:, 1023:1025, 0]):
        np.testing.assert_array_equal(array[window], pixels[window])
    assert digest(written.shelf) == before


def test_channel_names_and_display_ranges(written_image):
    attributes = zarr.open_group(written_image.path, mode="r").attrs["ome"]
    channels = attributes["omero"]["channels"]
    names = written_image.channel_names or (written_image.name,)
    assert tuple(channel["label"] for channel in channels) == names
    for channel in channels:
        low, high = channel["window"]["start"], channel["window"]["end"]
        assert channel["window"]["min"] <= low < high <= channel["window"]["max"]
        assert len(channel["color"]) == 6
        int(channel["color"], 16)


def test_labels_say_so(written_labels):
    attributes = zarr.open_group(written_labels.path, mode="r").attrs["ome"]
    assert attributes["image-label"]["version"] == "0.5"
    assert "omero" not in attributes
    assert np.issubdtype(zarr.open_array(written_labels.path / "0", mode="r").dtype, np.integer)
