"""The order of an epoch: a permutation, computed anywhere, and no different from a shuffle."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise, permutations
from math import isqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from microtome.errors import InvalidInputError, OutOfRangeError
from microtome.loading import TileOrder
from microtome.sampling import KEYS, permute

COUNTS = st.integers(0, 700)
ORDERS = st.builds(
    TileOrder,
    count=COUNTS,
    kind=st.sampled_from(["sequential", "random", "blocked"]),
    seed=st.integers(0, 2**64 - 1),
    epoch=st.integers(0, 2**32 - 1),
    block=st.integers(1, 60),
    group=st.integers(1, 9),
)
# Small enough that a fair shuffle fails one test in a thousand; the seeds are fixed, so none does.
CHANCE = 1e-3


def whole(order):
    return order.rows(0, order.count)


@given(ORDERS)
def test_an_epoch_visits_every_row_once(order):
    assert np.array_equal(np.sort(whole(order)), np.arange(order.count))


@given(ORDERS, st.data())
def test_a_stretch_is_that_part_of_the_epoch(order, data):
    stop = data.draw(st.integers(0, order.count))
    start = data.draw(st.integers(0, stop))
    assert np.array_equal(order.rows(start, stop), whole(order)[start:stop])


def test_sequential_is_the_table():
    assert whole(TileOrder(9, "sequential", seed=4, epoch=2)).tolist() == list(range(9))


def test_a_hundred_million_rows_are_opened_at_once():
    order = TileOrder(10**8, seed=1)
    ends = np.concatenate([order.rows(0, 500), order.rows(10**8 - 500, 10**8)])
    assert len(np.unique(ends)) == 1000
    assert ends.min() >= 0
    assert ends.max() < 10**8
    # 1000 draws without a bias towards either end, nor towards where they stand.
    assert stats.kstest(ends / 10**8, "uniform").pvalue > CHANCE


# ------------------------------------------------------------------ the permutation, by brute force


def scattered(value):
    mask = 2**64 - 1
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & mask
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & mask
    return value ^ (value >> 31)


def permuted(position, count, keys, tweak):
    """The same definition, one position at a time in integers that cannot overflow."""
    side = isqrt(count - 1) + 1
    own = scattered((tweak + 1) % 2**64)
    while True:
        left, right = divmod(position, side)
        for key in keys[:-1]:
            hashed = scattered((right + (own ^ key)) % 2**64)
            left, right = right, (left + ((hashed >> 32) * side >> 32)) % side
        position = left * side + right
        if position < count:
            break
    swap = scattered(own ^ keys[-1]) & 1
    return position ^ swap if position < 2 <= count else position


@given(
    count=st.one_of(st.integers(1, 40), st.integers(2**40, 2**63), st.sampled_from([2**62, 2**63])),
    keys=st.lists(st.integers(0, 2**64 - 1), min_size=KEYS, max_size=KEYS),
    tweak=st.integers(0, 2**63),
    data=st.data(),
)
def test_the_permutation_is_the_one_that_is_defined(count, keys, tweak, data):
    positions = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=5))
    found = permute(
        np.array(positions, np.uint64),
        np.full(len(positions), count, np.uint64),
        np.array(keys, np.uint64),
        np.full(len(positions), tweak, np.uint64),
    )
    assert found.tolist() == [permuted(p, count, keys, tweak) for p in positions]


def test_the_streams_of_this_version_are_those_of_every_version():
    # A checkpoint of a training run is worth nothing once these change.
    assert whole(TileOrder(12, seed=0)).tolist() == [4, 6, 7, 2, 1, 11, 10, 0, 5, 3, 9, 8]
    assert whole(TileOrder(12, "blocked", seed=7, epoch=3, block=5, group=2)).tolist() == [
        8,
        11,
        7,
        9,
        5,
        10,
        6,
        3,
        4,
        2,
        0,
        1,
    ]


# ------------------------------------------------------------------ as good as a shuffle


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_all_orders_of_few_rows_are_equally_frequent(count):
    seen = Counter(tuple(whole(TileOrder(count, seed=3, epoch=e)).tolist()) for e in range(3000))
    assert set(seen) <= set(permutations(range(count)))
    frequency = [seen[order] for order in permutations(range(count))]
    assert stats.chisquare(frequency).pvalue > CHANCE


@pytest.mark.parametrize("count", [100, 1009])
def test_every_row_is_as_likely_at_every_place(count):
    epochs = np.array([whole(TileOrder(count, seed=5, epoch=e)) for e in range(400)])
    tenth = np.arange(count) * 10 // count
    table = np.zeros((10, 10))
    np.add.at(table, (np.broadcast_to(tenth, epochs.shape), epochs * 10 // count), 1)
    expected = 400 * np.outer(np.bincount(tenth), np.bincount(tenth)) / count
    # Rows and columns have fixed sums: 9 x 9 of the 100 numbers are free.
    assert stats.chi2.sf(((table - expected) ** 2 / expected).sum(), 81) > CHANCE


def test_what_follows_a_row_says_nothing_about_it():
    row = whole(TileOrder(20_000, seed=11))
    steps = np.diff(row)
    assert abs(np.corrcoef(row[:-1], row[1:])[0, 1]) < 4 / np.sqrt(row.size)
    # Rising and falling equally often; the variance of rises in a shuffle is (n + 1) / 12.
    assert abs((steps > 0).sum() - steps.size / 2) < 4 * np.sqrt((row.size + 1) / 12)
    # One pair of neighbours stays together on average: a Poisson number of them.
    assert (steps == 1).sum() < 8


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"epoch": 1}, {"seed": 2**32}, {"seed": 2**63}, {"epoch": 2**31}]
)
@pytest.mark.parametrize("kind", ["random", "blocked"])
def test_seeds_and_epochs_have_nothing_in_common(kind, other):
    shape = {"kind": kind, "block": 5, "group": 4}
    one, two = whole(TileOrder(5000, **shape)), whole(TileOrder(5000, **shape, **other))
    assert (one == two).sum() < 10
    # Blocks travel together: as many independent numbers as there are groups of them.
    independent = 5000 if kind == "random" else 5000 / (5 * 4)
    assert abs(np.corrcoef(one, two)[0, 1]) < 4 / np.sqrt(independent)


def test_a_large_seed_is_not_another_seed_at_another_epoch():
    # Seed and epoch as two words of one entropy would be the same three words here.
    one, two = TileOrder(100, seed=5, epoch=1), TileOrder(100, seed=5 + 2**32, epoch=0)
    assert not np.array_equal(whole(one), whole(two))


# ------------------------------------------------------------------ blocks


@given(
    count=st.integers(1, 700),
    block=st.integers(1, 60),
    group=st.integers(1, 9),
    seed=st.integers(0, 10**6),
)
def test_a_group_is_some_whole_blocks_and_nothing_else(count, block, group, seed):
    rows = whole(TileOrder(count, "blocked", seed=seed, block=block, group=group))
    blocks, at = -(-count // block), 0
    lengths = {b: min(block, count - b * block) for b in range(blocks)}
    seen = []
    while at < count:
        # The blocks are found as they appear, and their lengths say where the group ends.
        left = min(group, blocks - len(seen))
        members = list(dict.fromkeys((rows[at:] // block).tolist()))[:left]
        size = sum(lengths[b] for b in members)
        assert sorted(set((rows[at : at + size] // block).tolist())) == sorted(members)
        seen += members
        at += size
    assert sorted(seen) == list(range(blocks))


def test_the_blocks_of_an_epoch_come_in_any_order_the_short_one_too():
    # Ten full blocks of 4 and one of 2; one block a group, so that each can be seen.
    first = Counter()
    for epoch in range(1100):
        rows = whole(TileOrder(42, "blocked", epoch=epoch, block=4, group=1))
        first[int(rows[0]) // 4] += 1
    assert stats.chisquare([first[b] for b in range(11)]).pvalue > CHANCE


def test_rows_of_a_group_are_mixed():
    rows = whole(TileOrder(6400, "blocked", seed=1, block=32, group=10)).reshape(20, 320)
    for group in rows:
        visited = group // 32
        # Of 319 neighbours, 31 in 319 are of one block in a shuffle.
        assert 10 < sum(a == b for a, b in pairwise(visited)) < 60
    # Groups are not shuffled alike.
    places = np.argsort(rows, axis=1)
    assert len({tuple(p) for p in places.tolist()}) == 20


# ------------------------------------------------------------------ the border


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"count": -1}, "count must be at least 0"),
        ({"count": 5, "kind": "shuffled"}, "'sequential', 'random', 'blocked'"),
        ({"count": 5, "seed": -1}, "seed must be from 0"),
        ({"count": 5, "seed": 2**64}, "seed must be from 0"),
        ({"count": 5, "epoch": -1}, "epoch must be from 0"),
        ({"count": 5, "block": 0}, "block must be at least 1"),
        ({"count": 5, "group": 0}, "group must be at least 1"),
    ],
)
def test_what_is_no_order_is_refused(arguments, named):
    with pytest.raises(InvalidInputError, match=named):
        TileOrder(**arguments)


@pytest.mark.parametrize("span", [(-1, 2), (0, 11), (5, 4)])
def test_positions_outside_an_epoch_are_refused(span):
    with pytest.raises(OutOfRangeError, match="10 of an epoch"):
        TileOrder(10).rows(*span)


def test_orders_of_one_description_are_equal():
    assert TileOrder(10, seed=3) == TileOrder(10, seed=3)
    assert TileOrder(10, seed=3) != TileOrder(10, seed=3).at_epoch(1)
    assert TileOrder(10, seed=3).at_epoch(1).at_epoch(0) == TileOrder(10, seed=3)
    assert hash(TileOrder(10, seed=3)) == hash(TileOrder(10, seed=3))
