"""What an array's metadata say without the engine is what the engine says, or nothing."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from microtome.errors import InvalidInputError, ModeError, NotFoundError
from microtome.storage import Layout, ReadBatch, StoredArray, create_array, open_array
from microtome.storage import _transfers as transfers
from microtome.storage._facts import array_facts
from microtome.storage._handles import facts_of

BOX = ((0, 3), (0, 20), (0, 30))
SHARDED, PLAIN = Layout((1, 4, 4), (3, 8, 12)), Layout((2, 7, 50), None, "raw")


@pytest.fixture
def stored(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 999, (3, 20, 30)).astype(np.uint16)
    array = create_array(tmp_path / "a", shape=pixels.shape, dtype="u2", layout=SHARDED, axes="cyx")
    array.write(BOX, pixels)
    return tmp_path / "a", pixels


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "float16", "int64", "float64"])
@pytest.mark.parametrize("layout", [SHARDED, PLAIN], ids=["sharded", "plain"])
def test_facts_are_the_engines(tmp_path, dtype, layout):
    array = create_array(tmp_path / "a", shape=(3, 20, 30), dtype=dtype, layout=layout, axes="cyx")
    facts = array_facts(array.document)
    assert facts == facts_of(array._handle())
    assert facts.shape == (3, 20, 30)
    assert facts.dtype == np.dtype(dtype)
    assert facts.chunks == layout.chunk
    assert array.shards == layout.shard


@pytest.mark.interop
@pytest.mark.parametrize(
    "options",
    [{}, {"chunks": (3, 5)}, {"chunks": (3, 5), "shards": (9, 10)}, {"dtype": ">i2"},
     {"dtype": "complex64"}, {"filters": "transpose"}, {"zarr_format": 2}, {"shape": (0, 7)}],
    ids=repr,
)  # fmt: skip
def test_of_arrays_of_others_too(tmp_path, options):
    import zarr

    given = {"shape": (17, 23), "dtype": "uint8", "chunks": (17, 23), **options}
    if given.get("filters"):
        given["filters"] = [zarr.codecs.TransposeCodec(order=(1, 0))]
    zarr.create_array(tmp_path / "a", **given)
    array = open_array(tmp_path / "a")
    facts, known = array_facts(array.document), facts_of(array._handle())
    assert facts in {None, known}
    assert (facts is None) == bool(
        {"filters", "zarr_format"} & set(options) or "complex" in str(options)
    )
    assert array.shape == given["shape"]
    assert (array.chunks, array.write_unit) == (known.chunks, known.write_unit)


def spoilt(document, *path, value):
    changed = copy.deepcopy(document)
    at = changed
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return changed


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["zarr_format"], 2),
        (["node_type"], "group"),
        (["data_type"], "r16"),
        (["data_type"], {"name": "numpy.datetime64"}),
        (["shape"], [3, 20]),
        (["shape"], [3, -20, 30]),
        (["shape"], [3, 20.0, 30]),
        (["shape"], [3, True, 30]),
        (["shape"], "3"),
        (["chunk_grid", "name"], "rectilinear"),
        (["chunk_grid", "configuration", "chunk_shape"], [0, 8, 12]),
        (["chunk_grid", "configuration", "chunk_shape"], [[8, 8], 12]),
        (["codecs"], []),
        (["codecs", 0], "bytes"),
        (["codecs", 0], {"name": "transpose"}),
        (["codecs", 0, "configuration", "codecs", 0, "name"], "sharding_indexed"),
        (["codecs", 0, "configuration", "chunk_shape"], [1, 4]),
        (["codecs", 0, "configuration"], None),
    ],
    ids=repr,
)
def test_what_only_the_engine_understands_is_left_to_it(stored, path, value):
    document = open_array(stored[0]).document
    assert array_facts(document) is not None
    assert array_facts(spoilt(document, *path, value=value)) is None


def test_an_announced_array_is_looked_at_when_pixels_are_read(tmp_path, stored):
    path, pixels = stored
    document = open_array(path).document
    absent = open_array(tmp_path / "gone", document=document)
    assert (absent.shape, absent.dtype, absent.chunks) == ((3, 20, 30), np.uint16, (1, 4, 4))
    with pytest.raises(NotFoundError, match="gone"):
        absent.read(BOX)
    np.testing.assert_array_equal(open_array(path, document=document).read(BOX), pixels)
    # What is no document of an array is no announcement.
    np.testing.assert_array_equal(open_array(path, document={"a": 1}).read(BOX), pixels)


# ------------------------------------------------------------------ ways to read and write


def test_a_plane_is_the_box_of_all_that_comes_before(stored):
    path, pixels = stored
    array = open_array(path)
    for _ in range(2):  # opened by the first
        np.testing.assert_array_equal(array.read_plane((3, 9), (0, 30)), pixels[:, 3:9])
        np.testing.assert_array_equal(array.read_plane((0, 0), (4, 5)), pixels[:, :0, 4:5])
        for rows, columns in [
            ((3, 21), (0, 1)),
            ((-1, 2), (0, 1)),
            ((2, 1), (0, 1)),
            ((0, 1), (9, 31)),
        ]:
            with pytest.raises(InvalidInputError, match="does not lie inside"):
                array.read_plane(rows, columns)
    array.close()
    with pytest.raises(ModeError, match="is closed"):
        array.read_plane((0, 1), (0, 1))


def test_reads_of_a_batch_begin_when_it_ends(stored):
    path, pixels = stored
    array = open_array(path)
    boxes = [((0, 3), (y, y + 5), (y, y + 9)) for y in range(0, 15, 3)]
    outs = [np.zeros((3, 5, 9), np.uint16) for _ in boxes]
    with ReadBatch() as together:
        begun = [
            array.read_into(box, out, together=together)
            for box, out in zip(boxes, outs, strict=True)
        ]
    for read, out, (_, (top, bottom), (left, right)) in zip(begun, outs, boxes, strict=True):
        read.result()
        np.testing.assert_array_equal(out, pixels[:, top:bottom, left:right])


@pytest.mark.parametrize("most", [1, 10**9])
def test_many_files_are_written_a_few_at_a_time(tmp_path, monkeypatch, most):
    monkeypatch.setattr(transfers, "_BYTES_AT_ONCE", most)
    pixels = np.random.default_rng(0).integers(0, 999, (3, 90, 70)).astype(np.uint16)
    array = create_array(tmp_path / "a", shape=pixels.shape, dtype="u2", layout=SHARDED, axes="cyx")
    array.write(((0, 3), (0, 90), (0, 70)), pixels)
    array.write(((1, 2), (3, 85), (9, 60)), pixels[1:2, 5:87, 1:52])  # through the middle of files
    pixels[1:2, 3:85, 9:60] = pixels[1:2, 5:87, 1:52].copy()
    np.testing.assert_array_equal(
        StoredArray(tmp_path / "a").read(((0, 3), (0, 90), (0, 70))), pixels
    )
