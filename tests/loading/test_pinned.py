"""Memory that a device copies from: locked once, used again, let go before it is gone."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from microtome.errors import InvalidInputError
from microtome.loading import TileLoader, _tensors
from microtome.regions import _memory
from microtome.regions._memory import batch_memory

torch = pytest.importorskip("torch")


class _Cuda:
    """What a CUDA runtime is asked for; nothing of it is at hand here."""

    def __init__(self, result=0):
        self.result, self.locked, self.calls, self.copied = result, {}, [], []

    def cudaHostRegister(self, address, size, flags):  # noqa: N802 - its name
        assert flags == 0
        self.calls.append(address)
        if self.result == 0:
            assert address not in self.locked
            self.locked[address] = size
        return self.result

    def cudaHostUnregister(self, address):  # noqa: N802 - its name
        del self.locked[address]
        return 0

    def copy(self, tensor, place):
        assert place == torch.device("cuda")
        at = tensor.data_ptr()
        self.copied.append(any(a <= at < a + size for a, size in self.locked.items()))
        return tensor.clone()


@pytest.fixture
def cuda(monkeypatch):
    made = _Cuda()
    monkeypatch.setattr(_memory, "_FREE", type(_memory._FREE)())
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: made)
    # A bound method would not be given the tensor.
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, place: made.copy(tensor, place))  # noqa: PLW0108
    return made


class _Large:
    """Tiles of 1 MiB, read into memory that is used again."""

    tile_bytes = 1 << 20

    def __init__(self, source_of):
        self._source = source_of(96)

    def __len__(self):
        return len(self._source)

    def read_batch(self, rows):
        batch = self._source.read_batch(rows)
        pixels = batch_memory((len(rows), 1, 512, 512), np.float32)
        pixels[...] = rows[:, None, None, None]
        return batch._replace(data=pixels)


def test_the_memory_of_batches_is_locked_once_and_used_again(cuda, source_of):
    loader = TileLoader(_Large(source_of), 8, device="cuda", prefetch=2, threads=2)
    for epoch in range(4):
        loader.set_epoch(epoch)
        rows = loader._order.rows(0, 96)
        found = [batch.data[:, 0, 0, 0].numpy() for batch in loader]
        assert np.concatenate(found).tolist() == rows.tolist()
    assert len(cuda.copied) == 48
    assert all(cuda.copied)
    # As many as are in use at the same time, at the utmost: of 48 batches.
    assert len(cuda.calls) == len(set(cuda.calls)) <= 5
    del loader
    _memory._FREE.clear()
    gc.collect()
    assert cuda.locked == {}


def test_where_the_system_locks_no_more_batches_are_copied_as_they_are(cuda, source_of):
    cuda.result = 2  # out of memory
    batches = list(TileLoader(_Large(source_of), 8, device="cuda"))
    assert len(batches) == 12
    assert not any(cuda.copied)


def test_nothing_is_locked_where_that_is_not_wanted(cuda, source_of):
    list(TileLoader(_Large(source_of), 8, device="cuda", pin_memory=False))
    assert cuda.calls == []


def test_tensors_in_memory_are_in_that_of_torch(cuda, source_of, monkeypatch):
    pinned = []

    def pin(tensor):
        pinned.append(tensor.data_ptr())
        return tensor.clone()

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    batches = list(TileLoader(_Large(source_of), 8, pin_memory=True))
    assert len(pinned) == 12
    # Copies, which torch keeps until a device has read them: none is memory that is used again.
    free = {block.address for block in _memory._FREE}
    assert free
    assert not {batch.data.data_ptr() for batch in batches} & free
    assert cuda.calls == []


def test_what_cannot_be_locked_is_refused(source_of):
    with pytest.raises(InvalidInputError, match="pin_memory=True is for tensors"):
        TileLoader(source_of(9), 3, as_torch=False, pin_memory=True)
    if not torch.cuda.is_available():
        with pytest.raises(InvalidInputError, match="pin_memory=True is for CUDA devices"):
            TileLoader(source_of(9), 3, pin_memory=True)


def test_the_runtime_has_the_calls_that_are_made(monkeypatch):
    seen = []
    monkeypatch.setattr(torch.cuda, "cudart", lambda: _Recorded(seen))
    unlock = _tensors._lock(1, 2)
    unlock(1)
    assert seen == [("cudaHostRegister", (1, 2, 0)), ("cudaHostUnregister", (1,))]


class _Recorded:
    def __init__(self, seen):
        self._seen = seen

    def __getattr__(self, name):
        def call(*given):
            self._seen.append((name, given))
            return 0

        return call
