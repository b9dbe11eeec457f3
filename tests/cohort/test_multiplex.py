"""Multiplex datasets: channels by kind, standardized by tables, ragged panels never dropped silently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from microtome.cohort import (
    CohortLayout,
    IMCModality,
    MultiplexImagingDataset,
    ingest,
    mask,
    read_tissue_mask,
    stats,
    tile,
)
from microtome.coordinates import Resolution
from microtome.errors import (
    FormatError,
    InvalidInputError,
    NotFoundError,
    UnknownNameError,
)

CHANNELS = ["CD3", "DNA", "Ki67"]
SPEC = "quantile_clipping/uq_0.99_image"


def tiled(imc: Any) -> tuple[Path, dict[str, np.ndarray]]:
    root, sources = imc
    tile(root, tile_size=48, method="grid", strategy="default", tolerance=0.9)
    return root, sources


def annotate(root: Path, **columns: list[Any]) -> None:
    """Change columns of the panel."""
    path = root / "imc/channels.parquet"
    table = pq.read_table(path)
    for name, values in columns.items():
        kind = table.schema.field(name).type
        table = table.set_column(table.column_names.index(name), name, pa.array(values, kind))
    pq.write_table(table, path)


def crop(pixels: np.ndarray, row: int, col: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of a window in doubles, and where they lie inside the image."""
    out = np.zeros((len(pixels), size, size))
    inside = np.zeros((size, size), bool)
    high = min(row + size, pixels.shape[1]), min(col + size, pixels.shape[2])
    low = max(row, 0), max(col, 0)
    at = np.s_[low[0] - row : high[0] - row, low[1] - col : high[1] - col]
    out[:, *at] = pixels[:, low[0] : high[0], low[1] : high[1]]
    inside[at] = True
    return out, inside


def test_tiles_equal_crops_standardized_by_numpy(imc: Any) -> None:
    root, sources = tiled(imc)
    stats(root)
    layout = CohortLayout.open(root)
    pixels = {
        name: source[:, read_tissue_mask(layout, Resolution.parse(1.0), name, source.shape[-2:])]
        for name, source in sources.items()
    }
    high = {
        n: np.quantile(p, 0.99, axis=1).astype(np.float32).astype(float) for n, p in pixels.items()
    }
    fitted = np.concatenate(
        [np.clip(pixels[n], 0, high[n][:, None]) / (high[n][:, None] + 1e-8) for n in ("a", "b")], 1
    )
    mean, std = (
        v.astype(np.float32).astype(float)[:, None, None] for v in (fitted.mean(1), fitted.std(1))
    )
    dataset = MultiplexImagingDataset("c", "imc", path=root, standardization=SPEC, tile_size=48)
    rows = pq.read_table(root / "tiling/1_0mpp/default/48_tile_coordinates.parquet").to_pylist()
    assert len(dataset) == len(rows) > 10
    hanging = 0
    batch = dataset.read_batch(np.arange(len(dataset)))
    for number, row in enumerate(rows):
        name = row["tissue_id"]
        window, inside = crop(sources[name], row["row"], row["col"], 48)
        u = high[name][:, None, None]
        expected = np.where(inside, (np.clip(window, 0, u) / (u + 1e-8) - mean) / (std + 1e-8), 0)
        hanging += not inside.all()
        np.testing.assert_allclose(dataset[number].data, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(batch.data[number], dataset[number].data)
        found = dataset.get_tile(name, row["tile_id"], kind="complete")
        np.testing.assert_array_equal(found.image, dataset[number].data)
        assert found.channel_names.tolist() == CHANNELS
        assert dataset[number].additional_metadata["channel_names"] == tuple(CHANNELS)
        by_place = dataset.get_tile_by_coordinates(name, row["row"], row["col"], kind="complete")
        np.testing.assert_array_equal(by_place.image, found.image)
    assert hanging > 2


@pytest.mark.parametrize("use_mean_std", [True, False])
def test_log_of_clipped_counts(imc: Any, use_mean_std: bool) -> None:
    root, sources = imc
    stats(root, method="quantile_clipping_log1p", quantile_level="global")
    dataset = MultiplexImagingDataset(
        "c",
        "imc",
        path=root,
        standardization="quantile_clipping_log1p/uq_0.99_global",
        use_mean_std=use_mean_std,
    )
    layout = CohortLayout.open(root)
    pixels = {
        name: source[:, read_tissue_mask(layout, Resolution.parse(1.0), name, source.shape[-2:])]
        for name, source in sources.items()
    }
    together = np.concatenate([pixels["a"], pixels["b"]], axis=1)
    high = np.quantile(together, 0.99, axis=1)[:, None]
    fitted = np.log1p(np.clip(together, 0, high))
    whole = dataset.get_tissue("c", kind="complete")
    expected = np.log1p(np.clip(sources["c"], 0, high[..., None]))
    if use_mean_std:
        expected = (expected - fitted.mean(1)[:, None, None]) / fitted.std(1)[:, None, None]
    np.testing.assert_allclose(whole.image, expected, rtol=1e-4, atol=1e-5)


def test_identity_gives_the_stored_values(imc: Any) -> None:
    root, sources = tiled(imc)
    dataset = MultiplexImagingDataset(
        "c", "imc", path=root, standardization="identity", tile_size=48
    )
    for name, source in sources.items():
        whole = dataset.get_tissue(name, kind="complete").image
        np.testing.assert_array_equal(np.asarray(whole), source.astype(np.float32))


# -- kinds and masks


@pytest.fixture
def panel_of_five(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """Two tissues that measured different channels of a panel of five."""
    root = tmp_path / "cohort"
    rng = np.random.default_rng(5)
    channels = {"a": ["DNA", "CD3", "bad", "Collagen"], "b": ["Collagen", "A0A", "DNA"]}
    sources: dict[str, np.ndarray] = {}
    for name, names in channels.items():
        sources[name] = rng.integers(1, 999, (len(names), 60, 50)).astype(np.uint16)
        ingest(
            sources[name],
            axes="cyx",
            mpp=1.0,
            cohort=root,
            tissue_id=name,
            modality="imc",
            channel_names=names,
        )
    annotate(
        root,
        qc_pass=[True, True, False, True, True],
        uniprot_id=["P68431-2", "P07766", "P10000", None, "A0A024R161"],
    )
    return root, sources


EXPECTED = {
    # Panel: DNA, CD3, bad, Collagen, A0A.
    ("a", "complete"): ["DNA", "CD3", "bad", "Collagen"],
    ("a", "qc_filtered"): ["DNA", "CD3", "Collagen"],
    ("a", "uniprot_filtered"): ["DNA", "CD3"],
    ("b", "complete"): ["DNA", "Collagen", "A0A"],
    ("b", "qc_filtered"): ["DNA", "Collagen", "A0A"],
    ("b", "uniprot_filtered"): ["DNA", "A0A"],
}
MEASURED = {"a": [1, 1, 1, 1, 0], "b": [1, 0, 0, 1, 1]}
GIVEN = {"a": ["DNA", "CD3", "bad", "Collagen"], "b": ["Collagen", "A0A", "DNA"]}
PANEL = ["DNA", "CD3", "bad", "Collagen", "A0A"]
UNIPROT = dict(zip(PANEL, ["P68431-2", "P07766", "P10000", None, "A0A024R161"], strict=True))


@pytest.mark.parametrize(("tissue_id", "kind"), EXPECTED)
def test_kinds_of_channels_and_their_masks(panel_of_five: Any, tissue_id: str, kind: Any) -> None:
    root, sources = panel_of_five
    dataset = MultiplexImagingDataset("c", "imc", path=root, standardization="identity")
    names = EXPECTED[tissue_id, kind]
    found = dataset.get_tissue(tissue_id, kind=kind)
    assert found.channel_names.tolist() == names
    assert dataset.get_channel_names(tissue_id, kind).tolist() == names
    given = GIVEN[tissue_id]
    expected = sources[tissue_id][[given.index(name) for name in names]]
    np.testing.assert_array_equal(np.asarray(found.image), expected.astype(np.float32))
    # measured_mask is over the panel, image_loading_mask over the planes on disk.
    assert found.measured_mask.tolist() == [bool(v) for v in MEASURED[tissue_id]]
    stored = [name for name in PANEL if name in given]
    assert found.image_loading_mask.tolist() == [name in names for name in stored]
    # The seed's rule: the measured ones narrowed by those that were loaded.
    returned = found.measured_mask.copy()
    returned[returned] = found.image_loading_mask
    assert [PANEL[i] for i in np.flatnonzero(returned)] == names
    ids = [UNIPROT[name] for name in names]
    assert list(dataset.get_uniprot_ids(tissue_id, kind)) == ids
    assert found.uniprot_ids is not None
    assert list(found.uniprot_ids) == ids


def test_the_default_kinds_are_those_of_the_seed(panel_of_five: Any) -> None:
    root, _ = panel_of_five
    dataset = MultiplexImagingDataset("c", "imc", path=root, standardization="identity")
    assert dataset.get_tissue("a").channel_names.tolist() == EXPECTED["a", "uniprot_filtered"]
    assert dataset.channel_list == tuple(PANEL)
    assert dataset[0].additional_metadata["channel_names"] == tuple(EXPECTED["a", "complete"])


@pytest.mark.parametrize(
    ("accession", "valid"),
    [
        ("P07766", True),
        ("P07766-2", True),
        ("Q9Y261", True),
        ("O15552", True),
        ("A0A024R161", True),
        ("C9J1X3", True),
        ("A2BC19", True),
        ("", False),
        ("CD3", False),
        ("P0776", False),
        ("P07766-", False),
        ("P07766 ", False),
        ("P07766\n", False),
        ("p07766", False),
        ("A0A024R16", False),
    ],
    ids=repr,
)
def test_accessions(panel_of_five: Any, accession: str, valid: bool) -> None:
    root, _ = panel_of_five
    annotate(root, uniprot_id=[accession, "P07766", None, None, None])
    dataset = MultiplexImagingDataset("c", "imc", path=root, standardization="identity")
    names = dataset.get_channel_names("a").tolist()
    assert names == (["DNA", "CD3"] if valid else ["CD3"])


def test_a_kind_that_no_channel_is_of(panel_of_five: Any) -> None:
    root, _ = panel_of_five
    annotate(root, uniprot_id=[None] * 5)
    dataset = MultiplexImagingDataset("c", "imc", path=root, standardization="identity")
    with pytest.raises(InvalidInputError, match="kind='complete'"):
        dataset.get_tissue("a", kind="uniprot_filtered")
    # Nobody has noted accessions: nothing could be filtered by them.
    assert dataset.get_tissue("a").channel_names.tolist() == EXPECTED["a", "complete"]
    assert dataset.get_tissue("a").uniprot_ids is None
    with pytest.raises(InvalidInputError, match="'all'"):
        dataset.get_tissue("a", kind="all")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="'all'"):
        MultiplexImagingDataset("c", "imc", path=root, standardization="identity", kind="all")  # type: ignore[arg-type]


def test_a_panel_without_quality_or_accessions(panel_of_five: Any) -> None:
    root, _ = panel_of_five
    path = root / "imc/channels.parquet"
    pq.write_table(pq.read_table(path).select(["channel_name"]), path)
    dataset = MultiplexImagingDataset("c", "imc", path=root, standardization="identity")
    assert dataset.get_channel_names("a", "qc_filtered").tolist() == EXPECTED["a", "complete"]
    with pytest.raises(InvalidInputError, match="uniprot_filtered"):
        dataset.get_tissue("a", "uniprot_filtered")


def test_degenerate_channels_are_left_out_unless_asked_for(
    imc: Any, caplog: pytest.LogCaptureFixture
) -> None:
    root, sources = imc
    flat = sources["a"].copy()
    flat[1] = 0  # nothing of DNA: its upper quantile is 0
    options: dict[str, Any] = {"axes": "cyx", "mpp": 1.0, "cohort": root, "channel_names": CHANNELS}
    ingest(flat, tissue_id="a", modality="imc", overwrite=True, **options)
    stats(root)
    dataset = MultiplexImagingDataset("c", "imc", path=root, standardization=SPEC)
    with caplog.at_level("WARNING", logger="microtome"):
        found = dataset.get_tissue("a", kind="complete")
    assert "['DNA'] of tissue a are left out" in caplog.text
    assert repr(found).startswith("MultiplexTissue(tissue of 'a', (2, ")
    with pytest.raises(InvalidInputError, match="differ in their channels"):
        _ = dataset.channel_names
    assert found.channel_names.tolist() == ["CD3", "Ki67"]
    assert found.image_loading_mask.tolist() == [True, False, True]
    assert found.measured_mask.tolist() == [True, True, True]
    assert dataset.get_channel_names("b", "complete").tolist() == CHANNELS
    kept = MultiplexImagingDataset(
        "c", "imc", path=root, standardization=SPEC, disable_quantile_mask=True
    )
    assert kept.get_tissue("a", kind="complete").channel_names.tolist() == CHANNELS
    assert np.isfinite(np.asarray(kept.get_tissue("a", kind="complete").image)).all()


# -- ragged panels


def ragged(root: Path, write: Any) -> None:
    for name in ("a", "b"):
        write(root, name, np.ones((60, 50), bool))
    tile(root, tile_size=32, method="grid", strategy="default")


def test_a_batch_over_different_channels_is_refused_and_told_why(
    panel_of_five: Any, write: Any
) -> None:
    root, sources = panel_of_five
    ragged(root, write)
    dataset = MultiplexImagingDataset(
        "c", "imc", path=root, standardization="identity", tile_size=32
    )
    tissues = [dataset[i].additional_metadata["tissue_id"] for i in range(len(dataset))]
    first = [i for i, t in enumerate(tissues) if t == "a"]
    assert dataset.read_batch(first).data.shape[1] == 4
    with pytest.raises(InvalidInputError, match=r"'a': .*'bad'.*'b': .*channels="):
        dataset.read_batch(np.arange(len(dataset)))
    common = MultiplexImagingDataset(
        "c",
        "imc",
        path=root,
        standardization="identity",
        tile_size=32,
        channels=["Collagen", "DNA"],
    )
    batch = common.read_batch(np.arange(len(common)))
    assert batch.data.shape[1] == 2
    for number in range(len(common)):
        row, col = batch.region_spec["coords"][number]
        name = tissues[number]
        planes = sources[name][[GIVEN[name].index("Collagen"), GIVEN[name].index("DNA")]]
        window, inside = crop(planes, row, col, 32)
        np.testing.assert_array_equal(batch.data[number], np.where(inside, window, 0))
        assert batch.additional_metadata[number]["channel_names"] == ("Collagen", "DNA")


def test_channels_that_are_not_there(panel_of_five: Any, write: Any) -> None:
    root, _ = panel_of_five
    ragged(root, write)
    options: dict[str, Any] = {"path": root, "standardization": "identity", "tile_size": 32}
    with pytest.raises(UnknownNameError, match=r"\['CD99'\] are not in the panel"):
        MultiplexImagingDataset("c", "imc", channels=["CD99"], **options)
    dataset = MultiplexImagingDataset("c", "imc", channels=["CD3"], **options)
    with pytest.raises(UnknownNameError, match=r"'b' has no complete channels \['CD3'\]"):
        dataset.read_batch(np.arange(len(dataset)))
    filtered = MultiplexImagingDataset("c", "imc", channels=["bad"], kind="qc_filtered", **options)
    with pytest.raises(UnknownNameError, match="no qc_filtered channels"):
        filtered[0]


# -- what does not fit


def test_tables_that_contradict_the_image(panel_of_five: Any) -> None:
    root, _ = panel_of_five
    path = root / "imc/channels_per_tissue.parquet"
    table = pq.read_table(path)
    at = table.column_names.index("CD3")
    pq.write_table(table.set_column(at, "CD3", pa.array([False, False])), path)
    dataset = MultiplexImagingDataset("c", "imc", path=root, standardization="identity")
    with pytest.raises(FormatError, match=r"has 4 channels.*3 were measured"):
        dataset.get_tissue("a", kind="complete")
    with pytest.raises(FormatError, match="has 4 channels"):
        dataset[0]


def test_missing_tables_and_wrong_modalities(imc: Any) -> None:
    root, _ = imc
    options: dict[str, Any] = {"path": root}
    with pytest.raises(NotFoundError, match="microtome stats"):
        MultiplexImagingDataset("c", "imc", standardization=SPEC, **options)
    with pytest.raises(InvalidInputError, match="standardization= is missing: 'identity'"):
        MultiplexImagingDataset("c", "imc", **options)
    with pytest.raises(InvalidInputError, match="no standardization"):
        MultiplexImagingDataset("c", "imc", standardization="whitening", **options)
    with pytest.raises(InvalidInputError, match="brightfield"):
        MultiplexImagingDataset("c", "he", standardization="identity", **options)
    with pytest.raises(UnknownNameError, match="xray"):
        MultiplexImagingDataset("c", "xray", standardization="identity", **options)
    with pytest.raises(UnknownNameError, match="codex"):
        MultiplexImagingDataset("c", "codex", standardization="identity", **options)


def test_statistics_that_lack_a_tissue(imc: Any) -> None:
    root, sources = imc
    stats(root)
    ingest(
        sources["a"],
        axes="cyx",
        mpp=1.0,
        cohort=root,
        tissue_id="late",
        modality="imc",
        channel_names=CHANNELS,
    )
    dataset = MultiplexImagingDataset("c", "imc", path=root, standardization=SPEC)
    assert dataset.get_tissue("a", kind="complete").image.shape[0] == 3
    with pytest.raises(UnknownNameError, match="'late'"):
        dataset.get_tissue("late", kind="complete")


def test_channels_that_were_chosen_are_those_of_tissues_and_tiles(panel_of_five: Any) -> None:
    root, _ = panel_of_five
    made: dict[str, Any] = {"path": root, "standardization": "identity", "resolution": 1.0}
    whole = MultiplexImagingDataset("c", "imc", **made)
    first, *_, last = whole.get_channel_names("a", kind="complete").tolist()
    chosen = MultiplexImagingDataset("c", "imc", channels=[last, first], **made)
    assert chosen.get_channel_names("a").tolist() == [last, first]
    found, every = chosen.get_tissue("a"), whole.get_tissue("a", kind="complete")
    np.testing.assert_array_equal(found.image, np.asarray(every.image)[[-1, 0]])
    # By their kind, all of it.
    assert chosen.get_tissue("a", kind="complete").image.shape == every.image.shape


@pytest.mark.parametrize(
    ("channels", "told"),
    [("CD8", "is a list of names, got the text 'CD8'"), ([], "at least one"), (["a", "a"], "once")],
)
def test_channels_that_are_no_list_of_names(imc: Any, channels: Any, told: str) -> None:
    root, _ = imc
    with pytest.raises(InvalidInputError, match=told):
        MultiplexImagingDataset(
            "c", "imc", path=root, standardization="identity", resolution=1.0, channels=channels
        )


def test_a_panel_in_another_order_than_the_images_is_refused(panel_of_five: Any) -> None:
    root, _ = panel_of_five
    mask(root, method="whole")
    layout = CohortLayout.open(root)
    path = layout.channels(IMCModality())
    table = pq.read_table(path)
    turned = table.take(list(range(len(table)))[::-1])
    place = turned.column_names.index("index")
    pq.write_table(turned.set_column(place, "index", table["index"]), path)
    dataset = MultiplexImagingDataset("c", "imc", path=root, standardization="identity")
    for read in (
        lambda: dataset[0],
        lambda: dataset.get_tissue("a"),
        lambda: stats(root, overwrite=True),
    ):
        with pytest.raises(FormatError, match=r"its plane 0 is '.*', by the panel it is '"):
            read()


@pytest.mark.parametrize(
    ("column", "values", "told"),
    [
        ("channel_name", ["A", "B", "B", "C", "D"], r"names \['B'\] more than once"),
        ("channel_name", ["A", "B", "", "C", "D"], "a channel without a name"),
        ("qc_pass", ["True", "False", "no", "x", "y"], "qc_pass of '.*' is 'True'"),
        ("qc_pass", [1, 0, 2, 1, 1], "qc_pass of '.*' is 2"),
    ],
)
def test_a_panel_that_says_nothing_of_use(
    panel_of_five: Any, column: str, values: list[Any], told: str
) -> None:
    root, _ = panel_of_five
    path = CohortLayout.open(root).channels(IMCModality())
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.column_names.index(column), column, [values]), path)
    with pytest.raises(FormatError, match=told):
        MultiplexImagingDataset("c", "imc", path=root, standardization="identity")


@pytest.mark.parametrize("kind", [pa.int64(), pa.float64(), pa.bool_()])
def test_quality_control_in_ones_and_zeros(panel_of_five: Any, kind: Any) -> None:
    root, _ = panel_of_five
    path = CohortLayout.open(root).channels(IMCModality())
    table = pq.read_table(path)
    said = pa.array([1, 0, None, 1, 1]).cast(kind)
    pq.write_table(table.set_column(table.column_names.index("qc_pass"), "qc_pass", said), path)
    dataset = MultiplexImagingDataset("c", "imc", path=root, standardization="identity")
    names = table["channel_name"].to_pylist()
    found = dataset.get_channel_names("a", kind="qc_filtered").tolist()
    measured = dataset.get_channel_names("a", kind="complete").tolist()
    assert found == [name for name in measured if name != names[1]]
