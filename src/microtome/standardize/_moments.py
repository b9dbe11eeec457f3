"""Mean and standard deviation of any amount of pixels, block by block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError

from ._blocks import read_block, refuse_not_finite

__all__ = ["Moments"]


class Moments:
    """Count, mean and standard deviation of every channel over blocks of pixels.

    Blocks may come in any order and be counted by different workers: up to the rounding of float64
    the result is that of all pixels at once. Sums of integers of up to 32 bits are exact within a
    block. Blocks are joined by the formula of Chan, Golub and LeVeque (1979), which does not
    subtract large sums from each other.

    Parameters
    ----------
    channels
        Number of channels.

    Examples
    --------
    >>> import numpy as np
    >>> moments = Moments(1)
    >>> moments.update(np.array([[1, 2]]))
    >>> moments.update(np.array([[3, 6]]))
    >>> moments.mean, moments.std**2
    (array([3.]), array([3.5]))
    """

    def __init__(self, channels: int) -> None:
        if channels < 1:
            raise InvalidInputError(f"channels must be at least 1, got {channels}")
        self._count = np.zeros(channels, np.int64)
        self._mean = np.zeros(channels)
        self._squares = np.zeros(channels)  # sum of squared distances from the mean

    def update(
        self, values: NDArray[Any], *, channels: Sequence[int] | None = None, where: str = ""
    ) -> None:
        """Count a block of pixels.

        Parameters
        ----------
        values
            (C, N) numbers.
        channels
            Which channel each row is; by default all of them in order.
        where
            What the block is, for the message.

        Raises
        ------
        FormatError
            If a value is NaN or infinite.
        InvalidInputError
            If there is not one row per channel.
        """
        block, places = read_block(values, channels, self._count.size)
        refuse_not_finite(block, places, where)
        if block.shape[1] == 0:
            return
        for row, place in zip(block, places, strict=True):
            self._join(place, row.size, *_block_moments(row))

    def merge(self, other: Moments) -> None:
        """Add what another one counted.

        Raises
        ------
        InvalidInputError
            If it has another number of channels.
        """
        if other._count.size != self._count.size:
            raise InvalidInputError(
                f"moments of {self._count.size} and {other._count.size} channels do not go together"
            )
        for place in np.flatnonzero(other._count):
            self._join(
                int(place),
                int(other._count[place]),
                float(other._mean[place]),
                float(other._squares[place]),
            )

    @property
    def count(self) -> NDArray[np.int64]:
        """(C,) values counted."""
        return self._count.copy()

    @property
    def mean(self) -> NDArray[np.float64]:
        """(C,) mean; NaN for a channel without values."""
        return np.where(self._count > 0, self._mean, np.nan)

    @property
    def std(self) -> NDArray[np.float64]:
        """(C,) standard deviation of the population; NaN for a channel without values."""
        return np.sqrt(
            np.where(self._count > 0, self._squares / np.maximum(self._count, 1), np.nan)
        )

    def _join(self, place: int, count: int, mean: float, squares: float) -> None:
        before = int(self._count[place])
        total = before + count
        distance = mean - self._mean[place]
        self._mean[place] += distance * (count / total)
        self._squares[place] += squares + distance * distance * (before * count / total)
        self._count[place] = total


def _block_moments(row: NDArray[Any]) -> tuple[float, float]:
    """Mean of a block, and its sum of squared distances from the mean."""
    if row.dtype.kind in "bui":
        sums = _exact_sums(row)
        if sums is not None:
            total, squares = sums
            # Division of Python integers rounds once, however large they are.
            return total / row.size, (row.size * squares - total * total) / row.size
    values = row.astype(np.float64, copy=False)
    mean = float(values.mean())
    distances = values - mean
    # The mean was rounded; what is left of the sum of distances puts that right.
    return mean, float(np.square(distances).sum() - distances.sum() ** 2 / row.size)


def _exact_sums(row: NDArray[Any]) -> tuple[int, int] | None:
    """Sum of integers and of their squares; None if they do not fit 32 bits."""
    if row.dtype.itemsize > 4 and (row.min() < -(2**31) or row.max() >= 2**32):
        return None
    values = row.astype(np.int64)
    total = int(values.sum())
    if row.dtype.itemsize <= 2:
        return total, int(np.square(values).sum())
    # Squares of 32-bit numbers do not fit 64 bits in sum: split each into high * 2^16 + low.
    high, low = values >> 16, values & 0xFFFF
    squares = (
        (int(np.square(high).sum()) << 32)
        + (int((high * low).sum()) << 17)
        + int(np.square(low).sum())
    )
    return total, squares
