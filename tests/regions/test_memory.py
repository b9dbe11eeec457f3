"""Memory of batches that is used again, and never while anybody can see it."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest

from microtome.regions import Windows, _memory, read_regions
from microtome.regions._memory import batch_memory, claim_memory, lock_memory

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
    assert sum(block.size for block in _memory._FREE) <= 3 * 4 * np.prod(SHAPE)


def test_larger_memory_serves_smaller_batches_but_not_much_smaller_ones():
    large = batch_memory((4, 1024, 1024), np.float32)
    place = address(large)
    del large
    held = batch_memory((1, 512, 1024), np.uint32)
    assert address(held) != place
    small = batch_memory((2, 1024, 1024), np.float32)
    assert address(small) == place
    assert small.shape == (2, 1024, 1024)
    other = batch_memory((2, 1024, 1024), np.float32)
    assert address(other) != place


def test_the_one_that_fits_best_is_taken():
    sizes = (8, 4, 6)
    batches = [batch_memory((n, 1024, 1024), np.float32) for n in sizes]
    places = dict(zip(sizes, map(address, batches), strict=True))
    batches.clear()
    assert address(batch_memory((5, 1024, 1024), np.float32)) == places[6]


def test_who_claims_memory_keeps_it_as_long_as_it_lives(monkeypatch):
    size = 4 * int(np.prod(SHAPE))
    monkeypatch.setattr(_memory, "_MOST", size)
    monkeypatch.setattr(_memory, "_MOST_CLAIMED", 5 * size)

    class Owner:
        pass

    def free_after(count):
        batches = [batch_memory(SHAPE, np.float32) for _ in range(count)]
        batches.clear()
        return sum(block.size for block in _memory._FREE) // size

    first, second = Owner(), Owner()
    assert free_after(8) == 1
    claim_memory(first, 2 * size)
    claim_memory(first, 3 * size)
    assert free_after(8) == 3
    claim_memory(second, 100 * size)
    assert free_after(9) == 8
    del second
    gc.collect()
    assert len(_memory._FREE) == 3
    del first
    gc.collect()
    assert len(_memory._FREE) == 1


def test_memory_is_locked_once_and_let_go_before_it_is_gone(monkeypatch):
    locked, calls = {}, []

    def lock(at, size):
        calls.append(at)
        locked[at] = size
        return locked.pop

    monkeypatch.setattr(_memory, "_MOST", 0)
    batch = batch_memory(SHAPE, np.float32)
    assert lock_memory(batch[1:], lock)
    assert lock_memory(batch, lock)
    assert calls == [address(batch)]
    assert locked == {address(batch): batch.nbytes}
    assert not lock_memory(np.zeros(9), lock)
    other = batch_memory(SHAPE, np.float32)
    assert not lock_memory(other, lambda _at, _size: None)
    del batch, other
    gc.collect()
    assert not locked


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


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_where_there_is_no_memory_that_is_all_that_is_told():
    with pytest.raises(MemoryError):
        batch_memory((10**7, 10**7), np.float32)
    gc.collect()
