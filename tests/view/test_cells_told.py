"""Cells on the page: counts, columns and outlines, against numpy on the whole arrays."""

from __future__ import annotations

import base64
import shutil
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib.image import imread

from microtome.cohort import CohortLayout, add_cell_masks, add_cells, ingest
from microtome.errors import FormatError
from microtome.view import _cell_picture, report, take_inventory, thumbnail
from microtome.view._cell_picture import _edges, cell_picture, crowded_window
from microtome.view._cells import cell_numbers, cells_block
from microtome.view._thumbnails import frame_of

from .test_report import read

SHAPE = (120, 160)
TYPES = ["tumour <b>", "T cell", None, "B cell"]


def labels_of(shape=SHAPE, step=20, side=11):
    labels = np.zeros(shape, np.uint32)
    for number, top in enumerate(range(2, shape[0] - side, step)):
        for place, left in enumerate(range(3, shape[1] - side, step)):
            labels[top : top + side, left : left + side] = 1 + number * 100 + place
    return labels


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> CohortLayout:
    """Three tissues: cells measured, a mask only, neither."""
    root = tmp_path_factory.mktemp("cells") / "study"
    rng = np.random.default_rng(0)
    for tissue in ("measured", "masked", "plain"):
        ingest(
            rng.poisson(4, (2, *SHAPE)).astype(np.uint16),
            axes="cyx",
            channel_names=["DNA", "CD3"],
            cohort=root,
            tissue_id=tissue,
            modality="codex",
            mpp=0.5,
            resolution=0.5,
        )
    for tissue in ("measured", "masked"):
        add_cell_masks(root, tissue, labels_of())
    ids = np.unique(labels_of())[1:]
    values = rng.normal(size=ids.size)
    values[3] = np.nan
    add_cells(
        root,
        pa.table(
            {
                "tissue_id": ["measured"] * ids.size,
                "cell_id": ids.astype(np.int64),
                "CD3": values,
                "type": [TYPES[i % 4] for i in range(ids.size)],
            }
        ),
    )
    layout = CohortLayout.open(root)
    table = pq.read_table(layout.cells)
    # As somebody else's table has it.
    vectors = pa.array([[0.0, 1.0]] * table.num_rows)
    pq.write_table(table.append_column("vector", vectors), layout.cells)
    return layout


def test_counts_and_columns_are_those_of_the_table(study):
    inventory = take_inventory(study.root)
    block = cells_block(inventory)
    table = pq.read_table(study.cells)
    assert block.total == table.num_rows == len(np.unique(labels_of())) - 1
    assert block.counts == {"measured": block.total}
    assert [(row.kind, row.resolution, row.tissues) for row in block.masks] == [
        ("instances", "0.5", 2)
    ]
    columns = {column.name: column for column in block.columns}
    values = table["CD3"].to_numpy()
    known = values[np.isfinite(values)]
    cd3 = columns["CD3"]
    assert cd3.known == known.size == block.total - 1
    assert (cd3.low, cd3.median, cd3.high) == pytest.approx(
        (np.quantile(known, 0.05), np.median(known), np.quantile(known, 0.95))
    )
    types = [t for t in table["type"].to_pylist() if t is not None]
    assert dict(columns["type"].frequent) == {t: types.count(t) for t in set(types)}
    assert columns["type"].known == len(types)
    # A vector is no value that one could tell of.
    assert "vector" not in columns
    assert block.left_out == 1
    told = {t.tissue_id: cell_numbers(inventory, t, block) for t in inventory.tissues}
    assert (told["measured"].cells, told["measured"].kinds) == (block.total, ("instances",))
    assert (told["masked"].cells, told["masked"].kinds) == (0, ("instances",))
    assert told["plain"] is None


def test_the_page_tells_of_cells_and_draws_them(study, tmp_path):
    page = read(report(study.root, tmp_path / "r.html", throughput=False, validation=False))
    count = len(np.unique(labels_of())) - 1
    assert f"{count} cells" in page.text
    assert {row["Tissue"]: row["Cells"] for row in page.records("Table of tissues")} == {
        "measured": str(count),
        "masked": "0",
        "plain": "0",
    }
    rows = {row["Column"]: row for row in page.records("Table of columns of cells")}
    assert rows["type"]["Most frequent"] == "B cell: 12, T cell: 12, tumour <b>: 12"
    drawn = [a["alt"] for a in page.attributes("img") if a["alt"].startswith("Outlines")]
    assert drawn == [f"Outlines of {count} cells on {t} as codex." for t in ("measured", "masked")]
    assert f"{count} cells in 80 x 60 µm, all of the slide." in page.text


def test_masks_without_a_table_name_the_command_that_measures(study, tmp_path):
    root = tmp_path / "c"
    shutil.copytree(study.root, root)
    (root / "metadata" / "cells.parquet").unlink()
    page = read(report(root, tmp_path / "r.html", throughput=False, validation=False))
    assert "There are cell masks, but no table of cells" in page.text
    assert f"microtome cohort cells {root}" in page.codes
    assert "Cells" not in page.records("Table of tissues")[0]
    (root / "metadata" / "cells.parquet").write_bytes(b"PAR1")
    with pytest.raises(FormatError):
        cells_block(take_inventory(root))
    page = read(report(root, tmp_path / "r.html", throughput=False, validation=False))
    assert "cannot be read as a table of cells" in page.text


def test_a_cohort_without_cells_says_nothing_of_them(cohort, tmp_path):
    page = read(report(cohort.root, tmp_path / "r.html", throughput=False, max_tissues=0))
    assert "Cells" not in page.text


@pytest.mark.parametrize("mpp", [0.5, 0.25])
def test_outlines_lie_where_the_mask_has_them(new_image, mpp):
    """White on black, the picture is white exactly where a cell ends, the scale bar apart."""
    zoom = round(0.5 / mpp)
    mask = new_image(labels_of().repeat(zoom, 0).repeat(zoom, 1), mpp, kind="labels")
    image = new_image(np.zeros((2, *SHAPE), np.uint16), 0.5, channel_names=["a", "b"])
    found = cell_picture(image, thumbnail(image), mask, "it")
    pixels = imread(BytesIO(base64.b64decode(found.picture.source.split(",")[1])), format="jpeg")
    scale = pixels.shape[1] // SHAPE[1]
    white = pixels.mean(axis=2) > 128
    large = labels_of().repeat(scale, 0).repeat(scale, 1)
    inner = large > 0
    for y, x in [(s, 0) for s in (-2, -1, 1, 2)] + [(0, s) for s in (-2, -1, 1, 2)]:
        inner &= np.roll(large, (y, x), (0, 1)) == large
    expected = (large > 0) & ~inner
    rows = slice(0, round(0.8 * white.shape[0]))  # The scale bar is below.
    assert (white == expected)[rows].mean() > 0.995
    assert found.cells == len(np.unique(large)) - 1
    assert found.whole


def test_labels_beyond_24_bits_are_told_apart(new_image):
    labels = np.zeros((40, 40), np.uint32)
    labels[5:15], labels[15:25] = (1 << 24) + 1, (1 << 24) + 2
    image = new_image(np.full((3, 40, 40), 200, np.uint8), channel_names=["r", "g", "b"])
    found = cell_picture(image, thumbnail(image), new_image(labels, kind="labels"), "it")
    assert found.cells == 2
    assert found.colour == _cell_picture.ON_WHITE


@settings(max_examples=25, deadline=None)
@given(
    there=hnp.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))),
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
)
def test_the_densest_box_is_that_of_a_search(there, rows, columns):
    rows, columns = min(rows, there.shape[0]), min(columns, there.shape[1])
    top, left = _cell_picture._densest(there, rows, columns)
    counts = {
        (y, x): int(there[y : y + rows, x : x + columns].sum())
        for y in range(there.shape[0] - rows + 1)
        for x in range(there.shape[1] - columns + 1)
    }
    assert counts[top, left] == max(counts.values())


def test_a_window_of_a_large_slide_is_where_the_cells_are(new_image):
    labels = np.zeros((900, 1300), np.uint32)
    labels[700:720, 1000:1020] = 5
    image = new_image(np.zeros((900, 1300), np.uint8))
    mask = new_image(labels, kind="labels")
    window = crowded_window(mask, frame_of(image))
    assert (window.height, window.width) == (400, 400)
    row, column = (window.top + 0.25) / 0.5, (window.left + 0.25) / 0.5
    assert 320 <= row <= 500
    assert 620 <= column <= 900
    assert (
        crowded_window(new_image(np.zeros((90, 90), np.uint32), kind="labels"), frame_of(image))
        is None
    )


def test_the_edge_of_a_picture_is_no_edge_of_a_cell():
    assert not _edges(np.ones((5, 5), np.int64)).any()
