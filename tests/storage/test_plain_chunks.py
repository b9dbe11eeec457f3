"""Chunks that are files of their own, as most other writers have them: read as the engine reads them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.errors import MicrotomeError
from microtome.storage import BoxBatch, Layout, _batches, array_metadata, create_array, open_array
from microtome.storage._chunks import ChunkReader

zarr = pytest.importorskip("zarr")
numcodecs = pytest.importorskip("numcodecs")

DTYPES = ["bool", "uint8", "int8", "uint16", "int32", "uint64", "float32", "float64"]
OLD = {
    "none": None,
    "lz4": numcodecs.Blosc("lz4", 5, numcodecs.Blosc.SHUFFLE),
    "zstd in blosc": numcodecs.Blosc("zstd", 1, numcodecs.Blosc.BITSHUFFLE),
    "zstd": numcodecs.Zstd(1),
}
NEW = {
    "none": None,
    "lz4": zarr.codecs.BloscCodec(cname="lz4", shuffle="shuffle"),
    "zstd in blosc": zarr.codecs.BloscCodec(cname="zstd", shuffle="bitshuffle"),
    "zstd": zarr.codecs.ZstdCodec(level=1),
}


def made(path, pixels, chunk, version, codec, **options):
    stored = zarr.create_array(
        str(path), shape=pixels.shape, chunks=chunk, dtype=pixels.dtype, zarr_format=version,
        compressors=(OLD if version == 2 else NEW)[codec], **options,
    )  # fmt: skip
    stored[...] = pixels
    return path


def boxes_of(path, lows, size):
    """Read boxes of one size with a new handle; None where the engine has to."""
    stored = open_array(path)
    out = np.full((len(lows), *size), 7, stored.dtype)
    low = np.asarray(lows, np.int64)
    targets = np.arange(len(lows)) * out.strides[0]
    boxes = BoxBatch(low, low + size, out, targets, out.strides[1:])
    return out if stored.read_boxes(boxes) else None


@settings(max_examples=60, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("way", ["compiled", "plain"])
def test_what_another_writer_wrote_equals_numpy(tmp_path_factory, data, way):
    if way == "compiled":
        pytest.importorskip("numba")
    rank = data.draw(st.integers(1, 4))
    shape = tuple(data.draw(st.integers(1, 17)) for _ in range(rank))
    chunk = tuple(data.draw(st.integers(1, n)) for n in shape)
    version, codec = data.draw(st.sampled_from([2, 3])), data.draw(st.sampled_from(sorted(NEW)))
    name = data.draw(st.sampled_from(["default", "v2"])) if version == 3 else "v2"
    separator = data.draw(st.sampled_from([".", "/"]))
    dtype = np.dtype(data.draw(st.sampled_from(DTYPES)))
    fill = data.draw(st.sampled_from([0, 1]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    pixels = (rng.random(shape) * 120).astype(dtype)
    # Chunks of nothing but the fill value are not written at all.
    part = tuple(slice(0, data.draw(st.integers(0, n))) for n in shape)
    pixels[part] = fill
    path = made(
        tmp_path_factory.mktemp("a") / "a", pixels, chunk, version, codec,
        fill_value=dtype.type(fill).item(), chunk_key_encoding={"name": name, "separator": separator},
    )  # fmt: skip
    reader = ChunkReader.of(str(path), array_metadata(path))
    assert reader is not None
    compiled = _batches._COMPILER.load() if way == "compiled" else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_batches._COMPILER, "after", lambda _: compiled)
        patch.setattr(_batches, "_MOST_FILES", data.draw(st.integers(1, 4)))
        for _ in range(3):
            size = tuple(data.draw(st.integers(1, n)) for n in shape)
            lows = [
                [data.draw(st.integers(0, n - s)) for n, s in zip(shape, size, strict=True)]
                for _ in range(data.draw(st.integers(1, 4)))
            ]
            found = boxes_of(path, lows, size)
            assert found is not None
            for low, box in zip(lows, found, strict=True):
                inside = tuple(slice(a, a + s) for a, s in zip(low, size, strict=True))
                np.testing.assert_array_equal(box, pixels[inside])
            one = np.full(size, 7, dtype)
            bounds = tuple((a, a + s) for a, s in zip(lows[0], size, strict=True))
            assert reader.read_into(bounds, one)
            np.testing.assert_array_equal(one, found[0])


@pytest.fixture(scope="module")
def noise():
    rng = np.random.default_rng(0)
    return rng.poisson(rng.gamma(1, 90, (3, 150, 150))).astype(np.uint16)


def test_no_more_files_are_open_than_a_process_may_have(tmp_path, noise, engine, monkeypatch):
    path = made(tmp_path / "a", noise, (1, 10, 10), 2, "lz4")
    monkeypatch.setattr(_batches, "_MOST_FILES", 16)
    held = []
    own = _batches._read

    def counting(*arguments):
        held.append(len(set(arguments[2].shard.tolist())))
        return own(*arguments)

    monkeypatch.setattr(_batches, "_read", counting)
    found = boxes_of(path, [[0, 0, 0], [0, 5, 5]], (3, 140, 140))
    np.testing.assert_array_equal(found[0], noise[:, :140, :140])
    np.testing.assert_array_equal(found[1], noise[:, 5:145, 5:145])
    assert max(held) == 16
    assert sum(held) == 3 * 15 * 15


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.__setitem__("zarr_format", 1),
        lambda d: d.__setitem__("order", "F"),
        lambda d: d.__setitem__("filters", [{"id": "delta"}]),
        lambda d: d.__setitem__("compressor", {"id": "gzip", "level": 1}),
        lambda d: d.__setitem__("compressor", {}),
        lambda d: d.__setitem__("dtype", ">u2"),
        lambda d: d.__setitem__("dtype", "<c8"),
        lambda d: d.__setitem__("dtype", [["a", "<u2"]]),
        lambda d: d.__setitem__("fill_value", "NaN"),
        lambda d: d.__setitem__("dimension_separator", "-"),
        lambda d: d.__setitem__("chunks", [1, 50]),
        lambda d: d.__setitem__("chunks", [1, 0, 50]),
        lambda d: d.__setitem__("shape", []),
        lambda d: d.pop("chunks"),
    ],
    ids=map(str, range(14)),
)
def test_what_is_odd_in_old_metadata_is_left_to_the_engine(tmp_path, noise, change):
    document = array_metadata(made(tmp_path / "a", noise, (1, 50, 50), 2, "lz4"))
    assert ChunkReader.of(str(tmp_path / "a"), document) is not None
    change(document)
    assert ChunkReader.of(str(tmp_path / "a"), document) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["chunk_grid"].__setitem__("name", "rectilinear"),
        lambda d: d["chunk_key_encoding"].__setitem__("name", "other"),
        lambda d: d["chunk_key_encoding"].__setitem__("configuration", {"separator": "-"}),
        lambda d: d.__setitem__("storage_transformers", [{"name": "x"}]),
        lambda d: d.__setitem__("data_type", "complex64"),
        lambda d: d["codecs"][0].__setitem__("configuration", {"endian": "big"}),
        lambda d: d["codecs"][1].__setitem__("name", "gzip"),
        lambda d: d["codecs"].append({"name": "crc32c"}),
        lambda d: d["codecs"].insert(0, {"name": "transpose"}),
        lambda d: d["codecs"].clear(),
        lambda d: d.__setitem__("fill_value", [0]),
    ],
    ids=map(str, range(11)),
)
def test_what_is_odd_in_new_metadata_is_left_to_the_engine(tmp_path, noise, change):
    document = array_metadata(made(tmp_path / "a", noise, (1, 50, 50), 3, "lz4"))
    assert ChunkReader.of(str(tmp_path / "a"), document) is not None
    change(document)
    assert ChunkReader.of(str(tmp_path / "a"), document) is None


def test_no_fill_value_reads_as_the_engine_has_it(tmp_path, noise, engine):
    path = made(tmp_path / "a", noise, (1, 50, 50), 2, "lz4")
    document = json.loads((path / ".zarray").read_text())
    (path / ".zarray").write_text(json.dumps(document | {"fill_value": None}))
    (path / "0.0.0").unlink()
    found = boxes_of(path, [[0, 0, 0]], (3, 60, 60))
    np.testing.assert_array_equal(found[0], open_array(path)._handle()[:, :60, :60].read().result())
    assert not found[0, 0, :50, :50].any()


def test_large_chunks_of_a_single_read_are_left_to_the_engine(tmp_path):
    pixels = np.zeros((1, 600, 600), np.uint16)
    reader = ChunkReader.of(
        str(made(tmp_path / "a", pixels, (1, 600, 600), 3, "zstd")), array_metadata(tmp_path / "a")
    )
    assert not reader.read_into(((0, 1), (0, 9), (0, 9)), np.empty((1, 9, 9), np.uint16))
    assert boxes_of(tmp_path / "a", [[0, 0, 0]], (1, 9, 9)) is not None


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("codec", sorted(NEW))
def test_damage_is_left_to_the_engine_and_never_believed(tmp_path, noise, engine, codec, version):
    path = made(tmp_path / "a", noise, (1, 75, 75), version, codec)
    file = path / ("0.0.0" if version == 2 else "c/0/0/0")
    whole = file.read_bytes()
    rng = random.Random(f"{codec}{version}")
    refused = 0
    for number in range(90):
        data = bytearray(whole)
        if number % 3 == 0:
            del data[rng.randrange(len(data)) :]
        elif number % 3 == 1:
            data[rng.randrange(min(64, len(data)))] = rng.randrange(256)
        else:
            for _ in range(rng.randint(1, 4)):
                data[rng.randrange(len(data))] = rng.randrange(256)
        beside = Path(f"{file}.new")
        beside.write_bytes(data)
        beside.replace(file)
        found = boxes_of(path, [[0, 0, 0]], noise.shape)
        try:
            expected = open_array(path)._handle()[...].read().result()
        except ValueError:
            expected = None
        if found is None:
            refused += 1
            with pytest.raises(MicrotomeError):
                open_array(path).read(tuple((0, n) for n in noise.shape))
        else:
            assert expected is not None, f"change {number}: read what the engine refuses"
            np.testing.assert_array_equal(found[0], expected)
    assert refused >= 29


def test_our_own_arrays_without_shards(tmp_path, noise, engine):
    stored = create_array(
        tmp_path / "a", shape=noise.shape, dtype="uint16", layout=Layout((1, 64, 64), None, "fast"),
        axes="cyx",
    )  # fmt: skip
    stored.write(tuple((0, n) for n in noise.shape), noise)
    found = boxes_of(tmp_path / "a", [[0, 20, 30]], (3, 100, 100))
    np.testing.assert_array_equal(found[0], noise[:, 20:120, 30:130])
