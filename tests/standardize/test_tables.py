"""Statistics on disk."""

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from microtome.errors import (
    FormatError,
    InvalidInputError,
    NotFoundError,
    StorageError,
    UnknownNameError,
)
from microtome.standardize import StatisticsTable, StatisticsTables

NAMES = ("CD3", "Collagen I+Fibronectin", "DNA (V2)")


def image_level(*rows, tissues=("t1", "t2")):
    return StatisticsTable(NAMES, np.array(rows, np.float32), tissues)


def global_level(*row):
    return StatisticsTable(NAMES, np.array([row], np.float32))


def tables(**changes):
    values = {
        "upper": image_level([10, 20, np.nan], [11, 21, 31]),
        "means": global_level(0.1, 0.2, 0.3),
        "stds": global_level(1, 2, 3),
        "fitted_on": ("t1", "t2"),
        "split": "train",
    }
    return StatisticsTables(**(values | changes))


def same(one, other):
    if one is None or other is None:
        return one is other
    return (
        one.channel_names == other.channel_names
        and one.tissue_ids == other.tissue_ids
        and np.array_equal(one.values, other.values, equal_nan=True)
    )


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("quantile_level", ["image", "global"])
@pytest.mark.parametrize("stats_level", ["image", "global", None])
def test_a_directory_gives_the_tables_back(tmp_path, lower, quantile_level, stats_level):
    table = {
        "image": image_level([1, 2, 3], [4, 5, 6]),
        "global": global_level(7, 8, 9),
        None: None,
    }
    written = tables(
        upper=table[quantile_level],
        lower=table[quantile_level] if lower else None,
        means=table[stats_level],
        stds=table[stats_level],
    )
    written.write(tmp_path / "a" / "b")
    expected = {f"{quantile_level}_level_upper_quantiles.parquet"}
    if lower:
        expected.add(f"{quantile_level}_level_lower_quantiles.parquet")
    if stats_level:
        expected |= {f"{stats_level}_level_{name}.parquet" for name in ("means", "stds")}
    assert {entry.name for entry in (tmp_path / "a" / "b").iterdir()} == expected
    again = StatisticsTables.read(tmp_path / "a" / "b")
    for name in ("upper", "lower", "means", "stds"):
        assert same(getattr(again, name), getattr(written, name))
    assert (again.fitted_on, again.split) == (("t1", "t2"), "train")


def test_channels_are_taken_by_name():
    row = tables().for_tissue("t2", ["DNA (V2)", "CD3"])
    assert row.channel_names == ("DNA (V2)", "CD3")
    assert row.upper.tolist() == [31, 11]
    assert row.mean.tolist() == pytest.approx([0.3, 0.1])
    assert row.std.tolist() == [3, 1]
    assert row.lower is None
    assert np.isnan(tables().for_tissue("t1", NAMES).upper[2])


def test_missing_tissues_and_channels_are_named():
    with pytest.raises(UnknownNameError, match="no statistics of tissue 't9' among those of 2"):
        tables().for_tissue("t9", ["CD3"])
    with pytest.raises(UnknownNameError, match="no statistics of tissue None"):
        tables().for_tissue(None, ["CD3"])
    with pytest.raises(UnknownNameError, match=r"no statistics of channel 'CD4'; .*CD3"):
        tables().for_tissue("t1", ["CD3", "CD4"])
    everywhere = tables(upper=global_level(1, 2, 3))
    assert everywhere.for_tissue(None, ["CD3"]).upper.tolist() == [1]


def pandas_file(path, columns, index):
    """As pandas writes a frame: NaN as null, and a note on its index."""
    arrays = {name: pa.array(values, from_pandas=True) for name, values in columns.items()}
    note = {"index_columns": index, "columns": [], "column_indexes": []}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(arrays).replace_schema_metadata({"pandas": json.dumps(note)}), path)


def spora(path, index_name="__index_level_0__"):
    """A directory as the published example has it."""
    numbers = np.array([[1.5, np.nan], [2.5, 3.5]], np.float32)
    pandas_file(
        path / "image_level_upper_quantiles.parquet",
        {"CD3": numbers[:, 0], "CD8": numbers[:, 1], index_name: ["a", "b"]},
        [index_name],
    )
    span = {"kind": "range", "name": None, "start": 0, "stop": 1, "step": 1}
    for name in ("means", "stds"):
        pandas_file(
            path / f"global_level_{name}.parquet",
            {"CD3": np.array([0.5]), "CD8": np.array([2], np.int64)},
            [span],
        )
    return path


@pytest.mark.parametrize("index_name", ["__index_level_0__", "tissue_id", "sample"])
def test_a_directory_of_spora_opens(tmp_path, index_name):
    read = StatisticsTables.read(spora(tmp_path, index_name))
    assert read.upper.tissue_ids == ("a", "b")
    assert read.upper.channel_names == ("CD3", "CD8")
    np.testing.assert_array_equal(read.upper.values, [[1.5, np.nan], [2.5, 3.5]])
    assert (read.upper.level, read.means.level) == ("image", "global")
    assert read.for_tissue("b", ["CD8"]).mean.tolist() == [2]
    assert (read.fitted_on, read.split) == ((), None)


def test_files_tell_pandas_which_column_is_the_index(tmp_path):
    tables().write(tmp_path)
    upper = pq.read_table(tmp_path / "image_level_upper_quantiles.parquet")
    note = json.loads(upper.schema.metadata[b"pandas"])
    assert note["index_columns"] == ["tissue_id"]
    assert [column["name"] for column in note["columns"]] == upper.column_names
    assert {upper.schema.field(name).type for name in NAMES} == {pa.float32()}
    means = pq.read_table(tmp_path / "global_level_means.parquet")
    assert means.column_names == list(NAMES)
    assert means.num_rows == 1
    assert json.loads(means.schema.metadata[b"pandas"])["index_columns"][0]["stop"] == 1


def test_pandas_sees_an_index_and_a_column_per_channel(tmp_path):
    pandas = pytest.importorskip("pandas", reason="pandas is no dependency of ours")
    tables().write(tmp_path)
    upper = pandas.read_parquet(tmp_path / "image_level_upper_quantiles.parquet")
    assert upper.index.name == "tissue_id"
    assert upper.index.tolist() == ["t1", "t2"]
    assert upper.columns.tolist() == list(NAMES)
    means = pandas.read_parquet(tmp_path / "global_level_means.parquet")
    assert means.iloc[0].tolist() == pytest.approx([0.1, 0.2, 0.3])


def test_two_levels_in_one_directory_need_a_choice(tmp_path):
    tables().write(tmp_path)
    tables(means=image_level([1, 2, 3], [4, 5, 6]), stds=image_level([1, 2, 3], [4, 5, 6])).write(
        tmp_path
    )
    with pytest.raises(InvalidInputError, match="means of both levels; choose one by stats_level"):
        StatisticsTables.read(tmp_path)
    assert StatisticsTables.read(tmp_path, stats_level="image").means.level == "image"
    assert StatisticsTables.read(tmp_path, stats_level="global").means.level == "global"
    with pytest.raises(NotFoundError, match=r"global_level_upper_quantiles\.parquet does not"):
        StatisticsTables.read(tmp_path, quantile_level="global")


def test_an_interrupted_first_run_does_not_open(tmp_path, monkeypatch):
    real, synced = os.fsync, []

    def full_at_the_third_file(handle):
        synced.append(handle)
        if len(synced) == 5:  # a file and its directory, twice, then the third file
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full_at_the_third_file)
    with pytest.raises(StorageError, match=r"no space left.*upper_quantiles"):
        tables(lower=None).write(tmp_path)
    monkeypatch.undo()
    assert {e.name for e in tmp_path.iterdir()} == {
        "global_level_means.parquet",
        "global_level_stds.parquet",
    }
    with pytest.raises(NotFoundError, match="no upper quantiles; compute the statistics first"):
        StatisticsTables.read(tmp_path)


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_an_interrupted_second_run_is_refused_until_it_is_repeated(tmp_path, monkeypatch, stop):
    from microtome.standardize import _tables

    first = tables(lower=image_level([0, 0, 0], [0, 0, 0]))
    second = tables(
        upper=image_level([9, 9, 9], [9, 9, 9]),
        lower=image_level([1, 1, 1], [1, 1, 1]),
        means=global_level(7, 7, 7),
    )
    first.write(tmp_path)
    write, written = _tables.write_table, []

    def killed(table, path):
        if len(written) == stop:
            raise KeyboardInterrupt
        written.append(path)
        write(table, path)

    monkeypatch.setattr(_tables, "write_table", killed)
    with pytest.raises(KeyboardInterrupt):
        second.write(tmp_path)
    monkeypatch.undo()
    with pytest.raises(FormatError, match="files of different runs"):
        StatisticsTables.read(tmp_path)
    second.write(tmp_path)
    assert same(StatisticsTables.read(tmp_path).upper, second.upper)


def test_lower_quantiles_of_an_earlier_run_are_removed(tmp_path):
    tables(lower=image_level([0, 0, 0], [0, 0, 0])).write(tmp_path)
    tables().write(tmp_path)
    assert StatisticsTables.read(tmp_path).lower is None


@pytest.mark.parametrize(
    ("columns", "index", "message"),
    [
        ({"CD3": [1.0]}, [], "must have an index of tissue ids, got none"),
        ({"CD3": [1.0], "tissue_id": [7]}, ["tissue_id"], "index of tissue ids, got int64"),
        ({"CD3": ["x"], "tissue_id": ["a"]}, ["tissue_id"], "channel 'CD3' must hold numbers"),
        ({"CD3": [1.0, 2.0], "tissue_id": ["a", "a"]}, [], "tissue 'a' comes more than once"),
        ({"CD3": [1.0, 2.0], "tissue_id": ["a", None]}, [], "no tissue id in row 1"),
        ({"CD3": [1.0], "a": ["x"], "b": ["y"]}, ["a", "b"], "index has several columns: a, b"),
    ],
)
def test_files_that_are_no_statistics_are_refused(tmp_path, columns, index, message):
    path = tmp_path / "image_level_upper_quantiles.parquet"
    pandas_file(path, columns, index)
    with pytest.raises(FormatError, match=message) as caught:
        StatisticsTables.read(tmp_path)
    assert str(path) in str(caught.value)


def test_damaged_and_missing_files(tmp_path):
    with pytest.raises(NotFoundError, match="no upper quantiles"):
        StatisticsTables.read(tmp_path / "nowhere")
    tables().write(tmp_path)
    (tmp_path / "global_level_stds.parquet").unlink()
    with pytest.raises(NotFoundError, match=r"global_level_stds\.parquet does not exist"):
        StatisticsTables.read(tmp_path)
    path = tmp_path / "image_level_upper_quantiles.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(FormatError, match="is not a table of statistics"):
        StatisticsTables.read(tmp_path)


def test_a_global_table_has_one_row(tmp_path):
    pandas_file(tmp_path / "global_level_upper_quantiles.parquet", {"CD3": [1.0, 2.0]}, [])
    with pytest.raises(FormatError, match="must have one row, for all tissues together; got 2"):
        StatisticsTables.read(tmp_path)


def test_tables_that_do_not_fit_together_are_refused():
    with pytest.raises(InvalidInputError, match="lower quantiles are global, upper ones image"):
        tables(lower=global_level(1, 2, 3))
    with pytest.raises(InvalidInputError, match="together or not at all"):
        tables(stds=None)
    with pytest.raises(InvalidInputError, match="means are global, standard deviations image"):
        tables(stds=image_level([1, 2, 3], [4, 5, 6]))
    with pytest.raises(InvalidInputError, match=r"shape \(2, 3\), got \(1, 3\)"):
        image_level([1, 2, 3])
    with pytest.raises(InvalidInputError, match="tissue 't' comes more than once"):
        image_level([1, 2, 3], [4, 5, 6], tissues=("t", "t"))
    with pytest.raises(InvalidInputError, match="channel 'a' comes more than once"):
        StatisticsTable(("a", "a"), np.ones((1, 2)))


def test_a_method_without_quantiles_has_means_alone(tmp_path):
    tables = StatisticsTables(
        means=StatisticsTable(NAMES, [[1.0, 2.0, 5.0]]),
        stds=StatisticsTable(NAMES, [[3.0, 4.0, 6.0]]),
        fitted_on=("a",),
        split="train",
    )
    tables.write(tmp_path / "zscore", manifest={"format": "test"})
    read = StatisticsTables.read(tmp_path / "zscore")
    assert read.upper is None
    assert (read.fitted_on, read.split) == (("a",), "train")
    row = read.for_tissue("anything", NAMES)
    assert (row.upper, row.mean.tolist(), row.std.tolist()) == (None, [1, 2, 5], [3, 4, 6])
    manifest = json.loads((tmp_path / "zscore/manifest.json").read_text())
    assert manifest["format"] == "test"
    assert manifest["fitted_on"] == ["a"]
    # Means of a run that needs quantiles and was killed before them are not taken for this.
    quantiles = StatisticsTable(NAMES, [[9.0, 9.0, 9.0]])
    whole = StatisticsTables(quantiles, None, tables.means, tables.stds)
    whole.write(tmp_path / "clip")
    (tmp_path / "clip/global_level_upper_quantiles.parquet").unlink()
    with pytest.raises(NotFoundError, match="no upper quantiles"):
        StatisticsTables.read(tmp_path / "clip")
    for arguments in ((), (None, quantiles)):
        with pytest.raises(InvalidInputError, match="upper quantiles, means"):
            StatisticsTables(*arguments)
