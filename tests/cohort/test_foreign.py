"""A cohort that spora_io laid out opens as it is, and one of ours has what spora_io looks for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from microtome.cohort import (
    CohortInfo,
    CohortLayout,
    IMCModality,
    MultiplexImagingDataset,
    info,
    ingest,
    mask,
    measured_channels,
    read_tissue_mask,
    stats,
    tile,
    validate,
)
from microtome.cohort._images import load_npz_mask
from microtome.coordinates import Resolution
from microtome.errors import FormatError, NoResolutionError, NotFoundError
from microtome.image import MultiscaleImage

pandas = pytest.importorskip("pandas")
zarr = pytest.importorskip("zarr")

PANEL = ["CD3", "DNA1", "Ki67", "Collagen I", "CD8"]
MEASURED = {"LC_1-A": [1, 1, 1, 0, 1], "LC_2-B": [1, 1, 1, 1, 0]}
SIZES = {"LC_1-A": (97, 131), "LC_2-B": (150, 88)}


def write_image(path: Path, pixels: np.ndarray, names: list[str]) -> None:
    """One level as in the published example: float32, (C, 256, 256) chunks in (C, 1024, 1024) shards."""
    group = zarr.open_group(path, mode="w", zarr_format=3)
    count = len(pixels)
    array = group.create_array(
        "0",
        shape=pixels.shape,
        dtype="float32",
        chunks=(count, 256, 256),
        shards=(count, 1024, 1024),
        compressors=[zarr.codecs.BloscCodec(cname="lz4", clevel=3, shuffle="bitshuffle")],
        dimension_names=["c", "y", "x"],
    )
    array[...] = pixels
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [
            {
                "axes": [
                    {"name": "c", "type": "channel"},
                    {"name": "y", "type": "space", "unit": "micrometer"},
                    {"name": "x", "type": "space", "unit": "micrometer"},
                ],
                "datasets": [
                    {
                        "path": "0",
                        "coordinateTransformations": [{"type": "scale", "scale": [1.0, 1.0, 1.0]}],
                    }
                ],
            }
        ],
        "omero": {"channels": [{"label": name, "color": "FFFFFF"} for name in names]},
    }


@pytest.fixture
def spora(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A dataset directory written with pandas, numpy and zarr-python alone, (root, pixels, masks)."""
    root = tmp_path / "cords2024cancer"
    rng = np.random.default_rng(31)
    pixels, masks = {}, {}
    for name, measured in MEASURED.items():
        names = [c for c, m in zip(PANEL, measured, strict=True) if m]
        pixels[name] = rng.gamma(0.5, 3.0, (len(names), *SIZES[name])).astype(np.float32)
        write_image(root / f"imc/1_0mpp/images/{name}.ome.zarr", pixels[name], names)
        masks[name] = rng.random(SIZES[name]) < 0.7
        folder = root / "segmentations/1_0mpp/tissue_masks"
        folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(folder / f"{name}.npz", mask=masks[name])
    (root / "metadata").mkdir()
    pandas.DataFrame(
        {
            "tissue_id": list(MEASURED),
            "dataset": "cords2024cancer",
            "patient_id": ["p1", "p2"],
            "specimen_id": ["s1", "s2"],
            "modality": "imc",
            "alignment": [None, None],
            "split": ["train", "test"],
            "Age": [61.0, 58.5],
            "grade": ["G2", "G3"],
        }
    ).to_parquet(root / "metadata/tissues.parquet")
    pandas.DataFrame(
        {
            "channel_name": PANEL,
            "qc_pass": [True, True, False, True, True],
            "uniprot_id": ["P07766", None, "P46013", "P02452", "P01732"],
            "is_nuclear_marker": [False, True, True, False, False],
            "description": "x",
        }
    ).to_parquet(root / "imc/channels.parquet")
    pandas.DataFrame(
        np.array(list(MEASURED.values()), bool),
        index=pandas.Index(list(MEASURED), name="tissue_id"),
        columns=PANEL,
    ).to_parquet(root / "imc/channels_per_tissue.parquet")
    tiles = root / "tiling/1_0mpp/default"
    tiles.mkdir(parents=True)
    pandas.DataFrame(
        {
            "tissue_id": ["LC_1-A", "LC_1-A", "LC_2-B"],
            "tile_id": [0, 1, 0],
            "row": [0, 40, 70],
            "col": [5, 67, 24],
        }
    ).to_parquet(tiles / "64_tile_coordinates.parquet")
    return root, pixels, masks


def write_statistics(
    root: Path, pixels: dict[str, np.ndarray], masks: dict[str, np.ndarray]
) -> Any:
    """Image-level quantiles and global moments, as published, by the seed's formulas."""
    folder = root / "imc/1_0mpp/standardization/quantile_clipping_log1p/uq_0.99_image"
    folder.mkdir(parents=True)
    high = np.full((2, len(PANEL)), np.nan, np.float32)
    values: list[list[np.ndarray]] = [[] for _ in PANEL]
    for row, (name, measured) in enumerate(MEASURED.items()):
        for plane, column in enumerate(np.flatnonzero(measured)):
            inside = pixels[name][plane][masks[name]]
            high[row, column] = np.quantile(inside, 0.99)
            values[column].append(np.log1p(np.clip(inside, 0, high[row, column])))
    index = pandas.Index(list(MEASURED), name="tissue_id")
    pandas.DataFrame(high, index=index, columns=PANEL).to_parquet(
        folder / "image_level_upper_quantiles.parquet"
    )
    together = [np.concatenate(v).astype(float) for v in values]
    mean = np.array([[v.mean() for v in together]], np.float32)
    std = np.array([[v.std() for v in together]], np.float32)
    for name, table in (("means", mean), ("stds", std)):
        pandas.DataFrame(table, columns=PANEL).to_parquet(folder / f"global_level_{name}.parquet")
    return high, mean[0], std[0]


def test_images_masks_and_tables_open(spora: Any, tree: Any) -> None:
    root, pixels, masks = spora
    before = tree(root)
    layout = CohortLayout.open(root)
    one = layout.resolution(None)
    assert one == Resolution.parse(1)
    assert layout.modalities() == [IMCModality()]
    assert layout.read_manifest() == {}
    for name, source in pixels.items():
        image = MultiscaleImage.open(layout.image(IMCModality(), one, name))
        names = [c for c, m in zip(PANEL, MEASURED[name], strict=True) if m]
        assert list(image.channel_names or ()) == names
        assert measured_channels(layout, IMCModality(), name) == names
        assert (image.level_count, image.dtype) == (1, np.dtype(np.float32))
        np.testing.assert_array_equal(image.level(0)[...], source)
        found = read_tissue_mask(layout, one, name, source.shape[-2:])
        np.testing.assert_array_equal(found, masks[name])
    described = info(root)
    assert isinstance(described, CohortInfo)
    assert [row["tissue_id"] for row in described.tissues] == list(MEASURED)
    assert described.tilings == (
        {"resolution": "1_0mpp", "strategy": "default", "size": "64", "tissues": 2, "tiles": 3},
    )
    assert "source pixel size not recorded" in str(described)
    assert tree(root) == before


def test_tiles_standardized_by_its_tables(spora: Any, tree: Any) -> None:
    root, pixels, masks = spora
    high, mean, std = write_statistics(root, pixels, masks)
    before = tree(root)
    dataset = MultiplexImagingDataset(
        "cords2024cancer",
        "imc",
        path=root,
        standardization="quantile_clipping_log1p/uq_0.99_image",
        tile_size=64,
        split="train",
    )
    assert len(dataset) == 2
    assert dataset.tissue_modality_metadata["Age"].to_pylist() == [61.0]
    columns = np.flatnonzero(MEASURED["LC_1-A"])
    for tile_id, (row, col) in enumerate([(0, 5), (40, 67)]):
        window = pixels["LC_1-A"][:, row : row + 64, col : col + 64].astype(float)
        values = np.log1p(np.clip(window, 0, high[0, columns][:, None, None]))
        values -= mean[columns][:, None, None]
        values /= std[columns][:, None, None] + 1e-8
        expected = np.zeros((4, 64, 64))
        expected[:, : window.shape[1], : window.shape[2]] = values
        found = dataset.get_tile("LC_1-A", tile_id, kind="complete")
        np.testing.assert_allclose(found.image, expected, rtol=1e-4, atol=1e-5)
    # CD3 and CD8: measured, passed quality control, with an accession.
    assert dataset.get_tile("LC_1-A", 0).channel_names.tolist() == ["CD3", "CD8"]
    assert tree(root) == before


def test_our_statistics_on_its_pixels(spora: Any) -> None:
    root, pixels, masks = spora
    high, _, _ = write_statistics(root, pixels, masks)
    (directory,) = stats(root, method="quantile_clipping_log1p", overwrite=True)
    assert directory.name == "uq_0.99_image"
    ours = pandas.read_parquet(directory / "image_level_upper_quantiles.parquet")
    assert list(ours.index) == list(MEASURED)
    assert ours.index.name == "tissue_id"
    assert list(ours.columns) == PANEL
    np.testing.assert_allclose(ours.to_numpy(), high, rtol=1e-6)
    means = pandas.read_parquet(directory / "global_level_means.parquet")
    train = {name: m for name, m in MEASURED.items() if name == "LC_1-A"}
    for plane, column in enumerate(np.flatnonzero(train["LC_1-A"])):
        inside = pixels["LC_1-A"][plane][masks["LC_1-A"]]
        expected = np.log1p(np.clip(inside, 0, high[0, column])).astype(float).mean()
        assert means[PANEL[column]].iloc[0] == pytest.approx(expected, rel=1e-5)
    assert np.isnan(means["Collagen I"].iloc[0]), "not measured in the training split"


def test_it_can_be_added_to_and_stays_as_it_was(spora: Any) -> None:
    root, pixels, masks = spora
    rng = np.random.default_rng(2)
    ingest(
        rng.integers(0, 99, (2, 80, 80)).astype(np.float32),
        axes="cyx",
        mpp=1.0,
        cohort=root,
        tissue_id="new",
        modality="imc",
        channel_names=["CD20", "DNA1"],
        patient_id="p3",
    )
    assert not (root / "cohort.json").exists(), "what made it is not ours to say"
    table = pandas.read_parquet(root / "metadata/tissues.parquet").set_index("tissue_id")
    assert list(table.loc[["LC_1-A", "LC_2-B"], "grade"]) == ["G2", "G3"]
    assert table.loc["new", "patient_id"] == "p3"
    panel = pandas.read_parquet(root / "imc/channels.parquet")
    assert list(panel["channel_name"]) == [*PANEL, "CD20"]
    assert list(panel["description"][:5]) == ["x"] * 5
    measured = pandas.read_parquet(root / "imc/channels_per_tissue.parquet")
    assert list(measured.columns) == [*PANEL, "CD20"]
    np.testing.assert_array_equal(
        measured.loc[list(MEASURED), PANEL], np.array(list(MEASURED.values()), bool)
    )
    assert measured.loc["new"].tolist() == [False, True, False, False, False, True]
    dataset = MultiplexImagingDataset("c", "imc", path=root, standardization="identity")
    for name, source in pixels.items():
        np.testing.assert_array_equal(
            np.asarray(dataset.get_tissue(name, kind="complete").image), source
        )
    found = mask(root, tissues=["LC_1-A"])
    assert found["LC_1-A"] == masks["LC_1-A"].mean(), "its masks are kept"
    with pytest.raises(NotFoundError, match="'new'"):
        tile(root, tile_size=32)
    tiles = tile(root, tile_size=32, tissues=list(MEASURED))
    assert set(tiles.tissue_ids) == set(MEASURED)


def test_channels_of_a_tissue_are_not_made_up(spora: Any) -> None:
    root, _, _ = spora
    (root / "imc/channels_per_tissue.parquet").unlink()
    dataset = MultiplexImagingDataset("c", "imc", path=root, standardization="identity")
    with pytest.raises(FormatError, match=r"channels_per_tissue.*4 of the 5 channels"):
        dataset.get_tissue("LC_1-A")


def test_a_table_of_channels_that_all_measured_may_be_missing(imc: Any) -> None:
    root, sources = imc
    (root / "imc/channels_per_tissue.parquet").unlink()
    dataset = MultiplexImagingDataset("c", "imc", path=root, standardization="identity")
    found = dataset.get_tissue("a", kind="complete")
    np.testing.assert_array_equal(np.asarray(found.image), sources["a"])
    assert found.measured_mask.all()
    stats(root)  # counts all of them, too
    spec = "quantile_clipping/uq_0.99_image"
    again = MultiplexImagingDataset("c", "imc", path=root, standardization=spec)
    assert again.get_channel_names("a").tolist() == found.channel_names.tolist()


def test_an_image_without_units_has_no_pixel_size(spora: Any) -> None:
    root, _, _ = spora
    path = root / "imc/1_0mpp/images/LC_1-A.ome.zarr/zarr.json"
    document = json.loads(path.read_text())
    for axis in document["attributes"]["ome"]["multiscales"][0]["axes"]:
        axis.pop("unit", None)
    path.write_text(json.dumps(document))
    image = MultiscaleImage.open(path.parent)
    with pytest.raises(NoResolutionError):
        image.require_mpp()
    dataset = MultiplexImagingDataset("c", "imc", path=root, standardization="identity")
    assert dataset.get_tissue("LC_1-A", kind="complete").image.shape == (4, 97, 131)


def test_what_spora_io_looks_for_in_ours(imc: Any) -> None:
    # Its loader opens level "0", sets tissue_id as index, and reads tables by these names.
    root, sources = imc
    tile(root, tile_size=48)
    stats(root)
    table = pandas.read_parquet(root / "metadata/tissues.parquet")
    assert {"tissue_id", "modality", "patient_id", "split"} <= set(table.columns)
    table = table.set_index("tissue_id")
    for name, source in sources.items():
        array = zarr.open_array(root / f"imc/1_0mpp/images/{name}.ome.zarr/0", mode="r")
        np.testing.assert_array_equal(array[...], source)
        assert table.loc[name, "modality"] == "imc"
    tiles = pandas.read_parquet(root / "tiling/1_0mpp/default/48_tile_coordinates.parquet")
    assert {"tissue_id", "tile_id", "row", "col"} <= set(tiles.columns)
    assert tiles["tile_id"].dtype == tiles["row"].dtype == tiles["col"].dtype == np.int64
    tile_stats = pandas.read_parquet(root / "tiling/1_0mpp/default/48_tile_stats.parquet")
    assert {"num_tiles", "coverage_ratio", "stop_reason"} <= set(tile_stats.columns)
    quantiles = pandas.read_parquet(
        root / "imc/1_0mpp/standardization/quantile_clipping/uq_0.99_image"
        "/image_level_upper_quantiles.parquet"
    )
    assert list(quantiles.index) == list(sources)
    assert pq.read_schema(root / "imc/channels.parquet").field("qc_pass").type == pa.bool_()


def test_a_foreign_cohort_is_checked_as_it_is(spora: Any, tree: Any) -> None:
    """Made whole by another tool, it has nothing to tell of; a modality of its own is told, not fallen over."""
    root, pixels, masks = spora
    write_statistics(root, pixels, masks)
    cells = pandas.DataFrame({"tissue_id": ["LC_1-A"], "cell_id": [3], "cell_type": ["T"]})
    cells.to_parquet(root / "metadata/cells.parquet")
    instances = root / "segmentations/1_0mpp/cell_masks/instances"
    instances.mkdir(parents=True)
    np.savez_compressed(instances / "LC_1-A.npz", mask=np.full((97, 131), 3, np.uint16))
    before = tree(root)
    assert validate(root, checksums=True, cells=True) == []
    assert tree(root) == before
    shutil.copytree(root / "imc/1_0mpp/images", root / "maldi/1_0mpp/images")
    table = pandas.read_parquet(root / "metadata/tissues.parquet")
    row = table.iloc[:1].assign(modality="maldi")
    pandas.concat([table, row]).to_parquet(root / "metadata/tissues.parquet")
    found = validate(root, checksums=True, cells=True)
    assert [(f.severity, f.kind, f.place) for f in found] == [
        ("error", "unknown-modality", "metadata/tissues.parquet"),
        ("error", "unknown-modality", "maldi"),
    ]


def test_a_mask_is_read_whatever_other_threads_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = np.random.default_rng(0).integers(0, 9, (20, 30))
    np.savez(tmp_path / "a.npz", mask=mask)
    real, times = np.lib.format.read_magic, iter([2, 9])

    def stumbling(left: int) -> None:
        count = iter(range(left))

        def read_magic(file: Any) -> Any:
            if next(count, None) is not None:
                msg = "AST constructor recursion depth mismatch (before=45, after=42)"
                raise SystemError(msg)
            return real(file)

        monkeypatch.setattr(np.lib.format, "read_magic", read_magic)

    stumbling(next(times))
    np.testing.assert_array_equal(load_npz_mask(tmp_path / "a.npz"), mask)
    stumbling(next(times))
    with pytest.raises(FormatError, match="is not a mask archive"):
        load_npz_mask(tmp_path / "a.npz")
