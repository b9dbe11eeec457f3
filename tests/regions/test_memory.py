"""Memory of batches that is used again, and never while anybody can see it."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest

from microtome.regions import Windows, _memory, read_regions
from microtome.regions._memory import batch_memory

SHAPE = (2, 3, 1024, 1024)


def address(array):
    return array.ctypes.data


@pytest.fixture(autouse=True)
def empty(monkeypatch):
    monkeypatch.setattr(_memory, "_FREE", type(_memory._FREE)())


def test_memory_comes_back_when_the_last_view_is_gone():
    batch = batch_memory(SHAPE, np.float32)
    place = address(batch)
    view = batch[1, :, 3::2].T
    view[...] = 7
    del batch
    gc.collect()
    other = batch_memory(SHAPE, np.float32)
    assert address(other) != place
    other[...] = 1
    assert (view == 7).all()
    del view
    assert address(batch_memory(SHAPE, np.float32)) == place


def test_the_same_memory_serves_the_next_batch_of_its_size_whatever_its_type():
    first = batch_memory(SHAPE, np.float32)
    place = address(first)
    del first
    assert address(batch_memory((4, 3, 1024, 1024), np.uint16)) == place


@pytest.mark.parametrize("through", ["tensor", "memoryview", "asarray", "reshape"])
def test_whoever_shares_memory_keeps_it(through):
    batch = batch_memory(SHAPE, np.float32)
    batch[...] = 5
    place = address(batch)
    if through == "tensor":
        held = pytest.importorskip("torch").from_numpy(batch)[1:]
    else:
        held = {
            "memoryview": memoryview, "asarray": np.asarray, "reshape": lambda a: a.reshape(-1)[9:]
        }[through](batch)  # fmt: skip
    del batch
    for _ in range(3):
        other = batch_memory(SHAPE, np.float32)
        assert address(other) != place
        other[...] = 0
    assert np.asarray(held).min() == 5


def test_little_waits_to_be_used_again(monkeypatch):
    monkeypatch.setattr(_memory, "_MOST", 3 * 4 * np.prod(SHAPE))
    batches = [batch_memory(SHAPE, np.float32) for _ in range(8)]
    batches.clear()
    assert len(_memory._FREE) == 3
    # A batch of another size passes them over and pushes them out in the end.
    for _ in range(4):
        batch_memory((5, *SHAPE[1:]), np.float32)
    assert sum(len(memory) for memory in _memory._FREE) <= 3 * 4 * np.prod(SHAPE)


def test_small_ones_are_ordinary():
    small = batch_memory((3, 4), np.uint16)
    assert small.flags.owndata
    weakref.ref(small)
    assert batch_memory((0, 3, 9, 9), np.float32).shape == (0, 3, 9, 9)


def test_threads_never_share_a_batch():
    seen = threading.Barrier(4)
    wrong = []

    def work(number):
        seen.wait()
        for turn in range(40):
            batch = batch_memory((1, 1, 1024, 1024 + number % 2), np.float32)
            batch[...] = 100 * number + turn
            if not (batch == 100 * number + turn).all():
                wrong.append((number, turn))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_batches_that_are_read_are_of_it(in_memory):
    pixels = np.random.default_rng(0).integers(0, 99, (1, 2100, 2100), np.uint16)
    batch = read_regions([in_memory(pixels)], Windows.of(0, [(5, 7)], 2048))
    place = address(batch)
    np.testing.assert_array_equal(batch[0], pixels[:, 5:2053, 7:2055])
    del batch
    assert address(read_regions([in_memory(pixels)], Windows.of(0, [(0, 0)], 2048))) == place
