"""Chunks of one array compressed, a row of them at a time, in memory that is used again."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import import_module
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from ._blosc_frames import OVERHEAD, FrameMaker
from ._buffers import Buffers
from ._compiler import Compiled, Compiler, compiled_frames

__all__ = ["SHUFFLES", "ChunkEncoder", "Run", "expect_encoding"]

# As in numcodecs and the engine.
SHUFFLES = {"noshuffle": 0, "shuffle": 1}
_LZ4 = "lz4", "lz4hc"
# Bytes of a pixel that are laid apart by compiled code.
_ITEMS = 1, 2, 4, 8

_COMPILER = Compiler(compiled_frames)


def expect_encoding(size: int) -> None:
    """Say that so many bytes of pixels are going to be encoded: what is compiled for it is loaded."""
    _COMPILER.expect(size)


class Run(NamedTuple):
    """The chunks of a shard that lie side by side along its last axis, encoded."""

    bytes: NDArray[np.uint8]
    """One after the other, without those that hold nothing but 0; memory to be given back."""
    lengths: list[int]
    """Of each; 0 for one that holds nothing but 0."""


_Compress = Callable[[int, int], int]
"""Compresses the chunk of a number to a place in a buffer; returns how many bytes it takes there."""


@dataclass(frozen=True, slots=True)
class ChunkEncoder:
    """Compresses chunks by Blosc, or makes the same frames itself.

    Where enough is written, by compiled code that makes no copy of a chunk first.

    Parameters
    ----------
    chunk
        Size in pixels.
    dtype
        Type of a pixel.
    options
        How a chunk is compressed: keywords of `imagecodecs.blosc_encode`. With LZ4HC, what LZ4 itself
        does not make smaller is stored as it is: see `FrameMaker`.
    """

    chunk: tuple[int, ...]
    dtype: np.dtype[Any]
    options: Mapping[str, Any]
    _zeros: int = field(init=False, repr=False)
    """Bytes of an encoded chunk of nothing but 0."""
    _frames: FrameMaker | None = field(init=False, repr=False)
    """What makes the frames of chunks without Blosc; None where only Blosc does."""

    def __post_init__(self) -> None:
        empty = np.zeros((1, self._chunk_bytes), np.uint8)
        room = np.empty(empty.size + OVERHEAD, np.uint8)
        found = _encoder(tuple(self.options.items()))(empty, room)(0, 0)
        frames, name = None, self.options["compressor"]
        if name in _LZ4 and self.options["shuffle"] == SHUFFLES["shuffle"]:
            frames = FrameMaker.like(room, self.options["level"], high=name == "lz4hc")
        object.__setattr__(self, "_frames", frames)
        if frames is not None and frames.high:
            found = frames.make(empty[0], room)
        object.__setattr__(self, "_zeros", found)

    def encode(self, pixels: NDArray[Any], buffers: Buffers) -> Run:
        """Encode chunks that lie side by side along the last axis.

        Parameters
        ----------
        pixels
            No more than a chunk along every axis but the last; what is missing of chunks is 0.
        buffers
            Where memory is taken from.
        """
        columns, width = pixels.shape[-1], self.chunk[-1]
        count = -(-columns // width)
        out = buffers.take((count * (self._chunk_bytes + OVERHEAD),), np.dtype(np.uint8))
        if self._frames is not None and self._is_plane(pixels):
            call = _COMPILER.after(pixels.nbytes)
            if call is not None:
                return self._encode_compiled(self._frames, call, pixels, out, buffers)
        whole, rest = divmod(columns, width)
        scratch = buffers.take((count, *self.chunk), self.dtype)
        within = tuple(map(slice, pixels.shape[:-1]))
        if rest or pixels.shape[:-1] != self.chunk[:-1]:
            scratch[...] = 0
        parts = pixels[..., : whole * width].reshape(*pixels.shape[:-1], whole, width)
        scratch[(slice(whole), *within)] = np.moveaxis(parts, -2, 0)
        if rest:
            scratch[(whole, *within, slice(rest))] = pixels[..., whole * width :]
        raw = scratch.reshape(count, -1).view(np.uint8)
        compress = self._compressing(raw, out)
        lengths: list[int] = []
        at = 0
        for number in range(count):
            length = compress(number, at)
            # Bit by bit, as the engine compares: a negative zero is no fill value.
            if length == self._zeros and not raw[number].any():
                length = 0
            lengths.append(length)
            at += length
        buffers.give(scratch)
        return Run(out[:at], lengths)

    @property
    def _chunk_bytes(self) -> int:
        return math.prod(self.chunk) * self.dtype.itemsize

    def _is_plane(self, pixels: NDArray[Any]) -> bool:
        """Whether all pixels lie in one plane, in rows without gaps."""
        return (
            pixels.ndim > 1
            and math.prod(self.chunk[:-2]) == 1
            and self.dtype.itemsize in _ITEMS
            and pixels.strides[-1] == self.dtype.itemsize
        )

    def _compressing(self, raw: NDArray[np.uint8], out: NDArray[np.uint8]) -> _Compress:
        frames = self._frames
        if frames is None or not frames.high:
            return _encoder(tuple(self.options.items()))(raw, out)
        room = self._chunk_bytes + OVERHEAD
        return lambda number, at: frames.make(raw[number], out[at : at + room])

    def _encode_compiled(
        self,
        frames: FrameMaker,
        call: Compiled,
        pixels: NDArray[Any],
        out: NDArray[np.uint8],
        buffers: Buffers,
    ) -> Run:
        rows, columns = pixels.shape[-2:]
        height, width = self.chunk[-2:]
        lengths = np.empty(-(-columns // width), np.int64)
        apart = buffers.take((self._chunk_bytes,), np.dtype(np.uint8))
        state = buffers.take((int(call.calls[-1]) // 8 + 1,), np.dtype(np.uint64))
        level = frames.level if frames.high else 0
        how = np.array([frames.item, frames.acceleration, level, state.ctypes.data], np.int64)
        end = call.kernel(
            pixels.ctypes.data, pixels.strides[-2], rows, columns, height, width,
            how, call.calls, apart.ctypes.data, out.ctypes.data, lengths,
        )  # fmt: skip
        buffers.give(apart)
        buffers.give(state)
        return Run(out[:end], lengths.tolist())


@cache
def _encoder(
    options: tuple[tuple[str, Any], ...],
) -> Callable[[NDArray[np.uint8], NDArray[np.uint8]], _Compress]:
    """Return what takes chunks, (count, bytes), and a buffer, and returns what compresses them."""
    how = dict(options)
    try:
        library = ctypes.CDLL(import_module("imagecodecs._blosc").__file__)
        function = library.blosc_compress_ctx
    except (ImportError, OSError, AttributeError):
        # Built without libraries of its own.
        return partial(_with_imagecodecs, how)
    size, number = ctypes.c_size_t, ctypes.c_int
    function.restype = number
    function.argtypes = [
        number, number, size, size, size, size, size, ctypes.c_char_p, size, number,
    ]  # fmt: skip
    first = how["level"], how["shuffle"], how["typesize"]
    last = how["compressor"].encode(), how["blocksize"], how["numthreads"]

    def with_library(chunks: NDArray[np.uint8], out: NDArray[np.uint8]) -> _Compress:
        # A sixth less time than by imagecodecs' own function.
        source, target, each = chunks.ctypes.data, out.ctypes.data, chunks.shape[1]

        def compress(number: int, at: int) -> int:
            found = function(
                *first, each, source + number * each, target + at, each + OVERHEAD, *last
            )
            if found <= 0:
                msg = f"Blosc could not compress {each} bytes with {how}"
                raise RuntimeError(msg)
            return found

        return compress

    return with_library


def _with_imagecodecs(
    how: Mapping[str, Any], chunks: NDArray[np.uint8], out: NDArray[np.uint8]
) -> _Compress:
    room = chunks.shape[1] + OVERHEAD
    # How many bytes a pixel has it takes from the type of what it is given.
    pixels = chunks.view(f"V{how['typesize']}")

    def compress(number: int, at: int) -> int:
        return len(imagecodecs.blosc_encode(pixels[number], out=out[at : at + room], **how))  # pyright: ignore[reportArgumentType] - takes any buffer

    return compress
