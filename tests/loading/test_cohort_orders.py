"""Orders of a cohort's tiles: blocks of its storage, columns of its tables; chunks that are decoded."""

from __future__ import annotations

import numpy as np
import pytest

from microtome.cohort import MultiplexImagingDataset, ingest, mask, tile
from microtome.errors import InvalidInputError, UnknownNameError
from microtome.loading import BlockOrder, DrawnOrder, StorageSource, TileLoader

SIDE, SIZE = 640, 64


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Three tissues of 100 tiles, one of them of another patient and split."""
    root = tmp_path_factory.mktemp("orders") / "cohort"
    rng = np.random.default_rng(1)
    for number in range(3):
        ingest(
            rng.integers(0, 900, (2, SIDE, SIDE), dtype=np.uint16),
            axes="cyx",
            cohort=root,
            tissue_id=f"t{number}",
            patient_id=f"p{number % 2}",
            split="test" if number == 1 else "train",
            modality="imc",
            mpp=1.0,
            channel_names=["CD3", "DNA"],
        )
    mask(root, method="whole")
    tile(root, tile_size=SIZE, method="grid", strategy="default", tolerance=0.1)

    def opened(**options):
        options = {"tile_size": SIZE, "standardization": "identity", **options}
        return MultiplexImagingDataset("c", "imc", path=root, **options)

    return opened


@pytest.mark.parametrize("split", [None, "train"])
def test_tiles_of_a_block_lie_in_one_square_of_chunks(dataset, split):
    made = dataset(split=split)
    assert isinstance(made, StorageSource)
    rows = np.arange(len(made))
    blocks = made.storage_blocks(rows)
    batch = made.read_batch(rows)
    tissues = [known["tissue_id"] for known in batch.additional_metadata]
    chunk = batch.additional_metadata[0]["chunks"][-1]
    side = -(-4 * SIZE // chunk) * chunk
    corner = np.asarray(batch.region_spec["coords"]) // side
    places = [(t, *c) for t, c in zip(tissues, corner.tolist(), strict=True)]
    assert len(set(zip(places, blocks.tolist(), strict=True))) == len(set(places))
    assert len(set(places)) == len(np.unique(blocks)) == (27 if split is None else 18)
    assert made.tile_bytes == batch.data[0].nbytes
    some = rows[::7]
    assert np.array_equal(made.storage_blocks(some) == blocks[0], blocks[some] == blocks[0])


def test_a_blocked_loader_goes_by_the_storage(dataset):
    made = dataset()
    loader = TileLoader(made, 32, order="blocked", seed=3)
    assert isinstance(loader.order, BlockOrder)
    plain = TileLoader(made, 32, order="sequential", as_torch=False)
    expected = np.concatenate([batch.data for batch in plain])
    seen = []
    for number, batch in enumerate(loader):
        rows = loader.batch_rows(number)
        assert np.array_equal(batch.data.numpy(), expected[rows])
        seen += rows.tolist()
    assert sorted(seen) == list(range(len(made)))


def test_columns_of_tiles_and_tissues(dataset):
    made = dataset(split="train")
    known = [m["tissue_id"] for m in made.read_batch(np.arange(len(made))).additional_metadata]
    assert made.tile_column("tissue_id").tolist() == known
    assert made.tile_column("patient_id").tolist() == ["p0"] * len(made)
    assert (
        dataset().tile_column("patient_id").tolist() == ["p0"] * 100 + ["p1"] * 100 + ["p0"] * 100
    )
    assert made.tile_column("tissue_frac").tolist() == [1.0] * len(made)
    with pytest.raises(UnknownNameError, match=r"nothing says 'grade' of a tile.*tissue_frac"):
        made.tile_column("grade")


def test_labels_of_a_dataset_balance_its_epochs(dataset):
    made = dataset(label="patient_id")
    order = DrawnOrder.by(made.tile_column("label"), seed=5)
    labels = [
        known["label"]
        for batch in TileLoader(made, 50, order=order)
        for known in batch.additional_metadata
    ]
    assert len(labels) == 200
    assert labels.count("p0") == labels.count("p1") == 100


def test_a_chunk_is_decoded_about_once_an_epoch(dataset, monkeypatch):
    made = dataset()
    reads = []
    whole = made.read_batch

    def counted(rows):
        batch = whole(rows)
        chunk = batch.additional_metadata[0]["chunks"][-1]
        low = np.asarray(batch.region_spec["coords"])
        high = (low + SIZE - 1) // chunk
        low = low // chunk
        tissue = [known["tissue_id"] for known in batch.additional_metadata]
        reads.append(
            {
                (t, y, x)
                for t, a, b in zip(tissue, low.tolist(), high.tolist(), strict=True)
                for y in range(a[0], b[0] + 1)
                for x in range(a[1], b[1] + 1)
            }
        )
        return batch

    monkeypatch.setattr(made, "read_batch", counted)
    counts = {}
    for kind in ("random", "blocked"):
        reads.clear()
        list(
            TileLoader(
                made,
                4,
                order=BlockOrder(made.storage_blocks(np.arange(300)), mixed=64)
                if kind == "blocked"
                else kind,
            )
        )
        counts[kind] = sum(map(len, reads)) / len(set().union(*reads))
    assert counts["blocked"] < 1.7
    assert counts["random"] > 2.5


def test_a_state_of_another_tiling_of_as_many_tiles_is_refused(dataset):
    def stopped(split, batches=3):
        loader = TileLoader(dataset(split=split), 8, seed=1, prefetch=0)
        iterator = iter(loader)
        for _ in range(batches):
            next(iterator)
        return loader.state_dict()

    one, other = dataset(split="test"), dataset(split="test")
    assert one.rows_fingerprint == other.rows_fingerprint
    assert one.rows_fingerprint != dataset(split="train").rows_fingerprint
    state = stopped("test")
    TileLoader(other, 8, prefetch=0).load_state_dict(state)
    # The same tissue with its tiles one pixel further: as many, and others.
    other.tiles = other.tiles.from_columns(
        {
            "tissue_id": other.tiles.table["tissue_id"],
            "row": np.asarray(other.tiles.table["row"]) + 1,
            "col": np.asarray(other.tiles.table["col"]),
        },
        tile_size=SIZE,
        strategy="default",
    )
    with pytest.raises(InvalidInputError, match="stands at batch 3 of 13 over other tiles"):
        TileLoader(other, 8, prefetch=0).load_state_dict(state)


def test_a_state_says_which_channels_tiles_have(dataset):
    loader = TileLoader(dataset(channels=["DNA"]), 32)
    next(iter(loader))
    with pytest.raises(InvalidInputError, match=r"with .*channels=\['DNA'\].*have .*channels=None"):
        TileLoader(dataset(), 32).load_state_dict(loader.state_dict())


@pytest.mark.parametrize("order", ["random", "blocked"])
def test_whole_tissues_come_as_lists(dataset, order):
    whole = dataset(tile_size=None)
    with pytest.raises(InvalidInputError, match=r"has no tile_size.*collate='list'"):
        TileLoader(whole, 2, order=order)
    batches = list(TileLoader(whole, 2, order=order, collate="list", seed=1))
    assert [len(batch) for batch in batches] == [2, 1]
    assert {region.data.shape for batch in batches for region in batch} == {(2, SIDE, SIDE)}
