"""One vector an object: the mean of a dense map over the pixels of each label."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from microtome.coordinates import FROM_EDGE, MicrometreGrid
from microtome.errors import InvalidInputError
from microtome.image import Channels, Level, blocks_of, channel_indices
from microtome.progress import Progress, silent
from microtome.sources import open_image
from microtome.storage import replace_file

from ._embed import vectors_column
from ._record import library_version

__all__ = ["pool_labels"]

# Of the map, all channels, that are read at once.
_BLOCK_BYTES = 64 << 20
_VERSION = 2


def pool_labels(
    image: Any,
    labels: Any,
    out: str | os.PathLike[str],
    *,
    tissue_id: str = "",
    level: int = 0,
    channels: Channels | None = None,
    progress: Progress = silent,
) -> Path:
    """Describe every object by the mean of an image inside it, and write the table.

    The image may be what a model made (features, probabilities) or what was measured. Blocks are
    read one after the other; in memory are one of them and the sums of every object,
    8 (channels + 3) bytes each. The file appears whole or not at all, and replaces one that is there.

    Parameters
    ----------
    image
        The dense map, (C, Y, X): whatever `microtome.open_image` takes.
    labels
        The objects, (Y, X) of integers on the same pixels: 0 is background.
    out
        Path of the parquet file: `tissue_id`, `cell_id` (the label), `area` (pixels), `centroid_y`,
        `centroid_x` (micrometres from the upper left edge of the image, as in every table; null
        where nobody knows the pixel size) and `embedding`, a list of C float32; a row an object, in
        the order of labels.
    tissue_id
        What the picture is called in the table; the name of the image by default.
    level
        Index of the level of the image that lies on the pixels of the labels.
    channels
        Channels by number or name; None for all.
    progress
        Called with the blocks done and to do.

    Returns
    -------
    The path of the file.

    Raises
    ------
    InvalidInputError
        If image and labels are not of the same pixels, have planes or time points, the labels are no
        integers or below 0, there is no object, or an object has NaN in it; the message names it.
    UnknownNameError, OutOfRangeError
        If there is no such level or channel.
    """
    pixels, objects = open_image(image), open_image(labels)
    dense, marked = pixels.level(level), objects.level(0)
    _verify(dense, marked, pixels.uri, objects.uri)
    chosen = channel_indices(channels, pixels.channel_names, pixels.nchannels)
    if not chosen:
        msg = (
            f"channels={channels!r} leaves none of the {pixels.nchannels} channels of {pixels.uri}"
        )
        raise InvalidInputError(msg)
    sums = _Sums.empty(len(chosen))
    blocks = list(_blocks(dense, len(chosen)))
    for done, block in enumerate(blocks, 1):
        ids = _read(marked, block, [0])[0]
        if ids.dtype.kind == "i" and ids.min() < 0:
            msg = f"labels are 0 for background and positive for objects, got {ids.min()} in {objects.uri}"
            raise InvalidInputError(msg)
        sums.add(ids, _read(dense, block, chosen), (block[0][0], block[1][0]))
        progress("pool", done, len(blocks))
    if not len(sums.ids):
        msg = f"{objects.uri} holds no object"
        raise InvalidInputError(msg)
    vectors = sums.values / sums.counts[:, None]
    wrong = np.flatnonzero(np.isnan(vectors).any(axis=1))
    if wrong.size:
        msg = f"{pixels.uri} is NaN in object {sums.ids[wrong[0]]} of {objects.uri}"
        raise InvalidInputError(msg)
    places = sums.places / sums.counts[:, None]
    known = pixels.mpp is not None
    if known:
        places = MicrometreGrid.of_level(dense, pixels.level(0)).middles(places)
    table = pa.table(
        {
            "tissue_id": pa.array([tissue_id or pixels.name] * len(sums.ids), pa.string()),
            "cell_id": pa.array(sums.ids, pa.int64()),
            "area": pa.array(sums.counts, pa.int64()),
            **{
                f"centroid_{axis}": pa.array(
                    places[:, at] if known else [None] * len(places), pa.float64()
                )
                for at, axis in enumerate("yx")
            },
            "embedding": vectors_column(vectors),
        }
    )
    names = None if pixels.channel_names is None else [pixels.channel_names[at] for at in chosen]
    note = {
        "format": "pooled-labels",
        "version": _VERSION,
        "micrometres_from": FROM_EDGE,
        "image": pixels.uri,
        "labels": objects.uri,
        "channels": names or [],
        "library_version": library_version(),
    }
    path = Path(out)
    with replace_file(path) as temporary:
        noted = table.replace_schema_metadata({b"microtome": json.dumps(note).encode()})
        pq.write_table(noted, temporary, compression="zstd")
    return path


@dataclass(slots=True)
class _Sums:
    """What is known of objects so far, in the order of their labels.

    Parameters
    ----------
    ids
        Labels, (n,).
    counts
        Pixels, (n,).
    places
        Sums of rows and of columns, (n, 2).
    values
        Sums of every channel, (n, C).
    """

    ids: NDArray[np.int64]
    counts: NDArray[np.int64]
    places: NDArray[np.float64]
    values: NDArray[np.float64]

    @classmethod
    def empty(cls, channels: int) -> _Sums:
        return cls(
            np.zeros(0, np.int64),
            np.zeros(0, np.int64),
            np.zeros((0, 2), np.float64),
            np.zeros((0, channels), np.float64),
        )

    def add(self, labels: NDArray[Any], pixels: NDArray[Any], origin: tuple[int, int]) -> None:
        """Add a block, (Y, X) and (C, Y, X), that begins at a pixel."""
        inside = np.flatnonzero(labels)
        if not inside.size:
            return
        there, numbers = np.unique(labels.reshape(-1)[inside], return_inverse=True)
        self._make_room(there.astype(np.int64))
        at = np.searchsorted(self.ids, there.astype(np.int64))
        size = len(there)
        self.counts[at] += np.bincount(numbers, minlength=size)
        for axis, places in enumerate(np.divmod(inside, labels.shape[1])):
            weights = places + float(origin[axis])
            self.places[at, axis] += np.bincount(numbers, weights, size)
        for channel, plane in enumerate(pixels):
            self.values[at, channel] += np.bincount(numbers, plane.reshape(-1)[inside], size)

    def _make_room(self, there: NDArray[np.int64]) -> None:
        merged = np.union1d(self.ids, there)
        if len(merged) == len(self.ids):
            return
        at = np.searchsorted(merged, self.ids)
        for name in ("counts", "places", "values"):
            old = getattr(self, name)
            grown = np.zeros((len(merged), *old.shape[1:]), old.dtype)
            grown[at] = old
            setattr(self, name, grown)
        self.ids = merged


def _verify(dense: Level, marked: Level, image: str, labels: str) -> None:
    for level, what in ((dense, image), (marked, labels)):
        sizes = dict(zip(level.axes, level.shape, strict=True))
        if any(sizes.get(axis, 1) > 1 for axis in "tz"):
            msg = f"{what} has the axes {level.axes!r} of {level.shape}; objects are pooled in one plane"
            raise InvalidInputError(msg)
    count = dict(zip(marked.axes, marked.shape, strict=True)).get("c", 1)
    if count > 1 or marked.dtype.kind not in "iu":
        msg = f"labels are integers without channels, {labels} has the axes {marked.axes!r} of {marked.shape} {marked.dtype}"
        raise InvalidInputError(msg)
    if dense.shape[-2:] != marked.shape[-2:]:
        msg = f"{image} has {dense.shape[-2:]} pixels and {labels} {marked.shape[-2:]}; choose the level that lies on the same"
        raise InvalidInputError(msg)


def _blocks(level: Level, channels: int) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Cut a level into blocks of whole chunks."""
    rows, cols = level.array.chunks[-2:]
    most = max(1, _BLOCK_BYTES // (8 * channels))
    width = min(max(cols, 2048 // cols * cols), level.width)
    height = max(1, most // width // rows) * rows
    yield from blocks_of(level.shape[-2:], (min(height, 2048, level.height), width))  # pyright: ignore[reportReturnType] - of two axes


def _read(
    level: Level, block: tuple[tuple[int, int], tuple[int, int]], channels: list[int]
) -> NDArray[Any]:
    """Read channels of a block, (C, Y, X)."""
    spans = dict.fromkeys("tzc", (0, 1)) | dict(zip("yx", block, strict=True))
    shape = tuple(stop - start for start, stop in block)
    parts: list[NDArray[Any]] = []
    for channel in channels:
        box = spans | {"c": (channel, channel + 1)}
        parts.append(level.array.read(tuple(box[axis] for axis in level.axes)).reshape(shape))
    return np.stack(parts)
