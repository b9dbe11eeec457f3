"""How much memory an image takes that is far larger than memory: `python -m benchmarks.ingest_memory HEIGHT [WIDTH]`.

The source is an RGB picture whose pixels are computed when they are asked for; what is written has
all levels. Prints the peak of memory and the seconds it took as JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import microtome as mt
from microtome.storage import READ, Box, Pending

from .machine import cpu_seconds
from .pyramid_builders import peak_memory

__all__ = ["Computed"]

_SIDE = 1024


class Computed:
    """An RGB picture of any size, in tiles of 512 px, none of which is kept.

    Parameters
    ----------
    height, width
        Its size in pixels.
    """

    def __init__(self, height: int, width: int) -> None:
        rng = np.random.default_rng(0)
        y, x = np.mgrid[:_SIDE, :_SIDE].astype(np.float32)
        waves = 180 + 40 * np.sin(y / 37) * np.cos(x / 53)
        noise = rng.integers(-3, 4, (3, _SIDE, _SIDE), dtype=np.int16)
        self._part = (waves.astype(np.int16) + noise).astype(np.uint8)
        self.shape = (3, height, width)
        self.dtype = np.dtype(np.uint8)
        self.chunks = (3, 512, 512)

    def read(self, box: Box) -> NDArray[Any]:
        """Compute a box."""
        out = np.empty([stop - start for start, stop in box], np.uint8)
        self.read_into(box, out)
        return out

    def read_into(self, box: Box, out: NDArray[Any]) -> Pending:
        """Compute a box into a buffer: one piece of noise again and again, in other brightness."""
        (first, last), (top, bottom), (left, right) = box
        for row in range(top // _SIDE * _SIDE, bottom, _SIDE):
            for column in range(left // _SIDE * _SIDE, right, _SIDE):
                rows = slice(max(row, top), min(row + _SIDE, bottom))
                columns = slice(max(column, left), min(column + _SIDE, right))
                part = self._part[
                    first:last,
                    rows.start - row : rows.stop - row,
                    columns.start - column : columns.stop - column,
                ]
                target = out[
                    :,
                    rows.start - top : rows.stop - top,
                    columns.start - left : columns.stop - left,
                ]
                np.bitwise_xor(part, np.uint8((row // _SIDE + column // _SIDE) % 8), out=target)
        return READ


def main() -> None:
    """Write one, and say what it took."""
    height, width = (int(given) for given in [*sys.argv[1:], "100000"][:2])
    source = Computed(height, width)
    # Loaded in any case, not only for large images: some 130 MiB that no image has to do with.
    for module in ("microtome.storage._compiled_frames", "microtome.image._compiled_halves"):
        import_module(module)
    before = peak_memory()
    began, cpu = time.perf_counter(), cpu_seconds()
    with tempfile.TemporaryDirectory(prefix="microtome-bench-") as work:
        path = Path(work) / "made.ome.zarr"
        with mt.MultiscaleImage.create(
            path, type=source.dtype, level_shape=source.shape, mpp=0.25
        ) as made:
            made.build_levels(source=source)
            levels = made.level_count
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    told = {
        "shape": source.shape,
        "pixels_gb": round(np.prod(source.shape) / 1e9, 2),
        "files_gb": round(size / 1e9, 2),
        "levels": levels,
        "peak_mib": round(peak_memory() / 2**20),
        "before_mib": round(before / 2**20),
        "wall_s": round(time.perf_counter() - began, 1),
        "cpu_s": round(cpu_seconds() - cpu, 1),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
