"""torchdata's `StatefulDataLoader` over datasets and loaders: stopped anywhere, it goes on with the next batch."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import microtome as mt
from microtome.augmentation import ChannelDropout, DihedralAugmentation, IntensityJitter
from microtome.cohort import (
    ComposedImagingDataset,
    MultiplexImagingDataset,
    SporaDataset,
    ingest,
    mask,
    tile,
)
from microtome.errors import InvalidInputError
from microtome.loading import AugmentedDataset, RegionDataset, TileLoader, iterable_dataset
from microtome.patching import RandomPatching
from microtome.regions import ImageRegionData, collate_regions, data_shape_of

stateful = pytest.importorskip(
    "torchdata.stateful_dataloader", reason="needs torchdata, of the extra interop"
)
samplers = pytest.importorskip("torchdata.stateful_dataloader.sampler")

pytestmark = [
    pytest.mark.interop,
    # torchdata 0.11 calls what torch 2.13 has no use for any more.
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated"),
]

SIZE = 32
EVERY = (DihedralAugmentation(), IntensityJitter(gain=0.2), ChannelDropout(0.3))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Cohorts "one" and "two" of 9 and 18 tiles; tissues of "one" were imaged twice."""
    root = tmp_path_factory.mktemp("study")
    rng = np.random.default_rng(3)
    for name, count in (("one", 1), ("two", 2)):
        for number in range(count):
            for modality, channels in (("imc", 2), ("he", 3))[: 2 if name == "one" else 1]:
                ingest(
                    rng.integers(0, 255, (channels, 96, 96)).astype(
                        np.uint16 if modality == "imc" else np.uint8
                    ),
                    axes="cyx",
                    cohort=root / name,
                    tissue_id=f"t{number}",
                    modality=modality,
                    mpp=1.0,
                    **({"channel_names": ["CD3", "DNA"]} if modality == "imc" else {}),
                )
        mask(root / name, method="whole")
        tile(root / name, tile_size=SIZE, method="grid", strategy="default", tolerance=0.1)
    return root


def patches(study):
    """Patches that are others in every epoch, turned and changed."""
    images = [
        mt.open_image(study / "two" / "imc" / "1_0mpp" / "images" / f"t{n}.ome.zarr")
        for n in range(2)
    ]
    patching = RandomPatching([data_shape_of(image) for image in images], (16, 16))
    return RegionDataset(images, patching, augmentations=EVERY, seed=5)


def tiles(study):
    return MultiplexImagingDataset(
        "two", "imc", path=study / "two", tile_size=SIZE, standardization="identity"
    )


def turned(study):
    return AugmentedDataset(tiles(study), EVERY, seed=1)


def composed(study):
    return ComposedImagingDataset(
        "one",
        path=study / "one",
        tile_size=SIZE,
        modality_kwargs={"imc": {"standardization": "identity"}},
    )


def draws(study):
    return SporaDataset(
        ["one", "two"],
        datasets_dir=study,
        tile_size=SIZE,
        seed=3,
        modality_kwargs={"imc": {"standardization": "identity"}},
    )


def turned_draws(study):
    return AugmentedDataset(draws(study), EVERY, seed=1)


COLLATE = {
    patches: RegionDataset.collate,
    tiles: collate_regions,
    turned: collate_regions,
    composed: list,
    draws: list,
    turned_draws: list,
}
EVERY_DATASET = pytest.mark.parametrize("make", COLLATE, ids=lambda make: make.__name__)


def bits(batch: Any) -> Any:
    """Return everything that a batch shows, comparable."""
    if isinstance(batch, ImageRegionData):
        known = batch.additional_metadata
        known = [known] if isinstance(known, dict) else known
        told = [(m.get("tissue_id"), m.get("tile_id"), m.get("augmentation")) for m in known]
        pixels = np.asarray(batch.data)
        place = np.asarray(batch.region_spec["coords"]).tolist()
        return (pixels.shape, pixels.tobytes(), place, told)
    if isinstance(batch, dict):
        return {key: bits(value) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return [bits(each) for each in batch]
    if hasattr(batch, "modalities"):
        return (batch.tissue_id, bits(batch.modalities))
    if hasattr(batch, "region"):
        return bits(batch.region)
    return batch


def opened(dataset, collate, workers=0, **options):
    given = {"batch_size": 4, "shuffle": True, **options}
    return stateful.StatefulDataLoader(
        dataset,
        collate_fn=collate,
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,
        **given,
    )


@EVERY_DATASET
def test_an_epoch_goes_on_at_every_batch(study, make):
    dataset = make(study)
    if hasattr(dataset, "set_epoch"):
        dataset.set_epoch(3)
    loader, states, found = opened(dataset, COLLATE[make]), [], []
    for batch in loader:
        found.append(bits(batch))
        states.append(loader.state_dict())
    assert len({str(batch) for batch in found}) == len(found) == -(-len(dataset) // 4)
    for done, state in enumerate(states[:-1], 1):
        again = make(study)
        if make is draws:
            again.set_epoch(3)  # a RegionDataset and an AugmentedDataset find it in the state
        later = opened(again, COLLATE[make])
        later.load_state_dict(state)
        assert [bits(batch) for batch in later] == found[done:]


@EVERY_DATASET
@pytest.mark.slow  # starts worker processes, each of which imports torch
def test_workers_go_on_too(study, make):
    dataset = make(study)
    if hasattr(dataset, "set_epoch"):
        dataset.set_epoch(2)
    # In the table's order, which a loader without workers has as well.
    whole = [bits(batch) for batch in opened(dataset, COLLATE[make], shuffle=False)]
    loader = opened(dataset, COLLATE[make], 2, shuffle=False)
    batches = iter(loader)
    found = [bits(next(batches)), bits(next(batches))]
    state = loader.state_dict()
    del batches, loader
    again = make(study)
    if make is draws:
        again.set_epoch(2)
    later = opened(again, COLLATE[make], 2, shuffle=False)
    later.load_state_dict(state)
    assert found + [bits(batch) for batch in later] == whole


@EVERY_DATASET
@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_go_on_with_their_own_share(study, make, world_size):
    def of(rank):
        dataset = make(study)
        sampler = samplers.StatefulDistributedSampler(
            dataset, num_replicas=world_size, rank=rank, seed=7
        )
        return opened(dataset, COLLATE[make], shuffle=False, sampler=sampler, batch_size=2)

    for rank in range(world_size):
        whole = [bits(batch) for batch in of(rank)]
        loader = of(rank)
        batches = iter(loader)
        next(batches)
        state = loader.state_dict()
        later = of(rank)
        later.load_state_dict(state)
        assert [bits(batch) for batch in later] == whole[1:]


@pytest.mark.parametrize("order", ["sequential", "random", "blocked"])
@pytest.mark.parametrize("make", [patches, tiles, turned], ids=lambda make: make.__name__)
@pytest.mark.parametrize("world_size", [1, 3])
def test_batches_of_a_tile_loader_go_on_at_every_one(study, make, order, world_size):
    def of(rank, **options):
        loader = TileLoader(
            make(study), 3, order=order, rank=rank, world_size=world_size, **options
        )
        made = iterable_dataset(loader)
        return made, stateful.StatefulDataLoader(made, batch_size=None, num_workers=0)

    for rank in range(world_size):
        _, loader = of(rank, seed=4, epoch=1)
        found, states = [], []
        for batch in loader:
            found.append(bits(batch))
            states.append(loader.state_dict())
        for done, state in enumerate(states[:-1], 1):
            _, later = of(rank)
            later.load_state_dict(state)
            assert [bits(batch) for batch in later] == found[done:]
        # After the end of an epoch the next one is read whole.
        made, later = of(rank)
        later.load_state_dict(states[-1])
        made.set_epoch(2)
        _, wanted = of(rank, seed=4, epoch=2)
        assert [bits(batch) for batch in later] == [bits(batch) for batch in wanted]


def test_draws_and_composed_tiles_of_a_tile_loader_go_on(study):
    for make in (draws, composed):
        made = iterable_dataset(TileLoader(make(study), 4, seed=4, epoch=1))
        loader = stateful.StatefulDataLoader(made, batch_size=None, num_workers=0)
        batches = iter(loader)
        next(batches)
        state = loader.state_dict()
        rest = [bits(batch) for batch in batches]
        made = iterable_dataset(TileLoader(make(study), 4))
        later = stateful.StatefulDataLoader(made, batch_size=None, num_workers=0)
        later.load_state_dict(state)
        assert [bits(batch) for batch in later] == rest


def test_after_the_end_of_an_epoch_the_one_that_is_set_is_read(study):
    dataset = patches(study)
    loader = opened(dataset, RegionDataset.collate, shuffle=False)
    for _ in loader:
        pass
    state = loader.state_dict()
    again = patches(study)
    later = opened(again, RegionDataset.collate, shuffle=False)
    later.load_state_dict(state)
    again.set_epoch(1)
    found = [bits(batch) for batch in later]
    dataset.set_epoch(1)
    assert found == [bits(batch) for batch in loader]


def test_a_state_is_of_one_dataset(study):
    state = json.loads(json.dumps(patches(study).state_dict()))
    assert set(state) == {"epoch", "seed", "tiles"}
    patches(study).load_state_dict(state)
    for other, named in (
        ({**state, "seed": 9}, "augmentations of seed 9, this one has 5"),
        ({**state, "tiles": "other"}, "tiles other"),
        ({}, "a state is from state_dict"),
    ):
        with pytest.raises(InvalidInputError, match=named):
            patches(study).load_state_dict(other)


def test_worker_processes_are_refused_for_whole_batches(study):
    loader = stateful.StatefulDataLoader(
        iterable_dataset(TileLoader(tiles(study), 4)),
        batch_size=None,
        num_workers=1,
        multiprocessing_context="spawn",
    )
    with pytest.raises(InvalidInputError, match="num_workers=0"):
        next(iter(loader))


def _of_datasets(study):
    dataset = patches(study)
    return dataset, opened(dataset, RegionDataset.collate, batch_size=8)


def _of_batches(study):
    made = iterable_dataset(TileLoader(patches(study), 8, seed=4))
    return made, stateful.StatefulDataLoader(made, batch_size=None)


@pytest.mark.parametrize("make", [_of_datasets, _of_batches], ids=["dataset", "batches"])
def test_a_training_loop_goes_on_wherever_it_was_stopped(study, make):
    """One that sets the epoch first thing in each: also at the last batch of one."""

    def train(parts, first, stop_at=None):
        dataset, loader = parts
        seen, states = [], []
        for epoch in range(first, 3):
            dataset.set_epoch(epoch)
            for batch in loader:
                seen.append(bits(batch))
                states.append((epoch, loader.state_dict()))
                if len(seen) == stop_at:
                    return seen, states
        return seen, states

    parts = make(study)
    begin = parts[1].state_dict()  # of the sampler, which has no seed of its own
    whole, states = train(parts, 0)
    assert len({str(batch) for batch in whole}) == len(whole)
    again = make(study)
    again[1].load_state_dict(begin)
    assert train(again, 0)[0] == whole
    for done, (epoch, state) in enumerate(states, 1):
        later = make(study)
        later[1].load_state_dict(state)
        assert train(later, epoch)[0] == whole[done:]
