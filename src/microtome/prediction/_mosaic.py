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

    Memory is the pieces of unfinished units, not the units: where tiles come shard by shard, that
    is one shard, and the strip of tiles that reach into the next row of shards.

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
        self._filled: dict[tuple[int, int], int] = {}

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
            self._pieces.setdefault(key, []).append((top, left, part.copy()))
            self._filled[key] = self._filled.get(key, 0) + part.shape[1] * part.shape[2]
            if self._filled[key] == self._area(key):
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
        (top, bottom), (left, right) = self._box(key)
        pieces = self._pieces.pop(key)
        del self._filled[key]
        out = np.empty((self._shape[0], bottom - top, right - left), pieces[0][2].dtype)
        for row, col, part in pieces:
            out[:, row : row + part.shape[1], col : col + part.shape[2]] = part
        pieces.clear()
        self._write(((0, self._shape[0]), (top, bottom), (left, right)), out)

    def _box(self, key: tuple[int, int]) -> tuple[tuple[int, int], ...]:
        return tuple(
            (place * unit, min((place + 1) * unit, size))
            for place, unit, size in zip(key, self._unit, self._shape[1:], strict=True)
        )

    def _area(self, key: tuple[int, int]) -> int:
        (top, bottom), (left, right) = self._box(key)
        return (bottom - top) * (right - left)
