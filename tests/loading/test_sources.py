"""What a source may give: one batch, an input with its target, other tiles in every epoch."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from microtome.errors import FormatError, InvalidInputError
from microtome.loading import EpochTileSource, TileLoader, TileSource


class Pair(NamedTuple):
    input: Any
    target: Any


class PairSource:
    """Tiles of one source with those of another as their targets."""

    def __init__(self, one, other, make=Pair):
        self.one, self.other, self.make = one, other, make

    def __len__(self):
        return len(self.one)

    def read_batch(self, rows):
        return self.make(self.one.read_batch(rows), self.other.read_batch(rows))


class RollingSource:
    """Shows in every epoch the row that is `epoch` further on."""

    takes_epoch = True

    def __init__(self, source):
        self.source, self.told = source, []

    def __len__(self):
        return len(self.source)

    def read_batch(self, rows, *, epoch):
        self.told.append(epoch)
        return self.source.read_batch((rows + epoch) % len(self.source))


@pytest.mark.parametrize("prefetch", [0, 3])
def test_input_and_target_come_together(source_of, prefetch):
    one, other = source_of(20, (2, 3, 4)), source_of(20, (1, 3, 4))
    seen = []
    for batch in TileLoader(PairSource(one, other), 6, seed=3, prefetch=prefetch):
        assert isinstance(batch, Pair)
        assert isinstance(batch.input.data, torch.Tensor)
        rows = batch.input.region_spec["data_idx"]
        assert np.array_equal(batch.target.region_spec["data_idx"], rows)
        assert np.array_equal(batch.input.data.numpy(), one.pixels[rows])
        assert np.array_equal(batch.target.data.numpy(), other.pixels[rows])
        seen += rows.tolist()
    assert sorted(seen) == list(range(20))


def test_a_plain_tuple_stays_one(source_of):
    source = PairSource(source_of(6), source_of(6), make=lambda *parts: parts)
    loader = TileLoader(source, 4, as_torch=False)
    assert [type(batch) for batch in loader] == [tuple, tuple]
    assert loader.stats().tiles == 6


def test_both_go_to_the_device(source_of):
    (batch,) = TileLoader(PairSource(source_of(4), source_of(4)), 4, device="meta")
    assert [part.data.device.type for part in batch] == ["meta", "meta"]


def test_a_target_of_another_length_is_found_out(source_of):
    source = PairSource(source_of(9), source_of(9))
    whole = source.other.read_batch
    source.other.read_batch = lambda rows: whole(rows[1:])
    with pytest.raises(InvalidInputError, match="gave 2 tiles for 3 rows"):
        next(iter(TileLoader(source, 3)))


@pytest.mark.parametrize(
    "make",
    [lambda one, other: [one, other], lambda one, other: (one, 7)],
    ids=["list", "number"],
)
def test_what_is_no_batch_is_refused(source_of, make):
    source = PairSource(source_of(9), source_of(9), make)
    with pytest.raises(InvalidInputError, match=r"gave (list|tuple); a batch is one Image.*rows"):
        next(iter(TileLoader(source, 3)))


@pytest.mark.parametrize("prefetch", [0, 3])
def test_a_source_is_told_the_epoch_of_the_order(source_of, prefetch):
    source = RollingSource(source_of(12))
    loader = TileLoader(source, 5, order="sequential", epoch=4, prefetch=prefetch)
    rows = np.concatenate([b.region_spec["data_idx"] for b in loader])
    assert rows.tolist() == [*range(4, 12), *range(4)]
    loader.set_epoch(1)
    rows = np.concatenate([b.region_spec["data_idx"] for b in loader])
    assert rows.tolist() == [*range(1, 12), 0]
    assert set(source.told) == {4, 1}


def test_an_iteration_under_way_keeps_its_epoch(source_of):
    source = RollingSource(source_of(40))
    loader = TileLoader(source, 4, prefetch=2)
    batches = iter(loader)
    next(batches)
    loader.set_epoch(9)
    assert len(list(batches)) == 9
    assert set(source.told) == {0}


def test_an_epoch_goes_on_in_the_epoch_that_it_was_left_in(source_of):
    source = RollingSource(source_of(23))
    loader = TileLoader(source, 4, seed=2, epoch=3)
    whole = [b.region_spec["data_idx"].tolist() for b in loader]
    for stop in range(1, len(whole)):
        batches = iter(loader)
        before = [next(batches).region_spec["data_idx"].tolist() for _ in range(stop)]
        state = loader.state_dict()
        batches.close()
        resumed = TileLoader(source, 4)
        resumed.load_state_dict(state)
        assert before + [b.region_spec["data_idx"].tolist() for b in resumed] == whole


def test_protocols_tell_which_source_is_which(source_of):
    plain = source_of(3)
    assert isinstance(plain, TileSource)
    assert not isinstance(plain, EpochTileSource)
    assert isinstance(RollingSource(plain), EpochTileSource)


def test_an_error_in_a_pair_names_its_rows(source_of):
    source = PairSource(source_of(9), source_of(9))

    def damaged(rows):
        raise FormatError("chunk (0, 1) is damaged")

    source.other.read_batch = damaged
    with pytest.raises(FormatError, match=r"chunk \(0, 1\) is damaged \(batch 0 .* rows 0, 1, 2\)"):
        next(iter(TileLoader(source, 3, order="sequential")))
