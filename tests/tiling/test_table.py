"""Tables of tiles, in memory and on disk."""

import copy
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.errors import (
    FormatError,
    InvalidInputError,
    NotFoundError,
    OutOfRangeError,
    StorageError,
    UnknownNameError,
)
from microtome.tiling import Tile, TileTable, get_grid_tile


def small(**changes):
    columns = {
        "tissue_id": ["b", "b", "a", "a", "a"],
        "tile_id": [0, 1, 0, 1, 2],
        "row": [0, 0, 10, 20, -30],
        "col": [0, 8, 5, 6, 7],
    }
    return TileTable.from_columns(columns | changes, tile_size=8, strategy="grid")


def spora(path, **changes):
    """A file as SPORA writes it: no metadata of ours, a stray pandas index, plain strings."""
    columns = {
        "index": pa.array([4, 5, 6]),
        "tissue_id": pa.array(["x", "x", "y"]),
        "tile_id": pa.array([0, 1, 0]),
        "row": pa.array([0, 64, 0]),
        "col": pa.array([0, 0, 32]),
    }
    columns |= changes
    pq.write_table(pa.table({k: v for k, v in columns.items() if v is not None}), path)
    return path


def test_rows_are_views_of_the_columns():
    table = small()
    rows = table.rows()
    assert len(table) == len(rows) == 5
    assert rows.row.tolist() == [0, 0, 10, 20, -30]
    assert rows.tissue.tolist() == [0, 0, 1, 1, 1]
    assert np.shares_memory(table.rows(slice(1, 4)).col, rows.col)
    some = table.rows([4, 0, 4])
    assert some.col.tolist() == [7, 0, 7]
    assert [table.tissue_ids[t] for t in some.tissue] == ["a", "b", "a"]
    assert not rows.row.flags.writeable
    assert {a.dtype for a in (rows.tile_id, rows.row, rows.col)} == {np.dtype(np.int64)}


def test_a_window_is_a_tile():
    assert small().window(4) == Tile(-30, 7, 8, 8)
    known = small(tissue_frac=[1.0, 0.5, 0.25, 0.75, 0.0], gain=[64, 32, 16, 48, 0])
    assert known.window(1) == Tile(0, 8, 8, 8, 0.5, 32)
    for index in (5, -1):
        with pytest.raises(OutOfRangeError, match=f"row {index} of a table of 5 tiles"):
            known.window(index)


def test_tiles_of_one_tissue_keep_their_order_and_columns():
    table = small(score=[0.1, 0.2, 0.3, 0.4, 0.5])
    part = table.for_tissue("a")
    assert part.tissue_ids == ("a",)
    assert part.rows().row.tolist() == [10, 20, -30]
    assert part.column("score").tolist() == [0.3, 0.4, 0.5]
    assert (part.tile_size, part.strategy) == ((8, 8), "grid")
    with pytest.raises(UnknownNameError, match="'c' has no tiles in this table of 2 tissues"):
        table.for_tissue("c")
    with pytest.raises(UnknownNameError, match=r"no column 'scores'.*score"):
        table.column("scores")


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(-99, 99)), max_size=40))
def test_interleaved_tissues_are_found(pairs):
    """Brute force over the rows, in any order of tissues."""
    names = [name for name, _ in pairs]
    table = TileTable.from_columns(
        {"tissue_id": names, "row": [r for _, r in pairs], "col": [0] * len(pairs)},
        tile_size=4,
        strategy="s",
    )
    assert table.tissue_ids == tuple(dict.fromkeys(names))
    counted = [names[:i].count(name) for i, name in enumerate(names)]
    assert table.rows().tile_id.tolist() == counted
    for name in table.tissue_ids:
        part = table.for_tissue(name)
        assert part.rows().row.tolist() == [r for n, r in pairs if n == name]
        assert table.positions(name).tolist() == [i for i, n in enumerate(names) if n == name]
    assert [table.tissue_ids[t] for t in table.rows().tissue] == names


def test_tables_go_together():
    first, second = small().for_tissue("a"), small(gain=[1, 2, 3, 4, 5]).for_tissue("b")
    both = TileTable.concat([first, second])
    assert both.tissue_ids == ("a", "b")
    assert both.rows().row.tolist() == [10, 20, -30, 0, 0]
    np.testing.assert_array_equal(both.column("gain"), [np.nan] * 3 + [1, 2])
    assert both.window(0).gain is None
    with pytest.raises(InvalidInputError, match="'tile_id' repeats 0 of tissue 'a' in row 3"):
        TileTable.concat([first, first])
    with pytest.raises(InvalidInputError, match="no tile tables"):
        TileTable.concat([])
    other = TileTable(second.table, (8, 9), "grid")
    with pytest.raises(InvalidInputError, match=r"tile_size .*\(8, 8\) and \(8, 9\)"):
        TileTable.concat([first, other])


def test_a_selection_becomes_a_table():
    tiles, _ = get_grid_tile(np.ones((10, 20), bool), 10)
    table = TileTable.from_tiles("t", tiles, strategy="grid", resolution="1_0mpp")
    names = ["tissue_id", "tile_id", "row", "col", "tissue_frac", "gain"]
    assert table.table.column_names == names
    assert table.table.schema.field("tissue_frac").type == pa.float32()
    assert table.window(1) == tiles[1]
    assert table.tile_size == (10, 10)
    none, _ = get_grid_tile(np.zeros((10, 20), bool), 10)
    empty = TileTable.from_tiles("t", none, strategy="grid")
    assert len(empty) == 0
    assert empty.tissue_ids == ()
    assert TileTable.concat([empty, TileTable.from_tiles("t", tiles, strategy="grid")]).tissue_ids


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_file_gives_the_table_back(tmp_path, kind):
    path = tmp_path / f"tiles.{kind}"
    table = TileTable(
        small(gain=[1, 2, 3, 4, 5], score=list("vwxyz")).table, (8, 6), "dense", "0_5mpp"
    )
    table.write(path)
    again = TileTable.read(path)
    assert again == table
    assert again.table.schema.equals(table.table.schema)
    assert (again.tile_size, again.strategy, again.resolution) == ((8, 6), "dense", "0_5mpp")
    assert TileTable.read(path, tile_size=(8, 6), resolution="0_5mpp") == table
    with pytest.raises(InvalidInputError, match=r"tile_size \(8, 6\), not \(8, 8\)"):
        TileTable.read(path, tile_size=8)
    with pytest.raises(InvalidInputError, match="strategy 'dense', not 'grid'"):
        TileTable.read(path, strategy="grid")
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_an_arrow_file_is_not_copied(tmp_path):
    path = tmp_path / "tiles.arrow"
    small().write(path)
    before = pa.total_allocated_bytes()
    table = TileTable.read(path)
    rows = table.rows()
    assert pa.total_allocated_bytes() == before
    assert rows.row.tolist() == [0, 0, 10, 20, -30]


def test_parquet_holds_plain_strings_and_int64(tmp_path):
    path = tmp_path / "tiles.parquet"
    small().write(path)
    schema = pq.read_schema(path)
    assert schema.field("tissue_id").type == pa.string()
    assert {schema.field(name).type for name in ("tile_id", "row", "col")} == {pa.int64()}


def test_a_foreign_file_opens_with_a_tile_size(tmp_path):
    path = spora(tmp_path / "128_tile_coordinates.parquet")
    with pytest.raises(InvalidInputError, match=r"does not state its tile size; pass tile_size"):
        TileTable.read(path)
    table = TileTable.read(path, tile_size=128, strategy="default", resolution="1_0mpp")
    assert table.tissue_ids == ("x", "y")
    assert table.for_tissue("x").rows().row.tolist() == [0, 64]
    assert table.column("index").tolist() == [4, 5, 6]
    assert TileTable.read(path, tile_size=128).strategy == "unknown"


def test_narrow_types_and_many_row_groups_are_taken(tmp_path):
    path = tmp_path / "tiles.parquet"
    columns = {
        "tissue_id": pa.array(["a"] * 4 + ["b"] * 3, pa.large_string()),
        "tile_id": pa.array([0, 1, 2, 3, 0, 1, 2], pa.uint16()),
        "row": pa.array(range(7), pa.int32()),
        "col": pa.array(range(7), pa.int8()),
        "tissue_frac": pa.array([0.5] * 7, pa.float64()),
    }
    pq.write_table(pa.table(columns), path, row_group_size=2)
    table = TileTable.read(path, tile_size=4)
    assert table.tissue_ids == ("a", "b")
    assert table.rows().row.tolist() == list(range(7))
    assert table.table.schema.field("tissue_frac").type == pa.float32()


def test_a_dictionary_with_spare_and_repeated_names_is_put_in_order():
    codes = pa.DictionaryArray.from_arrays(
        pa.array([2, 2, 0, 3], pa.int8()), pa.array(["b", "unused", "a", "b"])
    )
    columns = {"tissue_id": codes, "row": [1, 2, 3, 4], "col": [0, 0, 0, 0]}
    table = TileTable.from_columns(columns, tile_size=4, strategy="s")
    assert table.tissue_ids == ("a", "b")
    assert table.rows().tile_id.tolist() == [0, 1, 0, 1]
    assert table.for_tissue("b").rows().row.tolist() == [3, 4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"row": None}, r"no column 'row'"),
        ({"row": pa.array([0, None, 0])}, r"column 'row' has no value in row 1"),
        ({"tissue_id": pa.array(["x", "x", None])}, r"column 'tissue_id' has no value in row 2"),
        ({"tissue_id": pa.array([1, 2, 3])}, r"'tissue_id' must hold strings, got int64"),
        ({"col": pa.array([0.0, 1.0, 2.0])}, r"'col' must hold integers, got double"),
        ({"col": pa.array([0, 1, 2**63], pa.uint64())}, r"'col' does not fit int64"),
        ({"gain": pa.array(["1", "2", "3"])}, r"'gain' must hold numbers, got string"),
        ({"tile_id": pa.array([7, 7, 7])}, r"repeats 7 of tissue 'x' in row 1"),
        (
            {"tissue_id": pa.array(["x", "y", "x"]), "tile_id": pa.array([3, 3, 3])},
            r"repeats 3 of tissue 'x' in row 2",
        ),
    ],
)
def test_a_file_that_is_no_tile_table_names_column_and_row(tmp_path, changes, message):
    path = spora(tmp_path / "tiles.parquet", **changes)
    with pytest.raises(FormatError, match=message) as caught:
        TileTable.read(path, tile_size=128)
    assert str(path) in str(caught.value)


def test_damaged_and_missing_files(tmp_path):
    with pytest.raises(NotFoundError, match=r"tiles\.parquet does not exist"):
        TileTable.read(tmp_path / "tiles.parquet")
    with pytest.raises(NotFoundError, match=r"tiles\.arrow does not exist"):
        TileTable.read(tmp_path / "tiles.arrow")
    for kind in ("parquet", "arrow"):
        path = tmp_path / f"short.{kind}"
        small().write(path)
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(FormatError, match=rf"short\.{kind} is not a table of tiles"):
            TileTable.read(path)
        path.write_text("row,col\n1,2\n")
        with pytest.raises(FormatError, match="is not a table of tiles"):
            TileTable.read(path)


def test_an_arrow_file_that_points_outside_itself_is_refused(tmp_path):
    path = tmp_path / "tiles.arrow"
    small().write(path)
    content = path.read_bytes()
    codes = np.array([0, 0, 1, 1, 1], np.int32).tobytes()
    assert content.count(codes) == 1
    path.write_bytes(content.replace(codes, np.array([0, 0, 1, 9, 1], np.int32).tobytes()))
    with pytest.raises(FormatError, match="is not a table of tiles"):
        TileTable.read(path)


def test_a_newer_format_is_refused(tmp_path):
    path = tmp_path / "tiles.parquet"
    small().write(path)
    table = pq.read_table(path)
    note = table.schema.metadata[b"microtome"].replace(b'"version": 1', b'"version": 2')
    pq.write_table(table.replace_schema_metadata({b"microtome": note}), path)
    with pytest.raises(FormatError, match=r"tile-table of version 2.*up to version 1"):
        TileTable.read(path)


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "tiles.parquet"
    small().write(path)

    def full(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="no space left"):
        small().for_tissue("a").write(path)
    monkeypatch.undo()
    assert TileTable.read(path) == small()
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(InvalidInputError, match=r"must end in \.parquet or \.arrow"):
        small().write(tmp_path / "tiles.csv")


def test_columns_that_make_no_table_are_refused():
    with pytest.raises(InvalidInputError, match="no column 'col'"):
        TileTable.from_columns({"tissue_id": "t", "row": [0]}, tile_size=4, strategy="s")
    with pytest.raises(InvalidInputError, match="do not make a table"):
        TileTable.from_columns(
            {"tissue_id": "t", "row": [0, 1], "col": [0]}, tile_size=4, strategy="s"
        )
    columns = small().table
    with pytest.raises(InvalidInputError, match="tile_size must be at least 1"):
        TileTable(columns, (0, 4), "s")


def test_rows_outside_the_table_are_refused():
    with pytest.raises(OutOfRangeError, match="row 5 of a table of 5"):
        small().rows([0, 5])
    with pytest.raises(InvalidInputError, match="integers"):
        small().rows([0.5])


def test_a_table_survives_being_copied():
    table = small()
    assert copy.deepcopy(table) == table
    assert repr(table).startswith("TileTable(5 tiles of 8x8 in 2 tissues")
