"""`ingest_manifest`: a table of files becomes the cohort that one file after the other would."""

from __future__ import annotations

import csv
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile

from microtome.cohort import CohortLayout, ingest, ingest_manifest, read_tissues, validate
from microtome.cohort._given import read_given
from microtome.errors import (
    ExistsError,
    FormatError,
    InvalidInputError,
    MicrotomeError,
    NoResolutionError,
    NotFoundError,
    StorageError,
)
from microtome.image import MultiscaleImage
from microtome.jobs import process_pool

Tree = Callable[[Path], dict[str, str]]
RNG = np.random.default_rng(3)
PANELS = {"a": "DNA|CD3", "b": "CD8|DNA", "c": "CD3|CD8|PanCK"}


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three stacks of markers that state no pixel size, and two slides that do."""
    root = tmp_path_factory.mktemp("files")
    (root / "raw").mkdir()
    for name, channels in PANELS.items():
        count = len(channels.split("|"))
        pixels = RNG.integers(0, 500, (count, 60, 70), dtype=np.uint16)
        tifffile.imwrite(root / "raw" / f"{name}.tif", pixels, photometric="minisblack")
    for name in ("x", "y"):
        pixels = RNG.integers(0, 256, (80, 90, 3), dtype=np.uint8)
        tifffile.imwrite(
            root / "raw" / f"{name}.tif",
            pixels,
            photometric="rgb",
            resolution=(10000, 10000),
            resolutionunit="CENTIMETER",
        )
    return root


def rows_of(files: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {
            "tissue_id": name,
            "path": f"raw/{name}.tif",
            "modality": "imc",
            "mpp": 1,
            "channel_names": channels,
            "patient_id": f"0{number}",
            "split": "train" if number < 2 else "test",
            "age": 50 + number,
            "stage": ["I", "", "NA"][number],
        }
        for number, (name, channels) in enumerate(PANELS.items())
    ]
    rows += [
        {"tissue_id": name, "path": f"raw/{name}.tif", "modality": "he", "patient_id": "09"}
        for name in ("x", "y")
    ]
    return rows


@pytest.fixture
def manifest(files: Path, tmp_path: Path) -> Path:
    shutil.copytree(files, tmp_path / "in")
    return write_csv(tmp_path / "in" / "manifest.csv", rows_of(files))


def panel_names(root: Path) -> list[str]:
    return pq.read_table(root / "imc/channels.parquet")["channel_name"].to_pylist()


def facts(root: Path) -> dict[tuple[str, str], dict[str, Any]]:
    rows = pq.read_table(root / "metadata/tissues.parquet").to_pylist()
    assert len({(r["tissue_id"], r["modality"]) for r in rows}) == len(rows)
    return {(r["tissue_id"], r["modality"]): r for r in rows}


def test_every_row_becomes_an_image_and_its_facts(manifest: Path, tmp_path: Path) -> None:
    root = tmp_path / "cohort"
    seen: list[tuple[int, int]] = []
    paths = ingest_manifest(manifest, root, progress=lambda _, d, t, /: seen.append((d, t)))
    assert seen == [(n, 5) for n in range(1, 6)]
    assert [p.relative_to(root).as_posix() for p in paths] == [
        *(f"imc/1_0mpp/images/{n}.ome.zarr" for n in "abc"),
        *(f"he/1_0mpp/images/{n}.ome.zarr" for n in "xy"),
    ]
    assert panel_names(root) == ["DNA", "CD3", "CD8", "PanCK"]
    stored = tifffile.imread(manifest.parent / "raw/b.tif")
    image = MultiscaleImage.open(paths[1])
    assert image.channel_names == ("DNA", "CD8"), "in the order of the panel"
    np.testing.assert_array_equal(image.level(0)[...], stored[::-1])
    found = facts(root)
    assert {k: (r["patient_id"], r["split"], r["age"], r["stage"]) for k, r in found.items()} == {
        ("a", "imc"): ("00", "train", 50, "I"),
        ("b", "imc"): ("01", "train", 51, None),
        ("c", "imc"): ("02", "test", 52, None),
        ("x", "he"): ("09", None, None, None),
        ("y", "he"): ("09", None, None, None),
    }
    schema = pq.read_schema(root / "metadata/tissues.parquet")
    assert schema.field("age").type == pa.int64()
    assert not {"path", "channel_names", "axes"} & set(schema.names)


def test_it_is_what_one_after_the_other_gives(manifest: Path, tmp_path: Path, tree: Tree) -> None:
    ingest_manifest(manifest, tmp_path / "at once" / "cohort")
    root = tmp_path / "one by one" / "cohort"
    for row in rows_of(manifest):
        names = row.get("channel_names")
        ingest(
            manifest.parent / row["path"],
            cohort=root,
            tissue_id=row["tissue_id"],
            modality=row["modality"],
            mpp=row.get("mpp"),
            channel_names=names and names.split("|"),
        )
    at_once, one_by_one = tree(tmp_path / "at once" / "cohort"), tree(root)
    # The second did not know of the panel to come; the planes of all images are the same.
    assert {k: v for k, v in at_once.items() if "images" in k} == {
        k: v for k, v in one_by_one.items() if "images" in k
    }


@pytest.mark.parametrize("where", ["threads", "processes"])
def test_workers_make_the_same_cohort(
    manifest: Path, tmp_path: Path, tree: Tree, where: str
) -> None:
    ingest_manifest(manifest, tmp_path / "here" / "cohort")
    pool = ThreadPoolExecutor(4) if where == "threads" else process_pool(2)
    with pool:
        ingest_manifest(manifest, tmp_path / "there" / "cohort", executor=pool)
    here, there = tree(tmp_path / "here" / "cohort"), tree(tmp_path / "there" / "cohort")
    # Rows of these two come in the order in which images were done.
    tables = {"metadata/tissues.parquet", "imc/channels_per_tissue.parquet"}
    assert {k: v for k, v in here.items() if k not in tables} == {
        k: v for k, v in there.items() if k not in tables
    }
    assert facts(tmp_path / "here" / "cohort") == facts(tmp_path / "there" / "cohort")
    for place in ("here", "there"):
        table = pq.read_table(tmp_path / place / "cohort/imc/channels_per_tissue.parquet")
        assert sorted(table.to_pylist(), key=lambda r: r["tissue_id"]) == [
            {"tissue_id": "a", "DNA": True, "CD3": True, "CD8": False, "PanCK": False},
            {"tissue_id": "b", "DNA": True, "CD3": False, "CD8": True, "PanCK": False},
            {"tissue_id": "c", "DNA": False, "CD3": True, "CD8": True, "PanCK": True},
        ]


def test_again_changes_nothing_and_goes_on(manifest: Path, tmp_path: Path, tree: Tree) -> None:
    root = tmp_path / "cohort"
    ingest_manifest(manifest, root)
    before = tree(root)
    ingest_manifest(manifest, root)
    assert tree(root) == before
    rows = rows_of(manifest)
    extra = {**rows[0], "tissue_id": "d", "path": "raw/a.tif", "patient_id": "03"}
    write_csv(manifest, [*rows, extra])
    ingest_manifest(manifest, root)
    assert len(facts(root)) == 6
    images = {k: v for k, v in tree(root).items() if "images/d" not in k and "images" in k}
    assert images == {k: v for k, v in before.items() if "images" in k}


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a path as id": ({"tissue_id": "../a"}, "tissue id '../a' becomes part of a path"),
    "no id": ({"tissue_id": ""}, "row 1: no tissue_id"),
    "no path": ({"path": ""}, "row 1 (a, imc): no path"),
    "modality": ({"modality": "xray"}, "row 1: unknown modality 'xray'"),
    "missing file": ({"path": "raw/none.tif"}, "none.tif does not exist"),
    "mpp no number": ({"mpp": "fine"}, "mpp 'fine' is not micrometres"),
    "mpp three": ({"mpp": "1|1|1"}, "is not micrometres per pixel, one number or y"),
    "mpp impossible": ({"mpp": -1}, "is not a possible pixel size"),
    "duplicate": (
        {"tissue_id": "b", "patient_id": "01"},
        "rows 1, 2: tissue 'b' as imc is there more than once",
    ),
    "splits": (
        {"patient_id": "02"},
        "patient '02' has 2 values of split: 'train' (row 1), 'test' (row 3)",
    ),
    "axes": ({"axes": "cyx"}, "axes 'cyx' are for .npy arrays"),
    "empty channel": ({"channel_names": "DNA|"}, "has an empty name"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_wrong_row_is_told_before_anything_is_written(
    manifest: Path, tmp_path: Path, what: str
) -> None:
    changes, words = BAD[what]
    rows = rows_of(manifest)
    rows[0] |= changes
    write_csv(manifest, rows)
    with pytest.raises(InvalidInputError) as caught:
        ingest_manifest(manifest, tmp_path / "cohort")
    assert words in str(caught.value)
    assert "1 problem, nothing was ingested" in str(caught.value)
    assert not (tmp_path / "cohort").exists()


def test_all_that_is_wrong_is_told_at_once(manifest: Path, tmp_path: Path) -> None:
    rows = rows_of(manifest)
    for place, (changes, _) in enumerate(list(BAD.values())[3:6]):
        rows[place] |= changes
    rows[3] |= {"tissue_id": "-x", "modality": "xray", "path": "raw/none.tif", "mpp": "x"}
    write_csv(manifest, rows)
    with pytest.raises(InvalidInputError, match="7 problems") as caught:
        ingest_manifest(manifest, tmp_path / "cohort")
    for number in range(1, 5):
        assert f"row {number}" in str(caught.value)


def test_a_cohort_in_a_store_is_refused_before_any_file_is_opened(manifest: Path) -> None:
    write_csv(manifest, [row | {"path": "raw/gone.tif"} for row in rows_of(manifest)])
    for address in ("s3://bucket/study", Path("s3://bucket/study")):
        with pytest.raises(InvalidInputError, match=r"^s3://bucket/study is an address"):
            ingest_manifest(manifest, address)
        with pytest.raises(InvalidInputError, match=r"^s3://bucket/study is an address"):
            ingest("gone.tif", cohort=address, tissue_id="a", modality="he")


def test_a_file_where_the_cohort_should_be_is_refused_before_any_other_is_opened(
    manifest: Path, tmp_path: Path
) -> None:
    write_csv(manifest, [row | {"path": "raw/gone.tif"} for row in rows_of(manifest)])
    before = manifest.read_bytes()
    with pytest.raises(FormatError, match=r"manifest\.csv is a file, not a cohort directory"):
        ingest_manifest(manifest, manifest)
    with pytest.raises(FormatError, match=r"manifest\.csv is a file, not a cohort directory"):
        CohortLayout.open(manifest)
    assert manifest.read_bytes() == before


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="only Linux has /proc")
def test_a_place_where_no_directory_can_be_is_told_in_words(manifest: Path) -> None:
    with pytest.raises(StorageError, match=r"no directory can be made at /proc/x: .*another place"):
        ingest_manifest(manifest, "/proc/x")


def test_splits_that_are_spelled_in_two_ways_are_one(manifest: Path, tmp_path: Path) -> None:
    rows = rows_of(manifest)
    rows[1]["split"] = "Train"
    write_csv(manifest, rows)
    with pytest.raises(InvalidInputError) as caught:
        ingest_manifest(manifest, tmp_path / "cohort")
    assert "only: 'train' (row 1), 'Train' (row 2); spell them alike" in str(caught.value)
    assert "1 problem" in str(caught.value)
    rows[1]["split"] = "train"
    write_csv(manifest, rows[:1])
    ingest_manifest(manifest, tmp_path / "cohort")
    write_csv(manifest, [rows[1] | {"split": "TRAIN"}])
    with pytest.raises(InvalidInputError, match=r"'train' \(in the cohort\), 'TRAIN' \(row 1\)"):
        ingest_manifest(manifest, tmp_path / "cohort")


def test_tissues_that_are_one_directory_elsewhere_are_one(manifest: Path, tmp_path: Path) -> None:
    rows = rows_of(manifest)
    rows[1] |= {"tissue_id": "A", "patient_id": rows[0]["patient_id"], "split": rows[0]["split"]}
    write_csv(manifest, rows)
    with pytest.raises(InvalidInputError) as caught:
        ingest_manifest(manifest, tmp_path / "cohort")
    assert "tissue ids differ in capital letters or spaces only: 'a' (row 1), 'A' (row 2)" in str(
        caught.value
    )
    assert "1 problem" in str(caught.value)
    write_csv(manifest, rows[:1])
    ingest_manifest(manifest, tmp_path / "cohort")
    write_csv(manifest, [rows[1]])
    with pytest.raises(InvalidInputError, match=r"'a' \(in the cohort\), 'A' \(row 1\)"):
        ingest_manifest(manifest, tmp_path / "cohort")
    one: dict[str, Any] = {"tissue_id": "A", "modality": "imc", "mpp": 1.0}
    one |= {name: rows[0][name] for name in ("patient_id", "split")}
    source = manifest.parent / rows[1]["path"]
    ingest(source, cohort=tmp_path / "cohort", channel_names=["CD8", "DNA"], **one)
    found = {finding.kind: finding.what for finding in validate(tmp_path / "cohort")}
    assert found["tissue-spelling"].endswith("only: a, A")


def test_a_row_without_its_file_is_reported_by_its_path(manifest: Path, tmp_path: Path) -> None:
    rows = rows_of(manifest)
    rows[0]["path"] = "raw/gone.tif"
    write_csv(manifest, rows)
    with pytest.raises(MicrotomeError, match=r"row 1 \(a, imc\): .*gone.tif does not exist"):
        ingest_manifest(
            manifest, tmp_path / "cohort", on_error="continue", report=tmp_path / "r.csv"
        )
    with (tmp_path / "r.csv").open(newline="") as file:
        first = next(csv.DictReader(file))
    assert first["source"] == str(manifest.parent / "raw/gone.tif")
    assert first["state"] == "failed"


def test_what_table_and_files_say_is_told_in_one_round(manifest: Path, tmp_path: Path) -> None:
    rows = rows_of(manifest)
    (manifest.parent / "raw/x.tif").write_bytes(b"II*\0broken")
    rows[0]["mpp"] = 0  # and of two planes, not of three
    rows[0]["channel_names"] = "DNA|CD3|CD8"
    rows[1] |= {"mpp": "", "channel_names": ""}
    rows[2] |= {"tissue_id": "-c", "image": "scene 2"}
    rows[4] |= {"modality": "imc", "mpp": 3}
    rows.append({**rows[0], "tissue_id": "gone", "path": "raw/gone.tif", "mpp": 1})
    rows.append({**rows[0], "mpp": 1, "channel_names": "DNA|CD3"})
    write_csv(manifest, rows)
    with pytest.raises(InvalidInputError, match="9 problems, nothing was ingested") as caught:
        ingest_manifest(manifest, tmp_path / "cohort")
    _, *told = str(caught.value).splitlines()
    for line, (start, *words) in zip(
        told,
        [
            ("row 1 (a, imc): mpp 0 is not a possible pixel size", "the column mpp"),
            ("row 1 (a, imc): ", "3 channel names"),
            ("row 2 (b, imc): ", "in the column mpp; ", "give them in order in the column channel"),
            ("row 3: tissue id '-c'",),
            ("row 3 (-c, imc): ", "no image 'scene 2'"),
            ("row 4 (x, he): ", "damaged"),
            ("row 5 (y, imc): ", "coarser than", "; ", "is a colour photograph"),
            ("row 6 (gone, imc): ", "gone.tif does not exist"),
            ("rows 1, 7: tissue 'a' as imc",),
        ],
        strict=True,
    ):
        assert line.startswith(start)
        assert all(word in line for word in words), line
        assert "(mpp=)" not in line
    assert not (tmp_path / "cohort").exists()


def test_one_row_is_told_all_that_is_wrong_with_it(manifest: Path, tmp_path: Path) -> None:
    rows = rows_of(manifest)
    rows[0] |= {"mpp": "abc", "channel_names": "DNA"}
    write_csv(manifest, rows)
    told: list[Any] = []
    with pytest.raises(InvalidInputError, match="4 of 5 rows are ingested, 1 failed"):
        ingest_manifest(manifest, tmp_path / "cohort", on_error="continue", told=told.append)
    (reason,) = [each.reason for each in told if each.state == "failed"]
    assert "mpp 'abc' is not micrometres per pixel" in reason
    assert "1 channel names" in reason


def test_images_made_with_other_settings_are_told_before_any_is_written(
    manifest: Path, tmp_path: Path, tree: Tree
) -> None:
    root = tmp_path / "cohort"
    rows = rows_of(manifest)
    write_csv(manifest, rows[1:])
    ingest_manifest(manifest, root)
    before = tree(root)
    rows[1]["mpp"] = 0.9
    rows[2]["channel_names"] = "A|B|C"
    write_csv(manifest, rows)
    with pytest.raises(ExistsError, match="nothing was ingested, 2 failed") as caught:
        ingest_manifest(manifest, root)
    assert "row 2 (b, imc)" in str(caught.value)
    assert "row 3 (c, imc)" in str(caught.value)
    assert tree(root) == before
    ingest_manifest(manifest, root, overwrite=True)
    assert len(facts(root)) == 5


def test_what_the_cohort_says_is_told_with_what_the_files_say(
    manifest: Path, tmp_path: Path, tree: Tree
) -> None:
    root = tmp_path / "cohort"
    ingest_manifest(manifest, root)
    before = tree(root)
    rows = rows_of(manifest)
    rows[0]["age"] = 99
    rows[3]["image"] = "label"
    write_csv(manifest, rows)
    for on_error in ("stop", "continue"):
        with pytest.raises(InvalidInputError, match="2 problems, nothing was ingested") as caught:
            ingest_manifest(manifest, root, on_error=on_error)
        assert "a imc age 50 (given 99)" in str(caught.value)
        assert "no image 'label'" in str(caught.value)
    assert tree(root) == before


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        pytest.param({"tissue_id": ["t"]}, r"lacks the columns \['path', 'modality'\]", id="few"),
        pytest.param(
            {"tissue_id": ["t"], "path": ["x"], "modality": ["he"], "scene": ["1"]},
            "call one of them image",
            id="scene",
        ),
        pytest.param(
            {"tissue_id": ["t"], "path": ["x"], "modality": ["he"], "Split": ["train"]},
            "call the column 'Split' 'split'",
            id="capital",
        ),
        pytest.param({"tissue_id": [], "path": [], "modality": []}, "has no rows", id="empty"),
    ],
)
def test_a_table_that_is_no_manifest(columns: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=words):
        ingest_manifest(columns, tmp_path / "cohort")
    assert not (tmp_path / "cohort").exists()


def test_a_column_of_another_type(tmp_path: Path) -> None:
    columns = {"tissue_id": ["t"], "path": ["x"], "modality": [2.5]}
    with pytest.raises(FormatError, match="must hold text"):
        ingest_manifest(columns, tmp_path / "cohort")
    assert not (tmp_path / "cohort").exists()


@pytest.mark.parametrize(
    ("ending", "between"), [("csv", ";"), ("csv", "\t"), ("csv", "|"), ("tsv", ",")]
)
def test_another_delimiter_is_taken_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, ending: str, between: str
) -> None:
    path = tmp_path / f"a.{ending}"
    rows = [["tissue_id", "note", "age"], ["t1", "one. two", "61.5"], ["t2", "three", "48"]]
    path.write_text("".join(between.join(row) + "\n" for row in rows))
    table = read_given(path, text=("tissue_id",))
    assert table.to_pylist() == [
        {"tissue_id": "t1", "note": "one. two", "age": 61.5},
        {"tissue_id": "t2", "note": "three", "age": 48.0},
    ]
    (record,) = caplog.records
    assert "as its ending says; read so" in record.getMessage()


def test_the_delimiter_of_the_ending_goes_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("tissue_id,channel_names;x\nt,A;B;C\n")
    assert read_given(path).to_pylist() == [{"tissue_id": "t", "channel_names;x": "A;B;C"}]
    assert not caplog.records


def test_decimal_commas_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("tissue_id;names;age\nt1;a,b;61,5\nt2;7;48\n")
    with pytest.raises(
        FormatError, match=r"'age' writes numbers with a decimal comma, such as '61,5'"
    ):
        read_given(path)
    path.write_text("tissue_id;names\nt1;a,b\nt2;7\n")
    assert read_given(path)["names"].to_pylist() == ["a,b", "7"]


def test_what_ingest_notes_is_not_for_a_manifest_to_say(manifest: Path, tmp_path: Path) -> None:
    write_csv(manifest, [{**row, "sha256": "0"} for row in rows_of(manifest)])
    with pytest.raises(InvalidInputError, match=r"columns \['sha256'\] are noted by ingest"):
        ingest_manifest(manifest, tmp_path / "cohort")


def test_files_are_asked_before_pixels_are_read(manifest: Path, tmp_path: Path) -> None:
    rows = rows_of(manifest)
    del rows[1]["mpp"]  # nobody states its pixel size
    rows[2]["channel_names"] = "CD3|CD8"  # of three planes
    write_csv(manifest, rows)
    with pytest.raises(MicrotomeError, match="nothing was ingested, 2 failed") as caught:
        ingest_manifest(manifest, tmp_path / "cohort")
    told = str(caught.value).splitlines()[1:]
    assert told[0].startswith("row 2 (b, imc): ")
    assert "does not state its pixel size" in told[0]
    assert told[1].startswith("row 3 (c, imc): ")
    assert "2 channel names" in told[1]
    assert not (tmp_path / "cohort").exists()


def test_one_kind_of_failure_keeps_its_type(manifest: Path, tmp_path: Path) -> None:
    rows = rows_of(manifest)
    for row in rows[:2]:
        del row["mpp"]
    write_csv(manifest, rows)
    with pytest.raises(NoResolutionError, match="2 failed") as caught:
        ingest_manifest(manifest, tmp_path / "cohort")
    assert "row 1 (a, imc)" in str(caught.value)
    assert "row 2 (b, imc)" in str(caught.value)


def test_the_others_go_on_where_one_may_fail(manifest: Path, tmp_path: Path) -> None:
    root = tmp_path / "cohort"
    (manifest.parent / "raw/b.tif").write_bytes(b"II*\0broken")
    with pytest.raises(FormatError, match=r"4 of 5 rows are ingested, 1 failed\nrow 2 \(b, imc\)"):
        ingest_manifest(manifest, root, on_error="continue")
    assert set(facts(root)) == {("a", "imc"), ("c", "imc"), ("x", "he"), ("y", "he")}
    assert facts(root)["c", "imc"]["age"] == 52, "clinical data of the others is there"
    assert panel_names(root) == ["DNA", "CD3", "CD8", "PanCK"]


def test_a_file_that_is_missing_stops_no_others_where_one_may_fail(
    manifest: Path, tmp_path: Path
) -> None:
    rows = rows_of(manifest)
    rows[0]["mpp"] = "-1"
    rows[3]["path"] = "raw/gone.tif"
    write_csv(manifest, rows)
    told: list[Any] = []
    with pytest.raises(MicrotomeError, match="3 of 5 rows are ingested, 2 failed"):
        ingest_manifest(manifest, tmp_path / "cohort", on_error="continue", told=told.append)
    assert set(facts(tmp_path / "cohort")) == {("b", "imc"), ("c", "imc"), ("y", "he")}
    states = {each.row: each.state for each in told}
    assert states == {1: "failed", 2: "written", 3: "written", 4: "failed", 5: "written"}
    reasons = {each.row: each.reason for each in told}
    assert "gone.tif does not exist" in reasons[4]
    assert "not a possible pixel size" in reasons[1]
    # What is wrong with the table stops it in any case.
    write_csv(manifest, [*rows, rows[1]])
    with pytest.raises(InvalidInputError, match="there more than once"):
        ingest_manifest(manifest, tmp_path / "other", on_error="continue")
    assert not (tmp_path / "other").exists()


def test_failures_of_many_kinds_are_one_error(manifest: Path, tmp_path: Path) -> None:
    rows = rows_of(manifest)
    del rows[0]["mpp"]
    write_csv(manifest, rows)
    (manifest.parent / "raw/b.tif").write_bytes(b"II*\0broken")
    with pytest.raises(MicrotomeError, match="3 of 5 rows are ingested, 2 failed") as caught:
        ingest_manifest(manifest, tmp_path / "cohort", on_error="continue")
    assert type(caught.value) is MicrotomeError
    assert "row 1 (a, imc)" in str(caught.value)
    assert "row 2 (b, imc)" in str(caught.value)


def test_pixels_that_cannot_be_read_stop_a_run_that_goes_on_later(
    manifest: Path, tmp_path: Path
) -> None:
    root = tmp_path / "cohort"
    source = manifest.parent / "raw/b.tif"
    whole = source.read_bytes()
    tifffile.imwrite(source, tifffile.imread(source), photometric="minisblack", compression="zlib")
    damaged = bytearray(source.read_bytes())
    with tifffile.TiffFile(source) as file:
        for page in file.pages:
            start, count = page.dataoffsets[0], page.databytecounts[0]
            damaged[start : start + count] = bytes(count)
    source.write_bytes(damaged)
    with pytest.raises(FormatError, match=r"1 of 5 rows are ingested, 1 failed\nrow 2"):
        ingest_manifest(manifest, root)
    assert set(facts(root)) == {("a", "imc")}
    assert facts(root)["a", "imc"]["age"] == 50
    source.write_bytes(whole)
    ingest_manifest(manifest, root)
    assert len(facts(root)) == 5


def test_nothing_is_left_where_every_row_fails(manifest: Path, tmp_path: Path) -> None:
    for name in "abcxy":
        (manifest.parent / f"raw/{name}.tif").write_bytes(b"II*\0broken")
    with pytest.raises(FormatError, match="0 of 5 rows are ingested, 5 failed"):
        ingest_manifest(manifest, tmp_path / "cohort", on_error="continue")
    assert not (tmp_path / "cohort").exists()


def test_a_cohort_is_not_contradicted(manifest: Path, tmp_path: Path, tree: Tree) -> None:
    root = tmp_path / "cohort"
    ingest_manifest(manifest, root)
    before = tree(root)
    rows = rows_of(manifest)
    rows[0]["age"] = 99
    write_csv(manifest, rows)
    with pytest.raises(ExistsError, match=r"a imc age 50 \(given 99\)"):
        ingest_manifest(manifest, root)
    assert tree(root) == before
    ingest_manifest(manifest, root, overwrite=True)
    assert facts(root)["a", "imc"]["age"] == 99
    rows = [{**rows[0], "tissue_id": "e", "patient_id": "02", "split": "train"}]
    write_csv(manifest, rows)
    with pytest.raises(InvalidInputError, match=r"'test' \(in the cohort\), 'train' \(row 1\)"):
        ingest_manifest(manifest, root)


def test_arrays_and_parquet(manifest: Path, tmp_path: Path) -> None:
    pixels = RNG.integers(0, 99, (40, 50, 2), dtype=np.uint16)
    np.save(manifest.parent / "raw/z.npy", pixels)
    table = pa.table(
        {
            "tissue_id": ["z"],
            "path": ["raw/z.npy"],
            "modality": ["codex"],
            "mpp": [1.0],
            "channel_names": ["DNA | CD3"],
            "axes": ["yxc"],
        }
    )
    pq.write_table(table, manifest.with_suffix(".parquet"))
    (path,) = ingest_manifest(manifest.with_suffix(".parquet"), tmp_path / "cohort")
    image = MultiscaleImage.open(path)
    assert image.channel_names == ("DNA", "CD3")
    np.testing.assert_array_equal(image.level(0)[...], np.moveaxis(pixels, -1, 0))
    (row,) = read_tissues(CohortLayout.open(tmp_path / "cohort")).to_pylist()
    assert row["source"].endswith("raw/z.npy")


def test_an_array_of_objects_is_not_loaded(manifest: Path, tmp_path: Path) -> None:
    np.save(manifest.parent / "raw/z.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    row = {
        "tissue_id": "z",
        "path": "raw/z.npy",
        "modality": "imc",
        "mpp": "1",
        "channel_names": "DNA",
        "axes": "yx",
    }
    with pytest.raises(FormatError, match="not an array of numbers"):
        ingest_manifest(write_csv(manifest, [row]), tmp_path / "cohort")


def test_there_is_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="does not exist"):
        ingest_manifest(tmp_path / "none.csv", tmp_path / "cohort")
    with pytest.raises(InvalidInputError, match="on_error must be one of"):
        ingest_manifest({}, tmp_path / "cohort", on_error="ignore")  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on(manifest: Path, tmp_path: Path) -> None:
    root = tmp_path / "cohort"
    code = (
        "import sys, time, microtome.cohort as c\n"
        "def slow(*_): time.sleep(0.3)\n"
        "c.ingest_manifest(sys.argv[1], sys.argv[2], progress=slow)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(manifest), str(root)])
    while not (root / "metadata/tissues.parquet").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    assert 1 <= len(facts(root)) < 5, "killed on the way"
    ingest_manifest(manifest, root)
    assert len(facts(root)) == 5
    assert facts(root)["a", "imc"]["age"] == 50


@pytest.mark.slow
def test_several_processes_lose_no_row(files: Path, tmp_path: Path) -> None:
    """Four programs fill one cohort at the same moment, each with two processes of its own."""
    root = tmp_path / "cohort"
    code = (
        "import sys\n"
        "from microtome.cohort import ingest_manifest\n"
        "from microtome.jobs import process_pool\n"
        "if __name__ == '__main__':\n"
        "    with process_pool(2) as pool:\n"
        "        ingest_manifest(sys.argv[1], sys.argv[2], executor=pool)\n"
    )
    script = tmp_path / "fill.py"
    script.write_text(code)
    manifests = []
    for part in range(4):
        rows = [
            {
                "tissue_id": f"p{part}-{name}",
                "path": str(files / f"raw/{name}.tif"),
                "modality": "imc",
                "mpp": 1,
                "channel_names": "|".join(f"{c}-{part}" for c in channels.split("|")),
                "age": part,
            }
            for name, channels in PANELS.items()
        ]
        manifests.append(write_csv(tmp_path / f"{part}.csv", rows))
    running = [
        subprocess.Popen([sys.executable, str(script), str(m), str(root)], stderr=subprocess.PIPE)
        for m in manifests
    ]
    for process in running:
        said = process.communicate(timeout=110)[1]
        assert process.returncode == 0, said.decode()
    found = facts(root)
    assert {k[0]: r["age"] for k, r in found.items()} == {
        f"p{part}-{name}": part for part in range(4) for name in PANELS
    }
    names = panel_names(root)
    assert len(names) == len(set(names)) == 16
    measured = {
        row.pop("tissue_id"): {name for name, there in row.items() if there}
        for row in pq.read_table(root / "imc/channels_per_tissue.parquet").to_pylist()
    }
    for part in range(4):
        for name, channels in PANELS.items():
            expected = {f"{c}-{part}" for c in channels.split("|")}
            assert measured[f"p{part}-{name}"] == expected
            image = MultiscaleImage.open(root / f"imc/1_0mpp/images/p{part}-{name}.ome.zarr")
            assert list(image.channel_names or ()) == [n for n in names if n in expected]


def test_columns_that_look_like_others_are_told(
    manifest: Path, tmp_path: Path, caplog: Any
) -> None:
    rows = rows_of(manifest)
    for row in rows:
        row["Patient"] = "p1"
    write_csv(manifest, rows)
    ingest_manifest(manifest, tmp_path / "cohort")
    assert (
        "column 'Patient' goes to the table of tissues as clinical data; if it is patient_id"
        in caplog.text
    )
