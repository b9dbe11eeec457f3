"""How an image is cut into chunks and shards on disk, and with which codec.

Defaults are measured, not guessed: small inner chunks keep the bytes that a random 224 px tile
must decode low (2.5 times its own at 128 px, 31 times at 1024 px), shards keep a slide at tens of
files, and one channel a chunk makes reading a few markers out of forty ten times cheaper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import DTypeLike

from microtome.errors import InvalidInputError

__all__ = ["CODECS", "Codec", "Layout", "default_layout", "image_layout", "label_layout"]

Codec = Literal["fast", "train", "panel", "small", "labels", "raw"]
"""`fast`: blosc lz4 5, byte shuffle. `train`: blosc lz4hc 2, byte shuffle: what it writes is up to a
quarter smaller and read up to 1.3 times as fast, and takes about twice as long to write. `panel`: the
same, and `image_layout` puts all channels of 64 x 64 px into one chunk: tiles of a whole panel are read
1.6 times as fast again, one channel of forty ten times slower. `small`: blosc zstd 1, byte shuffle.
`labels`: zstd 1 without shuffle, 45-fold on masks. `raw`: no compression."""

CODECS: tuple[Codec, ...] = ("fast", "train", "panel", "small", "labels", "raw")

_BLOSC = {"fast": ("lz4", 5), "train": ("lz4hc", 2), "panel": ("lz4hc", 2), "small": ("zstd", 1)}

_CHUNK = 128
_PANEL_CHUNK = 64
_LABEL_CHUNK = 256
_SHARD = 2048
_SHARD_MANY_CHANNELS = 1024
_SHARD_PANEL = 512
_MANY_CHANNELS = 8
# A file holds all channels, and memory holds a few files: of a panel of a hundred they are smaller.
_PANEL_CHANNELS = 32


@dataclass(frozen=True, slots=True)
class Layout:
    """Chunking of one array.

    Parameters
    ----------
    chunk
        Inner chunk, the smallest part that is decoded, in the order of the array's axes.
    shard
        Outer chunk, one file; a multiple of `chunk` in every axis. None for no sharding.
    codec
        One of `CODECS`.

    Raises
    ------
    InvalidInputError
        If sizes are not positive, ranks differ, or the shard is no multiple of the chunk.
    """

    chunk: tuple[int, ...]
    shard: tuple[int, ...] | None
    codec: Codec = "fast"

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            msg = f"codec must be one of {CODECS}, got {self.codec!r}"
            raise InvalidInputError(msg)
        if not self.chunk or min(self.chunk) < 1:
            msg = f"chunk sizes must be positive, got {self.chunk}"
            raise InvalidInputError(msg)
        if self.shard is not None and (
            len(self.shard) != len(self.chunk)
            or any(s < 1 or s % c for s, c in zip(self.shard, self.chunk, strict=True))
        ):
            msg = f"a shard {self.shard} must be a multiple of the chunk {self.chunk} in every axis"
            raise InvalidInputError(msg)

    @property
    def write_unit(self) -> tuple[int, ...]:
        """What one file holds: writers that keep to these never meet in a file."""
        return self.shard or self.chunk

    def fitted(self, shape: Sequence[int]) -> Layout:
        """Shrink the shard to what an array of this shape can fill, keeping the chunk."""
        if self.shard is None:
            return self
        shard = tuple(
            min(s, -(-n // c) * c) for s, c, n in zip(self.shard, self.chunk, shape, strict=True)
        )
        return Layout(self.chunk, shard, self.codec)


def image_layout(axes: str, shape: Sequence[int], *, codec: Codec = "fast") -> Layout:
    """Return the default layout of an intensity image.

    Parameters
    ----------
    axes
        Names of the axes, one letter each, of ``"tczyx"``.
    shape
        Shape of the finest level in that order.
    codec
        ``"fast"``; ``"train"`` for what is written once and read for many epochs; ``"panel"`` where
        mostly all channels are read; or, a fifth smaller and three times slower to read at random,
        ``"small"``.
    """
    sizes = dict(zip(axes, shape, strict=True))
    channels = sizes.get("c", 1)
    edge = _SHARD_MANY_CHANNELS if channels > _MANY_CHANNELS else _SHARD
    if channels > _PANEL_CHANNELS:
        edge = _SHARD_PANEL
    side, deep = (_PANEL_CHUNK, channels) if codec == "panel" else (_CHUNK, 1)
    chunk = tuple(side if axis in "yx" else deep if axis == "c" else 1 for axis in axes)
    shard = tuple(edge if axis in "yx" else sizes[axis] if axis == "c" else 1 for axis in axes)
    return Layout(chunk, shard, codec)


def label_layout(axes: str, shape: Sequence[int]) -> Layout:
    """Return the default layout of a label mask; parameters as for `image_layout`."""
    del shape  # masks have no channels, so nothing depends on it
    chunk = tuple(_LABEL_CHUNK if axis in "yx" else 1 for axis in axes)
    shard = tuple(_SHARD if axis in "yx" else 1 for axis in axes)
    return Layout(chunk, shard, "labels")


def default_layout(kind: str, axes: str, shape: Sequence[int]) -> Layout:
    """Return the layout of an image of a kind, ``"intensity"`` or ``"labels"``."""
    return (label_layout if kind == "labels" else image_layout)(axes, shape)


def codec_chain(codec: Codec, dtype: DTypeLike) -> list[dict[str, object]]:
    """Return the Zarr v3 codecs of a chunk."""
    chain: list[dict[str, object]] = [{"name": "bytes", "configuration": {"endian": "little"}}]
    if codec in _BLOSC:
        name, level = _BLOSC[codec]
        chain.append(
            {
                "name": "blosc",
                "configuration": {
                    "cname": name,
                    "clevel": level,
                    "shuffle": "shuffle",
                    "typesize": np.dtype(dtype).itemsize,
                    "blocksize": 0,
                },
            }
        )
    elif codec == "labels":
        chain.append({"name": "zstd", "configuration": {"level": 1, "checksum": False}})
    return chain
