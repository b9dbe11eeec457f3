"""`--workers` and `--dask`: the same answer wherever the work is done."""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microtome.cli._workers import executor_of
from microtome.cohort import ingest
from microtome.errors import DependencyError, InvalidInputError, StorageError


def tissue_files(root: Path) -> dict[str, bytes]:
    return {
        p.relative_to(root).as_posix(): p.read_bytes()
        for p in sorted((root / "segmentations").rglob("*"))
        if p.is_file()
    }


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort of three small slides without masks."""
    root = tmp_path_factory.mktemp("three") / "cohort"
    y, x = np.mgrid[:300, :260]
    for number in range(3):
        pixels = np.random.default_rng(number).integers(240, 250, (300, 260, 3)).astype(np.uint8)
        disc = ((y - 150) / 100) ** 2 + ((x - 120 - 5 * number) / 90) ** 2 < 1
        pixels[disc] = [150, 60, 140]
        ingest(
            pixels,
            axes="yxc",
            cohort=root,
            tissue_id=f"t{number}",
            modality="he",
            mpp=2.0,
            resolution=2.0,
        )
    return root


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """A dask cluster of one process and two threads on this machine."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1,
        threads_per_worker=2,
        processes=False,
        dashboard_address=None,
        protocol="tcp",
        host="127.0.0.1",
    ) as cluster:
        yield cluster.scheduler_address


def test_one_worker_is_this_process() -> None:
    with executor_of() as executor:
        assert executor is None


def test_masks_are_the_same_wherever_they_are_made(
    run: Callable[..., Any], three: Path, scheduler: str, tmp_path: Path
) -> None:
    found = {}
    for name, options in {
        "here": (),
        "processes": ("--workers", "2"),
        "dask": ("--dask", scheduler),
    }.items():
        root = tmp_path / name
        shutil.copytree(three, root)
        done = run("mask", root, *options)
        assert done.code == 0, done.err
        assert [line.partition(":")[0] for line in done.out.splitlines()] == ["t0", "t1", "t2"]
        found[name] = done.out, tissue_files(root)
    assert len(found["here"][1]) > 3
    assert found["processes"] == found["here"]
    assert found["dask"] == found["here"]


def test_a_failure_of_a_worker_is_told_as_here(
    run: Callable[..., Any], three: Path, tmp_path: Path
) -> None:
    root = tmp_path / "cohort"
    shutil.copytree(three, root)
    (root / "he/2_0mpp/images/t1.ome.zarr/zarr.json").write_text("{")
    here = run("mask", root)
    there = run("mask", root, "--workers", "2")
    assert here.code == there.code == 1
    assert here.err.splitlines()[-1] == there.err.splitlines()[-1]
    assert "t1.ome.zarr" in there.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param((0, None), "--workers must be at least 1, got 0", id="no workers"),
        pytest.param((2, "tcp://127.0.0.1:1"), "exclude each other", id="both"),
        pytest.param((1, "nonsense"), "no address of a scheduler", id="no address"),
        pytest.param((1, "tcp://127.0.0.1:seven"), "no address of a scheduler", id="no port"),
        pytest.param((1, "gopher://127.0.0.1:70"), "no address of a scheduler", id="scheme"),
    ],
)
def test_options_that_make_no_sense(options: tuple[int, str | None], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words), executor_of(*options):
        pass


def test_nobody_answers() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        pytest.raises(StorageError, match=f"no dask scheduler answers at tcp://127.0.0.1:{port}"),
        executor_of(1, f"tcp://127.0.0.1:{port}"),
    ):
        pass


def test_without_dask_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(DependencyError, match=r"pip install 'microtome\[dask\]'"),
        executor_of(1, "tcp://127.0.0.1:8786"),
    ):
        pass
