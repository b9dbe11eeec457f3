"""What every test may use: the folder of real images, and how hypothesis searches."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import pytest

REPOSITORY = Path(__file__).parents[1]

# No deadline: the machines that run this are shared, and a slow example is not a wrong one.
hypothesis.settings.register_profile("local", deadline=None)
# In CI the same examples every time, so that a red run is about the change and can be repeated.
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of small real acquisitions beside the repository; absent in most clones."""
    folder = (REPOSITORY / ".." / "shared" / "data").resolve()
    if not folder.is_dir():
        pytest.skip(f"the real images are not here: {folder} is no folder")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _interrupts_are_heard():
    """Hear SIGINT even where a shell started the suite in the background, which ignores it.

    Programs that the tests start and interrupt inherit this.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def s3_holding() -> Callable[[Path, str, str], AbstractContextManager[str]]:
    """How a folder is put into a bucket, below a key, of an S3 server on this machine: `host:port`."""
    server = pytest.importorskip("moto.server", reason="moto's S3 server is not installed")
    import boto3

    @contextlib.contextmanager
    def holding(folder: Path, bucket: str, key: str) -> Iterator[str]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ACCESS_KEY_ID", "testing")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
            running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
            running.start()
            host, port = running.get_host_and_port()
            address = f"{host}:{port}"
            client = boto3.client("s3", endpoint_url=f"http://{address}", region_name="us-east-1")
            client.create_bucket(Bucket=bucket)
            for file in (entry for entry in folder.rglob("*") if entry.is_file()):
                below = file.relative_to(folder).as_posix()
                client.put_object(Bucket=bucket, Key=f"{key}/{below}", Body=file.read_bytes())
            yield address
            client.close()
            running.stop()

    return holding


_SLOW_DOWN = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"""
_PASSED = ("ETag", "Content-Range", "Last-Modified", "Content-Type")


@dataclass
class Trouble:
    """What goes wrong on the way to a server, and what was asked of it."""

    behind: str
    """`host:port` of the server."""
    endpoint: str = ""
    """The address of the proxy."""
    fault: str = "none"
    """Of none, error, throttled, cut, refused, slow."""
    every: int = 0
    """Which requests go wrong: every so manieth."""
    only: str = ""
    """What has to be in the path of those that do."""
    asked: list[str] = field(default_factory=list)
    """Paths of requests."""
    answers: list[tuple[str, str | None, int, int]] = field(default_factory=list)
    """Of requests that were passed on: path, range, status, and bytes of the answer."""
    stumbled: int = 0
    guard: Any = field(default_factory=threading.Lock)

    def forget(self) -> None:
        """Count from here."""
        self.asked.clear()
        self.answers.clear()
        self.stumbled = 0

    def stumbles(self, path: str) -> bool:
        with self.guard:
            self.asked.append(path)
            wrong = bool(self.every) and self.only in path and len(self.asked) % self.every == 0
            self.stumbled += wrong
            return wrong


def _proxy(trouble: Trouble) -> type[http.server.BaseHTTPRequestHandler]:
    class Proxy(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            # Also of a request that goes wrong: what is not read would be taken for the next one.
            length = int(self.headers.get("Content-Length") or 0)
            given = self.rfile.read(length) if length else None
            fault = trouble.fault if trouble.stumbles(self.path) else "none"
            if fault in {"error", "throttled"}:
                self.answer(*((500, b"") if fault == "error" else (503, _SLOW_DOWN)), {})
                return
            if fault == "refused":
                self.close_connection = True
                return
            if fault == "slow":
                time.sleep(0.3)
            with contextlib.closing(http.client.HTTPConnection(trouble.behind, timeout=60)) as link:
                link.request(self.command, self.path, body=given, headers=dict(self.headers))
                found = link.getresponse()
                body = found.read()
            with trouble.guard:
                asked = (self.path, self.headers.get("Range"), found.status, len(body))
                trouble.answers.append(asked)
            headers = {name: found.headers[name] for name in _PASSED if name in found.headers}
            cut = fault == "cut"
            self.answer(found.status, body, headers, sent=len(body) // 2 if cut else None)
            self.close_connection = self.close_connection or cut

        # The names that the server looks for.
        do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

        def answer(
            self, status: int, body: bytes, headers: dict[str, str], sent: int | None = None
        ) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status not in {204, 304}:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[:sent])

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    return Proxy


@pytest.fixture(scope="session")
def stumbling() -> Callable[[str], AbstractContextManager[Trouble]]:
    """How a server, `host:port`, is reached through a proxy that counts, and stumbles when told to."""

    @contextlib.contextmanager
    def through(behind: str) -> Iterator[Trouble]:
        trouble = Trouble(behind)
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _proxy(trouble)) as running:
            running.daemon_threads = True
            running.block_on_close = False
            thread = threading.Thread(target=running.serve_forever)
            thread.start()
            trouble.endpoint = f"http://127.0.0.1:{running.server_address[1]}"
            try:
                yield trouble
            finally:
                running.shutdown()
                thread.join()

    return through


@pytest.fixture
def trouble(moto: str, stumbling: Any) -> Iterator[Any]:
    """A proxy to the server that a test's `moto` is the address of."""
    with stumbling(moto) as trouble:
        yield trouble


@contextlib.contextmanager
def _cluster() -> Iterator[Any]:
    """A dask scheduler and two workers, each a process of its own on this machine."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address="127.0.0.1:0",  # the usual port may be another cluster's
            host="127.0.0.1",
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def dask_client() -> Iterator[Any]:
    """A client of a cluster of one's own, whose workers may be killed."""
    with _cluster() as client:
        yield client


@pytest.fixture(scope="module")
def scheduler() -> Iterator[Any]:
    """A client of a cluster that the tests of a module share."""
    with _cluster() as client:
        yield client
