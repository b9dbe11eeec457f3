"""`microtome cohort ...` and `microtome ingest --manifest` end to end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from pyarrow import csv as pa_csv

from microtome.image import MultiscaleImage


def tissues(root: Path) -> dict[str, dict[str, Any]]:
    rows = pq.read_table(root / "metadata/tissues.parquet").to_pylist()
    return {row["tissue_id"]: row for row in rows}


def test_init(run: Any, tmp_path: Path) -> None:
    root = tmp_path / "study"
    done = run("cohort", "init", root, "--name", "Lung", "--description", "Resections")
    assert (done.code, done.out) == (0, f"{root}\n")
    assert json.loads((root / "cohort.json").read_text())["description"] == "Resections"
    assert run("cohort", "init", root).code == 0
    done = run("cohort", "init", root, "--name", "Liver")
    assert done.code == 1
    assert "is a cohort with name 'Lung'" in done.err
    done = run("cohort", "info", root)
    assert done.out.startswith(f"{root}\n  cohort of 0 tissues")
    assert run("info", root).out == done.out
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").write_text("x")
    assert run("cohort", "init", tmp_path / "other").code == 1


def test_add(run: Any, cohort: Path, tmp_path: Path) -> None:
    table = tmp_path / "clinical.csv"
    table.write_text("tissue_id,patient_id,age\nt,007,61\n")
    done = run("cohort", "add", cohort, table)
    assert done.code == 0, done.err
    assert done.out.startswith("1 images, 13 columns: tissue_id, dataset, patient_id")
    assert (tissues(cohort)["t"]["patient_id"], tissues(cohort)["t"]["age"]) == ("007", 61)
    table.write_text("tissue_id,age\nt,62\n")
    done = run("cohort", "add", cohort, table)
    assert done.code == 1
    assert "t age 61 (given 62)" in done.err
    assert run("cohort", "add", cohort, table, "--overwrite").code == 0
    table.write_text("tissue_id,age\nu,62\n")
    done = run("cohort", "add", cohort, table)
    assert done.code == 2
    assert "does not have: u" in done.err


def test_add_cells(run: Any, cohort: Path, tmp_path: Path) -> None:
    table = tmp_path / "regionprops.csv"
    table.write_text("Object,area,centroid-0,centroid-1\n1,30,9.5,19.5\n2,40,10,20\n")
    done = run("cohort", "add-cells", cohort, table, "--tissue-id", "t")
    assert (done.code, done.out) == (0, "2 cells added, 0 changed\n")
    assert pq.read_table(cohort / "metadata/cells.parquet").to_pylist()[0] == {
        "tissue_id": "t",
        "cell_id": 1,
        "area": 30,
        "centroid_y": 5.0,
        "centroid_x": 10.0,
    }
    done = run("cohort", "add-cells", cohort, table)
    assert done.code == 1
    assert "say which (--tissue-id" in done.err
    table.write_text("Object,area\n1,30\n2,41\n3,5\n")
    done = run("cohort", "add-cells", cohort, table, "--tissue", "t", "--overwrite")
    assert (done.code, done.out) == (0, "1 cells added, 1 changed\n")
    table.write_text("cell_id,type\n1,B\n2,T\n")
    done = run("cohort", "add-cells", cohort, table, "--tissue", "t")
    assert (done.code, done.out) == (0, "0 cells added, 2 changed\n")
    assert run("cohort", "add-cells", cohort, table, "--tissue", "t").out == (
        "0 cells added, 0 changed\n"
    )
    table.write_text("cell_id,centroid_y,centroid_x\n8,306.5,270.5\n9,306.6,3\n")
    done = run("cohort", "add-cells", cohort, table, "--tissue", "t")
    assert done.code == 2
    assert "cell 9 of tissue 't' at (y, x) = (306.6, 3) um lies outside" in done.err
    assert "which is 306.5 x 270.5 um" in done.err


def test_cells_of_masks(run: Any, cohort: Path, tmp_path: Path) -> None:
    labels = np.zeros((613, 541), np.uint16)
    labels[10:20, 10:20], labels[30:41, 30:40] = 1, 2
    tifffile.imwrite(tmp_path / "cells.tif", labels)
    run("cohort", "add-mask", cohort, tmp_path / "cells.tif", "--tissue", "t")
    done = run("cohort", "cells", cohort, "--modality", "he")
    assert (done.code, done.out) == (0, "2 cells\n"), done.err
    rows = pq.read_table(cohort / "metadata/cells.parquet").to_pylist()
    places = [(row["cell_id"], row["centroid_y"], row["centroid_x"]) for row in rows]
    # Of pixels of 0.5 um, from the upper left edge.
    assert places == [(1, 7.5, 7.5), (2, 17.75, 17.5)]
    with MultiscaleImage.open(cohort / "he/0_5mpp/images/t.ome.zarr") as image:
        red = image.level(0)[...][0][labels == 2]
    assert rows[1]["mean_red"] == pytest.approx(red.mean())


def test_add_mask(run: Any, cohort: Path, tmp_path: Path) -> None:
    labels = np.zeros((613, 541), np.uint16)
    labels[10:20, 10:20], labels[30:40, 30:40] = 1, 2
    tifffile.imwrite(tmp_path / "cells.tif", labels)
    done = run("cohort", "add-mask", cohort, tmp_path / "cells.tif", "--tissue-id", "t")
    assert done.code == 0, done.err
    path = cohort / "segmentations/0_5mpp/cell_masks/instances/t.ome.zarr"
    assert done.out == f"{path}\n"
    np.testing.assert_array_equal(MultiscaleImage.open(path).level(0)[...], labels)
    task = (
        "cohort",
        "add-mask",
        cohort,
        tmp_path / "cells.tif",
        "--tissue-id",
        "t",
        "--kind",
        "type",
    )
    assert run(*task).code == 2
    done = run(*task, "--label", "1=tumour", "--label", "2=stroma, loose")
    assert done.code == 0, done.err
    encoder = pq.read_table(cohort / "segmentations/0_5mpp/cell_masks/type/label_encoder.parquet")
    assert encoder["name"].to_pylist() == ["tumour", "stroma, loose"]


@pytest.mark.parametrize("labels", [["tumour"], ["1="], ["x=a"], ["1.5=a"], ["1=a", "1=b"]])
def test_labels_that_are_none(run: Any, cohort: Path, tmp_path: Path, labels: list[str]) -> None:
    options = [part for label in labels for part in ("--label", label)]
    done = run(
        "cohort",
        "add-mask",
        cohort,
        tmp_path / "x.tif",
        "--tissue-id",
        "t",
        "--kind",
        "k",
        *options,
    )
    assert done.code == 2
    assert "--label takes NUMBER=NAME" in done.err


def test_validate(run: Any, cohort: Path) -> None:
    done = run("cohort", "validate", cohort, "--checksums", "--cells")
    assert (done.code, done.out) == (0, "0 errors, 0 warnings\n")
    (cohort / "he/0_5mpp/images/notes.txt").write_text("x")
    done = run("cohort", "validate", cohort)
    assert done.code == 0, "a warning is no failure"
    assert done.out.splitlines()[-1] == "0 errors, 1 warnings"
    (cohort / "he/0_5mpp/images/t.ome.zarr/zarr.json").write_text("{}")
    done = run("cohort", "validate", cohort)
    assert done.code == 1
    first, second, last = sorted(done.out.splitlines(), key=lambda line: line[:1] == "1")
    assert first.startswith(("warning", "error"))
    assert second.startswith("error    he/0_5mpp/images/t.ome.zarr: ")
    assert last == "1 errors, 1 warnings"
    done = run("cohort", "validate", cohort, "--json")
    assert done.code == 1
    assert [f["kind"] for f in json.loads(done.out)] == ["orphan", "image-damaged"]
    done = run("-q", "cohort", "validate", cohort)
    assert done.code == 1
    assert "notes.txt" in done.out
    assert "errors," not in done.out
    done = run("cohort", "validate", cohort / "none")
    assert (done.code, done.out) == (1, "")
    assert "there is no cohort" in done.err
    assert run("cohort", "validate", cohort, "--resolution", "fine").code == 2


@pytest.fixture
def manifest(slide: Path, tmp_path: Path) -> Path:
    path = tmp_path / "manifest.csv"
    rows = [f"t{i},{slide},he,p{i},{2000 + i}" for i in range(3)]
    path.write_text("\n".join(["tissue_id,path,modality,patient_id,year", *rows]) + "\n")
    return path


@pytest.mark.parametrize("workers", [1, 2])
def test_ingest_of_a_manifest(run: Any, manifest: Path, tmp_path: Path, workers: int) -> None:
    root = tmp_path / "cohort"
    command = ("ingest", "--manifest", manifest, "--cohort", root, "--workers", workers)
    done = run(*command)
    assert done.code == 0, done.err
    head, written, every = (line.split() for line in done.out.splitlines())
    assert head == ["ingest", "images", "MB", "seconds", "of", "workers"]
    assert written[:2] == ["done", "3"]
    assert float(written[2]) > 0
    assert every[:2] == ["all,", "in"]
    assert "ingest: 3 of 3" in done.err
    assert {t: (r["patient_id"], r["year"]) for t, r in tissues(root).items()} == {
        f"t{i}": (f"p{i}", 2000 + i) for i in range(3)
    }
    again = run(*command)
    assert again.code == 0
    assert "already there" in again.out
    assert "done" not in again.out


def test_a_manifest_that_fails(run: Any, manifest: Path, tmp_path: Path) -> None:
    manifest.write_text(manifest.read_text().replace("t1,", "../t1,").replace("t2,/", "t2,/none/"))
    root = tmp_path / "cohort"
    done = run("ingest", "--manifest", manifest, "--cohort", root)
    assert done.code == 2
    assert "2 problems, nothing was ingested" in done.err
    assert "row 2: tissue id '../t1'" in done.err
    assert "row 3 (t2, he): /none/" in done.err
    assert not root.exists()


def test_a_manifest_goes_on(run: Any, manifest: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.tif"
    broken.write_bytes(b"II*\0broken")
    manifest.write_text(manifest.read_text() + f"t3,{broken},he,p3,2003\n")
    options = ("ingest", "--manifest", manifest, "--cohort", tmp_path / "cohort")
    stopped = run(*options)
    assert stopped.code == 1
    assert (stopped.out + stopped.err).count("broken.tif") <= 2, "named, and in the reader's words"
    assert [line.split()[:3] for line in stopped.out.splitlines()[1:3]] == [
        ["failed", "1", "0.0"],
        ["not", "begun", "3"],
    ]
    assert not (tmp_path / "cohort").exists()
    done = run(*options, "--on-error", "continue")
    assert done.code == 1
    assert "3 of 4 rows are ingested, 1 failed" in done.err
    assert set(tissues(tmp_path / "cohort")) == {"t0", "t1", "t2"}
    report = tmp_path / "manifest.ingest.csv"
    lines = done.out.splitlines()
    assert lines[1].split()[:2] == ["done", "3"]
    assert lines[2].split()[:2] == ["failed", "1"]
    assert lines[4:] == [f"what became of each row: {report}"]
    assert done.err.count(f"row 4 (t3, he): {broken}") == 1, "it is told once"
    rows = pa_csv.read_csv(report).to_pylist()
    assert [(r["row"], r["tissue_id"], r["state"]) for r in rows] == [
        *((i + 1, f"t{i}", "written") for i in range(3)),
        (4, "t3", "failed"),
    ]
    assert str(broken) in rows[3]["reason"]
    for row in rows[:3]:
        files = [f for f in Path(row["image"]).rglob("*") if f.is_file()]
        assert row["bytes"] == sum(f.stat().st_size for f in files) > 0
        assert row["seconds"] > 0


def test_a_report_that_cannot_be_is_told_first(run: Any, manifest: Path, tmp_path: Path) -> None:
    options = ("ingest", "--manifest", manifest, "--cohort", tmp_path / "cohort", "--report")
    for place, words in {
        "report.txt": "a report is a .csv, .tsv, .parquet file",
        "none/report.csv": "where the report goes, does not exist",
    }.items():
        done = run(*options, tmp_path / place)
        assert done.code != 0
        assert words in done.err
        assert not (tmp_path / "cohort").exists()
    assert run(*options, tmp_path / "report.parquet").code == 0
    rows = pq.read_table(tmp_path / "report.parquet").to_pylist()
    assert [row["state"] for row in rows] == ["written"] * 3


def test_a_source_or_a_manifest(run: Any, manifest: Path, slide: Path, tmp_path: Path) -> None:
    both = run("ingest", slide, "--manifest", manifest, "--cohort", tmp_path / "c", "--tissue", "t")
    assert both.code == 2
    assert "SOURCE, --tissue and --manifest exclude each other" in both.err
    for options in ((), (slide,), (slide, "--tissue", "t"), (slide, "--modality", "he")):
        done = run("ingest", *options, "--cohort", tmp_path / "c")
        assert done.code == 2
        assert "give SOURCE with --tissue and --modality" in done.err
    assert not (tmp_path / "c").exists()


def test_a_region_that_is_all_tissue(run: Any, cohort: Path) -> None:
    done = run("mask", cohort, "--method", "whole")
    assert (done.code, done.out) == (0, "t: 100.0% tissue\n")


def test_align(run: Any, cohort: Path) -> None:
    path = cohort / "metadata/alignments.parquet"
    where = ("cohort", "align", cohort, "--tissue-id", "t", "--modality", "he")
    done = run(*where, "--matrix", "1", "0", "3.5", "0", "1", "-2", "--method", "landmarks")
    assert done.code == 0, done.err
    assert done.out == "t he: [[1.0, 0.0, 3.5], [0.0, 1.0, -2.0]]\n"
    (row,) = pq.read_table(path).to_pylist()
    assert (row["x_0"], row["y_0"], row["method"]) == (3.5, -2.0, "landmarks")
    done = run(*where, "--matrix", "1", "0", "3.5")
    assert done.code == 2
    assert "six numbers" in done.err
    assert run(*where).out == "t he: no alignment\n"
    assert pq.read_table(path).num_rows == 0
    done = run("cohort", "align", cohort, "--tissue-id", "t", "--modality", "codex")
    assert done.code != 0
    assert "imaged as codex" in done.err


def test_a_manifest_of_a_spreadsheet_with_semicolons(
    run: Any, manifest: Path, tmp_path: Path
) -> None:
    manifest.write_text(manifest.read_text().replace(",", ";"))
    done = run("ingest", "--manifest", manifest, "--cohort", tmp_path / "cohort")
    assert done.code == 0, done.err
    assert "are separated by semicolons, not by commas" in done.err
    assert set(tissues(tmp_path / "cohort")) == {"t0", "t1", "t2"}


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("tissue_id,path,patient_id,year", "lacks the columns ['modality']"),
        ("tissue_id,Path,modality,patient_id,year", "call 'Path' 'path'"),
        ("tissue_id,path,modality,scene,year", "call one of them image"),
    ],
)
def test_a_manifest_whose_columns_are_wrong_is_a_wrong_request(
    run: Any, manifest: Path, tmp_path: Path, header: str, words: str
) -> None:
    lines = manifest.read_text().splitlines()
    rows = [line.split(",")[: len(header.split(","))] for line in lines[1:]]
    manifest.write_text("\n".join([header, *map(",".join, rows)]) + "\n")
    done = run("ingest", "--manifest", manifest, "--cohort", tmp_path / "cohort")
    assert (done.code, done.out) == (2, "")
    assert words in done.err
    assert not (tmp_path / "cohort").exists()


def test_quiet_answers_are_still_answers(run: Any, manifest: Path, tmp_path: Path) -> None:
    root = tmp_path / "cohort"
    assert run("-q", "ingest", "--manifest", manifest, "--cohort", root).out == ""
    assert run("-q", "mask", root, "--tissue", "t0").code == 0
    loud, quiet = (run(*flags, "cohort", "validate", root) for flags in ((), ("-q",)))
    assert loud.code == quiet.code
    assert "have no mask" in quiet.out
    assert quiet.out.splitlines() == loud.out.splitlines()[:-1], "all but the count"
    shutil.rmtree(next((root / "he").rglob("t1.ome.zarr")))
    broken = run("-q", "cohort", "validate", root)
    assert broken.code == 1
    assert "t1" in broken.out
