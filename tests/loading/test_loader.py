"""The batches: which, in which order, as what, on every number of threads and ranks."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from microtome import MultiscaleImage
from microtome.errors import DependencyError, FormatError, InvalidInputError
from microtome.loading import BatchPlan, LoaderStats, TileLoader, TileOrder
from microtome.regions import Windows, read_regions, region_batch

KINDS = ["sequential", "random", "blocked"]


def rows_of(batches):
    return [batch.region_spec["data_idx"].tolist() for batch in batches]


def flat(batches):
    return [row for rows in rows_of(batches) for row in rows]


# ------------------------------------------------------------------ which batches


def test_sequential_batches_are_slices_of_the_source(source_of):
    source = source_of(10)
    batches = list(TileLoader(source, 4, order="sequential", as_torch=False))
    assert [len(batch.data) for batch in batches] == [4, 4, 2]
    for batch, expected in zip(batches, np.split(source.pixels, [4, 8]), strict=True):
        assert np.array_equal(batch.data, expected)
    assert batches[2].additional_metadata == [{"tile_id": 8}, {"tile_id": 9}]


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_follows_the_order(source_of, kind):
    source = source_of(50)
    loader = TileLoader(source, 8, order=kind, seed=6, epoch=2, as_torch=False)
    batches = list(loader)
    assert len(batches) == len(loader) == 7
    assert flat(batches) == TileOrder(50, kind, 6, 2).rows(0, 50).tolist()
    pixels = np.concatenate([batch.data for batch in batches])
    assert np.array_equal(pixels, source.pixels[flat(batches)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("threads", "prefetch"), [(1, 1), (1, 4), (2, 3), (4, 8), (None, 2)])
def test_threads_change_nothing(source_of, kind, threads, prefetch):
    source = source_of(103)
    alone = list(TileLoader(source, 8, order=kind, seed=1, prefetch=0, as_torch=False))
    # Later batches are ready first, as far as they can be.
    source.before = lambda rows: threading.Event().wait(0.002 * float(rows[0] % 3))
    found = list(
        TileLoader(
            source, 8, order=kind, seed=1, prefetch=prefetch, threads=threads, as_torch=False
        )
    )
    assert rows_of(found) == rows_of(alone)
    assert [b.data.tobytes() for b in found] == [b.data.tobytes() for b in alone]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("count", [60, 61, 63, 71])
def test_ranks_partition_the_epoch(source_of, world_size, count):
    loaders = [
        TileLoader(source_of(count), 4, seed=2, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    read = [list(loader) for loader in loaders]
    assert sorted(row for batches in read for row in flat(batches)) == list(range(count))
    assert len({len(batches) for batches in read}) == 1
    # Together they are at each step where one rank with larger batches would be.
    alone = TileOrder(count, seed=2).rows(0, count).tolist()
    steps = [[rows_of(batches)[step] for batches in read] for step in range(len(read[0]))]
    assert [row for step in steps for rows in step for row in rows] == alone


def test_drop_last_leaves_out_what_fills_no_batch(source_of):
    loader = TileLoader(source_of(10), 4, drop_last=True)
    assert [len(batch.data) for batch in loader] == [4, 4]
    assert len(loader) == 2


def test_an_epoch_is_the_same_until_another_is_set(source_of):
    loader = TileLoader(source_of(30), 7, seed=3)
    first, again = flat(loader), flat(loader)
    assert first == again
    loader.set_epoch(1)
    assert loader.epoch == 1
    other = flat(loader)
    assert other != first
    assert sorted(other) == sorted(first)
    loader.set_epoch(0)
    assert flat(loader) == first


def test_two_iterations_at_once_do_not_meet(source_of):
    loader = TileLoader(source_of(30), 7)
    one, two = zip(*zip(loader, loader, strict=True), strict=True)
    assert rows_of(one) == rows_of(two)


def test_the_rows_of_a_batch_can_be_asked_for(source_of):
    loader = TileLoader(source_of(30), 7, rank=1, world_size=2, seed=9)
    assert [loader.batch_rows(b).tolist() for b in range(len(loader))] == rows_of(loader)


def test_an_order_of_ones_own_is_followed(source_of):
    order = TileOrder(40, "blocked", seed=5, epoch=7, block=3, group=2)
    loader = TileLoader(source_of(40), 8, order=order)
    assert flat(loader) == order.rows(0, 40).tolist()
    assert loader.order == order
    loader.set_epoch(8)
    assert flat(loader) == order.at_epoch(8).rows(0, 40).tolist()


# ------------------------------------------------------------------ reading ahead


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_no_more_is_read_than_asked_for(source_of, prefetch):
    source = source_of(100)
    batches = iter(TileLoader(source, 5, prefetch=prefetch, order="sequential"))
    assert source.asked == []  # nothing before the first batch is wanted
    next(batches)
    next(batches)
    settle(batches, lambda: len(source.asked) >= 2 + prefetch)
    assert len(source.asked) == 2 + prefetch
    batches.close()


def settle(batches, reached):
    """Wait until the threads have done what they may."""
    pause = threading.Event()
    for _ in range(1000):
        if reached():
            break
        pause.wait(0.005)
    pause.wait(0.05)  # time to go too far


def test_no_more_threads_than_asked_for_read_at_the_same_time(source_of):
    source, reading, most, lock = source_of(64), [0], [0], threading.Lock()

    def before(rows):
        with lock:
            reading[0] += 1
            most[0] = max(most[0], reading[0])
        threading.Event().wait(0.01)
        with lock:
            reading[0] -= 1

    source.before = before
    list(TileLoader(source, 4, threads=2, prefetch=6))
    assert most[0] == 2


# ------------------------------------------------------------------ as what


def test_data_are_tensors_over_the_same_memory(source_of):
    source = source_of(6)
    given = []
    read = source.read_batch
    source.read_batch = lambda rows: given.append(read(rows)) or given[-1]
    (batch,) = TileLoader(source, 6, order="sequential")
    assert isinstance(batch.data, torch.Tensor)
    assert batch.data.dtype == torch.float32
    assert np.array_equal(batch.data.numpy(), source.pixels)
    assert batch.data.data_ptr() == given[0].data.ctypes.data


def test_pixels_that_may_not_be_written_to_are_copied(source_of):
    source = source_of(6)
    source.pixels.flags.writeable = False
    read = source.read_batch
    source.read_batch = lambda rows: read(rows)._replace(data=source.pixels)
    (batch,) = TileLoader(source, 6, order="sequential")
    batch.data.zero_()
    assert source.pixels.any()


def test_data_are_numpy_arrays_where_asked(source_of):
    (batch,) = TileLoader(source_of(6), 6, as_torch=False)
    assert isinstance(batch.data, np.ndarray)


def test_data_go_to_the_device(source_of):
    # "meta" is a device that every machine has and that is not where the data were.
    (batch,) = TileLoader(source_of(6), 6, device="meta")
    assert batch.data.device.type == "meta"
    assert batch.data.shape == (6, 2, 3, 4)
    (batch,) = TileLoader(source_of(6), 6, device=torch.device("cpu"))
    assert batch.data.device.type == "cpu"


@pytest.mark.parametrize(
    ("device", "words"), [("cuda:99", "sees [0-9]+ CUDA devices"), ("gpu", "no device of torch")]
)
def test_a_device_that_is_not_there(source_of, device, words):
    with pytest.raises(InvalidInputError, match=words):
        TileLoader(source_of(6), 6, device=device)


def test_without_torch_data_are_numpy_arrays(source_of, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (batch,) = TileLoader(source_of(6), 6)
    assert isinstance(batch.data, np.ndarray)
    for wish in ({"as_torch": True}, {"device": "cpu"}):
        with pytest.raises(DependencyError, match=r"microtome\[torch\]"):
            TileLoader(source_of(6), 6, **wish)


# ------------------------------------------------------------------ what it did


@pytest.mark.parametrize("prefetch", [0, 2])
def test_the_figures_count_what_was_handed_out(source_of, prefetch):
    source = source_of(20)
    source.before = lambda rows: threading.Event().wait(0.02)
    loader = TileLoader(source, 8, prefetch=prefetch)
    assert loader.stats().batches == loader.stats().tiles == 0
    batches = iter(loader)
    next(batches)
    assert (loader.stats().batches, loader.stats().tiles) == (1, 8)
    assert loader.stats().read_seconds >= 0.02
    rest = list(batches)
    assert len(rest) == 2
    figures = loader.stats()
    assert (figures.batches, figures.tiles) == (3, 20)
    assert figures.read_seconds >= 0.06
    # The first batch had to be waited for, whoever read it.
    assert figures.wait_seconds >= 0.02
    list(loader)
    assert loader.stats().tiles == 40


# ------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize("prefetch", [0, 3])
def test_an_error_names_the_tiles_after_the_batches_before_it(source_of, prefetch):
    source = source_of(100)

    def before(rows):
        if 37 in rows:
            raise FormatError("chunk 4 is damaged")

    source.before = before
    loader = TileLoader(source, 5, seed=8, epoch=2, prefetch=prefetch)
    order = TileOrder(100, seed=8, epoch=2).rows(0, 100).tolist()
    bad = order.index(37) // 5
    handed_out = []
    with pytest.raises(FormatError) as caught:
        handed_out.extend(loader)
    rows = ", ".join(str(row) for row in order[bad * 5 : bad * 5 + 5])
    assert str(caught.value) == (
        f"chunk 4 is damaged (batch {bad} of epoch 2, seed 8: rows {rows})"
    )
    # What was read before it was not lost, and the state stands before it.
    assert loader.state_dict()["batch"] == bad


def test_batches_before_an_error_are_handed_out(source_of):
    source = source_of(20)

    def before(rows):
        if 12 in rows:
            raise FormatError("damaged")

    source.before = before
    batches, seen = iter(TileLoader(source, 4, order="sequential", prefetch=4)), []
    with pytest.raises(FormatError):
        seen.extend(next(batches).region_spec["data_idx"][0] for _ in range(5))
    assert next(batches, None) is None
    assert len(source.asked) <= 5


def test_an_error_of_another_family_keeps_its_type_and_names_the_tiles(source_of):
    class OddError(Exception):
        def __init__(self, one, two):
            super().__init__(one, two)

    source = source_of(40)

    def before(rows):
        raise OddError(1, 2)

    source.before = before
    with pytest.raises(OddError) as caught:
        next(iter(TileLoader(source, 20, order="sequential")))
    rows = ", ".join(str(row) for row in range(16))
    assert caught.value.__notes__ == [f"in batch 0 of epoch 0, seed 0: rows {rows}, ... 20 in all"]


def test_a_source_that_gives_fewer_tiles_is_found_out(source_of):
    source = source_of(10)
    read = source.read_batch
    source.read_batch = lambda rows: read(rows[1:])
    with pytest.raises(InvalidInputError, match="gave 4 tiles for 5 rows"):
        next(iter(TileLoader(source, 5)))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"prefetch": -1}, "prefetch must be at least 0"),
        ({"prefetch": 1.5}, "prefetch must be a whole number, got 1.5"),
        ({"threads": "4"}, "threads must be a whole number, got '4'"),
        ({"batch_size": 2.5}, "batch_size must be a whole number, got 2.5"),
        ({"batch_size": "8"}, "batch_size must be a whole number, got '8'"),
        ({"seed": 1.5}, "seed must be a whole number, got 1.5"),
        ({"epoch": "0"}, "epoch must be a whole number, got '0'"),
        ({"order": "blocked", "seed": 1.5}, "seed must be a whole number, got 1.5"),
        ({"world_size": 0.5}, "world_size must be a whole number"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"order": "shuffled"}, "order must be one of"),
        ({"order": TileOrder(9)}, "over 9 tiles, the source has 10"),
        ({"order": TileOrder(10), "seed": 1}, "an order that has its own"),
        ({"order": TileOrder(10), "epoch": 0}, "an order that has its own"),
        ({"rank": 1}, "rank must be"),
        ({"batch_size": 11, "drop_last": True}, "drops them all"),
        ({"as_torch": False, "device": "cpu"}, "leave one out"),
    ],
)
def test_what_contradicts_itself_is_refused(source_of, arguments, named):
    with pytest.raises(InvalidInputError, match=named):
        TileLoader(source_of(10), **arguments)


def test_what_is_no_source_is_refused():
    with pytest.raises(
        InvalidInputError, match=r"read_batch\(rows\), or __getitems__\(rows\), got list"
    ):
        TileLoader([1, 2, 3])


def test_a_source_without_tiles_is_refused(source_of):
    with pytest.raises(InvalidInputError, match="no tiles"):
        TileLoader(source_of(0))


# ------------------------------------------------------------------ on a real image


class WindowSource:
    """Windows of images as a source, read the way that datasets do."""

    def __init__(self, images, windows):
        self.images, self.windows = images, windows

    def __len__(self):
        return len(self.windows)

    def read_batch(self, rows):
        windows = self.windows.take(rows)
        pixels = read_regions(self.images, windows).astype(np.float32)
        return region_batch(self.images, windows, pixels)


@pytest.fixture
def image(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 60_000, (3, 301, 417), np.uint16)
    path = tmp_path / "image.ome.zarr"
    with MultiscaleImage.create(path, type="uint16", level_shape=pixels.shape, mpp=0.5) as image:
        image["level0"][...] = pixels
    with MultiscaleImage.open(path) as image:
        yield pixels, image


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_tiles_of_an_image_on_disk(image, threads):
    pixels, image = image
    # Windows that hang over every edge, so that what is outside is read as 0.
    start = np.random.default_rng(1).integers(-20, [290, 400], (90, 2))
    loader = TileLoader(
        WindowSource([image], Windows.of(0, start, 32)), 16, seed=4, threads=threads, prefetch=4
    )
    padded = np.pad(pixels, [(0, 0), (20, 60), (20, 60)]).astype(np.float32)
    seen = []
    for batch in loader:
        for tile, (row, col) in zip(batch.data.numpy(), batch.region_spec["coords"], strict=True):
            assert np.array_equal(tile, padded[:, row + 20 : row + 52, col + 20 : col + 52])
            seen.append((row, col))
    assert sorted(seen) == sorted(map(tuple, start.tolist()))
    assert len(loader) == len(BatchPlan(90, 16)) == 6


def test_figures_of_an_epoch_are_those_since_it_began(source_of):
    loader = TileLoader(source_of(20), 6, seed=1)
    assert loader.epoch_stats() == loader.stats() == LoaderStats()
    list(loader)
    first = loader.stats()
    assert loader.epoch_stats() == first
    assert first.tiles == 20
    for number, _ in enumerate(loader):
        if number == 1:
            break
    both = loader.stats()
    assert (both.batches, both.tiles) == (6, 32)
    second = loader.epoch_stats()
    assert (second.batches, second.tiles) == (2, 12)
    assert second == both.since(first)
    assert second.bytes + first.bytes == both.bytes
    assert second.read_seconds == pytest.approx(both.read_seconds - first.read_seconds)
    assert (second.cache_hits, second.amplification) == (both.cache_hits, both.amplification)


def test_what_a_source_counts_in_its_cache_is_told_of_an_epoch(source_of):
    source = source_of(20)
    counted = SimpleNamespace(hits=5, misses=7)
    source.cache_info = lambda: counted
    loader = TileLoader(source, 6, prefetch=0)
    for batch in loader:
        counted.hits, counted.misses = counted.hits + len(batch.data), counted.misses + 1
    assert (loader.stats().cache_hits, loader.stats().cache_misses) == (25, 11)
    assert (loader.epoch_stats().cache_hits, loader.epoch_stats().cache_misses) == (20, 4)
