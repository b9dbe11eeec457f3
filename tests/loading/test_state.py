"""Resuming: the next batch is the next batch, whatever was read ahead."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest

from microtome.errors import InvalidInputError
from microtome.loading import BlockOrder, DrawnOrder, TileLoader, TileOrder, WeightedOrder


def rows_of(batches):
    return [batch.region_spec["data_idx"].tolist() for batch in batches]


@pytest.mark.parametrize("kind", ["sequential", "random", "blocked"])
@pytest.mark.parametrize("prefetch", [0, 3])
def test_an_epoch_goes_on_at_every_batch(source_of, kind, prefetch):
    order = TileOrder(37, kind, seed=5, epoch=4, block=3, group=2)
    whole = rows_of(TileLoader(source_of(37), 5, order=order))
    for stop in range(len(whole) + 1):
        stopped = TileLoader(source_of(37), 5, order=order, prefetch=prefetch)
        batches = iter(stopped)
        before = rows_of(next(batches) for _ in range(stop))
        state = json.loads(json.dumps(stopped.state_dict()))
        batches.close()
        # Seed and epoch come from the state.
        resumed = TileLoader(
            source_of(37), 5, order=TileOrder(37, kind, block=3, group=2), prefetch=prefetch
        )
        resumed.load_state_dict(state)
        assert resumed.state_dict() == state
        assert before + rows_of(resumed) == whole
        # Once is enough: the next iteration is an epoch again.
        assert rows_of(resumed) == whole


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_one_state_serves_all_ranks(source_of, rank):
    ranks = [TileLoader(source_of(50), 4, seed=1, rank=r, world_size=3) for r in range(3)]
    iterators = [iter(loader) for loader in ranks]
    for batches in iterators:
        next(batches), next(batches)
    assert ranks[0].state_dict() == ranks[1].state_dict() == ranks[2].state_dict()
    resumed = TileLoader(source_of(50), 4, rank=rank, world_size=3)
    resumed.load_state_dict(ranks[0].state_dict())
    assert rows_of(resumed) == rows_of(iterators[rank])
    for batches in iterators:
        batches.close()


def test_a_training_loop_that_sets_the_epoch_resumes_in_it(source_of):
    def train(loader, first, stop_at=None):
        seen = []
        for epoch in range(first, 3):
            loader.set_epoch(epoch)
            for batch in loader:
                seen.append((epoch, *batch.region_spec["data_idx"].tolist()))
                if len(seen) == stop_at:
                    return seen
        return seen

    whole = train(TileLoader(source_of(20), 6, seed=2), 0)
    for stop_at in range(1, len(whole)):
        stopped = TileLoader(source_of(20), 6, seed=2)
        before = train(stopped, 0, stop_at)
        resumed = TileLoader(source_of(20), 6, seed=2)
        resumed.load_state_dict(stopped.state_dict())
        assert before + train(resumed, resumed.epoch) == whole


def test_setting_the_epoch_starts_it(source_of):
    loader = TileLoader(source_of(20), 6)
    next(iter(loader))
    assert (loader.state_dict()["epoch"], loader.state_dict()["batch"]) == (0, 1)
    loader.set_epoch(5)
    assert (loader.state_dict()["epoch"], loader.state_dict()["batch"]) == (5, 0)


def test_an_iteration_under_way_is_not_disturbed(source_of):
    loader = TileLoader(source_of(20), 6, seed=1)
    whole = rows_of(loader)
    batches = iter(loader)
    seen = rows_of([next(batches)])
    loader.set_epoch(3)
    seen += rows_of([next(batches)])
    # What the state names is what was handed out last.
    state = loader.state_dict()
    assert (state["epoch"], state["batch"]) == (0, 2)
    assert seen + rows_of(batches) == whole


def test_between_epochs_ranks_and_batches_may_change(source_of):
    loader = TileLoader(source_of(20), 6, seed=4, epoch=1)
    list(loader)
    resumed = TileLoader(source_of(20), 5, order="blocked", rank=1, world_size=2)
    resumed.load_state_dict(loader.state_dict())
    assert list(resumed) == []  # that epoch is over
    resumed.set_epoch(2)
    expected = TileLoader(source_of(20), 5, order="blocked", seed=4, epoch=2, rank=1, world_size=2)
    assert rows_of(resumed) == rows_of(expected)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"batch_size": 5}, "batch_size 6, this loader has 5"),
        ({"order": "sequential"}, "order 'random', this loader has 'sequential'"),
        ({"world_size": 2}, "world_size 1, this loader has 2"),
        ({"drop_last": True}, "drop_last False, this loader has True"),
        ({"order": BlockOrder(np.arange(20) // 3)}, "order 'random', this loader has 'blocked'"),
        ({"order": DrawnOrder.by(np.arange(20), alpha=1)}, "this loader has 'drawn'"),
    ],
)
def test_inside_an_epoch_they_may_not(source_of, other, named):
    loader = TileLoader(source_of(20), 6)
    next(iter(loader))
    resumed = TileLoader(source_of(20), **{"batch_size": 6, **other})
    with pytest.raises(InvalidInputError, match=named):
        resumed.load_state_dict(loader.state_dict())


@pytest.mark.parametrize(
    ("one", "other", "named"),
    [
        (TileOrder(20, "blocked"), TileOrder(20, "blocked", block=7), "'block=7, group=16'"),
        (TileOrder(20, "blocked"), TileOrder(20, "blocked", group=7), "'block=32, group=7'"),
        (BlockOrder(np.arange(20)), BlockOrder(np.arange(20), mixed=5), "mixed=5"),
        (BlockOrder(np.arange(20)), BlockOrder(np.arange(20)[::-1]), "rule"),
        (DrawnOrder.by([0, 1] * 10), DrawnOrder.by([0, 1] * 10, replacement=True), "rule"),
        (DrawnOrder.by([0, 1] * 10), DrawnOrder.by([0] * 10 + [1] * 10), "rule"),
        (WeightedOrder([1] * 20), WeightedOrder([1] * 19 + [2]), "rule"),
    ],
    ids=["block", "group", "mixed", "places", "replacement", "column", "weights"],
)
def test_inside_an_epoch_the_rule_of_the_order_is_the_same(source_of, one, other, named):
    loader = TileLoader(source_of(20), 6, order=one)
    next(iter(loader))
    TileLoader(source_of(20), 6, order=one.at(5, 0)).load_state_dict(loader.state_dict())
    with pytest.raises(InvalidInputError, match=named):
        TileLoader(source_of(20), 6, order=other).load_state_dict(loader.state_dict())


def test_inside_an_epoch_the_tiles_are_the_same(source_of):
    loader = TileLoader(source_of(20), 6)
    next(iter(loader))
    with pytest.raises(InvalidInputError, match="count 20, this loader has 21"):
        TileLoader(source_of(21), 6).load_state_dict(loader.state_dict())


@pytest.mark.parametrize(
    "wrong",
    [{"version": 1}, {"seed": None}, {"batch": "3"}, {"batch": -1}, {"batch": 99}, {"epoch": -1}],
)
def test_what_is_no_state_is_refused(source_of, wrong):
    loader = TileLoader(source_of(20), 6, seed=8)
    state = {**loader.state_dict(), **wrong}
    other = TileLoader(source_of(20), 6, seed=1)
    before = other.state_dict()
    with pytest.raises(InvalidInputError, match=r"state|epoch must be"):
        other.load_state_dict(state)
    assert other.state_dict() == before


def fingerprinted(source, text):
    source.rows_fingerprint = text
    return source


def stopped_state(source, batches=2):
    loader = TileLoader(source, 5, seed=3, prefetch=0)
    iterator = iter(loader)
    for _ in range(batches):
        next(iterator)
    return loader.state_dict()


def test_the_state_of_another_table_of_as_many_tiles_is_refused(source_of):
    state = stopped_state(fingerprinted(source_of(37), "one"))
    same = TileLoader(fingerprinted(source_of(37), "one"), 5)
    same.load_state_dict(json.loads(json.dumps(state)))
    other = TileLoader(fingerprinted(source_of(37), "two"), 5)
    with pytest.raises(InvalidInputError, match=r"batch 2 of 8 over other tiles.*one, here two"):
        other.load_state_dict(state)
    # Between epochs other tiles are fine.
    other.load_state_dict(state | {"batch": 8})
    other.load_state_dict(state | {"batch": 0})


def test_a_source_that_does_not_tell_and_a_state_of_before_are_taken_at_their_word(source_of):
    state = stopped_state(fingerprinted(source_of(37), "one"))
    TileLoader(source_of(37), 5).load_state_dict(state)
    del state["tiles"]
    TileLoader(fingerprinted(source_of(37), "two"), 5).load_state_dict(state)
    assert stopped_state(source_of(37))["tiles"] == ""


class Standardized:
    """A source that says how its pixels are standardized, or does not."""

    def __init__(self, source, **told):
        self.read_batch, self.count = source.read_batch, len(source)
        vars(self).update(told)

    def __len__(self):
        return self.count


def stopped_at(loader, batches):
    iterator = iter(loader)
    for _ in range(batches):
        next(iterator)
    state = loader.state_dict()
    iterator.close()
    return state


@pytest.mark.parametrize("name", ["standardization", "standardizer"])
def test_an_epoch_does_not_go_on_with_pixels_that_are_standardized_otherwise(source_of, name):
    source = source_of(20)
    ours = Standardized(source, **{name: "zscore"})
    others = Standardized(source, **{name: "minmax/image"})
    state = stopped_at(TileLoader(ours, 6), 2)
    assert state["standardization"] == "zscore"
    with pytest.raises(InvalidInputError, match=r"standardized by zscore.*are by minmax/image"):
        TileLoader(others, 6).load_state_dict(state)
    whole = rows_of(TileLoader(source, 6))
    # Who does not say is taken at their word, as are states of before.
    del state["standardization"]
    for loader in (TileLoader(others, 6), TileLoader(Standardized(source), 6)):
        loader.load_state_dict(state)
        assert rows_of(loader) == whole[2:]
    # Between epochs everything may change.
    loader = TileLoader(others, 6)
    loader.load_state_dict(stopped_at(TileLoader(ours, 6), 4))
    assert rows_of(loader) == []


@pytest.mark.parametrize(
    ("ours", "others"),
    [
        ({"channels": ["a", "b"]}, {"channels": ["a"]}),
        ({"channels": ["a", "b"]}, {"channels": None}),
        ({"channels": [0]}, {"channels": slice(0, 1)}),
        ({"channels": None, "channel_kind": "complete"}, {"channels": None, "channel_kind": "qc"}),
        ({"channels": None, "target_channels": [0]}, {"channels": None, "target_channels": [1]}),
    ],
)
def test_an_epoch_does_not_go_on_with_other_channels(source_of, ours, others):
    source = source_of(20)
    state = json.loads(json.dumps(stopped_at(TileLoader(Standardized(source, **ours), 6), 2)))
    TileLoader(Standardized(source, **ours), 6).load_state_dict(state)
    with pytest.raises(InvalidInputError, match=r"of tiles with chan.*this loader's have chan"):
        TileLoader(Standardized(source, **others), 6).load_state_dict(state)
    # Who says nothing, or calls something else so, and states of before are taken at their word.
    for silent in ({}, {"channels": len}, {"channels": 1.5}):
        loader = TileLoader(Standardized(source, **silent), 6)
        loader.load_state_dict(state)
        assert loader.state_dict()["channels"] == ""
    del state["channels"]
    TileLoader(Standardized(source, **others), 6).load_state_dict(state)


@pytest.mark.parametrize("wrong", [None, [], "state"])
def test_what_is_no_dictionary_is_no_state(source_of, wrong):
    with pytest.raises(InvalidInputError, match="a state is a dictionary, from state_dict"):
        TileLoader(source_of(20), 6).load_state_dict(wrong)


def test_a_seed_that_gives_way_to_that_of_the_state_is_told(source_of, caplog):
    state = stopped_at(TileLoader(source_of(20), 6, seed=3), 1)
    caplog.set_level(logging.WARNING, "microtome")
    for same in (None, 3):
        TileLoader(source_of(20), 6, seed=same).load_state_dict(state)
        assert not caplog.records
    other = TileLoader(source_of(20), 6, seed=4)
    other.load_state_dict(state)
    assert "seed 3 of the state" in caplog.text
    assert "seed=4" in caplog.text
    assert rows_of(other) == rows_of(TileLoader(source_of(20), 6, seed=3))[1:]
