"""What metadata say of an array whose chunks are files of their own, as most other writers have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["PlainChunks"]


@dataclass(frozen=True, slots=True)
class PlainChunks:
    """A Zarr array, v2 or v3, of one regular grid of chunks, each a file.

    Parameters
    ----------
    shape, chunk
        Sizes in pixels.
    dtype
        Type of a pixel, in the machine's byte order.
    codec
        Name of what compresses a chunk; None where nothing does.
    fill
        Value of pixels that were never written.
    lead, separator
        What the names of chunks begin with, and what lies between their numbers.
    """

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: np.dtype[Any]
    codec: str | None
    fill: Any
    lead: str
    separator: str

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> PlainChunks | None:
        """Return what a metadata document describes, None if it is too odd.

        Raises
        ------
        KeyError, TypeError, ValueError, AttributeError, IndexError
            If it is odder than that.
        """
        found = _modern(document) if document["zarr_format"] == 3 else _old(document)
        if (
            found is None
            or not len(found.shape) == len(found.chunk) > 0
            or min((*found.shape, *found.chunk)) < 1
            or found.dtype.kind not in "biuf"
            or not isinstance(found.fill, bool | int | float)
            or found.separator not in {".", "/"}
        ):
            return None
        return found


def _modern(document: Mapping[str, Any]) -> PlainChunks | None:
    first, *rest = document["codecs"]
    grid, key = document["chunk_grid"], document["chunk_key_encoding"]
    named = key.get("configuration", {})
    dtype = np.dtype(document["data_type"])
    little = first.get("configuration", {}).get("endian", "little") == "little"
    if (
        grid["name"] != "regular"
        or document.get("storage_transformers")
        or key["name"] not in {"default", "v2"}
        or first["name"] != "bytes"
        or not (little or dtype.itemsize == 1)
        or len(rest) > 1
    ):
        return None
    separator = named.get("separator", "/" if key["name"] == "default" else ".")
    return PlainChunks(
        tuple(document["shape"]),
        tuple(grid["configuration"]["chunk_shape"]),
        dtype,
        rest[0]["name"] if rest else None,
        document["fill_value"],
        f"c{separator}" if key["name"] == "default" else "",
        separator,
    )


def _old(document: Mapping[str, Any]) -> PlainChunks | None:
    dtype, compressor = np.dtype(document["dtype"]), document["compressor"]
    if (
        document["zarr_format"] != 2
        or not isinstance(document["dtype"], str)
        or (document["dtype"][0] == ">" and dtype.itemsize > 1)
        or document["order"] != "C"
        or document["filters"]
    ):
        return None
    fill = document["fill_value"]
    return PlainChunks(
        tuple(document["shape"]),
        tuple(document["chunks"]),
        dtype.newbyteorder("="),
        None if compressor is None else compressor["id"],
        0 if fill is None else fill,
        "",
        document.get("dimension_separator", "."),
    )
