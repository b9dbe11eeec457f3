"""The jobs that are killed: each with the cohort that it begins with, and the call that is repeated."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from microtome.cohort import (
    add_cell_masks,
    add_cells,
    add_metadata,
    ingest_manifest,
    mask,
    stats,
    tile,
)
from microtome.errors import ExistsError
from microtome.packing import pack
from microtome.prediction import predict_cohort
from microtome.view import report

__all__ = ["JOBS", "Job", "write_sources"]

TISSUES = ("t1", "t2", "t3")
TILE = 96
_SIDE = 420


@dataclass(frozen=True, slots=True)
class Job:
    """One job.

    Parameters
    ----------
    name
        What the tables call it.
    before
        Names of the jobs that have been done when it begins.
    run
        Does it in a directory with the sources and the cohort. The very same call is made again
        after a kill.
    """

    name: str
    before: tuple[str, ...]
    run: Callable[[Path], None]


class Model:
    """Answers with the mean of the channels, and embeds a tile as its mean in each."""

    def __call__(self, batch: NDArray[np.generic]) -> NDArray[np.float32]:
        """Predict, (N, C, Y, X) to (N, 1, Y, X)."""
        return batch.mean(axis=1, keepdims=True, dtype=np.float32)

    def embed(self, batch: NDArray[np.generic]) -> NDArray[np.float32]:
        """Embed, (N, C, Y, X) to (N, C)."""
        return batch.mean(axis=(2, 3), dtype=np.float32)


def write_sources(root: Path) -> None:
    """Write three H&E and three multiplex sources with their manifest, and a mask of cells."""
    rng = np.random.default_rng(3)
    folder = root / "sources"
    folder.mkdir(parents=True)
    rows: dict[str, list[str]] = {"tissue_id": [], "path": [], "modality": [], "channel_names": []}
    y, x = np.mgrid[:_SIDE, :_SIDE]
    for number, tissue in enumerate(TISSUES):
        inside = (y - 200) ** 2 + (x - 210 - 8 * number) ** 2 < 170**2
        slide = rng.integers(236, 250, (_SIDE, _SIDE, 3), dtype=np.uint8)
        slide[inside] = (np.array([150, 60, 140]) + rng.integers(-40, 40, (_SIDE, _SIDE, 3)))[
            inside
        ]
        counts = rng.gamma(0.7, 90, (3, _SIDE, _SIDE)).astype(np.uint16)
        for kind, pixels in (("he", np.moveaxis(slide, -1, 0)), ("codex", counts)):
            np.save(folder / f"{tissue}_{kind}.npy", pixels)
            rows["tissue_id"].append(tissue)
            rows["path"].append(f"{tissue}_{kind}.npy")
            rows["modality"].append(kind)
            rows["channel_names"].append("CD3|DNA|Ki67" if kind == "codex" else "")
    lines = ["tissue_id,path,modality,channel_names,mpp,axes"]
    lines += [",".join((*row, "1.0", "cyx")) for row in zip(*rows.values(), strict=True)]
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    labels = np.zeros((_SIDE, _SIDE), np.uint32)
    for number in range(400):
        row, col = divmod(number, 20)
        labels[row * 21 + 3 : row * 21 + 13, col * 21 + 3 : col * 21 + 13] = number + 1
    np.savez(folder / "cells.npz", mask=labels)


def _ingest(root: Path) -> None:
    ingest_manifest(root / "sources" / "manifest.csv", root / "cohort")


def _mask(root: Path) -> None:
    mask(root / "cohort")


def _tile(root: Path) -> None:
    _unless_done(lambda: tile(root / "cohort", tile_size=TILE))


def _stats(root: Path) -> None:
    _unless_done(lambda: stats(root / "cohort"))


def _predict(root: Path) -> None:
    predict_cohort(Model(), root / "cohort", name="mean", tile_size=128, overlap=16, modality="he")


def _pack(root: Path) -> None:
    pack(root / "cohort", root / "packed", tile_size=TILE)


def _labels(root: Path) -> None:
    """Everything that people add to a cohort's tables: clinical columns, cells, masks of cells."""
    cohort = root / "cohort"
    add_metadata(cohort, pa.table({"tissue_id": list(TISSUES), "grade": [1, 2, 3]}))
    cells = {
        "tissue_id": ["t1"] * 400,
        "cell_id": list(range(1, 401)),
        "centroid_y": [8.0 + 21 * (n // 20) for n in range(400)],
        "centroid_x": [8.0 + 21 * (n % 20) for n in range(400)],
    }
    add_cells(cohort, pa.table(cells))
    for tissue in TISSUES:
        _unless_done(
            lambda tissue=tissue: add_cell_masks(cohort, tissue, root / "sources" / "cells.npz")
        )


def _report(root: Path) -> None:
    report(root / "cohort", root / "report.html", throughput=False)


def _unless_done(job: Callable[[], object]) -> None:
    """Do a job that says so when its result is there, which after a kill it may be."""
    with contextlib.suppress(ExistsError):
        job()


JOBS = {
    job.name: job
    for job in (
        Job("ingest", (), _ingest),
        Job("mask", ("ingest",), _mask),
        Job("tile", ("ingest", "mask"), _tile),
        Job("stats", ("ingest", "mask"), _stats),
        Job("predict", ("ingest", "mask", "tile"), _predict),
        Job("pack", ("ingest", "mask", "tile", "stats"), _pack),
        Job("labels", ("ingest",), _labels),
        Job("report", ("ingest", "mask", "tile", "stats"), _report),
    )
}
