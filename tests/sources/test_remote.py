"""Images in stores that are not directories: every read equals the same image on disk."""

import http.server
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import microtome as mt
from microtome.errors import (
    ExistsError,
    FormatError,
    InvalidInputError,
    ModeError,
    NotFoundError,
    StorageError,
)
from microtome.image import MultiscaleImage
from microtome.storage import Layout, StorageOptions, create_array, open_array, place_of


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 60000, (2, 301, 255), dtype=np.uint16)


@pytest.fixture(scope="module")
def local(tmp_path_factory, pixels):
    path = tmp_path_factory.mktemp("local") / "a.ome.zarr"
    with MultiscaleImage.create(
        path, type="uint16", level_shape=pixels.shape, mpp=0.5, channel_names=["DNA", "CD3"]
    ) as image:
        image["level0"][...] = pixels
        image.build_levels()
    return path


def files_of(folder: Path):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def check(image, local, pixels):
    known = MultiscaleImage.open(local)
    assert image.channel_names == ("DNA", "CD3")
    assert (image.mpp, image.level_count) == (known.mpp, known.level_count)
    for key in known:
        np.testing.assert_array_equal(image[key][...], known[key][...])
    np.testing.assert_array_equal(image.read(0, (7, 130), (200, 255)), pixels[:, 7:130, 200:255])


def test_a_zipped_image_reads_like_its_directory(local, pixels, tmp_path):
    path = tmp_path / "a.ozx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in files_of(local):
            archive.write(file, file.relative_to(local).as_posix())
    before = path.read_bytes()
    check(mt.open_image(path), local, pixels)
    assert path.read_bytes() == before


def test_a_zip_of_something_else_is_refused(tmp_path):
    path = tmp_path / "a.ozx"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(FormatError, match=r"holds no OME-Zarr image: there is no zarr\.json"):
        mt.open_image(path)
    path.write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises((FormatError, StorageError)):
        mt.open_image(path)


def test_an_address_where_nothing_lies_is_doubted():
    with pytest.raises(NotFoundError, match=r"memory://nowhere/a.*nothing lies there, .*address"):
        mt.open_image("memory://nowhere/a")


def test_memory(local, pixels):
    place = place_of("memory://somewhere")
    for file in files_of(local):
        place.write(file.relative_to(local).as_posix(), file.read_bytes())
    check(MultiscaleImage.open("memory://somewhere"), local, pixels)
    assert MultiscaleImage.exists("memory://somewhere")
    assert not MultiscaleImage.exists("memory://elsewhere")


def test_keys_of_a_place_are_written_and_removed():
    place = place_of("memory://keys") / "inside"
    beside = place_of("memory://keys-beside")
    for where in (place, place / "deeper", beside):
        where.write("a", b"1")
    place.write("b", b"2")
    place.write("b", b"3")
    assert (place.read("a"), place.read("b"), (place / "deeper").read("a")) == (b"1", b"3", b"1")
    place.remove("a")
    place.remove("never there")
    assert (place.read("a"), place.read("b")) == (None, b"3")
    place.clear()
    assert place.read("b") is None
    assert (place / "deeper").read("a") is None
    assert beside.read("a") == b"1"


def test_an_array_is_created_in_memory(pixels):
    place = place_of("memory://arrays") / "0"
    array = create_array(
        place, shape=pixels.shape, dtype="u2", layout=Layout((1, 64, 64), (2, 128, 128)), axes="cyx"
    )
    everything = tuple((0, size) for size in pixels.shape)
    array.write(everything, pixels)
    np.testing.assert_array_equal(open_array(place).read(everything), pixels)
    with pytest.raises(ExistsError, match="memory://arrays/0"):
        create_array(place, shape=(2, 2), dtype="u2", layout=Layout((2, 2), None), axes="yx")
    place.clear()
    with pytest.raises(NotFoundError):
        open_array(place).read(everything)


class Ranges(http.server.BaseHTTPRequestHandler):
    """Serves a folder with byte ranges, as object stores do; stumbles over the first `failures`."""

    failures = 0
    how = "refuse"
    folder = Path()
    asked = 0
    now, most = 0, 0
    pause = 0.0
    guard = threading.Lock()

    def do_GET(self):
        with Ranges.guard:
            Ranges.asked += 1
            Ranges.now += 1
            Ranges.most = max(Ranges.most, Ranges.now)
            stumbles, Ranges.failures = Ranges.failures > 0, max(Ranges.failures - 1, 0)
        time.sleep(Ranges.pause)
        with Ranges.guard:
            # Before the answer: who has it may ask again while this thread is still on its way out.
            Ranges.now -= 1
        if stumbles:
            self.stumble()
        else:
            self.answer()

    def stumble(self):
        if Ranges.how == "refuse":
            self.send_error(503)
        elif Ranges.how == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(b"some")
        # "drop": not a word; and the connection is closed in any case.
        self.close_connection = True

    def answer(self):
        file = Ranges.folder / self.path.strip("/")
        if not file.is_file():
            self.send_error(404)
            return
        body = file.read_bytes()
        start, stop, status = 0, len(body), 200
        if wanted := self.headers.get("Range"):
            first, last = wanted.removeprefix("bytes=").split("-")
            start = int(first) if first else len(body) - int(last)
            stop = min(int(last) + 1, len(body)) if first and last else len(body)
            status = 206
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(body)}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        self.wfile.write(body[start:stop])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(local):
    Ranges.failures, Ranges.folder, Ranges.how, Ranges.pause = 0, local.parent, "refuse", 0.0
    Ranges.asked = Ranges.most = 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ranges) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


def test_http(server, local, pixels):
    check(mt.open_image(f"{server}/a.ome.zarr"), local, pixels)
    with pytest.raises(NotFoundError, match=r"nothing\.ome\.zarr"):
        mt.open_image(f"{server}/nothing.ome.zarr")


@pytest.mark.parametrize("how", ["refuse", "drop", "cut"])
def test_a_server_that_stumbles_is_asked_again(server, local, pixels, how):
    Ranges.failures, Ranges.how = 3, how
    check(mt.open_image(f"{server}/a.ome.zarr"), local, pixels)
    assert Ranges.failures == 0


@pytest.mark.parametrize("how", ["refuse", "drop", "cut"])
def test_a_server_that_stays_down_ends_in_an_error_that_names_the_key(server, how):
    Ranges.failures, Ranges.how = 10_000, how
    impatient = StorageOptions(retries=3, longest_pause=0.2)
    begun = time.monotonic()
    with pytest.raises(StorageError, match=r"a\.ome\.zarr/zarr\.json"):
        mt.open_image(f"{server}/a.ome.zarr", storage_options=impatient)
    assert time.monotonic() - begun < 10
    assert Ranges.asked == 4  # once, and three times again


@pytest.mark.slow
def test_the_usual_patience_is_bounded_too(server):
    Ranges.failures = 10_000
    begun = time.monotonic()
    with pytest.raises(StorageError, match=r"a\.ome\.zarr/zarr\.json"):
        mt.open_image(f"{server}/a.ome.zarr")
    assert time.monotonic() - begun < 30


def test_pixels_that_cannot_be_fetched_name_their_array(server):
    image = mt.open_image(
        f"{server}/a.ome.zarr", storage_options=StorageOptions(retries=1, longest_pause=0.1)
    )
    image.read(0, (0, 1), (0, 1))
    Ranges.failures = 10_000
    with pytest.raises(StorageError, match=r"a\.ome\.zarr/0"):
        image.read(0, (0, 301), (0, 255))


SILENT = """
import os, socket, sys
os.environ["TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS"] = "1"
from microtome.errors import StorageError
from microtome.storage import StorageOptions, place_of
with socket.create_server(("127.0.0.1", 0)) as deaf:
    place = place_of(f"http://127.0.0.1:{deaf.getsockname()[1]}/a", StorageOptions(retries=0))
    try:
        place.read("key")
    except StorageError as error:
        print(error)
"""


@pytest.mark.slow
def test_a_server_that_says_nothing_is_not_waited_for_without_end():
    # In a process of its own: how long is asked for once.
    ran = subprocess.run(
        [sys.executable, "-c", SILENT], capture_output=True, text=True, timeout=60, check=True
    )
    assert "/a/key" in ran.stdout
    assert "too slow" in ran.stdout


def test_what_is_kept_is_not_asked_for_again(server, pixels):
    options = StorageOptions(cache_bytes=2**24 + 11)
    image = mt.open_image(f"{server}/a.ome.zarr", storage_options=options)
    for _ in range(2):
        found = image.read(0, (7, 130), (200, 255))
        np.testing.assert_array_equal(found, pixels[:, 7:130, 200:255])
        first, Ranges.asked = Ranges.asked, 0
    assert first == 0


@pytest.mark.parametrize("limit", [1, 3])
def test_no_more_requests_are_in_flight_than_asked_for(server, limit, tmp_path):
    pixels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    layout = Layout((8, 8), None)
    made = create_array(tmp_path / "b", shape=(64, 64), dtype="u2", layout=layout, axes="yx")
    made.write(((0, 64), (0, 64)), pixels)
    Ranges.folder = tmp_path
    array = open_array(place_of(f"{server}/b", StorageOptions(concurrency=limit)))
    assert array.shape == (64, 64)
    array.read(((0, 1), (0, 1)))
    Ranges.pause, Ranges.most = 0.01, 0
    np.testing.assert_array_equal(array.read(((0, 64), (0, 64))), pixels)
    assert Ranges.most == limit


@pytest.fixture
def bucket(local, s3_holding):
    with s3_holding(local, "slides", "study/a.ome.zarr") as address:
        yield StorageOptions(endpoint=f"http://{address}", region="us-east-1")


def test_s3(bucket, local, pixels):
    check(mt.open_image("s3://slides/study/a.ome.zarr", storage_options=bucket), local, pixels)
    check(MultiscaleImage.open("s3://slides/study/a.ome.zarr", context=bucket), local, pixels)
    with pytest.raises(NotFoundError, match="s3://slides/study/b"):
        MultiscaleImage.open("s3://slides/study/b.ome.zarr", context=bucket)


def test_s3_keys_are_written_and_removed(bucket):
    place = place_of("s3://slides/written", bucket)
    place.write("a", b"1")
    (place / "inside").write("b", b"2")
    assert (place.read("a"), (place / "inside").read("b")) == (b"1", b"2")
    place.remove("a")
    assert place.read("a") is None
    place.clear()
    assert (place / "inside").read("b") is None


def test_what_is_kept_of_s3_is_read_though_it_is_gone(bucket, pixels):
    import boto3

    options = replace(bucket, cache_bytes=2**24 + 13)
    image = mt.open_image("s3://slides/study/a.ome.zarr", storage_options=options)
    expected = image.read(0, (0, 200), (0, 200))
    client = boto3.client("s3", endpoint_url=bucket.endpoint, region_name="us-east-1")
    for found in client.list_objects_v2(Bucket="slides")["Contents"]:
        client.delete_object(Bucket="slides", Key=found["Key"])
    client.close()
    np.testing.assert_array_equal(image.read(0, (0, 200), (0, 200)), expected)
    np.testing.assert_array_equal(expected, pixels[:, :200, :200])


def test_places_that_cannot_be_written_say_so(server):
    place = place_of(f"{server}/a.ome.zarr")
    for attempt in (lambda: place.write("key", b""), lambda: place.remove("key"), place.clear):
        with pytest.raises(ModeError, match=r"a\.ome\.zarr can be read, not written"):
            attempt()


def test_addresses_that_are_none_are_refused():
    with pytest.raises(InvalidInputError, match="stores of 'ftp' cannot be read"):
        mt.open_image("ftp://somewhere/a.ome.zarr")
    with pytest.raises(InvalidInputError, match="s3://bucket/key"):
        mt.open_image("s3:///a.ome.zarr")
    with pytest.raises(InvalidInputError, match="credentials"):
        StorageOptions(credentials="guess")


def test_a_place_travels_to_another_process(local, pixels, tmp_path):
    import pickle

    path = tmp_path / "a.ozx"
    with zipfile.ZipFile(path, "w") as archive:
        for file in files_of(local):
            archive.write(file, file.relative_to(local).as_posix())
    array = open_array(place_of(path) / "0")
    again = pickle.loads(pickle.dumps(array))
    np.testing.assert_array_equal(again.read(((0, 2), (0, 9), (0, 9))), pixels[:, :9, :9])
