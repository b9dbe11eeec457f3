"""Tiles of several modalities, turned alike and changed each by itself."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from microtome.augmentation import (
    ChannelDropout,
    CustomAugmentation,
    DihedralAugmentation,
    IntensityJitter,
    undo,
)
from microtome.cohort import (
    ComposedImagingDataset,
    MultiplexImagingDataset,
    SporaDataset,
    ingest,
    mask,
    tile,
)
from microtome.errors import InvalidInputError, UnknownNameError
from microtome.loading import AugmentedDataset, TileLoader

SIZE = 32
JITTER = IntensityJitter(gain=0.3, offset=0.2, gamma=0.2)
OPTIONS = {"imc": {"standardization": "identity"}, "he": {"resolution": 0.5}}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Cohorts "one" and "two": t0 in imc and, twice as finely, he, t1 in imc alone, t2 in he alone."""
    root = tmp_path_factory.mktemp("augmented")
    rng = np.random.default_rng(1)
    for name in ("one", "two"):
        for tissue, kinds in (("t0", ("imc", "he")), ("t1", ("imc",)), ("t2", ("he",))):
            for kind in kinds:
                fine = kind == "he"
                pixels = rng.integers(0, 255, (3, 256, 256) if fine else (2, 128, 128))
                ingest(
                    pixels.astype(np.uint8 if fine else np.uint16),
                    axes="cyx",
                    cohort=root / name,
                    tissue_id=tissue,
                    modality=kind,
                    mpp=0.5 if fine else 1.0,
                    resolution=0.5 if fine else 1.0,
                    **({} if fine else {"channel_names": ["CD3", "DNA"]}),
                )
        mask(root / name, method="whole", resolution=1.0)
        for strategy, size in (("default", SIZE), ("oblong", (16, 48))):
            tile(
                root / name, tile_size=size, method="grid", strategy=strategy, resolution=1.0,
                tolerance=0.1,
            )  # fmt: skip
    return root


@pytest.fixture(scope="module")
def composed(study):
    return opened(study)


def opened(study, **options):
    given = {"tile_size": SIZE, "resolution": 1.0, "modality_kwargs": OPTIONS}
    return ComposedImagingDataset("one", path=study / "one", **{**given, **options})


@pytest.fixture
def draws(study):
    return SporaDataset(
        ["one", "two"], datasets_dir=study, tile_size=SIZE, seed=3, modality_kwargs=OPTIONS
    )


def by_hand(pixels, state):
    """What the dihedral group does, by numpy's own words."""
    turned = np.flip(pixels, -1) if state >= 4 else pixels
    return np.rot90(turned, state % 4, axes=(-2, -1))


def record_of(result):
    return result.region.additional_metadata["augmentation"]


@given(
    seed=st.integers(0, 2**32),
    epoch=st.integers(0, 2**20),
    rows=st.lists(st.integers(0, 31), min_size=1, max_size=6),
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_all_modalities_of_a_tile_are_turned_alike(composed, seed, epoch, rows):
    turned = AugmentedDataset(composed, [DihedralAugmentation()], seed=seed)
    plain = composed.__getitems__(rows)
    found = turned.__getitems__(rows, epoch=epoch)
    for before, after in zip(plain, found, strict=True):
        assert before.tissue_id == after.tissue_id
        assert list(before.modalities) == list(after.modalities)
        states = {record_of(result)["dihedral"] for result in after.modalities.values()}
        assert len(states) == 1
        (state,) = states
        for name, result in after.modalities.items():
            wanted = by_hand(before.modalities[name].region.data, state)
            assert np.array_equal(result.region.data, wanted)
            assert torch.equal(result.image, torch.from_numpy(wanted.copy()))
            assert "augmentation" not in before.modalities[name].region.additional_metadata


def test_the_turn_is_that_of_the_tile_in_one_modality(study, composed):
    """Which modalities come along decides nothing."""
    alone = ComposedImagingDataset(
        "one", ["imc"], path=study / "one", tile_size=SIZE, resolution=1.0, modality_kwargs=OPTIONS
    )
    of_one = MultiplexImagingDataset(
        "one", "imc", path=study / "one", tile_size=SIZE, standardization="identity", resolution=1.0
    )
    steps = [DihedralAugmentation(), JITTER]
    every = AugmentedDataset(composed, steps, seed=2)
    one = AugmentedDataset(alone, steps, seed=2)
    batch = AugmentedDataset(of_one, steps, seed=2).read_batch(np.arange(16))
    for row in range(16):  # of t0, which comes first in all of them
        imc = every[row].modalities["imc"]
        assert np.array_equal(imc.region.data, one[row].modalities["imc"].region.data)
        assert batch.additional_metadata[row]["tissue_id"] == "t0"
        assert (
            record_of(imc)["dihedral"]
            == (batch.additional_metadata[row]["augmentation"]["dihedral"])
        )


def test_intensity_is_drawn_for_each_modality_by_itself(composed):
    changed = AugmentedDataset(composed, [DihedralAugmentation(), JITTER], seed=1)
    rows = list(range(len(composed)))
    for before, after in zip(
        composed.__getitems__(rows), changed.__getitems__(rows, epoch=2), strict=True
    ):
        gains = set()
        for name, result in after.modalities.items():
            record = record_of(result)
            turned = by_hand(before.modalities[name].region.data, record["dihedral"])
            wanted = JITTER.apply(np.array(turned, np.float32), record["intensity_jitter"])
            np.testing.assert_array_equal(result.region.data, wanted)
            gains.add(tuple(record["intensity_jitter"]["gain"][:2]))
        assert len(gains) == len(after.modalities)


def test_a_modality_has_steps_of_its_own(composed):
    own = {"imc": [ChannelDropout(0.5)], "he": [JITTER]}
    changed = AugmentedDataset(composed, [DihedralAugmentation()], modality_augmentations=own)
    dropped = 0
    for sample in changed.__getitems__(range(len(composed))):
        for name, result in sample.modalities.items():
            step = "channel_dropout" if name == "imc" else "intensity_jitter"
            assert list(record_of(result)) == ["dihedral", step]
            if name == "imc":
                gone = record_of(result)[step]
                dropped += len(gone)
                assert not result.region.data[gone].any()
    assert dropped > 5
    plain = composed[3].modalities["he"].region.data
    back = undo(changed[3].modalities["he"].region)
    np.testing.assert_allclose(back.data, plain, atol=1e-4)


def test_what_changes_targets_like_their_input_changes_modalities_alike(composed):
    step = CustomAugmentation("shift", shifted, targets=True)
    changed = AugmentedDataset(composed, [step], seed=4)
    for before, after in zip(
        composed.__getitems__(range(8)), changed.__getitems__(range(8)), strict=True
    ):
        moved = {
            float((result.region.data - before.modalities[name].region.data).mean().round(3))
            for name, result in after.modalities.items()
        }
        assert len(moved) == 1


def shifted(pixels, generator):
    return pixels + np.float32(generator.integers(1, 100))


def test_oblong_tiles_keep_their_shape(study):
    oblong = opened(study, tile_size=(16, 48), tile_strategy="oblong")
    turned = AugmentedDataset(oblong, [DihedralAugmentation()], seed=2)
    states = set()
    for row in range(len(oblong)):
        before, after = oblong[row].modalities, turned[row].modalities
        for name, result in after.items():
            state = record_of(result)["dihedral"]
            states.add(state)
            assert np.array_equal(result.region.data, by_hand(before[name].region.data, state))
    assert states == {0, 2, 4, 6}


def test_masks_of_modalities_are_turned(study):
    options = {
        "imc": {"standardization": "identity", "with_masks": True},
        "he": {"with_masks": False},
    }
    masked = ComposedImagingDataset(
        "one", ["imc"], path=study / "one", tile_size=SIZE, resolution=1.0, modality_kwargs=options
    )
    turned = AugmentedDataset(masked, [DihedralAugmentation()])
    for row in range(8):
        before, after = masked[row].modalities["imc"], turned[row].modalities["imc"]
        state = record_of(after)["dihedral"]
        assert before.tissue_mask is not None
        assert np.array_equal(after.tissue_mask, by_hand(before.tissue_mask, state))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("collate", ["list", "panel", "pad"])
def test_a_loader_gives_them_in_every_form(study, composed, collate, threads):
    options = {**OPTIONS, "he": {}}  # of one size, which one array can hold
    made = opened(study, modality_kwargs={**options, "he": {"resolution": 0.5}})
    changed = AugmentedDataset(made, [DihedralAugmentation(), JITTER], seed=1)
    loader = TileLoader(
        changed, 5, seed=2, epoch=3, as_torch=False, collate=collate, threads=threads
    )
    wanted = changed.__getitems__(range(len(changed)), epoch=3)
    for number, batch in enumerate(loader):
        rows = loader.batch_rows(number)
        for place, row in enumerate(rows.tolist()):
            for name, result in wanted[row].modalities.items():
                if collate == "list":
                    found = batch[place].modalities[name].region.data
                else:
                    part = batch.modalities[name]
                    found = part.region.data[part.index.tolist().index(place)]
                np.testing.assert_array_equal(found, result.region.data)


def test_draws_are_turned_in_the_epoch_of_the_loader(draws, tmp_path):
    changed = AugmentedDataset(draws, [DihedralAugmentation(), JITTER], seed=1)
    loader = TileLoader(changed, 8, order="sequential", epoch=2)
    assert (changed.epoch, draws.epoch) == (2, 2)
    draws.write_manifest(tmp_path / "drawn.parquet")
    named = pq.read_table(tmp_path / "drawn.parquet").to_pylist()
    samples = [sample for batch in loader for sample in batch]
    assert [(s["dataset_name"], s["tissue_id"], s["tile_id"]) for s in samples] == [
        (n["dataset_name"], n["tissue_id"], n["tile_id"]) for n in named
    ]
    plain = draws.__getitems__(range(len(draws)), epoch=2)
    assert {record_of(r)["dihedral"] for s in samples for r in s["modalities"].values()} == {
        *range(8)
    }
    for before, after in zip(plain, samples, strict=True):
        states = {record_of(result)["dihedral"] for result in after["modalities"].values()}
        assert len(states) == 1
        for name, result in after["modalities"].items():
            turned = by_hand(before["modalities"][name].region.data, *states)
            wanted = JITTER.apply(
                np.array(turned, np.float32), record_of(result)["intensity_jitter"]
            )
            np.testing.assert_array_equal(np.asarray(result.region.data), wanted)


def test_draws_go_on_in_the_middle(draws):
    steps = [DihedralAugmentation(), JITTER]
    loader = TileLoader(AugmentedDataset(draws, steps), 8, seed=1, epoch=1, as_torch=False)
    batches = iter(loader)
    next(batches)
    state = loader.state_dict()
    rest = pixels_of(batches)
    again = pickle.loads(pickle.dumps(AugmentedDataset(draws, steps)))
    later = TileLoader(again, 8, as_torch=False)
    later.load_state_dict(state)
    assert pixels_of(later) == rest
    with pytest.raises(InvalidInputError, match="of pixels standardized by"):
        TileLoader(AugmentedDataset(draws, steps[:1]), 8).load_state_dict(state)


def pixels_of(batches):
    return [
        [result.region.data.tobytes() for result in sample["modalities"].values()]
        for batch in batches
        for sample in batch
    ]


def test_draws_that_were_set_by_hand_are_found_out(draws):
    draws.set_epoch(3)
    changed = AugmentedDataset(draws, [DihedralAugmentation()])
    assert TileLoader(changed, 8).epoch == 3
    loader = TileLoader(changed, 8)
    draws.set_epoch(5)
    with pytest.raises(InvalidInputError, match="set to epoch 5"):
        next(iter(loader))


def test_whole_tissues_are_turned(study):
    whole = opened(study, tile_size=None)
    turned = AugmentedDataset(whole, [DihedralAugmentation()], seed=6)
    for row in range(len(whole)):
        for name, result in turned[row].modalities.items():
            wanted = by_hand(whole[row].modalities[name].region.data, record_of(result)["dihedral"])
            assert np.array_equal(result.region.data, wanted)


@pytest.mark.parametrize(
    ("own", "error", "named"),
    [
        ({"imc": [DihedralAugmentation()]}, InvalidInputError, r"would turn \(dihedral\) one"),
        ({"nothing": [JITTER]}, UnknownNameError, "nothing"),
        ({"imc": JITTER}, InvalidInputError, "are a list"),
        ({"imc": [CustomAugmentation("a", shifted)] * 2}, InvalidInputError, "names differ"),
    ],
    ids=["turn", "modality", "no list", "names"],
)
def test_what_would_tear_modalities_apart_is_refused(composed, own, error, named):
    with pytest.raises(error, match=named):
        AugmentedDataset(composed, [], modality_augmentations=own)


def test_samples_of_several_modalities_are_no_batches(composed):
    with pytest.raises(InvalidInputError, match="gives samples, not batches"):
        AugmentedDataset(composed, []).read_batch([0])
    with pytest.raises(InvalidInputError, match="collate='list', 'pad', 'panel'"):
        TileLoader(AugmentedDataset(composed, []), 4, collate="stack")
