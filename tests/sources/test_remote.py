"""Images in stores that are not directories: every read equals the same image on disk."""

import http.server
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorstore as ts

import microtome as mt
from microtome.errors import FormatError, InvalidInputError, NotFoundError, StorageError
from microtome.image import MultiscaleImage
from microtome.storage import StorageOptions, open_array, place_of


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
    with pytest.raises(NotFoundError, match="no Zarr group"):
        mt.open_image(path)
    path.write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises((FormatError, StorageError)):
        mt.open_image(path)


def test_memory(local, pixels):
    store = ts.KvStore.open("memory://somewhere/").result()
    # Another context holds other memory: written and read through the same one.
    from microtome.storage._engine import ENGINE

    store = ts.KvStore.open(
        {"driver": "memory", "path": "somewhere/"}, context=ENGINE.context("test")
    ).result()
    for file in files_of(local):
        store.write(file.relative_to(local).as_posix(), file.read_bytes()).result()
    check(MultiscaleImage.open("memory://somewhere"), local, pixels)
    assert MultiscaleImage.exists("memory://somewhere")
    assert not MultiscaleImage.exists("memory://elsewhere")


class Ranges(http.server.BaseHTTPRequestHandler):
    """Serves a folder with byte ranges, as object stores do; refuses the first `failures`."""

    failures = 0
    folder = Path()

    def do_GET(self):
        if Ranges.failures > 0:
            Ranges.failures -= 1
            self.send_error(503)
            return
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
    Ranges.failures, Ranges.folder = 0, local.parent
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


def test_a_server_that_stumbles_is_asked_again(server, local, pixels):
    Ranges.failures = 3
    check(mt.open_image(f"{server}/a.ome.zarr"), local, pixels)
    assert Ranges.failures == 0


def test_a_server_that_stays_down_ends_in_an_error_that_names_the_key(server):
    Ranges.failures = 10_000
    with pytest.raises(StorageError, match=r"a\.ome\.zarr/zarr\.json"):
        mt.open_image(f"{server}/a.ome.zarr")


@pytest.fixture
def bucket(local, monkeypatch):
    server = pytest.importorskip("moto.server", reason="moto's S3 server is not installed")
    import boto3

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    address = f"http://{host}:{port}"
    client = boto3.client("s3", endpoint_url=address, region_name="us-east-1")
    client.create_bucket(Bucket="slides")
    for file in files_of(local):
        key = f"study/a.ome.zarr/{file.relative_to(local).as_posix()}"
        client.put_object(Bucket="slides", Key=key, Body=file.read_bytes())
    yield StorageOptions(endpoint=address, region="us-east-1")
    client.close()
    running.stop()


def test_s3(bucket, local, pixels):
    check(mt.open_image("s3://slides/study/a.ome.zarr", storage_options=bucket), local, pixels)
    check(MultiscaleImage.open("s3://slides/study/a.ome.zarr", context=bucket), local, pixels)
    with pytest.raises(NotFoundError, match="s3://slides/study/b"):
        MultiscaleImage.open("s3://slides/study/b.ome.zarr", context=bucket)


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
