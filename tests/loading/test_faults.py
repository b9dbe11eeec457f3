"""Tiles that cannot be read, consumers that wait, and torch's own loaders."""

from __future__ import annotations

import logging
import pickle
import re
import threading

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, default_collate

from microtome.cohort import MultiplexImagingDataset
from microtome.errors import (
    FormatError,
    InvalidInputError,
    NotFoundError,
    StorageError,
)
from microtome.loading import (
    BlockOrder,
    TileLoader,
    TileOrder,
    iterable_dataset,
)
from microtome.loading._layout import cause_of_waiting
from microtome.regions import ImageRegionData, decollate_regions

SIZE = 32


def rows_of(batches):
    return [row for batch in batches for row in batch.region_spec["data_idx"].tolist()]


def failing(source, rows, error=FormatError):
    """Make rows of a source unreadable."""

    def before(asked):
        bad = [row for row in asked.tolist() if row in rows]
        if bad:
            raise error(f"chunk of row {bad[0]} is damaged")

    source.before = before
    return source


# ------------------------------------------------------------------ skipping


@pytest.mark.parametrize("prefetch", [0, 3])
@pytest.mark.parametrize("error", [FormatError, NotFoundError, StorageError, ConnectionResetError])
def test_tiles_that_cannot_be_read_are_left_out_and_told(source_of, prefetch, error, caplog):
    source = failing(source_of(40), {7, 8, 31}, error)
    loader = TileLoader(source, 6, seed=2, epoch=1, prefetch=prefetch, on_error="skip")
    with caplog.at_level(logging.WARNING, "microtome.loading"):
        found = rows_of(loader)
    order = TileOrder(40, seed=2, epoch=1).rows(0, 40).tolist()
    assert found == [row for row in order if row not in {7, 8, 31}]
    assert sorted(tile.row for tile in loader.skipped) == [7, 8, 31]
    for told in loader.skipped:
        assert told.batch == order.index(told.row) // 6
        assert (told.epoch, told.error) == (1, f"chunk of row {told.row} is damaged")
        assert f"rows {told.row}" in caplog.text or f", {told.row}" in caplog.text
    assert loader.stats().skipped == 3
    assert loader.stats().tiles == 37


def test_a_batch_of_which_nothing_can_be_read_is_none(source_of):
    source = failing(source_of(12), {4, 5, 6, 7})
    loader = TileLoader(source, 4, order="sequential", on_error="skip")
    batches = list(loader)
    assert [len(batch.data) for batch in batches] == [4, 4]
    assert loader.state_dict()["batch"] == 3
    assert [tile.row for tile in loader.skipped] == [4, 5, 6, 7]


def test_a_batch_says_in_one_line_what_it_leaves_out(source_of, caplog):
    source = source_of(20)

    def fail(rows):
        bad = [row for row in rows.tolist() if row in {1, 2, 3, 7, 8}]
        if bad:
            what = "one" if bad[0] != 3 else "another"
            raise FormatError(f"chunk of {what} is damaged")

    source.before = fail
    with caplog.at_level(logging.WARNING, "microtome.loading"):
        list(TileLoader(source, 5, order="sequential", prefetch=0, on_error="skip"))
    assert [record.getMessage() for record in caplog.records] == [
        (
            "3 of 5 tiles are skipped (batch 0 of epoch 0: rows 1, 2, 3): chunk of one is damaged "
            "(1 other error, see TileLoader.skipped)"
        ),
        "2 of 5 tiles are skipped (batch 1 of epoch 0: rows 7, 8): chunk of one is damaged",
    ]


def test_what_is_wrong_with_a_program_is_not_skipped(source_of):
    source = failing(source_of(12), {5}, ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        list(TileLoader(source, 4, on_error="skip"))
    source = failing(source_of(12), {5}, InvalidInputError)
    with pytest.raises(InvalidInputError, match="rows"):
        list(TileLoader(source, 4, on_error="skip"))
    with pytest.raises(InvalidInputError, match="on_error must be one of"):
        TileLoader(source, 4, on_error="ignore")


def test_of_batches_read_at_once_only_the_one_that_fails_does(source_of):
    source = failing(source_of(32), {19})
    order = BlockOrder(np.arange(32) // 4, seed=1, mixed=16)
    rows = order.rows(0, 32).tolist()
    bad = rows.index(19) // 4
    loader, seen = TileLoader(source, 4, order=order), []
    with pytest.raises(FormatError, match=rf"row 19 is damaged \(batch {bad} of epoch 0"):
        seen.extend(row for batch in loader for row in batch.region_spec["data_idx"].tolist())
    skipping = TileLoader(source, 4, order=order, on_error="skip")
    assert rows_of(skipping) == [row for row in rows if row != 19]


# ------------------------------------------------------------------ a cohort on disk


def test_a_damaged_chunk_is_named_with_its_tile_and_can_be_skipped(cohort):
    root, opened = cohort
    level = root / "imc/1_0mpp/images/b.ome.zarr/0"
    shard = max((p for p in level.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(shard.read_bytes())
    content[20:400] = bytes(380)
    shard.write_bytes(content)
    dataset = opened()
    with pytest.raises(FormatError, match=r"b\.ome\.zarr.*\(batch \d+ of epoch 0, seed 4: rows"):
        list(TileLoader(dataset, 8, seed=4))
    loader = TileLoader(dataset, 8, seed=4, on_error="skip")
    kept = sum(len(batch.data) for batch in loader)
    assert kept + len(loader.skipped) == len(dataset) == 96
    assert kept >= 48  # all of tissue a
    assert {tile.row >= 48 for tile in loader.skipped} == {True}


# ------------------------------------------------------------------ waiting


def test_a_consumer_that_waits_is_told_why_once(source_of, caplog, monkeypatch):
    monkeypatch.setattr("microtome.loading._watch._SECONDS", 0.05)
    source = source_of(80)
    source.before = lambda rows: threading.Event().wait(0.005)
    loader = TileLoader(source, 2, threads=1)
    with caplog.at_level(logging.WARNING, "microtome.loading"):
        list(loader)
        list(loader)
    said = [r.getMessage() for r in caplog.records if "waiting for tiles" in r.getMessage()]
    assert len(said) == 1
    assert "use more threads" in said[0]


def test_a_consumer_that_works_longer_is_left_in_peace(source_of, caplog, monkeypatch):
    monkeypatch.setattr("microtome.loading._watch._SECONDS", 0.05)
    with caplog.at_level(logging.WARNING, "microtome.loading"):
        for _ in TileLoader(source_of(60), 2):
            threading.Event().wait(0.005)
    assert caplog.records == []


def told(source_of, path="a.ome.zarr", **facts):
    batch = source_of(2, (1, 224, 224)).read_batch(np.arange(2))
    return batch._replace(source=[path] * 2, additional_metadata=[facts] * 2)


@pytest.mark.parametrize(
    ("facts", "options", "named"),
    [
        ({"chunks": (1, 1024, 1024)}, {}, r"chunks of \(1, 1024, 1024\) .* about 21 .*'blocked'"),
        ({"chunks": (1, 1024, 1024)}, {"order": "blocked"}, "for each that is used; rewrite"),
        ({"chunks": (1, 128, 128)}, {}, "as fast as 2 threads are"),
        ({"chunks": (1, 128, 128)}, {"converting": True}, "copying take longer"),
        ({}, {"prefetch": 0}, "nothing is read ahead"),
        ({"path": "s3://bucket/a"}, {}, "s3://bucket/a is remote"),
    ],
    ids=["chunks", "blocked", "threads", "converting", "prefetch", "remote"],
)
def test_the_cause_of_waiting(source_of, facts, options, named):
    wish = {"threads": 2, "prefetch": 2, "order": "random", "converting": False, **options}
    assert re.search(named, cause_of_waiting(told(source_of, **facts), **wish))


def test_figures_count_bytes_and_chunks(cohort):
    _, opened = cohort
    loader = TileLoader(opened(), 16)
    batches = list(loader)
    figures = loader.stats()
    assert figures.bytes == sum(batch.data.nbytes for batch in batches) == 96 * 2 * SIZE**2 * 4
    # Chunk by chunk, in no formula.
    chunk = batches[0].additional_metadata[0]["chunks"][-1]
    inside = [
        sum(
            y < min(top + SIZE, side_y)
            and top < y + chunk
            and x < min(left + SIZE, side_x)
            and left < x + chunk
            for y in range(0, side_y, chunk)
            for x in range(0, side_x, chunk)
        )
        for batch in batches
        for (top, left), side_y, side_x in zip(
            batch.region_spec["coords"].tolist(), *batch.data_shape[-2:], strict=True
        )
    ]
    assert len(inside) == 96
    assert figures.amplification == pytest.approx(sum(inside) * chunk**2 / (96 * SIZE**2))
    assert figures.read_seconds > figures.convert_seconds >= 0
    assert figures.tiles_per_second > 0


# ------------------------------------------------------------------ torch's loaders


def test_torchs_loader_hands_out_the_same_batches(source_of):
    loader = TileLoader(source_of(20), 6, seed=3)
    wrapped = iterable_dataset(loader)
    assert len(wrapped) == 4
    found = list(DataLoader(wrapped, batch_size=None))
    assert rows_of(found) == rows_of(loader)
    assert isinstance(found[0].data, torch.Tensor)
    wrapped.set_epoch(2)
    assert loader.epoch == 2


@pytest.mark.parametrize("pairs", [False, True])
def test_a_loader_of_torch_that_would_stack_batches_is_refused(source_of, pairs):
    source = source_of(20)
    if pairs:
        read = source.read_batch
        source.read_batch = lambda rows: (read(rows), read(rows))
    wrapped = iterable_dataset(TileLoader(source, 5, order="sequential"))
    with pytest.raises(InvalidInputError, match="make it with batch_size=None"):
        next(iter(DataLoader(wrapped, batch_size=4)))
    found = next(iter(DataLoader(wrapped, batch_size=None)))
    for region in found if pairs else [found]:
        assert isinstance(region, ImageRegionData)
        assert region.data.shape[0] == 5
    # What torch makes of other regions stays as it was.
    plain = [decollate_regions(source_of(2).read_batch(np.arange(2)))[0]._replace(axes="CYX")] * 2
    assert default_collate(
        [region._replace(data=torch.ones(3)) for region in plain]
    ).data.shape == (2, 3)


def test_a_stateful_loader_goes_on_in_the_middle(source_of):
    whole = rows_of(TileLoader(source_of(20), 6, seed=3))
    one = iterable_dataset(TileLoader(source_of(20), 6, seed=3))
    batches = iter(one)
    before = rows_of([next(batches), next(batches)])
    state = one.state_dict()
    batches.close()
    other = iterable_dataset(TileLoader(source_of(20), 6))
    other.load_state_dict(state)
    assert before + rows_of(DataLoader(other, batch_size=None)) == whole


def test_workers_are_refused(source_of, monkeypatch):
    monkeypatch.setattr("torch.utils.data.get_worker_info", object)
    refused = iterable_dataset(TileLoader(source_of(20), 6))
    with pytest.raises(InvalidInputError, match="use num_workers=0"):
        iter(refused)


@pytest.mark.parametrize("collate", [None, "list", "panel"])
@pytest.mark.parametrize("as_torch", [False, True])
def test_a_loader_is_pickled_where_its_source_is(cohort, collate, as_torch):
    root, _ = cohort
    source = MultiplexImagingDataset(
        "c", "imc", path=root, standardization="identity", tile_size=SIZE
    )
    loader = TileLoader(source, 6, seed=3, collate=collate, as_torch=as_torch)
    again = pickle.loads(pickle.dumps(iterable_dataset(loader)))

    def pixels(batch):
        parts = batch if collate == "list" else [getattr(batch, "region", batch)]
        return np.concatenate([np.asarray(part.data) for part in parts])

    for one, other in zip(loader, again, strict=True):
        np.testing.assert_array_equal(pixels(one), pixels(other))
