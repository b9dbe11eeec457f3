"""Chunks in an order of their own in the files of shards: the same array to every reader."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.errors import FormatError, NotFoundError
from microtome.storage import CODECS, Layout, array_metadata, create_array, open_array
from microtome.storage._chunk_order import order_chunks
from microtome.storage._chunks import ChunkReader


def offsets(path):
    """Return where each chunk lies in its shard's file, by shard."""
    reader = ChunkReader.of(str(path), array_metadata(path))
    shards = [-(-n // s) for n, s in zip(reader.shape, reader.shard, strict=True)]
    found = {at: reader.shard_at(at) for at in np.ndindex(*shards)}
    return {at: shard.entries[..., 0] for at, shard in found.items() if shard is not None}


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_array_is_the_same_and_its_chunks_lie_as_they_are_read(tmp_path_factory, data):
    rank = data.draw(st.integers(1, 3))
    chunk = tuple(data.draw(st.integers(1, 4)) for _ in range(rank))
    shard = tuple(c * data.draw(st.integers(1, 3)) for c in chunk)
    shape = tuple(data.draw(st.integers(1, 14)) for _ in range(rank))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    pixels = rng.integers(0, 900, shape, dtype=np.uint16)
    pixels[rng.random(shape) < 0.3] = 0
    path = tmp_path_factory.mktemp("a") / "a"
    stored = create_array(
        path, shape=shape, dtype="uint16", axes="zyx"[-rank:],
        layout=Layout(chunk, shard, data.draw(st.sampled_from(CODECS))),
    )  # fmt: skip
    whole = tuple((0, n) for n in shape)
    stored.write(whole, pixels)
    before = {at: there >= 0 for at, there in offsets(path).items()} if stored.shards else {}
    grid = tuple(-(-n // c) for n, c in zip(shape, chunk, strict=True))
    visits = rng.integers(0, 50, grid)
    order_chunks(path, visits)
    np.testing.assert_array_equal(open_array(path).read(whole), pixels)
    np.testing.assert_array_equal(open_array(path)._handle()[...].read().result(), pixels)
    for at, found in offsets(path).items() if stored.shards else ():
        assert np.array_equal(found >= 0, before[at])
        inside = tuple(slice(a * n, (a + 1) * n) for a, n in zip(at, found.shape, strict=True))
        when = visits[inside]
        lie = found[tuple(slice(0, n) for n in when.shape)]
        by_place = np.argsort(lie[lie >= 0])
        assert (np.diff(when[lie >= 0][by_place]) >= 0).all()


def test_an_index_before_the_chunks_stays_there(tmp_path):
    zarr = pytest.importorskip("zarr")
    pixels = np.random.default_rng(0).integers(1, 900, (40, 40), dtype=np.uint16)
    codec = zarr.codecs.ShardingCodec(
        chunk_shape=(10, 10), index_location="start",
        codecs=[zarr.codecs.BytesCodec(), zarr.codecs.ZstdCodec()],
    )  # fmt: skip
    stored = zarr.create(
        shape=pixels.shape, chunks=(20, 20), dtype="uint16", store=str(tmp_path / "a"),
        zarr_format=3, codecs=[codec],
    )  # fmt: skip
    stored[...] = pixels
    visits = np.arange(16)[::-1].reshape(4, 4)
    order_chunks(tmp_path / "a", visits)
    assert (np.diff(offsets(tmp_path / "a")[0, 0].reshape(-1)) < 0).all()
    np.testing.assert_array_equal(zarr.open_array(str(tmp_path / "a"), mode="r")[...], pixels)


def test_chunks_that_are_files_have_no_order(tmp_path):
    stored = create_array(
        tmp_path / "a", shape=(20, 20), dtype="u2", layout=Layout((10, 10), None, "fast"), axes="yx"
    )
    pixels = np.arange(400, dtype=np.uint16).reshape(20, 20)
    stored.write(((0, 20), (0, 20)), pixels)
    order_chunks(tmp_path / "a", np.arange(4).reshape(2, 2))
    np.testing.assert_array_equal(open_array(tmp_path / "a").read(((0, 20), (0, 20))), pixels)


def test_a_damaged_shard_is_named_and_left_as_it_is(tmp_path):
    stored = create_array(
        tmp_path / "a", shape=(20, 20), dtype="u2", layout=Layout((10, 10), (20, 20), "fast"),
        axes="yx",
    )  # fmt: skip
    stored.write(((0, 20), (0, 20)), np.arange(400, dtype=np.uint16).reshape(20, 20))
    file = tmp_path / "a" / "c" / "0" / "0"
    file.write_bytes(file.read_bytes()[:-3] + b"abc")
    data = file.read_bytes()
    with pytest.raises(FormatError, match=r"c/0/0 is damaged: the index of the shard"):
        order_chunks(tmp_path / "a", np.arange(4).reshape(2, 2))
    assert file.read_bytes() == data
    assert [one.name for one in file.parent.iterdir()] == ["0"]
    with pytest.raises(NotFoundError):
        order_chunks(tmp_path / "b", np.arange(4).reshape(2, 2))
