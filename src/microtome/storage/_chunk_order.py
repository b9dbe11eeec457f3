"""Where in its file each chunk of a shard lies: anywhere, so in the order in which it will be read."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from microtome.errors import FormatError

from ._chunks import ChunkReader
from ._documents import array_metadata
from ._files import replace_file, storage_errors
from ._shard_files import MISSING, Shard, ShardIndex

__all__ = ["order_chunks"]


def order_chunks(path: Path, visits: NDArray[np.int64]) -> None:
    """Rewrite the shards of a local array so that chunks lie in the order in which they are read.

    The index of a shard says where each chunk lies, so that the array is the same for every reader;
    whoever reads in that order reads each file from its beginning to its end. A shard is replaced in
    one step.

    Parameters
    ----------
    path
        Directory of the array, which nobody writes to meanwhile.
    visits
        When each chunk is read for the first time, one number each on the grid of the array's chunks.

    Raises
    ------
    FormatError
        If it is no local array of ours, or a shard is damaged.
    StorageError
        If the disk refuses.
    """
    reader = ChunkReader.of(str(path), array_metadata(path))
    if reader is None:
        msg = f"{path} holds no array whose chunks could be put into an order"
        raise FormatError(msg)
    if reader.index.whole:
        return  # every chunk is a file
    grid = reader.index.grid
    for place in product(
        *(range(-(-n // s)) for n, s in zip(reader.shape, reader.shard, strict=True))
    ):
        part = visits[tuple(slice(at * n, (at + 1) * n) for at, n in zip(place, grid, strict=True))]
        # At the edge of the array a shard has chunks that nobody reads.
        when = np.full(grid, np.iinfo(np.int64).max)
        when[tuple(slice(0, n) for n in part.shape)] = part
        file = Path(reader.shard_path(place))
        with storage_errors(file):
            if file.is_file():
                _rewrite(file, reader.index, when.reshape(-1))


def _rewrite(file: Path, index: ShardIndex, when: NDArray[np.int64]) -> None:
    try:
        shard = Shard(str(file), index)
    except ValueError as error:
        msg = f"{file} is damaged: {error}"
        raise FormatError(msg) from error
    entries = shard.entries.reshape(-1, 2)
    found = np.full(entries.shape, MISSING, np.uint64)
    start = 0 if index.at_end else index.size
    with replace_file(file) as beside, beside.open("wb") as out:
        out.seek(start)
        for number in np.argsort(when, kind="stable").tolist():
            offset, length = entries[number].tolist()
            if offset >= 0:
                found[number] = start, length
                out.write(shard.bytes[offset : offset + length].data)
                start += length
        if not index.at_end:
            out.seek(0)
        out.write(_index_bytes(found, index))


def _index_bytes(entries: NDArray[Any], index: ShardIndex) -> bytes:
    data = entries.astype("<u8").tobytes()
    if not index.checked:
        return data
    return data + google_crc32c.value(data).to_bytes(4, "little")
