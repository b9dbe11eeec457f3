"""Whole shards of local arrays, written without the engine: the same bytes, in memory that is used again.

The engine encodes every chunk into memory of its own, which costs as much in page faults as the
encoding itself. What it would write is written here chunk by chunk through one small buffer, so
that two thirds of the processor time are left. Arrays that are too odd are left to the engine.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import google_crc32c
import imagecodecs
import numpy as np
from numpy.typing import NDArray

from ._files import storage_errors, sync_directory
from ._shard_files import MISSING, chunk_grid
from ._sharding import Sharding
from ._transfers import Box

__all__ = ["ShardWriter"]

# As in numcodecs and the engine.
_SHUFFLES = {"noshuffle": 0, "shuffle": 1}


@dataclass(frozen=True, slots=True)
class ShardWriter:
    """Writes whole shards of one array.

    Parameters
    ----------
    path
        Directory of the array.
    shape, chunk, shard
        Sizes in pixels.
    dtype
        Type of a pixel.
    options
        How a chunk is compressed: keywords of `imagecodecs.blosc_encode`.
    """

    path: Path
    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    shard: tuple[int, ...]
    dtype: np.dtype[Any]
    options: Mapping[str, Any]

    @classmethod
    def of(cls, path: Path, document: Mapping[str, Any]) -> ShardWriter | None:
        """Return a writer of the array that a metadata document describes, None if it is too odd."""
        try:
            return cls._of(path, document)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            return None

    @classmethod
    def _of(cls, path: Path, document: Mapping[str, Any]) -> ShardWriter | None:
        found = Sharding.of(document)
        if found is None:
            return None
        _, blosc = found.codecs
        how = blosc["configuration"]
        if (
            sys.byteorder != "little"
            or blosc["name"] != "blosc"
            or how["shuffle"] not in _SHUFFLES
            or not (found.has_checksum and found.index_at_end)
            or found.fill not in (0, False)
        ):
            return None
        options = {
            "level": how["clevel"],
            "compressor": how["cname"],
            "shuffle": _SHUFFLES[how["shuffle"]],
            "typesize": how["typesize"],
            "blocksize": how["blocksize"],
            "numthreads": 1,
        }
        return cls(path, found.shape, found.chunk, found.shard, found.dtype, options)

    def takes(self, box: Box, pixels: NDArray[Any]) -> bool:
        """Whether these are the pixels of one whole shard, as far as it lies inside the array."""
        whole = all(
            start % step == 0 and stop == min(start + step, size)
            for (start, stop), step, size in zip(box, self.shard, self.shape, strict=True)
        )
        shape = tuple(stop - start for start, stop in box)
        return whole and pixels.shape == shape and pixels.dtype == self.dtype

    def write(self, box: Box, pixels: NDArray[Any]) -> None:
        """Write a shard; it appears whole, or not at all. One without a pixel that is not 0 is no file.

        Parameters
        ----------
        box, pixels
            What `takes` takes.

        Raises
        ------
        StorageError
            If the disk refuses.
        """
        numbers = [start // step for (start, _), step in zip(box, self.shard, strict=True)]
        final = self.path.joinpath("c", *map(str, numbers))
        with storage_errors(self.path):
            final.parent.mkdir(parents=True, exist_ok=True)
            temporary = final.with_name(f".{final.name}.{uuid.uuid4().hex[:12]}.partial")
            try:
                with temporary.open("wb") as file:
                    some = self._encode(pixels, file)
                    file.flush()
                    os.fsync(file.fileno())
                if some:
                    temporary.replace(final)
                else:
                    final.unlink(missing_ok=True)
            finally:
                temporary.unlink(missing_ok=True)
            sync_directory(final.parent)

    def _encode(self, pixels: NDArray[Any], file: Any) -> bool:
        grid = chunk_grid(self.shard, self.chunk)
        index = np.full((*grid, 2), MISSING, "<u8")
        scratch = np.zeros(self.chunk, self.dtype)
        # Bit by bit, as the engine compares: a negative zero is no fill value.
        raw = scratch.view(np.uint8)
        offset = 0
        counts = [-(-size // part) for size, part in zip(pixels.shape, self.chunk, strict=True)]
        for at in product(*map(range, counts)):
            part = pixels[
                tuple(slice(i * n, (i + 1) * n) for i, n in zip(at, self.chunk, strict=True))
            ]
            if part.shape == self.chunk:
                scratch[...] = part
            else:
                scratch[...] = 0
                scratch[tuple(map(slice, part.shape))] = part
            if not raw.any():
                continue
            data = imagecodecs.blosc_encode(scratch, **self.options)  # pyright: ignore[reportArgumentType] - takes any buffer
            file.write(data)
            index[at] = offset, len(data)
            offset += len(data)
        numbers = index.tobytes()
        file.write(numbers)
        file.write(google_crc32c.value(numbers).to_bytes(4, "little"))
        return offset > 0
