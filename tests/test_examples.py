"""Every example runs as a user would run it: on made-up images, and on real ones where they are."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(*arguments: object) -> str:
    ran = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / "two_cohorts.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.slow
def test_two_made_up_cohorts_train_one_model(tmp_path):
    printed = run("--steps", 40, "--out", tmp_path)
    first, last = map(float, re.findall(r"training loss: ([\d.]+) .* ([\d.]+) in", printed)[0])
    assert last < 0.85 * first
    by_mean, by_model = map(
        float, re.findall(r"held out: ([\d.]+) by the mean, ([\d.]+)", printed)[0]
    )
    assert by_model < 0.8 * by_mean
    assert (tmp_path / "reconstructions.png").stat().st_size > 5_000


@pytest.mark.slow
def test_two_real_cohorts_join_on_one_panel(tmp_path, shared_data):
    (field,) = (shared_data / "mibi").glob("fov8_RowNumber0*.tiff")
    printed = run("--imc", shared_data / "imc", "--mibi", field, "--steps", 4, "--out", tmp_path)
    # Five channels and 22, less the two that show no protein, two of which are in both.
    assert "23 aligned channels of 2 cohorts" in printed
    assert "imc: Cytokeratin 5  mibi: PanKeratin (171)" in printed
    assert "[error]" not in printed
    assert (tmp_path / "reconstructions.png").is_file()
