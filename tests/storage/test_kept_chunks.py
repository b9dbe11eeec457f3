"""Chunks that stay decoded: the same pixels, in no more memory than was allowed."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.storage import (
    CODECS,
    BoxBatch,
    Conversion,
    KeptChunks,
    Layout,
    _batches,
    create_array,
    open_array,
    tallied,
)
from microtome.storage._tally import current_tally

CHUNK = 2 * 40 * 40


@pytest.fixture(scope="module")
def noise():
    rng = np.random.default_rng(0)
    return rng.poisson(rng.gamma(1, 90, (3, 150, 150))).astype(np.uint16)


def written(path, pixels, layout):
    stored = create_array(
        path, shape=pixels.shape, dtype=pixels.dtype, layout=layout, axes="tczyx"[-pixels.ndim :]
    )
    stored.write(tuple((0, n) for n in pixels.shape), pixels)
    return path


@pytest.fixture
def array(tmp_path, noise):
    """Shards of 2 x 2 chunks of 40 px; the outermost are cut by the edge."""
    return written(tmp_path / "a", noise, Layout((1, 40, 40), (3, 80, 80), "fast"))


def read(array, lows, size, kept=None):
    """Read boxes of one size, with what the reads came to."""
    stored = open_array(array) if not hasattr(array, "read_boxes") else array
    out = np.full((len(lows), *size), 7, stored.dtype)
    low = np.asarray(lows, np.int64)
    boxes = BoxBatch(
        low, low + size, out, np.arange(len(lows)) * out.strides[0], out.strides[1:]
    )  # fmt: skip
    with tallied(kept) as tally:
        assert stored.read_boxes(boxes)
    return out, tally


def cut(pixels, lows, size):
    return np.stack([pixels[:, y : y + size, x : x + size] for _, y, x in lows])


def test_what_was_decoded_once_is_found(array, noise, engine):
    kept = KeptChunks(1 << 20, evicts=False)
    lows = [[0, 5, 5], [0, 60, 60]]
    for decoded, found in ((21, 0), (0, 21)):
        pixels, tally = read(array, lows, (3, 50, 50), kept)
        np.testing.assert_array_equal(pixels, cut(noise, lows, 50))
        assert (tally.decoded, tally.found) == (decoded, found)
        assert (tally.decode_seconds > 0) == (decoded > 0)
    assert len(kept) == 21
    assert 21 * CHUNK <= kept.bytes <= kept.limit
    # Some that are there and some that are not, in one batch.
    pixels, tally = read(array, [[0, 0, 0], [0, 100, 100]], (3, 50, 50), kept)
    np.testing.assert_array_equal(pixels, cut(noise, [[0, 0, 0], [0, 100, 100]], 50))
    assert tally.found > 0
    assert tally.decoded > 0


@pytest.mark.parametrize("evicts", [False, True])
def test_no_more_is_kept_than_was_allowed(array, noise, engine, evicts):
    kept = KeptChunks(7 * (CHUNK + 300), evicts=evicts)
    rng = np.random.default_rng(1)
    for _ in range(30):
        lows = [[0, *rng.integers(0, 100, 2).tolist()] for _ in range(3)]
        pixels, _ = read(array, lows, (3, 50, 50), kept)
        np.testing.assert_array_equal(pixels, cut(noise, lows, 50))
        assert 0 < kept.bytes <= kept.limit
        assert len(kept) <= 7
    assert len(kept) == 7


def test_in_an_order_what_was_used_last_stays_else_what_came_first(array, engine):
    corner, other = [[0, 0, 0]], [[0, 80, 80]]
    for evicts, found in ((True, 0), (False, 3)):
        kept = KeptChunks(3 * (CHUNK + 300), evicts=evicts)
        read(array, corner, (3, 40, 40), kept)
        read(array, other, (3, 40, 40), kept)
        assert read(array, corner, (3, 40, 40), kept)[1].found == found


def test_a_file_that_was_replaced_is_read_anew(array, noise, engine):
    kept = KeptChunks(1 << 20, evicts=False)
    read(array, [[0, 0, 0]], (3, 40, 40), kept)
    open_array(array, writable=True).write(((0, 3), (0, 80), (0, 80)), noise[:, :80, :80] + 1)
    pixels, tally = read(array, [[0, 0, 0]], (3, 40, 40), kept)
    np.testing.assert_array_equal(pixels[0], noise[:, :40, :40] + 1)
    assert tally.found == 0


def test_nothing_of_a_batch_with_damage_is_kept(array, engine):
    shard = array / "c" / "0" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[4:8] = b"\xff\xff\xff\xff"  # the size of the first chunk
    shard.unlink()
    shard.write_bytes(data)
    kept = KeptChunks(1 << 20, evicts=False)
    stored = open_array(array)
    out = np.zeros((1, 3, 80, 80), np.uint16)
    boxes = BoxBatch(
        np.zeros((1, 3), np.int64), np.asarray([[3, 80, 80]]), out, np.zeros(1, np.int64),
        out.strides[1:],
    )  # fmt: skip
    with tallied(kept) as tally:
        assert not stored.read_boxes(boxes)
    assert (len(kept), kept.bytes, tally.decoded) == (0, 0, 0)


def test_what_is_not_compressed_is_not_kept_twice(tmp_path, noise, engine):
    path = written(tmp_path / "a", noise, Layout((1, 40, 40), (3, 80, 80), "raw"))
    kept = KeptChunks(1 << 20, evicts=False)
    pixels, tally = read(path, [[0, 0, 0]], (3, 60, 60), kept)
    np.testing.assert_array_equal(pixels[0], noise[:, :60, :60])
    assert (len(kept), tally.decoded) == (0, 12)


def test_threads_share_what_is_kept(array, noise, engine):
    kept = KeptChunks(20 * (CHUNK + 300), evicts=True)
    stored = open_array(array)

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(40):
            lows = [[0, *rng.integers(0, 100, 2).tolist()] for _ in range(2)]
            pixels, _ = read(stored, lows, (3, 50, 50), kept)
            np.testing.assert_array_equal(pixels, cut(noise, lows, 50))
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))
    assert kept.bytes <= kept.limit
    # Whatever the threads did at once, what is counted is what is there.
    assert kept.bytes == len(kept) * (kept.bytes // len(kept))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("way", ["compiled", "streamed", "plain"])
def test_every_layout_equals_numpy_with_some_kept_and_some_not(tmp_path_factory, data, way):
    if way != "plain":
        pytest.importorskip("numba")
    chunk = (
        data.draw(st.integers(1, 2)),
        data.draw(st.integers(1, 40)),
        data.draw(st.integers(1, 300)),
    )
    shape = tuple(data.draw(st.integers(1, 2 * c + 1)) for c in chunk)
    dtype = data.draw(st.sampled_from(["uint8", "uint16", "int32", "float32", "float64"]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    pixels = (rng.random(shape) ** data.draw(st.sampled_from([1, 9])) * 120).astype(dtype)
    layout = Layout(chunk, chunk, data.draw(st.sampled_from(CODECS)))
    path = written(tmp_path_factory.mktemp("a") / "a", pixels, layout)
    kept = KeptChunks(
        data.draw(st.integers(1, 4 * pixels.nbytes + 1000)), evicts=data.draw(st.booleans())
    )
    compiled = _batches._COMPILER.load() if way != "plain" else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_batches._COMPILER, "after", lambda _: compiled)
        if way == "streamed":
            patch.setattr(_batches, "_STREAMED", 0)
        for _ in range(3):
            size = tuple(data.draw(st.integers(1, n)) for n in shape)
            low = [data.draw(st.integers(0, n - s)) for n, s in zip(shape, size, strict=True)]
            found, _ = read(path, [low], size, kept)
            part = tuple(slice(a, a + s) for a, s in zip(low, size, strict=True))
            np.testing.assert_array_equal(found[0], pixels[part])
            assert kept.bytes <= kept.limit


def test_in_another_process_nothing_is_kept_yet(array, engine):
    kept = KeptChunks(1 << 20, evicts=True)
    read(array, [[0, 0, 0]], (3, 40, 40), kept)
    again = pickle.loads(pickle.dumps(kept))
    assert (again.limit, len(again), again.bytes) == (1 << 20, 0, 0)


def test_counting_ends_with_the_block_and_knows_its_own_thread():
    assert current_tally() is None
    with tallied() as outer:
        with tallied() as inner:
            assert current_tally() is inner
        assert current_tally() is outer
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(current_tally).result() is None
    assert current_tally() is None


def test_what_only_the_engine_reads_the_engine_keeps(tmp_path, noise):
    zarr = pytest.importorskip("zarr")
    zarr.create_array(
        str(tmp_path / "a"), shape=noise.shape, dtype="uint16", chunks=(1, 50, 50),
        compressors=zarr.codecs.GzipCodec(),
    )[...] = noise  # fmt: skip
    stored = open_array(tmp_path / "a")
    out = np.zeros_like(noise)
    box = tuple((0, n) for n in noise.shape)
    stored.read_into(box, out).result()
    assert stored._keeping is None
    with tallied(KeptChunks(1 << 21, evicts=False)):
        for _ in range(2):
            out[...] = 0
            stored.read_into(box, out).result()
            np.testing.assert_array_equal(out, noise)
    assert stored._keeping is not None
    assert stored._keeping[0].cache_bytes == 1 << 21
    # Chunks are there no more, and are read nevertheless: from what is kept.
    for file in (tmp_path / "a" / "c").rglob("*"):
        if file.is_file():
            file.unlink()
    with tallied(KeptChunks(1 << 21, evicts=False)):
        stored.read_into(box, out).result()
    np.testing.assert_array_equal(out, noise)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32"])
@pytest.mark.parametrize("codec", ["fast", "small", "raw"])
@pytest.mark.parametrize("way", ["compiled", "streamed"])
def test_what_is_kept_becomes_float32_as_numpy_has_it(tmp_path, noise, dtype, codec, way):
    pytest.importorskip("numba")
    compiled = _batches._COMPILER.load()
    pixels = noise.astype(dtype)
    path = written(tmp_path / "a", pixels, Layout((1, 40, 40), (3, 80, 80), codec))
    stored = open_array(path)
    steps = Conversion.of([("subtract", [3, 4, 5]), ("divide", [7, 1.5, 2])])
    kept = KeptChunks(1 << 20, evicts=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_batches._COMPILER, "after", lambda _: compiled)
        if way == "streamed":
            patch.setattr(_batches, "_STREAMED", 0)
        for conversion in (Conversion.of(), steps, steps):
            low = np.asarray([[0, 3, 9], [0, 70, 61]])
            out = np.full((2, 3, 50, 70), 7, np.float32)
            boxes = BoxBatch(
                low, np.add(low, [3, 50, 70]), out, np.arange(2) * out.strides[0], out.strides[1:],
                conversion, np.zeros(2, np.int64), 0,
            )  # fmt: skip
            with tallied(kept):
                assert stored.read_boxes(boxes)
            expected = np.stack([pixels[:, y : y + 50, x : x + 70] for _, y, x in low])
            expected = expected.astype(np.float32)
            for window in expected:
                conversion.apply(window)
            np.testing.assert_array_equal(out, expected)
