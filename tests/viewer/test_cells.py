"""What is told of a cell, against the arrays and the table that the cohort was made from."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from microtome.cohort import CohortLayout
from microtome.errors import FormatError
from microtome.viewer._cells import read_cell

from .conftest import CELL_TYPES


def middle(mask, number):
    """A pixel of a cell: of those that are furthest up and left."""
    y, x = np.argwhere(mask == number)[0].tolist()
    return y, x


def test_the_cell_at_a_pixel_has_its_row(study, client):
    seen = 0
    for number in range(1, 60):
        if not (study.cells == number).any():
            continue
        y, x = middle(study.cells, number)
        cell = client.get("api/cell/a/he", params={"x": x, "y": y}).json()["cell"]
        assert (cell["id"], cell["layer"], cell["table"]) == (number, "instances", True)
        row = study.cell_rows.get(number)
        assert cell["row"] == row
        kind = int(study.types[y, x])
        # What a mask of a task calls it; a label without a name is told as it is.
        assert cell["kinds"] == ({"phenotypes": CELL_TYPES.get(kind, kind)} if kind else {})
        seen += row is not None
    assert 20 < seen < 59
    y, x = np.argwhere(study.cells == 0)[0].tolist()
    assert client.get("api/cell/a/he", params={"x": x, "y": y}).json() == {"cell": None}


def test_the_cell_under_a_picture_that_is_turned(study, client):
    # (x, y) of codex goes to (250 - y, x + 20), micrometres of half a pixel each.
    found = 0
    for y, x in np.random.default_rng(2).integers(0, (300, 420), (250, 2)).tolist():
        row, column = int(x + 0.5 + 40), int(500 - y - 0.5)
        cell = client.get("api/cell/a/codex", params={"x": x, "y": y}).json()["cell"]
        inside = row < 613 and 0 <= column < 871
        expected = int(study.cells[row, column]) if inside else 0
        assert (cell["id"] if cell else 0) == expected
        found += expected > 0
    assert found > 3


def test_a_cell_by_its_number(study, client):
    told = 0
    for number in (1, 2, 3, 40, 4_000_000_000):
        cell = client.get("api/cell/a/he", params={"id": number}).json()["cell"]
        assert (cell["id"], cell["row"]) == (number, study.cell_rows.get(number))
        row = cell["row"]
        kind = 0
        if row is not None:
            y, x = int(row["centroid_y"] / 0.5), int(row["centroid_x"] / 0.5)
            # Cells of the study hide each other: the centre may be another's.
            kind = int(study.types[y, x]) if study.cells[y, x] == number else 0
        assert cell["kinds"] == ({"phenotypes": CELL_TYPES.get(kind, kind)} if kind else {})
        told += bool(kind)
    assert told


@pytest.mark.parametrize(
    ("path", "params", "status", "said"),
    [
        ("api/cell/a/he", {"x": 871, "y": 0}, 404, "outside the picture of 871 x 613"),
        ("api/cell/a/he", {"x": -1, "y": 0}, 400, "x must be a whole number"),
        ("api/cell/a/he", {}, 400, "x must be a whole number"),
        ("api/cell/a/he", {"id": 0}, 404, "cells are numbered from 1 to"),
        ("api/cell/a/he", {"id": 1 << 32}, 404, "cells are numbered from 1 to"),
        ("api/cell/a/he", {"id": "1e3"}, 400, "a cell's number must be a whole number"),
        ("api/cell/b/he", {"id": 1}, 404, "no mask whose labels are the numbers of cells"),
        ("api/tile/a/he/default-64/99999", {}, 404, "has no tile 99999"),
        ("api/tile/a/he/nothing/0", {}, 404, "no tiles 'nothing'"),
    ],
)
def test_what_is_not_there_is_told(client, path, params, status, said):
    answer = client.get(path, params=params)
    assert (answer.status_code, said in answer.json()["error"]) == (status, True), answer.text


def test_a_tile_by_its_number_is_as_in_its_box(client):
    box = {"x0": -1e6, "y0": -1e6, "x1": 1e6, "y1": 1e6}
    for modality in ("he", "codex"):
        every = client.get(f"api/tiles/a/{modality}/default-64", params=box).json()
        for tile in every["tiles"][::7]:
            one = client.get(f"api/tile/a/{modality}/default-64/{tile[4]}").json()
            assert one == {"tile": tile, "columns": every["columns"]}


def test_names_and_colours_of_types_are_the_ones_that_are_drawn(study, client, picture):
    layers = client.get("api/image/a/he").json()["layers"]["cells"]
    assert [layer["id"] for layer in layers] == ["instances", "phenotypes"]
    assert layers[0]["names"] == []
    colour = {name: c["color"] for c in layers[1]["names"] for name in [c["name"]]}
    seen = set()
    for col in range(3):
        drawn = picture(f"api/overlay/a/he/cells/phenotypes/2/{col}/1.png", style="fill")
        types = study.types[256:512, 256 * col : 256 * col + 256]
        for y, x in np.argwhere(np.isin(types, list(CELL_TYPES)))[::19].tolist():
            name = CELL_TYPES[int(types[y, x])]
            assert bytes(drawn[y, x, :3].tolist()).hex() == colour[name].removeprefix("#")
            seen.add(name)
    assert seen == set(CELL_TYPES.values())


@pytest.mark.parametrize("place", [(2, 0, 0), (2, 1, 1), (1, 0, 0)])
def test_a_frame_around_one_cell(study, picture, place):
    zoom, col, row = place
    step = 2 ** (2 - zoom)
    centres = [np.arange(-(-n // step)) * step + step // 2 for n in study.cells.shape]
    y, x = (c[c < n] for c, n in zip(centres, study.cells.shape, strict=True))
    whole = study.cells[y][:, x]
    window = np.s_[row * 256 : row * 256 + 256, col * 256 : col * 256 + 256]
    numbers = np.unique(whole[window])
    number = int(numbers[numbers > 0][0])
    inside = np.argwhere(whole == number)
    grid = np.indices(whole.shape).reshape(2, -1).T
    # The distance along rows and columns to the nearest pixel of the cell.
    steps = np.min([np.abs(grid - pixel).sum(1) for pixel in inside], axis=0).reshape(whole.shape)
    expected = np.zeros((*whole.shape, 4), np.uint8)
    expected[(steps == 1) | (steps == 2)] = 255
    expected[steps == 3] = (0, 0, 0, 255)
    shown = picture(f"api/overlay/a/he/cells/instances/{zoom}/{col}/{row}.png", cell=number)
    part = expected[window]
    np.testing.assert_array_equal(shown[: part.shape[0], : part.shape[1]], part)


def test_a_frame_is_asked_for_by_a_number(client):
    answer = client.get("api/overlay/a/he/cells/instances/0/0/0.png", params={"cell": "one"})
    assert (answer.status_code, answer.json()["error"]) == (
        400,
        "a cell is a whole number from 0, got 'one'",
    )


def layout_with(tmp_path, table):
    layout = CohortLayout(tmp_path)
    layout.cells.parent.mkdir()
    pq.write_table(table, layout.cells, row_group_size=2)
    return layout


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]
)
def test_a_table_of_any_kind_of_text(tmp_path, kind):
    names = pa.array(["a", "a", "b", "b", "b"]).cast(kind)
    table = pa.table(
        {
            "tissue_id": names,
            "cell_id": pa.array([1, 2, 1, 2, 3], pa.uint32()),
            "v": [1.0, np.nan, None, 4.0, 5.0],
        }
    )
    layout = layout_with(tmp_path, table)
    assert read_cell(layout, "b", 2) == {"v": 4.0}
    assert read_cell(layout, "a", 2) == {"v": None}
    assert read_cell(layout, "a", 3) is None
    assert read_cell(CohortLayout(tmp_path / "none"), "a", 1) is None


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"tissue_id": ["a"], "v": [1]}, r"lacks the columns \['cell_id'\]"),
        ({"tissue_id": ["a"], "cell_id": ["1"]}, "cell_id must be integers"),
        ({"tissue_id": [3], "cell_id": [1]}, "tissue_id must be text"),
        ({"tissue_id": ["a", "a"], "cell_id": [1, 1]}, "cell 1 of tissue 'a' is there 2 times"),
    ],
)
def test_a_table_that_is_none_is_told(tmp_path, columns, said):
    layout = layout_with(tmp_path, pa.table(columns))
    with pytest.raises(FormatError, match=said):
        read_cell(layout, "a", 1)
    layout.cells.write_bytes(b"no parquet")
    with pytest.raises(FormatError, match="cannot be read as a table of cells"):
        read_cell(layout, "a", 1)
