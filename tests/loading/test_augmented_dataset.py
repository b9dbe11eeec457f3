"""Tiles of a cohort, turned and changed: what is done, that nothing else decides it, and undoing it."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from microtome.augmentation import (
    ChannelDropout,
    CustomAugmentation,
    DihedralAugmentation,
    IntensityJitter,
    undo,
)
from microtome.cohort import (
    MultiplexImagingDataset,
    ingest,
    mask,
    tile,
)
from microtome.errors import InvalidInputError
from microtome.loading import AugmentedDataset, BlockOrder, TileLoader
from microtome.regions import decollate_regions

SIZE = 32
EVERY = (DihedralAugmentation(), IntensityJitter(gain=0.2), ChannelDropout(0.3))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two tissues of 36 tiles, some of which hang over the edge."""
    root = tmp_path_factory.mktemp("augmented") / "cohort"
    rng = np.random.default_rng(5)
    for number in range(2):
        ingest(
            rng.integers(0, 900, (3, 180, 180), dtype=np.uint16),
            axes="cyx",
            cohort=root,
            tissue_id=f"t{number}",
            modality="imc",
            mpp=1.0,
            channel_names=["CD3", "CD8", "DNA"],
        )
    mask(root, method="whole")
    tile(root, tile_size=SIZE, method="grid", strategy="default", tolerance=0.1)
    return root


@pytest.fixture
def tiles(root):
    return MultiplexImagingDataset(
        "c", "imc", path=root, tile_size=SIZE, standardization="identity", with_masks=True
    )


def by_hand(pixels, record):
    """What the dihedral group does, by numpy's own words."""
    state = record["dihedral"]
    turned = pixels[..., ::-1] if state >= 4 else pixels
    return np.rot90(turned, state % 4, axes=(-2, -1))


def test_tiles_are_turned_and_their_masks_with_them(tiles):
    turned = AugmentedDataset(tiles, [DihedralAugmentation()], seed=3)
    rows = np.arange(len(tiles))
    plain, found = tiles.read_batch(rows), turned.read_batch(rows, epoch=2)
    states = [m["augmentation"]["dihedral"] for m in found.additional_metadata]
    assert set(states) == set(range(8))
    for i, (before, after) in enumerate(
        zip(plain.additional_metadata, found.additional_metadata, strict=True)
    ):
        record = after["augmentation"]
        assert np.array_equal(found.data[i], by_hand(plain.data[i], record))
        assert np.array_equal(after["tissue_mask"], by_hand(before["tissue_mask"], record))
        assert (before["tissue_id"], before["tile_id"]) == (after["tissue_id"], after["tile_id"])
        assert "augmentation" not in before
    assert np.array_equal(found.region_spec["coords"], plain.region_spec["coords"])


def test_pixels_are_changed_as_each_step_says(tiles):
    changed = AugmentedDataset(tiles, EVERY, seed=1)
    rows = np.arange(len(tiles))
    plain, found = tiles.read_batch(rows), changed.read_batch(rows)
    for i, known in enumerate(found.additional_metadata):
        wanted = plain.data[i].copy()
        for step in EVERY:
            wanted = np.array(step.apply(wanted, known["augmentation"][step.name]))
        np.testing.assert_array_equal(found.data[i], wanted)
    # The dataset's own memory is left alone.
    assert np.array_equal(tiles.read_batch(rows).data, plain.data)


def test_what_is_done_is_a_function_of_seed_epoch_and_row(tiles):
    changed = AugmentedDataset(tiles, EVERY, seed=1)
    rows = np.arange(len(tiles))
    whole = changed.read_batch(rows, epoch=4)
    back = changed.read_batch(rows[::-1].copy(), epoch=4)
    assert np.array_equal(back.data[::-1], whole.data)
    again = pickle.loads(pickle.dumps(changed))
    again.set_epoch(4)
    assert np.array_equal(again[7].data, whole.data[7])
    assert np.array_equal(again[-1].data, whole.data[-1])
    for other in (
        changed.read_batch(rows),
        AugmentedDataset(tiles, EVERY).read_batch(rows, epoch=4),
    ):
        assert not np.array_equal(other.data, whole.data)


@pytest.mark.parametrize("collate", ["stack", "list", "panel"])
def test_a_loader_tells_the_epoch(tiles, collate):
    changed = AugmentedDataset(tiles, EVERY, seed=1)
    loader = TileLoader(changed, 16, seed=2, epoch=3, as_torch=False, collate=collate)
    wanted = changed.read_batch(np.arange(len(tiles)), epoch=3).data
    for number, batch in enumerate(loader):
        rows = loader.batch_rows(number)
        found = {
            "stack": lambda b=batch: b.data,
            "list": lambda b=batch: np.stack([r.data for r in b]),
            "panel": lambda b=batch: b.region.data,
        }[collate]()
        np.testing.assert_array_equal(found, wanted[rows])


def test_everything_else_is_the_datasets(tiles):
    changed = AugmentedDataset(tiles, EVERY)
    assert len(changed) == len(tiles)
    assert changed.rows_fingerprint == tiles.rows_fingerprint
    assert changed.tile_column("tissue_id").tolist() == tiles.tile_column("tissue_id").tolist()
    assert isinstance(TileLoader(changed, 16, order="blocked").order, BlockOrder)
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = changed.nothing_such


def brighter(pixels, generator):
    pixels += generator.uniform(0, 1)
    return pixels


def test_a_run_does_not_go_on_with_other_augmentations(tiles):
    def state(augmentations, seed=0):
        loader = TileLoader(AugmentedDataset(tiles, augmentations, seed=seed), 16, prefetch=0)
        batches = iter(loader)
        next(batches)
        found = json.loads(json.dumps(loader.state_dict()))
        batches.close()
        return found

    own = [DihedralAugmentation(), CustomAugmentation("brighter", brighter)]
    stopped = state(own)
    assert "0x" not in stopped["standardization"]
    TileLoader(AugmentedDataset(tiles, own), 16).load_state_dict(stopped)
    for other in (state(own[:1]), state(own, seed=1)):
        with pytest.raises(InvalidInputError, match=r"standardized by identity, then"):
            TileLoader(AugmentedDataset(tiles, own), 16).load_state_dict(other)


def test_what_was_done_is_undone(tiles):
    rows = np.arange(10)
    turned = AugmentedDataset(tiles, [DihedralAugmentation()]).read_batch(rows)
    plain = tiles.read_batch(rows)
    for region, before in zip(decollate_regions(turned), plain.data, strict=True):
        assert np.array_equal(undo(region).data, before)


def test_targets_are_turned_with_their_input(source_of):
    class Pairs:
        def __len__(self):
            return 6

        def read_batch(self, rows):
            batch = source_of(6, (1, 4, 4)).read_batch(rows)
            return batch, batch._replace(data=batch.data.astype(np.int32))

    changed = AugmentedDataset(Pairs(), [DihedralAugmentation(), IntensityJitter(gain=0.5)])
    one, other = changed.read_batch([0, 3, 5])
    plain, _ = Pairs().read_batch(np.asarray([0, 3, 5]))
    for i, known in enumerate(other.additional_metadata):
        assert list(known["augmentation"]) == ["dihedral"]
        assert np.array_equal(other.data[i], by_hand(plain.data[i], known["augmentation"]))
        assert not np.array_equal(one.data[i], other.data[i])


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda tiles, root: AugmentedDataset([1], EVERY), "list gives neither"),
        (lambda tiles, root: AugmentedDataset(tiles, DihedralAugmentation()), "are a list"),
        (lambda tiles, root: AugmentedDataset(tiles, EVERY, seed=-1), "seed must"),
        (
            lambda tiles, root: AugmentedDataset(
                tiles, [], modality_augmentations={"imc": [ChannelDropout()]}
            ),
            "a MultiplexImagingDataset is of one",
        ),
    ],
    ids=["no source", "no list", "seed", "one modality"],
)
def test_what_cannot_be_augmented_is_refused(tiles, root, make, named):
    with pytest.raises(InvalidInputError, match=named):
        make(tiles, root)
