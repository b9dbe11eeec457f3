"""What metadata say of an array in shards, as far as it is read and written without the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Sharding"]


@dataclass(frozen=True, slots=True)
class Sharding:
    """A Zarr v3 array whose chunks lie in shards, one regular grid of each.

    Parameters
    ----------
    shape, chunk, shard
        Sizes in pixels; a shard is whole chunks.
    dtype
        Type of a pixel, in the machine's byte order.
    codecs
        Of the chunks: the one that makes bytes, and what comes after it.
    fill
        Value of pixels that were never written.
    has_checksum
        Whether the index ends with a CRC-32C.
    index_at_end
        Whether the index follows the chunks, or comes before them.
    """

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    shard: tuple[int, ...]
    dtype: np.dtype[Any]
    codecs: Sequence[Mapping[str, Any]]
    fill: Any
    has_checksum: bool
    index_at_end: bool

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Sharding | None:
        """Return what a metadata document describes, None if it is too odd.

        Raises
        ------
        KeyError, TypeError, ValueError, AttributeError, IndexError
            If it is odder than that.
        """
        (sharding,) = document["codecs"]
        inner = sharding["configuration"]
        key = document["chunk_key_encoding"]
        shape = tuple(document["shape"])
        shard = tuple(document["chunk_grid"]["configuration"]["chunk_shape"])
        chunk = tuple(inner["chunk_shape"])
        dtype = np.dtype(document["data_type"])
        first = inner["codecs"][0]
        little = first.get("configuration", {}).get("endian", "little") == "little"
        index_codecs = [codec["name"] for codec in inner["index_codecs"]]
        if (
            document["zarr_format"] != 3
            or document["chunk_grid"]["name"] != "regular"
            or sharding["name"] != "sharding_indexed"
            or document.get("storage_transformers")
            or key["name"] != "default"
            or key.get("configuration", {}).get("separator", "/") != "/"
            or not len(shape) == len(shard) == len(chunk) > 0
            or min((*shape, *shard, *chunk)) < 1
            or any(whole % part for whole, part in zip(shard, chunk, strict=True))
            or dtype.kind not in "biuf"
            or first["name"] != "bytes"
            or not (little or dtype.itemsize == 1)
            or index_codecs not in (["bytes"], ["bytes", "crc32c"])
            or inner["index_codecs"][0]["configuration"]["endian"] != "little"
            or inner.get("index_location", "end") not in {"end", "start"}
            or not isinstance(document["fill_value"], bool | int | float)
        ):
            return None
        return cls(
            shape,
            chunk,
            shard,
            dtype,
            inner["codecs"],
            document["fill_value"],
            len(index_codecs) == 2,
            inner.get("index_location", "end") == "end",
        )
