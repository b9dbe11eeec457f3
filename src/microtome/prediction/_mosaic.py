"""Pieces in any order, whole write units out: each is written once, and no two writers meet."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from microtome.storage import Box

__all__ = ["Mosaic", "Unit"]

Unit = tuple[int, ...]
"""Which sample, and which write unit of it along each spatial axis."""

# Of pieces that wait for a later unit; what is more waits on disk. Of a slide of 100,000 pixels a
# strip that waits for the next row of shards can be more than all the rest.
_WAITING_BYTES = 32 << 20


@dataclass(slots=True)
class _Waiting:
    """A piece that waits: its place in the unit, and its pixels or where they lie in a file."""

    at: tuple[slice, ...]
    pixels: NDArray[Any] | None
    shape: tuple[int, ...]
    offset: int = 0


class Mosaic:
    """Pieces of pictures, kept until the write unit (shard) that they lie in is complete.

    A unit that has less than half of its pieces is held as pieces, not as a buffer: where tiles
    come shard by shard, memory is then one shard and a bounded part of the strip of tiles that
    reach into the next row of shards, the rest of which waits in a file.

    Parameters
    ----------
    shape
        Shape of a picture, (C, (Z), Y, X).
    unit
        Shape of a write unit along ((Z), Y, X).
    expected
        Pieces that each unit is made of, by unit.
    write
        Called once a unit with the unit, its box in (C, (Z), Y, X), and its pixels, which are its
        own until it gives them to `reuse`.
    dtype
        Of the pieces.
    adding
        Whether pieces are shares that are added up; otherwise each pixel comes once.
    partial
        Whether some pixels of a unit come in no piece.
    fill
        What stands there.
    spill
        Directory of the file that pieces wait in; the system's own by default.
    """

    def __init__(  # noqa: PLR0913 - keyword-only after the geometry
        self,
        shape: Sequence[int],
        unit: Sequence[int],
        expected: Callable[[Unit], int],
        write: Callable[[Unit, Box, NDArray[Any]], None],
        *,
        dtype: DTypeLike,
        adding: bool = False,
        partial: Callable[[Unit], bool] | None = None,
        fill: float = 0,
        spill: Path | None = None,
    ) -> None:
        self._shape = tuple(shape)
        self._unit = tuple(unit)
        self._expected = expected
        self._write = write
        self._dtype = np.dtype(dtype)
        self._adding = adding
        self._partial = partial
        self._fill = fill
        self._waiting: dict[Unit, list[_Waiting]] = {}
        self._buffers: dict[Unit, NDArray[Any]] = {}
        self._come: dict[Unit, int] = {}
        self._spare: list[NDArray[Any]] = []
        self._spilled = _Spill(spill)
        self._bytes = 0

    def paste(
        self,
        sample: int,
        start: Sequence[int],
        pixels: NDArray[Any],
        *,
        done: Callable[[Unit], bool] | None = None,
    ) -> None:
        """Add a piece and write what it completes.

        Parameters
        ----------
        sample
            Which picture.
        start
            Where it goes along ((Z), Y, X); it lies inside the picture.
        pixels
            (C, (Z), Y, X); copied, so that the batch that it is part of can go.
        done
            Which units are complete already and take nothing more.
        """
        for key, at, part in self._cut(sample, start, pixels):
            if done is not None and done(key):
                continue
            come = self._come[key] = self._come.get(key, 0) + 1
            expected = self._expected(key)
            if key not in self._buffers and 2 * come > expected:
                self._begin(key)
            if key in self._buffers:
                self._put(self._buffers[key], at, part)
            else:
                self._wait(key, at, part)
            if come == expected:
                self._flush(key)

    def reuse(self, buffer: NDArray[Any]) -> None:
        """Take back the pixels of a unit that has been written; any thread may call it."""
        if not self._spare:
            self._spare.append(buffer)

    def box(self, key: Unit) -> Box:
        """Return the place of a unit in its picture, (C, (Z), Y, X)."""
        spatial = tuple(
            (number * step, min((number + 1) * step, size))
            for number, step, size in zip(key[1:], self._unit, self._shape[1:], strict=True)
        )
        return ((0, self._shape[0]), *spatial)

    def close(self) -> None:
        """Let go of what waits."""
        self._waiting.clear()
        self._buffers.clear()
        self._spare.clear()
        self._spilled.close()

    def _cut(
        self, sample: int, start: Sequence[int], pixels: NDArray[Any]
    ) -> Iterator[tuple[Unit, tuple[slice, ...], NDArray[Any]]]:
        """Cut a piece at the borders of units; places are relative to the unit."""
        spans: list[list[tuple[int, slice, slice]]] = []
        for first, size, step in zip(start, pixels.shape[1:], self._unit, strict=True):
            last = first + size
            along: list[tuple[int, slice, slice]] = []
            for number in range(first // step, -(-last // step)):
                low, high = max(first, number * step), min(last, (number + 1) * step)
                along.append(
                    (
                        number,
                        slice(low - number * step, high - number * step),
                        slice(low - first, high - first),
                    )
                )
            spans.append(along)
        for parts in product(*spans):
            key = (sample, *(number for number, _, _ in parts))
            yield (
                key,
                tuple(at for _, at, _ in parts),
                pixels[(slice(None), *(within for _, _, within in parts))],
            )

    def _begin(self, key: Unit) -> None:
        shape = tuple(stop - start for start, stop in self.box(key))
        buffer = self._buffers[key] = self._buffer(shape)
        if self._adding or (self._partial is not None and self._partial(key)):
            buffer[...] = self._fill
        for piece in self._waiting.pop(key, []):
            pixels = piece.pixels
            if pixels is None:
                pixels = self._spilled.read(piece.offset, piece.shape, self._dtype)
            else:
                self._bytes -= pixels.nbytes
            self._put(buffer, piece.at, pixels)

    def _put(self, buffer: NDArray[Any], at: tuple[slice, ...], part: NDArray[Any]) -> None:
        target = buffer[(slice(None), *at)]
        if self._adding:
            target += part
        else:
            target[...] = part

    def _wait(self, key: Unit, at: tuple[slice, ...], part: NDArray[Any]) -> None:
        waiting = self._waiting.setdefault(key, [])
        if self._bytes + part.nbytes <= _WAITING_BYTES:
            self._bytes += part.nbytes
            waiting.append(_Waiting(at, part.copy(), part.shape))
        else:
            waiting.append(_Waiting(at, None, part.shape, self._spilled.append(part)))

    def _flush(self, key: Unit) -> None:
        out = self._buffers.pop(key)
        del self._come[key]
        self._write(key, self.box(key), out)

    def _buffer(self, shape: tuple[int, ...]) -> NDArray[Any]:
        while self._spare:
            spare = self._spare.pop()
            # Memory touched before costs less than new memory; only border units differ in shape.
            if spare.shape == shape and spare.dtype == self._dtype:
                return spare
        return np.empty(shape, self._dtype)


class _Spill:
    """A file without a name: what is in it is gone with the process, however that ends."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._file: Any = None
        self._end = 0
        self._held = 0

    def append(self, pixels: NDArray[Any]) -> int:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115 - closed below
        if not self._held:
            self._end = 0  # all of it was read: the file need not grow with the picture
        self._held += 1
        at = self._end
        data = np.ascontiguousarray(pixels)
        self._file.seek(at)
        self._file.write(data.data)
        self._end += data.nbytes
        return at

    def read(self, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        self._held -= 1
        self._file.seek(offset)
        data = self._file.read(prod(shape) * dtype.itemsize)
        return np.frombuffer(data, dtype).reshape(shape)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
