"""A permutation of any number of items that is computed where it is needed, not stored.

A shuffled array of 10^8 rows takes 0.8 GB and seconds before the first batch. A Feistel network
is a bijection whatever its round function, so one keyed by the seed *is* a shuffle, and a batch
of positions costs the same in a table of a hundred rows as in one of 10^12.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["KEYS", "mix", "permute"]

# Four rounds make a pseudo-random permutation of a large domain (Luby and Rackoff, 1988). Small
# domains need more: with 12, all orders of 2 to 6 items are equally frequent as far as a test of
# 100,000 keys can tell; with 8 or 10, those of 6 items are not.
_ROUNDS = 12

KEYS = _ROUNDS + 1
"""How many random numbers choose one permutation."""

# The finalizer of SplitMix64 (Steele, Lea and Flood, 2014; constants by Stafford).
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def permute(
    position: NDArray[np.uint64],
    count: NDArray[np.uint64],
    keys: NDArray[np.uint64],
    tweak: NDArray[np.uint64],
) -> NDArray[np.uint64]:
    """Say which item stands at each position.

    For one `count` and one `tweak`, the positions ``0 ... count - 1`` map one to one onto the
    items ``0 ... count - 1``. Time and memory depend on the number of positions asked for, not on
    `count`.

    Parameters
    ----------
    position
        Positions, (n,), each below its `count`.
    count
        Number of items that each position is one of, (n,), from 1 to 2^63.
    keys
        Random numbers, (`KEYS`,).
    tweak
        Number of the permutation that each position belongs to, (n,): the same keys give an
        independent permutation for each number.

    Returns
    -------
    Items, (n,).
    """
    # The domain is a square just above `count`, not the next power of four: a position that falls
    # outside and has to be sent round again is then one in many, instead of up to three in four.
    side = _square_side(count)
    own = mix(tweak + np.uint64(1))
    item = _network(position, side, keys[:-1], own)
    # Cycle walking (Black and Rogaway, 2002): a position comes back below `count`, since the cycle
    # that it lies on holds one that is, itself.
    outside = np.flatnonzero(item >= count)
    while outside.size:
        item[outside] = _network(item[outside], side[outside], keys[:-1], own[outside])
        outside = outside[item[outside] >= count[outside]]
    # Over one square all networks are even permutations, or all odd: half of the orders would be
    # missing. Exchanging items 0 and 1 in every other permutation brings them back.
    odd = mix(own ^ keys[-1]) & np.uint64(1)
    return np.where((item < np.uint64(2)) & (count > np.uint64(1)), item ^ odd, item)


def _network(
    value: NDArray[np.uint64],
    side: NDArray[np.uint64],
    keys: NDArray[np.uint64],
    own: NDArray[np.uint64],
) -> NDArray[np.uint64]:
    left, right = np.divmod(value, side)
    for key in keys:
        # The upper half of the hash, scaled into [0, side): no division, and side fits 32 bits.
        shift = (mix(right + (own ^ key)) >> np.uint64(32)) * side >> np.uint64(32)
        total = left + shift
        # Below zero an unsigned difference is huge: the smaller one is the remainder.
        left, right = right, np.minimum(total, total - side)
    return left * side + right


def _square_side(count: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the smallest integers whose squares are at least `count`."""
    side = np.ceil(np.sqrt(count.astype(np.float64))).astype(np.uint64)
    # A double has 53 bits: near the square of a large integer the root is off by one.
    side -= ((side - np.uint64(1)) ** 2 >= count).astype(np.uint64)
    side += (side**2 < count).astype(np.uint64)
    return side


def mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scatter 64-bit integers: every bit of the result depends on every bit of the input."""
    value = (value ^ (value >> np.uint64(30))) * _FIRST
    value = (value ^ (value >> np.uint64(27))) * _SECOND
    return value ^ (value >> np.uint64(31))
