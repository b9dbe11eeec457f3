"""Every source in every order: the same bits on any number of threads and ranks, and gone on with at every batch."""

from __future__ import annotations

import itertools
import json
from collections import Counter

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
from microtome.loading import (
    AugmentedDataset,
    BlockOrder,
    DrawnOrder,
    RegionDataset,
    TileLoader,
    TileOrder,
    WeightedOrder,
)
from microtome.packing import pack
from microtome.patching import RandomPatching
from microtome.regions import ImageRegionData, data_shape_of

SIZE, COUNT, BATCH, SEED, EPOCH = 32, 32, 5, 6, 3
EVERY = (DihedralAugmentation(), IntensityJitter(gain=0.2), ChannelDropout(0.3))
IDENTITY = {"imc": {"standardization": "identity"}}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A cohort of two tissues of 16 tiles, one of them imaged twice; packed, and packed for an epoch."""
    root = tmp_path_factory.mktemp("determinism")
    rng = np.random.default_rng(3)
    for tissue, modality in (("t0", "imc"), ("t1", "imc"), ("t1", "he")):
        multiplex = modality == "imc"
        ingest(
            rng.integers(0, 255, (2 if multiplex else 3, 128, 128)).astype(
                np.uint16 if multiplex else np.uint8
            ),
            axes="cyx",
            cohort=root / "plain",
            tissue_id=tissue,
            modality=modality,
            mpp=1.0,
            **({"channel_names": ["CD3", "DNA"]} if multiplex else {}),
        )
    mask(root / "plain", method="whole")
    tile(root / "plain", tile_size=SIZE, method="grid", strategy="default")
    pack(root / "plain", root / "packed", tile_size=SIZE, modalities=["imc"])
    pack(
        root / "plain",
        root / "epoch",
        tile_size=SIZE,
        modalities=["imc"],
        only_tiles=True,
        order=TileOrder(COUNT, "random", seed=1),
    )
    return root


def tiles(root):
    return MultiplexImagingDataset(
        root.name, "imc", path=root, tile_size=SIZE, standardization="identity"
    )


def patches(study):
    images = [
        mt.open_image(study / "plain" / "imc" / "1_0mpp" / "images" / f"t{n}.ome.zarr")
        for n in range(2)
    ]
    patching = RandomPatching([data_shape_of(image) for image in images], (SIZE, SIZE))
    return RegionDataset(images, patching, augmentations=EVERY, seed=5)


def composed(study):
    return ComposedImagingDataset(
        "plain", path=study / "plain", tile_size=SIZE, modality_kwargs=IDENTITY
    )


def draws(study):
    return SporaDataset(
        ["plain"], datasets_dir=study, tile_size=SIZE, seed=3, modality_kwargs=IDENTITY
    )


SOURCES = {
    "tiles": lambda study: tiles(study / "plain"),
    "packed": lambda study: tiles(study / "packed"),
    "packed for an epoch": lambda study: tiles(study / "epoch"),
    "turned": lambda study: AugmentedDataset(tiles(study / "plain"), EVERY, seed=1),
    "patches": patches,
    "composed": composed,
    "draws": draws,
    "turned draws": lambda study: AugmentedDataset(draws(study), EVERY, seed=1),
}


def stored(source):
    return source.storage_blocks(np.arange(COUNT))


ORDERS = {
    "sequential": lambda source: "sequential",
    "random": lambda source: "random",
    "blocked": lambda source: "blocked",
    "blocks": lambda source: BlockOrder(stored(source), SEED, EPOCH, mixed=8),
    "stratified": lambda source: DrawnOrder.by(
        np.arange(COUNT) % 5, weights={0: 3.0, 1: 1.0, 2: 1.0, 3: 1.0, 4: 2.0}, replacement=True,
        epoch_length=28, seed=SEED, epoch=EPOCH,
    ),
    "weighted": lambda source: WeightedOrder(np.arange(COUNT) % 4, seed=SEED, epoch=EPOCH),
}  # fmt: skip
ITEMS = {"composed", "draws", "turned draws"}
CASES = [
    (source, order)
    for source, order in itertools.product(SOURCES, ORDERS)
    if order != "blocks" or source not in ITEMS  # which do not know how they are stored
]


def bits(batch):
    """Return what a batch shows of each of its tiles."""
    if isinstance(batch, ImageRegionData):
        return [
            (pixels.tobytes(), str(known.get("augmentation")), place.tolist())
            for pixels, known, place in zip(
                batch.data, batch.additional_metadata, batch.region_spec["coords"], strict=True
            )
        ]
    found = [s["modalities"] if isinstance(s, dict) else s.modalities for s in batch]
    return [
        [(name, one.region.data.tobytes()) for name, one in modalities.items()]
        for modalities in found
    ]


@pytest.mark.parametrize(("kind", "order"), CASES, ids=lambda name: name.replace(" ", "-"))
def test_batches_are_the_same_bits_whoever_reads_them(study, kind, order):
    def loader(rank=0, world_size=1, **options):
        source = SOURCES[kind](study)
        chosen = ORDERS[order](source)
        own = {"seed": SEED, "epoch": EPOCH} if isinstance(chosen, str) else {}
        return TileLoader(
            source, BATCH, order=chosen, rank=rank, world_size=world_size, as_torch=False,
            **own, **options,
        )  # fmt: skip

    alone = loader(prefetch=0)
    tile_of, wanted = {}, Counter()
    for number, batch in enumerate(alone):
        rows = alone.batch_rows(number).tolist()
        wanted.update(rows)
        for row, shown in zip(rows, bits(batch), strict=True):
            assert tile_of.setdefault(row, shown) == shown
    # Of these sources each tile differs from all others: a batch that is another could not pass.
    assert len({str(shown) for shown in tile_of.values()}) == len(tile_of)
    for world_size in (1, 2, 3):
        seen, lengths = Counter(), set()
        for rank in range(world_size):
            whole = None
            for threads in (1, 2, 4):
                made = loader(rank, world_size, threads=threads, prefetch=4)
                found, states = [], []
                for batch in made:
                    found.append(bits(batch))
                    states.append(json.loads(json.dumps(made.state_dict())))
                whole = whole or found
                assert found == whole
            rows = [made.batch_rows(number).tolist() for number in range(len(made))]
            assert whole == [[tile_of[row] for row in batch] for batch in rows]
            seen.update(row for batch in rows for row in batch)
            lengths.add(len(whole))
            for done, state in enumerate(states[:-1], 1):
                later = loader(rank, world_size, prefetch=2)
                later.load_state_dict(state)
                assert [bits(batch) for batch in later] == whole[done:]
        assert (seen, len(lengths)) == (wanted, 1)


def test_a_packed_cohort_gives_the_bits_of_the_one_that_it_was_packed_from(study):
    plain, packed, epoch = (tiles(study / name) for name in ("plain", "packed", "epoch"))
    rows = np.arange(COUNT)
    wanted = plain.read_batch(rows).data
    np.testing.assert_array_equal(packed.read_batch(rows).data, wanted)
    order = TileOrder(COUNT, "random", seed=1).rows(0, COUNT)
    np.testing.assert_array_equal(epoch.read_batch(rows).data, wanted[order])
