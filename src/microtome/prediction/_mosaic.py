"""Pieces in any order, whole write units out: each is written once, and no two writers meet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.storage import Box

__all__ = ["Mosaic"]


class Mosaic:
    """Pieces of a picture, kept until the write unit (shard) that they lie in is complete.

    A unit that is less than half full is held as pieces, not as a buffer: where tiles come shard
    by shard, memory is then one shard, and the strip of tiles that reach into the next row of
    shards, instead of two rows of shards.

    Parameters
    ----------
    shape
        Shape of the picture, (C, Y, X).
    unit
        Shape of a write unit along (Y, X).
    write
        Called once a unit with its box and its pixels.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        unit: tuple[int, int],
        write: Callable[[Box, NDArray[Any]], None],
    ) -> None:
        self._shape = shape
        self._unit = unit
        self._write = write
        self._pieces: dict[tuple[int, int], list[tuple[int, int, NDArray[Any]]]] = {}
        self._buffers: dict[tuple[int, int], NDArray[Any]] = {}
        self._filled: dict[tuple[int, int], int] = {}
        self._spare: NDArray[Any] | None = None

    def paste(self, row: int, col: int, pixels: NDArray[Any]) -> None:
        """Add a piece and write what it completes.

        Parameters
        ----------
        row, col
            Where it goes; it lies inside the picture and overlaps no other piece.
        pixels
            (C, Y, X); copied, so that the batch that it is part of can go.
        """
        for key, (top, left), part in self._cut(row, col, pixels):
            (y0, y1), (x0, x1) = self._box(key)
            area = (y1 - y0) * (x1 - x0)
            filled = self._filled.get(key, 0) + part.shape[1] * part.shape[2]
            self._filled[key] = filled
            if key not in self._buffers and 2 * filled > area:
                self._buffers[key] = self._buffer((y1 - y0, x1 - x0), pixels.dtype)
                for place in self._pieces.pop(key, []):
                    _copy_into(self._buffers[key], *place)
            if key in self._buffers:
                _copy_into(self._buffers[key], top, left, part)
            else:
                self._pieces.setdefault(key, []).append((top, left, part.copy()))
            if filled == area:
                self._flush(key)

    def _cut(
        self, row: int, col: int, pixels: NDArray[Any]
    ) -> Iterator[tuple[tuple[int, int], tuple[int, int], NDArray[Any]]]:
        """Cut a piece at the borders of units; places are relative to the unit."""
        height, width = self._unit
        bottom, right = row + pixels.shape[1], col + pixels.shape[2]
        rows = range(row // height, -(-bottom // height))
        columns = range(col // width, -(-right // width))
        for i, j in product(rows, columns):
            top, left = max(row, i * height), max(col, j * width)
            stop, end = min(bottom, (i + 1) * height), min(right, (j + 1) * width)
            part = pixels[:, top - row : stop - row, left - col : end - col]
            yield (i, j), (top - i * height, left - j * width), part

    def _flush(self, key: tuple[int, int]) -> None:
        out = self._buffers.pop(key)
        del self._filled[key]
        self._write(((0, self._shape[0]), *self._box(key)), out)
        self._spare = out

    def _buffer(self, size: tuple[int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
        shape = (self._shape[0], *size)
        spare, self._spare = self._spare, None
        # Memory touched before costs less than new memory; only border units have another shape.
        return spare if spare is not None and spare.shape == shape else np.empty(shape, dtype)

    def _box(self, key: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        (i, j), (height, width) = key, self._unit
        top, left = i * height, j * width
        return (top, min(top + height, self._shape[1])), (left, min(left + width, self._shape[2]))


def _copy_into(out: NDArray[Any], top: int, left: int, part: NDArray[Any]) -> None:
    out[:, top : top + part.shape[1], left : left + part.shape[2]] = part
