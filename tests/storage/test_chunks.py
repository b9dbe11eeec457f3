"""Reading without the engine: equal to it wherever it reads at all, and never fooled by damage."""

from __future__ import annotations

import json
import random
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.errors import MicrotomeError
from microtome.storage import CODECS, Layout, array_metadata, create_array, open_array
from microtome.storage._chunks import ChunkReader
from microtome.storage._shard_files import SHARDS

DTYPES = ["bool", "uint8", "int8", "uint16", "int32", "uint64", "float16", "float32", "float64"]


def reader_of(path):
    return ChunkReader.of(str(path), array_metadata(path))


def read(reader, box, dtype):
    out = np.full([stop - start for start, stop in box], 7, dtype)
    return out if reader.read_into(box, out) else None


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_box_equals_numpy(tmp_path_factory, data):
    rank = data.draw(st.integers(1, 4))
    chunk = tuple(data.draw(st.integers(1, 5)) for _ in range(rank))
    shard = tuple(c * data.draw(st.integers(1, 3)) for c in chunk)
    shape = tuple(data.draw(st.integers(1, 17)) for _ in range(rank))
    dtype = data.draw(st.sampled_from(DTYPES))
    codec = data.draw(st.sampled_from(CODECS))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    pixels = (rng.random(shape) * 200).astype(dtype)
    # Parts that were never written, whole shards and single chunks.
    written = rng.random(shape) < 0
    array = create_array(
        tmp_path_factory.mktemp("a") / "a", shape=shape, dtype=dtype,
        layout=Layout(chunk, shard, codec), axes="tzyx"[-rank:],
    )  # fmt: skip
    for corner in product(*(range(0, n, c) for n, c in zip(shape, chunk, strict=True))):
        if rng.random() < 0.7:
            box = tuple((a, min(a + c, n)) for a, c, n in zip(corner, chunk, shape, strict=True))
            at = tuple(slice(*part) for part in box)
            array.write(box, pixels[at])
            written[at] = True
    expected = np.where(written, pixels, np.zeros(1, dtype))
    reader = reader_of(array.path)
    assert reader is not None
    for _ in range(5):
        box = []
        for size in shape:
            start = data.draw(st.integers(0, size))
            box.append((start, data.draw(st.integers(start, size))))
        found = read(reader, tuple(box), dtype)
        np.testing.assert_array_equal(found, expected[tuple(slice(*part) for part in box)])
        np.testing.assert_array_equal(found, array.read(tuple(box)))


@pytest.fixture
def array(tmp_path):
    """A shard of 3 x 3 in chunks, and more of them, of noise."""
    pixels = np.random.default_rng(0).integers(0, 900, (2, 90, 90), dtype=np.uint16)
    stored = create_array(
        tmp_path / "a", shape=pixels.shape, dtype="uint16",
        layout=Layout((1, 10, 10), (2, 30, 30), "fast"), axes="cyx",
    )  # fmt: skip
    stored.write(((0, 2), (0, 90), (0, 90)), pixels)
    return tmp_path / "a", pixels


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


WHOLE = ((0, 2), (0, 90), (0, 90))


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.__setitem__("zarr_format", 2),
        lambda d: d["chunk_grid"].__setitem__("name", "rectilinear"),
        lambda d: d["chunk_key_encoding"].__setitem__("name", "v2"),
        lambda d: d["chunk_key_encoding"].__setitem__("configuration", {"separator": "."}),
        lambda d: d.__setitem__("data_type", "complex64"),
        lambda d: d.__setitem__("data_type", "string"),
        lambda d: d.__setitem__("storage_transformers", [{"name": "x"}]),
        lambda d: d.__setitem__("fill_value", "NaN"),
        lambda d: d.__setitem__("fill_value", [0, 0]),
        lambda d: d["codecs"].append({"name": "crc32c"}),
        lambda d: d["codecs"].insert(0, {"name": "transpose"}),
        lambda d: d["codecs"][0].__setitem__("name", "other"),
        lambda d: d["codecs"][0]["configuration"]["codecs"].append({"name": "crc32c"}),
        lambda d: d["codecs"][0]["configuration"]["codecs"][1].__setitem__("name", "gzip"),
        lambda d: d["codecs"][0]["configuration"]["codecs"][0]["configuration"].__setitem__(
            "endian", "big"
        ),
        lambda d: d["codecs"][0]["configuration"]["index_codecs"].pop(0),
        lambda d: d["codecs"][0]["configuration"]["index_codecs"][0]["configuration"].__setitem__(
            "endian", "big"
        ),
        lambda d: d["codecs"][0]["configuration"].__setitem__("index_location", "middle"),
        lambda d: d["codecs"][0]["configuration"].__setitem__("chunk_shape", [1, 7, 10]),
        lambda d: d["codecs"][0]["configuration"].__setitem__("chunk_shape", [1, 0, 10]),
        lambda d: d["codecs"][0]["configuration"].__setitem__("chunk_shape", [10, 10]),
        lambda d: d.pop("codecs"),
        lambda d: d.__setitem__("codecs", None),
        lambda d: d.__setitem__("shape", []),
    ],
    ids=map(str, range(24)),
)
def test_what_is_odd_is_left_to_the_engine(array, change):
    document = json.loads((array[0] / "zarr.json").read_text())
    assert ChunkReader.of(str(array[0]), document) is not None
    change(document)
    assert ChunkReader.of(str(array[0]), document) is None


@pytest.mark.parametrize("what", ["chunks", "bytes of a chunk"])
def test_what_64_bits_do_not_count_is_left_to_the_engine(array, what):
    # Two chunks would have one number, or a chunk no size.
    document = json.loads((array[0] / "zarr.json").read_text())
    grid = document["chunk_grid"]["configuration"]
    inner = document["codecs"][0]["configuration"]
    if what == "chunks":
        document["shape"] = [2**23, 2**30, 2**30]
        grid["chunk_shape"] = inner["chunk_shape"] = [1, 1, 1]
    else:
        grid["chunk_shape"] = inner["chunk_shape"] = [1, 2**33, 2**31]
    assert ChunkReader.of(str(array[0]), document) is None
    document["shape"] = [2**20, 2**20, 2**20]
    grid["chunk_shape"] = inner["chunk_shape"] = [1, 2**10, 2**10]
    assert ChunkReader.of(str(array[0]), document) is not None


def test_an_index_without_a_checksum_or_at_the_beginning(tmp_path):
    zarr = pytest.importorskip("zarr")
    pixels = np.random.default_rng(1).integers(0, 900, (40, 40), dtype=np.uint16)
    for number, options in enumerate(
        [
            {"index_location": "start"},
            {"index_codecs": [zarr.codecs.BytesCodec()]},
            {"index_codecs": [zarr.codecs.BytesCodec()], "index_location": "start"},
        ]
    ):
        path = tmp_path / str(number)
        stored = zarr.create_array(
            str(path), shape=(40, 40), dtype="uint16", chunks=(20, 20),
            serializer=zarr.codecs.ShardingCodec(
                chunk_shape=(10, 10),
                codecs=[zarr.codecs.BytesCodec(), zarr.codecs.ZstdCodec(checksum=True)],
                **options,
            ),
            compressors=None, filters=None,
        )  # fmt: skip
        stored[...] = pixels
        reader = reader_of(path)
        np.testing.assert_array_equal(read(reader, ((3, 37), (5, 40)), "uint16"), pixels[3:37, 5:])


def test_a_file_that_is_replaced_is_read_anew(array):
    path, pixels = array
    reader = reader_of(path)
    np.testing.assert_array_equal(read(reader, WHOLE, "uint16"), pixels)
    open_array(path, writable=True).write(((0, 1), (5, 6), (5, 6)), np.full((1, 1, 1), 999, "u2"))
    assert read(reader, WHOLE, "uint16")[0, 5, 5] == 999
    (path / "c" / "0" / "1" / "1").unlink()
    found = read(reader, WHOLE, "uint16")
    assert not found[:, 30:60, 30:60].any()
    np.testing.assert_array_equal(found[:, 60:], pixels[:, 60:])


def test_damage_is_left_to_the_engine_and_never_believed(array):
    # Bytes of one shard changed, cut off and added in every way: either the bytes that matter are
    # the same and so are the pixels, or nothing is read. What decodes to other pixels is damage
    # that only a checksum could tell, and the engine reads the same.
    path, _ = array
    shard = path / "c" / "0" / "0" / "0"
    whole = shard.read_bytes()
    engine = open_array(path)
    reader = reader_of(path)
    box = ((0, 2), (0, 30), (0, 30))
    rng = random.Random(0)
    for number in range(200):
        data = bytearray(whole)
        kind = number % 4
        if kind == 0:
            for _ in range(rng.randint(1, 4)):
                data[rng.randrange(len(data))] = rng.randrange(256)
        elif kind == 1:
            del data[rng.randrange(len(data)) :]
        elif kind == 2:
            at = rng.randrange(len(data))
            data[at : at + rng.randint(1, 60)] = rng.randbytes(rng.randint(0, 90))
        else:  # the index above all
            data[-rng.randint(1, 300)] = rng.randrange(256)
        beside = shard.with_name("new")
        beside.write_bytes(data)
        beside.replace(shard)
        found = read(reader, box, "uint16")
        if found is not None:
            try:
                expected = engine.read(box)
            except MicrotomeError:
                pytest.fail(f"change {number}: read what the engine refuses")
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("codec", CODECS)
def test_sizes_that_lie_are_refused(tmp_path, codec):
    stored = create_array(
        tmp_path / "a", shape=(10, 10), dtype="uint16", layout=Layout((5, 5), (10, 10), codec),
        axes="yx",
    )  # fmt: skip
    stored.write(((0, 10), (0, 10)), np.arange(100, dtype=np.uint16).reshape(10, 10))
    document = array_metadata(tmp_path / "a")
    document["codecs"][0]["configuration"]["chunk_shape"] = [5, 10]  # half as many as there are
    wrong = ChunkReader.of(str(tmp_path / "a"), document)
    assert read(wrong, ((0, 10), (0, 10)), "uint16") is None
    document = array_metadata(tmp_path / "a")
    document["data_type"] = "uint32"
    wrong = ChunkReader.of(str(tmp_path / "a"), document)
    assert read(wrong, ((0, 10), (0, 10)), "uint32") is None


def test_few_files_are_open_however_many_are_read(tmp_path):
    readers = []
    for number in range(300):
        stored = create_array(
            tmp_path / str(number), shape=(4, 4), dtype="uint8", layout=Layout((4, 4), (4, 4)),
            axes="yx",
        )  # fmt: skip
        stored.write(((0, 4), (0, 4)), np.full((4, 4), number % 251, np.uint8))
        readers.append(reader_of(tmp_path / str(number)))
    before = open_files()
    for _ in range(2):
        for number, reader in enumerate(readers):
            assert (read(reader, ((0, 4), (0, 4)), "uint8") == number % 251).all()
    assert len(SHARDS) <= 256
    assert open_files() <= before + 256


def test_threads_do_not_mix_their_memory(array):
    path, pixels = array
    reader = reader_of(path)
    start = threading.Barrier(8)

    def work(seed):
        rng = np.random.default_rng(seed)
        start.wait()
        for _ in range(60):
            (y, x), (h, w) = rng.integers(0, 60, 2), rng.integers(1, 30, 2)
            box = ((0, 2), (int(y), int(y + h)), (int(x), int(x + w)))
            np.testing.assert_array_equal(
                read(reader, box, "uint16"), pixels[:, y : y + h, x : x + w]
            )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


def test_a_read_goes_on_when_its_file_is_replaced_meanwhile(array):
    path, pixels = array
    reader = reader_of(path)
    stop = threading.Event()

    def replace():
        shard = path / "c" / "0" / "0" / "0"
        while not stop.is_set():
            shutil.copy(shard, shard.with_name("new")).replace(shard)

    writer = threading.Thread(target=replace)
    writer.start()
    try:
        for _ in range(300):
            np.testing.assert_array_equal(read(reader, WHOLE, "uint16"), pixels)
    finally:
        stop.set()
        writer.join()
