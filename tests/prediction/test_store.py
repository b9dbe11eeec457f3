"""Predictions that go into a store: what is there is what would be here, whole or not at all."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import microtome as mt
from microtome.cohort import mask, tile, validate
from microtome.errors import (
    BusyError,
    ExistsError,
    InvalidInputError,
    ModeError,
    NotFoundError,
    StorageError,
)
from microtome.image import MultiscaleImage
from microtome.jobs import process_pool
from microtome.prediction import _staging, embed_tiles, predict, predict_cohort, predict_instances
from microtome.storage import StorageOptions, _upload, place_of

BUCKET = "predicted"
PIXELS = np.random.default_rng(0).integers(0, 255, (3, 300, 420), np.uint8)
OPTIONS: dict[str, Any] = {"tile_size": 128, "overlap": 16}
COHORT: dict[str, Any] = {"name": "m", **OPTIONS}


def first(batch: Any) -> Any:
    return np.asarray(batch)[:, :2]


class Model:
    """Maps and vectors."""

    def __call__(self, batch: Any) -> Any:
        return np.asarray(batch)[:, :1]

    def embed(self, batch: Any) -> Any:
        return np.asarray(batch, np.float32).mean((2, 3))


@pytest.fixture(autouse=True)
def staging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where predictions are made: each test's own, to see what is left there."""
    import tempfile

    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path / "temporary"


def left(staging: Path) -> list[str]:
    return [path.name for path in staging.rglob("*") if path.parent != staging]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort of three slides, with masks and tiles."""
    root = tmp_path_factory.mktemp("local") / "study"
    rng = np.random.default_rng(0)
    for number in range(3):
        pixels = rng.integers(0, 255, (3, 150 + 10 * number, 140), np.uint8)
        mt.ingest(pixels, cohort=root, tissue_id=f"t{number}", modality="he", axes="cyx", mpp=1.0)
    mask(root, method="whole")
    tile(root, tile_size=64)
    return root


@pytest.fixture(scope="module")
def moto(study: Path, s3_holding: Any) -> Iterator[str]:
    with s3_holding(study, BUCKET, "study") as address:
        yield address


@pytest.fixture
def client(moto: str) -> Iterator[Any]:
    import boto3

    found = boto3.client("s3", endpoint_url=f"http://{moto}", region_name="us-east-1")
    yield found
    found.close()


@pytest.fixture
def options(trouble: Any) -> StorageOptions:
    return StorageOptions(endpoint=trouble.endpoint, region="us-east-1", longest_pause=0.2)


@pytest.fixture
def image() -> MultiscaleImage:
    return mt.open_image(PIXELS, axes="cyx", mpp=0.5)


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    """A place in the bucket that no other test writes to."""
    return f"out/{abs(hash(request.node.nodeid)):x}"


def stored(client: Any, key: str) -> dict[str, bytes]:
    """Every object below a key, by the rest of its name."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{key}/")
    names = [each["Key"] for page in pages for each in page.get("Contents", [])]
    return {
        name.removeprefix(f"{key}/"): client.get_object(Bucket=BUCKET, Key=name)["Body"].read()
        for name in names
    }


def here(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and not path.name.endswith(".lock")
    }


def plain(files: dict[str, bytes]) -> dict[str, Any]:
    """Files as bytes, but for which run an image is of, which is drawn."""
    found: dict[str, Any] = dict(files)
    for name, data in files.items():
        if name.endswith("zarr.json"):
            found[name] = json.loads(data)
            ours = found[name].get("attributes", {}).get("microtome", {})
            if "prediction" in ours:
                assert len(ours["prediction"].pop("run")) == 12
    return found


FAULTS = ["none", "error", "throttled", "refused", "cut"]


@pytest.mark.parametrize("fault", FAULTS)
def test_an_image_is_the_one_that_would_be_here(
    image, options, trouble, client, key, tmp_path, staging, fault
):
    # Not every second one: a conditional write is two, of which the second would always fail.
    trouble.fault, trouble.every = fault, 0 if fault == "none" else 3
    address = f"s3://{BUCKET}/{key}/p.ome.zarr"
    made = predict(first, image, address, storage_options=options, **OPTIONS)
    assert made.uri == address
    np.testing.assert_array_equal(made.level(0)[...], PIXELS[:2])
    assert trouble.stumbled >= (0 if fault == "none" else 3)
    predict(first, image, tmp_path / "p.ome.zarr", **OPTIONS)
    found = stored(client, f"{key}/p.ome.zarr")
    assert plain(found) == plain(here(tmp_path / "p.ome.zarr"))
    assert len(found) > 4
    assert left(staging) == []


def test_what_it_opens_by_is_written_last_and_once(image, options, trouble, client, key):
    predict(first, image, f"s3://{BUCKET}/{key}/p.ome.zarr", storage_options=options, **OPTIONS)
    names = [path.split("p.ome.zarr/")[-1] for path, *_ in trouble.answers if "zarr/" in path]
    root = max(at for at, name in enumerate(names) if name == "zarr.json")
    pieces = [at for at, name in enumerate(names) if "/c/" in name or name.endswith("/zarr.json")]
    assert max(pieces) < root
    # What keeps other writers away is gone afterwards.
    assert not [name for name in stored(client, key) if ".uploading" in name]


def test_a_finished_one_is_said_to_be_there_and_may_be_replaced(image, options, client, key):
    address = f"s3://{BUCKET}/{key}/p.ome.zarr"
    at: dict[str, Any] = {"storage_options": options, **OPTIONS}
    predict(first, image, address, **at)
    before = stored(client, key)
    with pytest.raises(ExistsError, match=r"it is this prediction, finished.*--overwrite"):
        predict(first, image, address, **at)
    with pytest.raises(ExistsError, match=r"other settings \(overlap: \[16, 16\] then, \[8, 8\]"):
        predict(first, image, address, **{**at, "overlap": 8})
    assert stored(client, key) == before
    other = mt.open_image(255 - PIXELS[:, :200, :100], axes="cyx", mpp=0.5)
    made = predict(first, other, address, overwrite=True, **at)
    np.testing.assert_array_equal(made.level(0)[...], 255 - PIXELS[:2, :200, :100])
    # Nothing of the larger one is left.
    assert len(stored(client, key)) < len(before)


def test_something_that_is_no_image_stays(image, options, client, key):
    client.put_object(Bucket=BUCKET, Key=f"{key}/p.ome.zarr/letters/a.txt", Body=b"dear")
    for overwrite in (False, True):
        with pytest.raises(ExistsError, match="holds something that is no image"):
            predict(
                first,
                image,
                f"s3://{BUCKET}/{key}/p.ome.zarr",
                overwrite=overwrite,
                storage_options=options,
                **OPTIONS,
            )
    assert stored(client, key) == {"p.ome.zarr/letters/a.txt": b"dear"}


def test_the_image_itself_is_not_replaced(image, options, key):
    address = f"s3://{BUCKET}/{key}/p.ome.zarr"
    source = predict(first, image, address, storage_options=options, **OPTIONS)
    with pytest.raises(InvalidInputError, match="is the image that is predicted"):
        predict(first, source, address, overwrite=True, storage_options=options, **OPTIONS)


@pytest.mark.parametrize(
    ("out", "error", "told"),
    [
        ("s3://predicted/p.ome.tif", InvalidInputError, "OME-TIFF is written to a disk here"),
        ("s3://predicted/p.png", InvalidInputError, r"call it p\.png\.ome\.zarr"),
        ("gs://predicted/p.ome.zarr", ModeError, "read, not written.*s3://"),
        ("https://predicted/p.ome.zarr", ModeError, "read, not written.*s3://"),
        ("ftp://predicted/p.ome.zarr", InvalidInputError, "ftp"),
    ],
)
def test_what_cannot_be_written_is_refused_before_the_work(image, staging, out, error, told):
    def model(batch: Any) -> Any:
        pytest.fail("the model was run")

    with pytest.raises(error, match=told):
        predict(model, image, out, **OPTIONS)
    assert left(staging) == []


def test_a_wrong_answer_leaves_nothing(image, options, client, key, staging):
    with pytest.raises(InvalidInputError, match="the model must return"):
        predict(
            lambda batch: batch[:, :, 1:],
            image,
            f"s3://{BUCKET}/{key}/p.ome.zarr",
            storage_options=options,
            **OPTIONS,
        )
    assert stored(client, key) == {}
    assert left(staging) == []


def test_a_store_that_fails_is_named_and_the_next_call_only_puts_it_there(
    image, options, trouble, client, key, staging
):
    address = f"s3://{BUCKET}/{key}/p.ome.zarr"
    asked: list[int] = []
    model = CountingModel(asked)
    trouble.fault, trouble.every, trouble.only = "error", 1, "/1/c/"
    with pytest.raises(StorageError, match=r"p\.ome\.zarr/1/c/"):
        predict(model, image, address, storage_options=options, **OPTIONS)
    assert not MultiscaleImage.exists(place_of(address, options))
    assert asked
    assert left(staging)
    asked.clear()
    trouble.fault, trouble.every = "none", 0
    made = predict(model, image, address, storage_options=options, **OPTIONS)
    assert not asked
    np.testing.assert_array_equal(made.level(0)[...], PIXELS[:2])
    assert ".uploading" not in stored(client, f"{key}/p.ome.zarr")
    assert left(staging) == []


class CountingModel:
    """Notes its batches where nobody looks who asks whether it is another model."""

    __slots__ = ()
    log: list[int]

    def __init__(self, log: list[int]) -> None:
        CountingModel.log = log

    def __call__(self, batch: Any) -> Any:
        CountingModel.log.append(len(batch))
        return first(batch)


# ------------------------------------------------------------------ two writers


def test_one_that_lives_keeps_another_out(image, options, client, key, monkeypatch):
    monkeypatch.setattr(_upload, "_BEAT", 0.05)
    address = f"s3://{BUCKET}/{key}/p.ome.zarr"
    place = place_of(address, options)
    claim = _upload._Claim(place, "another")
    with claim:
        with pytest.raises(BusyError, match=r"another process is writing s3://.*wait for it"):
            predict(first, image, address, storage_options=options, **OPTIONS)
        assert not MultiscaleImage.exists(place)
        claim.release()
    made = predict(first, image, address, storage_options=options, **OPTIONS)
    np.testing.assert_array_equal(made.level(0)[...], PIXELS[:2])
    assert ".uploading" not in stored(client, f"{key}/p.ome.zarr")


def test_what_a_dead_one_left_is_swept(image, options, client, key, monkeypatch):
    monkeypatch.setattr(_upload, "_BEAT", 0.05)
    monkeypatch.setattr(_upload, "_SILENCE", 0.3)
    address = f"s3://{BUCKET}/{key}/p.ome.zarr"
    for name in (".uploading", "0/c/9/9/9", "0/zarr.json", "7/zarr.json"):
        data = json.dumps({"run": "dead", "cleared": True, "beat": 9}) if name[0] == "." else "x"
        client.put_object(Bucket=BUCKET, Key=f"{key}/p.ome.zarr/{name}", Body=data.encode())
    assert not MultiscaleImage.exists(place_of(address, options))
    made = predict(first, image, address, storage_options=options, **OPTIONS)
    np.testing.assert_array_equal(made.level(0)[...], PIXELS[:2])
    names = stored(client, f"{key}/p.ome.zarr").keys()
    assert not names & {".uploading", "0/c/9/9/9", "7/zarr.json"}


def test_one_that_was_taken_over_stops(options, key, tmp_path, image, monkeypatch):
    predict(first, image, tmp_path / "p.ome.zarr", **OPTIONS)
    place = place_of(f"s3://{BUCKET}/{key}/p.ome.zarr", options)
    real = _upload._put

    def put(*args: Any, **kwargs: Any) -> None:
        real(*args, **kwargs)
        # It slept, and another has begun meanwhile.
        place.write(".uploading", b'{"run": "another"}')

    monkeypatch.setattr(_upload, "_put", put)
    monkeypatch.setattr(_upload, "_BEAT", 0.01)
    monkeypatch.setattr(_upload._Claim, "verify", _after_a_beat(_upload._Claim.verify))
    with pytest.raises(BusyError, match="another process is writing"):
        _upload.upload_directory(tmp_path / "p.ome.zarr", place, run="mine", overwrite=False)
    assert not MultiscaleImage.exists(place)
    assert json.loads(place.read(".uploading") or b"") == {"run": "another"}


def _after_a_beat(verify: Any) -> Any:
    def late(claim: Any) -> None:
        time.sleep(0.5)
        verify(claim)

    return late


def test_of_two_that_end_together_one_wins(options, key, tmp_path, image, monkeypatch):
    address = f"s3://{BUCKET}/{key}/p.ome.zarr"
    place = place_of(address, options)
    predict(first, image, tmp_path / "p.ome.zarr", **OPTIONS)
    real = _upload._put

    def put(*args: Any, **kwargs: Any) -> None:
        real(*args, **kwargs)
        place.write("zarr.json", b'{"theirs": 1}')

    monkeypatch.setattr(_upload, "_put", put)
    with pytest.raises(ExistsError, match=r"has written .* meanwhile"):
        _upload.upload_directory(tmp_path / "p.ome.zarr", place, run="mine", overwrite=False)
    assert place.read("zarr.json") == b'{"theirs": 1}'


@contextlib.contextmanager
def answering(moto: str, wrong: Any) -> Iterator[StorageOptions]:
    """A way to the server on which some answers are others: `wrong` gives a status, 0 is none."""

    class Proxy(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            link = http.client.HTTPConnection(moto, timeout=60)
            length = int(self.headers.get("Content-Length") or 0)
            given = self.rfile.read(length) if length else None
            link.request(self.command, self.path, body=given, headers=dict(self.headers))
            found = link.getresponse()
            body = found.read()
            link.close()
            status = wrong(self)
            if status == 0:
                self.close_connection = True
                return
            self.send_response(found.status if status is None else status)
            if "ETag" in found.headers:
                self.send_header("ETag", found.headers["ETag"])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_PUT = do_GET  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as running:
        running.daemon_threads = True
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        at = f"http://127.0.0.1:{running.server_address[1]}"
        try:
            yield StorageOptions(endpoint=at, region="us-east-1", longest_pause=0.2)
        finally:
            running.shutdown()
            thread.join()


def test_one_that_another_machine_made_meanwhile_is_kept(
    image, options, key, tmp_path, monkeypatch
):
    alone = predict(first, image, tmp_path / "a.ome.zarr", **OPTIONS)
    theirs = alone.metadata["microtome"]["prediction"]["run"]
    real = _staging.upload_directory

    def later(path: Path, place: Any, **more: Any) -> None:
        real(tmp_path / "a.ome.zarr", place, run=theirs, overwrite=False)
        real(path, place, **more)

    monkeypatch.setattr(_staging, "upload_directory", later)
    at: dict[str, Any] = {"storage_options": options, **OPTIONS}
    made = predict(first, {"a": image}, f"s3://{BUCKET}/{key}", **at)
    assert made["a"].metadata["microtome"]["prediction"]["run"] == theirs
    with pytest.raises(ExistsError, match="exists already"):
        predict(first, image, f"s3://{BUCKET}/{key}/b.ome.zarr", **at)


def test_an_answer_that_is_lost_is_no_other_writer(moto, client, key):
    """Of a conditional request that was done and repeated, the second is refused: it is ours."""
    lost: list[str] = []

    def wrong(request: Any) -> int | None:
        if request.command == "PUT" and not lost:
            lost.append(request.path)
            return 0
        return None

    with answering(moto, wrong) as options:
        place: Any = place_of(f"s3://{BUCKET}/{key}", options)
        data, stamp = place.read_stamped("a")
        assert data is None
        written = place.write_if("a", b"mine", stamp)
        assert lost
        assert written == place.read_stamped("a")[1]
        # What another wrote is never taken for ours.
        assert place.write_if("a", b"other", stamp) is None
        assert place.read("a") == b"mine"


def test_a_server_that_knows_no_conditions_is_told(moto, image, key):
    def wrong(request: Any) -> int | None:
        return 501 if request.command == "PUT" and request.headers.get("If-None-Match") else None

    address = f"s3://{BUCKET}/{key}/p.ome.zarr"
    with (
        answering(moto, wrong) as options,
        pytest.raises(StorageError, match=r"no writes on a condition .*copy it there"),
    ):
        predict(first, image, address, storage_options=options, **OPTIONS)


# ------------------------------------------------------------------ killed

RUN = """
import sys, time
import numpy as np
import microtome as mt
from microtome.storage import StorageOptions

class Slow:
    def __call__(self, batch):
        time.sleep(0.02)
        return np.asarray(batch)[:, :2]

pixels = np.random.default_rng(0).integers(0, 255, (3, 2300, 2200), np.uint8)
image = mt.open_image(pixels, axes="cyx", mpp=0.5)
at = StorageOptions(endpoint=sys.argv[2], region="us-east-1", longest_pause=0.2)
print("begun", flush=True)
mt.predict(Slow(), image, sys.argv[1], storage_options=at, tile_size=256, overlap=16)
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
def test_a_run_that_is_killed_at_any_moment_ends_with_the_same(
    options, trouble, client, key, tmp_path, staging
):
    address = f"s3://{BUCKET}/{key}/p.ome.zarr"
    command = [sys.executable, "-c", RUN]
    subprocess.run(
        [*command, str(tmp_path / "p.ome.zarr"), trouble.endpoint], check=True, timeout=120
    )
    # Each request takes its time, so that most moments are those of putting files there.
    trouble.fault, trouble.every = "slow", 1
    moments = random.Random(5)
    killed = 0
    for _ in range(6):
        with subprocess.Popen(
            [*command, address, trouble.endpoint], stdout=subprocess.PIPE
        ) as process:
            process.stdout.readline()
            asked = len(trouble.asked) + moments.randrange(0, 25)
            until = time.monotonic() + moments.uniform(0.2, 6)
            while (
                process.poll() is None and len(trouble.asked) < asked and time.monotonic() < until
            ):
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
        killed += process.returncode == -signal.SIGKILL
        if MultiscaleImage.exists(place_of(address, options)):
            break
    assert killed >= 2
    trouble.fault, trouble.every = "none", 0
    last = subprocess.run(
        [*command, address, trouble.endpoint],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    # One that was killed at its very end is there, and said to be.
    assert last.returncode == 0 or "it is this prediction, finished" in last.stderr, last.stderr
    found = stored(client, f"{key}/p.ome.zarr")
    if last.returncode:
        found.pop(".uploading", None)
    assert plain(found) == plain(here(tmp_path / "p.ome.zarr"))
    if last.returncode == 0:
        assert left(staging) == []


# ------------------------------------------------------------------ cohorts


@pytest.fixture
def cohort(study: Path, client: Any, key: str) -> str:
    """The address of a copy of the cohort of this test's own."""
    for name, data in here(study).items():
        client.put_object(Bucket=BUCKET, Key=f"{key}/study/{name}", Body=data)
    return f"s3://{BUCKET}/{key}/study"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_cohort_is_predicted_where_it_lies(  # noqa: PLR0917 - fixtures
    cohort, study, options, trouble, client, key, tmp_path, staging, fault
):
    trouble.fault, trouble.every = fault, 0 if fault == "none" else 3
    made = predict_cohort(Model(), cohort, storage_options=options, **COHORT)
    assert [str(path) for path in made] == [
        f"{cohort}/predictions/1_0mpp/m/{name}"
        for name in ("t0.ome.zarr", "t1.ome.zarr", "t2.ome.zarr", "64_tile_embeddings.parquet")
    ]
    assert all(path.exists() for path in made)
    assert trouble.stumbled >= (0 if fault == "none" else 5)
    trouble.fault, trouble.every = "none", 0
    predict_cohort(Model(), cohort, out=tmp_path / "m", storage_options=options, **COHORT)
    found = stored(client, f"{key}/study/predictions/1_0mpp/m")
    assert plain(found) == plain(here(tmp_path / "m"))
    assert left(staging) == []
    assert [f for f in validate(cohort, storage_options=options) if f.kind != "note"] == [
        f for f in validate(study) if f.kind != "note"
    ]


def test_again_nothing_is_done_and_what_is_missing_is_made(cohort, options, trouble, client, key):
    at: dict[str, Any] = {"storage_options": options, **COHORT}
    predict_cohort(Model(), cohort, **at)
    where = f"{key}/study/predictions/1_0mpp/m"
    before = stored(client, where)
    trouble.forget()
    predict_cohort(Model(), cohort, **at)
    assert stored(client, where) == before
    for name in before:
        if name.startswith("t1.ome.zarr/"):
            client.delete_object(Bucket=BUCKET, Key=f"{where}/{name}")
    predict_cohort(Model(), cohort, **at)
    assert plain(stored(client, where)) == plain(before)
    with pytest.raises(ExistsError, match=r"3 of 3 .*s3://.*t0\.ome\.zarr.*--overwrite"):
        predict_cohort(Model(), cohort, **{**at, "overlap": 8})
    assert plain(stored(client, where)) == plain(before)
    predict_cohort(Model(), cohort, overwrite=True, **{**at, "overlap": 8})
    assert set(stored(client, where)) == set(before)


def test_one_image_that_cannot_be_read_stops_no_other(cohort, options, client, key):
    where = f"{key}/study/he/1_0mpp/images/t1.ome.zarr"
    for name in stored(client, where):
        if "/c/" in name:
            client.delete_object(Bucket=BUCKET, Key=f"{where}/{name}")
    with pytest.raises(NotFoundError, match=r"^1 of 3 tissues are not predicted: t1: .*is gone"):
        predict_cohort(Model(), cohort, storage_options=options, **COHORT)
    names = stored(client, f"{key}/study/predictions/1_0mpp/m")
    assert {name.split("/")[0] for name in names} == {
        "t0.ome.zarr",
        "t2.ome.zarr",
        "64_tile_embeddings.parquet",
    }


def test_a_cohort_behind_a_web_server_says_what_to_give(cohort, trouble, options, study):
    from microtome.cohort import write_file_list

    write_file_list(study)
    try:
        root = study.parent

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args: Any, **more: Any) -> None:
                super().__init__(*args, directory=str(root), **more)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
            thread = threading.Thread(target=running.serve_forever)
            thread.start()
            address = f"http://127.0.0.1:{running.server_address[1]}/study"
            with pytest.raises(ModeError, match=r"read and not written.*out="):
                predict_cohort(Model(), address, **COHORT)
            running.shutdown()
            thread.join()
    finally:
        (study / "metadata/files.parquet").unlink()


# ------------------------------------------------------------------ vectors


def test_vectors_go_into_a_store(study, options, client, key, tmp_path, staging):
    tiles = mt.HEImagingDataset("study", path=study, resolution=1.0, tile_size=64)
    address = f"s3://{BUCKET}/{key}/v.parquet"
    made = embed_tiles(Model(), tiles, address, storage_options=options)
    assert str(made) == address
    assert made.is_file()
    embed_tiles(Model(), tiles, tmp_path / "v.parquet")
    assert stored(client, key) == {"v.parquet": (tmp_path / "v.parquet").read_bytes()}
    assert left(staging) == []


def test_vectors_that_another_has_written_meanwhile_stay(study, options, client, key):
    tiles = mt.HEImagingDataset("study", path=study, resolution=1.0, tile_size=64)

    class Slow(Model):
        def embed(self, batch: Any) -> Any:
            client.put_object(Bucket=BUCKET, Key=f"{key}/v.parquet", Body=b"theirs")
            return super().embed(batch)

    with pytest.raises(BusyError, match=r"has written s3://.*v\.parquet meanwhile"):
        embed_tiles(Slow(), tiles, f"s3://{BUCKET}/{key}/v.parquet", storage_options=options)
    assert stored(client, key) == {"v.parquet": b"theirs"}


def test_a_tissue_more_adds_its_vectors(study, options, client, key, tmp_path):
    import shutil

    copy = tmp_path / "study"
    shutil.copytree(study, copy)

    def put() -> None:
        for name, data in here(copy).items():
            if not name.startswith("predictions/"):
                client.put_object(Bucket=BUCKET, Key=f"{key}/study/{name}", Body=data)

    put()
    at: dict[str, Any] = {"storage_options": options, **COHORT}
    address = f"s3://{BUCKET}/{key}/study"
    predict_cohort(Model(), address, **at)
    pixels = np.random.default_rng(9).integers(0, 255, (3, 150, 140), np.uint8)
    mt.ingest(pixels, cohort=copy, tissue_id="t3", modality="he", axes="cyx", mpp=1.0)
    mask(copy, method="whole")
    tile(copy, tile_size=64)
    put()
    predict_cohort(Model(), address, **at)
    table = stored(client, f"{key}/study/predictions/1_0mpp/m")["64_tile_embeddings.parquet"]
    predict_cohort(Model(), copy, **COHORT)
    wanted = copy / "predictions/1_0mpp/m/64_tile_embeddings.parquet"
    (tmp_path / "found.parquet").write_bytes(table)
    assert pq.read_table(tmp_path / "found.parquet").equals(pq.read_table(wanted))


# ------------------------------------------------------------------ labels


def objects(batch: Any) -> Any:
    return (np.asarray(batch)[:, :1] > 200).astype(np.int32)


def test_labels_go_into_a_store(image, options, client, key, tmp_path, staging):
    address = f"s3://{BUCKET}/{key}/cells.ome.zarr"
    at: dict[str, Any] = {"storage_options": options, **OPTIONS}
    made = predict_instances(objects, image, address, **at)
    wanted = predict_instances(objects, image, tmp_path / "cells.ome.zarr", **OPTIONS)
    np.testing.assert_array_equal(made.level(0)[...], wanted.level(0)[...])
    found = stored(client, f"{key}/cells.ome.zarr")
    assert plain(found) == plain(here(tmp_path / "cells.ome.zarr"))
    assert left(staging) == []
    with pytest.raises(ExistsError, match="exists already"):
        predict_instances(objects, image, address, **at)
    again = predict_instances(objects, image, address, overwrite=True, **at)
    np.testing.assert_array_equal(again.level(0)[...], wanted.level(0)[...])
    with pytest.raises(InvalidInputError, match="labels inside of an image"):
        predict_instances(objects, image, f"{address}/labels/cells", **at)


# ------------------------------------------------------------------ other faces


def test_workers_put_theirs(image, options, client, key, tmp_path):
    images = {"a": image, "b": mt.open_image(255 - PIXELS, axes="cyx", mpp=0.5)}
    with process_pool(2) as executor:
        made = predict(
            np.positive,
            images,
            f"s3://{BUCKET}/{key}",
            executor=executor,
            storage_options=options,
            **OPTIONS,
        )
    np.testing.assert_array_equal(made["a"].level(0)[...], PIXELS)
    np.testing.assert_array_equal(made["b"].level(0)[...], 255 - PIXELS)


def test_the_command_line_predicts_a_cohort_where_it_lies(cohort, trouble, client, key, tmp_path):
    command = [sys.executable, "-m", "microtome", "--endpoint-url", trouble.endpoint, "predict"]
    (tmp_path / "my_models.py").write_text(
        "def first(batch):\n    return batch[:, :1]\n", encoding="utf-8"
    )
    environment = {**os.environ, "AWS_REGION": "us-east-1", "PYTHONPATH": str(tmp_path)}
    given = ["--model", "my_models:first", "--tile-size", "128", "--overlap", "16"]

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *words, *given],
            check=False,
            capture_output=True,
            text=True,
            env=environment,
            timeout=120,
        )

    done = run(cohort, "--name", "m")
    assert done.returncode == 0, done.stderr
    where = f"{cohort}/predictions/1_0mpp/m"
    assert done.stdout.split() == [f"{where}/t{number}.ome.zarr" for number in range(3)]
    assert f"{key}/study/predictions/1_0mpp/m/t2.ome.zarr/zarr.json" in {
        f"{key}/{name}" for name in stored(client, key)
    }
    one = f"{cohort}/he/1_0mpp/images/t0.ome.zarr"
    done = run(one, "--out", f"s3://{BUCKET}/{key}/one.ome.zarr")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [f"s3://{BUCKET}/{key}/one.ome.zarr"]
    done = run(f"s3://{BUCKET}/{key}/nothing")
    assert done.returncode == 1
    assert f"there is no cohort at s3://{BUCKET}/{key}/nothing" in " ".join(done.stderr.split())


def test_what_is_asked_of_the_store_does_not_grow(cohort, options, trouble, client):
    at: dict[str, Any] = {"storage_options": options, **COHORT}
    made = predict_cohort(first, cohort, **at)
    trouble.forget()
    predict_cohort(first, cohort, **at)
    kept = len(trouble.asked)
    # The cohort is opened and its predictions are listed; of each tissue a few documents are read.
    assert kept <= 4 + 3 * 9
    for path in made:
        for name in stored(client, where := str(path).partition(f"{BUCKET}/")[2]):
            client.delete_object(Bucket=BUCKET, Key=f"{where}/{name}")
    trouble.forget()
    predict_cohort(first, cohort, **at)
    files = sum(len(stored(client, str(path).partition(f"{BUCKET}/")[2])) for path in made)
    asked = [path for path in trouble.asked if "predictions" in path]
    assert len(asked) <= 1 + files + 3 * 17
