"""Mean and standard deviation of any amount of pixels, block by block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError

from ._blocks import read_block, refuse_nan, refuse_not_finite
from ._inside import Inside

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
        if block.shape[1] == 0:
            return
        found = [_block_moments(row) for row in block]
        if not np.isfinite(found).all():
            # Sums of finite numbers may be infinite as well.
            refuse_not_finite(block, places, where)
        for place, (mean, squares) in zip(places, found, strict=True):
            self._join(place, block.shape[1], mean, squares)

    def update_transformed(
        self,
        values: NDArray[Any],
        transform: Callable[[NDArray[np.float64], int], None],
        *,
        channels: Sequence[int] | None = None,
        mask: NDArray[np.bool_] | None = None,
        where: str = "",
    ) -> None:
        """Count what a transform makes of a block of pixels, in little memory.

        Parameters
        ----------
        values
            (C, N) numbers.
        transform
            Called with (n,) pixels of a channel as float64, to change in place, and the channel.
        channels
            Which channel each row is; by default all of them in order.
        mask
            (N,) which pixels of each row count; by default all of them.
        where
            What the block is, for the message.

        Raises
        ------
        FormatError
            If a value is NaN, or NaN or infinite once it is transformed.
        InvalidInputError
            If there is not one row per channel, or the mask is of another size.
        """
        block, places = read_block(values, channels, self._count.size)
        native = block.dtype.newbyteorder("=")
        inside = Inside.of(mask, block.shape[1], block.itemsize)
        for row, place in zip(block, places, strict=True):
            for piece in inside.pieces(row, native):
                made = piece.astype(np.float64)
                transform(made, place)
                mean, squares = _block_moments(made)
                if not (np.isfinite(mean) and np.isfinite(squares)):
                    refuse_nan(piece[None], [place], where)
                    refuse_not_finite(made[None], [place], where)
                self._join(place, made.size, mean, squares)

    def update_counted(
        self, values: NDArray[np.float64], counts: NDArray[np.int64], channel: int, where: str = ""
    ) -> None:
        """Count values that occur many times.

        Parameters
        ----------
        values
            (N,) numbers.
        counts
            (N,) how often each occurs.
        channel
            Which channel they are of.
        where
            What they are, for the message.

        Raises
        ------
        FormatError
            If a value is NaN or infinite.
        """
        total = int(counts.sum())
        if not total:
            return
        refuse_not_finite(values[None], [channel], where)
        mean = float(values @ counts) / total
        distances = values - mean
        # The mean was rounded; what is left of the sum of distances puts that right.
        squares = float(np.square(distances) @ counts) - float(distances @ counts) ** 2 / total
        self._join(channel, total, mean, max(squares, 0.0))

    def of_channels(self) -> list[tuple[int, float, float]]:
        """Count, mean and sum of squared distances from the mean of each channel."""
        columns = (self._count.tolist(), self._mean.tolist(), self._squares.tolist())
        return list(zip(*columns, strict=True))

    @classmethod
    def from_channels(cls, found: Sequence[tuple[int, float, float]]) -> Self:
        """Make one of what `of_channels` gave."""
        moments = cls(len(found))
        for place, (count, mean, squares) in enumerate(found):
            if count:
                moments._join(place, count, mean, squares)
        return moments

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
    with np.errstate(invalid="ignore", over="ignore"):  # the caller looks at the result
        mean = float(values.mean())
        distances = values - mean
        # The mean was rounded; what is left of the sum of distances puts that right.
        squares = float(np.square(distances).sum() - distances.sum() ** 2 / row.size)
    return mean, max(squares, 0.0) if np.isfinite(squares) else squares


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
