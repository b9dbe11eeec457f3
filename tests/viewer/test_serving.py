"""The program itself: it listens here only, opens fast, forgets what nobody waits for, and ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import httpx
import imagecodecs
import numpy as np
import pytest
import tifffile

from microtome.cli import main
from microtome.coordinates import Mpp
from microtome.errors import InvalidInputError, StorageError
from microtome.image import begin_image, pyramid_shapes
from microtome.viewer import view, viewer_app
from microtome.viewer._keeping import Kept

from .conftest import TOKEN, served

ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)/([A-Za-z0-9_-]{32,})/\n")


def start(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    """Start `microtome view`, and wait for the address that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "microtome", "view", *arguments, "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not ADDRESS.fullmatch(line):
        process.kill()
        raise AssertionError(line + process.communicate()[1])
    return process, line.strip()


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_and_ends_in_order(study, sent):
    process, url = start(str(study.root))
    try:
        assert json.loads(fetch(f"{url}api/cohort"))["title"] == "study"
        page = fetch(url)
        assert b"<!DOCTYPE html>" in page
        assert b"static/main.js" in page
        assert fetch(f"{url}static/vendor/openseadragon.min.js")
        port = urlsplit(url).port
        with pytest.raises(urllib.error.HTTPError, match="404"):
            fetch(f"http://127.0.0.1:{port}/api/cohort")
        # On no other address of this machine.
        with socket.socket() as other, pytest.raises(OSError, match="refused"):
            other.connect(("127.0.0.2", port))
        process.send_signal(sent)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert "Traceback" not in err
    token = ADDRESS.fullmatch(f"{url}\n")[2]  # pyright: ignore[reportOptionalSubscript]
    assert token not in out + err  # after the first line: no log holds it
    if sent == signal.SIGINT:
        assert process.returncode == 0, err
    else:
        assert process.returncode in {0, -signal.SIGTERM}


def test_what_is_wrong_is_said_before_a_server_starts(tmp_path, study, capfd):
    tifffile.imwrite(tmp_path / "plain.tif", np.zeros((30, 40), np.uint8))
    for arguments, code, said in (
        ([str(tmp_path / "nothing")], 1, "nothing"),
        ([str(tmp_path / "plain.tif")], 2, "--mpp"),
        ([str(study.root), "--port", "99999"], 2, "99999"),
    ):
        assert main(["view", *arguments, "--no-browser"]) == code
        out, err = capfd.readouterr()
        assert said in err
        assert not out


def test_an_image_that_states_no_resolution_is_given_one(tmp_path):
    tifffile.imwrite(tmp_path / "plain.tif", np.zeros((30, 40), np.uint8))
    process, url = start(str(tmp_path / "plain.tif"), "--mpp", "0.5")
    try:
        facts = json.loads(fetch(f"{url}api/image/image/image"))
        assert (facts["width"], facts["height"], facts["mpp"]) == (40, 30, [0.5, 0.5])
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0


def test_a_port_that_is_taken(study):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(StorageError, match="choose another port"):
            view(study.root, port=taken.getsockname()[1], open_browser=False)
    with pytest.raises(InvalidInputError, match="65535"):
        view(study.root, port=-1, open_browser=False)


def test_the_browser_is_shown_the_address(study, monkeypatch):
    shown: list[str] = []
    came = threading.Event()

    def opened(url: str) -> bool:
        shown.append(url)
        came.set()
        return True

    class Stopped:
        def __init__(self, config):
            assert config.access_log is False

        def run(self, sockets):
            assert sockets[0].getsockname()[0] == "127.0.0.1"
            assert came.wait(10)

    monkeypatch.setattr("webbrowser.open", opened)
    monkeypatch.setattr("uvicorn.Server", Stopped)
    told: list[str] = []
    view(study.root, ready=told.append)
    assert shown == told
    assert ADDRESS.fullmatch(f"{told[0]}\n")
    view(study.root, ready=told.append)
    first, second = (url.rsplit("/", 2)[1] for url in told)
    assert first != second


def test_a_slide_of_100_000_pixels_opens_within_a_second(tmp_path):
    """All levels are there; no chunk is, which makes the file and not its metadata small."""
    path = tmp_path / "huge.ome.zarr"
    shapes = pyramid_shapes((3, 100_000, 100_000), 256)
    with begin_image(
        path, dtype=np.uint8, shape=shapes[0], axes="cyx", mpp=Mpp.from_user(0.25),
        channel_names=["red", "green", "blue"],
    ) as image:  # fmt: skip
        for number, shape in enumerate(shapes[1:], 1):
            image.add_new_level(f"level{number}", shape=shape)
        image.level(0)[:, 51_200:51_456, 76_800:77_056] = np.arange(256, dtype=np.uint8)
    before = time.perf_counter()
    app = viewer_app(path, token=TOKEN)
    with served(app) as origin, httpx.Client(base_url=f"{origin}/{TOKEN}/") as client:
        client.get("api/cohort").raise_for_status()
        facts = client.get("api/image/image/image").json()
        first = client.get("api/image/image/image/tile/0/0/0.jpeg")
        took = time.perf_counter() - before
        assert (facts["width"], facts["max_zoom"], facts["kind"]) == (100_000, 9, "rgb")
        assert first.status_code == 200
        assert took < 3, f"{took:.2f} s"  # 0.2 s on a machine at rest
        shown = imagecodecs.png_decode(
            client.get("api/image/image/image/tile/9/300/200.png").content
        )
        np.testing.assert_array_equal(shown[7, :, 0], np.arange(256))
        for zoom in range(10):
            assert client.get(f"api/image/image/image/tile/{zoom}/0/0.jpeg").status_code == 200


def test_what_nobody_waits_for_is_not_drawn(study, monkeypatch):
    """Someone who pans away leaves; what waits for its turn then is dropped."""
    drawn: list[tuple[int, int, int]] = []
    gate = threading.Event()
    busy = threading.Semaphore(0)

    def slow(_self, _slide, place, _ending, _channels):
        drawn.append(place)
        busy.release()
        assert gate.wait(20)
        return "image/png", b"x"

    monkeypatch.setattr("microtome.viewer._studio.Studio.picture_tile", slow)
    monkeypatch.setattr("microtome.viewer._app._AT_ONCE", 1)
    with served(viewer_app(study.root, token=TOKEN)) as origin:
        at = urlsplit(origin)

        def ask(row: int) -> socket.socket:
            connection = socket.create_connection((at.hostname, at.port), timeout=30)
            path = f"/{TOKEN}/api/image/a/he/tile/2/{row}/0.png"
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {at.netloc}\r\n\r\n".encode())
            return connection

        first = ask(0)
        assert busy.acquire(timeout=20)
        gone = [ask(1) for _ in range(3)]
        last = ask(2)
        time.sleep(0.5)  # all of them wait
        for connection in gone:
            connection.close()
        time.sleep(0.5)  # the server hears of it
        gate.set()
        assert b"200" in last.recv(64)
        first.close()
        last.close()
    assert drawn == [(2, 0, 0), (2, 2, 0)]


def test_an_svs_in_place(shared_data):
    path = shared_data / "wsi" / "cmu-1-small-region.svs"
    with tifffile.TiffFile(path) as file:
        reference = file.series[0].levels[0].asarray()
    app = viewer_app(path, token=TOKEN)
    with served(app) as origin, httpx.Client(base_url=f"{origin}/{TOKEN}/", timeout=60) as client:
        facts = client.get("api/image/image/image").json()
        assert (facts["height"], facts["width"]) == reference.shape[:2]
        assert facts["kind"] == "rgb"
        tile = "api/image/image/image/tile"
        for zoom in range(facts["max_zoom"] + 1):
            assert client.get(f"{tile}/{zoom}/0/0.jpeg").status_code == 200
        row, col = (n // 256 for n in reference.shape[:2])
        shown = imagecodecs.png_decode(
            client.get(f"{tile}/{facts['max_zoom']}/{col}/{row}.png").content
        )
        expected = reference[row * 256 :, col * 256 :]
        height, width = expected.shape[:2]
        np.testing.assert_array_equal(shown[:height, :width, :3], expected)
        assert not shown[height:].any()


def test_a_qptiff_in_place(shared_data):
    path = shared_data / "wsi" / "vectra.qptiff"
    with tifffile.TiffFile(path) as file:
        reference = file.series[0].levels[0].asarray()
    app = viewer_app(path, token=TOKEN)
    with served(app) as origin, httpx.Client(base_url=f"{origin}/{TOKEN}/", timeout=60) as client:
        facts = client.get("api/image/image/image").json()
        assert facts["kind"] == "channels"
        assert len(facts["channels"]) == len(reference)
        zoom = facts["max_zoom"]
        answer = client.get(
            f"api/image/image/image/tile/{zoom}/0/1.png",
            params={"channels": "1:ff0000:0:100"},
        )
        shown = imagecodecs.png_decode(answer.content)
        expected = np.clip(reference[1, 256:512, :256].astype(float) / 100, 0, 1) * 255
        height, width = expected.shape
        assert height
        assert np.abs(shown[:height, :width, 0] - expected).max() < 0.51


def test_what_was_made_is_kept_while_it_fits():
    made: list[str] = []

    def make(text: str):
        return lambda: made.append(text) or text

    kept: Kept[str] = Kept(10, len)
    for text in ("aaaa", "bbbb", "aaaa", "cccc", "bbbb"):
        assert kept.get(text, make(text)) == text
        assert kept.held <= 10
    # "bbbb" was used least recently when "cccc" came.
    assert made == ["aaaa", "bbbb", "cccc", "bbbb"]
    assert kept.get("x" * 11, make("x" * 11)) == "x" * 11
    assert kept.held == 8
    with pytest.raises(ZeroDivisionError):
        kept.get("d", lambda: str(1 // 0))
    assert kept.get("d", make("d")) == "d"


def test_many_who_ask_at_once_have_it_made_once():
    kept: Kept[int] = Kept(4)
    made: list[int] = []
    start_all = threading.Barrier(8)

    def make() -> int:
        time.sleep(0.05)
        made.append(1)
        return 7

    def ask() -> None:
        start_all.wait()
        assert kept.get("k", make) == 7

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]
