"""What every test may use: the folder of real images, and how hypothesis searches."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

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
