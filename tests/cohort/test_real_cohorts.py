"""Cohorts of real images: three IMC slides, a MIBI field, and IHC with fluorescence of one tissue."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import skimage.io
import tifffile
from numpy.typing import NDArray

from microtome.cohort import (
    CohortLayout,
    ComposedImagingDataset,
    MultiplexImagingDataset,
    SporaDataset,
    add_cell_masks,
    ingest,
    mask,
    read_tissue_mask,
    stats,
    tile,
    update_panel,
    validate,
)
from microtome.coordinates import Resolution
from microtome.errors import FormatError, InvalidInputError

ONE = Resolution.parse(1.0)
SPEC = "quantile_clipping/uq_0.99_image"
# The planes of steinbock's images, in the order of its panel.
PLANES = ("Ag107", "Cytokeratin 5", "Laminin", "YBX1", "H3K27Ac")


def errors_of(root: Path) -> list[str]:
    return [str(found) for found in validate(root) if found.severity == "error"]


@pytest.fixture(scope="module")
def imc_slides(
    shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, NDArray[np.float32]]]:
    """Three slides of three regions, each slide a patient, and the pixels of every region."""
    root = tmp_path_factory.mktemp("real") / "imc"
    pixels: dict[str, NDArray[np.float32]] = {}
    for path in sorted((shared_data / "imc" / "img").glob("*.tiff")):
        slide, region = path.stem.removeprefix("20210305_NE_mockData").split("_")
        tissue_id = f"slide{slide}_{region}"
        pixels[tissue_id] = tifffile.imread(path)
        ingest(
            path,
            cohort=root,
            tissue_id=tissue_id,
            modality="imc",
            mpp=1.0,
            channel_names=PLANES,
            patient_id=f"slide{slide}",
            split="test" if slide == "3" else "train",
        )
        inside = np.ones(pixels[tissue_id].shape[-2:], np.bool_)
        place = root / "segmentations/1_0mpp/tissue_masks"
        place.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(place / f"{tissue_id}.npz", mask=inside)
        add_cell_masks(root, tissue_id, tifffile.imread(shared_data / "imc" / "masks" / path.name))
    assert len(pixels) == 9
    tile(root, tile_size=32, method="grid", strategy="default", tolerance=0.9)
    stats(root, exact=True)
    return root, pixels


def test_imc_regions_are_what_steinbock_wrote(imc_slides: Any) -> None:
    root, pixels = imc_slides
    data = MultiplexImagingDataset("imc", "imc", path=root, standardization="identity")
    assert data.get_tissue_ids().tolist() == list(pixels)
    assert data.channel_names == PLANES
    for tissue_id, source in pixels.items():
        found = data.get_tissue(tissue_id)
        np.testing.assert_array_equal(np.asarray(found.image), source)
    assert errors_of(root) == []


def test_imc_tiles_are_standardized_as_numpy_does(imc_slides: Any) -> None:
    root, pixels = imc_slides
    data = MultiplexImagingDataset(
        "imc", "imc", path=root, standardization=SPEC, tile_size=32, disable_quantile_mask=True
    )
    upper = {
        name: np.quantile(p.reshape(5, -1).astype(float), 0.99, axis=1).astype(np.float32)
        for name, p in pixels.items()
    }

    def clipped(name: str) -> NDArray[np.float64]:
        high = upper[name].astype(float)[:, None, None]
        return np.clip(pixels[name], 0, high) / (high + 1e-8)

    train = [name for name in pixels if not name.startswith("slide3")]
    fitted = np.concatenate([clipped(name).reshape(5, -1) for name in train], axis=1)
    mean, std = (v[:, None, None] for v in (fitted.mean(1), fitted.std(1)))
    seen = 0
    for region in [data[i] for i in range(len(data))]:
        told = region.additional_metadata
        row, col = region.region_spec["coords"]
        expected = (clipped(told["tissue_id"]) - mean) / (std + 1e-8)
        inside = expected[:, row : row + 32, col : col + 32]
        found = region.data[:, : inside.shape[1], : inside.shape[2]]
        np.testing.assert_allclose(found, inside, rtol=1e-3, atol=1e-4)
        seen += 1
    assert seen > 20


def test_imc_cells_come_with_their_tiles(imc_slides: Any, shared_data: Path) -> None:
    root, _ = imc_slides
    data = MultiplexImagingDataset(
        "imc", "imc", path=root, standardization="identity", tile_size=32, with_masks=True
    )
    names = sorted((shared_data / "imc" / "masks").glob("*.tiff"))
    labels = dict(zip(data.get_tissue_ids().tolist(), map(tifffile.imread, names), strict=True))
    cells = 0
    for region in [data[i] for i in range(len(data))]:
        told = region.additional_metadata
        row, col = region.region_spec["coords"]
        inside = labels[told["tissue_id"]][row : row + 32, col : col + 32]
        part = told["cell_mask"]
        np.testing.assert_array_equal(part[: inside.shape[0], : inside.shape[1]], inside)
        assert not part[inside.shape[0] :].any()
        cells += len(np.unique(part)) - 1
    assert cells > 50


def test_a_region_smaller_than_a_tile_has_a_whole_tile(imc_slides: Any) -> None:
    root, pixels = imc_slides
    tile(root, tile_size=64, method="grid", strategy="large", tolerance=0.9)
    data = MultiplexImagingDataset(
        "imc",
        "imc",
        path=root,
        standardization="identity",
        tile_size=64,
        tile_strategy="large",
    )
    found = data.get_tile("slide1_003", 0)  # 43 x 50
    assert tuple(found.image.shape) == (5, 64, 64)
    np.testing.assert_array_equal(np.asarray(found.image)[:, :43, :50], pixels["slide1_003"])
    assert not np.asarray(found.image)[:, 43:].any()
    assert not np.asarray(found.image)[..., 50:].any()


def test_steinbocks_panel_joins_the_cohort(imc_slides: Any, shared_data: Path) -> None:
    root, _ = imc_slides
    found = update_panel(root, "imc", shared_data / "imc" / "steinbock_panel.csv")
    assert str(found)
    rows = pq.read_table(root / "imc/channels.parquet").to_pylist()
    assert [row["channel_name"] for row in rows] == list(PLANES)
    assert [row["is_nuclear_marker"] for row in rows] == [False, False, False, False, True]


@pytest.fixture(scope="module")
def mibi_field(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("real") / "mibi"
    source = next((shared_data / "mibi").glob("fov8_RowNumber0*.tiff"))
    ingest(
        source,
        cohort=root,
        tissue_id="fov8",
        modality="mibi",
        resolution="0_390625mpp",
        split="train",
    )
    add_cell_masks(
        root, "fov8", tifffile.imread(shared_data / "mibi" / "fov8_whole_cell_mask.tiff")
    )
    mask(root)
    tile(root, tile_size=32, method="strips", strategy="default", resolution=1.0)
    stats(root, resolution=1.0)
    return root


def test_mibi_is_served_at_a_coarser_resolution(mibi_field: Path, shared_data: Path) -> None:
    source = tifffile.imread(next((shared_data / "mibi").glob("fov8_RowNumber0*.tiff")))
    data = MultiplexImagingDataset(
        "mibi", "mibi", path=mibi_field, standardization="identity", resolution=1.0
    )
    whole = np.asarray(data.get_tissue("fov8").image)
    assert whole.shape == (22, 400, 400)
    # 2.56 pixels a pixel: 25 of the one are 64 of the other, and hold the same counts.
    fine = source.reshape(22, 16, 64, 16, 64).astype(float).sum((2, 4))
    coarse = whole.reshape(22, 16, 25, 16, 25).astype(float).sum((2, 4)) * 2.56**2
    np.testing.assert_allclose(coarse, fine, rtol=1e-4, atol=1e-2)
    cells = data.get_cell_instance_mask("fov8").mask
    assert cells.shape == (400, 400)
    assert 250 < len(np.unique(cells)) - 1 <= 272  # some are smaller than a pixel
    assert errors_of(mibi_field) == []


def test_both_cohorts_as_one_stream(imc_slides: Any, mibi_field: Path) -> None:
    root, _ = imc_slides
    (root.parent / "mibi").symlink_to(mibi_field)
    kwargs = {name: {"standardization": SPEC} for name in ("imc", "mibi")}
    data = SporaDataset(
        ["imc", "mibi"],
        datasets_dir=root.parent,
        tile_size=32,
        split="train",
        alpha=0.5,
        replacement=True,
        epoch_length=400,
        modality_kwargs=kwargs,
        seed=3,
    )
    drawn = data.draw(0, len(data))
    names = data.tile_index["dataset_name"].to_pylist()
    counts = np.array([names.count("imc"), names.count("mibi")], float)
    share = np.bincount(drawn.dataset, minlength=2) / len(data)
    weight = np.sqrt(counts) / np.sqrt(counts).sum()
    assert abs(share[0] - weight[0]) < 4 * np.sqrt(weight.prod() / len(data))
    samples = data.__getitems__(range(12))
    for sample in samples:
        (name,) = sample["modalities"]
        assert name == sample["dataset_name"]
        image = sample["modalities"][name].image
        assert tuple(image.shape[-2:]) == (32, 32)
        assert np.isfinite(np.asarray(image)).all()
        assert not sample["tissue_id"].startswith("slide3")


def test_ihc_and_fluorescence_of_one_tissue(shared_data: Path, tmp_path: Path) -> None:
    panels = skimage.io.imread(shared_data / "ihc_mif" / "Lung1.png")[..., :3]
    ihc, _, dapi, lap2, marker, labels = np.split(panels, 6, axis=1)
    fluorescence = np.stack([dapi.max(-1), lap2.max(-1), marker.max(-1)])
    common: dict[str, Any] = {"cohort": tmp_path / "c", "tissue_id": "lung1", "mpp": 0.5}
    ingest(ihc, axes="yxc", modality="ihc_Ki67", resolution=0.5, **common)
    ingest(
        fluorescence,
        axes="cyx",
        modality="cycif",
        resolution=0.5,
        channel_names=["DAPI", "Lap2", "Ki67"],
        **common,
    )
    nuclei = skimage.measure.label(labels.max(-1) > 128).astype(np.uint16)
    add_cell_masks(tmp_path / "c", "lung1", nuclei)
    mask(tmp_path / "c", modality="cycif")
    tile(tmp_path / "c", tile_size=128, method="grid", strategy="default", tolerance=0.99)
    both = ComposedImagingDataset(
        "c",
        ["ihc", "cycif"],
        path=tmp_path / "c",
        tile_size=128,
        modality_kwargs={
            "ihc": {"mean_std_type": "raw", "with_masks": True},
            "cycif": {"standardization": "identity"},
        },
    )
    assert both.get_available_modalities() == ["ihc_Ki67", "cycif"]
    assert len(both) > 8
    for item in both.__getitems__(range(len(both))):
        row, col = item.modalities["cycif"].region.region_spec["coords"]
        window = np.s_[row : row + 128, col : col + 128]
        expected = fluorescence[:, *window].astype(np.float32)
        np.testing.assert_array_equal(np.asarray(item.modalities["cycif"].image), expected)
        colours = np.moveaxis(ihc[window], -1, 0).astype(np.float32)
        np.testing.assert_allclose(
            np.asarray(item.modalities["ihc_Ki67"].image), colours, atol=1e-3
        )
        np.testing.assert_array_equal(item.modalities["ihc_Ki67"].cell_mask, nuclei[window])
    assert errors_of(tmp_path / "c") == []


def test_statistics_of_another_panel_are_refused(imc_slides: Any, tmp_path: Path) -> None:
    root = Path(shutil.copytree(imc_slides[0], tmp_path / "c"))
    path = root / "imc/1_0mpp/standardization" / SPEC / "image_level_upper_quantiles.parquet"
    table = pq.read_table(path)
    kept = [name for name in table.column_names if name != "Laminin"]
    pq.write_table(table.select(kept), path)
    assert any("Laminin" in line for line in errors_of(root))
    data = MultiplexImagingDataset(
        "imc", "imc", path=root, standardization=SPEC, tile_size=32, stats_level="global"
    )
    with pytest.raises((FormatError, KeyError), match="Laminin"):
        _ = data[0]


def test_quantiles_that_are_nan_leave_the_channel_out_or_are_told(
    imc_slides: Any, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(imc_slides[0], tmp_path / "c"))
    path = root / "imc/1_0mpp/standardization" / SPEC / "image_level_upper_quantiles.parquet"
    table = pq.read_table(path)
    values = [float("nan")] * len(table)
    place = table.column_names.index("YBX1")
    broken = table.set_column(place, "YBX1", pa.array(values, pa.float32()))
    pq.write_table(broken.replace_schema_metadata(table.schema.metadata), path)
    assert any("YBX1" in line for line in map(str, validate(root)))


def test_masks_are_those_of_the_regions(imc_slides: Any) -> None:
    root, pixels = imc_slides
    layout = CohortLayout.open(root)
    for name, source in pixels.items():
        assert read_tissue_mask(layout, ONE, name, source.shape[-2:]).all()
    with pytest.raises(InvalidInputError, match="finer"):
        layout.resolution(0.5)
