"""Ways of tiling a cohort: the fewest, on cells, inside annotations, on chunks, on any executor."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from microtome.cli import main
from microtome.cohort import CohortLayout, HEImagingDataset, add_cells, ingest, mask, tile
from microtome.errors import (
    FormatError,
    InvalidInputError,
    NotFoundError,
    UnknownNameError,
)
from microtome.image import MultiscaleImage
from microtome.jobs import process_pool


@pytest.fixture
def masked(he: Any) -> tuple[Path, dict[str, np.ndarray]]:
    """The cohort of two tissues at 0.5 um, with discs of tissue as masks."""
    root, pixels = he
    tissues = {}
    for name, image in pixels.items():
        height, width = image.shape[-2:]
        y, x = np.ogrid[:height, :width]
        tissues[name] = ((y - height / 2) / (0.36 * height)) ** 2 + (
            (x - width / 2) / (0.4 * width)
        ) ** 2 < 1
        path = root / f"segmentations/0_5mpp/tissue_masks/{name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, mask=tissues[name])
    return root, tissues


def stats_of(root: Path, strategy: str, size: str) -> dict[str, dict[str, Any]]:
    path = root / f"tiling/0_5mpp/{strategy}/{size}_tile_stats.parquet"
    return {row["tissue_id"]: row for row in pq.read_table(path).to_pylist()}


def times_covered(tissue: np.ndarray, rows: Any, size: int) -> np.ndarray:
    times = np.zeros(tissue.shape, int)
    for row, col in zip(rows.row.tolist(), rows.col.tolist(), strict=True):
        times[max(row, 0) : max(row + size, 0), max(col, 0) : max(col + size, 0)] += 1
    return times


def square(x0: float, y0: float, x1: float, y1: float, name: str = "Tumor") -> dict[str, Any]:
    corners = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [corners]},
        "properties": {"objectType": "annotation", "classification": {"name": name}},
    }


def write_areas(folder: Path, **areas: list[dict[str, Any]]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, features in areas.items():
        content = {"type": "FeatureCollection", "features": features}
        (folder / f"{name}.geojson").write_text(json.dumps(content))
    return folder


# -- the fewest


def test_the_fewest_tiles_of_a_cohort(masked: Any) -> None:
    root, tissues = masked
    options: dict[str, Any] = {"tile_size": 32, "tolerance": 0.99, "coverage_goal": 0.98}
    fewest = tile(root, method="fewest", min_gain_ratio=0.0, **options)
    cover = tile(root, method="cover", min_gain_ratio=0.0, **options)
    assert len(fewest) < len(cover)
    stats = stats_of(root, "fewest", "32")
    for name, tissue in tissues.items():
        times = times_covered(tissue, fewest.for_tissue(name).rows(), 32)
        found = stats[name]
        assert found["coverage_ratio"] == pytest.approx((tissue & (times > 0)).sum() / tissue.sum())
        assert found["coverage_ratio"] >= 0.98
        assert found["overlap_valid_pixels"] == (tissue & (times > 1)).sum()
        assert found["tile_bound"] <= found["num_tiles"] == len(fewest.for_tissue(name))
    inside = fewest.table["tissue_frac_inside"].to_numpy()
    assert (inside >= fewest.table["tissue_frac"].to_numpy() - 1e-6).all()
    dataset = HEImagingDataset("c", path=root, resolution=0.5, tile_size=32, tile_strategy="fewest")
    assert len(dataset) == len(fewest)


def test_a_tile_larger_than_its_tissue_is_read_padded(masked: Any) -> None:
    # SPORA chooses such a tile and then reads fewer pixels than it has.
    root, _ = masked
    for method in ("cover", "grid", "strips", "fewest"):
        table = tile(root, tile_size=320, method=method, tolerance=0.95, strategy=f"big-{method}")
        dataset = HEImagingDataset(
            "c", path=root, resolution=0.5, tile_size=320, tile_strategy=f"big-{method}"
        )
        assert len(dataset) == len(table) > 0
        for name in table.tissue_ids:
            tissue = dataset.get_tile(name, int(table.for_tissue(name).rows().tile_id[0]))
            assert tuple(tissue.image.shape) == (3, 320, 320)
        frac, inside = (
            table.table[column].to_numpy() for column in ("tissue_frac", "tissue_frac_inside")
        )
        assert (inside > frac).all(), "every tile hangs over an edge"


def test_a_real_slide_takes_fewer_tiles(shared_data: Path, tmp_path: Path) -> None:
    slide = shared_data / "wsi/cmu-1-small-region.svs"
    ingest(slide, cohort=tmp_path, tissue_id="t", modality="he", resolution=1.0)
    mask(tmp_path)
    options: dict[str, Any] = {
        "tile_size": 112,
        "tolerance": 0.9999,
        "coverage_goal": 0.99,
        "min_gain_ratio": 0.0,
    }
    counts = {
        method: len(tile(tmp_path, method=method, **options))
        for method in ("cover", "strips", "fewest")
    }
    assert counts["fewest"] <= counts["strips"] < counts["cover"]
    path = tmp_path / "tiling/1_0mpp/fewest/112_tile_stats.parquet"
    (stats,) = pq.read_table(path).to_pylist()
    assert stats["coverage_ratio"] >= 0.99
    area = 0.99 * stats["total_valid_pixels"] / 112**2
    assert counts["fewest"] - area <= (counts["cover"] - area) / 2
    assert stats["tile_bound"] >= area


# -- on cells


def with_cells(root: Path, **cells: list[tuple[int, float, float]]) -> None:
    rows = [
        {"tissue_id": name, "cell_id": cell, "centroid_y": y, "centroid_x": x}
        for name, some in cells.items()
        for cell, y, x in some
    ]
    add_cells(root, pa.Table.from_pylist(rows))


def test_tiles_on_cells(masked: Any) -> None:
    root, tissues = masked
    # Micrometres, half of them to a pixel.
    with_cells(root, t1=[(5, 70.0, 60.0), (9, 2.0, 60.0)], t2=[(1, 50.0, 80.0)])
    table = tile(root, method="cells", tile_size=24)
    rows = table.table.to_pylist()
    assert [(r["tissue_id"], r["cell_id"], r["row"], r["col"]) for r in rows] == [
        ("t1", 5, 128, 108),
        ("t1", 9, -8, 108),
        ("t2", 1, 88, 148),
    ]
    for row in rows:
        box = tissues[row["tissue_id"]][
            max(row["row"], 0) : row["row"] + 24, row["col"] : row["col"] + 24
        ]
        assert row["tissue_frac"] == pytest.approx(box.sum() / 24**2)
        assert row["tissue_frac_inside"] == pytest.approx(box.mean())
    dropped = tile(root, method="cells", tile_size=24, edge="drop", strategy="whole")
    assert dropped.table["cell_id"].to_pylist() == [5, 1]
    assert stats_of(root, "whole", "24")["t1"]["tiles_outside"] == 1
    filled = tile(root, method="cells", tile_size=24, tolerance=0.5, strategy="full")
    assert filled.table["cell_id"].to_pylist() == [5, 1]


def test_cells_that_are_not_there(masked: Any, tree: Any) -> None:
    root, _ = masked
    with pytest.raises(NotFoundError, match="cells"):
        tile(root, method="cells", tile_size=24)
    add_cells(root, pa.table({"tissue_id": ["t1"], "cell_id": [1]}))
    before = tree(root)
    with pytest.raises(NotFoundError, match="centroid_y"):
        tile(root, method="cells", tile_size=24)
    assert tree(root) == before


def test_cells_outside_their_image(masked: Any) -> None:
    root, _ = masked
    told = (
        r"cell 1 of tissue 't2' at \(y, x\) = \(180, 80\) um and 1 more lie outside of the tissue's"
        r" image, which is 95 x 166.5 um; .*pixels"
    )
    with pytest.raises(InvalidInputError, match=told):
        with_cells(root, t1=[(5, 70.0, 60.0)], t2=[(1, 180.0, 80.0), (3, 3.0, -0.1)])
    assert not (root / "metadata/cells.parquet").exists()
    with_cells(root, t1=[(5, 70.0, 60.0)], t2=[(1, 95.0, 166.5)])
    # By another tool.
    path = root / "metadata/cells.parquet"
    there = pq.read_table(path)
    pq.write_table(there.set_column(2, "centroid_y", pa.array([70.0, 180.0])), path)
    with pytest.raises(InvalidInputError, match="tissue 't2': cell 1 lies at y 180"):
        tile(root, method="cells", tile_size=24)
    with pytest.raises(InvalidInputError, match="no stride and no align"):
        tile(root, method="cells", tile_size=24, stride=4)


# -- inside annotations


def test_only_tissue_inside_annotations_counts(masked: Any, tmp_path: Path) -> None:
    root, tissues = masked
    folder = write_areas(
        tmp_path / "areas",
        t1=[square(0, 0, 150, 301), square(200, 100, 277, 200, "Stroma")],
        t2=[square(100, 50, 250, 150)],
    )
    table = tile(
        root,
        tile_size=32,
        method="fewest",
        tolerance=0.9,
        annotations=folder,
        classes=["Tumor"],
        strategy="tumor",
    )
    inside = {name: np.zeros_like(tissue) for name, tissue in tissues.items()}
    inside["t1"][:, :150] = inside["t2"][50:150, 100:250] = True
    stats = stats_of(root, "tumor", "32")
    for name, tissue in tissues.items():
        counted = tissue & inside[name]
        times = times_covered(tissue, table.for_tissue(name).rows(), 32)
        assert stats[name]["total_valid_pixels"] == counted.sum()
        assert stats[name]["covered_valid_pixels"] == (counted & (times > 0)).sum()
        for row in table.for_tissue(name).table.to_pylist():
            box = counted[row["row"] : row["row"] + 32, row["col"] : row["col"] + 32]
            assert row["tissue_frac"] == pytest.approx(box.sum() / 32**2)
    both = tile(
        root, tile_size=32, method="grid", tolerance=0.9, annotations=folder, tissues=["t1"]
    )
    assert max(both.rows().col) > 170, "areas of every class"


def test_annotations_in_micrometres_and_of_a_finer_source(masked: Any, tmp_path: Path) -> None:
    root, _ = masked
    options: dict[str, Any] = {"tile_size": 32, "method": "grid", "tolerance": 0.9}
    pixels = write_areas(tmp_path / "px", t1=[square(20, 40, 120, 240)])
    um = write_areas(tmp_path / "um", t1=[square(10, 20, 60, 120)])
    first = tile(root, annotations=pixels, tissues=["t1"], strategy="px", **options)
    second = tile(
        root, annotations=um, annotation_mpp=1.0, tissues=["t1"], strategy="um", **options
    )
    assert first.rows().row.tolist() == second.rows().row.tolist()
    assert first.rows().col.tolist() == second.rows().col.tolist()
    assert len(first) > 0
    # The cohort's pixels are twice as coarse as those of the slide that was drawn on.
    rng = np.random.default_rng(0)
    ingest(
        rng.integers(0, 200, (400, 400, 3)).astype(np.uint8),
        axes="yxc",
        mpp=0.25,
        resolution=0.5,
        cohort=root,
        tissue_id="fine",
        modality="he",
    )
    mask(root, tissues=["fine"])
    fine = write_areas(tmp_path / "fine", fine=[square(0, 0, 400, 200)])
    table = tile(
        root,
        annotations=fine / "fine.geojson",
        tissues=["fine"],
        strategy="fine",
        tile_size=50,
        method="grid",
        tolerance=0.0,
    )
    assert max(table.rows().row) == 50
    assert stats_of(root, "fine", "50")["fine"]["total_valid_pixels"] == 200 * 100


def test_cells_inside_annotations(masked: Any, tmp_path: Path) -> None:
    root, _ = masked
    with_cells(root, t1=[(5, 70.0, 60.0), (9, 70.0, 90.0)])
    folder = write_areas(tmp_path / "areas", t1=[square(0, 0, 150, 301)])
    table = tile(root, method="cells", tile_size=24, annotations=folder, tissues=["t1"])
    assert table.table["cell_id"].to_pylist() == [5]


@pytest.mark.parametrize(
    ("areas", "options", "error", "words"),
    [
        ({"t1": [square(0, 0, 9, 9)]}, {}, NotFoundError, "'t2' has no annotations"),
        ({"t1": [square(0, 0, 900, 9)], "t2": [square(0, 0, 9, 9)]}, {}, InvalidInputError, "900"),
        ({"t1": [{"type": "x"}], "t2": [square(0, 0, 9, 9)]}, {}, FormatError, "feature 0"),
        (
            {"t1": [square(0, 0, 9, 9)], "t2": [square(0, 0, 9, 9, "Fat")]},
            {"classes": ["Tumor", "tumor"]},
            UnknownNameError,
            "the class 'tumor'; there are 'Fat', 'Tumor'",
        ),
        (
            {"t1": [square(0, 0, 9, 9)], "t2": [square(0, 0, 9, 9, "Fat")]},
            {"classes": ["T"]},
            UnknownNameError,
            "the class 'T'; there are 'Fat', 'Tumor'",
        ),
        (
            {"t1": [square(0, 0, 9, 9)], "t2": [square(0, 0, 9, 9)]},
            {"classes": "Tumor"},
            InvalidInputError,
            r"classes is a list of names, got the text 'Tumor'; for one class \['Tumor'\]",
        ),
        ({}, {"annotations": "nowhere"}, NotFoundError, "no annotations at nowhere"),
        (
            {"t1": [square(0, 0, 9, 9)], "t2": [square(0, 0, 9, 9)]},
            {"annotation_mpp": 0.0},
            InvalidInputError,
            "annotation_mpp must be a number above 0, got 0.0",
        ),
        (
            {"t1": [square(0, 0, 9, 9)], "t2": [square(0, 0, 9, 9)]},
            {"annotation_mpp": "1"},
            InvalidInputError,
            "annotation_mpp must be a number above 0, got '1'",
        ),
        ({}, {"annotations": None, "classes": ["a"]}, InvalidInputError, "none are given"),
    ],
    ids=[
        "missing",
        "too far",
        "no feature",
        "class",
        "none of them",
        "text of classes",
        "nowhere",
        "mpp",
        "text",
        "classes alone",
    ],
)
def test_annotations_that_do_not_fit(
    masked: Any,
    tmp_path: Path,
    tree: Any,
    areas: dict[str, Any],
    options: dict[str, Any],
    error: type[Exception],
    words: str,
) -> None:
    root, _ = masked
    folder = write_areas(tmp_path / "areas", **areas)
    before = tree(root)
    with pytest.raises(error, match=words):
        tile(root, **{"tile_size": 32, "annotations": folder, **options})
    assert tree(root) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "cover", "edge": "drop"}, "edge='drop' says nothing to the method 'cover'"),
        ({"method": "grid", "coverage_goal": 0.5}, "coverage_goal=0.5 .* 'grid'; it is of 'cover'"),
        ({"method": "grid", "min_gain_ratio": 0.3}, "min_gain_ratio=0.3 says nothing .*'grid'"),
        ({"method": "cells", "coverage_goal": 0.5}, "coverage_goal=0.5 says nothing .*'cells'"),
        ({"strategy": ""}, "''"),
        ({"tolerance": "x"}, "tolerance must be a number, got 'x'"),
        ({"coverage_goal": "x"}, "coverage_goal must be a number, got 'x'"),
        ({"tissues": "t1"}, r"list of ids, got the text 't1'; for one tissue \['t1'\]"),
    ],
)
def test_what_says_nothing_is_refused(masked: Any, tree: Any, options: Any, words: str) -> None:
    root, _ = masked
    with_cells(root, t1=[(5, 70.0, 60.0)])
    before = tree(root)
    with pytest.raises(InvalidInputError, match=words):
        tile(root, tile_size=32, **options)
    assert tree(root) == before


def test_a_tissue_without_a_class_has_no_tiles(masked: Any, tmp_path: Path, caplog: Any) -> None:
    root, _ = masked
    folder = write_areas(
        tmp_path / "areas", t1=[square(0, 0, 150, 301)], t2=[square(0, 0, 250, 150, "Fat")]
    )
    options: dict[str, Any] = {"tile_size": 32, "annotations": folder}
    with caplog.at_level("WARNING", logger="microtome"):
        table = tile(root, classes=["Fat"], **options)
    assert table.tissue_ids == ("t2",)
    assert "t1: no tile" in caplog.text
    assert "inside the annotations" in caplog.text
    assert stats_of(root, "default", "32")["t1"]["num_tiles"] == 0


def test_tilings_without_a_tile_are_told_of(masked: Any, caplog: Any) -> None:
    root, _ = masked
    assert len(tile(root, tile_size=5000, strategy="big")) == 0
    assert "no tissue has a tile: the tiling big 5000 has none of them" in caplog.text
    caplog.clear()
    options: dict[str, Any] = {"path": root, "tile_strategy": "big", "tile_size": 5000}
    assert len(HEImagingDataset("c", **options)) == 0
    assert "c is empty: the tiling big 5000 has 0 tiles" in caplog.text


def test_one_file_is_of_one_tissue(masked: Any, tmp_path: Path) -> None:
    root, _ = masked
    file = write_areas(tmp_path / "areas", t1=[square(0, 0, 90, 90)]) / "t1.geojson"
    with pytest.raises(InvalidInputError, match="annotations of one tissue, but 2"):
        tile(root, tile_size=32, annotations=file)


# -- on chunks


def test_tiles_on_chunks(masked: Any) -> None:
    root, tissues = masked
    image = MultiscaleImage.open(root / "he/0_5mpp/images/t1.ome.zarr")
    chunk = image.level(0).array.chunks[-2:]
    assert chunk[0] < 200, "or nothing can be seen here"
    side = chunk[0] // 2
    options: dict[str, Any] = {"tile_size": side, "method": "grid", "tolerance": 0.9}
    table = tile(root, align="chunks", strategy="aligned", **options)
    tile(root, strategy="free", **options, stride=side - 3)
    for name, tissue in tissues.items():
        rows = table.for_tissue(name).rows()
        for row, col in zip(rows.row.tolist(), rows.col.tolist(), strict=True):
            assert row // chunk[0] == (row + side - 1) // chunk[0]
            assert col // chunk[1] == (col + side - 1) // chunk[1]
        aligned = stats_of(root, "aligned", str(side))[name]
        assert aligned["chunks_touched"] == aligned["num_tiles"]
        free = stats_of(root, "free", str(side))[name]
        assert free["chunks_touched"] > free["num_tiles"]
        assert aligned["total_valid_pixels"] == tissue.sum()
    with pytest.raises(InvalidInputError, match="leave out the stride"):
        tile(root, align="chunks", strategy="x", stride=5, tile_size=side)
    with pytest.raises(InvalidInputError, match="align must be"):
        tile(root, align="shards", strategy="x", tile_size=side)  # type: ignore[arg-type]


# -- on any executor


def test_any_executor_makes_the_same_table(masked: Any, tmp_path: Path) -> None:
    root, _ = masked
    folder = write_areas(
        tmp_path / "areas", t1=[square(0, 0, 150, 301)], t2=[square(0, 0, 250, 150)]
    )
    options: dict[str, Any] = {"tile_size": 32, "method": "fewest", "annotations": folder}
    alone = tile(root, strategy="a", **options)
    with ThreadPoolExecutor(2) as executor:
        threads = tile(root, strategy="b", executor=executor, **options)
    with process_pool(2) as executor:
        processes = tile(root, strategy="c", executor=executor, **options)
    assert len(alone) > 10
    for other in (threads, processes):
        assert other.table.to_pylist() == alone.table.to_pylist()
    assert stats_of(root, "a", "32") == stats_of(root, "b", "32") == stats_of(root, "c", "32")


def test_a_failure_on_a_worker_is_told_and_nothing_written(masked: Any, tree: Any) -> None:
    root, _ = masked
    (root / "segmentations/0_5mpp/tissue_masks/t2.npz").unlink()
    before = tree(root)
    with process_pool(1) as executor, pytest.raises(NotFoundError, match="t2"):
        tile(root, tile_size=32, executor=executor)
    assert tree(root) == before


# -- on the command line


def test_the_command_line(masked: Any, tmp_path: Path, capsys: Any) -> None:
    root, _ = masked
    with_cells(root, t1=[(5, 70.0, 60.0)], t2=[(1, 50.0, 80.0)])
    folder = write_areas(
        tmp_path / "areas", t1=[square(0, 0, 150, 301)], t2=[square(0, 0, 250, 150, "Fat")]
    )
    command = ["tile", str(root), "--size", "32"]
    assert main([*command, "--method", "cells", "--edge", "move", "--workers", "2"]) == 0
    assert capsys.readouterr().out == "t1: 1 tiles of 32 px\nt2: 1 tiles of 32 px\n"
    areas = ["--annotations", str(folder), "--strategy", "areas"]
    assert main([*command, *areas, "--classes", "Tumor, Fat", "--method", "fewest"]) == 0
    capsys.readouterr()
    assert main([*command, *areas, "--classes", "tumor", "--overwrite"]) == 2
    assert "the class 'tumor'" in capsys.readouterr().err
    assert main([*command, "--align", "chunks", "--strategy", "aligned"]) == 0
    layout = CohortLayout.open(root)
    assert {name for name, _ in layout.tilings(layout.resolution(None))} == {
        "aligned",
        "areas",
        "cells",
    }
