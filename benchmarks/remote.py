"""What epochs over a cohort in a store ask of it: ``python -m benchmarks.remote``.

Moto's S3 server on this machine, behind a proxy that counts; both end with the program. Times say
nothing of a store that is far away, and are not measured: requests and bytes are the same everywhere.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import http.server
import os
import sys
import tempfile
import threading
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import microtome as mt

__all__ = ["Asked", "counting_store", "epochs", "write_cohort"]

BUCKET = "measured"
ORDERS = ("sequential", "blocked", "random")
_PASSED = ("ETag", "Content-Range", "Last-Modified", "Content-Type")


@dataclass
class Asked:
    """What was asked of the store."""

    address: str = ""
    requests: int = 0
    bytes: int = 0
    guard: Any = field(default_factory=threading.Lock)

    def taken(self) -> tuple[int, int]:
        """Return requests and bytes since this was asked last."""
        with self.guard:
            found = self.requests, self.bytes
            self.requests = self.bytes = 0
        return found


def write_cohort(root: Path, *, tissues: int, side: int, tile: int) -> None:
    """Write images of five channels of noise on blobs, in the default layout, and a grid of tiles."""
    for number in range(tissues):
        rng = np.random.default_rng(number)
        coarse = rng.gamma(1.2, 25, (5, side // 64, side // 64))
        smooth = np.kron(coarse, np.ones((1, 64, 64)))
        pixels = rng.poisson(smooth).astype(np.uint16)
        mt.ingest(
            pixels,
            axes="cyx",
            cohort=root,
            tissue_id=f"t{number}",
            modality="imc",
            channel_names=[f"c{channel}" for channel in range(5)],
            mpp=1.0,
            resolution=1.0,
        ).close()
        glass = np.full((side, side, 3), 240, np.uint8)
        glass[16:-16, 16:-16] = [150, 60, 140]
        mt.ingest(
            glass, axes="yxc", cohort=root, tissue_id=f"t{number}", modality="he",
            mpp=1.0, resolution=1.0,
        ).close()  # fmt: skip
    mt.mask(root)
    mt.tile(root, tile_size=tile, method="grid", strategy="default")


@contextlib.contextmanager
def counting_store(folder: Path) -> Generator[Asked]:
    """Serve a folder as a bucket, and count what is asked for."""
    import boto3
    from moto.server import ThreadedMotoServer

    os.environ |= {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
    client.create_bucket(Bucket=BUCKET)
    for file in (entry for entry in folder.rglob("*") if entry.is_file()):
        key = f"study/{file.relative_to(folder).as_posix()}"
        client.put_object(Bucket=BUCKET, Key=key, Body=file.read_bytes())
    client.close()
    asked = Asked()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _proxy(asked, host, port)) as proxy:
        proxy.daemon_threads = True
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        asked.address = f"http://127.0.0.1:{proxy.server_address[1]}"
        try:
            yield asked
        finally:
            proxy.shutdown()
            thread.join()
            moto.stop()


def _proxy(asked: Asked, host: str, port: int) -> type[http.server.BaseHTTPRequestHandler]:
    class Proxy(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            link = http.client.HTTPConnection(host, port, timeout=60)
            link.request(self.command, self.path, headers=dict(self.headers))
            found = link.getresponse()
            body = found.read()
            link.close()
            with asked.guard:
                asked.requests += 1
                asked.bytes += len(body)
            self.send_response(found.status)
            for name in _PASSED:
                if name in found.headers:
                    self.send_header(name, found.headers[name])
            if found.status != 304:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - the name that the server looks for

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    return Proxy


def epochs(
    asked: Asked, order: Any, options: mt.StorageOptions, *, tile: int, cache_bytes: int = 0
) -> list[tuple[int, int]]:
    """Return requests and bytes of two epochs by one loader, and of the first of a new process's.

    The third opens everything anew, as another process would; of what is in memory nothing is its.
    """
    found: list[tuple[int, int]] = []
    for run in range(2):
        dataset = mt.MultiplexImagingDataset(
            "study",
            path=f"s3://{BUCKET}/study",
            modality="imc",
            standardization="identity",
            resolution=1.0,
            tile_size=tile,
            storage_options=options,
        )
        asked.taken()
        given: dict[str, Any] = {
            "batch_size": 16,
            "order": order,
            "seed": 0,
            "cache_bytes": cache_bytes,
        }
        loader = mt.TileLoader(dataset, as_torch=False, **given)
        for epoch in range(2 - run):
            loader.set_epoch(epoch)
            for _ in loader:
                pass
            found.append(asked.taken())
    return found


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tissues", type=int, default=4)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--tile", type=int, default=224)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "study"
        write_cohort(root, tissues=given.tissues, side=given.side, tile=given.tile)
        stored = sum(
            file.stat().st_size
            for file in root.glob("imc/1_0mpp/images/*.ome.zarr/0/c/**/*")
            if file.is_file()
        )
        print(f"level 0 of {given.tissues} images: {stored / 1e6:.1f} MB\n")
        print("| kept | order | first epoch | second epoch | first epoch of the next run |")
        print("|---|---|---|---|---|")
        with counting_store(root) as asked:
            for number, (name, disk, memory, loaders) in enumerate(_WAYS):
                for order in ORDERS:
                    path = Path(directory) / f"cache-{number}-{order}"
                    options = mt.StorageOptions(
                        endpoint=asked.address,
                        region="us-east-1",
                        # Memory is that of equal options: of its own for each, and not of two runs.
                        longest_pause=1.0 + number + ORDERS.index(order) / 10,
                        cache_bytes=memory,
                        disk_cache=mt.DiskCache(path, 2**30) if disk else None,
                    )
                    found = epochs(asked, order, options, tile=given.tile, cache_bytes=loaders)
                    if memory:
                        found[2:] = []  # the memory of the process is still there
                    cells = [f"{count:,}, {size / 1e6:.1f} MB" for count, size in found]
                    print(f"| {name} | {order} | {' | '.join(cells)} |", flush=True)


_MB = 2**20
# Name; whether on disk; bytes of the options, and of the loader.
_WAYS = (
    ("nothing", False, 0, 0),
    ("256 MiB in memory, the default of a cohort", False, 256 * _MB, 0),
    ("32 MiB in memory", False, 32 * _MB, 0),
    ("`TileLoader(cache_bytes=512 MiB)`", False, 0, 512 * _MB),
    ("`DiskCache`", True, 0, 0),
    ("`DiskCache`, `TileLoader(cache_bytes=512 MiB)`", True, 0, 512 * _MB),
)

if __name__ == "__main__":
    sys.exit(main())
