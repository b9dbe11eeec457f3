"""A disk that is full, a clock that goes backwards, two writers: our words, and nothing lost."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from microtome.cohort import CohortLayout, add_metadata
from microtome.errors import BusyError, StorageError
from microtome.storage import locked

REPOSITORY = Path(__file__).parents[2]
VERBS = ("ingest", "mask", "tile", "stats", "predict", "pack", "labels")


@pytest.fixture(scope="module")
def jobs() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPOSITORY)
        yield importlib.import_module("benchmarks.reliability.jobs")


@pytest.fixture(scope="module")
def files_of(jobs: ModuleType) -> Callable[[Path], dict[str, str]]:
    return importlib.import_module("benchmarks.reliability.kills").files_of


@pytest.fixture(scope="module")
def prepared(jobs: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """What each job begins with; made once, copied by the tests."""
    folder = tmp_path_factory.mktemp("prepared")
    jobs.write_sources(folder / "begin")
    made: dict[tuple[str, ...], Path] = {(): folder / "begin"}

    def before(name: str) -> Path:
        needed = jobs.JOBS[name].before
        for count in range(len(needed)):
            key = needed[: count + 1]
            if key not in made:
                made[key] = folder / "-".join(key)
                shutil.copytree(made[needed[:count]], made[key])
                jobs.JOBS[key[-1]].run(made[key])
        return made[needed]

    return before


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts file systems of so many bytes."""
    places: list[Path] = []

    def mount(size: int) -> Path:
        place = tmp_path / f"disk{len(places)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        mounted = subprocess.run(command, capture_output=True, check=False)
        if mounted.returncode:
            pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
        places.append(place)
        return place

    try:
        yield mount
    finally:
        for place in places:
            subprocess.run(["umount", "-l", str(place)], check=True)


def used(place: Path) -> int:
    found = os.statvfs(place)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


@pytest.mark.slow
@pytest.mark.parametrize("name", VERBS)
def test_a_disk_that_fills_up_during_a_job(
    jobs: ModuleType,
    files_of: Callable[[Path], dict[str, str]],
    prepared: Callable[[str], Path],
    disk: Callable[[int], Path],
    name: str,
) -> None:
    job = jobs.JOBS[name]
    # How much there is before and after, on a disk that is large enough.
    large = disk(1 << 28)
    shutil.copytree(prepared(name), large / "w")
    before = used(large)
    job.run(large / "w")
    grown = used(large) - before
    assert grown > 0
    for share in (0.0, 0.6):
        small = disk(before + int(share * grown) // 4096 * 4096)
        shutil.copytree(prepared(name), small / "w")
        had = files_of(small / "w")
        with pytest.raises(StorageError, match="space"):
            job.run(small / "w")
        now = files_of(small / "w")
        assert {k: v for k, v in now.items() if k in had and not k.endswith(".parquet")} == {
            k: v for k, v in had.items() if not k.endswith(".parquet")
        }
        # With room again, the same call goes on and ends as if nothing had been.
        subprocess.run(["mount", "-o", f"remount,size={1 << 28}", str(small)], check=True)
        job.run(small / "w")
        assert set(files_of(small / "w")) == set(files_of(large / "w"))


@pytest.mark.slow
def test_a_clock_that_goes_backwards(
    jobs: ModuleType,
    files_of: Callable[[Path], dict[str, str]],
    prepared: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    """Files of the future, and then of 1970: no image is made again, and nothing comes out otherwise.

    Statistics are counted again, as of pixels that somebody wrote over; what was counted notes when
    their files were written.
    """

    def results() -> dict[str, str]:
        return {name: held for name, held in files_of(place).items() if "/.counted/" not in name}

    place = tmp_path / "w"
    shutil.copytree(prepared("pack"), place)
    jobs.JOBS["ingest"].run(place)  # the table names where the sources are now
    done = results()
    for moment in (time.time() + 3e8, 86_400.0):
        for path in [place, *place.rglob("*")]:
            os.utime(path, (moment, moment))
        for name in ("ingest", "mask", "tile", "stats"):
            jobs.JOBS[name].run(place)
        assert results() == done
        touched = list(place.rglob("*.ome.zarr/zarr.json"))
        assert touched
        assert all(path.stat().st_mtime == moment for path in touched), "an image was made again"


HOLDS = """
import sys, time
from microtome.storage import locked
with locked(sys.argv[1], what="the cohort"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
def test_a_second_writer_is_told_and_a_dead_one_leaves_no_lock(
    prepared: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "w"
    shutil.copytree(prepared("labels"), place)
    lock = CohortLayout.open(place / "cohort").lock
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(lock)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with (
            pytest.raises(BusyError, match=r"another process holds the cohort .*waited 0\.2 s"),
            locked(lock, what="the cohort", timeout=0.2),
        ):
            pass
        process.kill()
    begun = time.monotonic()
    table: dict[str, Any] = {"tissue_id": ["t1"], "grade": [1]}
    add_metadata(place / "cohort", table)
    assert time.monotonic() - begun < 30, "it waited for the dead"


def test_two_writers_lose_no_row(prepared: Callable[[str], Path], tmp_path: Path) -> None:
    place = tmp_path / "w"
    shutil.copytree(prepared("labels"), place)
    script = (
        "import sys; from microtome.cohort import add_metadata\n"
        "for n in range(5):\n"
        "    add_metadata(sys.argv[1], {'tissue_id': ['t1'], f'{sys.argv[2]}{n}': [n]})"
    )
    command = [sys.executable, "-c", script, str(place / "cohort")]
    writers = [subprocess.Popen([*command, name]) for name in ("a", "b")]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    columns = add_metadata(place / "cohort", {"tissue_id": ["t1"]}).column_names
    assert {f"{name}{n}" for name in "ab" for n in range(5)} <= set(columns)
