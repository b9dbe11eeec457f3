"""Every job killed at random moments: nothing half-written opens, and the same call ends the same.

`python -m benchmarks.reliability kills` does the same fifty times for each job.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's"),
]

REPOSITORY = Path(__file__).parents[2]
KILLS = int(os.environ.get("MICROTOME_KILLS", "3"))


@pytest.fixture(scope="module")
def kills() -> Any:
    """The module of the benchmarks, which are in the repository but in no package that installs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPOSITORY)
        # The processes that are killed find it as this one does.
        patch.setenv("PYTHONPATH", str(REPOSITORY), prepend=os.pathsep)
        yield importlib.import_module("benchmarks.reliability.kills")


@pytest.fixture(scope="module")
def undisturbed(kills: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return kills.Undisturbed(tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.parametrize(
    "name", ["ingest", "mask", "tile", "stats", "predict", "pack", "labels", "report"]
)
def test_killed_at_random_moments(kills: ModuleType, undisturbed: Any, name: str) -> None:
    found = kills.kill_at_random(undisturbed, kills.JOBS[name], KILLS, seed=1)
    assert not found.broken, "\n".join(found.broken)
    # A kill at a step always hits; one after a random time may come too late, and is made up for.
    assert found.kills == KILLS


def test_all_jobs_are_killed(kills: ModuleType) -> None:
    tested = next(
        mark.args[1]
        for mark in test_killed_at_random_moments.pytestmark
        if mark.name == "parametrize"
    )
    assert set(tested) == set(kills.JOBS)


def test_half_a_result_would_be_seen(kills: ModuleType, tmp_path: Path) -> None:
    """What the tests above look for is found where it is."""
    from microtome.image import MultiscaleImage

    with MultiscaleImage.create(
        tmp_path / "a.ome.zarr", type="uint8", level_shape=(1, 9, 9)
    ) as made:
        made["level0"][...] = 1
    (tmp_path / "t.parquet").write_bytes(b"PAR1 half a table")
    (tmp_path / "page.html").write_text("<html>")
    now = kills.files_of(tmp_path)
    assert not list(kills._half(tmp_path, now, {}, now))
    told = "\n".join(kills._half(tmp_path, {}, {"page.html": "?"}, now))
    assert "a.ome.zarr/ opens as an image and is not whole" in told
    assert "t.parquet is half a table" in told
    assert "page.html is neither" in told
    assert kills._differences({"a": "1", "b": "2"}, {"a": "2", "c": "3"}) == [
        "c is missing after the repeated run",
        "b is left over after the repeated run",
        "a differs after the repeated run",
    ]
