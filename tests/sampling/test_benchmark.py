"""The benchmark of sampling, on little: tables with an index open and draw as those without."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def bench(monkeypatch):
    """The modules of the benchmarks, which are in the repository but in no package that installs."""
    monkeypatch.syspath_prepend(REPOSITORY)
    return lambda name: importlib.import_module(f"benchmarks.{name}")


def test_cohorts_draw_the_same_with_an_index_and_without(bench, tmp_path):
    cohorts = bench("sampling_cohorts")
    for name, indexed in (("indexed", True), ("plain", False)):
        cohorts.write_cohorts(tmp_path / name, 5, 10_003, indexed=indexed)
        found = list((tmp_path / name).rglob("*_tile_coordinates.arrow"))
        assert len(found) == 5 * indexed
    for rule in ({}, {"alpha": 0.5, "patient_quota": 7}, {"replacement": True}, {"split": "train"}):
        one, two = (cohorts.measure(tmp_path / name, rule) for name in ("indexed", "plain"))
        assert (one["rows"], one["checksum"]) == (two["rows"], two["checksum"])
    assert cohorts.measure(tmp_path / "plain", {})["rows"] == 10_003


@pytest.mark.slow
def test_the_tables_say_what_each_size_costs(bench, tmp_path):
    options = bench("options").Options(None, 1, 1, tmp_path, lambda line: None)
    opening, drawing = bench("sampling").tables_of(3, (300, 600), 300, options)
    names = [m.name for m in opening.measurements]
    assert names == [m.name for m in drawing.measurements]
    assert names[0] == opening.base == "300 tiles"
    assert names[-1] == "300 tiles without indexes"
    assert all(len(m.cpu) == len(m.peak) == 1 for m in opening.measurements)
    text = bench("report").markdown("sampling", [opening, drawing], {})
    assert "peak memory MiB" in text
    assert not list(tmp_path.iterdir())
