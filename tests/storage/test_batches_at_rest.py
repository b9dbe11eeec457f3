"""Batches of boxes whatever happens meanwhile: threads, interruptions, systems that refuse."""

from __future__ import annotations

import mmap
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import google_crc32c
import numpy as np
import pytest

from microtome.storage import (
    BoxBatch,
    Layout,
    _batches,
    _compiler,
    _shard_files,
    create_array,
    open_array,
)

SIDE = 256


@pytest.fixture
def pixels():
    return np.random.default_rng(0).poisson(90, (SIDE, SIDE)).astype(np.uint16)


@pytest.fixture
def path(tmp_path, pixels):
    array = create_array(
        tmp_path / "a", shape=pixels.shape, dtype="uint16",
        layout=Layout((64, 64), (SIDE, SIDE), "fast"), axes="yx",
    )  # fmt: skip
    array.write(((0, SIDE), (0, SIDE)), pixels)
    return tmp_path / "a"


@pytest.fixture
def compiled(monkeypatch):
    """Reads are done by compiled code."""
    pytest.importorskip("numba")
    found = _batches._COMPILER.load()
    assert found is not None
    monkeypatch.setattr(_batches._COMPILER, "after", lambda _: found)
    return found


def whole(array, rows=SIDE):
    """The first rows of an array as a batch of one; None where the engine has to read them."""
    out = np.zeros((1, rows, array.shape[1]), np.uint16)
    batch = BoxBatch(
        np.asarray([[0, 0]]), np.asarray([out.shape[1:]]), out, np.asarray([0]), out.strides[1:]
    )
    return out[0] if array.read_boxes(batch) else None


def test_threads_that_need_a_file_at_once_share_one_mapping(path, monkeypatch):
    # A second one took the place of the first, which ended under the thread that read there.
    made = []
    own = mmap.mmap

    def slow(*arguments, **options):
        made.append(1)
        time.sleep(0.05)
        return own(*arguments, **options)

    index = _shard_files.ShardIndex((4, 4), True, True)
    shard = _shard_files.Shard(str(path / "c" / "0" / "0"), index)
    monkeypatch.setattr(_shard_files.mmap, "mmap", slow)
    start = threading.Barrier(4)

    def address(_):
        start.wait()
        return shard.bytes.ctypes.data

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(address, range(4)))) == 1
    assert len(made) == 1


def test_an_interrupted_read_leaves_no_thread_at_work(path, compiled, monkeypatch):
    # The buffer may be another's as soon as the error is there.
    ended = threading.Event()
    begun = threading.Event()

    def kernel(part, *_):
        if part[0] == 0:
            begun.wait(10)
            raise KeyboardInterrupt
        begun.set()
        time.sleep(0.2)
        ended.set()
        return -1

    call = compiled._replace(kernel=kernel)
    monkeypatch.setattr(_batches._COMPILER, "after", lambda _: call)
    monkeypatch.setattr(_batches, "_SHARED", 1)
    monkeypatch.setattr(_batches, "_processors", lambda: 2)
    with ThreadPoolExecutor(2) as pool:
        monkeypatch.setattr(_batches, "_threads", lambda: pool)
        with pytest.raises(KeyboardInterrupt):
            whole(open_array(path))
        assert ended.is_set()


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("refused", ["mapping", "thread"])
def test_what_the_system_refuses_the_engine_does(path, pixels, monkeypatch, refused):
    def refuse(*_, **__):
        if refused == "mapping":
            raise OSError(19, "No such device")
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_batches, "_DISK", type("_Calm", (), {"is_asked": lambda _: False})())
    monkeypatch.setattr(_batches, "_SHARED", 1)
    monkeypatch.setattr(_batches, "_processors", lambda: 2)
    if refused == "mapping":
        monkeypatch.setattr(_shard_files.mmap, "mmap", refuse)
    else:
        monkeypatch.setattr(_batches, "_threads", refuse)
    array = open_array(path)
    assert whole(array) is None
    np.testing.assert_array_equal(array.read(((0, SIDE), (0, SIDE))), pixels)


def test_where_numba_compiles_nothing_it_is_done_without(monkeypatch):
    config = pytest.importorskip("numba").config
    monkeypatch.setattr(config, "DISABLE_JIT", True)
    assert _batches.Compiler(_batches.compiled_reads).load() is None


def test_a_broken_numba_is_done_without(monkeypatch):
    def broken(_):
        raise ValueError("numba.__spec__ is not set")

    monkeypatch.setattr(_compiler, "find_spec", broken)
    assert _batches.Compiler(_batches.compiled_reads).load() is None


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("rows", [10, SIDE])
def test_a_stream_longer_than_decoders_can_count_is_not_decoded(tmp_path, rows):
    array = create_array(
        tmp_path / "a", shape=(SIDE, SIDE), dtype="uint16",
        layout=Layout((SIDE, SIDE), (SIDE, SIDE), "fast"), axes="yx",
    )  # fmt: skip
    array.write(((0, SIDE), (0, SIDE)), np.ones((SIDE, SIDE), np.uint16))
    size, total = 2 * SIDE * SIDE, 2**31 + 5000
    shard = tmp_path / "a" / "c" / "0" / "0"
    shard.unlink()
    with shard.open("wb") as file:
        # LZ4, bytes apart, one block of two streams, the first of 2**31 + 10 bytes.
        file.write(struct.pack("<4B5I", 2, 1, 0x21, 2, size, size, total, 20, 2**31 + 10))
        file.write(b"\x10" * 2000)
        entry = struct.pack("<2Q", 0, total)
        file.seek(total)  # a file with a hole: it takes no room
        file.write(entry + struct.pack("<I", google_crc32c.value(entry)))
    assert whole(open_array(tmp_path / "a"), rows) is None


@pytest.mark.parametrize(
    ("allowed", "shards"), [(1024, 256), (256, 64), (10**6, 256), (2, 1), (None, 256)]
)
def test_open_shards_leave_half_of_the_files_to_others(monkeypatch, allowed, shards):
    resource = pytest.importorskip("resource")
    told = resource.RLIM_INFINITY if allowed is None else allowed
    monkeypatch.setattr(_shard_files.resource, "getrlimit", lambda _: (told, told))
    assert _shard_files._most_open() == shards
