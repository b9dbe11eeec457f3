"""An order that visits storage blocks at random and mixes the tiles of many of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from zlib import crc32

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.errors import InvalidInputError, OutOfRangeError
from microtome.sampling import KEYS

from ._order import positions, shuffled, whole

__all__ = ["BlockOrder"]

_SEEDS = 2**64
_EPOCHS = 2**32
_MOST_SHARES = 2**31
# A share is of whole blocks where it has at least so many of the largest.
_SMALL = 8


@dataclass(frozen=True, slots=True)
class _Cut:
    """Which rows lie in which block; the same in every epoch."""

    rows: NDArray[np.int64]
    """Rows, block after block, (n,)."""
    first: NDArray[np.int64]
    """Where each block begins in them, (blocks,)."""
    size: NDArray[np.int64]
    """Rows of each block, (blocks,)."""


@dataclass(frozen=True, slots=True)
class _Pieces:
    """The blocks of an epoch in their order; one that two ranks share is two pieces."""

    edges: NDArray[np.int64]
    """Position at which each begins, and the end of the last, (pieces + 1,)."""
    first: NDArray[np.int64]
    """Where its rows begin in those of `_Cut`, (pieces,)."""
    stretch: NDArray[np.int64]
    """Number of what it is mixed with, ascending, (pieces,)."""


@dataclass(frozen=True, slots=True, eq=False)
class BlockOrder:
    """The order of an epoch by where tiles are stored: a function of (seed, epoch, position).

    Blocks come in random order, those of all images mixed; about `mixed` tiles, those of as many
    blocks as that takes, are shuffled together. Who reads that many tiles at a time decodes each
    chunk about once an epoch, however the table is sorted. What is kept is 8 bytes a row, sorted
    once, and 16 a block in every epoch.

    Parameters
    ----------
    blocks
        Number of the storage block that each row lies in, any integers, (n,).
    seed
        From 0 to 2^64 - 1.
    epoch
        From 0 to 2^32 - 1.
    mixed
        Tiles that are shuffled together, at least. More of them come closer to a uniform order.
    shares
        Ranks that the blocks are dealt to.

    Raises
    ------
    InvalidInputError
        If a number is out of its range.

    Examples
    --------
    >>> order = BlockOrder([0, 0, 1, 1, 2, 2], seed=3, mixed=2)
    >>> order.rows(0, 6).tolist()
    [3, 2, 1, 0, 4, 5]
    """

    blocks: ArrayLike
    seed: int = 0
    epoch: int = 0
    mixed: int = 1024
    shares: int = 1
    kind: str = field(init=False, default="blocked")
    _cut: _Cut = field(init=False, repr=False)
    _bounds: NDArray[np.int64] = field(init=False, repr=False)
    _pieces: _Pieces = field(init=False, repr=False)
    _keys: NDArray[np.uint64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        given = np.asarray(self.blocks)
        if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
            msg = f"blocks must be integers, (n,), got {given.shape} {given.dtype}"
            raise InvalidInputError(msg)
        for name, low, high in (
            ("seed", 0, _SEEDS - 1),
            ("epoch", 0, _EPOCHS - 1),
            ("mixed", 1, 2**62),
            ("shares", 1, _MOST_SHARES),
        ):
            object.__setattr__(self, name, whole(name, getattr(self, name), low, high))
        # Tables list tissue after tissue: what is nearly sorted is sorted fast, and stably.
        rows = np.argsort(given, kind="stable")
        first = np.flatnonzero(np.diff(given[rows], prepend=given[rows[:1]] - 1))
        size = np.diff(np.append(first, given.size))
        object.__setattr__(self, "blocks", given)
        object.__setattr__(self, "_cut", _Cut(rows, first, size))
        self._turn_to(self.epoch)

    def _turn_to(self, epoch: int) -> None:
        # The epoch as spawn key, not as a second word of entropy: see `TileOrder`.
        keys = np.random.SeedSequence(self.seed, spawn_key=(epoch,))
        keys = keys.generate_state(2 * KEYS, np.uint64).astype(np.uint64, copy=False)
        count = len(self._cut.first)
        places = np.arange(count, dtype=np.int64)
        which = shuffled(places, np.full_like(places, count), keys[KEYS:])
        edges = np.concatenate([[0], np.cumsum(self._cut.size[which])])
        ideal = self.count * np.arange(self.shares + 1, dtype=np.int64) // self.shares
        bounds = ideal
        if self._whole:
            after = np.searchsorted(edges, ideal)
            before = np.maximum(after - 1, 0)
            nearer = edges[after] - ideal <= ideal - edges[before]
            bounds = np.where(nearer, edges[after], edges[before])
        cut = np.union1d(edges, bounds)
        begins = cut[:-1]
        slot = np.searchsorted(edges, begins, "right") - 1
        first = self._cut.first[which[slot]] + begins - edges[slot]
        # Pieces are mixed with those of their share that begin in the same stretch of `mixed`
        # positions.
        share = np.searchsorted(bounds, begins, "right") - 1
        stretch = (begins - bounds[share]) // self.mixed
        stretch += share * (self.count // self.mixed + 1)
        for name, value in (
            ("epoch", epoch),
            ("_keys", keys),
            ("_bounds", bounds),
            ("_pieces", _Pieces(cut, first, stretch)),
        ):
            object.__setattr__(self, name, value)

    @property
    def _largest(self) -> int:
        return int(self._cut.size.max(initial=0))

    @property
    def _whole(self) -> bool:
        """Whether shares are of whole blocks."""
        return _SMALL * self._largest <= self.count // self.shares

    @property
    def share_sizes(self) -> tuple[int, int]:
        """The fewest and the most positions that a share has in any epoch, at the utmost."""
        # Each end of a share is moved by half a block at most.
        moved = self._largest if self._whole and self.shares > 1 else 0
        return self.count // self.shares - moved, -(-self.count // self.shares) + moved

    def share(self, rank: int) -> tuple[int, int]:
        """Return the half-open interval of positions of this epoch that a rank reads.

        Raises
        ------
        OutOfRangeError
            If there is no such rank.
        """
        if not 0 <= rank < self.shares:
            msg = f"no rank {rank}, the blocks are dealt to {self.shares}"
            raise OutOfRangeError(msg)
        return int(self._bounds[rank]), int(self._bounds[rank + 1])

    def shared(self, shares: int) -> BlockOrder:
        """Return the order of the same blocks, dealt to a number of ranks.

        Raises
        ------
        InvalidInputError
            If there is none.
        """
        if not 1 <= shares <= _MOST_SHARES:
            return BlockOrder(self.blocks, mixed=self.mixed, shares=shares)  # refuses it
        return self._copy(self.seed, self.epoch, shares)

    @property
    def count(self) -> int:
        """Positions of an epoch: each row comes once."""
        return len(self._cut.rows)

    @property
    def over(self) -> int:
        """Rows of the table."""
        return self.count

    @property
    def rule(self) -> str:
        """What else the order depends on, as a text."""
        told = f"storage blocks {crc32(self._cut.rows.tobytes()):08x}, mixed={self.mixed}"
        return told if self.shares == 1 else f"{told}, shares={self.shares}"

    def at_epoch(self, epoch: int) -> BlockOrder:
        """Return the order of another epoch."""
        return self.at(self.seed, epoch)

    def at(self, seed: int, epoch: int) -> BlockOrder:
        """Return the order of another seed and epoch."""
        seed, epoch = whole("seed", seed, 0, _SEEDS - 1), whole("epoch", epoch, 0, _EPOCHS - 1)
        return self._copy(seed, epoch, self.shares)

    def _copy(self, seed: int, epoch: int, shares: int) -> BlockOrder:
        # Which row lies where is the same: it took sorting the table.
        other = object.__new__(BlockOrder)
        for name, value in (
            ("blocks", self.blocks),
            ("seed", seed),
            ("mixed", self.mixed),
            ("shares", shares),
            ("kind", self.kind),
            ("_cut", self._cut),
        ):
            object.__setattr__(other, name, value)
        other._turn_to(epoch)
        return other

    def rows(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the rows that stand at positions ``start ... stop - 1``.

        Parameters
        ----------
        start, stop
            Half-open interval in ``[0, count]``.

        Raises
        ------
        OutOfRangeError
            If the interval does not lie inside the epoch.
        """
        position = positions(start, stop, self.count)
        edges, stretches = self._pieces.edges, self._pieces.stretch
        stretch = stretches[np.searchsorted(edges, position, "right") - 1]
        low = edges[np.searchsorted(stretches, stretch, "left")]
        high = edges[np.searchsorted(stretches, stretch, "right")]
        place = low + shuffled(position - low, high - low, self._keys[:KEYS], stretch)
        piece = np.searchsorted(edges, place, "right") - 1
        return self._cut.rows[self._pieces.first[piece] + place - edges[piece]]
