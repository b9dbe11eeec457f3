"""Whether pixels are still those that something was computed from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.image import MemoryArray, MultiscaleImage
from microtome.storage import is_versioned

from ._read import read_regions
from ._stacks import Pixels, Stack, pixels_of
from ._windows import Windows

__all__ = ["columns_fingerprint", "pixels_fingerprint"]

# Rows of a longer table are looked at in equal steps.
_MOST_ROWS = 1 << 22
_BAND_BYTES = 32 << 20


def pixels_fingerprint(image: Stack, level: int = 0) -> str:
    """Describe the pixels of an image's level, or of a stack, in 64 letters.

    What lies in files on this machine is known by their names, sizes and times of last change; of
    anything else every pixel is read once, band by band.

    Parameters
    ----------
    image
        An image or a stack.
    level
        Index of the level.

    Returns
    -------
    Equal for equal pixels; of files, as long as nobody touches them.
    """
    pixels = pixels_of(image, level)
    # A file may hold several images of one shape: names tell them apart.
    name = image.name if isinstance(image, MultiscaleImage) else ""
    facts = (pixels.shape, pixels.dtype.str, pixels.axes, pixels.channel_names, name)
    digest = hashlib.sha256(repr(facts).encode())
    path = _place(pixels)
    if path is not None:
        digest.update(f"{pixels.source if path.is_file() else ''} level {level}".encode())
        for line in _files(path):
            digest.update(line.encode())
    else:
        for band in _bands(image, pixels, level):
            digest.update(np.ascontiguousarray(band).data)
    return digest.hexdigest()


def columns_fingerprint(about: Sequence[object], *columns: NDArray[Any]) -> str:
    """Describe columns of a table in 16 letters, to tell a table from another of as many rows.

    Parameters
    ----------
    about
        What else there is to say of it: names, sizes.
    columns
        (n,) or (n, d) each. Of more than four million rows every second is looked at, or every
        third, and so on.
    """
    rows = max((len(column) for column in columns), default=0)
    step = max(1, -(-rows // _MOST_ROWS))
    digest = hashlib.blake2b(repr((list(about), rows)).encode(), digest_size=8)
    for column in columns:
        digest.update(np.ascontiguousarray(column[::step], "<i8").data)
    return digest.hexdigest()


def _place(pixels: Pixels) -> Path | None:
    """Return the file or folder of the pixels, None where they lie elsewhere."""
    # What it calls itself need be no file, though there may be one of that name.
    if isinstance(pixels.array, MemoryArray):
        return None
    stated = getattr(pixels.array, "path", None)
    source = None if "://" in pixels.source else Path(pixels.source)
    if source is not None and source.is_dir() and is_versioned(source):
        return None  # the same files hold the pixels of every snapshot
    if isinstance(stated, Path):
        return stated
    return source if source is not None and source.exists() else None


def _files(path: Path) -> Iterator[str]:
    if path.is_file():
        yield _stated(path, path.name)
        return
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            file = Path(folder) / name
            yield _stated(file, file.relative_to(path).as_posix())


def _stated(file: Path, name: str) -> str:
    stat = file.stat()
    return f"{name} {stat.st_size} {stat.st_mtime_ns}\n"


def _bands(image: Stack, pixels: Pixels, level: int) -> Iterator[Any]:
    samples, channels, *spatial = pixels.shape
    *depth, height, width = spatial
    row = max(1, channels * width * int(np.prod(depth, dtype=np.int64)) * pixels.dtype.itemsize)
    rows = max(1, _BAND_BYTES // row)
    for sample in range(samples):
        for top in range(0, height, rows):
            size = (*depth, min(rows, height - top), width)
            start = [[*(0 for _ in depth), top, 0]]
            yield read_regions([image], Windows.of(0, start, size, level, sample))
