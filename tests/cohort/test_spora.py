"""Several cohorts as one: what is drawn, against the tables on disk; what is read, tile by tile."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from microtome.cohort import CohortLayout, ComposedImagingDataset, SporaDataset, ingest, tile
from microtome.errors import (
    FormatError,
    InvalidInputError,
    NotFoundError,
    OutOfRangeError,
    UnknownNameError,
)
from microtome.loading import TileLoader
from microtome.tiling import TileTable

IMC = {"imc": {"standardization": "identity"}}


@pytest.fixture
def study(
    tmp_path: Path,
    he_template: Any,
    imc_template: Any,
    write: Callable[..., None],
) -> Path:
    """Cohorts "he" (t1, t2; stored at 0.5 um) and "imc" (a, b, c), tiled at 1 um."""
    for name, template in (("he", he_template), ("imc", imc_template)):
        shutil.copytree(template[0], tmp_path / "study" / name)
    rng = np.random.default_rng(3)
    for tissue, shape in (("t1", (151, 139)), ("t2", (95, 167))):
        write(tmp_path / "study" / "he", tissue, rng.random(shape) < 0.9)
    for name in ("he", "imc"):
        tile(
            tmp_path / "study" / name,
            tile_size=32,
            method="grid",
            strategy="default",
            resolution=1.0,
        )
    return tmp_path / "study"


def opened(study: Path, **options: Any) -> SporaDataset:
    options = {"tile_size": 32, "modality_kwargs": IMC} | options
    names = options.pop("names", ["he", "imc"])
    return SporaDataset(names, datasets_dir=study, **options)


def table_path(study: Path, name: str) -> Path:
    return study / name / "tiling" / "1_0mpp" / "default" / "32_tile_coordinates.parquet"


def keys(study: Path, *names: str) -> list[tuple[str, str, int]]:
    """The tiles that lie on disk, in order."""
    found: list[tuple[str, str, int]] = []
    for name in names:
        table = pq.read_table(table_path(study, name))
        found += [(name, r["tissue_id"], r["tile_id"]) for r in table.to_pylist()]
    return found


def drawn(dataset: SporaDataset, epoch: int | None = None) -> list[tuple[str, str, int]]:
    """What an epoch draws, as its manifest says."""
    path = Path(dataset.get_dataset(dataset.dataset_names[0]).layout.root).parent / "drawn.parquet"
    dataset.write_manifest(path, epoch)
    rows = pq.read_table(path).to_pylist()
    assert [row["position"] for row in rows] == list(range(len(rows)))
    path.unlink()
    return [(row["dataset_name"], row["tissue_id"], row["tile_id"]) for row in rows]


# ------------------------------------------------------------------ what is drawn


def test_an_epoch_is_all_tiles_of_all_cohorts_once(study):
    dataset = opened(study, seed=3)
    found = keys(study, "he", "imc")
    assert len(dataset) == len(found)
    epochs = [drawn(dataset, epoch) for epoch in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [sorted(found)] * 3
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_sample_is_the_tile_of_that_name(study):
    dataset = opened(study, seed=3)
    alone = {
        name: ComposedImagingDataset(
            name, path=study / name, resolution=1.0, tile_size=32, modality_kwargs=IMC
        )
        for name in ("he", "imc")
    }
    order = drawn(dataset)
    samples = dataset.__getitems__([5, 0, -1, 5])
    for sample, place in zip(samples, (5, 0, -1, 5), strict=True):
        name, tissue, tile_id = order[place]
        assert list(sample) == ["dataset_name", "tissue_id", "tile_id", "modalities"]
        assert (sample["dataset_name"], sample["tissue_id"], sample["tile_id"]) == order[place]
        expected = alone[name].get_composed_tile(tissue, tile_id)
        assert list(sample["modalities"]) == list(expected.modalities) == [name]
        image = np.asarray(sample["modalities"][name].image)
        assert image.shape[-2:] == (32, 32)
        np.testing.assert_array_equal(image, np.asarray(expected.modalities[name].image))
    np.testing.assert_array_equal(
        np.asarray(dataset[5]["modalities"][order[5][0]].image),
        np.asarray(samples[0]["modalities"][order[5][0]].image),
    )


def test_the_split_decides_and_every_tile_of_it_can_be_read(study):
    dataset = opened(study, split="train", seed=1)
    inside = [k for k in keys(study, "he", "imc") if k[1] in {"t1", "a", "b"}]
    assert sorted(drawn(dataset)) == sorted(inside)
    samples = dataset.__getitems__(range(len(dataset)))
    assert [(s["dataset_name"], s["tissue_id"], s["tile_id"]) for s in samples] == drawn(dataset)
    assert dataset.get_tissue_ids().tolist() == ["t1", "a", "b"]
    assert dataset.get_tissue_ids("imc").tolist() == ["a", "b"]


def test_cohorts_have_the_share_that_is_asked_for(study):
    sizes = Counter(name for name, _, _ in keys(study, "he", "imc"))
    least = min(sizes.values())

    def shares(**options):
        return Counter(name for name, _, _ in drawn(opened(study, **options)))

    assert shares(alpha=0) == {"he": least, "imc": least}
    assert shares(weights={"he": 1, "imc": 3}, epoch_length=12) == {"he": 3, "imc": 9}
    assert shares(cohort_quota=4) == {"he": 4, "imc": 4}
    assert shares(cohort_quota={"he": 2, "imc": 5}) == {"he": 2, "imc": 5}
    assert shares(alpha=0, replacement=True, epoch_length=1000) == {"he": 500, "imc": 500}


def test_patients_have_a_quota(study):
    dataset = opened(study, names=["he"], patient_quota=3)
    for epoch in range(4):
        assert Counter(tissue for _, tissue, _ in drawn(dataset, epoch)) == {"t1": 3, "t2": 3}
    with pytest.raises(InvalidInputError, match=r"names none for 3: a, b, c; add them"):
        opened(study, patient_quota=3)


def test_tissues_of_one_patient_share_its_quota(study):
    layout = CohortLayout.open(study / "he")
    table = pq.read_table(layout.tissues)
    place = table.column_names.index("patient_id")
    same = pa.array(["p"] * table.num_rows)
    pq.write_table(table.set_column(place, "patient_id", same), layout.tissues)
    dataset = opened(study, names=["he"], patient_quota=3)
    assert len(dataset) == 3
    seen = {key for epoch in range(20) for key in drawn(dataset, epoch)}
    assert {tissue for _, tissue, _ in seen} == {"t1", "t2"}


def test_whole_tissues_are_drawn_without_a_tile_size(study):
    dataset = opened(study, tile_size=None, seed=2)
    assert dataset.sampling_unit == "tissues"
    samples = dataset.__getitems__(range(len(dataset)))
    found = [(sample["dataset_name"], sample["tissue_id"]) for sample in samples]
    assert sorted(found) == [("he", "t1"), ("he", "t2"), ("imc", "a"), ("imc", "b"), ("imc", "c")]
    assert all("tile_id" not in sample for sample in samples)
    sample = next(s for s in samples if s["tissue_id"] == "a")
    assert sample["modalities"]["imc"].image.shape[-2:] == (140, 171)
    # With a tile size, where tissues are asked for.
    assert len(opened(study, sampling_unit="tissues")) == 5


def test_items_of_an_epoch_change_with_it(study):
    dataset = opened(study, seed=3)
    first = [dataset[i]["tile_id"] for i in range(6)]
    dataset.set_epoch(1)
    assert dataset.epoch == 1
    assert [dataset[i]["tile_id"] for i in range(6)] != first
    dataset.set_epoch(0)
    assert [dataset[i]["tile_id"] for i in range(6)] == first
    with pytest.raises(OutOfRangeError, match=f"draw {len(dataset)} is outside"):
        dataset[len(dataset)]


# ------------------------------------------------------------------ tables


def test_the_index_of_tiles_is_the_tables_one_after_another(study):
    table = opened(study).tile_index
    names = ["global_tile_id", "dataset_name", "tissue_id", "tile_id", "row", "col"]
    assert table.column_names == names
    parts = [pq.read_table(table_path(study, name)) for name in ("he", "imc")]
    for name in ("tissue_id", "tile_id", "row", "col"):
        expected = [value for part in parts for value in part[name].to_pylist()]
        assert table[name].to_pylist() == expected
    assert table["global_tile_id"].to_pylist() == list(range(table.num_rows))
    owners = ["he"] * parts[0].num_rows + ["imc"] * parts[1].num_rows
    assert table["dataset_name"].to_pylist() == owners
    assert pa.types.is_dictionary(table.schema.field("tissue_id").type)
    # A tile has one number in all splits.
    train = opened(study, split="train").tile_index
    keep = pc.is_in(table["tissue_id"].cast(pa.string()), pa.array(["t1", "a", "b"]))
    assert train.to_pylist() == table.filter(keep).to_pylist()


def test_the_index_of_tissues_says_whose_they_are(study):
    assert opened(study).tissue_index.to_pylist()[1:3] == [
        {"dataset_name": "he", "tissue_id": "t2", "patient_id": "p-t2", "modalities": ["he"]},
        {"dataset_name": "imc", "tissue_id": "a", "patient_id": None, "modalities": ["imc"]},
    ]


def test_a_manifest_says_what_was_drawn_and_of_what_it_depends(study, tmp_path):
    dataset = opened(study, seed=9, alpha=0.5)
    path = tmp_path / "drawn.parquet"
    dataset.write_manifest(path, epoch=4)
    table = pq.read_table(path)
    assert dataset.epoch == 0
    dataset.set_epoch(4)
    samples = dataset.__getitems__(range(len(dataset)))
    assert table["tile_id"].to_pylist() == [sample["tile_id"] for sample in samples]
    assert table["tissue_id"].to_pylist() == [sample["tissue_id"] for sample in samples]
    index = dataset.tile_index.select(["global_tile_id", "row", "col"]).to_pylist()
    drawn_rows = table.select(["global_tile_id", "row", "col"]).to_pylist()
    assert all(index[row["global_tile_id"]] == row for row in drawn_rows)
    note = json.loads(table.schema.metadata[b"microtome"])
    assert (note["seed"], note["epoch"], note["alpha"]) == (9, 4, 0.5)


# ------------------------------------------------------------------ through an index, or without


def test_an_index_of_tiles_changes_nothing_but_the_time(study, tree):
    before = drawn(opened(study, seed=1, split="train"))
    for name in ("he", "imc"):
        TileTable.build_index(table_path(study, name))
    files = tree(study)
    dataset = opened(study, seed=1, split="train")
    assert drawn(dataset) == before
    assert dataset[0]["tile_id"] == before[0][2]
    # Opened and read, and nothing written.
    assert tree(study) == files


def test_a_table_that_lists_tissues_by_turns_is_drawn_from(study):
    path = table_path(study, "imc")
    table = pq.read_table(path)
    order = np.argsort(np.random.default_rng(0).random(table.num_rows))
    pq.write_table(table.take(pa.array(order)), path)
    dataset = opened(study, names=["imc"], split="train")
    inside = [k for k in keys(study, "imc") if k[1] in {"a", "b"}]
    assert sorted(drawn(dataset)) == sorted(inside)
    sample = dataset[7]
    assert (sample["dataset_name"], sample["tissue_id"], sample["tile_id"]) == drawn(dataset)[7]


def test_in_another_process_it_is_the_same(study):
    dataset = opened(study, seed=5)
    dataset.set_epoch(3)
    sent = pickle.dumps(dataset)
    assert len(sent) < 2000
    other = pickle.loads(sent)
    assert drawn(other) == drawn(dataset)
    assert repr(other) == repr(dataset)


def test_torch_loads_it(study):
    torch_data = pytest.importorskip("torch.utils.data", reason="needs the torch extra")
    dataset = opened(study, seed=5)
    batches = torch_data.DataLoader(dataset, batch_size=4, collate_fn=list)
    first = next(iter(batches))
    assert [(s["tissue_id"], s["tile_id"]) for s in first] == [k[1:] for k in drawn(dataset)[:4]]


# ------------------------------------------------------------------ one at a time


def test_a_sample_by_name(study):
    dataset = opened(study)
    sample = dataset.get_tile_sample("imc", "b", 2)
    assert (sample["dataset_name"], sample["tissue_id"], sample["tile_id"]) == ("imc", "b", 2)
    expected = dataset.get_dataset("imc").get_composed_tile("b", 2).modalities["imc"].image
    np.testing.assert_array_equal(
        np.asarray(sample["modalities"]["imc"].image), np.asarray(expected)
    )
    assert dataset.get_tissue_sample("he", "t2")["modalities"]["he"].image.shape[-2:] == (95, 167)
    assert dataset.get_dataset("imc") is dataset.get_dataset("imc")


def test_random_samples_are_a_function_of_their_number(study):
    one, two = opened(study, seed=5), opened(study, seed=5)

    def name(sample):
        return sample["dataset_name"], sample["tissue_id"], sample.get("tile_id")

    first = [name(one.sample_random_tile()) for _ in range(6)]
    assert [name(two.sample_random_tile(index)) for index in range(6)] == first
    assert name(two.sample_random_tile()) == first[0]
    assert len(set(first)) > 2
    assert name(one.sample_random_tissue(index=3)) == name(two.sample_random_tissue(index=3))
    assert name(one.sample_random(index=2)) == first[2]
    assert name(opened(study, tile_size=None).sample_random())[2] is None
    with pytest.raises(InvalidInputError, match="needs a dataset with a tile_size"):
        opened(study, tile_size=None).sample_random_tile()


def test_random_samples_follow_the_weights(study):
    dataset = opened(study, seed=1, weights={"he": 0, "imc": 1})
    assert {dataset.sample_random_tile()["dataset_name"] for _ in range(8)} == {"imc"}


# ------------------------------------------------------------------ what is not there


def test_a_cohort_without_the_modality_is_skipped_and_named(study, caplog):
    with caplog.at_level(logging.WARNING, logger="microtome"):
        dataset = opened(study, modalities=["imc", "codex"], weights={"he": 1, "imc": 1})
    assert dataset.dataset_names == ("imc",)
    (message,) = [r.getMessage() for r in caplog.records if "skipped" in r.getMessage()]
    assert "'he' is skipped" in message
    assert "imc, codex" in message
    with pytest.raises(InvalidInputError, match="none of the datasets"):
        opened(study, modalities=["codex"])
    with pytest.raises(UnknownNameError, match="unknown modality 'xray'"):
        opened(study, modalities=["xray"])


def of_imc(options: dict[str, Any], *, name: str = "imc") -> dict[str, Any]:
    return {"modality_kwargs": {**IMC, name: options}}


def test_options_of_what_no_cohort_has_are_told(study, caplog):
    with caplog.at_level(logging.WARNING, logger="microtome"):
        opened(study, modality_kwargs={**IMC, "codex": {}, "ihc": {}})
    told = [r.getMessage() for r in caplog.records]
    assert told == [
        f"options of modality {name!r} are of no use: the datasets he, imc have he, imc"
        for name in ("codex", "ihc")
    ]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"names": ["he", "gone"]},
            NotFoundError,
            r"no cohort at .*'gone'; in .*study there are he, imc$",
        ),
        ({"names": []}, InvalidInputError, "dataset_names is empty"),
        ({"names": "he"}, InvalidInputError, "is a list of names, got 'he'"),
        ({"names": ["he", "he"]}, InvalidInputError, r"names \['he'\] more than once"),
        ({"tile_size": None, "sampling_unit": "tiles"}, InvalidInputError, "needs a tile_size"),
        ({"sampling_unit": "cells"}, InvalidInputError, "got 'cells'"),
        ({"tile_size": 48}, InvalidInputError, "has no tiles default 48"),
        ({"tile_strategy": "dense"}, InvalidInputError, "has no tiles dense 32"),
        ({"split": "val"}, InvalidInputError, r"split 'val'; there are \['test', 'train'\]"),
        ({"weights": {"he": 1}}, InvalidInputError, r"weights says nothing of \['imc'\]"),
        ({"weights": {"he": 1, "x": 1}}, UnknownNameError, r"weights speaks of \['x'\]"),
        ({"cohort_quota": {"he": 1}}, InvalidInputError, "cohort_quota says nothing of"),
        ({"weights": [1, 2]}, InvalidInputError, r"by the name of the dataset.*got \[1, 2\]"),
        ({"weights": {"he": 1, "imc": "x"}}, InvalidInputError, "at least 0, got 'x'"),
        ({"cohort_quota": [1, 2]}, InvalidInputError, "cohort_quota are numbers by the name"),
        ({"cohort_quota": "x"}, InvalidInputError, "cohort_quota are numbers by the name"),
        ({"alpha": 2}, InvalidInputError, "alpha must be from 0"),
        ({"alpha": "x"}, InvalidInputError, r"alpha must be from 0 .*got 'x'"),
        ({"seed": 1.5}, InvalidInputError, "seed must be a whole number, got 1.5"),
        ({"seed": -1}, InvalidInputError, "seed must be from 0"),
        ({"epoch_length": 10**6}, InvalidInputError, "an epoch of 1000000 rows"),
        ({"dataset_modality_kwargs": {"x": {}}}, UnknownNameError, r"speaks of \['x'\]"),
        (of_imc({}, name="icm"), UnknownNameError, "unknown modality 'icm'; known are he, imc"),
        (of_imc({"bogus": 1}), InvalidInputError, r"\['imc'\] has no option 'bogus'; .*channels"),
        (of_imc({"standardization": "zz"}), InvalidInputError, r"\['imc'\]: 'zz' is no standard"),
        (of_imc({"standardization": "zscore"}), NotFoundError, "no statistics in .*imc.*zscore"),
        ({"modality_kwargs": ["imc"]}, InvalidInputError, r"options by modality.*\['imc'\]"),
        (of_imc({"kind": "all"}), InvalidInputError, r"\['imc'\]: kind must be one of"),
        (of_imc({"tile_size": 3}), InvalidInputError, r"cannot set \['tile_size'\]"),
        (of_imc({"bogus": 1}, name="ihc"), InvalidInputError, r"\['ihc'\] has no option 'bogus'"),
        (
            {"dataset_modality_kwargs": {"imc": {"imc": {"bogus": 1}}}},
            InvalidInputError,
            r"dataset_modality_kwargs\['imc'\]\['imc'\] has no option 'bogus'",
        ),
        (
            {"dataset_modality_kwargs": {"he": {"h+e": {}}}},
            UnknownNameError,
            r"unknown modality 'h\+e'",
        ),
    ],
)
def test_what_cannot_be_is_refused(study, options, error, message):
    with pytest.raises(error, match=message):
        opened(study, **options)


def test_datasets_are_known_by_name(study):
    dataset = opened(study)
    with pytest.raises(UnknownNameError, match="no dataset 'x' is drawn from; there are he, imc"):
        dataset.get_dataset("x")
    with pytest.raises(UnknownNameError, match="no dataset 'x'"):
        dataset.get_tissue_ids("x")
    with pytest.raises(InvalidInputError, match="tile_index needs"):
        _ = opened(study, tile_size=None).tile_index


def test_options_of_one_cohort_go_before_those_of_all(study):
    dataset = opened(
        study,
        modality_kwargs={"imc": {"standardization": "identity"}, "he": {"mean_std_type": "hibou"}},
        dataset_modality_kwargs={"he": {"he": {"mean_std_type": "identity"}}},
    )
    row = next(k for k in keys(study, "he"))
    image = np.asarray(dataset.get_tile_sample(*row)["modalities"]["he"].image)
    plain = ComposedImagingDataset(
        "he",
        path=study / "he",
        resolution=1.0,
        tile_size=32,
        modality_kwargs={"he": {"mean_std_type": "identity"}},
    )
    np.testing.assert_array_equal(
        image, np.asarray(plain.get_composed_tile(*row[1:]).modalities["he"].image)
    )


def test_an_image_that_is_gone_is_named(study):
    shutil.rmtree(study / "imc" / "imc" / "1_0mpp" / "images" / "b.ome.zarr")
    with pytest.raises(NotFoundError, match="lists tissue 'b' as imc, of which there is no image"):
        opened(study)


def test_tiles_of_another_resolution_are_refused(study):
    path = table_path(study, "imc")
    TileTable(TileTable.read(path).table, (32, 32), "default", "2_0mpp").write(path)
    with pytest.raises(FormatError, match="speaks of tiles at 2_0mpp"):
        opened(study)


def test_a_folder_of_cohorts_may_come_from_the_environment(study, monkeypatch):
    monkeypatch.setenv("SPORA_DATASETS_DIR", str(study))
    found = SporaDataset(["imc"], tile_size=32, modality_kwargs=IMC)
    assert len(found) == len(keys(study, "imc"))
    monkeypatch.delenv("SPORA_DATASETS_DIR")
    with pytest.raises(NotFoundError, match=r"Give datasets_dir=, or name .*SPORA_DATASETS_DIR"):
        SporaDataset(["imc"], tile_size=32)


def test_a_tissue_imaged_twice_is_one_draw_with_both(tmp_path, write):
    root, rng = tmp_path / "paired", np.random.default_rng(6)
    stains = rng.integers(0, 255, (96, 64, 3), np.uint8)
    counts = rng.integers(0, 900, (2, 96, 64)).astype(np.uint16)
    given = {"cohort": root, "mpp": 1.0, "resolution": 1.0}
    ingest(stains, axes="yxc", tissue_id="t", modality="he", **given)
    for tissue in ("t", "u"):
        ingest(
            counts,
            axes="cyx",
            tissue_id=tissue,
            modality="imc",
            channel_names=["DNA", "CD3"],
            **given,
        )
        write(root, tissue, np.ones((96, 64), np.bool_))
    tile(root, tile_size=32, method="grid", strategy="default")
    dataset = SporaDataset(
        ["paired"],
        datasets_dir=tmp_path,
        tile_size=32,
        modality_kwargs=IMC | {"he": {"mean_std_type": "identity"}},
    )
    assert len(dataset) == 12
    modalities = dict(dataset.tissue_index.select(["tissue_id", "modalities"]).to_pydict())
    assert modalities == {"tissue_id": ["t", "u"], "modalities": [["he", "imc"], ["imc"]]}
    index = {
        (row["tissue_id"], row["tile_id"]): (row["row"], row["col"])
        for row in dataset.tile_index.to_pylist()
    }
    for sample in dataset.__getitems__(range(12)):
        row, col = index.pop((sample["tissue_id"], sample["tile_id"]))
        images = {name: np.asarray(r.image) for name, r in sample["modalities"].items()}
        window = (slice(row, row + 32), slice(col, col + 32))
        np.testing.assert_array_equal(images["imc"], counts[(slice(None), *window)])
        assert ("he" in images) == (sample["tissue_id"] == "t")
        if "he" in images:
            expected = np.moveaxis(stains[window], -1, 0) / np.float32(255)
            np.testing.assert_allclose(images["he"], expected, atol=1e-6)
    assert not index
    alone = SporaDataset(
        ["paired"], datasets_dir=tmp_path, tile_size=32, modalities=["he"], modality_kwargs=IMC
    )
    assert alone.get_tissue_ids().tolist() == ["t"]
    assert len(alone) == 6
    assert list(alone[0]["modalities"]) == ["he"]


def test_a_loader_does_not_go_on_with_other_pixels(study):
    def loader(**options):
        return TileLoader(opened(study, seed=3, **options), 4, order="sequential")

    first = loader()
    next(iter(first))
    state = first.state_dict()
    assert state["standardization"] == "he: he by imagenet at 1 um | imc: imc by identity at 1 um"
    loader().load_state_dict(state)
    loader(dataset_modality_kwargs={"he": {"he": {"mean_std_type": "imagenet"}}}).load_state_dict(
        state
    )
    for options in (
        of_imc({"standardization": "arcsinh/cofactor_5.0", "use_mean_std": False}),
        {"dataset_modality_kwargs": {"he": {"he": {"mean_std_type": "hibou"}}}},
        {"dataset_modality_kwargs": {"imc": {"imc": {"channels": ("DNA", "CD3")}}}},
    ):
        other = loader(**options)
        with pytest.raises(InvalidInputError, match="of pixels standardized by he: he by imagenet"):
            other.load_state_dict(state)
        assert other.source.standardization != state["standardization"]
        again = pickle.loads(pickle.dumps(other.source))
        assert again.standardization == other.source.standardization
