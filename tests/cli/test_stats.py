"""`microtome stats`: its options reach the function of the same name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile


@pytest.fixture
def cohort(run: Any, tmp_path: Path) -> Path:
    root = tmp_path / "c"
    for name, seed in (("a", 0), ("b", 1)):
        pixels = np.random.default_rng(seed).gamma(1, 9, (2, 60, 70)).astype(np.float32)
        pixels[:, 10:50, 10:60] += 300  # what the detection takes for tissue
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels, photometric="minisblack")
        options = ("--cohort", root, "--tissue", name, "--modality", "imc", "--mpp", "1")
        channels = ("--channel", "DNA", "--channel", "CD3")
        assert run("ingest", tmp_path / f"{name}.tif", *options, *channels).code == 0
    assert run("mask", root).code == 0
    return root


@pytest.mark.parametrize(
    ("options", "path"),
    [
        (("--method", "arcsinh"), "arcsinh/cofactor_5.0"),
        (("--method", "arcsinh/cofactor_150.0"), "arcsinh/cofactor_150.0"),
        (("--method", "minmax", "--quantile-level", "global"), "minmax/global"),
        (("--method", "zscore", "--stats-level", "image"), "zscore"),
        (("--lower-quantile", "0.01", "--exact"), "quantile_clipping/uq_0.99_lq_0.01_image"),
    ],
    ids=["arcsinh", "cofactor", "minmax", "zscore", "exact"],
)
def test_methods(run: Any, cohort: Path, options: tuple[str, ...], path: str) -> None:
    done = run("stats", cohort, *options)
    assert done.code == 0, done.err
    directory = cohort / "imc/1_0mpp/standardization" / path
    assert done.out == f"{directory}\n"
    manifest = json.loads((directory / "manifest.json").read_text())
    assert manifest["standardization"] == path
    assert (manifest["relative_error"] == 0) == ("--exact" in options)


def test_processes_and_what_is_there(run: Any, cohort: Path) -> None:
    done = run("stats", cohort, "--workers", "2")
    assert done.code == 0, done.err
    again = run("stats", cohort)
    assert (again.code, again.out) == (0, done.out), "nothing to do"
    other = run("stats", cohort, "--stats-level", "image")
    assert (other.code, other.out) == (0, done.out), "the other level stands beside it"
    assert sorted(file.name for file in Path(done.out.strip()).glob("*_means.parquet")) == [
        "global_level_means.parquet",
        "image_level_means.parquet",
    ]
    assert run("stats", cohort, "--overwrite").out == done.out
    wrong = run("stats", cohort, "--method", "minmax", "--quantile", "0.9")
    assert wrong.code == 2
    assert "no quantiles" in wrong.err
