"""Coarser levels that grow while the finest is written: nothing is read from the disk again.

`build_levels` computes the same from an image that is there. Who has the files of the finest level
in hand anyway, in whatever order, gives each of them to `GrowingLevels`: it is halved into a
quarter of a file of the next level, and so on. Where the files come along a Z-curve, there is one
unfinished file a level at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.storage import Box, WritableArray

from ._build import levels_fit
from ._pyramid import halve, halved_shape

__all__ = ["GrowingLevels", "halved_box"]


class GrowingLevels:
    """The levels above one that is being written.

    Parameters
    ----------
    arrays
        The coarser levels, finest first, each half of the one before it.
    write
        Called once a file with the number of the level, counted from 0, the file's box and its
        pixels, which are used again afterwards.
    labels
        Whether pixels are identifiers.
    """

    def __init__(
        self,
        arrays: Sequence[WritableArray],
        write: Callable[[int, Box, NDArray[Any]], None],
        *,
        labels: bool = False,
    ) -> None:
        self._arrays = list(arrays)
        self._write = write
        self._labels = labels
        # By level and place of a file: its pixels, and how many of them are still to come.
        self._begun: dict[tuple[int, Box], tuple[NDArray[Any], int]] = {}
        self._spare: dict[int, NDArray[Any]] = {}

    @staticmethod
    def can_grow(base: WritableArray, arrays: Sequence[WritableArray]) -> bool:
        """Whether each file of a level is a part of one file of the next."""
        pairs = zip([base, *arrays], arrays, strict=False)
        return all(levels_fit(fine, coarse) for fine, coarse in pairs)

    def add(self, box: Box, pixels: NDArray[Any], level: int = 0) -> None:
        """Give a file of the level below one of these, and write what it completes.

        Parameters
        ----------
        box, pixels
            A whole file of that level, each once.
        level
            Which of these levels it is a part of: 0 for files of the level that is written.
        """
        while level < len(self._arrays):
            array = self._arrays[level]
            part = halved_box(box)
            whole = _file_of(part, array)
            buffer, missing = self._begun.pop((level, whole), None) or self._begin(level, whole)
            at = tuple(
                slice(start - first, stop - first)
                for (start, stop), (first, _) in zip(part, whole, strict=True)
            )
            halve(pixels, labels=self._labels, out=buffer[at])
            missing -= prod(halved_shape(pixels.shape))
            if missing:
                self._begun[level, whole] = buffer, missing
                return
            self._write(level, whole, buffer)
            # Looked at once more before it is used again: by the level after this one.
            self._spare[level] = buffer
            box, pixels, level = whole, buffer, level + 1

    def _begin(self, level: int, box: Box) -> tuple[NDArray[Any], int]:
        shape = [stop - start for start, stop in box]
        spare = self._spare.pop(level, None)
        if spare is None or spare.shape != tuple(shape):
            spare = np.empty(shape, self._arrays[level].dtype)
        return spare, prod(shape)


def halved_box(box: Box) -> Box:
    """Return the box of the next level that stands for a box that begins at even pixels."""
    return (*box[:-2], *((start // 2, -(-stop // 2)) for start, stop in box[-2:]))


def _file_of(box: Box, array: WritableArray) -> Box:
    """Return the box of the file that holds a box."""
    return tuple(
        (start // unit * unit, min((start // unit + 1) * unit, size))
        for (start, _), unit, size in zip(box, array.write_unit, array.shape, strict=True)
    )
