"""A store that says nothing more in the middle of an epoch: errors name the tile, Ctrl-C ends the program."""

from __future__ import annotations

import http.server
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self

import numpy as np
import pytest

from microtome.image import MultiscaleImage

SIZE = 128

PROGRAM = """
import sys, threading, time
import microtome as mt
from microtome.errors import StorageError
from microtome.loading import RegionDataset, TileLoader
from microtome.patching import FixedPatching
from microtome.regions import Windows
from microtome.storage import StorageOptions

address, mode, prefetch, on_error = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
options = StorageOptions(retries=0)
images = [mt.open_image(f"{address}/{name}.ome.zarr", storage_options=options) for name in ("good", "bad")]
windows = Windows.of([0, 0, 0, 1, 0, 0, 0, 0], [[16 * i, 0] for i in range(8)], 16)
loader = TileLoader(
    RegionDataset(images, FixedPatching(windows)), 2, order="sequential", prefetch=prefetch, threads=2,
    on_error=on_error, as_torch=False,
)
began = time.monotonic()
try:
    for number, batch in enumerate(loader):
        print("batch", number, len(batch.data), flush=True)
        if mode == "consumer" and number == 0:
            time.sleep(60)
except KeyboardInterrupt:
    print("left", [t.name for t in threading.enumerate()], flush=True)
    sys.exit(130)
except StorageError as error:
    print("error", error, flush=True)
    print("left", [t.name for t in threading.enumerate()], flush=True)
    sys.exit(1)
for tile in loader.skipped:
    print("skipped", tile.row, tile.error, flush=True)
"""


def _handler(folder: Path, waiting: threading.Event, end: threading.Event) -> type:
    class Stalling(http.server.BaseHTTPRequestHandler):
        """Answers parts of files, and says nothing when asked for chunks of the image "bad"."""

        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if "/bad.ome.zarr/0/c/" in self.path:
                waiting.set()
                end.wait(60)
                self.close_connection = True
                return
            file = folder / self.path.lstrip("/")
            found = file.read_bytes() if file.is_file() else None
            part = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
            if found is not None and part is not None:
                first, last = part[1], part[2]
                start = int(first) if first else max(len(found) - int(last), 0)
                stop = int(last) + 1 if first and last else len(found)
                self.send_response(206)
                self.send_header(
                    "Content-Range", f"bytes {start}-{min(stop, len(found)) - 1}/{len(found)}"
                )
                body = found[start:stop]
            else:
                self.send_response(200 if found is not None else 404)
                body = found or b""
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - the name that the server looks for

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    return Stalling


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stalled")
    pixels = np.random.default_rng(0).integers(0, 900, (1, SIZE, SIZE)).astype(np.uint16)
    for name in ("good", "bad"):
        with MultiscaleImage.create(
            folder / f"{name}.ome.zarr", type="uint16", level_shape=pixels.shape, mpp=0.5
        ) as image:
            image["level0"][...] = pixels
    return folder


class Child:
    """A program that trains on images behind a server that stalls."""

    def __init__(self, images: Path, folder: Path, *arguments: object, silence: int) -> None:
        self.waiting, self.end = threading.Event(), threading.Event()
        self.server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), _handler(images, self.waiting, self.end)
        )
        self.server.daemon_threads, self.server.block_on_close = True, False
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        script = folder / "train.py"
        script.write_text(PROGRAM)
        address = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.program = subprocess.Popen(
            [sys.executable, str(script), address, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS": str(silence)},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end.set()
        self.program.kill()
        self.program.communicate()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def ended(self, seconds: float = 120) -> tuple[list[str], str]:
        """Return the lines that it printed, and what it complained of, once it has ended."""
        out, err = self.program.communicate(timeout=seconds)
        return out.splitlines(), err


@pytest.mark.parametrize("prefetch", [0, 3])
def test_a_store_that_says_nothing_more_is_an_error_that_names_the_tile(images, tmp_path, prefetch):
    with Child(images, tmp_path, "error", prefetch, "raise", silence=1) as child:
        lines, err = child.ended()
    assert (child.program.returncode, err) == (1, "")
    assert lines[0] == "batch 0 2"
    (told,) = [line for line in lines if line.startswith("error")]
    assert "bad.ome.zarr" in told
    assert "batch 1 of epoch 0, seed 0: rows 2, 3" in told
    assert lines[-1] == "left ['MainThread']"


def test_tiles_of_a_store_that_says_nothing_more_are_left_out(images, tmp_path):
    with Child(images, tmp_path, "skip", 2, "skip", silence=1) as child:
        lines, _ = child.ended()
    assert child.program.returncode == 0
    assert lines[:4] == ["batch 0 2", "batch 1 1", "batch 2 2", "batch 3 2"]
    assert len(lines) == 5
    assert lines[4].startswith("skipped 3 ")
    assert "bad.ome.zarr" in lines[4]


@pytest.mark.parametrize(
    ("mode", "prefetch"),
    [("read", 0), ("prefetch", 3), ("consumer", 3)],
    ids=["read", "prefetch", "consumer"],
)
def test_ctrl_c_ends_a_program_whatever_it_waits_for(images, tmp_path, mode, prefetch):
    """In a read of its own, for a batch that a thread reads, in the loop: clean, with no thread left."""
    with Child(images, tmp_path, mode, prefetch, "raise", silence=4) as child:
        assert child.program.stdout.readline() == "batch 0 2\n"
        # The thread that reads ahead, or the program itself, has asked for what never comes.
        assert child.waiting.wait(60)
        time.sleep(0.3)
        child.program.send_signal(signal.SIGINT)
        lines, err = child.ended(60)
    assert (lines, err) == (["left ['MainThread']"], "")
    assert child.program.returncode == 130
