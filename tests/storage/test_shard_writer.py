"""Shards written without the engine are, byte for byte, those that the engine writes."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.errors import StorageError
from microtome.storage import Layout, array_metadata, create_array, open_array
from microtome.storage._shard_writer import ShardWriter


def boxes_of(shape, shard):
    for corner in np.ndindex(*(-(-n // s) for n, s in zip(shape, shard, strict=True))):
        yield tuple(
            (i * s, min((i + 1) * s, n)) for i, s, n in zip(corner, shard, shape, strict=True)
        )


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@settings(max_examples=25)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 40), st.integers(1, 40)),
    chunk=st.tuples(st.integers(1, 2), st.integers(1, 16), st.integers(1, 16)),
    times=st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 3)),
    dtype=st.sampled_from(["bool", "u1", "i2", "u2", "i4", "u8", "f2", "f4", "f8"]),
    codec=st.sampled_from(["fast", "small", "train"]),
    most=st.sampled_from([0, 1, 200]),
    seed=st.integers(0, 100),
)
def test_the_bytes_are_the_engines(shape, chunk, times, dtype, codec, most, seed):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, most, shape, endpoint=True).astype(dtype)
    # Whole chunks of zeros, which have no bytes; negative ones are none.
    pixels[:, shape[1] // 2 :] *= False
    if pixels.dtype.kind == "f":
        pixels[:, :, shape[2] // 2 :] *= -1
    layout = Layout(chunk, tuple(c * t for c, t in zip(chunk, times, strict=True)), codec)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("engine", "own")]
        engine, _ = [
            create_array(path, shape=shape, dtype=dtype, layout=layout, axes="cyx")
            for path in paths
        ]
        writer = ShardWriter.of(paths[1], array_metadata(paths[1]))
        assert writer is not None
        for box in boxes_of(shape, engine.write_unit):
            part = pixels[tuple(slice(*span) for span in box)]
            assert writer.takes(box, part)
            engine.write(box, part)
            writer.write(box, part)
        # In LZ4HC, noise is stored here as it is.
        if codec != "train":
            assert files_of(paths[0]) == files_of(paths[1])
        assert set(files_of(paths[0])) == set(files_of(paths[1]))
        read = open_array(paths[1]).read(tuple((0, size) for size in shape))
        np.testing.assert_array_equal(read.view(np.uint8), pixels.view(np.uint8))


def test_a_shard_is_written_again(tmp_path):
    layout = Layout((8, 8), (16, 16), "fast")
    array = create_array(tmp_path / "a", shape=(16, 16), dtype="u1", layout=layout, axes="yx")
    writer = ShardWriter.of(tmp_path / "a", array_metadata(tmp_path / "a"))
    box = ((0, 16), (0, 16))
    for value in (3, 0, 5):
        writer.write(box, np.full((16, 16), value, np.uint8))
        assert (array.read(box) == value).all()
    assert sorted(files_of(tmp_path / "a")) == ["c/0/0", "zarr.json"]


@pytest.mark.parametrize(
    "box", [((0, 8), (0, 16)), ((8, 24), (0, 16)), ((0, 16), (16, 24)), ((0, 32), (0, 16))]
)
def test_only_whole_shards_are_taken(tmp_path, box):
    layout = Layout((8, 8), (16, 16), "fast")
    create_array(tmp_path / "a", shape=(40, 30), dtype="u1", layout=layout, axes="yx")
    writer = ShardWriter.of(tmp_path / "a", array_metadata(tmp_path / "a"))
    shape = tuple(stop - start for start, stop in box)
    assert not writer.takes(box, np.zeros(shape, np.uint8))
    edge = ((0, 16), (16, 30))
    assert writer.takes(edge, np.zeros((16, 14), np.uint8))
    assert not writer.takes(edge, np.zeros((16, 14), np.uint16))
    assert not writer.takes(edge, np.zeros((14, 16), np.uint8))


@pytest.mark.parametrize(
    "change",
    [
        {"fill_value": 7},
        {"zarr_format": 2},
        {"chunk_key_encoding": {"name": "v2"}},
        {"codecs": [{"name": "bytes", "configuration": {"endian": "little"}}]},
        {"data_type": "complex64"},
    ],
)
def test_what_is_odd_is_left_to_the_engine(tmp_path, change):
    layout = Layout((8, 8), (16, 16), "fast")
    create_array(tmp_path / "a", shape=(40, 30), dtype="u1", layout=layout, axes="yx")
    document = array_metadata(tmp_path / "a")
    assert ShardWriter.of(tmp_path / "a", document) is not None
    assert ShardWriter.of(tmp_path / "a", {**document, **change}) is None


def test_a_codec_that_is_not_blosc_is_left_to_the_engine(tmp_path):
    for codec in ("labels", "raw"):
        layout = Layout((8, 8), (16, 16), codec)
        create_array(tmp_path / codec, shape=(40, 30), dtype="u1", layout=layout, axes="yx")
        assert ShardWriter.of(tmp_path / codec, array_metadata(tmp_path / codec)) is None


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_disk_that_refuses_is_told(tmp_path):
    layout = Layout((8, 8), (16, 16), "fast")
    create_array(tmp_path / "a", shape=(16, 16), dtype="u1", layout=layout, axes="yx")
    writer = ShardWriter.of(tmp_path / "a", json.loads((tmp_path / "a" / "zarr.json").read_text()))
    (tmp_path / "a").chmod(0o500)
    try:
        with pytest.raises(StorageError, match="not allowed to write"):
            writer.write(((0, 16), (0, 16)), np.ones((16, 16), np.uint8))
    finally:
        (tmp_path / "a").chmod(0o700)


def test_a_failure_leaves_no_file(tmp_path, monkeypatch):
    layout = Layout((8, 8), (16, 16), "fast")
    create_array(tmp_path / "a", shape=(16, 16), dtype="u1", layout=layout, axes="yx")
    writer = ShardWriter.of(tmp_path / "a", array_metadata(tmp_path / "a"))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="no space left"):
        writer.write(((0, 16), (0, 16)), np.ones((16, 16), np.uint8))
    assert sorted(files_of(tmp_path / "a")) == ["zarr.json"]
