"""Ten things that spora_io gets wrong, each done right: a test by its number in our notes on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import ndimage

from microtome.cohort import (
    CohortLayout,
    HEImagingDataset,
    MultiplexImagingDataset,
    SporaDataset,
    ingest,
    mask,
    read_tissue_mask,
    stats,
    tile,
)
from microtome.coordinates import Resolution
from microtome.errors import FormatError, InvalidInputError
from microtome.tiling import best_mask_tiling_try_to_stop

ONE = Resolution.parse(1.0)


def multiplex(root: Path, standardization: str = "identity", **options: Any) -> Any:
    return MultiplexImagingDataset(
        "c", "imc", path=root, standardization=standardization, **options
    )


def inside(root: Path, name: str, source: np.ndarray) -> np.ndarray:
    """Pixels of a tissue inside its mask, (C, n), in doubles."""
    where = read_tissue_mask(CohortLayout.open(root), ONE, name, source.shape[-2:])
    return source[:, where].astype(float)


@pytest.mark.parametrize("quantile_level", ["image", "global"])
@pytest.mark.parametrize("stats_level", ["image", "global"])
@pytest.mark.parametrize("lower", [None, 0.05])
def test_1_every_combination_of_levels_can_be_loaded(
    imc: Any, quantile_level: Any, stats_level: Any, lower: float | None
) -> None:
    root, sources = imc
    stats(
        root,
        exact=True,
        quantile_level=quantile_level,
        stats_level=stats_level,
        lower_quantile=lower,
    )
    spec = f"quantile_clipping/uq_0.99{f'_lq_{lower}' if lower else ''}_{quantile_level}"
    data = multiplex(root, spec, quantile_level=quantile_level, stats_level=stats_level)
    pixels = {name: inside(root, name, source) for name, source in sources.items()}

    def bounds(name: str) -> tuple[np.ndarray, np.ndarray]:
        those = pixels[name]
        if quantile_level == "global":
            those = np.concatenate([pixels["a"], pixels["b"]], axis=1)  # the training split
        low = np.quantile(those, lower, axis=1) if lower else np.zeros(len(those))
        high = np.quantile(those, 0.99, axis=1)
        return low.astype(np.float32)[:, None], high.astype(np.float32)[:, None]

    def clipped(name: str, values: np.ndarray) -> np.ndarray:
        low, high = bounds(name)
        return (np.clip(values, low, high) - low) / (high - low + 1e-8)

    fitted = {name: clipped(name, values) for name, values in pixels.items()}
    for name, source in sources.items():
        own = fitted[name]
        if stats_level == "global":
            own = np.concatenate([fitted["a"], fitted["b"]], axis=1)
        whole = clipped(name, source.reshape(3, -1).astype(float)).reshape(source.shape)
        expected = (whole - own.mean(1)[:, None, None]) / (own.std(1)[:, None, None] + 1e-8)
        found = data.get_tissue(name, "complete").image
        np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-4, atol=1e-4)


def test_2_channels_last_with_preprocessing(he: Any) -> None:
    root, sources = he
    found = HEImagingDataset("c", path=root).get_tissue("t1", image_mode="HWC")
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = (np.moveaxis(sources["t1"], 0, -1) / 255 - mean) / std
    np.testing.assert_allclose(np.asarray(found.image), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "values",
    [
        pa.array(["b", "a", "c"], pa.string()),
        pa.array(["b", "a", "c"], pa.large_string()),
        pa.array(["b", "a", "c"]).dictionary_encode(),
        pa.array([2, 1, 3], pa.int16()),
        pa.array([2.0, 1.0, 3.0]),
        pa.array([True, False, True]),
    ],
    ids=lambda values: str(values.type),
)
def test_3_labels_of_any_type_keep_their_codes_in_every_split(imc: Any, values: Any) -> None:
    root, _ = imc
    path = root / "metadata/tissues.parquet"
    pq.write_table(pq.read_table(path).append_column("grade", values), path)
    whole = multiplex(root, label="grade").label_encoder
    assert list(whole) == sorted(set(values.to_pylist()))
    assert list(whole.values()) == list(range(len(whole)))
    for split, tissues in (("train", "ab"), ("test", "c")):
        data = multiplex(root, label="grade", split=split)
        assert data.label_encoder == whole
        assert data.get_tissue_ids().tolist() == list(tissues)


@pytest.mark.parametrize("goal", [0.5, 0.8, 0.95])
def test_4_no_least_gain_stops_exactly_at_the_goal(goal: float) -> None:
    rng = np.random.default_rng(2)
    tissue = ndimage.gaussian_filter(rng.random((160, 200)), 9) > 0.5
    tiles, found, covered = best_mask_tiling_try_to_stop(
        tissue, 16, 8, 0.9, coverage_goal=goal, min_gain_ratio=0
    )
    gains = np.asarray([t.gain for t in tiles])
    share = np.cumsum(gains) / tissue.sum()
    assert share[-1] >= goal > share[-2]
    assert (covered & tissue).sum() == gains.sum()
    assert found["stop_reason"] == "coverage_goal"


def test_5_a_tissue_smaller_than_a_tile_has_a_whole_one(imc: Any) -> None:
    root, sources = imc
    tile(root, tile_size=150, method="cover", tolerance=0.9)
    data = multiplex(root, tile_size=150)
    found = np.asarray(data.get_tile("b", 0, "complete").image)  # 99 x 130
    assert found.shape == (3, 150, 150)
    np.testing.assert_array_equal(found[:, :99, :130], sources["b"])
    assert not found[:, 99:].any()
    assert not found[..., 130:].any()


def test_6_tiles_go_by_their_key_in_the_table_that_is_there_now(imc: Any) -> None:
    root, sources = imc
    tile(root, tile_size=32, method="grid", strategy="default", tolerance=0.9)
    path = root / "tiling/1_0mpp/default/32_tile_coordinates.parquet"
    table = pq.read_table(path)
    before = multiplex(root, tile_size=32)
    rows = table.to_pylist()[::-1]
    for row in rows:
        row["tile_id"] += 1000
    pq.write_table(pa.Table.from_pylist(rows), path)
    after = multiplex(root, tile_size=32)
    for data, shift in ((before, 0), (after, 1000)):
        for row in rows[:5]:
            key = row["tissue_id"], row["tile_id"] - 1000 + shift
            part = sources[row["tissue_id"]][
                :, row["row"] : row["row"] + 32, row["col"] : row["col"] + 32
            ]
            found = np.asarray(data.get_tile(*key, "complete").image)
            np.testing.assert_array_equal(found[:, : part.shape[1], : part.shape[2]], part)


@pytest.mark.parametrize("form", ["1_0mpp", "1.0", "1", 1, 1.0], ids=repr)
def test_7_a_resolution_is_one_value(imc: Any, form: Any) -> None:
    root, _ = imc
    tile(root, tile_size=48, method="grid", strategy="default", tolerance=0.9, resolution=form)
    data = multiplex(root, tile_size=48, resolution=form)
    many = SporaDataset(
        ["cohort"],
        datasets_dir=root.parent,
        resolution=form,
        tile_size=48,
        modality_kwargs={"imc": {"standardization": "identity"}},
    )
    assert len(data) == len(many) > 8


def test_8_overlap_is_of_tissue() -> None:
    tissue = np.zeros((64, 96), bool)
    tissue[:, :40] = True
    _, found, _ = best_mask_tiling_try_to_stop(tissue, 32, 16, 0.9, 1.0, 0.01)
    # Counted by hand: how often each pixel of tissue is covered beyond once.
    tiles, _, _ = best_mask_tiling_try_to_stop(tissue, 32, 16, 0.9, 1.0, 0.01)
    times = np.zeros((96, 128), int)
    for one in tiles:
        times[one.row : one.row + 32, one.col : one.col + 32] += 1
    twice = int(((times[:64, :96] > 1) & tissue).sum())
    assert found["overlap_valid_pixels"] == twice


def test_8_patients_with_numbers_for_names_are_found(imc: Any) -> None:
    root, _ = imc
    path = root / "metadata/tissues.parquet"
    table = pq.read_table(path)
    place = table.column_names.index("patient_id")
    pq.write_table(table.set_column(place, "patient_id", pa.array([7, 8, 7], pa.int32())), path)
    assert [t.tissue_id for t in multiplex(root).get_tissue_by_patient("7")] == ["a", "c"]


def test_8_without_tiles_there_is_no_tile(imc: Any) -> None:
    root, _ = imc
    with pytest.raises(InvalidInputError, match="tile_size"):
        multiplex(root).get_tile("a", 0)
    with pytest.raises(InvalidInputError, match="microtome tile"):
        multiplex(root, tile_size=120)  # as high as tissue c


def test_8_an_image_is_opened_once(imc: Any) -> None:
    root, _ = imc
    tile(root, tile_size=32, method="grid", strategy="default", tolerance=0.9)
    data = multiplex(root, tile_size=32)
    first = data.image("a")
    for number in range(len(data)):
        _ = data[number]
    assert data.image("a") is first


@pytest.mark.parametrize("exact", [True, False])
def test_9_a_channel_far_from_zero_has_a_true_deviation(
    tmp_path: Path, write: Any, exact: bool
) -> None:
    root = tmp_path / "c"
    rng = np.random.default_rng(0)
    # Floats of 1e6 with a deviation of 0.05: a difference of large sums would lose it, or go below 0.
    pixels = (1e6 + 0.0625 * rng.integers(0, 3, (1, 200, 200))).astype(np.float32)
    ingest(
        pixels, axes="cyx", mpp=1, cohort=root, tissue_id="t", modality="imc", channel_names=["x"]
    )
    write(root, "t", np.ones((200, 200), bool))
    stats(root, method="zscore", exact=exact)
    place = next((root / "imc/1_0mpp/standardization/zscore").glob("**/global_level_stds.parquet"))
    found = pq.read_table(place)["x"].to_pylist()[0]
    assert found == pytest.approx(pixels.astype(float).std(), rel=1e-5)


def test_9_a_tissue_that_cannot_be_read_is_an_error(imc: Any) -> None:
    root, _ = imc
    files = (root / "imc/1_0mpp/images/b.ome.zarr/0/c").rglob("*")
    chunk = next(path for path in files if path.is_file())
    damaged = bytearray(chunk.read_bytes())
    damaged[: len(damaged) // 2] = bytes(len(damaged) // 2)
    chunk.write_bytes(damaged)
    with pytest.raises(FormatError, match=r"b\.ome\.zarr"):
        stats(root)
    assert not list(root.glob("imc/1_0mpp/standardization/**/*upper_quantiles.parquet"))


def test_10_filters_see_past_a_tile_and_padding_is_zero(imc: Any) -> None:
    root, _ = imc
    tile(root, tile_size=48, method="grid", strategy="default", tolerance=0.9)
    stats(root)
    data = multiplex(
        root, "quantile_clipping/uq_0.99_image", tile_size=48, filter_list=["gaussian_blur"]
    )
    hanging = 0
    for region in [data[i] for i in range(len(data))]:
        whole = np.asarray(
            data.get_tissue(region.additional_metadata["tissue_id"], "complete").image
        )
        row, col = region.region_spec["coords"]
        part = whole[:, row : row + 48, col : col + 48]
        np.testing.assert_array_equal(region.data[:, : part.shape[1], : part.shape[2]], part)
        assert not region.data[:, part.shape[1] :].any()
        assert not region.data[..., part.shape[2] :].any()
        hanging += part.shape != region.data.shape
    assert hanging


def test_10_glass_beside_a_slide_is_zero_not_black(he: Any) -> None:
    root, _ = he
    mask(root)
    tile(root, tile_size=64, method="grid", strategy="default", tolerance=0.9)
    data = HEImagingDataset("c", path=root, tile_size=64)
    found = np.asarray(data.get_tile_by_coordinates("t1", 301 - 10, 0).image)
    assert (found[:, :10] != 0).all()
    assert not found[:, 10:].any()
