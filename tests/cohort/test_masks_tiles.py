"""`mask` and `tile`: tissue where it is, on the pixel grid of the image, and tiles that lie on it."""

from __future__ import annotations

import logging
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.ndimage

from microtome.cohort import (
    CohortLayout,
    HEModality,
    IMCModality,
    ingest,
    mask,
    open_tiles,
    open_tissue_mask,
    read_tissue_mask,
    tile,
    tissues_with_images,
)
from microtome.coordinates import Resolution
from microtome.errors import (
    ExistsError,
    FormatError,
    InvalidInputError,
    NotFoundError,
    UnknownNameError,
)
from microtome.image import MultiscaleImage

HALF = Resolution.parse(0.5)


def disc(height: int, width: int, scale: float = 1.0) -> np.ndarray:
    """Where `slide_pixels` of the fixture draws tissue, larger or smaller."""
    y, x = np.mgrid[:height, :width]
    return (
        ((y - height / 2) / (0.36 * height * scale)) ** 2
        + ((x - width / 2) / (0.4 * width * scale)) ** 2
    ) < 1


def store(root: Path, tissue_id: str, tissue: np.ndarray, resolution: Resolution = HALF) -> None:
    """Write a mask as spora_io does."""
    path = root / "segmentations" / resolution.directory / "tissue_masks" / f"{tissue_id}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, mask=tissue)


# -- mask


def test_tissue_is_found_where_it_is(he: Any) -> None:
    root, pixels = he
    shares = mask(root)
    layout = CohortLayout.open(root)
    assert list(shares) == ["t1", "t2"]
    for tissue_id, share in shares.items():
        shape = pixels[tissue_id].shape[-2:]
        found = read_tissue_mask(layout, HALF, tissue_id, shape)
        assert found.dtype == np.bool_
        assert share == found.mean()
        # Detection sees 8 um, 16 of these pixels.
        distance = scipy.ndimage.distance_transform_edt
        assert found[distance(disc(*shape)) > 16].all()
        assert not found[distance(~disc(*shape)) > 32].any()
        labels = open_tissue_mask(layout, HALF, tissue_id)
        assert labels.kind == "labels"
        assert labels.level_shape(0)[-2:] == shape
        assert (labels.require_mpp().y, labels.require_mpp().x) == (0.5, 0.5)
        assert labels.metadata["microtome"]["mask"]["from"] == "he"


def test_masks_that_are_there_are_kept(
    he: Any, tree: Any, caplog: pytest.LogCaptureFixture
) -> None:
    root, pixels = he
    store(root, "t1", np.ones(pixels["t1"].shape[-2:], bool))
    mask(root)
    before = tree(root)
    with caplog.at_level(logging.INFO, "microtome"):
        shares = mask(root)
    assert shares["t1"] == 1.0
    assert tree(root) == before
    assert "is there already" in caplog.text
    with pytest.raises(ExistsError, match=r"t1\.npz.*another tool"):
        mask(root, overwrite=True)
    shares = mask(root, tissues=["t2"], overwrite=True)
    assert list(shares) == ["t2"]
    assert tree(root) == before, "the same image gives the same bytes"


def test_a_mask_may_be_made_of_one_modality(he: Any) -> None:
    root, pixels = he
    rng = np.random.default_rng(0)
    counts = rng.poisson(1, (2, *pixels["t1"].shape[-2:])).astype(np.uint16)
    counts[:, :150, :] += rng.poisson(200, counts[:, :150, :].shape).astype(np.uint16)
    ingest(
        counts,
        axes="cyx",
        channel_names=["a", "b"],
        mpp=0.5,
        resolution=0.5,
        cohort=root,
        tissue_id="t1",
        modality="imc",
    )
    mask(root, modality="imc")
    layout = CohortLayout.open(root)
    labels = open_tissue_mask(layout, HALF, "t1")
    assert labels.metadata["microtome"]["mask"]["from"] == "imc"
    tissue = read_tissue_mask(layout, HALF, "t1", counts.shape[-2:])
    assert tissue[:120].mean() > 0.9
    assert tissue[180:].mean() < 0.1
    with pytest.raises(NotFoundError, match="t2"):
        open_tissue_mask(layout, HALF, "t2")


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        (
            {"tissues": ["t3"]},
            UnknownNameError,
            "'t3'.*; it has 2 tissues: t1, t2, imaged as he at",
        ),
        ({"tissues": ["t1", "t3"]}, UnknownNameError, "t3"),
        ({"modality": "imc"}, UnknownNameError, "imc"),
        ({"modality": "xray"}, UnknownNameError, "xray"),
        ({"resolution": 0.25}, InvalidInputError, "0_5mpp"),
        ({"method": "guess"}, InvalidInputError, "guess"),
    ],
    ids=["tissue", "one of two", "modality", "unknown", "resolution", "method"],
)
def test_masks_of_what_is_not_there(
    he: Any, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        mask(he[0], **options)


def test_a_tissue_without_a_mask_is_not_all_tissue(he: Any) -> None:
    root, pixels = he
    layout = CohortLayout.open(root)
    with pytest.raises(NotFoundError, match="microtome mask"):
        read_tissue_mask(layout, HALF, "t1", pixels["t1"].shape[-2:])
    store(root, "t1", np.ones(pixels["t1"].shape[-2:], bool))
    with pytest.raises(NotFoundError, match="t2"):
        tile(root, tile_size=64)


def test_a_mask_of_another_size_is_refused(he: Any) -> None:
    root, pixels = he
    store(root, "t1", np.ones((10, 10), bool))
    store(root, "t2", np.ones(pixels["t2"].shape[-2:], bool))
    with pytest.raises(FormatError, match=r"\(10, 10\).*\(301, 277\)"):
        tile(root, tile_size=64)


@pytest.mark.parametrize(
    "content",
    [
        {"other": np.ones((4, 4))},
        {"mask": np.array([{"a": 1}], dtype=object)},
        {"mask": np.ones((2, 4, 4), bool)},
        {"mask": np.ones((4, 4))},
    ],
    ids=["other name", "pickle", "three axes", "floats"],
)
def test_archives_that_are_no_masks(he: Any, content: dict[str, Any]) -> None:
    root, _ = he
    path = root / "segmentations/0_5mpp/tissue_masks/t1.npz"
    path.parent.mkdir(parents=True)
    np.savez(path, **content)
    with pytest.raises(FormatError, match=r"t1\.npz"):
        open_tissue_mask(CohortLayout.open(root), HALF, "t1")


def test_a_damaged_archive(he: Any) -> None:
    root, pixels = he
    store(root, "t1", np.random.default_rng(0).random(pixels["t1"].shape[-2:]) < 0.5)
    path = root / "segmentations/0_5mpp/tissue_masks/t1.npz"
    whole = path.read_bytes()
    array = BytesIO()
    np.save(array, np.ones((4, 4), bool))
    broken = whole[:200] + b"\0" * 50 + whole[250:]
    for data in (b"", whole[:50], whole[:-30], b"x" * 100, broken, array.getvalue()):
        path.write_bytes(data)
        with pytest.raises(FormatError, match=r"t1\.npz"):
            open_tissue_mask(CohortLayout.open(root), HALF, "t1")


# -- which tissues


def test_a_row_without_an_image_is_an_error(he: Any) -> None:
    root, _ = he
    shutil.rmtree(root / "he/0_5mpp/images/t2.ome.zarr")
    layout = CohortLayout.open(root)
    with pytest.raises(NotFoundError, match=r"'t2' as he.*missing"):
        tissues_with_images(layout, HALF)
    assert list(tissues_with_images(layout, HALF, tissues=["t1"])) == ["t1"]


def test_a_tissue_at_another_resolution_is_not_missing_at_this_one(he: Any) -> None:
    root, pixels = he
    ingest(
        np.moveaxis(pixels["t1"], 0, -1),
        axes="yxc",
        mpp=0.5,
        resolution=1.0,
        cohort=root,
        tissue_id="coarse",
        modality="he",
    )
    layout = CohortLayout.open(root)
    assert list(tissues_with_images(layout, HALF)) == ["t1", "t2"]
    # The others are finer, and served from there.
    assert list(tissues_with_images(layout, Resolution.parse(1.0))) == ["t1", "t2", "coarse"]
    assert list(mask(root, resolution=1.0)) == ["t1", "t2", "coarse"]


def test_modalities_of_a_tissue_come_in_a_stated_order(he: Any) -> None:
    root, pixels = he
    rgb = np.moveaxis(pixels["t1"], 0, -1)
    options: dict[str, Any] = {"cohort": root, "tissue_id": "t1", "mpp": 0.5, "resolution": 0.5}
    ingest(rgb[..., 0].copy(), channel_names=["a"], modality="imc", **options)
    ingest(rgb, axes="yxc", modality="ihc_CD3", **options)
    found = tissues_with_images(CohortLayout.open(root), HALF)
    assert [str(m) for m in found["t1"]] == ["he", "ihc_CD3", "imc"]
    assert found["t2"] == [HEModality()]
    only = tissues_with_images(CohortLayout.open(root), HALF, modalities=[IMCModality()])
    assert only == {"t1": [IMCModality()]}


# -- tile


def masked(he: Any) -> tuple[Path, dict[str, np.ndarray]]:
    root, pixels = he
    tissues = {name: disc(*p.shape[-2:]) for name, p in pixels.items()}
    for name, tissue in tissues.items():
        store(root, name, tissue)
    return root, tissues


def box(tissue: np.ndarray, row: int, col: int, size: tuple[int, int]) -> np.ndarray:
    """Tissue inside a tile that may hang over the edge."""
    return tissue[max(row, 0) : max(row + size[0], 0), max(col, 0) : max(col + size[1], 0)]


@pytest.mark.parametrize("method", ["cover", "grid", "strips"])
@pytest.mark.parametrize("size", [48, (64, 32)])
def test_tiles_lie_on_tissue(he: Any, method: Any, size: Any) -> None:
    root, tissues = masked(he)
    table = tile(root, tile_size=size, method=method, tolerance=0.6)
    height, width = size if isinstance(size, tuple) else (size, size)
    text = "64x32" if isinstance(size, tuple) else "48"
    strategy = "default" if method == "cover" else method
    path = root / f"tiling/0_5mpp/{strategy}/{text}_tile_coordinates.parquet"
    rows = pq.read_table(path).to_pylist()
    assert len(rows) == len(table) > 10
    assert {row["tissue_id"] for row in rows} == {"t1", "t2"}
    covered = {name: np.zeros(t.shape, bool) for name, t in tissues.items()}
    for row in rows:
        tissue = tissues[row["tissue_id"]]
        inside = box(tissue, row["row"], row["col"], (height, width))
        share = inside.sum() / (height * width)
        assert share >= 0.4
        if "tissue_frac" in row:
            assert row["tissue_frac"] == pytest.approx(share, abs=1e-6)
        box(covered[row["tissue_id"]], row["row"], row["col"], (height, width))[...] = True
    stats = {row["tissue_id"]: row for row in stats_rows(root, strategy, text)}
    for name, tissue in tissues.items():
        mine = [row for row in rows if row["tissue_id"] == name]
        assert stats[name]["num_tiles"] == len(mine)
        assert [row["tile_id"] for row in mine] == list(range(len(mine)))
        assert (stats[name]["mask_height"], stats[name]["mask_width"]) == tissue.shape
        share = (covered[name] & tissue).sum() / tissue.sum()
        assert stats[name]["coverage_ratio"] == pytest.approx(share)
        assert stats[name]["total_valid_pixels"] == tissue.sum()


def stats_rows(root: Path, strategy: str, text: str) -> list[dict[str, Any]]:
    table = pq.read_table(root / f"tiling/0_5mpp/{strategy}/{text}_tile_stats.parquet")
    return table.to_pylist()


def test_tiles_are_not_replaced_unasked(he: Any, tree: Any) -> None:
    root, _ = masked(he)
    tile(root, tile_size=64)
    before = tree(root)
    with pytest.raises(ExistsError, match="--overwrite"):
        tile(root, tile_size=64, tolerance=0.1)
    assert tree(root) == before
    tile(root, tile_size=64, tolerance=0.1, strategy="strict")
    tile(root, tile_size=64, tolerance=0.1, overwrite=True)
    assert tree(root) != before
    tile(root, tile_size=64, overwrite=True)
    layout = CohortLayout.open(root)
    assert layout.tilings(HALF) == [("default", "64"), ("strict", "64")]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tile_size": 0}, "tile_size"),
        ({"tile_size": -5}, "tile_size"),
        ({"tile_size": (64, 0)}, "tile_size"),
        ({"stride": 0}, "stride"),
        ({"stride": -1}, "stride"),
        ({"tolerance": 1.5}, "tolerance"),
        ({"tolerance": -0.1}, "tolerance"),
        ({"coverage_goal": 2.0}, "coverage_goal"),
        ({"method": "guess"}, "guess"),
        ({"strategy": "../x"}, "strategy"),
        ({"resolution": 0.25}, "0_5mpp"),
    ],
    ids=str,
)
def test_wrong_arguments_of_tile(he: Any, tree: Any, options: dict[str, Any], words: str) -> None:
    root, _ = masked(he)
    before = tree(root)
    with pytest.raises(InvalidInputError, match=words):
        tile(root, **{"tile_size": 64, **options})
    assert tree(root) == before


def test_a_tissue_without_tissue_has_no_tiles(he: Any) -> None:
    root, tissues = masked(he)
    store(root, "t2", np.zeros(tissues["t2"].shape, bool))
    table = tile(root, tile_size=64)
    assert set(table.rows().tissue.tolist()) == {list(table.tissue_ids).index("t1")}
    stats = {row["tissue_id"]: row["num_tiles"] for row in stats_rows(root, "default", "64")}
    assert stats["t2"] == 0
    assert stats["t1"] == len(table)


def test_a_tissue_smaller_than_a_tile(he: Any) -> None:
    root, tissues = masked(he)
    table = tile(root, tile_size=400, tolerance=0.95)
    rows = table.rows()
    assert len(table) >= 1
    for row, col, name in zip(rows.row, rows.col, rows.tissue, strict=True):
        tissue = tissues[table.tissue_ids[int(name)]]
        assert box(tissue, int(row), int(col), (400, 400)).sum() / 400**2 >= 0.05


def test_progress_and_order(he: Any) -> None:
    root, _ = masked(he)
    told: list[tuple[str, int, int]] = []
    table = tile(root, tile_size=64, progress=lambda *step: told.append(step))
    assert told == [("tile", 1, 2), ("tile", 2, 2)]
    tissue = table.rows().tissue
    assert (np.diff(tissue) >= 0).all()


def test_tables_open_by_name(he: Any) -> None:
    root, _ = masked(he)
    made = tile(root, tile_size=64, strategy="mine")
    layout = CohortLayout.open(root)
    opened = open_tiles(layout, HALF, "mine", 64)
    assert opened.table.equals(made.table)
    for strategy, size in (("mine", 65), ("default", 64), ("mine", (64, 32))):
        with pytest.raises(InvalidInputError, match="it has mine 64"):
            open_tiles(layout, HALF, strategy, size)


def test_a_table_of_another_resolution_is_refused(he: Any) -> None:
    root, _ = masked(he)
    tile(root, tile_size=64)
    path = root / "tiling/0_5mpp/default/64_tile_coordinates.parquet"
    other = root / "tiling/1_0mpp/default/64_tile_coordinates.parquet"
    other.parent.mkdir(parents=True)
    shutil.copy(path, other)
    with pytest.raises(FormatError, match="0_5mpp"):
        open_tiles(CohortLayout.open(root), Resolution.parse(1.0), "default", 64)


def test_the_mask_lies_on_the_image(shared_data: Path, tmp_path: Path) -> None:
    # Darkness of the slide and its mask, correlated over shifts: the best is none.
    slide = shared_data / "wsi/cmu-1-small-region.svs"
    image = ingest(slide, cohort=tmp_path, tissue_id="t", modality="he", resolution=1.0)
    mask(tmp_path)
    labels = MultiscaleImage.open(
        CohortLayout.open(tmp_path).tissue_mask(Resolution.parse(1.0), "t")
    )
    rgb = image.level(0)[...].astype(np.float64)
    saturation = rgb.max(0) - rgb.min(0)
    tissue = labels.level(0)[...].astype(np.float64)
    assert 0.05 < tissue.mean() < 0.95
    a, b = saturation - saturation.mean(), tissue - tissue.mean()
    product = np.fft.irfft2(np.fft.rfft2(a) * np.conj(np.fft.rfft2(b)), a.shape)
    shift = np.unravel_index(np.argmax(product), a.shape)
    off = [(s + n // 2) % n - n // 2 for s, n in zip(shift, a.shape, strict=True)]
    assert max(abs(o) for o in off) <= 8, "within a pixel of the 8 um that detection sees"
    assert saturation[tissue > 0].mean() > 2 * saturation[tissue == 0].mean()


def test_a_tissue_without_tiles_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pixels = np.full((3, 60, 50), 200, np.uint8)
    pixels[0] = 90
    root = tmp_path / "c"
    ingest(pixels, axes="cyx", cohort=root, tissue_id="t", modality="he", mpp=1.0)
    mask(root)
    with caplog.at_level("WARNING", logger="microtome"):
        assert len(tile(root, tile_size=500)) == 0
    assert "t: no tile of 500 x 500 pixels" in caplog.text
    assert "60 x 50" in caplog.text or "mask is empty" in caplog.text


def test_one_more_tissue_leaves_the_tiles_of_others(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    root = tmp_path / "c"
    for name in ("t1", "t2"):
        pixels = rng.integers(0, 255, (3, 90, 80)).astype(np.uint8)
        ingest(pixels, axes="cyx", cohort=root, tissue_id=name, modality="he", mpp=1.0)
        mask(root)
    options: dict[str, Any] = {"tile_size": 32, "method": "grid"}
    everything = tile(root, strategy="all", **options)
    first = tile(root, tissues=["t1"], **options)
    assert first.tissue_ids == ("t1",)
    with pytest.raises(ExistsError, match="t1 made with other settings"):
        tile(root, tissues=["t1"], tolerance=0.1, **options)
    assert tile(root, tissues=["t1"], **options).table.equals(first.table)
    both = tile(root, tissues=["t2"], **options)
    assert both.tissue_ids == ("t1", "t2")
    again = tile(root, tissues=["t1"], overwrite=True, **options)
    assert sorted(again.tissue_ids) == ["t1", "t2"]
    for name in ("t1", "t2"):
        expected = everything.for_tissue(name).rows()
        for table in (both, again):
            found = table.for_tissue(name).rows()
            np.testing.assert_array_equal(found.row, expected.row)
            np.testing.assert_array_equal(found.col, expected.col)
    rows = {
        row["tissue_id"]: row
        for row in pq.read_table(root / "tiling/1_0mpp/grid/32_tile_stats.parquet").to_pylist()
    }
    assert {name: rows[name]["num_tiles"] for name in rows} == {
        name: len(everything.for_tissue(name)) for name in ("t1", "t2")
    }


def test_an_image_without_numbers_is_named(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).random((2, 40, 50)).astype(np.float32)
    pixels[1, 7, 9] = np.nan
    about: dict[str, Any] = {"tissue_id": "odd", "modality": "imc", "channel_names": ["A", "B"]}
    ingest(pixels, axes="cyx", cohort=tmp_path / "c", mpp=1.0, **about)
    with pytest.raises(InvalidInputError, match=r"odd\.ome\.zarr \(imc\): .*NaN or infinite"):
        mask(tmp_path / "c")


def test_masks_without_tissue_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pixels = np.full((1, 40, 50), 7, np.float32)
    about: dict[str, Any] = {"tissue_id": "odd", "modality": "imc", "channel_names": ["A"]}
    ingest(pixels, axes="cyx", cohort=tmp_path / "c", mpp=1.0, **about)
    with caplog.at_level(logging.WARNING, "microtome.cohort"):
        shares = mask(tmp_path / "c")
    assert ("no tissue was found in 1 of 1 images (odd)" in caplog.text) == (shares["odd"] == 0)
    caplog.clear()
    with caplog.at_level(logging.WARNING, "microtome.cohort"):
        assert mask(tmp_path / "c", method="whole", overwrite=True) == {"odd": 1.0}
    assert "no tissue" not in caplog.text
