"""An S3 server that stumbles: reads are tried again and end right, or in an error that names the key."""

from __future__ import annotations

import http.client
import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import microtome as mt
from microtome.errors import StorageError
from microtome.image import MultiscaleImage
from microtome.storage import StorageOptions

FAULTS = ("error", "throttled", "cut", "refused", "slow")
_SLOW_DOWN = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"""


class Proxy(http.server.BaseHTTPRequestHandler):
    """Passes requests on to a server, but for every so manieth, which goes wrong."""

    protocol_version = "HTTP/1.1"
    behind = ""
    every = 3
    fault = "error"
    asked = stumbled = 0
    guard = threading.Lock()

    def do_GET(self) -> None:
        with Proxy.guard:
            Proxy.asked += 1
            stumbles = Proxy.every > 0 and Proxy.asked % Proxy.every == 0
            Proxy.stumbled += stumbles
        if stumbles and Proxy.fault in {"error", "throttled"}:
            self.answer(*((500, b"") if Proxy.fault == "error" else (503, _SLOW_DOWN)), {})
            return
        if stumbles and Proxy.fault == "refused":
            self.close_connection = True
            return
        if stumbles and Proxy.fault == "slow":
            time.sleep(0.3)
        link = http.client.HTTPConnection(Proxy.behind, timeout=60)
        link.request(self.command, self.path, headers=dict(self.headers))
        found = link.getresponse()
        body = found.read()
        passed = ("ETag", "Content-Range", "Last-Modified", "Content-Type")
        headers = {name: found.headers[name] for name in passed if name in found.headers}
        if stumbles and Proxy.fault == "cut":
            self.answer(found.status, body, headers, sent=len(body) // 2)
            self.close_connection = True
        else:
            self.answer(found.status, body, headers)
        link.close()

    do_HEAD = do_GET  # noqa: N815 - the name that the server looks for

    def answer(
        self, status: int, body: bytes, headers: dict[str, str], sent: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:sent])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint16]:
    return np.random.default_rng(0).integers(0, 60000, (2, 700, 650), dtype=np.uint16)


@pytest.fixture(scope="module")
def moto(
    pixels: NDArray[np.uint16], tmp_path_factory: pytest.TempPathFactory, s3_holding: Any
) -> Iterator[str]:
    """The address of a server that has an image."""
    path = tmp_path_factory.mktemp("local") / "a.ome.zarr"
    with MultiscaleImage.create(
        path, type="uint16", level_shape=pixels.shape, mpp=0.5, channel_names=["DNA", "CD3"]
    ) as image:
        image["level0"][...] = pixels
        image.build_levels()
    with s3_holding(path, "slides", "study/a.ome.zarr") as address:
        yield address


@pytest.fixture
def options(moto: str) -> Iterator[StorageOptions]:
    """How the image is reached through the proxy."""
    Proxy.behind, Proxy.asked, Proxy.stumbled, Proxy.every = moto, 0, 0, 3
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as running:
        running.daemon_threads = True
        running.block_on_close = False
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield StorageOptions(
            endpoint=f"http://127.0.0.1:{running.server_address[1]}",
            region="us-east-1",
            longest_pause=0.2,
        )
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("fault", FAULTS)
def test_reads_end_right(options: StorageOptions, pixels: NDArray[np.uint16], fault: str) -> None:
    Proxy.fault = fault
    image = mt.open_image("s3://slides/study/a.ome.zarr", storage_options=options)
    np.testing.assert_array_equal(image.level(0)[...], pixels)
    for row in range(0, 600, 100):
        found = image.read(0, (row, row + 90), (row, row + 40))
        np.testing.assert_array_equal(found, pixels[:, row : row + 90, row : row + 40])
    assert Proxy.stumbled >= 3, "hardly a request went wrong"


def test_a_model_runs_over_an_image_that_stumbles(
    options: StorageOptions, pixels: NDArray[np.uint16], tmp_path: Path
) -> None:
    Proxy.fault, Proxy.every = "throttled", 2
    image = mt.open_image("s3://slides/study/a.ome.zarr", storage_options=options)
    made = mt.predict(
        lambda batch: batch[:, :1].astype(np.float32),
        image,
        tmp_path / "p.ome.zarr",
        tile_size=256,
        overlap=32,
    )
    np.testing.assert_array_equal(made.level(0)[...], pixels[:1])
    assert Proxy.stumbled >= 2


@pytest.mark.parametrize("fault", ["error", "throttled", "cut", "refused"])
def test_a_server_that_never_answers_is_an_error_that_names_the_image(
    options: StorageOptions, fault: str
) -> None:
    Proxy.fault, Proxy.every = fault, 1
    begun = time.monotonic()
    with pytest.raises(StorageError, match=r"s3://slides/study/a\.ome\.zarr"):
        mt.open_image("s3://slides/study/a.ome.zarr", storage_options=options)
    assert time.monotonic() - begun < 60
