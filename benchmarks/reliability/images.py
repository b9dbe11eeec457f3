"""A cohort of many small images: what each step costs for an image, as the cohort grows."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from microtome.cohort import HEImagingDataset, ingest_manifest, mask, tile, validate
from microtome.loading import TileLoader

__all__ = ["Costs", "measure", "write_small_images"]

_SIDE = 64
_FILES = 100


@dataclass(slots=True)
class Costs:
    """What steps cost.

    Parameters
    ----------
    count
        Images in the cohort.
    """

    count: int
    cpu: dict[str, float] = field(default_factory=dict)
    """Seconds of processor time of each step, for one image."""
    stored: float = 0.0
    """Bytes of files on disk, for one image."""
    tables: float = 0.0
    """Bytes of tables on disk, for one image."""

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure a step."""
        before = _cpu()
        began = time.perf_counter()
        yield
        self.cpu[name] = (_cpu() - before) / self.count
        print(f"  {self.count} {name}: {time.perf_counter() - began:.0f} s", flush=True)


def _cpu() -> float:
    own = resource.getrusage(resource.RUSAGE_SELF)
    return own.ru_utime + own.ru_stime


def write_small_images(folder: Path, count: int) -> pa.Table:
    """Write some H&E images of 64 pixels with tissue, and return a manifest that names them again and again.

    Parameters
    ----------
    folder
        Where; begun.
    count
        Rows of the manifest. A hundred files serve them all: what is measured is ours, not the disk.
    """
    rng = np.random.default_rng(5)
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[str] = []
    for number in range(min(count, _FILES)):
        pixels = rng.integers(236, 250, (3, _SIDE, _SIDE), dtype=np.uint8)
        pixels[:, 8:56, 8:56] = np.array([150, 60, 140])[:, None, None] + rng.integers(
            -40, 40, (3, 48, 48)
        )
        np.save(folder / f"{number}.npy", pixels)
        paths.append(str(folder / f"{number}.npy"))
    return pa.table(
        {
            "tissue_id": [f"t{number:06d}" for number in range(count)],
            "path": [paths[number % len(paths)] for number in range(count)],
            "modality": ["he"] * count,
            "mpp": ["1.0"] * count,
            "axes": ["cyx"] * count,
        }
    )


def measure(folder: Path, count: int) -> Costs:
    """Ingest, validate, mask, tile and load a cohort of so many small images.

    Parameters
    ----------
    folder
        Where; empty.
    count
        How many images.
    """
    costs = Costs(count)
    manifest = write_small_images(folder / "sources", count)
    cohort = folder / "cohort"
    with costs.step("ingest"):
        ingest_manifest(manifest, cohort)
    with costs.step("ingest again"):
        ingest_manifest(manifest, cohort)
    with costs.step("mask"):
        mask(cohort)
    with costs.step("tile"):
        tile(cohort, tile_size=32, method="grid", strategy="default")
    with costs.step("validate"):
        problems = validate(cohort)
    assert not problems, problems
    with costs.step("open"):
        dataset = HEImagingDataset("small", path=cohort, resolution=1.0, tile_size=32)
    with costs.step("load"):
        seen = sum(
            len(batch.data) for batch in TileLoader(dataset, batch_size=64, order="random", seed=0)
        )
    assert seen >= count
    files = [path for path in cohort.rglob("*") if path.is_file()]
    costs.stored = sum(path.stat().st_size for path in files) / count
    tables = (path for path in files if path.suffix == ".parquet")
    costs.tables = sum(path.stat().st_size for path in tables) / count
    return costs


def rows(all_costs: list[Costs]) -> Iterator[list[Any]]:
    """Return a table: a row for each step, a column for each cohort."""
    milli: Callable[[float], str] = lambda seconds: f"{1000 * seconds:.2f} ms"  # noqa: E731
    for name in all_costs[0].cpu:
        yield [name, *(milli(costs.cpu[name]) for costs in all_costs)]
    yield ["bytes on disk", *(f"{costs.stored:,.0f}" for costs in all_costs)]
    yield ["bytes of tables", *(f"{costs.tables:,.1f}" for costs in all_costs)]
