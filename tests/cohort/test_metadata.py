"""`add_metadata` and `add_cells`: columns and rows join the tables, read strictly, losing nothing."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from microtome.cohort import CohortLayout, add_cells, add_metadata, ingest
from microtome.cohort._given import read_given
from microtome.cohort._merge import Merge
from microtome.errors import (
    ExistsError,
    FormatError,
    InvalidInputError,
    NotFoundError,
    UnknownNameError,
)

Tree = Callable[[Path], dict[str, str]]
Cohort = tuple[Path, dict[str, Any]]
RGB = np.random.default_rng(4).integers(0, 256, (60, 50, 3), dtype=np.uint8)


def tissues(root: Path) -> pa.Table:
    return pq.read_table(root / "metadata/tissues.parquet")


def column(root: Path, name: str) -> dict[str, Any]:
    rows = tissues(root).to_pylist()
    return {f"{row['tissue_id']} {row['modality']}": row[name] for row in rows}


def csv(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# ------------------------------------------------------------------ types of text


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        pytest.param(["1", "-2", "+3"], pa.int64(), [1, -2, 3], id="integers"),
        pytest.param(["1", "2.5", ".5", "1.5e3"], pa.float64(), [1, 2.5, 0.5, 1500], id="floats"),
        pytest.param(["1e-3", "2"], pa.float64(), [0.001, 2], id="exponent with a sign"),
        pytest.param(["true", "FALSE"], pa.bool_(), [True, False], id="booleans"),
        pytest.param(["007", "12"], pa.string(), ["007", "12"], id="leading zeros"),
        pytest.param(["12E4", "3"], pa.string(), ["12E4", "3"], id="a specimen, not 120000"),
        pytest.param(["1", "x"], pa.string(), ["1", "x"], id="one word"),
        pytest.param(["1", "true"], pa.string(), ["1", "true"], id="mixed"),
        pytest.param(["9" * 30, "1"], pa.string(), ["9" * 30, "1"], id="too many digits"),
        pytest.param(["2019-01-02"], pa.string(), ["2019-01-02"], id="a date is text"),
        pytest.param(["inf", "1"], pa.float64(), [float("inf"), 1.0], id="endless"),
        pytest.param(
            ["1", "", "NA", "NaN", " "], pa.int64(), [1, None, None, None, None], id="no value"
        ),
        pytest.param(["", "NA"], pa.string(), [None, None], id="none at all"),
        pytest.param(["None", "n/a"], pa.string(), ["None", "n/a"], id="words that are values"),
        pytest.param([" I ", "II"], pa.string(), ["I", "II"], id="spaces around"),
    ],
)
def test_types_are_read_strictly(
    tmp_path: Path, cells: list[str], kind: pa.DataType, values: list[Any]
) -> None:
    path = csv(
        tmp_path / "t.csv", "key,value\n" + "".join(f"{i},{c}\n" for i, c in enumerate(cells))
    )
    table = read_given(path)
    assert table["value"].type == kind
    assert table["value"].to_pylist() == values


@given(
    st.lists(
        st.one_of(
            st.integers(-(2**63), 2**63 - 1),
            st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: "e" not in repr(x)),
            st.text("abc123 _.eE-+", min_size=1).map(str.strip).filter(bool),
        ),
        min_size=1,
        max_size=6,
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_what_is_read_says_what_was_written(tmp_path: Path, values: list[Any]) -> None:
    """A column of one kind comes back equal; no value of any other column changes its letters."""
    path = csv(tmp_path / "t.csv", "key,value\n" + "".join(f"k,{v}\n" for v in values))
    found = read_given(path)["value"]
    if pa.types.is_string(found.type):
        assert [f or "" for f in found.to_pylist()] == [
            "" if str(v) in {"NA", "NaN", "nan", "null"} else str(v) for v in values
        ]
    else:
        np.testing.assert_allclose(found.to_pylist(), [float(v) for v in values], rtol=1e-15)


def test_text_files_of_all_sorts(tmp_path: Path) -> None:
    tabs = csv(tmp_path / "t.TSV", '\ufefftissue_id\tnote\nt1\t"two\nlines"\n')
    assert read_given(tabs).to_pylist() == [{"tissue_id": "t1", "note": "two\nlines"}]
    for text, words in {
        "a,a\n1,2\n": "are there more than once",
        "a,\n1,2\n": "must begin with a line of column names",
        "": "must begin with a line of column names",
        "a,b\n1\n": "is not a table of text",
    }.items():
        with pytest.raises(FormatError, match=words):
            read_given(csv(tmp_path / "bad.csv", text))
    (tmp_path / "bad.csv").write_bytes(b"a\n\xff\xfe\n")
    with pytest.raises(FormatError, match="UTF-8"):
        read_given(tmp_path / "bad.csv")
    with pytest.raises(NotFoundError):
        read_given(tmp_path / "none.csv")
    with pytest.raises(NotFoundError):
        read_given(tmp_path / "none.parquet")
    with pytest.raises(InvalidInputError, match=r"must be a \.csv, \.tsv or \.parquet file"):
        read_given(tmp_path / "t.xlsx")
    with pytest.raises(InvalidInputError, match="a mapping of columns or an Arrow table, got int"):
        read_given(3)
    with pytest.raises(InvalidInputError, match="cannot be read as a table"):
        read_given({"a": [1], "b": [1, 2]})
    with pytest.raises(FormatError, match=r"every column needs a name, got \['a', ' '\]"):
        read_given({"a": [1], " ": [2]})
    with pytest.raises(FormatError, match="column 'a' holds list<"):
        read_given({"a": [[1]]})


def test_tables_in_memory(tmp_path: Path) -> None:
    given_ = {
        "tissue_id": pa.array(["a", "b"]).dictionary_encode(),
        "large": pa.array(["x", None], pa.large_string()),
        "small": pa.array([1, 2], pa.uint8()),
        "half": pa.array([1.5, float("nan")], pa.float32()),
        "empty": pa.nulls(2),
        "patient_id": pa.array([7, 8]),
    }
    found = read_given(pa.table(given_), text=["tissue_id", "patient_id"])
    assert [field.type for field in found.schema] == [
        pa.string(),
        pa.string(),
        pa.int64(),
        pa.float64(),
        pa.string(),
        pa.string(),
    ]
    assert found["half"].to_pylist() == [1.5, None]
    assert found["patient_id"].to_pylist() == ["7", "8"]
    pandas = pytest.importorskip("pandas")
    assert read_given(pandas.DataFrame({"a": [1, 2]})).to_pylist() == [{"a": 1}, {"a": 2}]
    with pytest.raises(FormatError, match="must hold text, got double"):
        read_given({"patient_id": [1.5]}, text=["patient_id"])


# ------------------------------------------------------------------ tissues


@pytest.fixture
def two(he: Cohort) -> Path:
    """The H&E cohort with a second modality of its first tissue."""
    root = he[0]
    counts = np.ones((2, 30, 30), np.uint16)
    ingest(
        counts,
        axes="cyx",
        cohort=root,
        tissue_id="t1",
        modality="codex",
        mpp=1.0,
        channel_names=["DNA", "CD3"],
    )
    return root


def test_a_row_speaks_of_all_images_of_its_tissue(two: Path, tmp_path: Path) -> None:
    before = tissues(two)
    table = csv(tmp_path / "t.csv", "tissue_id,stage,age\nt2,I,61\nt1,,58\n")
    found = add_metadata(two, table)
    assert found.equals(tissues(two))
    assert column(two, "age") == {"t1 he": 58, "t2 he": 61, "t1 codex": 58}
    assert column(two, "stage") == {"t1 he": None, "t2 he": "I", "t1 codex": None}
    assert tissues(two).select(before.column_names).equals(before.replace_schema_metadata(None))


def test_a_row_speaks_of_one_modality(two: Path) -> None:
    add_metadata(
        two, {"tissue_id": ["t1", "t1"], "modality": ["phenocycler", "HE"], "batch": [1, 2]}
    )
    assert column(two, "batch") == {"t1 he": 2, "t2 he": None, "t1 codex": 1}


def test_values_that_are_there_stay(two: Path, tree: Tree) -> None:
    before = tree(two)
    with pytest.raises(ExistsError) as caught:
        add_metadata(two, {"tissue_id": ["t1", "t2"], "split": ["test", "test"], "age": [1, 2]})
    assert "t1 split 'train' (given 'test')" in str(caught.value)
    assert "t2" not in str(caught.value), "what is the same is no conflict"
    assert tree(two) == before
    add_metadata(two, {"tissue_id": ["t1"], "split": ["test"]}, overwrite=True)
    assert column(two, "split")["t1 he"] == "test"
    add_metadata(two, {"tissue_id": ["t1", "t2"], "split": [None, None]}, overwrite=True)
    assert column(two, "split")["t1 he"] == "test", "an empty cell erases nothing"


def test_many_conflicts_are_counted(two: Path) -> None:
    for name in "abcdefg":
        add_metadata(two, {"tissue_id": ["t1", "t2"], name: [1, 2]})
    other = {name: [2, 3] for name in "abcdefg"}
    with pytest.raises(ExistsError, match="and 11 more"):
        add_metadata(two, {"tissue_id": ["t1", "t2"], **other})


def test_again_writes_nothing(two: Path, tree: Tree) -> None:
    add_metadata(two, {"tissue_id": ["t1"], "age": [7]})
    before = tree(two)
    stamp = (two / "metadata/tissues.parquet").stat().st_mtime_ns
    add_metadata(two, {"tissue_id": ["t1"], "age": [7]})
    assert tree(two) == before
    assert (two / "metadata/tissues.parquet").stat().st_mtime_ns == stamp


def test_ids_are_text(two: Path, tmp_path: Path) -> None:
    add_metadata(two, csv(tmp_path / "t.csv", "tissue_id,specimen_id\nt1,0012\nt2,13\n"))
    assert column(two, "specimen_id") == {"t1 he": "0012", "t2 he": "13", "t1 codex": "0012"}


def test_types_that_are_there_stay(two: Path) -> None:
    add_metadata(two, {"tissue_id": ["t1"], "grade": ["1"], "score": [1], "age": [60]})
    add_metadata(two, {"tissue_id": ["t2"], "grade": [2], "score": [1.5]})
    assert column(two, "grade") == {"t1 he": "1", "t2 he": "2", "t1 codex": "1"}
    assert column(two, "score") == {"t1 he": 1.0, "t2 he": 1.5, "t1 codex": 1.0}
    with pytest.raises(
        InvalidInputError, match="column 'age' holds int64, the table given has string"
    ):
        add_metadata(two, {"tissue_id": ["t2"], "age": ["old"]})


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no id": ({"age": [1]}, FormatError, "needs a column 'tissue_id'"),
    "an empty id": (
        {"tissue_id": ["t1", None]},
        FormatError,
        r"1 rows have no tissue_id \(row 2\)",
    ),
    "twice": ({"tissue_id": ["t1", "t1"]}, FormatError, r"must be unique; t1 \(2 rows\)"),
    "unknown": ({"tissue_id": ["t1", "z", "y"]}, UnknownNameError, "does not have: z, y; ingest"),
    "unknown image": (
        {"tissue_id": ["t2"], "modality": ["codex"]},
        UnknownNameError,
        "does not have: t2 codex",
    ),
    "unknown modality": (
        {"tissue_id": ["t2"], "modality": ["xray"]},
        UnknownNameError,
        "unknown modality 'xray'",
    ),
    "of the source": (
        {"tissue_id": ["t2"], "mpp": [1.0], "sha256": ["0"]},
        InvalidInputError,
        r"columns \['mpp', 'sha256'\] are noted by ingest",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_refused(two: Path, tree: Tree, what: str) -> None:
    columns, error, words = BAD[what]
    before = tree(two)
    with pytest.raises(error, match=words):
        add_metadata(two, columns)
    assert tree(two) == before


def test_types_of_another_tool_stay(two: Path) -> None:
    path = two / "metadata/tissues.parquet"
    table = tissues(two)
    at = table.column_names.index("split")
    kept = table.set_column(at, "split", table["split"].cast(pa.large_string()))
    encoded = kept.append_column("site", pa.array(["x", None, "y"]).dictionary_encode())
    pq.write_table(encoded, path)
    add_metadata(two, {"tissue_id": ["t2"], "age": [3], "site": ["z"]})
    assert tissues(two).schema.field("split").type == pa.large_string()
    assert column(two, "site") == {"t1 he": "x", "t2 he": "z", "t1 codex": "y"}


@given(
    old=st.dictionaries(st.integers(0, 9), st.one_of(st.none(), st.integers(0, 3)), max_size=8),
    new=st.dictionaries(st.integers(0, 9), st.one_of(st.none(), st.integers(0, 3)), max_size=8),
)
def test_merging_is_that_of_dictionaries(
    old: dict[int, int | None], new: dict[int, int | None]
) -> None:
    def table(rows: dict[int, int | None]) -> pa.Table:
        return pa.table(
            {"key": pa.array(rows, pa.int64()), "value": pa.array(rows.values(), pa.int64())}
        )

    merge = Merge.of(table(old), table(new), ["key"], "t")
    added = merge.apply(overwrite=True, add_rows=True, known={})
    expected = {**old, **{k: v for k, v in new.items() if k not in old or v is not None}}
    assert dict(zip(*added.to_pydict().values(), strict=True)) == expected
    assert added["key"].to_pylist()[: len(old)] == list(old), "rows that are there keep their place"
    assert sorted(merge.unknown()) == sorted(str(k) for k in new if k not in old)
    clash = any(old.get(k) is not None and v not in {None, old[k]} for k, v in new.items())
    if clash:
        with pytest.raises(ExistsError):
            merge.apply(overwrite=False, add_rows=True, known={})
    else:
        assert merge.apply(overwrite=False, add_rows=True, known={}).equals(added)


@pytest.mark.slow
def test_several_processes_lose_no_column(two: Path) -> None:
    code = (
        "import sys\n"
        "from microtome.cohort import add_metadata\n"
        "for i in range(5):\n"
        "    add_metadata(sys.argv[1], {'tissue_id': ['t1'], f'{sys.argv[2]}{i}': [i]})\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(two), name], stderr=subprocess.PIPE)
        for name in "abc"
    ]
    for process in running:
        said = process.communicate(timeout=100)[1]
        assert process.returncode == 0, said.decode()
    (row,) = [
        r for r in tissues(two).to_pylist() if (r["tissue_id"], r["modality"]) == ("t1", "he")
    ]
    assert {f"{n}{i}": i for n in "abc" for i in range(5)}.items() <= row.items()


# ------------------------------------------------------------------ cells


def cells(root: Path) -> list[dict[str, Any]]:
    return pq.read_table(root / "metadata/cells.parquet").to_pylist()


def test_cells_are_added_and_completed(imc: Cohort) -> None:
    root = imc[0]
    first = {"tissue_id": ["a", "a", "b"], "cell_id": [1, 2, 1], "type": ["T", None, "B"]}
    assert add_cells(root, first) == 3
    more = {
        "tissue_id": ["b", "a", "c"],
        "cell_id": [1, 2, 9],
        "type": ["B", "T", "B"],
        "area": [4, 5, 6],
    }
    assert add_cells(root, more) == 1
    assert cells(root) == [
        {"tissue_id": "a", "cell_id": 1, "type": "T", "area": None},
        {"tissue_id": "a", "cell_id": 2, "type": "T", "area": 5},
        {"tissue_id": "b", "cell_id": 1, "type": "B", "area": 4},
        {"tissue_id": "c", "cell_id": 9, "type": "B", "area": 6},
    ]
    with pytest.raises(ExistsError, match=r"a 1 type 'T' \(given 'B'\)"):
        add_cells(root, {"tissue_id": ["a"], "cell_id": [1], "type": ["B"]})
    told = add_cells(root, {"tissue_id": ["a"], "cell_id": [1], "type": ["B"]}, overwrite=True)
    assert (told, told.changed) == (0, 1)
    again = pickle.loads(pickle.dumps(told))
    assert (again, again.changed) == (0, 1)
    assert cells(root)[0]["type"] == "B"


BAD_CELLS: dict[str, tuple[dict[str, Any], dict[str, Any], type[Exception], str]] = {
    "no tissue": ({"cell_id": [1]}, {}, FormatError, "for a table of one tissue say which"),
    "no cell": ({"tissue_id": ["a"]}, {}, FormatError, r"lacks the columns \['cell_id'\]"),
    "twice": ({"tissue_id": ["a", "a"], "cell_id": [1, 1]}, {}, FormatError, r"a 1 \(2 rows\)"),
    "background": ({"tissue_id": ["a"], "cell_id": [0]}, {}, FormatError, "0 is the background"),
    "names": ({"tissue_id": ["a"], "cell_id": ["x"]}, {}, FormatError, "must hold integers"),
    "unknown": ({"tissue_id": ["z"], "cell_id": [1]}, {}, UnknownNameError, "does not have: z"),
    "others": (
        {"tissue_id": ["a", "b"], "cell_id": [1, 1]},
        {"tissue_id": "a"},
        InvalidInputError,
        "speaks of tissues b, not only of 'a'",
    ),
    "half a centre": (
        {"Object": [1], "centroid-0": [2.0]},
        {"tissue_id": "a"},
        FormatError,
        "a centre is",
    ),
    "centre of words": (
        {"Object": [1], "centroid-0": ["x"], "centroid-1": ["y"]},
        {"tissue_id": "a"},
        FormatError,
        "must hold pixels",
    ),
}


@pytest.mark.parametrize("what", BAD_CELLS)
def test_cells_that_are_refused(imc: Cohort, tree: Tree, what: str) -> None:
    columns, options, error, words = BAD_CELLS[what]
    before = tree(imc[0])
    with pytest.raises(error, match=words):
        add_cells(imc[0], columns, **options)
    assert tree(imc[0]) == before


def test_centres_in_pixels_become_micrometres(he: Cohort) -> None:
    """Of half a micrometre: the middle of the first pixel is a quarter from the edge."""
    add_cells(he[0], {"Object": [3], "centroid-0": [0.0], "centroid-1": [10.5]}, tissue_id="t1")
    assert cells(he[0]) == [
        {"tissue_id": "t1", "cell_id": 3, "centroid_y": 0.25, "centroid_x": 5.5}
    ]


def test_a_table_of_steinbock(shared_data: Path, tmp_path: Path) -> None:
    """Measurements of real masks, as steinbock writes them: one file an image, two of each."""
    skimage = pytest.importorskip("skimage.measure")
    root = tmp_path / "cohort"
    expected: dict[str, int] = {}
    for source in sorted((shared_data / "imc/img").glob("*_00[12].tiff")):
        pixels = tifffile.imread(source)
        names = [f"c{i}" for i in range(len(pixels))]
        ingest(
            source, cohort=root, tissue_id=source.stem, modality="imc", mpp=1.0, channel_names=names
        )
        labels = tifffile.imread(shared_data / "imc/masks" / source.name)
        props = skimage.regionprops(labels)
        lines = ["Object,area,centroid-0,centroid-1"]
        lines += [f"{p.label},{p.area},{p.centroid[0]},{p.centroid[1]}" for p in props]
        table = csv(tmp_path / f"{source.stem}.csv", "\n".join(lines) + "\n")
        assert add_cells(root, table, tissue_id=source.stem) == len(props)
        lines = ["Object,CD3"] + [f"{p.label},{p.label / 7}" for p in props]
        table = csv(tmp_path / f"{source.stem}_i.csv", "\n".join(lines) + "\n")
        assert add_cells(root, table, tissue_id=source.stem) == 0
        expected[source.stem] = len(props)
        # Where a centre lies, its label is: true of these round cells.
        mine = pq.read_table(root / "metadata/cells.parquet").filter(
            pc.equal(pc.field("tissue_id"), source.stem)
        )
        hits = [
            labels[int(row["centroid_y"]), int(row["centroid_x"])] == row["cell_id"]
            for row in mine.to_pylist()
        ]
        assert np.mean(hits or [1]) > 0.9
    found = pq.read_table(root / "metadata/cells.parquet")
    counts = {c["values"]: c["counts"] for c in found["tissue_id"].value_counts().to_pylist()}
    assert counts == {name: n for name, n in expected.items() if n}
    assert found.num_rows > 100
    assert CohortLayout.open(root).cells.is_file()


def test_steinbocks_names_are_known_in_a_table_of_many_tissues(imc: Any) -> None:
    root, _ = imc
    table = {
        "tissue_id": ["a", "b"],
        "Object": [1, 7],
        "centroid-0": [9.5, 3.0],
        "centroid-1": [19.5, 4.0],
    }
    assert add_cells(root, pa.table(table)) == 2
    rows = pq.read_table(root / "metadata/cells.parquet").to_pylist()
    found = {(r["tissue_id"], r["cell_id"]): (r["centroid_y"], r["centroid_x"]) for r in rows}
    assert found == {("a", 1): (10.0, 20.0), ("b", 7): (3.5, 4.5)}


def test_a_split_that_is_spelled_in_another_way_is_refused(two: Path, tree: Tree) -> None:
    add_metadata(two, {"tissue_id": ["t1"], "split": ["train"]}, overwrite=True)
    before = tree(two)
    for other in ("Train", " train"):
        with pytest.raises(InvalidInputError, match=r"capital letters or spaces only, .*train"):
            add_metadata(two, {"tissue_id": ["t2"], "split": [other]}, overwrite=True)
    assert tree(two) == before
    add_metadata(two, {"tissue_id": ["t2"], "split": ["test"]}, overwrite=True)
