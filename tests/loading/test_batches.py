"""How ranks share an epoch: nothing twice, nothing lost, and nobody waits for a batch."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from microtome.errors import InvalidInputError, OutOfRangeError
from microtome.loading import BatchPlan


def spans(plan):
    return [plan.span(step) for step in range(len(plan))]


def ranks(count, batch_size, world_size, *, drop_last=False):
    return [BatchPlan(count, batch_size, rank, world_size, drop_last) for rank in range(world_size)]


@given(st.integers(1, 400), st.integers(1, 20), st.integers(1, 7))
def test_every_position_is_read_once_by_one_rank_in_equally_many_batches(count, size, world):
    left = count % (size * world)
    assume(not 0 < left < world or (size > 1 and count > size * world))
    plans = ranks(count, size, world)
    read = [p for plan in plans for start, stop in spans(plan) for p in range(start, stop)]
    assert sorted(read) == list(range(count))
    assert len({len(plan) for plan in plans}) == 1
    assert all(1 <= stop - start <= size for plan in plans for start, stop in spans(plan))


@given(st.integers(1, 400), st.integers(1, 20), st.integers(1, 7))
def test_with_drop_last_all_batches_are_whole(count, size, world):
    assume(count >= size * world)
    plans = ranks(count, size, world, drop_last=True)
    read = [p for plan in plans for start, stop in spans(plan) for p in range(start, stop)]
    assert sorted(read) == list(range(count - count % (size * world)))
    assert all(stop - start == size for plan in plans for start, stop in spans(plan))
    assert len({len(plan) for plan in plans}) == 1


@given(st.integers(1, 400), st.integers(1, 20))
def test_alone_batches_are_cut_as_everywhere(count, size):
    expected = [(start, min(start + size, count)) for start in range(0, count, size)]
    assert spans(BatchPlan(count, size)) == expected


def test_ranks_see_what_one_rank_with_larger_batches_would():
    alone = spans(BatchPlan(96, 12))
    shared = [spans(plan) for plan in ranks(96, 4, 3)]
    for step, (start, stop) in enumerate(alone):
        assert [rank[step] for rank in shared] == [(p, p + 4) for p in range(start, stop, 4)]


def test_what_is_left_over_is_shared_evenly():
    # 2 ranks, batches of 4: 16 positions in whole steps, 3 left over.
    one, two = (spans(plan) for plan in ranks(19, 4, 2))
    assert one == [(0, 4), (8, 12), (16, 17)]
    assert two == [(4, 8), (12, 16), (17, 19)]


def test_fewer_left_over_than_ranks_share_the_last_step_too():
    # 3 ranks, batches of 4: one position after 12 + 12; the last 13 become two steps.
    plans = [spans(plan) for plan in ranks(25, 4, 3)]
    assert [plan[0] for plan in plans] == [(0, 4), (4, 8), (8, 12)]
    assert [plan[1] for plan in plans] == [(12, 14), (14, 16), (16, 18)]
    assert [plan[2] for plan in plans] == [(18, 20), (20, 22), (22, 25)]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((0, 4), "no tiles"),
        ((5, 0), "batch_size must be at least 1"),
        ((5, 2, 2, 2), "rank must be from 0"),
        ((5, 2, -1, 2), "rank must be from 0"),
        ((5, 2, 0, 0), "rank must be from 0"),
        ((2, 4, 0, 3), "use at most 2 ranks"),
        ((5, 1, 0, 2), "a batch_size of 2 or more"),
        ((7, 4, 0, 2, True), "drops them all"),
    ],
)
def test_what_cannot_be_shared_is_refused(arguments, named):
    with pytest.raises(InvalidInputError, match=named):
        BatchPlan(*arguments)


@pytest.mark.parametrize("step", [-1, 3])
def test_a_step_that_is_not_there_is_refused(step):
    with pytest.raises(OutOfRangeError, match="an epoch has 3"):
        BatchPlan(10, 4).span(step)
