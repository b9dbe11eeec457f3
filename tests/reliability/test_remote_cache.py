"""Images in a store read through a cache on disk: the same pixels, asked for once, and never old ones."""

from __future__ import annotations

import dataclasses
import functools
import http.server
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

import microtome as mt
from microtome.errors import FormatError, StorageError
from microtome.image import MultiscaleImage
from microtome.loading import TileLoader
from microtome.storage import DiskCache, StorageOptions, open_store, place_of
from microtome.storage._cached_array import CachedArray, open_array_at

ADDRESS = "s3://cached/study/a.ome.zarr"
FILE = "remote-bytes.sqlite"


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint16]:
    return np.random.default_rng(0).integers(0, 900, (2, 700, 650), dtype=np.uint16)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, pixels: NDArray[np.uint16]) -> Path:
    root = tmp_path_factory.mktemp("local")
    given: dict[str, Any] = {"cohort": root / "study", "mpp": 1.0, "resolution": 1.0}
    glass = np.full((700, 650, 3), 240, np.uint8)
    glass[40:660, 40:600] = [150, 60, 140]
    for number in range(2):
        tissue = f"t{number}"
        mt.ingest(glass, modality="he", axes="yxc", tissue_id=tissue, **given)
        counts = np.roll(pixels, number, 1)
        names = ["DNA", "CD3"]
        mt.ingest(
            counts, modality="imc", axes="cyx", tissue_id=tissue, channel_names=names, **given
        )
    mt.mask(root / "study")
    mt.tile(root / "study", tile_size=64, method="grid", strategy="default")
    with MultiscaleImage.create(
        root / "a.ome.zarr", type="uint16", level_shape=pixels.shape, mpp=0.5
    ) as image:
        image["level0"][...] = pixels
        image.build_levels()
    arrays = root / "arrays"
    odd = {"chunks": (1, 100, 90), "dtype": "u2", "shape": pixels.shape}
    made = [
        zarr.create_array(arrays / "gzip3", compressors=zarr.codecs.GzipCodec(), **odd),
        zarr.create_array(arrays / "plain3", compressors=None, **odd),
        zarr.create_array(
            arrays / "shards3",
            shards=(2, 300, 270),
            compressors=[zarr.codecs.GzipCodec(), zarr.codecs.Crc32cCodec()],
            **odd,
        ),
        zarr.create_array(arrays / "old2", zarr_format=2, **odd),
        zarr.create_array(
            arrays / "turned3", filters=zarr.codecs.TransposeCodec(order=(2, 1, 0)), **odd
        ),
    ]
    for array in made:
        array[:, :, :300] = pixels[:, :, :300]
    return root


@pytest.fixture(scope="module")
def moto(local: Path, s3_holding: Any) -> Iterator[str]:
    with s3_holding(local, "cached", "study") as address:
        yield address


@pytest.fixture
def options(trouble: Any, tmp_path: Path) -> StorageOptions:
    return StorageOptions(
        endpoint=trouble.endpoint,
        region="us-east-1",
        longest_pause=0.2,
        disk_cache=DiskCache(tmp_path / "cache", 2**26),
    )


def data_requests(trouble: Any) -> list[Any]:
    """Those that a part of a shard or chunk came by."""
    return [one for one in trouble.answers if "/c/" in one[0] and one[2] in {200, 206}]


def epoch(options: StorageOptions | None, path: Any, order: str = "blocked") -> list[Any]:
    dataset = mt.MultiplexImagingDataset(
        "study",
        path=path,
        modality="imc",
        standardization="identity",
        resolution=1.0,
        tile_size=64,
        storage_options=options,
    )
    loader = TileLoader(dataset, batch_size=16, order=order, seed=0)
    return [np.asarray(batch.data).copy() for batch in loader]


@pytest.mark.parametrize("order", ["blocked", "random"])
def test_a_second_epoch_asks_for_no_data(
    local: Path, options: StorageOptions, trouble: Any, order: str
) -> None:
    wanted = epoch(None, local / "study", order)
    first = epoch(options, "s3://cached/study/study", order)
    fetched = data_requests(trouble)
    assert len(wanted) == len(first) > 3
    np.testing.assert_equal(first, wanted)
    # Each part once, whichever thread asks for it first.
    stored = sum(f.stat().st_size for f in (local / "study/imc").rglob("c/*/*/*") if f.is_file())
    assert sum(size for *_, size in fetched) < 1.05 * stored
    trouble.forget()
    second = epoch(options, "s3://cached/study/study", order)
    np.testing.assert_equal(second, wanted)
    assert data_requests(trouble) == []
    # One a shard is asked whether it is still the same.
    shards = {path for path, *_ in trouble.answers if "/c/" in path}
    again = [path for path, _, status, _ in trouble.answers if status == 304]
    assert set(again) == shards


def test_every_way_of_reading_is_that_of_the_image_here(
    local: Path, options: StorageOptions, pixels: NDArray[np.uint16]
) -> None:
    for _ in range(2):
        image = mt.open_image(ADDRESS, storage_options=options)
        for row in range(0, 600, 100):
            found = image.read(0, (row, row + 90), (row, row + 40))
            np.testing.assert_array_equal(found, pixels[:, row : row + 90, row : row + 40])
        here = mt.open_image(local / "a.ome.zarr")
        for level in range(image.level_count):
            np.testing.assert_array_equal(image.level(level)[...], here.level(level)[...])


@pytest.mark.parametrize("name", ["gzip3", "plain3", "shards3", "old2", "turned3"])
def test_layouts_of_others(
    options: StorageOptions, trouble: Any, pixels: NDArray[np.uint16], name: str
) -> None:
    wanted = pixels.copy()
    wanted[:, :, 300:] = 0
    for turn in range(2):
        array = open_array_at(place_of(f"s3://cached/study/arrays/{name}", options))
        assert isinstance(array, CachedArray)
        trouble.forget()
        for box in (
            ((0, 2), (0, 700), (0, 650)),
            ((1, 2), (99, 301), (80, 460)),
            ((0, 1), (5, 5), (0, 9)),
        ):
            np.testing.assert_array_equal(array.read(box), wanted[tuple(slice(*s) for s in box)])
        # What only the engine knows is read by it, and not kept.
        fetched = [
            one
            for one in trouble.answers
            if one[2] in {200, 206} and "zarr" not in one[0].split("/")[-1]
        ]
        assert bool(fetched) == (turn == 0 or name == "turned3")


@pytest.mark.parametrize("fault", ["error", "throttled", "cut", "refused"])
def test_a_store_that_stumbles(
    options: StorageOptions, trouble: Any, pixels: NDArray[np.uint16], fault: str
) -> None:
    trouble.fault, trouble.every = fault, 3
    image = mt.open_image(ADDRESS, storage_options=options)
    for row in range(0, 600, 100):
        found = image.read(0, (row, row + 90), (row, row + 40))
        np.testing.assert_array_equal(found, pixels[:, row : row + 90, row : row + 40])
    assert trouble.stumbled >= 3
    trouble.every, trouble.only = 1, "/c/"
    impatient = dataclasses.replace(options, retries=1)
    other = mt.open_image(ADDRESS, storage_options=impatient)
    with pytest.raises(StorageError, match=r"a\.ome\.zarr/0/c/"):
        other.read(0, (0, 700), (0, 650))


def put(moto: str, key: str, data: bytes) -> None:
    import boto3

    client = boto3.client("s3", endpoint_url=f"http://{moto}", region_name="us-east-1")
    client.put_object(Bucket="cached", Key=key, Body=data)
    client.close()


def test_what_was_replaced_is_not_served_old(
    tmp_path: Path, options: StorageOptions, moto: str, pixels: NDArray[np.uint16]
) -> None:
    def written(values: NDArray[np.uint16]) -> dict[str, bytes]:
        with MultiscaleImage.create(
            tmp_path / "b.ome.zarr",
            type="uint16",
            level_shape=pixels.shape,
            mpp=0.5,
            overwrite=True,
        ) as image:
            image["level0"][...] = values
        root = tmp_path / "b.ome.zarr"
        files = [f for f in root.rglob("*") if f.is_file()]
        return {f"study/b.ome.zarr/{f.relative_to(root).as_posix()}": f.read_bytes() for f in files}

    for key, data in written(pixels).items():
        put(moto, key, data)
    address = "s3://cached/study/b.ome.zarr"
    image = mt.open_image(address, storage_options=options)
    np.testing.assert_array_equal(image.read(0, (0, 100), (0, 100)), pixels[:, :100, :100])
    for key, data in written(pixels[:, ::-1]).items():
        put(moto, key, data)
    # Opened before: what is not kept comes of the new one, and nothing is mixed within a read.
    whole = image.read(0, (0, 700), (0, 650))
    np.testing.assert_array_equal(whole, pixels[:, ::-1])
    for _ in range(2):
        again = mt.open_image(address, storage_options=options)
        np.testing.assert_array_equal(again.level(0)[...], pixels[:, ::-1])


@pytest.mark.parametrize("damage", ["rows", "file"])
def test_a_damaged_cache_is_fetched_again(
    options: StorageOptions, trouble: Any, pixels: NDArray[np.uint16], damage: str
) -> None:
    image = mt.open_image(ADDRESS, storage_options=options)
    np.testing.assert_array_equal(image.level(0)[...], pixels)
    assert options.disk_cache is not None
    file = Path(options.disk_cache.path) / FILE
    if damage == "rows":
        with sqlite3.connect(file) as db:
            db.execute("UPDATE bodies SET data = zeroblob(length(data))")
    else:
        with sqlite3.connect(file) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        size = file.stat().st_size
        with file.open("r+b") as handle:
            handle.write(bytes(size))
    trouble.forget()
    np.testing.assert_array_equal(image.level(0)[...], pixels)
    again = mt.open_image(ADDRESS, storage_options=options)
    np.testing.assert_array_equal(again.level(0)[...], pixels)
    assert data_requests(trouble)


def test_chunks_that_lie_together_are_one_request(options: StorageOptions, trouble: Any) -> None:
    image = mt.open_image(ADDRESS, storage_options=options)
    image.read(0, (0, 700), (0, 650))
    # The index, and 72 chunks of 12 to 33 kB that follow each other.
    assert len(data_requests(trouble)) == 2


def test_a_shard_with_a_damaged_index_is_named(
    options: StorageOptions, local: Path, moto: str
) -> None:
    for file in (local / "a.ome.zarr").rglob("*"):
        if file.is_file():
            name = file.relative_to(local / "a.ome.zarr").as_posix()
            data = bytearray(file.read_bytes())
            if name == "0/c/0/0/0":
                data[-20] ^= 1
            put(moto, f"study/d.ome.zarr/{name}", bytes(data))
    image = mt.open_image("s3://cached/study/d.ome.zarr", storage_options=options)
    with pytest.raises(FormatError, match=r"d\.ome\.zarr/0/c/0/0/0 is damaged.*checksum"):
        image.read(0, (0, 100), (0, 100))


OTHER = """
import sys, pickle
import numpy as np
import microtome as mt
options = pickle.loads(bytes.fromhex(sys.argv[1]))
image = mt.open_image(sys.argv[2], storage_options=options)
print(int(image.level(0)[...].sum()))
"""


def test_another_process_uses_it(
    options: StorageOptions, trouble: Any, pixels: NDArray[np.uint16]
) -> None:
    import pickle

    given = [sys.executable, "-c", OTHER, pickle.dumps(options).hex(), ADDRESS]
    both = [subprocess.Popen(given, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        assert process.communicate(timeout=120)[0].strip() == str(int(pixels.sum()))
    trouble.forget()
    image = mt.open_image(ADDRESS, storage_options=options)
    np.testing.assert_array_equal(image.level(0)[...], pixels)
    assert data_requests(trouble) == []


def test_what_is_here_needs_no_cache(local: Path, options: StorageOptions) -> None:
    store = open_store(local / "a.ome.zarr", context=options)
    assert not isinstance(store.open_array("0"), CachedArray)
    assert options.disk_cache is not None
    assert not Path(options.disk_cache.path).exists()


@pytest.mark.parametrize("cached", [False, True])
def test_a_server_that_ignores_ranges_is_told_of(local: Path, tmp_path: Path, cached: bool) -> None:
    class Plain(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    handler = functools.partial(Plain, directory=str(local))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        cache = DiskCache(tmp_path / "cache", 2**20) if cached else None
        address = f"http://127.0.0.1:{running.server_address[1]}/a.ome.zarr"
        image = mt.open_image(address, storage_options=StorageOptions(disk_cache=cache))
        with pytest.raises(StorageError, match=r"a\.ome\.zarr/0.*ignores the header Range"):
            image.read(0, (0, 100), (0, 100))
        running.shutdown()
        thread.join()


def test_the_command_line_keeps_where_the_environment_says(
    options: StorageOptions,
    trouble: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from microtome.cli import main

    monkeypatch.setenv("AWS_ENDPOINT_URL", trouble.endpoint)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("MICROTOME_DISK_CACHE", str(tmp_path / "kept"))
    monkeypatch.setenv("MICROTOME_DISK_CACHE_LIMIT", "64 MiB")
    asked: list[int] = []
    address = "s3://cached/study/study/he/1_0mpp/images/t0.ome.zarr"
    for turn in range(2):
        trouble.forget()
        given = ["--model", "demo", "--size", "256"]
        assert main(["predict", address, "--out", str(tmp_path / f"{turn}.ome.zarr"), *given]) == 0
        asked.append(len(data_requests(trouble)))
    assert asked[0] > 0
    assert asked[1] == 0
    assert (tmp_path / "kept" / FILE).is_file()
    first, second = (mt.open_image(tmp_path / f"{turn}.ome.zarr") for turn in range(2))
    np.testing.assert_array_equal(first.level(0)[...], second.level(0)[...])
    monkeypatch.setenv("MICROTOME_DISK_CACHE_LIMIT", "a lot")
    capfd.readouterr()
    assert main(["info", ADDRESS]) == 2
    assert "MICROTOME_DISK_CACHE_LIMIT=a lot: a size is a number" in capfd.readouterr().err
