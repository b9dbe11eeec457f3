"""0 where it was done, 1 where it could not be, 2 where the request is wrong; and nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

HE = ("--modality", "he", "--resolution", "0.5")


def refused(run: Any, tmp_path: Path, code: int, words: str, *arguments: object) -> None:
    """Run what must be refused: one line that says why, and no file more or less than before."""
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    done = run(*arguments)
    assert done.code == code, done.err
    assert words in done.err
    assert done.out == ""
    assert "Traceback" not in done.err
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


def test_a_truncated_slide(run: Any, tmp_path: Path, shared_data: Path) -> None:
    broken = shared_data / "wsi/broken.svs"
    arguments = ("ingest", broken, "--cohort", tmp_path / "c", "--tissue", "t", *HE)
    refused(run, tmp_path, 1, "broken.svs", *arguments)


def test_a_slide_cut_in_half(run: Any, tmp_path: Path, slide: Path) -> None:
    whole = slide.read_bytes()
    (tmp_path / "half.tif").write_bytes(whole[: len(whole) // 2])
    arguments = ("ingest", tmp_path / "half.tif", "--cohort", tmp_path / "c", "--tissue", "t", *HE)
    refused(run, tmp_path, 1, "half.tif", *arguments)


def test_a_missing_file(run: Any, tmp_path: Path) -> None:
    arguments = ("ingest", tmp_path / "no.svs", "--cohort", tmp_path / "c", "--tissue", "t", *HE)
    refused(run, tmp_path, 1, "no.svs does not exist", *arguments)


def test_text_named_like_a_slide(run: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.svs").write_text("these are notes")
    arguments = ("ingest", tmp_path / "notes.svs", "--cohort", tmp_path / "c", "--tissue", "t", *HE)
    refused(run, tmp_path, 1, "named like TIFF but is none", *arguments)


def test_an_image_without_a_pixel_size(run: Any, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((50, 40, 3), np.uint8), photometric="rgb")
    arguments = ("ingest", tmp_path / "a.tif", "--cohort", tmp_path / "c", "--tissue", "t", *HE)
    refused(run, tmp_path, 2, "--mpp", *arguments)


@pytest.mark.parametrize("name", ["a/b", "..", "../up", ".hidden", "", "x" * 201, "a\nb"])
def test_tissue_ids_that_are_paths(run: Any, tmp_path: Path, slide: Path, name: str) -> None:
    arguments = ("ingest", slide, "--cohort", tmp_path / "c", f"--tissue={name}", *HE)
    refused(run, tmp_path, 2, "tissue id", *arguments)


def test_an_unknown_modality(run: Any, tmp_path: Path, slide: Path) -> None:
    options = ("--cohort", tmp_path / "c", "--tissue", "t", "--modality", "xray")
    refused(run, tmp_path, 2, "known are he", "ingest", slide, *options)


def test_a_cohort_that_is_something_else(run: Any, tmp_path: Path, slide: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.txt").write_text("x")
    options = ("--tissue", "t", *HE)
    refused(
        run, tmp_path, 1, "no cohort", "ingest", slide, "--cohort", tmp_path / "notes", *options
    )
    file = tmp_path / "notes/a.txt"
    refused(run, tmp_path, 1, "is a file", "ingest", slide, "--cohort", file, *options)
    for verb in ("mask", "tile", "stats", "report"):
        refused(run, tmp_path, 1, "no cohort", verb, tmp_path / "notes")
        refused(run, tmp_path, 1, "there is no cohort", verb, tmp_path / "missing")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--bogus"],
        ["bogus"],
        ["ingest"],
        ["ingest", "a", "--tissue", "t", "--modality", "he"],
        ["tile", "c", "--size", "big"],
        ["tile", "c", "--method", "magic"],
        ["tile", "c", "--bogus", "1"],
        ["stats", "c", "--quantile-level", "slide"],
        ["info"],
        ["info", "a", "b"],
        ["report", "c", "--output"],
    ],
    ids=" ".join,
)
def test_requests_that_cannot_be_parsed(run: Any, tmp_path: Path, arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert done.err.count("Error") == 1
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tile", "--size", "0"], "tile_size"),
        (["tile", "--size", "64", "--tolerance", "2"], "tolerance"),
        (["tile", "--size", "64", "--stride", "0"], "stride"),
        (["tile", "--resolution", "0.01"], "0_5mpp"),
        (["tile", "--resolution", "fine"], "fine"),
        (["mask", "--modality", "xray"], "xray"),
        (["stats", "--modality", "he"], "fixed numbers"),
        (["stats", "--method", "magic"], "magic"),
        (["mask", "--tissue", "nobody"], "nobody"),
        (["mask", "--modality", "codex"], "codex"),
        (["predict", "--tile-size", "0"], "tile"),
        (["predict", "--overlap", "600"], "overlap"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_values(run: Any, cohort: Path, arguments: list[str], words: str) -> None:
    assert run("mask", cohort).code == 0
    refused(run, cohort.parent, 2, words, arguments[0], cohort, *arguments[1:])


def test_jobs_that_cannot_be_done(run: Any, cohort: Path, tmp_path: Path) -> None:
    refused(run, tmp_path, 1, "no tissue mask", "tile", cohort)
    refused(run, tmp_path, 1, "nothing.like", "predict", cohort, "--model", "nothing.like:this")
    refused(run, tmp_path, 1, "missing", "info", tmp_path / "missing")
    refused(run, tmp_path, 1, "does not exist", "predict", tmp_path / "missing")
    refused(
        run, tmp_path, 1, "does not exist", "predict", tmp_path / "no.svs", "--out", tmp_path / "o"
    )
    folder = tmp_path / "folder"
    folder.mkdir()
    refused(run, tmp_path, 2, "--out", "predict", folder)
    refused(run, tmp_path, 1, "folder", "info", folder)
    assert run("mask", cohort).code == 0
    assert run("tile", cohort, "--size", "64").code == 0
    assert run("tile", cohort, "--size", "64").code == 0, "nothing to do"
    refused(run, tmp_path, 1, "--overwrite", "tile", cohort, "--size", "64", "--tolerance", "0.1")


def test_transforms_of_what_is_no_scene(run: Any, cohort: Path, tmp_path: Path) -> None:
    image = cohort / "he/0_5mpp/images/t.ome.zarr"
    refused(run, tmp_path, 1, "no scene", "conformance", image, "a", "b", "[[0, 0]]")
    refused(run, tmp_path, 1, "does not exist", "conformance", tmp_path / "no", "a", "b", "[]")


@pytest.mark.parametrize("mpp", ["abc", "1,2,3", "", "0", "-1", "nan", "1e9", "0,5", "1,25"])
def test_pixel_sizes(run: Any, tmp_path: Path, slide: Path, mpp: str) -> None:
    options = ("--cohort", tmp_path / "c", "--tissue", "t", *HE, f"--mpp={mpp}")
    refused(run, tmp_path, 2, "mpp", "ingest", slide, *options)


def test_a_report_where_none_can_be_written(run: Any, cohort: Path, tmp_path: Path) -> None:
    refused(run, tmp_path, 1, "cohort.json", "report", cohort, "-o", cohort / "cohort.json/a.html")


@pytest.mark.parametrize(
    ("mpp", "told"),
    [("0,5", "Write 0.5\n"), ("1,25", "Write 1.25; or, for pixels of two sizes y,x, 1.0,25.0\n")],
)
def test_a_decimal_comma_is_told_of(
    run: Any, slide: Path, tmp_path: Path, mpp: str, told: str
) -> None:
    found = run("export", slide, tmp_path / "a.ome.tif", "--mpp", mpp)
    # A size of 0, as of "0,5" read as y,x, is none to advise.
    assert (found.code, found.err.endswith(told)) == (2, True), found.err
