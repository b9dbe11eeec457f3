"""Tiles that cannot be read, on several ranks; and orders that are none."""

from __future__ import annotations

import numpy as np
import pytest

from microtome.errors import InvalidInputError, StorageError
from microtome.loading import TileLoader
from microtome.regions import ImageRegionData


class Damaged:
    """Ninety tiles of one pixel, some of which cannot be read."""

    def __init__(self, bad):
        self.bad = bad

    def __len__(self):
        return 90

    def read_batch(self, rows):
        if self.bad & set(rows.tolist()):
            msg = "a shard is gone"
            raise StorageError(msg)
        data = rows.astype(np.float32).reshape(-1, 1, 1, 1)
        spec = {"coords": np.zeros((len(rows), 2), np.int64)}
        shape = data.shape[1:]
        return ImageRegionData(data, "x", shape, "float32", "CYX", shape, spec, {})


def epoch(bad, rank, world_size, **options):
    loader = TileLoader(
        Damaged(bad), 5, order="sequential", rank=rank, world_size=world_size, on_error="skip",
        as_torch=False, **options,
    )  # fmt: skip
    return loader, [batch.data.ravel().astype(int).tolist() for batch in loader]


def test_ranks_have_equally_many_batches_where_some_tiles_are_left_out():
    found = [epoch({0, 1, 7, 88}, rank, 3)[1] for rank in range(3)]
    assert [len(batches) for batches in found] == [6, 6, 6]
    rows = [row for batches in found for batch in batches for row in batch]
    assert sorted(rows) == sorted(set(range(90)) - {0, 1, 7, 88})


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_batch_of_which_nothing_is_left_is_an_error_on_several_ranks(prefetch):
    loader, batches = epoch(set(range(5)), 0, 1, prefetch=prefetch)
    assert len(batches) == 17
    assert len(loader.skipped) == 5
    with pytest.raises(
        StorageError, match=r"none of the 5 tiles of batch 1 .* rank 2 of 3.*row 25: "
    ):
        epoch(set(range(25, 30)), 2, 3, prefetch=prefetch)
    assert len(epoch(set(range(25, 30)), 0, 3, prefetch=prefetch)[1]) == 6


@pytest.mark.parametrize("order", [None, [1, 2, 3], np.arange(90), True, 3])
def test_what_is_no_order_is_told(order):
    with pytest.raises(InvalidInputError, match=r"order must be one of .*'blocked'.*read_batch"):
        TileLoader(Damaged(set()), 5, order=order)
