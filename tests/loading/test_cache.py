"""Chunks that stay decoded between the batches of a loader."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from microtome.errors import InvalidInputError
from microtome.image import MultiscaleImage
from microtome.loading import TileLoader
from microtome.regions import Windows, read_regions, region_batch
from microtome.storage import Conversion, Layout

SIDE = 32


class Stored:
    """Windows of one stored image."""

    def __init__(self, path, corners):
        self.path = path
        self.image = MultiscaleImage.open(path)
        self.windows = Windows.of(0, corners, SIDE)

    def __len__(self):
        return len(self.windows)

    def __reduce__(self):
        return Stored, (self.path, self.windows.start)

    def read_batch(self, rows):
        windows = self.windows.take(rows)
        pixels = read_regions([self.image], windows, convert=Conversion.of())
        return region_batch([self.image], windows, pixels)


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).poisson(40, (2, 300, 300)).astype(np.uint16)


@pytest.fixture(scope="module")
def source(tmp_path_factory, pixels):
    path = tmp_path_factory.mktemp("cache") / "a.ome.zarr"
    layout = Layout((1, 100, 100), (2, 200, 200), "small")
    with MultiscaleImage.create(
        path, type="uint16", level_shape=pixels.shape, mpp=0.5, layout=layout
    ) as image:
        image.level(0)[...] = pixels
    corners = np.random.default_rng(1).integers(0, 300 - SIDE, (64, 2))
    return Stored(path, corners)


def loaded(loader):
    return np.concatenate([np.asarray(batch.data) for batch in loader])


def expected(loader, pixels):
    rows = np.concatenate([loader.batch_rows(number) for number in range(len(loader))])
    tiles = loader.source.windows.start[rows].tolist()
    return np.stack([pixels[:, y : y + SIDE, x : x + SIDE] for y, x in tiles]).astype(np.float32)


@pytest.mark.parametrize("order", ["sequential", "random", "blocked"])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("size", [1, 1 << 16, 1 << 22])
def test_batches_are_the_same_whatever_is_kept(source, pixels, order, threads, size):
    loader = TileLoader(
        source, 8, order=order, threads=threads, prefetch=threads, cache_bytes=size, as_torch=False
    )
    for epoch in range(3):
        loader.set_epoch(epoch)
        np.testing.assert_array_equal(loaded(loader), expected(loader, pixels))
    figures = loader.stats()
    assert figures.cache_misses > 0
    assert (figures.cache_hits > 0) == (size > 1)


def test_an_epoch_that_was_kept_decodes_nothing(source):
    loader = TileLoader(source, 8, prefetch=0, cache_bytes=1 << 22, as_torch=False)
    loaded(loader)
    first = loader.stats()
    # All 18 chunks, of which there are two channels.
    assert first.cache_misses == 18
    assert 0 < first.decode_seconds < first.read_seconds
    loader.set_epoch(1)
    loaded(loader)
    second = loader.stats()
    assert second.cache_misses == 18
    assert second.cache_hits > first.cache_hits
    assert second.decode_seconds == first.decode_seconds


def test_without_a_cache_nothing_is_counted_but_decoding_is(source):
    loader = TileLoader(source, 8, prefetch=0, as_torch=False)
    loaded(loader)
    figures = loader.stats()
    assert figures.cache_hits is None
    assert figures.cache_misses is None
    assert 0 < figures.decode_seconds < figures.read_seconds


def test_a_loader_that_keeps_chunks_can_be_pickled(source, pixels):
    loader = TileLoader(source, 8, prefetch=0, cache_bytes=1 << 22, as_torch=False)
    loaded(loader)
    again = pickle.loads(pickle.dumps(loader))
    np.testing.assert_array_equal(loaded(again), expected(again, pixels))


@pytest.mark.parametrize("size", [-1, 1.5, True, "1 GiB"])
def test_a_size_that_is_none_is_refused(source, size):
    with pytest.raises(InvalidInputError, match="cache_bytes must be a whole number of bytes"):
        TileLoader(source, 8, cache_bytes=size)
