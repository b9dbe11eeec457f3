"""One image rewritten into chunks that fit its tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError
from microtome.image import Level, MultiscaleImage
from microtome.storage import Codec, Layout, order_chunks

__all__ = ["PackedImage", "Task", "rewritten"]

# Tiles at any place touch 1.6 times their 224 pixels in chunks of 64, and 2.5 times in those of 128.
_ANY_PLACE = 64
_SHARD_BYTES = 64 << 20
# Tiles in an order are read from all shards of all images in turn: of fewer files, then.
_ORDERED_SHARD_BYTES = 256 << 20
_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class PackedImage:
    """What became of one image."""

    modality: str
    tissue_id: str
    chunk: tuple[int, ...]
    """Of the packed image."""
    bytes_before: int
    bytes_after: int
    """On disk; before, all levels of the image."""


@dataclass(frozen=True, slots=True)
class Task:
    """One image to rewrite."""

    source: Path
    target: Path
    modality: str
    tissue_id: str
    rgb: bool
    tile_size: tuple[int, int]
    corners: NDArray[np.int64]
    only_tiles: bool
    codec: Codec
    visits: NDArray[np.int64] | None
    """When each tile is read, (tiles,); None for no order."""


def rewritten(task: Task) -> PackedImage:
    """Rewrite an image, and say what became of it."""
    with MultiscaleImage.open(task.source) as image:
        level = image.level(0)
        if "".join(level.axes).lower() != "cyx":
            msg = f"{task.source} has the axes {level.axes}; images of channels, y and x are packed"
            raise InvalidInputError(msg)
        layout = _layout(task, level.shape, level.dtype.itemsize)
        wanted = _wanted(task, level.shape, layout.chunk)
        note = {"tile_size": list(task.tile_size), "only_tiles": task.only_tiles}
        with MultiscaleImage.create(
            task.target,
            type=level.dtype,
            level_shape=level.shape,
            channel_names=image.channel_names,
            mpp=image.mpp,
            rgb=task.rgb,
            layout=layout,
            # In a directory of this run alone: a worker that was killed before it could say so left it.
            overwrite=True,
            # The same pixels: what was made of the one holds for the other.
            metadata={"packed": note, "microtome": {"packed_from": _ingested(image)}},
        ) as made:
            _copy(level, made.level(0), layout, wanted)
        if task.visits is not None:
            with MultiscaleImage.open(task.target) as packed:
                place = Path(packed.level_uri(0))
            order_chunks(place, _visits(task, level.shape, layout.chunk)[None])
    return PackedImage(
        task.modality, task.tissue_id, layout.chunk, _size(task.source), _size(task.target)
    )


def _ingested(image: MultiscaleImage) -> dict[str, Any]:
    """Return what an image was ingested from, whether or not it has been packed since."""
    ours = image.metadata.get("microtome", {})
    return ours.get("packed_from") or ours.get("ingest") or {}


def _layout(task: Task, shape: Sequence[int], itemsize: int) -> Layout:
    """Return chunks that are tiles where those lie on a grid, in shards of at most 64 MiB."""
    on_grid = len(task.corners) and not (task.corners % np.asarray(task.tile_size)).any()
    height, width = task.tile_size if on_grid else (_ANY_PLACE, _ANY_PLACE)
    chunk = (shape[0], height, width)
    held = _SHARD_BYTES if task.visits is None else _ORDERED_SHARD_BYTES
    most = max(1, held // (int(np.prod(chunk)) * itemsize))
    # As square as the image is: few files, and each of them of one neighbourhood.
    rows, cols = -(-shape[1] // height), -(-shape[2] // width)
    wide = min(cols, max(1, int(most**0.5)))
    high = min(rows, max(1, most // wide))
    return Layout(chunk, (shape[0], height * high, width * wide), task.codec)


def _wanted(task: Task, shape: Sequence[int], chunk: Sequence[int]) -> NDArray[np.bool_]:
    """Return which chunks are kept, (rows of chunks, columns of chunks)."""
    wanted = np.full(_grid(shape, chunk), not task.only_tiles)
    if task.only_tiles:
        for part in _parts(task, shape, chunk):
            wanted[part] = True
    return wanted


def _visits(task: Task, shape: Sequence[int], chunk: Sequence[int]) -> NDArray[np.int64]:
    """Return when each chunk is read first, (rows of chunks, columns of chunks)."""
    found = np.full(_grid(shape, chunk), _NEVER)
    parts, when = _parts(task, shape, chunk), task.visits
    if when is not None:
        # The first to come has the last word.
        for number in np.argsort(when)[::-1].tolist():
            found[parts[number]] = when[number]
    return found


def _grid(shape: Sequence[int], chunk: Sequence[int]) -> tuple[int, ...]:
    return tuple(-(-size // part) for size, part in zip(shape[1:], chunk[1:], strict=True))


def _parts(task: Task, shape: Sequence[int], chunk: Sequence[int]) -> list[tuple[slice, slice]]:
    """Return which chunks each tile shows."""
    low = np.maximum(task.corners, 0) // np.asarray(chunk[1:])
    high = np.minimum(task.corners + task.tile_size, np.asarray(shape[1:])) - 1
    high = high // np.asarray(chunk[1:])
    return [
        (slice(first[0], last[0] + 1), slice(first[1], last[1] + 1))
        for first, last in zip(low.tolist(), high.tolist(), strict=True)
    ]


def _copy(source: Level, target: Level, layout: Layout, wanted: NDArray[np.bool_]) -> None:
    """Copy pixels shard by shard: each is written once, and no more than one is in memory."""
    shard, chunk = layout.shard or layout.chunk, layout.chunk
    _, height, width = source.shape
    for row, col in product(range(0, height, shard[1]), range(0, width, shard[2])):
        rows, cols = slice(row, min(row + shard[1], height)), slice(col, min(col + shard[2], width))
        keep = wanted[
            row // chunk[1] : -(-rows.stop // chunk[1]), col // chunk[2] : -(-cols.stop // chunk[2])
        ]
        if not keep.any():
            continue
        pixels = np.array(source[:, rows, cols])
        if not keep.all():
            # A chunk of zeros is not stored at all.
            shown = keep.repeat(chunk[1], 0).repeat(chunk[2], 1)
            pixels[:, ~shown[: pixels.shape[1], : pixels.shape[2]]] = 0
        target[:, rows, cols] = pixels


def _size(path: Path) -> int:
    return sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file())
