"""The index of a table of tiles: the same tiles, checked once, never of another file."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.errors import ConflictError, FormatError, InvalidInputError, NotFoundError
from microtome.tiling import TileTable, _index


def written(path, tissues, *, row_group=None, **changes):
    """A file as SPORA writes it, of (tissue, number of tiles); other columns beside."""
    names = [name for name, count in tissues for _ in range(count)]
    rng = np.random.default_rng(len(names))
    columns = {
        "tissue_id": pa.array(names, pa.string()),
        "tile_id": pa.array(np.concatenate([np.arange(n) for _, n in tissues] or [[]]), pa.int64()),
        "row": pa.array(rng.integers(-50, 5000, len(names))),
        "col": pa.array(rng.integers(-50, 5000, len(names))),
        "tissue_frac": pa.array(rng.random(len(names)), pa.float32()),
    }
    pq.write_table(pa.table(columns | changes), path, row_group_size=row_group)
    return path


def same(one, two):
    assert one.tissue_ids == two.tissue_ids
    for name in ("tissue", "tile_id", "row", "col"):
        np.testing.assert_array_equal(getattr(one.rows(), name), getattr(two.rows(), name))
    for tissue in one.tissue_ids:
        np.testing.assert_array_equal(one.positions(tissue), two.positions(tissue))


@given(
    tissues=st.lists(st.integers(1, 30), min_size=1, max_size=8),
    batch=st.integers(1, 40),
    row_group=st.integers(1, 50),
)
def test_an_index_gives_the_tiles_of_its_file(tmp_path_factory, tissues, batch, row_group):
    path = tmp_path_factory.mktemp("index") / "64_tile_coordinates.parquet"
    written(path, [(f"t{i}", n) for i, n in enumerate(tissues)], row_group=row_group)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_index, "_BATCH", batch)
        made = TileTable.build_index(path, tile_size=64)
    assert made == path.with_suffix(".arrow")
    table = TileTable.open(path, validate=True)
    assert (table.tile_size, table.strategy, table.resolution) == ((64, 64), "unknown", None)
    same(table, TileTable.read(path, tile_size=64))
    # It is a table of tiles itself, which any reader of Arrow opens.
    same(TileTable.read(made), table)


def test_an_index_is_opened_without_its_rows(tmp_path):
    path = written(tmp_path / "t.parquet", [("a", 40_000), ("b", 60_000)])
    made = TileTable.build_index(path, tile_size=64, strategy="grid", resolution="1_0mpp")
    before = pa.total_allocated_bytes()
    table = TileTable.open(path)
    # The names of the tissues, not the tiles.
    assert pa.total_allocated_bytes() - before < 10_000
    assert repr(table) == (
        "TileTable(100000 tiles of 64x64 in 2 tissues, strategy='grid', resolution='1_0mpp')"
    )
    assert table.window(99_999).height == 64
    assert table.table.column_names == ["tissue_id", "tile_id", "row", "col"]
    assert table.for_tissue("b").rows().tile_id.tolist() == list(range(60_000))
    assert table.tissue_offsets.tolist() == [0, 40_000, 100_000]
    # 28 bytes a tile: the columns are there once, in one piece.
    assert made.stat().st_size < 28 * 100_000 + 10_000


def test_without_an_index_a_file_is_read(tmp_path):
    path = written(tmp_path / "t.parquet", [("a", 4)])
    table = TileTable.open(path, tile_size=64)
    assert "tissue_frac" in table.table.column_names
    with pytest.raises(NotFoundError, match="does not exist"):
        TileTable.open(tmp_path / "no.parquet", tile_size=64)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["t.parquet"]


def test_an_index_of_a_file_that_was_replaced_is_not_used(tmp_path):
    path = written(tmp_path / "t.parquet", [("a", 4)])
    TileTable.build_index(path, tile_size=64)
    first = path.stat()
    written(path, [("b", 4)])
    # The same length, and even the same time: a clock may stand still.
    os.utime(path, ns=(first.st_atime_ns, first.st_mtime_ns))
    assert path.stat().st_size == first.st_size
    assert TileTable.open(path, tile_size=64).tissue_ids == ("b",)
    TileTable.build_index(path, tile_size=64)
    assert TileTable.open(path).tissue_ids == ("b",)
    os.utime(path, ns=(first.st_atime_ns, first.st_mtime_ns + 1))
    with pytest.raises(InvalidInputError, match="does not state its tile size"):
        TileTable.open(path)


def test_an_index_of_another_tile_size_is_refused(tmp_path):
    path = written(tmp_path / "t.parquet", [("a", 4)])
    TileTable.build_index(path, tile_size=64)
    with pytest.raises(InvalidInputError, match=r"tile_size \(64, 64\), not \(32, 32\)"):
        TileTable.open(path, tile_size=32)
    with pytest.raises(InvalidInputError, match="does not state its tile size"):
        TileTable.build_index(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"row": pa.array([0, 1, None, 3, 4])}, "column 'row' has no value in row 2"),
        ({"col": pa.array([0.5] * 5)}, "'col' must hold integers"),
        ({"tissue_id": pa.array([1, 1, 1, 2, 2])}, "'tissue_id' must hold strings"),
        ({"tissue_id": pa.array(["a", "a", "a", None, "b"])}, "'tissue_id' has no value in row 3"),
        ({"tile_id": pa.array([0, 1, 1, 0, 1])}, "'tile_id' repeats 1 of tissue 'a'"),
    ],
)
@pytest.mark.parametrize("batch", [1000, 2])
def test_what_is_no_table_of_tiles_has_no_index(tmp_path, monkeypatch, changes, message, batch):
    path = written(tmp_path / "t.parquet", [("a", 3), ("b", 2)], **changes)
    monkeypatch.setattr(_index, "_BATCH", batch)
    if batch == 2:  # a row is then named by the piece that it lies in
        message = message.replace("value in row 2", "value in row 0")
    with pytest.raises(FormatError, match=message) as caught:
        TileTable.build_index(path, tile_size=64)
    assert str(path) in str(caught.value)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["t.parquet"]


def test_tiles_of_a_tissue_in_two_places_have_no_index(tmp_path, monkeypatch):
    path = written(tmp_path / "t.parquet", [("a", 3), ("b", 2), ("a", 1)])
    for batch in (1000, 2):
        monkeypatch.setattr(_index, "_BATCH", batch)
        with pytest.raises(InvalidInputError, match=r"tissue 'a' go on in row 5 .*sort the table"):
            TileTable.build_index(path, tile_size=64)
    written(path, [])
    with pytest.raises(InvalidInputError, match="no tiles to index"):
        TileTable.build_index(path, tile_size=64)
    pq.write_table(pq.read_table(path).drop_columns("row"), path)
    with pytest.raises(FormatError, match="no column 'row'"):
        TileTable.build_index(path, tile_size=64)


def test_a_damaged_index_is_refused(tmp_path):
    path = written(tmp_path / "t.parquet", [("a", 300), ("b", 500)])
    made = TileTable.build_index(path, tile_size=64)
    whole = made.read_bytes()
    made.write_bytes(whole[:-30])
    with pytest.raises(FormatError, match=r"t\.arrow is not a table of tiles"):
        TileTable.open(path)
    # A wrong row is what nobody looks at, unless asked.
    codes = np.repeat([0, 1], [300, 500]).astype(np.int32).tobytes()
    assert whole.count(codes) == 1
    for wrong in (7, 0):
        changed = np.repeat([0, wrong], [300, 500]).astype(np.int32).tobytes()
        made.write_bytes(whole.replace(codes, changed))
        assert len(TileTable.open(path)) == 800
        with pytest.raises(FormatError, match="not a table of tiles"):
            TileTable.open(path, validate=True)
    note = b'"counts": [300, 500]'
    made.write_bytes(whole.replace(note, b'"counts": [300, 501]'))
    with pytest.raises(FormatError, match="has 800 rows and counts 801"):
        TileTable.open(path)


def test_an_index_of_a_later_version_is_not_used(tmp_path):
    path = written(tmp_path / "t.parquet", [("a", 3)])
    made = TileTable.build_index(path, tile_size=64)
    content = made.read_bytes()
    assert b'{"version": 1, "source"' in content
    made.write_bytes(content.replace(b'{"version": 1, "source"', b'{"version": 9, "source"'))
    assert "tissue_frac" in TileTable.open(path, tile_size=64).table.column_names


def test_a_file_that_changes_while_it_is_indexed_is_noticed(tmp_path, monkeypatch):
    path = written(tmp_path / "t.parquet", [("a", 3)])
    checked = _index._checked

    def meddle(place):
        yield from checked(place)
        written(path, [("a", 4)])

    monkeypatch.setattr(_index, "_checked", meddle)
    with pytest.raises(ConflictError, match="was replaced while it was indexed"):
        TileTable.build_index(path, tile_size=64)
    assert not path.with_suffix(".arrow").exists()


def test_what_is_made_of_an_indexed_table_is_not_taken_for_the_index(tmp_path):
    path = written(tmp_path / "t.parquet", [("a", 3), ("b", 2)])
    TileTable.build_index(path, tile_size=64)
    TileTable.open(path).for_tissue("b").write(path.with_suffix(".arrow"))
    assert TileTable.open(path, tile_size=64).tissue_ids == ("a", "b")


def test_rows_are_read_by_many_threads(tmp_path):
    path = written(tmp_path / "t.parquet", [("a", 5000)])
    expected = TileTable.read(path, tile_size=64).rows().row
    TileTable.build_index(path, tile_size=64)
    table, wrong = TileTable.open(path), []

    def look(seed):
        at = np.random.default_rng(seed).integers(0, 5000, 500)
        if not np.array_equal(table.rows(at).row, expected[at]):
            wrong.append(seed)

    threads = [threading.Thread(target=look, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


BUILDER = """
import resource, sys
from microtome.tiling import TileTable
TileTable.build_index(sys.argv[1], tile_size=64)
first = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
TileTable.build_index(sys.argv[2], tile_size=64)
print(first, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts a peak in KiB")
def test_an_index_is_made_in_bounded_memory(tmp_path):
    assert resource
    small = written(tmp_path / "small.parquet", [("a", 700_000)], row_group=100_000)
    large = written(
        tmp_path / "large.parquet", [("a", 3_000_000), ("b", 3_000_000)], row_group=100_000
    )
    ran = subprocess.run(
        [sys.executable, "-c", BUILDER, str(small), str(large)],
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = map(int, ran.stdout.split())
    # Ids of a tissue that goes on are kept: 24 MB of 3,000,000 tiles, sorted once. The columns
    # would be 168 MB, and what parquet decodes as much again.
    assert second - first < 110_000
