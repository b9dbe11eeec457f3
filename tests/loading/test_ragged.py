"""Tiles of tissues with channels and modalities of their own, against the pixels they were made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from microtome.cohort import (
    ComposedImagingDataset,
    ComposedTissue,
    MultiplexImagingDataset,
    SporaDataset,
    cohort_panel,
    ingest,
    mask,
    tile,
)
from microtome.errors import InvalidInputError
from microtome.loading import ItemSource, MultimodalBatch, PanelBatch, PanelCollate, TileLoader
from microtome.panels import ChannelState, align_channels
from microtome.regions import ImageRegionData

SIZE = 32
OPTIONS = {"imc": {"standardization": "identity"}, "he": {"mean_std_type": "raw"}}
SHUT = ChannelState.FAILED_QC


def build(root: Path, tissues: dict[str, list[str]], failed: str, slides: tuple[str, ...]) -> Any:
    """Write a cohort whose tissues measured different channels, one of which failed its control."""
    rng = np.random.default_rng(len(tissues))
    pixels: dict[str, Any] = {}
    for tissue, names in tissues.items():
        pixels[tissue] = rng.integers(1, 900, (len(names), 64, 96)).astype(np.float32)
        told = {"axes": "cyx", "cohort": root, "tissue_id": tissue, "mpp": 1.0}
        ingest(pixels[tissue], modality="imc", channel_names=names, **told)
        if tissue in slides:
            pixels[f"{tissue}/he"] = rng.integers(0, 255, (3, 64, 96), dtype=np.uint8)
            ingest(pixels[f"{tissue}/he"], modality="he", **told)
    path = root / "imc" / "channels.parquet"
    table = pq.read_table(path)
    passed = pa.array([name != failed for name in table["channel_name"].to_pylist()])
    place = table.column_names.index("qc_pass")
    pq.write_table(table.set_column(place, "qc_pass", passed), path)
    mask(root, method="whole", modality="imc")
    tile(root, tile_size=SIZE, method="grid", strategy="default", tolerance=0.1)
    return pixels


TISSUES = {"a": ["CD3", "CD8", "DNA"], "b": ["DNA", "Ki67"], "c": ["CD8"]}
PANEL = ("CD3", "CD8", "DNA", "Ki67")
OTHER = {"x": ["Ki67", "CD20"], "y": ["CD20"]}


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory):
    """Two cohorts: `one`, with a slide beside tissue a and b, and `two`; and their pixels."""
    root = tmp_path_factory.mktemp("cohorts")
    one = build(root / "one", TISSUES, "CD8", ("a", "b"))
    return root, {"one": one, "two": build(root / "two", OTHER, "Ki67", ())}


@pytest.fixture(scope="module")
def ragged(cohorts):
    root, pixels = cohorts
    dataset = MultiplexImagingDataset(
        "one", "imc", path=root / "one", tile_size=SIZE, standardization="identity"
    )
    assert dataset.channel_list == PANEL
    return dataset, pixels["one"]


def window(pixels, spec):
    row, col = spec["coords"]
    return pixels[:, row : row + SIZE, col : col + SIZE]


def told(batch: PanelBatch) -> list[dict[str, Any]]:
    """What is known of each tile of a batch, with where it lies."""
    coords = np.asarray(batch.region.region_spec["coords"]).tolist()
    return [
        {**dict(known), "coords": place}
        for known, place in zip(batch.region.additional_metadata, coords, strict=True)
    ]


def state_of(tissue, name, tissues=TISSUES, failed="CD8"):
    if name not in tissues[tissue]:
        return ChannelState.NOT_MEASURED
    return SHUT if name == failed else ChannelState.MEASURED


def test_stacking_what_differs_is_refused_with_the_way_out(ragged):
    dataset, _ = ragged
    with pytest.raises(InvalidInputError, match="differ in their channels"):
        list(TileLoader(dataset, len(dataset)))


def test_a_list_has_every_tile_with_its_own_channels(ragged):
    dataset, pixels = ragged
    seen = []
    for batch in TileLoader(dataset, 5, collate="list", seed=1):
        assert isinstance(batch, list)
        for region in batch:
            assert isinstance(region, ImageRegionData)
            assert isinstance(region.data, torch.Tensor)
            known = region.additional_metadata
            assert list(known["channel_names"]) == TISSUES[known["tissue_id"]]
            expected = window(pixels[known["tissue_id"]], region.region_spec)
            assert np.array_equal(region.data.numpy(), expected)
            seen.append((known["tissue_id"], known["tile_id"]))
    assert len(seen) == len(set(seen)) == len(dataset)


def test_items_of_several_tissues_keep_their_order(ragged):
    dataset, _ = ragged
    order = np.random.default_rng(0).permutation(len(dataset))
    together = dataset.__getitems__(order.tolist())
    for number, region in zip(order.tolist(), together, strict=True):
        alone = dataset[number]
        assert region.additional_metadata == alone.additional_metadata
        assert np.array_equal(region.data, alone.data)


def test_a_panel_gives_every_channel_its_place(ragged):
    dataset, pixels = ragged
    count = 0
    for batch in TileLoader(dataset, 7, collate="panel", seed=3, as_torch=False):
        assert isinstance(batch, PanelBatch)
        assert batch.channel_names == PANEL
        assert batch.region.data.shape == (len(batch), 4, SIZE, SIZE)
        for i, known in enumerate(told(batch)):
            tissue = known["tissue_id"]
            crop = window(pixels[tissue], known)
            for k, name in enumerate(PANEL):
                measured = name in TISSUES[tissue]
                expected = crop[TISSUES[tissue].index(name)] if measured else 0
                assert np.array_equal(batch.region.data[i, k] - expected, np.zeros((SIZE, SIZE)))
                assert batch.present[i, k] == measured
                assert batch.states[i, k] == state_of(tissue, name)
            count += 1
    assert count == len(dataset)


def test_planes_that_were_not_asked_for_have_a_state(cohorts):
    root, _ = cohorts
    dataset = MultiplexImagingDataset(
        "one",
        "imc",
        path=root / "one",
        tile_size=SIZE,
        standardization="identity",
        channels=["CD8"],
        split=None,
    )
    rows = [i for i in range(len(dataset)) if i < 6]  # tiles of tissue a
    batch = PanelCollate(dataset)(dataset.__getitems__(rows))
    assert batch.present.tolist() == [[False, True, False, False]] * 6
    assert batch.states.tolist() == [[1, 2, 1, 0]] * 6


def test_padding_keeps_each_tiles_own_order(ragged):
    dataset, pixels = ragged
    for batch in TileLoader(dataset, 9, collate="pad", seed=2):
        assert batch.channel_names is None
        assert isinstance(batch.present, torch.Tensor)
        most = max(len(TISSUES[known["tissue_id"]]) for known in told(batch))
        assert batch.region.data.shape == (len(batch), most, SIZE, SIZE)
        for i, known in enumerate(told(batch)):
            names = TISSUES[known["tissue_id"]]
            crop = window(pixels[known["tissue_id"]], known)
            assert np.array_equal(batch.region.data[i, : len(names)].numpy(), crop)
            assert not batch.region.data[i, len(names) :].any()
            assert batch.present[i].tolist() == [k < len(names) for k in range(most)]
            states = [state_of(known["tissue_id"], name) for name in names]
            assert batch.states[i].tolist() == states + [0] * (most - len(names))
            assert known["channel_names"] == tuple(names)


def test_tissues_of_several_sizes_are_padded(cohorts):
    whole = ComposedImagingDataset(
        "one", ["imc"], path=cohorts[0] / "one", modality_kwargs={"imc": OPTIONS["imc"]}
    )
    images = [whole.get_composed_tissue(tissue).modalities["imc"].region for tissue in "ab"]
    cut = images[1]._replace(data=images[1].data[:, :40, :50])
    batch = PanelCollate(whole.get_dataset("imc"), "pad")([images[0], cut])
    assert batch.sizes.tolist() == [[64, 96], [40, 50]]
    assert np.array_equal(batch.region.data[1, :2, :40, :50], cut.data)
    assert not batch.region.data[1, :, 40:].any()
    assert not batch.region.data[1, :, :, 50:].any()


# ------------------------------------------------------------------ several modalities


@pytest.fixture(scope="module")
def composed(cohorts):
    root, pixels = cohorts
    dataset = ComposedImagingDataset(
        "one", ["he", "imc"], path=root / "one", tile_size=SIZE, modality_kwargs=OPTIONS
    )
    return dataset, pixels["one"]


def test_all_modalities_of_a_tile_come_together(composed):
    dataset, pixels = composed
    assert isinstance(dataset, ItemSource)
    slides = count = 0
    for batch in TileLoader(dataset, 6, collate="panel", seed=5, as_torch=False):
        assert isinstance(batch, MultimodalBatch)
        assert len(batch) == len(batch.samples)
        panel = batch.modalities["imc"]
        assert panel.index.tolist() == list(range(len(batch)))
        for name, part in batch.modalities.items():
            for i, known in zip(part.index.tolist(), told(part), strict=True):
                sample = batch.samples[i]
                assert sample["tissue_id"] == known["tissue_id"]
                assert sample["tile_id"] == known["tile_id"]
                if name == "he":
                    crop = window(pixels[f"{sample['tissue_id']}/he"], known)
                    place = part.index.tolist().index(i)
                    assert np.array_equal(part.region.data[place], crop)
                    assert part.states[place].tolist() == [1, 1, 1]
                    # The tile in the other modality is the same square.
                    assert np.asarray(told(panel)[i]["coords"]).tolist() == known["coords"]
                    slides += 1
        count += len(batch)
    assert count == len(dataset) == 18
    # Tissue c has no slide, and is not given one.
    assert slides == 12


def test_a_composed_dataset_gives_its_samples_by_default(composed):
    dataset, _ = composed
    loader = TileLoader(dataset, 4, order="sequential")
    batch = next(iter(loader))
    assert [type(sample) for sample in batch] == [ComposedTissue] * 4
    assert loader.stats().tiles == 4
    with pytest.raises(InvalidInputError, match="use collate='list', 'pad', 'panel'"):
        TileLoader(dataset, 4, collate="stack")


def test_a_function_of_ones_own_collates(composed):
    dataset, _ = composed
    loader = TileLoader(
        dataset, 4, order="sequential", collate=lambda samples: [s.tissue_id for s in samples]
    )
    assert [tissue for batch in loader for tissue in batch] == [
        dataset[i].tissue_id for i in range(len(dataset))
    ]


@pytest.fixture
def both(cohorts):
    root, pixels = cohorts
    dataset = SporaDataset(
        ["one", "two"],
        datasets_dir=root,
        modalities=["imc"],
        tile_size=SIZE,
        modality_kwargs={"imc": OPTIONS["imc"]},
        seed=4,
    )
    return dataset, pixels


def keys(batch):
    return [(s["dataset_name"], s["tissue_id"], s["tile_id"]) for s in batch]


@pytest.mark.parametrize("prefetch", [0, 3])
def test_draws_of_several_cohorts_are_those_of_the_epoch(both, prefetch):
    dataset, _ = both
    expected = {}
    for epoch in (0, 2):
        dataset.set_epoch(epoch)
        expected[epoch] = keys(dataset.__getitems__(range(len(dataset))))
    dataset.set_epoch(0)
    loader = TileLoader(dataset, 7, order="sequential", prefetch=prefetch)
    assert [key for batch in loader for key in keys(batch)] == expected[0]
    loader.set_epoch(2)
    assert [key for batch in loader for key in keys(batch)] == expected[2]
    assert expected[0] != expected[2]
    assert dataset.epoch == 2  # the loader tells it


def test_cohorts_with_panels_of_their_own_need_an_alignment(both):
    dataset, pixels = both
    with pytest.raises(InvalidInputError, match=r"cohorts .* have panels of their own for imc"):
        list(TileLoader(dataset, len(dataset), collate="panel"))
    alignment = align_channels(
        {name: cohort_panel(dataset.get_dataset(name).layout.root) for name in ("one", "two")},
        by="name",
    )
    assert alignment.names == (*PANEL, "CD20")
    collate = PanelCollate(dataset, alignment=alignment)
    seen = set()
    for batch in TileLoader(dataset, 8, collate=collate, as_torch=False):
        part = batch.modalities["imc"]
        assert part.channel_names == alignment.names
        for i, known in enumerate(told(part)):
            cohort, tissue = batch.samples[i]["dataset_name"], known["tissue_id"]
            tissues, failed = (TISSUES, "CD8") if cohort == "one" else (OTHER, "Ki67")
            crop = window(pixels[cohort][tissue], known)
            for k, name in enumerate(alignment.names):
                if name in tissues[tissue]:
                    plane = crop[tissues[tissue].index(name)]
                    assert np.array_equal(part.region.data[i, k], plane)
                else:
                    assert not part.region.data[i, k].any()
                assert part.states[i, k] == state_of(tissue, name, tissues, failed)
            seen.add((cohort, tissue))
    assert seen == {("one", t) for t in TISSUES} | {("two", t) for t in OTHER}


@pytest.mark.parametrize(
    ("collate", "named"),
    [("panels", "collate must be one of"), ("list", "has no __getitems__")],
)
def test_a_collate_that_there_is_not_is_refused(source_of, collate, named):
    with pytest.raises(InvalidInputError, match=named):
        TileLoader(source_of(4), 2, collate=collate)


def test_an_alignment_is_for_a_panel(ragged):
    alignment = align_channels({"one": cohort_panel(ragged[0].layout.root)}, by="name")
    with pytest.raises(InvalidInputError, match="kind='pad' leaves them as they are"):
        PanelCollate(ragged[0], "pad", alignment=alignment)
    with pytest.raises(InvalidInputError, match="kind must be"):
        PanelCollate(ragged[0], "list")
