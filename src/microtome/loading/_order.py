"""In which order an epoch visits the rows: a function of (seed, epoch, position)."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, Self, get_args

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError, OutOfRangeError
from microtome.sampling import KEYS, permute

__all__ = ["Order", "OrderKind", "TileOrder", "positions", "shuffled", "whole"]

OrderKind = Literal["sequential", "random", "blocked"]
"""`sequential`: as the table says. `random`: every order of all rows equally likely. `blocked`:
blocks of neighbouring rows in random order, a few of them mixed at a time."""

_MOST = 2**62


class Order(Protocol):
    """An order of rows, a function of (seed, epoch, position); `TileOrder` is the plain one."""

    @property
    def count(self) -> int:
        """Positions of an epoch."""
        ...

    @property
    def over(self) -> int:
        """Rows of the table that they are of."""
        ...

    @property
    def kind(self) -> str:
        """Name of the order."""
        ...

    @property
    def seed(self) -> int:
        """Its seed."""
        ...

    @property
    def epoch(self) -> int:
        """Its epoch."""
        ...

    @property
    def rule(self) -> str:
        """What else it depends on, as a text: two orders of one rule are one order."""
        ...

    def at(self, seed: int, epoch: int) -> Self:
        """Return the order of another seed and epoch."""
        ...

    def rows(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the rows that stand at positions ``start ... stop - 1``, (stop - start,)."""
        ...


@dataclass(frozen=True, slots=True)
class TileOrder:
    """The order in which an epoch visits the rows of a table.

    Nothing is shuffled or stored: any stretch of the order is computed from its positions, so a
    table of 10^8 rows costs nothing to open, and every thread, process and rank sees one order.

    Parameters
    ----------
    count
        Number of rows.
    kind
        ``"sequential"``, ``"random"`` or ``"blocked"``. Blocked cuts the table into blocks of
        `block` consecutive rows (the last may be shorter), puts the blocks into random order, and
        shuffles the rows of `group` blocks together: neighbours in a tile table are neighbours on
        the slide, so their chunks are still at hand when the next of them is read.
    seed
        From 0 to 2^64 - 1.
    epoch
        From 0 to 2^32 - 1; every epoch has its own order, unless it is sequential.
    block
        Rows in a block.
    group
        Blocks whose rows are mixed.

    Raises
    ------
    InvalidInputError
        If the kind is unknown or a number is out of its range.

    Examples
    --------
    >>> order = TileOrder(10, seed=1)
    >>> sorted(order.rows(0, 10).tolist())
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    >>> bool((order.rows(4, 6) == order.rows(0, 10)[4:6]).all())
    True
    """

    count: int
    kind: OrderKind = "random"
    seed: int = 0
    epoch: int = 0
    block: int = 32
    group: int = 16
    _keys: NDArray[np.uint64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.kind not in get_args(OrderKind):
            msg = f"order must be one of {get_args(OrderKind)}, got {self.kind!r}"
            raise InvalidInputError(msg)
        for name, low, high in (
            ("count", 0, _MOST),
            ("seed", 0, 2**64 - 1),
            ("epoch", 0, 2**32 - 1),
            ("block", 1, _MOST),
            ("group", 1, _MOST),
        ):
            object.__setattr__(self, name, whole(name, getattr(self, name), low, high))
        # The epoch as spawn key, not as a second word of entropy: SeedSequence joins words, and
        # (seed 5, epoch 1) would be (seed 2^32 + 5, epoch 0).
        sequence = np.random.SeedSequence(self.seed, spawn_key=(self.epoch,))
        object.__setattr__(self, "_keys", sequence.generate_state(2 * KEYS + 1, np.uint64))

    @property
    def over(self) -> int:
        """Rows of the table: each comes once."""
        return self.count

    @property
    def rule(self) -> str:
        """What else the order depends on, as a text."""
        return f"block={self.block}, group={self.group}" if self.kind == "blocked" else ""

    def at_epoch(self, epoch: int) -> TileOrder:
        """Return the order of another epoch."""
        return replace(self, epoch=epoch)

    def at(self, seed: int, epoch: int) -> TileOrder:
        """Return the order of another seed and epoch."""
        return replace(self, seed=seed, epoch=epoch)

    def rows(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the rows that stand at positions ``start ... stop - 1``.

        Parameters
        ----------
        start, stop
            Half-open interval in ``[0, count]``.

        Returns
        -------
        Row numbers, (stop - start,), in time and memory proportional to their number.

        Raises
        ------
        OutOfRangeError
            If the interval does not lie inside the epoch.
        """
        position = positions(start, stop, self.count)
        if self.kind == "sequential":
            return position
        if self.kind == "random":
            return shuffled(position, np.full_like(position, self.count), self._keys[:KEYS])
        return self._blocked(position)

    def _blocked(self, position: NDArray[np.int64]) -> NDArray[np.int64]:
        # A block lies at a slot. All slots are `block` long but the one, at a random place, of the
        # short block at the table's end; with it out of the way the rest is plain arithmetic.
        full, short = divmod(self.count, self.block)
        slots = full + (short > 0)
        at = int(self._keys[-1]) % slots if short else slots
        low, high = at * self.block, at * self.block + short

        def boundary(slot: NDArray[np.int64]) -> NDArray[np.int64]:
            """First position of a slot."""
            return slot * self.block - np.where(slot > at, self.block - short, 0)

        slot = np.where(
            position < high,
            position // self.block,
            (position - short) // self.block + 1,
        )
        number = slot // self.group
        first = boundary(number * self.group)
        last = boundary(np.minimum((number + 1) * self.group, slots))
        mixed = first + shuffled(position - first, last - first, self._keys[:KEYS], number)
        # Positions among the full blocks only, which have an order of their own.
        rest = np.where(mixed < high, mixed, mixed - short)
        inside = (mixed >= low) & (mixed < high)
        rest[inside] = 0
        which = shuffled(
            rest // self.block, np.full_like(rest, max(full, 1)), self._keys[KEYS : 2 * KEYS]
        )
        rows = which * self.block + rest % self.block
        return np.where(inside, full * self.block + mixed - low, rows)


def whole(name: str, value: Any, low: int, high: int = _MOST) -> int:
    """Return a whole number, if it is one and in its range.

    Raises
    ------
    InvalidInputError
        If it is not.
    """
    try:
        number = operator.index(value)
    except TypeError:
        msg = f"{name} must be a whole number, got {value!r}"
        raise InvalidInputError(msg) from None
    if not low <= number <= high:
        msg = (
            f"{name} must be at least {low}, got {value}"
            if high == _MOST
            else f"{name} must be from {low} to {high}, got {value}"
        )
        raise InvalidInputError(msg)
    return number


def positions(start: int, stop: int, count: int) -> NDArray[np.int64]:
    """Return ``start ... stop - 1``, if they are positions of an epoch of `count`.

    Raises
    ------
    OutOfRangeError
        If they are not.
    """
    if not 0 <= start <= stop <= count:
        msg = f"positions [{start}, {stop}) are not among the {count} of an epoch"
        raise OutOfRangeError(msg)
    return np.arange(start, stop, dtype=np.int64)


def shuffled(
    position: NDArray[np.int64],
    count: NDArray[np.int64],
    keys: NDArray[np.uint64],
    number: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Return which of `count` items stands at each position, in the permutation of a number."""
    tweak = np.zeros_like(position) if number is None else number
    return permute(
        position.astype(np.uint64), count.astype(np.uint64), keys, tweak.astype(np.uint64)
    ).astype(np.int64)
