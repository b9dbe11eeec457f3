"""A worker of a dask cluster is killed in the middle of a verb: the result is that of a run undisturbed."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microtome.cohort import ingest, mask, stats, tile, validate
from microtome.packing import pack
from microtome.prediction import predict_cohort

pytestmark = pytest.mark.slow

TISSUES = 6
# Of each run of a prediction, drawn by chance on purpose.
RUN = re.compile(rb'"run": "[0-9a-f]+"')


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of each verb the cohort as it is before."""
    root = tmp_path_factory.mktemp("stages")
    now = root / "now"
    for number in range(TISSUES):
        rng = np.random.default_rng(number)
        slide = rng.integers(100, 200, (150 + number, 140, 3), dtype=np.uint8)
        counts = rng.gamma(0.7, 90, (2, 150 + number, 140)).astype(np.uint16)
        about: dict[str, Any] = {"cohort": now, "tissue_id": f"t{number}", "mpp": 1.0}
        ingest(slide, axes="yxc", modality="he", **about)
        ingest(counts, axes="cyx", modality="imc", channel_names=["DNA", "CD3"], **about)
    found: dict[str, Path] = {}
    for name, step in {
        "mask": lambda: mask(now, method="whole"),
        "tile": lambda: tile(now, tile_size=48),
        "stats": lambda: stats(now),
        "predict": lambda: None,
        "pack": lambda: None,
        "validate": lambda: None,
    }.items():
        found[name] = shutil.copytree(now, root / name)
        step()
    # One tissue is damaged: what it has to tell is told, whoever dies.
    (found["validate"] / "he/1_0mpp/images/t4.ome.zarr/zarr.json").write_text("{")
    return found


VERBS: dict[str, Callable[..., Any]] = {
    "mask": lambda root, **how: mask(root, method="whole", **how),
    "tile": lambda root, **how: tile(root, tile_size=48, **how),
    "stats": stats,
    "predict": lambda root, **how: predict_cohort(
        np.positive, root, modality="he", name="same", tile_size=96, overlap=32, **how
    ),
    "pack": lambda root, **how: pack(root, root.parent / "packed", tile_size=48, **how),
    "validate": lambda root, **how: list(map(str, validate(root, **how))),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_worker_is_killed(
    dask_client: Any, stages: dict[str, Path], tmp_path: Path, verb: str
) -> None:
    root = tmp_path / "cohort"
    killed: list[int] = []

    def kill(_: str, done: int, total: int, /) -> None:
        if not killed and done < total:
            killed.append(pids[0])
            os.kill(pids[0], signal.SIGKILL)

    def run(**how: Any) -> tuple[Any, dict[str, str]]:
        shutil.copytree(stages[verb], root)
        # What was counted is known again by the times of the files it was made of.
        for file in root.rglob("*"):
            os.utime(file, ns=(0, 10**18))
        found = VERBS[verb](root, **how)
        tree = tree_of(tmp_path)
        for place in tmp_path.iterdir():
            shutil.rmtree(place)
        return found if verb == "validate" else None, tree

    expected = run()
    pids = list(dask_client.run(os.getpid).values())
    with dask_client.get_executor() as pool:
        found = run(executor=pool, progress=kill)
    assert killed, "it was killed on the way"
    assert found[0] == expected[0]
    assert {name for name, digest in expected[1].items() if found[1].get(name) != digest} == set()
    assert found[1].keys() == expected[1].keys()
    assert len(found[1]) > 80
    assert verb != "validate" or any("t4.ome.zarr" in line for line in expected[0])


def tree_of(root: Path) -> dict[str, str]:
    return {
        entry.relative_to(root).as_posix(): (
            hashlib.sha256(RUN.sub(b"", entry.read_bytes())).hexdigest()
            if entry.is_file()
            else "directory"
        )
        for entry in sorted(root.rglob("*"))
    }
