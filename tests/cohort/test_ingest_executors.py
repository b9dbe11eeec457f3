"""Wherever the work is done, and whoever dies on the way: the same cohort, byte for byte."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile

from microtome.cohort import (
    IngestOutcome,
    ingest_manifest,
    mask,
    read_tissues,
    stats,
    tile,
    validate,
)
from microtome.cohort._layout import CohortLayout
from microtome.errors import WorkerError
from microtome.jobs import process_pool
from microtome.packing import pack
from microtome.prediction import predict_cohort


def disc(height: int, width: int, seed: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    inside = ((y - height / 2) / (0.4 * height)) ** 2 + ((x - width / 2) / (0.4 * width)) ** 2 < 1
    pixels = rng.integers(238, 250, (height, width, 3), dtype=np.uint8)
    pixels[inside] = (np.array([150, 60, 140]) + rng.integers(-40, 40, (height, width, 3)))[inside]
    return pixels


@pytest.fixture(scope="module")
def columns(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Sequence[Any]]:
    """Of two slides and three panels that differ, in an order that is not that of their names."""
    root = tmp_path_factory.mktemp("files")
    names = ["z", "b", "y", "a", "c"]
    for seed, name in enumerate(names):
        if name in "zy":
            pixels = disc(150 + seed, 137, seed)
            tifffile.imwrite(root / f"{name}.tif", pixels, photometric="rgb", tile=(64, 64))
        else:
            counts = np.random.default_rng(seed).gamma(0.7, 90, (2, 110 + seed, 121))
            tifffile.imwrite(
                root / f"{name}.tif", counts.astype(np.uint16), photometric="minisblack"
            )
    return {
        "tissue_id": names,
        "path": [str(root / f"{name}.tif") for name in names],
        "modality": ["he" if name in "zy" else "imc" for name in names],
        "mpp": [1.0] * 5,
        "channel_names": [None, "DNA|CD3", None, "CD8|DNA", "CD3|PanCK"],
        "split": ["train", "train", "test", "train", "train"],
        "age": [60, 61, 62, 63, 64],
    }


@pytest.fixture(params=["here", "processes", "dask"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor | None]:
    """Each place where work is done."""
    if request.param == "here":
        yield None
    elif request.param == "processes":
        with process_pool(2) as pool:
            yield pool
    else:
        with request.getfixturevalue("scheduler").get_executor() as pool:
            yield pool


def everything(
    root: Path, packed: Path, columns: dict[str, Sequence[Any]], executor: Executor | None
) -> list[str]:
    """Do each verb that goes over tissues, and return what the check finds."""
    found: list[str] = []
    predicting: Any = {"name": "same", "tile_size": 96, "overlap": 32, "executor": executor}
    steps: list[Callable[[], object]] = [
        lambda: ingest_manifest(columns, root, executor=executor),
        lambda: mask(root, method="whole", executor=executor),
        lambda: tile(root, tile_size=48, executor=executor),
        lambda: stats(root, executor=executor),
        # A ufunc is a model that any process can be given.
        *(
            partial(predict_cohort, np.positive, root, modality=modality, **predicting)
            for modality in ("he", "imc")
        ),
        lambda: pack(root, packed, tile_size=48, executor=executor),
        lambda: found.extend(map(str, validate(root, checksums=True, executor=executor))),
    ]
    for step in steps:
        step()
        # What was counted or predicted is known again by the times of the files it was made of.
        for file in root.rglob("*"):
            os.utime(file, ns=(0, 10**18))
    return found


@pytest.fixture(scope="module")
def expected(
    columns: dict[str, Sequence[Any]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, str], list[str]]:
    """What comes of all verbs in this process, and where: some of it names its place."""
    place = tmp_path_factory.mktemp("place")
    found = everything(place / "cohort", place / "packed", columns, None)
    files = tree_of(place)
    shutil.rmtree(place)
    return place, files, found


# Of each run of a prediction, drawn by chance on purpose.
RUN = re.compile(rb'"run": "[0-9a-f]+"')


def tree_of(root: Path) -> dict[str, str]:
    return {
        entry.relative_to(root).as_posix(): (
            hashlib.sha256(RUN.sub(b"", entry.read_bytes())).hexdigest()
            if entry.is_file()
            else "directory"
        )
        for entry in sorted(root.rglob("*"))
    }


@pytest.mark.slow
def test_every_verb_gives_the_same_wherever_it_runs(
    executor: Executor | None,
    columns: dict[str, Sequence[Any]],
    expected: tuple[Path, dict[str, str], list[str]],
) -> None:
    place, files, findings = expected
    place.mkdir()
    try:
        found = everything(place / "cohort", place / "packed", columns, executor)
        tree = tree_of(place)
    finally:
        shutil.rmtree(place)
    assert len(files) > 80
    assert {name for name in files if tree.get(name) != files[name]} == set()
    assert tree == files
    assert found == findings
    assert not any(line.startswith("error") for line in found)


def test_rows_are_noted_in_the_order_of_the_manifest(
    columns: dict[str, Sequence[Any]], tmp_path: Path
) -> None:
    ingest_manifest(columns, tmp_path / "cohort")
    table = read_tissues(CohortLayout.open(tmp_path / "cohort"))
    assert table["tissue_id"].to_pylist() == columns["tissue_id"]
    measured = pq.read_table(tmp_path / "cohort/imc/channels_per_tissue.parquet")
    assert measured["tissue_id"].to_pylist() == ["b", "a", "c"]


# ------------------------------------------------------------------ a worker is killed


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Sequence[Any]]:
    """Slides that take long enough to be met while they are written."""
    root = tmp_path_factory.mktemp("larger")
    names = [f"t{number}" for number in range(6)]
    for seed, name in enumerate(names):
        pixels = np.random.default_rng(seed).integers(0, 256, (1300, 1200, 3), dtype=np.uint8)
        tifffile.imwrite(root / f"{name}.tif", pixels, photometric="rgb", tile=(256, 256))
    return {
        "tissue_id": names,
        "path": [str(root / f"{name}.tif") for name in names],
        "modality": ["he"] * 6,
        "mpp": [1.0] * 6,
    }


@pytest.fixture(scope="module")
def undisturbed(
    larger: dict[str, Sequence[Any]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The cohort that nobody disturbs."""
    root = tmp_path_factory.mktemp("undisturbed") / "cohort"
    ingest_manifest(larger, root)
    return tree_of(root)


@contextlib.contextmanager
def killing(pid: Callable[[], int], images: Path, after: int) -> Generator[list[int]]:
    """Kill a process while an image is half written and some are whole; says whom, once it did."""
    killed: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            names = [entry.name for entry in images.iterdir()] if images.is_dir() else []
            whole = sum(name.startswith("t") for name in names)
            if whole >= after and any(
                ".partial-" in name and not name.endswith(".lock") for name in names
            ):
                killed.append(pid())
                os.kill(killed[0], signal.SIGKILL)
                return
            time.sleep(0.002)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


@pytest.mark.slow
def test_a_worker_of_a_cluster_is_killed(
    scheduler: Any,
    larger: dict[str, Sequence[Any]],
    undisturbed: dict[str, str],
    tmp_path: Path,
) -> None:
    root = tmp_path / "cohort"
    pids = list(scheduler.run(os.getpid).values())
    assert len(pids) == 2
    outcomes: list[IngestOutcome] = []
    with (
        scheduler.get_executor() as pool,
        killing(lambda: pids[0], root / "he/1_0mpp/images", 1) as killed,
    ):
        paths = ingest_manifest(larger, root, executor=pool, told=outcomes.append)
    assert killed == [pids[0]], "it was killed on the way"
    assert [path.name for path in paths] == [f"t{number}.ome.zarr" for number in range(6)]
    assert [outcome.row for outcome in outcomes] == [1, 2, 3, 4, 5, 6]
    assert tree_of(root) == undisturbed


@pytest.mark.slow
def test_a_process_of_a_pool_is_killed(
    larger: dict[str, Sequence[Any]], undisturbed: dict[str, str], tmp_path: Path
) -> None:
    root = tmp_path / "cohort"
    report = tmp_path / "report.parquet"
    with process_pool(2) as pool:
        victim = pool._processes  # there is no other way to them
        with (
            killing(lambda: next(iter(victim)), root / "he/1_0mpp/images", 1) as killed,
            pytest.raises(WorkerError, match="a worker process ended before its work was done"),
        ):
            ingest_manifest(larger, root, executor=pool, report=report)
    assert killed
    states = pq.read_table(report)["state"].to_pylist()
    assert len(states) == 6
    assert "not begun" in states
    noted = read_tissues(CohortLayout.open(root))["tissue_id"].to_pylist()
    assert noted == [f"t{number}" for number in range(len(noted))]
    with process_pool(2) as pool:
        ingest_manifest(larger, root, executor=pool, report=report)
    assert set(pq.read_table(report)["state"].to_pylist()) <= {"written", "there"}
    assert tree_of(root) == undisturbed
