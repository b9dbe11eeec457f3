"""A file that an image lost is told by whoever reads there, and not taken for pixels of 0."""

from __future__ import annotations

import json
import pickle
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import microtome as mt
from microtome.errors import NotFoundError
from microtome.regions import Windows, read_regions
from microtome.storage import Conversion, Layout, StorageOptions, _documents

SHARD = 40
SIZE = (2, 100, 130)
LAYOUTS = {
    "sharded": Layout((1, 20, 20), (2, SHARD, SHARD), "fast"),
    "other": Layout((2, SHARD, SHARD), None, "small"),
}


def pixels_of(empty):
    """Noise without a 0, and shards that hold nothing else."""
    pixels = np.random.default_rng(0).integers(1, 999, SIZE).astype(np.uint16)
    for row, column in empty:
        pixels[:, row * SHARD : (row + 1) * SHARD, column * SHARD : (column + 1) * SHARD] = 0
    return pixels


def write(path, pixels, layout=LAYOUTS["sharded"]):
    with mt.MultiscaleImage.create(
        path, type=pixels.dtype, level_shape=pixels.shape, mpp=0.5, layout=layout
    ) as image:
        image["level0"][...] = pixels


def absent_of(path):
    ours = json.loads((path / "zarr.json").read_text())["attributes"]["microtome"]
    return ours["absent_shards"]


def files_of(path):
    return sorted(file for file in (path / "0" / "c").rglob("*") if file.is_file())


places = st.sets(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=6)


@settings(max_examples=40, deadline=None)
@given(empty=places, lost=places, low=st.tuples(st.integers(0, 90), st.integers(0, 120)))
@pytest.mark.parametrize("way", ["level", "regions", "float regions", "with a cache", "pickled"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_read_is_right_or_an_error_whatever_is_lost(
    tmp_path_factory, layout, way, empty, lost, low
):
    path = tmp_path_factory.mktemp("a") / "a.ome.zarr"
    pixels = pixels_of(empty)
    write(path, pixels, LAYOUTS[layout])
    lost -= empty
    for row, column in lost:
        (path / f"0/c/0/{row}/{column}").unlink()
    options = StorageOptions(cache_bytes=1 << 20) if way == "with a cache" else None
    image = mt.MultiscaleImage.open(path, context=options)
    if way == "pickled":
        image["level0"][:, :1, :1] if (0, 0) not in lost else None
        image = pickle.loads(pickle.dumps(image))
    y, x = min(low[0], SIZE[1] - 10), min(low[1], SIZE[2] - 10)
    touched = set(
        product(range(y // SHARD, (y + 9) // SHARD + 1), range(x // SHARD, (x + 9) // SHARD + 1))
    )

    def read():
        if way in {"level", "with a cache", "pickled"}:
            return image["level0"][:, y : y + 10, x : x + 10]
        convert = Conversion.of() if way == "float regions" else None
        return read_regions([image], Windows.of(0, [[y, x]], 10), convert=convert)[0]

    if touched & lost:
        with pytest.raises(NotFoundError, match="is gone: the image was written with it"):
            read()
    else:
        np.testing.assert_array_equal(read(), pixels[:, y : y + 10, x : x + 10])


def test_what_is_not_there_is_written_down(tmp_path):
    empty = {(0, 1), (0, 2), (2, 3)}
    write(tmp_path / "a", pixels_of(empty))
    assert absent_of(tmp_path / "a") == {"0": [[1, 2], [11, 11]]}
    write(tmp_path / "b", pixels_of(()))
    assert absent_of(tmp_path / "b") == {"0": []}


def test_pixels_that_are_made_0_later_are_no_loss(tmp_path):
    write(tmp_path / "a", pixels_of(()))
    there = len(files_of(tmp_path / "a"))
    with mt.MultiscaleImage.open(tmp_path / "a", "w") as image:
        assert absent_of(tmp_path / "a") == {"0": []}, "to open it for writing changes nothing"
        image["level0"][:, :SHARD, :SHARD] = np.zeros((2, SHARD, SHARD), np.uint16)
    assert len(files_of(tmp_path / "a")) == there - 1
    assert absent_of(tmp_path / "a") == {}
    with mt.MultiscaleImage.open(tmp_path / "a") as image:
        np.testing.assert_array_equal(image["level0"][...], pixels_of([(0, 0)]))


def test_pixels_that_are_written_later_are_there(tmp_path):
    write(tmp_path / "a", pixels_of([(1, 1)]))
    whole = pixels_of(())
    with mt.MultiscaleImage.open(tmp_path / "a", "w") as image:
        image["level0"][...] = whole
    with mt.MultiscaleImage.open(tmp_path / "a") as image:
        np.testing.assert_array_equal(image["level0"][...], whole)


@pytest.mark.parametrize("damage", [None, {}, {"0": None}, {"0": [[1]]}, {"0": "all"}, {"0": 3}, 7])
def test_whatever_is_written_there_harms_no_read(tmp_path, damage):
    pixels = pixels_of(())
    write(tmp_path / "a", pixels)
    root = tmp_path / "a" / "zarr.json"
    document = json.loads(root.read_text())
    document["attributes"]["microtome"]["absent_shards"] = damage
    root.write_text(json.dumps(document))
    with mt.MultiscaleImage.open(tmp_path / "a") as image:
        np.testing.assert_array_equal(image["level0"][...], pixels)
    with mt.MultiscaleImage.open(tmp_path / "a", "w") as image:
        image["level0"][:, :1, :1] = pixels[:, :1, :1]


def test_what_it_was_published_with_is_listed(tmp_path):
    write(tmp_path / "a", pixels_of([(0, 0)]))
    with mt.MultiscaleImage.open(tmp_path / "a") as image:
        array = image.level(0).array
        found = [(tmp_path / "a" / "0" / name).resolve() for name in array.published_files()]
    assert found == [file.resolve() for file in files_of(tmp_path / "a")]
    assert len(found) == 11


def test_other_readers_see_nothing_of_it(tmp_path):
    zarr = pytest.importorskip("zarr")
    pixels = pixels_of([(1, 1)])
    write(tmp_path / "a", pixels)
    np.testing.assert_array_equal(zarr.open_group(tmp_path / "a", mode="r")["0"][...], pixels)
    assert (
        _documents.read_group(tmp_path / "a")["microtome"]
        .keys()
        .isdisjoint({"absent_shards", "arrays"})
    )
