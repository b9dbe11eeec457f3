"""Draws of several cohorts through a loader: whose epoch they are of, and what a state is of."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from microtome.cohort import SporaDataset, ingest, mask, tile
from microtome.errors import InvalidInputError
from microtome.loading import TileLoader

SIZE = 32


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Cohorts "one" and "two" of 32 and 64 tiles."""
    root = tmp_path_factory.mktemp("study")
    rng = np.random.default_rng(3)
    for name, count in (("one", 2), ("two", 4)):
        for number in range(count):
            ingest(
                rng.integers(0, 900, (2, 128, 128), dtype=np.uint16),
                axes="cyx",
                cohort=root / name,
                tissue_id=f"t{number}",
                patient_id=f"p{number}",
                modality="imc",
                mpp=1.0,
                channel_names=["CD3", "DNA"],
            )
        mask(root / name, method="whole")
        tile(root / name, tile_size=SIZE, method="grid", strategy="default", tolerance=0.1)
    return root


@pytest.fixture
def opened(study):
    def make(**options):
        given = {
            "tile_size": SIZE,
            "seed": 3,
            "modality_kwargs": {"imc": {"standardization": "identity"}},
        }
        return SporaDataset(["one", "two"], datasets_dir=study, **{**given, **options})

    return make


def keys_of(batches):
    return [(s["dataset_name"], s["tissue_id"], s["tile_id"]) for batch in batches for s in batch]


def manifest(dataset, path):
    dataset.write_manifest(path)
    return [
        (r["dataset_name"], r["tissue_id"], r["tile_id"]) for r in pq.read_table(path).to_pylist()
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"seed": 4}),
        ({"epoch_length": 40}, {"epoch_length": 40, "weights": {"one": 1, "two": 1}}),
        ({"epoch_length": 40}, {"epoch_length": 40, "replacement": True}),
        ({"epoch_length": 40}, {"epoch_length": 40, "patient_quota": 12}),
    ],
    ids=["seed", "weights", "replacement", "quota"],
)
def test_inside_an_epoch_the_draws_are_the_same(opened, one, other):
    loader = TileLoader(opened(**one), 16, order="sequential")
    batches = iter(loader)
    before = keys_of([next(batches), next(batches)])
    state = loader.state_dict()
    batches.close()
    again = TileLoader(opened(**one), 16, order="sequential")
    again.load_state_dict(state)
    assert before + keys_of(again) == keys_of(TileLoader(opened(**one), 16, order="sequential"))
    with pytest.raises(InvalidInputError, match="over other tiles"):
        TileLoader(opened(**other), 16, order="sequential").load_state_dict(state)


def test_draws_are_known_by_their_rule_seed_and_tables(opened, study):
    first = opened().rows_fingerprint
    assert opened().rows_fingerprint == first
    later = opened()
    later.set_epoch(7)
    assert later.rows_fingerprint == first
    whole = opened(tile_size=None)
    swapped = SporaDataset(["two", "one"], datasets_dir=study, tile_size=SIZE, seed=3)
    assert len({first, whole.rows_fingerprint, swapped.rows_fingerprint}) == 3
    assert opened(tile_size=None, seed=4).rows_fingerprint != whole.rows_fingerprint


def test_a_loader_begins_at_the_epoch_of_its_source(opened, tmp_path):
    dataset = opened()
    dataset.set_epoch(2)
    loader = TileLoader(dataset, 16, order="sequential")
    assert loader.epoch == 2
    assert keys_of(loader) == manifest(dataset, tmp_path / "drawn.parquet")


def test_a_loader_tells_its_source_the_epoch(opened, tmp_path):
    dataset = opened()
    loader = TileLoader(dataset, 16, order="sequential", epoch=5)
    assert dataset.epoch == 5
    seen = []
    for epoch in (6, 7):
        loader.set_epoch(epoch)
        assert dataset.epoch == epoch
        seen.append(keys_of(loader))
        assert seen[-1] == manifest(dataset, tmp_path / "drawn.parquet")
    assert seen[0] != seen[1]
    later = opened()
    TileLoader(later, 16, order="sequential").load_state_dict(loader.state_dict())
    assert later.epoch == 7


def test_a_source_that_was_set_by_hand_is_not_read_at_another_epoch(opened):
    dataset = opened()
    loader = TileLoader(dataset, 16)
    dataset.set_epoch(1)
    with pytest.raises(InvalidInputError, match=r"set to epoch 1.*at epoch 0.*set_epoch\(1\)"):
        next(iter(loader))
    loader.set_epoch(1)
    assert len(keys_of(loader)) == len(dataset)


def test_loaders_of_one_source_have_epochs_of_their_own(opened):
    dataset = opened()
    one, two = TileLoader(dataset, 16, epoch=1), TileLoader(dataset, 16, epoch=2)
    first = keys_of(one)
    second = keys_of(two)
    assert (keys_of(one), keys_of(two)) == (first, second)
    assert first != second


def test_what_a_loader_told_its_source_is_not_where_another_begins(opened):
    dataset = opened()
    TileLoader(dataset, 16).set_epoch(4)
    assert dataset.epoch == 4
    assert TileLoader(dataset, 16).epoch == 0
    assert dataset.epoch == 0
