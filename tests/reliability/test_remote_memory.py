"""What of remote images stays in memory: decoded chunks and indexes, in bounded room, and never old ones."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
import zarr.codecs
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import microtome as mt
from microtome.errors import FormatError, NotFoundError, StorageError
from microtome.image import MultiscaleImage
from microtome.loading import TileLoader
from microtome.regions import Windows, read_regions, region_batch
from microtome.storage import (
    Conversion,
    DiskCache,
    KeptChunks,
    Layout,
    StorageOptions,
    _cached_array,
    place_of,
    tallied,
)
from microtome.storage._cached_array import CachedArray, open_array_at
from microtome.storage._remote_chunks import RemoteChunks
from microtome.storage._remote_indexes import INDEXES, KnownIndexes, KnownShard

ADDRESS = "s3://remembered/study/a.ome.zarr"
SIDE = 64
# 2 channels of 128 x 128 in shards of 1024: (2, 700, 650) is one shard of 72 chunks.
CHUNK_BYTES = 128 * 128 * 2


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint16]:
    return np.random.default_rng(0).integers(1, 900, (2, 700, 650), dtype=np.uint16)


def written(path: Path, values: NDArray[np.uint16], shard: int = 256) -> Path:
    layout = Layout((1, 128, 128), (2, shard, shard), "small")
    with MultiscaleImage.create(
        path, type="uint16", level_shape=values.shape, mpp=0.5, layout=layout, overwrite=True
    ) as image:
        image["level0"][...] = values
    return path


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, pixels: NDArray[np.uint16]) -> Path:
    root = tmp_path_factory.mktemp("local")
    written(root / "a.ome.zarr", pixels)
    odd: dict[str, Any] = {"chunks": (1, 100, 90), "dtype": "u2", "shape": pixels.shape}
    for name, array in {
        "plain3": zarr.create_array(root / "plain3", compressors=None, **odd),
        "gzip3": zarr.create_array(root / "gzip3", compressors=zarr.codecs.GzipCodec(), **odd),
        "old2": zarr.create_array(root / "old2", zarr_format=2, **odd),
        "raw3": zarr.create_array(root / "raw3", shards=(2, 300, 270), compressors=None, **odd),
    }.items():
        array[:, :, :300] = pixels[:, :, :300]
        assert (root / name).is_dir()
    return root


@pytest.fixture(scope="module")
def moto(local: Path, s3_holding: Any) -> Iterator[str]:
    with s3_holding(local, "remembered", "study") as address:
        yield address


@pytest.fixture
def options(trouble: Any) -> StorageOptions:
    return StorageOptions(endpoint=trouble.endpoint, region="us-east-1", longest_pause=0.2)


def asked_of_pixels(trouble: Any) -> list[tuple[str, str | None, int, int]]:
    return [one for one in trouble.answers if "/c/" in one[0]]


class Stored:
    """Windows of an image in a store."""

    def __init__(self, address: str, corners: Any, options: StorageOptions) -> None:
        self.image = mt.open_image(address, storage_options=options)
        self.windows = Windows.of(0, corners, SIDE)

    def __len__(self) -> int:
        return len(self.windows)

    def read_batch(self, rows: NDArray[np.int64]) -> Any:
        windows = self.windows.take(rows)
        found = read_regions([self.image], windows, convert=Conversion.of())
        return region_batch([self.image], windows, found)


def corners(count: int = 48, seed: int = 1) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, 600 - SIDE, (count, 2))


def touched(starts: NDArray[np.int64], side: int) -> set[tuple[int, int]]:
    """Return which parts of so many pixels tiles lie in."""
    return {
        (row, column)
        for y, x in starts.tolist()
        for row in range(y // side, (y + SIDE - 1) // side + 1)
        for column in range(x // side, (x + SIDE - 1) // side + 1)
    }


def loaded(loader: TileLoader) -> NDArray[np.float32]:
    return np.concatenate([np.asarray(batch.data) for batch in loader])


def expected(loader: TileLoader, pixels: NDArray[np.uint16]) -> NDArray[np.float32]:
    rows = np.concatenate([loader.batch_rows(number) for number in range(len(loader))])
    tiles = loader.source.windows.start[rows].tolist()
    found = [pixels[:, y : y + SIDE, x : x + SIDE] for y, x in tiles]
    return np.stack(found).astype(np.float32)


@pytest.mark.parametrize("order", ["sequential", "random", "blocked"])
@pytest.mark.parametrize("disk", [False, True])
@pytest.mark.parametrize("threads", [1, 3])
def test_an_epoch_that_was_kept_asks_for_nothing_and_decodes_nothing(
    options: StorageOptions,
    trouble: Any,
    tmp_path: Path,
    pixels: NDArray[np.uint16],
    order: str,
    disk: bool,
    threads: int,
) -> None:
    if disk:
        cache = DiskCache(tmp_path / "cache", 2**26)
        options = dataclasses.replace(options, disk_cache=cache)
    source = Stored(ADDRESS, corners(), options)
    loader = TileLoader(
        source, 8, order=order, threads=threads, prefetch=threads, cache_bytes=2**24, as_torch=False
    )
    np.testing.assert_array_equal(loaded(loader), expected(loader, pixels))
    first = loader.stats()
    assert first.cache_misses
    assert first.decode_seconds > 0
    trouble.forget()
    loader.set_epoch(1)
    np.testing.assert_array_equal(loaded(loader), expected(loader, pixels))
    second = loader.stats()
    assert trouble.answers == []
    assert second.cache_misses == first.cache_misses
    assert second.cache_hits > first.cache_hits
    assert second.decode_seconds == first.decode_seconds
    # With several threads some may have been decoded by two.
    chunks = 2 * len(touched(source.windows.start, 128))
    assert chunks <= first.cache_misses <= (chunks if threads == 1 else 3 * chunks)


@pytest.mark.parametrize("limit", [1, 5 * CHUNK_BYTES, 20 * CHUNK_BYTES])
def test_memory_stays_within_what_was_allowed(
    options: StorageOptions, pixels: NDArray[np.uint16], limit: int
) -> None:
    image = mt.open_image(ADDRESS, storage_options=options)
    windows = Windows.of(0, corners(), SIDE)
    for evicts in (True, False):
        kept = KeptChunks(limit, evicts=evicts)
        for _ in range(2):
            for begin in range(0, 48, 8):
                mine = windows.take(np.arange(begin, begin + 8))
                with tallied(kept) as tally:
                    found = read_regions([image], mine)
                for tile, (y, x) in zip(found, mine.start.tolist(), strict=True):
                    np.testing.assert_array_equal(tile, pixels[:, y : y + SIDE, x : x + SIDE])
                assert kept.bytes <= limit
                assert tally.decoded + tally.found > 0
        # Nothing is held for reads that have ended.
        assert kept.bytes == sum(one.nbytes + 256 for one, _ in kept._kept.values())


@pytest.mark.parametrize("cache_bytes", [0, 2**24 + 17])
def test_indexes_are_asked_for_once(
    options: StorageOptions, trouble: Any, pixels: NDArray[np.uint16], cache_bytes: int
) -> None:
    options = dataclasses.replace(options, cache_bytes=cache_bytes)
    image = mt.open_image(ADDRESS, storage_options=options)
    for _ in range(3):
        for y, x in corners(20).tolist():
            found = image.read(0, (y, y + SIDE), (x, x + SIDE))
            np.testing.assert_array_equal(found, pixels[:, y : y + SIDE, x : x + SIDE])
    asked = asked_of_pixels(trouble)
    ends = [(path, span) for path, span, *_ in asked if span and span.startswith("bytes=-")]
    # Shards of 256 px, of each of which the index is its end.
    assert len(ends) == len(set(ends)) == len(touched(corners(20), 256)) > 4
    if cache_bytes:
        again = len(asked)
        image.read(0, (0, 600), (0, 600))
        mt.open_image(ADDRESS, storage_options=options)
        image.read(0, (0, 600), (0, 600))
        # What was missing of it came once; the image that was opened in between was not read.
        assert len(asked_of_pixels(trouble)) - again <= 2 * 9


def test_reads_are_what_the_engine_reads(
    options: StorageOptions, local: Path, pixels: NDArray[np.uint16]
) -> None:
    kept = KeptChunks(2**22, evicts=True)

    def look(name: str) -> None:
        wanted = pixels.copy()
        wanted[:, :, 300:] = 0
        place = place_of(f"s3://remembered/study/{name}", options)
        array = open_array_at(place)
        assert isinstance(array, CachedArray)

        @settings(max_examples=15)
        @given(data=st.data())
        def check(data: st.DataObject) -> None:
            box = tuple(
                tuple(sorted((data.draw(st.integers(0, n)), data.draw(st.integers(0, n)))))
                for n in wanted.shape
            )
            inside = tuple(slice(*side) for side in box)
            out = np.empty([b - a for a, b in box][::-1], np.uint16).transpose()
            with tallied(kept if data.draw(st.booleans()) else None):
                pending = array.read_into(box, out)
                np.testing.assert_array_equal(array.read(box), wanted[inside])
                pending.result()
            np.testing.assert_array_equal(out, wanted[inside])

        check()

    for name in ("plain3", "gzip3", "old2", "raw3"):
        look(name)


@pytest.mark.parametrize("limit", [1, 2**17, 2**30])
def test_a_large_read_is_done_in_parts(
    options: StorageOptions,
    trouble: Any,
    pixels: NDArray[np.uint16],
    monkeypatch: pytest.MonkeyPatch,
    limit: int,
) -> None:
    monkeypatch.setattr(_cached_array, "_LARGEST_READ", limit)
    fetched: list[int] = []
    own = RemoteChunks.fetched

    def counting(self: Any, plan: Any, kept: Any = None) -> Any:
        fetched.append(len(plan.local))
        return own(self, plan, kept)

    monkeypatch.setattr(RemoteChunks, "fetched", counting)
    image = mt.open_image(ADDRESS, storage_options=options)
    np.testing.assert_array_equal(image.level(0)[...], pixels)
    np.testing.assert_array_equal(image.read(0, (3, 699), (250, 601)), pixels[:, 3:699, 250:601])
    # 72 chunks and the 48 of the window; one shard has eight.
    assert sum(fetched) == 72 + 48
    assert max(fetched) == (8 if limit < 2**30 else 72)
    asked = [
        path for path, span, *_ in asked_of_pixels(trouble) if not (span or "").endswith("132")
    ]
    assert len(asked) == 9 + 9


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.integers(1, 40), st.integers(1, 15)),
        min_size=1,
        max_size=4,
    )
)
def test_halves_meet_where_shards_do(sides: list[tuple[int, int, int]]) -> None:
    box = tuple((start, start + size) for start, size, _ in sides)
    unit = tuple(side for *_, side in sides)
    parts = _cached_array._halves(box, unit)
    whole = all(
        (stop - 1) // side == start // side for (start, stop), side in zip(box, unit, strict=True)
    )
    assert (parts is None) == whole
    if parts is not None:
        first, second = parts
        (axis,) = (at for at in range(len(box)) if first[at] != second[at])
        (a, b), (c, d) = first[axis], second[axis]
        assert (a, d) == box[axis]
        assert a < b == c < d
        assert b % unit[axis] == 0


def put(moto: str, folder: Path, key: str) -> None:
    import boto3

    client = boto3.client("s3", endpoint_url=f"http://{moto}", region_name="us-east-1")
    for file in (entry for entry in folder.rglob("*") if entry.is_file()):
        below = file.relative_to(folder).as_posix()
        client.put_object(Bucket="remembered", Key=f"{key}/{below}", Body=file.read_bytes())
    client.close()


@pytest.mark.parametrize("disk", [False, True])
@pytest.mark.parametrize("keeps", [False, True])
def test_old_pixels_do_not_lie_beside_new_ones(
    options: StorageOptions,
    moto: str,
    tmp_path: Path,
    pixels: NDArray[np.uint16],
    disk: bool,
    keeps: bool,
) -> None:
    if disk:
        options = dataclasses.replace(options, disk_cache=DiskCache(tmp_path / "cache", 2**26))
    kept = KeptChunks(2**24, evicts=False) if keeps else None
    key = f"study/replaced-{disk}-{keeps}.ome.zarr"
    put(moto, written(tmp_path / "b.ome.zarr", pixels), key)
    image = mt.open_image(f"s3://remembered/{key}", storage_options=options)
    new = pixels[:, ::-1] + np.uint16(1000)
    with tallied(kept):
        # Three of the nine shards are known, and two of them whole.
        np.testing.assert_array_equal(image.read(0, (0, 256), (0, 520)), pixels[:, :256, :520])
    put(moto, written(tmp_path / "b.ome.zarr", new), key)
    with tallied(kept):
        seen = image.read(0, (0, 256), (0, 650))
        # Some of the third shard had to be fetched: of the other two, then, nothing is believed.
        np.testing.assert_array_equal(seen, new[:, :256])
        np.testing.assert_array_equal(image.read(0, (0, 700), (0, 650)), new)
        again = mt.open_image(f"s3://remembered/{key}", storage_options=options)
        np.testing.assert_array_equal(again.read(0, (0, 700), (0, 650)), new)


def test_an_image_that_is_opened_again_is_compared(
    options: StorageOptions, moto: str, tmp_path: Path, pixels: NDArray[np.uint16]
) -> None:
    options = dataclasses.replace(options, cache_bytes=2**24 + 19)
    key = "study/again.ome.zarr"
    for values in (pixels, pixels[:, ::-1] + np.uint16(7), pixels):
        put(moto, written(tmp_path / "c.ome.zarr", values), key)
        image = mt.open_image(f"s3://remembered/{key}", storage_options=options)
        for _ in range(2):
            np.testing.assert_array_equal(image.read(0, (0, 700), (0, 650)), values)


def test_one_that_changes_all_the_time_is_an_error(
    options: StorageOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = mt.open_image(ADDRESS, storage_options=options)
    ask = RemoteChunks._ask

    def changed(self: Any, mine: Any, hand_over: Any) -> None:
        def told(name: Any, found: Any) -> None:
            one, data = found
            hand_over(name, (dataclasses.replace(one, generation=b"another"), data))

        ask(self, mine, told)

    monkeypatch.setattr(RemoteChunks, "_ask", changed)
    kept = KeptChunks(2**24, evicts=True)
    with (
        tallied(kept),
        pytest.raises(FormatError, match=r"a\.ome\.zarr/0 changes while it is read"),
    ):
        image.read(0, (0, 64), (0, 64))
    assert kept.bytes == 0


def test_threads_fetch_a_part_once(
    options: StorageOptions, trouble: Any, pixels: NDArray[np.uint16]
) -> None:
    trouble.fault, trouble.every, trouble.only = "slow", 1, "/c/"
    image = mt.open_image(ADDRESS, storage_options=options)
    start = threading.Barrier(4)
    found: list[Any] = []

    def work() -> None:
        start.wait()
        found.append(image.read(0, (0, 256), (0, 256)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in found:
        np.testing.assert_array_equal(one, pixels[:, :256, :256])
    # An index and a run of chunks, whoever asked.
    assert len(asked_of_pixels(trouble)) == 2


@pytest.mark.parametrize("fault", ["error", "cut"])
def test_what_cannot_be_fetched_is_named_and_tried_again_by_the_next(
    options: StorageOptions, trouble: Any, pixels: NDArray[np.uint16], fault: str
) -> None:
    options = dataclasses.replace(options, retries=1, longest_pause=0.05)
    image = mt.open_image(ADDRESS, storage_options=options)
    trouble.fault, trouble.every, trouble.only = fault, 1, "/c/"
    kept = KeptChunks(2**24, evicts=True)
    with tallied(kept), pytest.raises(StorageError, match=r"a\.ome\.zarr/0/c/0/0/0"):
        image.read(0, (0, 64), (0, 64))
    assert kept.bytes == 0
    trouble.every = 0
    with tallied(kept):
        np.testing.assert_array_equal(image.read(0, (0, 64), (0, 64)), pixels[:, :64, :64])


def test_an_image_that_is_gone_is_said_to_be(options: StorageOptions) -> None:
    with pytest.raises(NotFoundError):
        mt.open_image("s3://remembered/study/none.ome.zarr", storage_options=options)


def test_indexes_take_no_more_room_than_allowed() -> None:
    shard = KnownShard(np.zeros((100, 2), np.int64), b"etag", None, 0)
    known = KnownIndexes(10 * (1600 + 400))
    first, second = known.new(), known.new()
    assert first != second
    for number in range(30):
        known.put(first, (number,), shard)
        known.put(second, (number,), None)
        known.put(first, (0,), shard)
        assert known.bytes <= 10 * 2000
    assert known.get(first, (0,)) is shard
    assert known.get(second, (29,)) is None
    with pytest.raises(KeyError):
        known.get(first, (3,))
    assert INDEXES.bytes <= 64 * 2**20
