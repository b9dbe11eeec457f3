"""Infinite numbers in tables that people bring: read as numbers, told, and never averaged nor learnt."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from microtome.cohort import (
    CohortLayout,
    HEImagingDataset,
    add_cells,
    add_metadata,
    info,
    ingest,
    mask,
    read_tissues,
    tile,
    validate,
)
from microtome.cohort._given import read_given
from microtome.errors import FormatError
from microtome.view import report

TILES = "tiling/1_0mpp/grid/32_tile_coordinates.parquet"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two slides, with tiles and two cells each, some of whose numbers are infinite or not known."""
    root = tmp_path / "study"
    rng = np.random.default_rng(0)
    for tissue in "ab":
        pixels = rng.integers(100, 200, (80, 80, 3)).astype(np.uint8)
        ingest(
            pixels,
            axes="yxc",
            mpp=1.0,
            cohort=root,
            tissue_id=tissue,
            modality="he",
            resolution=1.0,
        )
    mask(root, method="whole")
    tile(root, tile_size=32, method="grid")
    ages = pa.table({"tissue_id": ["a", "b"], "age": [math.inf, 3.0], "known": [math.nan, 2.0]})
    add_metadata(root, ages)
    cells = {
        "tissue_id": ["a", "a", "b", "b"],
        "cell_id": [1, 2, 1, 2],
        "CD3": [math.inf, 1.0, 2.0, 6.0],
        "CD8": [-math.inf] * 4,
    }
    add_cells(root, pa.table(cells))
    return root


def test_a_column_of_numbers_stays_one_whatever_is_infinite_in_it(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(
        "tissue_id,ratio,count,name,all\na,inf,1,inf,inf\nb,2.5,-Infinity,x,Inf\nc,,+inf,y,\n"
    )
    table = read_given(tmp_path / "m.csv", text=["tissue_id"])
    assert table["ratio"].to_pylist() == [math.inf, 2.5, None]
    assert table["count"].to_pylist() == [1.0, -math.inf, math.inf]
    # Of names, and where no number says that it is one.
    assert table["name"].to_pylist() == ["inf", "x", "y"]
    assert table["all"].to_pylist() == ["inf", "Inf", None]


def test_validate_tells_of_infinite_numbers_in_every_table(study: Path) -> None:
    place = study / TILES
    tiles = pq.read_table(place)
    drawn = np.ones(len(tiles))
    drawn[3] = math.inf
    pq.write_table(tiles.append_column("score", pa.array(drawn)), place)
    found = {f.place: f.what for f in validate(study) if f.kind == "infinite-values"}
    assert found == {
        "metadata/tissues.parquet": "numbers are infinite: 'age' in 1 of 2 rows",
        "metadata/cells.parquet": "numbers are infinite: 'CD3' in 1 of 4 rows, 'CD8' in 4 of 4 rows",
        TILES: f"numbers are infinite: 'score' in 1 of {len(tiles)} rows",
    }


def test_the_report_counts_what_is_infinite_apart(study: Path, tmp_path: Path) -> None:
    page = report(study, tmp_path / "r.html").read_text()
    rows = re.findall(r'<tr><th scope="row">(CD\d)</th>(.*?)</tr>', page)
    told = {name: re.sub(r"<[^>]*>", " ", cells).split() for name, cells in rows}
    # Middle of 1, 2 and 6: what is infinite is no part of it.
    assert told["CD3"][:3] == ["3", "(1", "infinite)"]
    assert told["CD3"][4] == "2"
    assert told["CD8"] == ["0", "(4", "infinite)", *["\N{EN DASH}"] * 3]


def test_nothing_is_fitted_to_an_infinite_label(study: Path) -> None:
    how = {"path": study, "resolution": 1.0, "label_type": "regression", "missing_labels": "drop"}
    with pytest.raises(FormatError, match=r"'age' of tissue 'a' is inf, which nothing can be"):
        HEImagingDataset("study", label="age", **how)
    known = HEImagingDataset("study", label="known", **how)
    assert known.get_tissue_ids().tolist() == ["b"]


@pytest.mark.parametrize("size", [math.nan, math.inf])
def test_info_of_a_pixel_size_that_is_none(study: Path, size: float) -> None:
    layout = CohortLayout.open(study)
    table = read_tissues(layout)
    place = table.column_names.index("mpp")
    pq.write_table(table.set_column(place, "mpp", pa.array([size, 0.5])), layout.tissues)
    first, second = str(info(study)).splitlines()[2:4]
    assert "source pixel size not recorded" in first
    assert "source 0.5 um/px" in second
