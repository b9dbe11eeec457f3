"""What `validate` says of statistics of other tissues, and that what it advises helps as it stands."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from microtome.cli import main
from microtome.cohort import Finding, ingest, stats, validate

HERE = "imc/1_0mpp/standardization"


@pytest.fixture(autouse=True)
def logging_restored() -> Iterator[None]:
    """Undo what a run of the command line sets for the process it is in."""
    logger = logging.getLogger("microtome")
    before = logger.level, list(logger.handlers)
    yield
    logger.setLevel(before[0])
    logger.handlers[:] = before[1]


def add(root: Path, write: Any, name: str, **more: Any) -> None:
    pixels = np.random.default_rng(ord(name)).integers(1, 900, (2, 40, 30)).astype(np.uint16)
    ingest(
        pixels,
        axes="cyx",
        mpp=1.0,
        channel_names=["X", "Y"],
        cohort=root,
        tissue_id=name,
        modality="imc",
        **more,
    )
    write(root, name, np.ones((40, 30), bool))


def told(root: Path) -> list[Finding]:
    return [f for f in validate(root) if f.kind.startswith("statistics")]


def follow(finding: Finding) -> None:
    """Do what a finding says, to the letter."""
    command = shlex.split(finding.advice.split("`")[1])
    assert command[0] == "microtome"
    assert main(command[1:]) == 0


@pytest.fixture
def cohort(tmp_path: Path, write: Any) -> Path:
    """Two tissues, in a directory whose name a shell has to have quoted."""
    root = tmp_path / "my cohort"
    for name in "ab":
        add(root, write, name, split="train")
    return root


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"method": "arcsinh/cofactor_1.0"}, ["means", "stds"]),
        ({"method": "zscore"}, ["means", "stds"]),
        ({"method": "minmax", "quantile_level": "global"}, ["lower_quantiles", "upper_quantiles"]),
        ({"quantile_level": "global"}, ["means", "stds", "upper_quantiles"]),
    ],
    ids=["arcsinh", "zscore", "minmax", "quantiles"],
)
def test_global_tables_are_told_of_a_tissue_that_came_later(
    cohort: Path, write: Any, options: Any, names: list[str]
) -> None:
    (place,) = stats(cohort, **options)
    add(cohort, write, "c", split="test")
    assert told(cohort) == [], "of another split it would not be fitted on"
    add(cohort, write, "d", split="train")
    found = told(cohort)
    assert {(f.severity, f.kind) for f in found} == {("warning", "statistics-tissues")}
    spec = place.relative_to(cohort).as_posix()
    assert [f.place for f in found] == [f"{spec}/global_level_{name}.parquet" for name in names]
    assert "fitted on split 'train' before d came" in found[0].what
    follow(found[-1])
    assert told(cohort) == []


def test_where_there_is_no_split_all_are_fitted_on(tmp_path: Path, write: Any) -> None:
    add(tmp_path, write, "a")
    stats(tmp_path, method="zscore")
    add(tmp_path, write, "b")
    found = told(tmp_path)
    assert "fitted on all tissues before b came" in found[0].what
    # Now there is a training split, by which the default is another one: the advice keeps theirs.
    add(tmp_path, write, "c", split="train")
    found = told(tmp_path)
    assert " --split all" in found[0].advice
    follow(found[0])
    assert told(tmp_path) == []


@pytest.mark.parametrize(
    "options",
    [
        {"method": "zscore", "stats_level": "image"},
        {"method": "minmax", "quantile_level": "image"},
        {"stats_level": "image", "quantile": 0.5, "lower_quantile": 0.25},
        {"method": "quantile_clipping_log1p", "stats_level": "global"},
        {"method": "arcsinh", "stats_level": "image", "split": "test"},
    ],
    ids=["zscore", "minmax", "quantiles", "global", "split"],
)
def test_what_is_advised_of_a_tissue_without_numbers_helps(
    cohort: Path, write: Any, options: Any
) -> None:
    add(cohort, write, "c", split="test")
    (place,) = stats(cohort, **options)
    before = {path.name for path in place.iterdir()}
    add(cohort, write, "d", split="train")
    found = [f for f in told(cohort) if f.severity == "error"]
    assert "they say nothing of d" in found[0].what
    follow(found[-1])
    assert told(cohort) == []
    assert {path.name for path in place.iterdir()} == before, "these tables, and no others"
    assert pq.read_table(min(place.glob("*.parquet"))).num_rows in {1, 4}


def test_what_is_advised_of_damage_helps(cohort: Path) -> None:
    (place,) = stats(cohort, stats_level="image", lower_quantile=0.1)
    for path in sorted(place.glob("*.parquet")):
        path.write_bytes(b"PAR1")
        (found, *_) = told(cohort)
        assert (found.kind, found.place) == (
            "statistics-damaged",
            path.relative_to(cohort).as_posix(),
        )
        follow(found)
        assert told(cohort) == []


def test_numbers_of_each_image_depend_on_no_split(cohort: Path) -> None:
    stats(cohort, method="zscore", stats_level="image")
    for method in ("minmax", "arcsinh"):
        stats(cohort, method=method)
    path = cohort / "metadata/tissues.parquet"
    table = pq.read_table(path)
    splits = ["train", "test"]
    place = table.column_names.index("split")
    pq.write_table(table.set_column(place, "split", pa.array(splits)), path)
    found = told(cohort)
    assert {f.place for f in found} == {
        f"{HERE}/arcsinh/cofactor_5.0/global_level_{name}.parquet" for name in ("means", "stds")
    }
    assert {f.kind for f in found} == {"statistics-split"}
    follow(found[0])
    assert told(cohort) == []
