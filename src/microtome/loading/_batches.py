"""Which positions of an epoch make a batch, and which rank reads it."""

from __future__ import annotations

from dataclasses import dataclass

from microtome.errors import InvalidInputError, OutOfRangeError

__all__ = ["BatchPlan", "SharedPlan"]


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """The batches of one rank.

    At every step the ranks together read the next ``batch_size * world_size`` positions of the
    epoch, rank 0 the first `batch_size` of them: W ranks with batches of B see at each step what
    one rank with batches of W * B would.

    What is left over at the end is shared evenly and nothing is repeated, so every position is
    read by exactly one rank exactly once, and **all ranks have equally many batches**: none waits
    for ever in a collective operation. Where fewer tiles are left over than there are ranks, the
    last whole step is shared out anew together with them, as two steps of smaller batches. With
    `drop_last` what is left over is not read.

    Parameters
    ----------
    count
        Positions in an epoch.
    batch_size
        Most positions in a batch.
    rank, world_size
        Which of how many processes this is.
    drop_last
        Whether an epoch ends with the last step that is whole on every rank.

    Raises
    ------
    InvalidInputError
        If a number is out of its range, there would be no batch at all, or the ranks cannot have
        equally many: fewer tiles than ranks, or batches of one with some left over.

    Examples
    --------
    >>> plan = BatchPlan(count=10, batch_size=4)
    >>> [plan.span(step) for step in range(len(plan))]
    [(0, 4), (4, 8), (8, 10)]
    """

    count: int
    batch_size: int
    rank: int = 0
    world_size: int = 1
    drop_last: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            msg = f"batch_size must be at least 1, got {self.batch_size}"
            raise InvalidInputError(msg)
        if not 0 <= self.rank < self.world_size:
            msg = f"rank must be from 0 to world_size - 1, got {self.rank} of {self.world_size}"
            raise InvalidInputError(msg)
        if self.count < 1:
            msg = "there are no tiles to load"
            raise InvalidInputError(msg)
        whole, left = divmod(self.count, self.batch_size * self.world_size)
        if self.drop_last:
            if not whole:
                msg = (
                    f"{self.count} tiles do not fill one batch of {self.batch_size} on each of "
                    f"{self.world_size} ranks, and drop_last=True drops them all; use a smaller "
                    "batch_size or drop_last=False"
                )
                raise InvalidInputError(msg)
        elif 0 < left < self.world_size and (not whole or self.batch_size == 1):
            remedy = "a batch_size of 2 or more" if whole else f"at most {self.count} ranks"
            msg = (
                f"{self.count} tiles cannot be shared by {self.world_size} ranks in equally many "
                f"batches of at most {self.batch_size}; use {remedy}, or drop_last=True"
            )
            raise InvalidInputError(msg)

    def __len__(self) -> int:
        whole, last = self._steps()
        return whole + last

    def span(self, step: int) -> tuple[int, int]:
        """Return the half-open interval of positions that this rank reads at a step.

        Raises
        ------
        OutOfRangeError
            If there is no such step.
        """
        whole, last = self._steps()
        if not 0 <= step < whole + last:
            msg = f"no batch {step}, an epoch has {whole + last}"
            raise OutOfRangeError(msg)
        if step < whole:
            start = (step * self.world_size + self.rank) * self.batch_size
            return start, start + self.batch_size
        begin = whole * self.world_size * self.batch_size
        left, shares = self.count - begin, last * self.world_size
        share = (step - whole) * self.world_size + self.rank
        return begin + left * share // shares, begin + left * (share + 1) // shares

    def _steps(self) -> tuple[int, int]:
        """Return how many steps are whole, and in how many the rest is read."""
        whole, left = divmod(self.count, self.batch_size * self.world_size)
        if self.drop_last or not left:
            return whole, 0
        if left >= self.world_size:
            return whole, 1
        return whole - 1, 2


@dataclass(frozen=True, slots=True)
class SharedPlan:
    """The batches of one rank of several, each of which reads positions of its own.

    Shares differ a little from epoch to epoch and from rank to rank, the number of batches does not:
    the last ones of a rank with fewer positions are smaller, about half of a batch or more. With
    `drop_last` as many batches are whole as every rank has in any epoch, and the rest is not read.

    Parameters
    ----------
    count
        Positions in an epoch.
    sizes
        The fewest and the most positions of a share.
    batch_size
        Most positions in a batch, 2 or more.
    rank, world_size
        Which of how many processes this is.
    drop_last
        Whether only whole batches are read.

    Raises
    ------
    InvalidInputError
        If a number is out of its range, or a rank had no batch, or fewer tiles than batches.
    """

    count: int
    sizes: tuple[int, int]
    batch_size: int
    rank: int
    world_size: int
    drop_last: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size or self.batch_size < 2:
            msg = (
                f"rank must be from 0 to world_size - 1 and batch_size 2 or more, got {self.rank} of "
                f"{self.world_size} and {self.batch_size}"
            )
            raise InvalidInputError(msg)
        least, _ = self.sizes
        if not len(self) or len(self) > least:
            remedy = "a smaller batch_size or fewer ranks"
            msg = (
                f"{self.count} tiles cannot be shared by {self.world_size} ranks in equally many "
                f"batches of {self.batch_size} with drop_last={self.drop_last}; use {remedy}"
            )
            raise InvalidInputError(msg)

    def __len__(self) -> int:
        least, most = self.sizes
        return least // self.batch_size if self.drop_last else -(-most // self.batch_size)

    def span(self, step: int, share: tuple[int, int]) -> tuple[int, int]:
        """Return the half-open interval of positions that a rank reads at a step.

        Parameters
        ----------
        step
            Number of the batch.
        share
            The rank's positions in this epoch.

        Raises
        ------
        OutOfRangeError
            If there is no such step.
        """
        count, size = len(self), self.batch_size
        if not 0 <= step < count:
            msg = f"no batch {step}, an epoch has {count}"
            raise OutOfRangeError(msg)
        low, high = share
        missing = 0 if self.drop_last else count * size - (high - low)
        smaller = min(count, -(-2 * missing // size))
        whole = count - smaller
        if step < whole:
            return low + step * size, low + (step + 1) * size
        begin, number = low + whole * size, step - whole
        left = high - begin
        return begin + left * number // smaller, begin + left * (number + 1) // smaller
