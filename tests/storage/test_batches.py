"""Many boxes at once, compiled and not: equal to NumPy on every read, and never fooled by damage."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.errors import InvalidInputError, MicrotomeError, ModeError
from microtome.storage import (
    CODECS,
    BoxBatch,
    Layout,
    _batches,
    create_array,
    open_array,
)

DTYPES = ["bool", "uint8", "int8", "uint16", "int32", "uint64", "float16", "float32", "float64"]


def boxes_into(out, low, high, targets):
    """Boxes of the shape of `out`'s rows, each at a corner of its row."""
    return BoxBatch(
        np.asarray(low, np.int64).reshape(len(low), -1),
        np.asarray(high, np.int64).reshape(len(low), -1),
        out,
        np.asarray(targets, np.int64),
        out.strides[1:],
    )


def read(path, lows, size, out=None):
    """Read boxes of one size with a new handle; None where the engine has to."""
    array = open_array(path)
    if out is None:
        out = np.full((len(lows), *size), 7, array.dtype)
    highs = [[a + n for a, n in zip(low, size, strict=True)] for low in lows]
    targets = np.arange(len(lows)) * out.strides[0]
    return out if array.read_boxes(boxes_into(out, lows, highs, targets)) else None


@settings(max_examples=60, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("way", ["compiled", "streamed", "plain"])
def test_every_list_of_boxes_equals_numpy(tmp_path_factory, data, way):
    if way != "plain":
        pytest.importorskip("numba")
    rank = data.draw(st.integers(1, 5))
    chunk = tuple(data.draw(st.integers(1, 5)) for _ in range(rank))
    # Of rows long enough, Blosc keeps the bytes of a pixel apart in streams of their own.
    chunk = (*chunk[:-1], data.draw(st.sampled_from([chunk[-1], 64, 200])))
    shard = tuple(c * data.draw(st.integers(1, 3)) for c in chunk)
    shape = tuple(data.draw(st.integers(1, 3 * c + 2)) for c in chunk)
    dtype = data.draw(st.sampled_from(DTYPES))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    pixels = (rng.random(shape) ** data.draw(st.sampled_from([1, 9])) * 120).astype(dtype)
    written = np.zeros(shape, bool)
    array = create_array(
        tmp_path_factory.mktemp("a") / "a", shape=shape, dtype=dtype,
        layout=Layout(chunk, shard, data.draw(st.sampled_from(CODECS))), axes="tczyx"[-rank:],
    )  # fmt: skip
    for corner in product(*(range(0, n, s) for n, s in zip(shape, shard, strict=True))):
        if rng.random() < 0.7:
            box = tuple((a, min(a + s, n)) for a, s, n in zip(corner, shard, shape, strict=True))
            at = tuple(slice(*part) for part in box)
            array.write(box, pixels[at])
            written[at] = True
    expected = np.where(written, pixels, np.zeros(1, dtype))
    lows, highs = [], []
    for _ in range(data.draw(st.integers(1, 6))):
        low = [data.draw(st.integers(0, n)) for n in shape]
        lows.append(low)
        highs.append([data.draw(st.integers(a, n)) for a, n in zip(low, shape, strict=True)])
    # Each box goes into the far corner of a room that is as large as the whole array.
    out = np.full((len(lows), *shape), 7, dtype)
    wanted = out.copy()
    targets = []
    for number, (low, high) in enumerate(zip(lows, highs, strict=True)):
        corner = [n - (b - a) for n, a, b in zip(shape, low, high, strict=True)]
        targets.append(sum(a * s for a, s in zip((number, *corner), out.strides, strict=True)))
        part = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        wanted[(number, *(slice(a, None) for a in corner))] = expected[part]
    compiled = _batches._COMPILER.load() if way != "plain" else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_batches._COMPILER, "after", lambda _: compiled)
        if way == "streamed":
            patch.setattr(_batches, "_STREAMED", 0)
        assert open_array(array.path).read_boxes(boxes_into(out, lows, highs, targets))
    np.testing.assert_array_equal(out, wanted)


@pytest.fixture(scope="module")
def noise():
    rng = np.random.default_rng(0)
    return rng.poisson(rng.gamma(1, 90, (3, 150, 150))).astype(np.uint16)


@pytest.fixture
def array(tmp_path, noise):
    """Shards of chunks of 40 px, of which one has streams apart."""
    stored = create_array(
        tmp_path / "a", shape=noise.shape, dtype="uint16",
        layout=Layout((1, 40, 40), (3, 80, 80), "fast"), axes="cyx",
    )  # fmt: skip
    stored.write(tuple((0, n) for n in noise.shape), noise)
    return tmp_path / "a"


def corners(seed, count, size, shape=(150, 150)):
    rng = np.random.default_rng(seed)
    return [[0, *rng.integers(0, [n - size + 1 for n in shape]).tolist()] for _ in range(count)]


def cut(pixels, lows, size):
    return np.stack([pixels[:, y : y + size, x : x + size] for _, y, x in lows])


ZARR_CODECS = {
    "lz4 bits": {"cname": "lz4", "shuffle": "bitshuffle"},
    "lz4 as it is": {"cname": "lz4", "shuffle": "noshuffle"},
    "zstd bytes": {"cname": "zstd", "shuffle": "shuffle"},
    "zstd as it is": {"cname": "zstd", "shuffle": "noshuffle"},
    "blosclz": {"cname": "blosclz", "shuffle": "shuffle"},
    "zlib": {"cname": "zlib", "shuffle": "shuffle"},
    "not at all": {"cname": "lz4", "clevel": 0, "shuffle": "shuffle"},
    "of another type": {"cname": "lz4", "shuffle": "shuffle", "typesize": 3},
}


@pytest.mark.parametrize("codec", ZARR_CODECS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
def test_blosc_of_another_writer(tmp_path, engine, noise, codec, dtype):
    zarr = pytest.importorskip("zarr")
    pixels = noise.astype(dtype)
    options = {"clevel": 3, "typesize": pixels.itemsize} | ZARR_CODECS[codec]
    zarr.create_array(
        str(tmp_path / "a"), shape=pixels.shape, dtype=dtype, chunks=(2, 75, 75),
        shards=(4, 150, 150), compressors=zarr.codecs.BloscCodec(**options),
    )[...] = pixels  # fmt: skip
    lows = corners(1, 8, 60)
    np.testing.assert_array_equal(read(tmp_path / "a", lows, (3, 60, 60)), cut(pixels, lows, 60))


def test_blocks_that_end_inside_a_row(tmp_path, engine):
    # Chunks of more than one Blosc block, the last of them short and in one stream.
    rng = np.random.default_rng(3)
    pixels = rng.poisson(3, (1, 700, 701)).astype(np.float32)
    stored = create_array(
        tmp_path / "a", shape=pixels.shape, dtype="float32",
        layout=Layout((1, 700, 701), (1, 700, 701), "train"), axes="cyx",
    )  # fmt: skip
    stored.write(tuple((0, n) for n in pixels.shape), pixels)
    lows = corners(4, 12, 99, (700, 701))
    found = read(tmp_path / "a", lows, (1, 99, 99))
    np.testing.assert_array_equal(found, cut(pixels, lows, 99))


def test_pixels_that_were_never_written_have_the_fill_value(tmp_path, engine):
    zarr = pytest.importorskip("zarr")
    stored = zarr.create_array(
        str(tmp_path / "a"), shape=(40, 40), dtype="float32", chunks=(10, 10), shards=(20, 20),
        fill_value=-2.5,
    )  # fmt: skip
    stored[:10, :10] = 1
    found = read(tmp_path / "a", [[0, 0], [5, 5], [22, 22]], (15, 15))
    np.testing.assert_array_equal(
        found, [stored[:15, :15], stored[5:20, 5:20], np.full((15, 15), -2.5)]
    )


def test_a_chunk_that_many_boxes_share_is_decoded_once(array, noise, monkeypatch):
    monkeypatch.setattr(_batches._COMPILER, "after", lambda _: None)
    decoded = []
    own = _batches.ChunkReader.decode
    monkeypatch.setattr(
        _batches.ChunkReader, "decode", lambda self, *a: (decoded.append(1), own(self, *a))
    )
    lows = [[0, y, x] for y in range(0, 40, 5) for x in range(0, 40, 5)]
    np.testing.assert_array_equal(read(array, lows, (3, 30, 30)), cut(noise, lows, 30))
    assert len(decoded) == 3 * 4


def test_a_buffer_with_gaps(array, noise, engine):
    room = np.full((4, 6, 40, 90), 7, np.uint16)
    out = room[::2, 1:4, :30, 50:80]
    lows = corners(5, 2, 30)
    found = read(array, lows, (3, 30, 30), out)
    if engine == "plain":
        assert found is None
        return
    np.testing.assert_array_equal(out, cut(noise, lows, 30))
    out[...] = 7
    assert (room == 7).all()


def test_work_is_shared_between_threads(array, noise, engine, monkeypatch):
    monkeypatch.setattr(_batches, "_SHARED", 1)
    monkeypatch.setattr(_batches, "_processors", lambda: 3)
    for seed in range(5):
        lows = corners(seed, 9, 100)
        np.testing.assert_array_equal(read(array, lows, (3, 100, 100)), cut(noise, lows, 100))


def test_callers_on_many_threads_do_not_mix_their_memory(array, noise, engine):
    start = threading.Barrier(6)

    def work(seed):
        start.wait()
        for number in range(20):
            lows = corners(100 * seed + number, 5, 70)
            np.testing.assert_array_equal(read(array, lows, (3, 70, 70)), cut(noise, lows, 70))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))


@pytest.mark.parametrize("codec", CODECS)
def test_damage_is_left_to_the_engine_and_never_believed(tmp_path, noise, engine, codec):
    # Either the bytes that matter are the same, or nothing is read; what decodes to other pixels
    # without a complaint, the engine reads the same.
    stored = create_array(
        tmp_path / "a", shape=noise.shape, dtype="uint16",
        layout=Layout((1, 75, 75), (3, 150, 150), codec), axes="cyx",
    )  # fmt: skip
    stored.write(tuple((0, n) for n in noise.shape), noise)
    shard = tmp_path / "a" / "c" / "0" / "0" / "0"
    whole = shard.read_bytes()
    rng = random.Random(codec)
    whole_box = tuple((0, n) for n in noise.shape)
    refused = 0
    for number in range(120):
        data = bytearray(whole)
        kind = number % 5
        if kind == 0:
            for _ in range(rng.randint(1, 4)):
                data[rng.randrange(len(data))] = rng.randrange(256)
        elif kind == 1:
            del data[rng.randrange(len(data)) :]
        elif kind == 2:
            at = rng.randrange(len(data))
            data[at : at + rng.randint(1, 60)] = rng.randbytes(rng.randint(0, 90))
        elif kind == 3:  # the head of a chunk: sizes and places of streams
            data[rng.randrange(64)] = rng.randrange(256)
        else:  # the index above all
            data[-rng.randint(1, 300)] = rng.randrange(256)
        beside = shard.with_name("new")
        beside.write_bytes(data)
        beside.replace(shard)
        lows = [[0, 0, 0]]
        found = read(tmp_path / "a", lows, noise.shape)
        try:
            expected = open_array(tmp_path / "a")._handle()[...].read().result()
        except ValueError:
            expected = None
        if found is None:
            refused += 1
            with pytest.raises(MicrotomeError):
                open_array(tmp_path / "a").read(whole_box)
        else:
            assert expected is not None, f"change {number}: read what the engine refuses"
            np.testing.assert_array_equal(found[0], expected)
    assert refused > 20


def test_boxes_outside_or_of_another_type_are_refused(array):
    stored = open_array(array)
    out = np.zeros((1, 3, 10, 10), np.uint16)
    for low, high in (([0, -1, 0], [3, 9, 10]), ([0, 0, 141], [3, 10, 151])):
        with pytest.raises(InvalidInputError, match=r"do not lie inside \(3, 150, 150\)"):
            stored.read_boxes(boxes_into(out, [low], [high], [0]))
    with pytest.raises(InvalidInputError, match="are not uint16"):
        stored.read_boxes(boxes_into(out.astype(np.int16), [[0, 0, 0]], [[3, 10, 10]], [0]))
    stored.close()
    with pytest.raises(ModeError, match="is closed"):
        stored.read_boxes(boxes_into(out, [[0, 0, 0]], [[3, 10, 10]], [0]))


def test_compiled_code_is_fetched_when_enough_was_read(array, noise, monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setattr(_batches, "_COMPILER", _batches.Compiler(_batches.compiled_reads, 100_000))
    lows = corners(6, 4, 50)
    for _ in range(20):
        np.testing.assert_array_equal(read(array, lows, (3, 50, 50)), cut(noise, lows, 50))
    assert _batches._COMPILER._begun is not None
    _batches._COMPILER._begun.join()
    assert _batches._COMPILER._found is not None
    np.testing.assert_array_equal(read(array, lows, (3, 50, 50)), cut(noise, lows, 50))


def test_what_is_not_in_memory_is_announced_in_few_pieces(array, noise, engine, monkeypatch):
    monkeypatch.setattr(_batches, "_waits", lambda: 0)
    monkeypatch.setattr(_batches, "_DISK", _batches._Disk())
    told = []
    own = _batches.Shard.announce

    def announce(self, offsets, lengths):
        told.append((offsets.min(), (offsets + lengths).max(), self.stamp[1]))
        own(self, offsets, lengths)

    monkeypatch.setattr(_batches.Shard, "announce", announce)
    lows = corners(7, 6, 50)
    for _ in range(2 * _batches._ANNOUNCED):
        np.testing.assert_array_equal(read(array, lows, (3, 50, 50)), cut(noise, lows, 50))
    assert told
    assert all(0 <= first < last <= size for first, last, size in told)
    # Nothing had to be waited for, so that it ended.
    told.clear()
    read(array, lows, (3, 50, 50))
    assert not told
    # One page may have been anybody's.
    for waits, announced in ((1, False), (20, True)):
        monkeypatch.setattr(_batches._DISK, "_waited", -waits)
        read(array, lows, (3, 50, 50))
        assert bool(told) == announced


def test_chunks_that_are_very_large_are_left_to_the_engine(array, noise, engine, monkeypatch):
    lows = corners(8, 2, 30)
    monkeypatch.setattr(_batches, "_LARGEST_CHUNK", 2 * 40 * 40)
    np.testing.assert_array_equal(read(array, lows, (3, 30, 30)), cut(noise, lows, 30))
    monkeypatch.setattr(_batches, "_LARGEST_CHUNK", 2 * 40 * 40 - 1)
    assert read(array, lows, (3, 30, 30)) is None
