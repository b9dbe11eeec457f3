"""Labels of finer pixels on a grid of whole blocks of them: the most frequent of each block."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.image import PixelArray
from microtome.storage import READ, Box, Pending

__all__ = ["BlockLabels", "most_frequent"]

# Of the finer labels, that are held at a time.
_BYTES = 32 << 20


class BlockLabels:
    """The labels (Y, X) that lie on blocks of others, as a `PixelArray`; the rule of the pyramid.

    Parameters
    ----------
    labels
        The finer ones, (..., Y, X) with one plane only.
    block
        (height, width) of a block in finer pixels; at the far edge it has what there is.
    """

    def __init__(self, labels: PixelArray, block: tuple[int, int]) -> None:
        self._labels = labels
        self._block = block
        height, width = labels.shape[-2:]
        self._shape = (-(-height // block[0]), -(-width // block[1]))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in pixels, (Y, X)."""
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a label."""
        return self._labels.dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """About what one chunk of the finer labels covers."""
        pairs = zip(self._labels.chunks[-2:], self._block, strict=True)
        return tuple(max(1, chunk // side) for chunk, side in pairs)

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box."""
        (top, bottom), (left, right) = box
        high, wide = self._block
        height, width = self._labels.shape[-2:]
        ones = ((0, 1),) * (len(self._labels.shape) - 2)
        out = np.empty((bottom - top, right - left), self.dtype)
        row = max(1, (right - left) * high * wide * self.dtype.itemsize)
        step = max(1, _BYTES // row)
        for start in range(top, bottom, step):
            stop = min(start + step, bottom)
            y = start * high, min(stop * high, height)
            x = left * wide, min(right * wide, width)
            fine = self._labels.read((*ones, y, x)).reshape(y[1] - y[0], x[1] - x[0])
            out[start - top : stop - top] = most_frequent(fine, self._block)
        return out

    def read_into(self, box: Box, out: NDArray[Any]) -> Pending:
        """Read a box into a buffer."""
        out[...] = self.read(box)
        return READ


def most_frequent(labels: NDArray[Any], block: tuple[int, int]) -> NDArray[Any]:
    """Return the most frequent label of each block; ties go to the smallest that is not 0.

    Parameters
    ----------
    labels
        (Y, X).
    block
        (height, width); blocks at the far edges have what there is.

    Returns
    -------
    (ceil(Y / height), ceil(X / width)).
    """
    height, width = labels.shape
    high, wide = block
    rows, columns = height // high, width // wide
    out = np.empty((-(-height // high), -(-width // wide)), labels.dtype)
    inner = labels[: rows * high, : columns * wide]
    out[:rows, :columns] = _of_blocks(inner, high, wide)
    below, beside = labels[rows * high :], labels[:, columns * wide :]
    if below.size:
        out[rows, :columns] = _of_blocks(below[:, : columns * wide], below.shape[0], wide)[0]
    if beside.size:
        out[:rows, columns] = _of_blocks(beside[: rows * high], high, beside.shape[1])[:, 0]
    if below.size and beside.size:
        corner = below[:, columns * wide :]
        out[rows, columns] = _of_blocks(corner, *corner.shape)[0, 0]
    return out


def _of_blocks(labels: NDArray[Any], high: int, wide: int) -> NDArray[Any]:
    """The same of labels that are whole blocks."""
    rows, columns = labels.shape[0] // high, labels.shape[1] // wide
    blocks = labels.reshape(rows, high, columns, wide)
    found = blocks[:, 0, :, 0].copy()
    # Most blocks lie inside one cell or in the background; only the others are voted on.
    mixed = (blocks != found[:, None, :, None]).any(axis=(1, 3))
    if mixed.any():
        votes = np.sort(blocks.transpose(0, 2, 1, 3)[mixed].reshape(-1, high * wide), axis=1)
        place = np.broadcast_to(np.arange(high * wide), votes.shape)
        begins = np.ones(votes.shape, np.bool_)
        begins[:, 1:] = votes[:, 1:] != votes[:, :-1]
        run = place - np.maximum.accumulate(np.where(begins, place, 0), axis=1) + 1
        # Of equal runs the first is of the smallest label, and one of 0 is half a vote short.
        winner = (2 * run + (votes != 0)).argmax(axis=1)
        found[mixed] = votes[np.arange(len(votes)), winner]
    return found
