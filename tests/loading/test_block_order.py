"""Blocks of the storage: every row once, each block's rows together, near enough to uniform."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.errors import InvalidInputError, OutOfRangeError
from microtome.loading import BlockOrder, StorageSource, TileLoader
from microtome.loading._batches import SharedPlan

numbers = st.lists(st.integers(-3, 12), min_size=1, max_size=120)


@given(numbers, st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(1, 200))
def test_every_row_comes_once_and_any_stretch_is_a_part_of_the_whole(blocks, seed, epoch, mixed):
    order = BlockOrder(blocks, seed, epoch, mixed)
    whole = order.rows(0, len(blocks))
    assert sorted(whole.tolist()) == list(range(len(blocks)))
    assert order.count == order.over == len(blocks)
    cut = len(blocks) // 3
    assert np.array_equal(order.rows(cut, len(blocks) - cut), whole[cut : len(blocks) - cut])


@given(numbers, st.integers(0, 1000), st.integers(1, 60))
def test_the_rows_of_a_block_lie_in_one_stretch_that_is_mixed(blocks, seed, mixed):
    # A block begins in a stretch of `mixed` positions, and its rows lie between the first block
    # that begins there and the last: that is what bounds how much has to be at hand.
    blocks = np.asarray(blocks)
    largest = int(np.unique(blocks, return_counts=True)[1].max())
    whole = blocks[BlockOrder(blocks, seed, mixed=mixed).rows(0, blocks.size)]
    for number in np.unique(blocks):
        places = np.flatnonzero(whole == number)
        assert places[-1] - places[0] < mixed + largest


def test_seeds_and_epochs_give_orders_of_their_own():
    blocks = np.arange(400) // 5
    order = BlockOrder(blocks, seed=1, mixed=50)
    rows = {
        (seed, epoch): tuple(order.at(seed, epoch).rows(0, 400).tolist())
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(set(rows.values())) == 9
    assert rows[1, 2] == tuple(BlockOrder(blocks, 1, 2, 50).rows(0, 400).tolist())
    assert rows[1, 2] == tuple(order.at_epoch(2).rows(0, 400).tolist())


def test_every_block_may_come_first_and_every_row_of_it():
    blocks = np.repeat(np.arange(6), 4)
    first = [int(BlockOrder(blocks, seed, mixed=8).rows(0, 1)[0]) for seed in range(3000)]
    counts = np.bincount(first, minlength=24)
    # 24 rows in 3000 draws: 125 each, and 5 standard deviations of a binomial are 55.
    assert counts.min() > 70
    assert counts.max() < 180


def test_batches_are_of_many_slides():
    # 20 slides of 30 blocks of 16 tiles: how many tiles of a batch of 64 share another's slide.
    slide = np.repeat(np.arange(20), 480)
    blocks = np.arange(slide.size) // 16
    rows = BlockOrder(blocks, seed=3, mixed=1024).rows(0, slide.size)
    batches = slide[rows[: rows.size // 64 * 64]].reshape(-1, 64)
    share = np.mean([(np.bincount(batch) ** 2).sum() / 64**2 for batch in batches])
    uniform = 1 / 20 + (1 - 1 / 20) / 64
    assert share < uniform * 1.35
    by_row = np.mean([len(np.unique(batch)) for batch in batches])
    assert by_row > 17


class StoredSource:
    """Tiles of a source that says where they are stored."""

    def __init__(self, source, blocks, size):
        self.source, self.blocks, self.tile_bytes = source, np.asarray(blocks), size
        self.reads = []

    def __len__(self):
        return len(self.source)

    def storage_blocks(self, rows):
        return self.blocks[rows]

    def read_batch(self, rows):
        self.reads.append(len(rows))
        return self.source.read_batch(rows)


def stored(source_of, count=96, size=16 << 20):
    return StoredSource(source_of(count), np.arange(count) // 6, size)


@pytest.mark.parametrize("prefetch", [0, 3])
def test_what_is_mixed_is_read_at_once(source_of, prefetch):
    source = stored(source_of)
    assert isinstance(source, StorageSource)
    # 256 MiB hold 16 tiles: four batches, of which the first comes alone.
    loader = TileLoader(source, 4, order="blocked", seed=2, prefetch=prefetch)
    expected = BlockOrder(source.blocks, 2, mixed=16)
    batches = list(loader)
    assert [b.region_spec["data_idx"].tolist() for b in batches] == [
        expected.rows(i, i + 4).tolist() for i in range(0, 96, 4)
    ]
    assert sorted(source.reads, reverse=True) == [16] * 5 + [12, 4]
    for batch in batches:
        rows = batch.region_spec["data_idx"]
        assert np.array_equal(batch.data.numpy(), source.source.pixels[rows])
        assert batch.data_shape[1:] == [(2,) * 4, (3,) * 4, (4,) * 4]
        assert batch.source == ["array"] * 4
        assert batch.additional_metadata == [{"tile_id": int(row)} for row in rows]


def test_a_resumed_epoch_reads_the_rest_of_what_is_mixed(source_of):
    whole = list(TileLoader(stored(source_of), 4, order="blocked"))
    for stop in range(1, len(whole)):
        loader = TileLoader(stored(source_of), 4, order="blocked")
        batches = iter(loader)
        for _ in range(stop):
            next(batches)
        batches.close()
        resumed = TileLoader(stored(source_of), 4, order="blocked")
        resumed.load_state_dict(loader.state_dict())
        rest = [b.region_spec["data_idx"].tolist() for b in resumed]
        assert rest == [b.region_spec["data_idx"].tolist() for b in whole[stop:]]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (([0.5],), "blocks must be integers"),
        (([[1]],), "blocks must be integers"),
        (([1], -1), "seed must be"),
        (([1], 0, 2**32), "epoch must be"),
        (([1], 0, 0, 0), "mixed must be"),
    ],
)
def test_what_is_no_order_is_refused(arguments, named):
    with pytest.raises(InvalidInputError, match=named):
        BlockOrder(*arguments)


def test_positions_outside_the_epoch_are_refused():
    with pytest.raises(OutOfRangeError, match="not among the 3"):
        BlockOrder([1, 2, 3]).rows(2, 4)
    with pytest.raises(InvalidInputError, match="epoch must be"):
        BlockOrder([1, 2, 3]).at_epoch(-1)


# ------------------------------------------------------------------ shared by ranks


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=60),
    world_size=st.integers(2, 5),
    batch_size=st.integers(2, 9),
    mixed=st.integers(1, 40),
    epoch=st.integers(0, 3),
    drop_last=st.booleans(),
)
def test_ranks_read_every_row_once_in_equally_many_batches(
    sizes, world_size, batch_size, mixed, epoch, drop_last
):
    blocks = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    order = BlockOrder(blocks, 5, epoch, mixed, world_size)
    count, largest = len(blocks), max(sizes)
    least, most = order.share_sizes
    try:
        plans = [
            SharedPlan(count, (least, most), batch_size, rank, world_size, drop_last)
            for rank in range(world_size)
        ]
    except InvalidInputError:
        # Only of few tiles: fewer than one batch, or one tile, for a rank.
        assert least < max(batch_size, -(-most // batch_size))
        return
    seen = []
    for rank, plan in enumerate(plans):
        share = order.share(rank)
        assert least <= share[1] - share[0] <= most
        spans = [plan.span(step, share) for step in range(len(plan))]
        assert spans[0][0] == share[0]
        assert all(a[1] == b[0] for a, b in pairwise(spans))
        lengths = {b - a for a, b in spans}
        assert min(lengths) >= 1
        assert max(lengths) <= batch_size
        if drop_last:
            assert lengths == {batch_size}
        else:
            assert spans[-1][1] == share[1]
        seen.append(np.concatenate([order.rows(a, b) for a, b in spans]))
    rows = np.concatenate(seen)
    assert len(np.unique(rows)) == len(rows)
    if not drop_last:
        assert sorted(rows.tolist()) == list(range(count))
    owners = [set(blocks[own].tolist()) for own in seen]
    shared = sum(len(a & b) for i, a in enumerate(owners) for b in owners[:i])
    if 8 * largest <= count // world_size:
        assert shared == 0
    elif all(size <= count // world_size for size in sizes):
        assert shared <= world_size - 1


def test_one_share_is_the_order_itself():
    blocks = np.arange(200) // 7
    alone, one = (
        BlockOrder(blocks, 3, mixed=30),
        BlockOrder(blocks, 3, mixed=30, shares=4).shared(1),
    )
    assert one.rows(0, 200).tolist() == alone.rows(0, 200).tolist()
    assert one.rule == alone.rule
    # As it was before there were shares: what somebody trained with can be trained again.
    assert alone.rows(0, 8).tolist() == [110, 30, 126, 34, 163, 33, 108, 31]


@pytest.mark.parametrize("world_size", [2, 3])
def test_a_block_is_read_by_one_rank_and_each_epoch_deals_anew(source_of, world_size):
    def loader(rank, **options):
        return TileLoader(
            stored(source_of, 300, 4 << 20),
            8,
            order="blocked",
            seed=1,
            rank=rank,
            world_size=world_size,
            **options,
        )

    dealt = []
    for epoch in (0, 1):
        owner = {}
        for rank in range(world_size):
            for batch in loader(rank, epoch=epoch):
                for row in batch.region_spec["data_idx"]:
                    assert owner.setdefault(row // 6, rank) == rank
        assert sorted(owner) == list(range(50))
        dealt.append(owner)
    assert dealt[0] != dealt[1]
    whole = [b.region_spec["data_idx"].tolist() for b in loader(1)]
    for stop in range(1, len(whole)):
        first, second = loader(1), loader(1)
        batches = iter(first)
        for _ in range(stop):
            next(batches)
        second.load_state_dict(first.state_dict())
        batches.close()
        assert [b.region_spec["data_idx"].tolist() for b in second] == whole[stop:]
        with pytest.raises(InvalidInputError, match=r"world_size|rule"):
            TileLoader(stored(source_of, 300, 4 << 20), 8, order="blocked").load_state_dict(
                first.state_dict()
            )


def test_ranks_that_blocks_cannot_be_dealt_to_are_refused(source_of):
    with pytest.raises(InvalidInputError, match="cannot be shared by 9 ranks"):
        TileLoader(stored(source_of, 8), 4, order="blocked", world_size=9)
    with pytest.raises(InvalidInputError, match="rank must be"):
        TileLoader(stored(source_of, 96), 4, order="blocked", rank=2, world_size=2)
    with pytest.raises(InvalidInputError, match="shares must be"):
        BlockOrder([0, 1]).shared(0)
    with pytest.raises(OutOfRangeError, match="no rank 2"):
        BlockOrder([0, 1, 2, 3], shares=2).share(2)
    plan = SharedPlan(10, (5, 5), 2, 0, 2)
    with pytest.raises(OutOfRangeError, match="no batch 3"):
        plan.span(3, (0, 5))
