"""The finest level and all others in one pass over the source, whose pixels are read once."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from microtome.errors import ExistsError, InvalidInputError
from microtome.image import MultiscaleImage, halve_mean
from microtome.storage import READ, Box, Layout, Pending


class Counted:
    """Pixels that are computed from their places, and how often each row block was asked for."""

    def __init__(self, shape: tuple[int, ...], dtype: str, chunks: tuple[int, ...]) -> None:
        self.shape, self.dtype, self.chunks = shape, np.dtype(dtype), chunks
        self.asked = 0
        self.largest = 0
        self._lock = threading.Lock()

    def read(self, box: Box) -> NDArray[Any]:
        at = np.ix_(*(np.arange(start, stop, dtype=np.uint64) for start, stop in box))
        mixed = sum(
            (axis * factor for axis, factor in zip(at, (9973, 131, 71), strict=True)), np.uint64(0)
        )
        return (mixed % np.uint64(251)).astype(self.dtype)

    def read_into(self, box: Box, out: NDArray[Any]) -> Pending:
        pixels = math.prod(stop - start for start, stop in box)
        with self._lock:
            self.asked += pixels
            self.largest = max(self.largest, pixels)
        out[...] = self.read(box)
        return READ


def begin(path: Path, source: Counted, layout: Layout) -> MultiscaleImage:
    return MultiscaleImage.create(
        path, type=source.dtype, level_shape=source.shape, mpp=1.0, layout=layout
    )


@pytest.mark.parametrize(
    ("shape", "dtype", "chunks", "layout"),
    [
        ((3, 1, 1), "uint8", (3, 1, 1), Layout((1, 32, 32), (3, 64, 64))),
        ((3, 300, 277), "uint8", (3, 17, 277), Layout((1, 32, 32), (3, 64, 64))),
        ((2, 129, 513), "uint16", (1, 48, 48), Layout((1, 32, 32), (2, 96, 96), "train")),
        ((2, 257, 255), "float32", (1, 257, 255), Layout((1, 32, 32), None)),
        ((5, 200, 150), "int16", (5, 16, 16), Layout((5, 16, 16), (5, 48, 80), "small")),
    ],
)
@pytest.mark.parametrize("threads", [1, 3])
def test_all_levels_in_one_pass(
    tmp_path: Path,
    shape: tuple[int, ...],
    dtype: str,
    chunks: tuple[int, ...],
    layout: Layout,
    threads: int,
) -> None:
    source = Counted(shape, dtype, chunks)
    with begin(tmp_path / "a.ome.zarr", source, layout) as made:
        made.build_levels(source=source, threads=threads)
    assert source.asked == math.prod(shape), "every pixel was read once"
    expected = source.read(tuple((0, size) for size in shape))
    image = MultiscaleImage.open(tmp_path / "a.ome.zarr")
    for index in range(image.level_count):
        np.testing.assert_array_equal(image.level(index)[...], expected)
        expected = halve_mean(expected)
    assert max(image.level(image.level_count - 1).shape[-2:]) <= layout.chunk[-1]


def test_what_is_read_at_once_does_not_grow_with_the_image(tmp_path: Path) -> None:
    largest = []
    for height in (256, 2048):
        source = Counted((1, height, 512), "uint8", (1, 16, 512))
        path = tmp_path / f"{height}.ome.zarr"
        with begin(path, source, Layout((1, 32, 32), (1, 64, 64))) as made:
            made.build_levels(source=source)
        largest.append(source.largest)
    # Of a row of files: the source is decoded in rows as wide as eight of them.
    assert largest[0] == largest[1] == 64 * 512


@pytest.mark.slow
def test_memory_does_not_grow_with_the_image() -> None:
    """An image of 150 MB of pixels and one of 450 MB, each in a process of its own."""
    peaks = []
    for height in (4096, 12_288):
        command = [sys.executable, "-m", "benchmarks.ingest_memory", str(height), "12288"]
        ended = subprocess.run(
            command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2]
        )
        peaks.append(json.loads(ended.stdout)["peak_mib"])
    assert peaks[1] - peaks[0] < 64, "a file of a level more at most, and what the system rounds"
    assert peaks[1] < 700


def test_the_same_files_as_in_two_passes(tmp_path: Path) -> None:
    source = Counted((3, 333, 290), "uint8", (3, 64, 64))
    layout = Layout((1, 32, 32), (3, 64, 128))
    with begin(tmp_path / "one.ome.zarr", source, layout) as made:
        made.build_levels(source=source)
    with begin(tmp_path / "two.ome.zarr", source, layout) as made:
        made.level(0)[...] = source.read(tuple((0, size) for size in source.shape))
        made.build_levels()
    one, two = (
        {
            path.relative_to(root).as_posix(): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file() and path != root / "zarr.json"  # has the name
        }
        for root in (tmp_path / "one.ome.zarr", tmp_path / "two.ome.zarr")
    )
    assert len(one) > 8
    assert one == two


def test_a_source_that_fails_leaves_nothing(tmp_path: Path) -> None:
    class Failing(Counted):
        def read_into(self, box: Box, out: NDArray[Any]) -> Pending:
            if box[-2][0] >= 128:
                raise OSError("the scanner is on fire")
            return super().read_into(box, out)

    source = Failing((3, 300, 277), "uint8", (3, 16, 277))
    with (
        pytest.raises(OSError, match="on fire"),
        begin(tmp_path / "a.ome.zarr", source, Layout((1, 32, 32), (3, 64, 64))) as made,
    ):
        made.build_levels(source=source)
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    source = Counted((3, 300, 277), "uint8", (3, 16, 277))
    layout = Layout((1, 32, 32), (3, 64, 64))
    with begin(tmp_path / "a.ome.zarr", source, layout) as made:
        other = Counted((3, 301, 277), "uint8", (3, 16, 277))
        with pytest.raises(InvalidInputError, match=r"\(3, 300, 277\) uint8, its source"):
            made.build_levels(source=other)
        with pytest.raises(InvalidInputError, match="exclude each other"):
            made.build_levels(source=source, fill=lambda base, targets: None)
        made.build_levels(source=source)
        with pytest.raises(ExistsError, match="has coarser levels already"):
            made.build_levels(source=source)
