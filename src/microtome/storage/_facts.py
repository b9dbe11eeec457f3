"""The metadata document of an array: what an existing one says, and that of a new one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from microtome.errors import FormatError, InvalidInputError

from ._layout import Layout, codec_chain

__all__ = ["ArrayFacts", "array_document", "array_facts", "verify_chunk"]

# Without complex numbers, strings and times: no picture is made of them.
_PIXEL_TYPES = frozenset(
    "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split()  # noqa: SIM905
)

# What a decoder may be asked for at once, as of every other format.
_LARGEST_CHUNK = 1 << 31


@dataclass(frozen=True, slots=True)
class ArrayFacts:
    """What is known of an array before its first pixel is read.

    Parameters
    ----------
    shape
        Shape in pixels.
    dtype
        Type of a pixel, in this machine's byte order.
    chunks
        Smallest part that is decoded.
    write_unit
        Smallest part that is written: the shard, or the chunk where there are none.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]
    write_unit: tuple[int, ...]


def array_facts(document: Mapping[str, Any]) -> ArrayFacts | None:
    """Return what a Zarr v3 array's metadata document says.

    None where it is no such document, or says something that only the engine understands (chunks
    of several sizes, axes that are stored in another order, types that are no numbers): the
    document is no more than a shortcut.
    """
    try:
        return _facts(document)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return None


def _facts(document: Mapping[str, Any]) -> ArrayFacts | None:
    grid, codecs, pixel = document["chunk_grid"], document["codecs"], document["data_type"]
    if (
        document["zarr_format"] != 3
        or document["node_type"] != "array"
        or grid["name"] != "regular"
        or pixel not in _PIXEL_TYPES
        or codecs[0]["name"] == "transpose"
    ):
        return None
    shape = _sizes(document["shape"])
    chunks = unit = _sizes(grid["configuration"]["chunk_shape"])
    if codecs[0]["name"] == "sharding_indexed":
        inner = codecs[0]["configuration"]
        chunks = _sizes(inner["chunk_shape"])
        if inner["codecs"][0]["name"] in {"transpose", "sharding_indexed"}:
            return None
    if not len(shape) == len(unit) == len(chunks) or min((*unit, *chunks), default=1) < 1:
        return None
    return ArrayFacts(shape, np.dtype(pixel), chunks, unit)


def verify_chunk(facts: ArrayFacts, where: object) -> None:
    """Refuse to read an array whose chunks do not fit into memory: the engine ends the process.

    Parameters
    ----------
    facts
        Of the array.
    where
        Its place, for messages.

    Raises
    ------
    FormatError
        If a chunk takes more than 2 GiB.
    """
    size = math.prod(facts.chunks) * facts.dtype.itemsize
    if size > _LARGEST_CHUNK:
        msg = (
            f"{where}: its chunks of {' x '.join(map(str, facts.chunks))} {facts.dtype} take "
            f"{size / 2**30:,.1f} GiB each in memory, and no more than 2 GiB are decoded in one piece: "
            "write it again in smaller chunks, if that is what it really has"
        )
        raise FormatError(msg)


def _sizes(numbers: object) -> tuple[int, ...]:
    if not isinstance(numbers, list) or not all(type(n) is int and n >= 0 for n in numbers):
        msg = f"no sizes: {numbers!r}"
        raise TypeError(msg)
    return tuple(numbers)


def array_document(
    shape: Sequence[int], dtype: DTypeLike, layout: Layout, axes: str, *, where: object
) -> dict[str, Any]:
    """Return the metadata of a new Zarr v3 array; unwritten pixels read as 0.

    Parameters
    ----------
    shape, dtype, layout, axes
        As for `create_array`.
    where
        Place of the array, for messages.

    Raises
    ------
    InvalidInputError
        If a size is not positive, ranks differ, or a pixel is no number that Zarr can hold.
    """
    pixel = _pixel_type(dtype, where)
    if len(shape) != len(axes) or len(shape) != len(layout.chunk) or min(shape, default=0) < 1:
        msg = (
            f"{where}: cannot create an array of shape {tuple(shape)} over axes {axes!r} in chunks "
            f"{layout.chunk}"
        )
        raise InvalidInputError(msg)
    fitted = layout.fitted(shape)
    chain = codec_chain(fitted.codec, pixel)
    if fitted.shard is not None:
        chain = [
            {
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": fitted.chunk,
                    "codecs": chain,
                    "index_codecs": [
                        {"name": "bytes", "configuration": {"endian": "little"}},
                        {"name": "crc32c"},
                    ],
                    "index_location": "end",
                },
            }
        ]
    return {
        "shape": [int(size) for size in shape],
        "data_type": pixel.name,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": list(fitted.write_unit)},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "codecs": chain,
        "dimension_names": list(axes),
        "fill_value": False if pixel == np.bool_ else 0,
    }


def _pixel_type(dtype: DTypeLike, where: object) -> np.dtype[Any]:
    try:
        pixel = np.dtype(dtype)
    except (TypeError, ValueError) as error:
        msg = f"{where}: {dtype!r} is no type of a pixel"
        raise InvalidInputError(msg) from error
    if pixel.name not in _PIXEL_TYPES:
        msg = f"{where}: pixels are of one of {', '.join(sorted(_PIXEL_TYPES))}, got {pixel}"
        raise InvalidInputError(msg)
    return pixel
