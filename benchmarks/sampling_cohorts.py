"""Cohorts with tables of tiles and no pixels, and what opening and drawing from them costs.

Measured in a process of its own, `python -m benchmarks.sampling_cohorts FOLDER ...`, so that the
most memory it needs is its own; what it needed is printed as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .machine import cpu_seconds
from .pyramid_builders import peak_memory

__all__ = ["BATCH", "measure", "write_cohorts"]

BATCH = 256
_TILE = 224
_DRAWS = 200
_ROWS_AT_ONCE = 1 << 17


def write_cohorts(folder: Path, cohorts: int, tiles: int, *, indexed: bool) -> None:
    """Write cohorts of tissues, patients and tiles, in bounded memory.

    Parameters
    ----------
    folder
        Where to.
    cohorts
        How many.
    tiles
        Tiles in all.
    indexed
        Whether the tables of tiles have indexes.
    """
    rng = np.random.default_rng(0)
    for number in range(cohorts):
        own = tiles * (number + 1) // cohorts - tiles * number // cohorts
        _write_cohort(folder / f"cohort-{number:03}", own, rng, indexed=indexed)


def _write_cohort(root: Path, tiles: int, rng: np.random.Generator, *, indexed: bool) -> None:
    from microtome.tiling import TileTable

    tissues = max(1, min(1000, tiles // 10))
    ids = [f"tissue-{i:04}" for i in range(tissues)]
    images = root / "imc" / "1_0mpp" / "images"
    for tissue in ids:
        (images / f"{tissue}.ome.zarr").mkdir(parents=True)
    (root / "metadata").mkdir()
    patients = [f"patient-{i // 3}" for i in range(tissues)]
    split = ["train" if i % 5 else "test" for i in range(tissues)]
    pq.write_table(
        pa.table(
            {
                "tissue_id": ids,
                "modality": ["imc"] * tissues,
                "patient_id": patients,
                "split": split,
            }
        ),
        root / "metadata" / "tissues.parquet",
    )
    edges = np.arange(tissues + 1) * tiles // tissues
    path = root / "tiling" / "1_0mpp" / "default" / f"{_TILE}_tile_coordinates.parquet"
    path.parent.mkdir(parents=True)
    schema = pa.schema(
        [("tissue_id", pa.string()), *((n, pa.int64()) for n in ("tile_id", "row", "col"))]
    )
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, tiles, _ROWS_AT_ONCE):
            rows = np.arange(start, min(start + _ROWS_AT_ONCE, tiles))
            tissue = np.searchsorted(edges, rows, "right") - 1
            corners = rng.integers(0, 50_000, (2, rows.size))
            names = pa.DictionaryArray.from_arrays(pa.array(tissue.astype(np.int32)), pa.array(ids))
            columns: list[Any] = [names.cast(pa.string()), pa.array(rows - edges[tissue])]
            writer.write_table(
                pa.Table.from_arrays([*columns, *map(pa.array, corners)], schema=schema)
            )
    if indexed:
        TileTable.build_index(path, tile_size=_TILE)


def measure(folder: Path, rule: dict[str, Any]) -> dict[str, float]:
    """Open the cohorts of a folder in this process and draw from them.

    Returns
    -------
    Processor and wall seconds of opening, and of a batch; peak memory in bytes, before and after.
    """
    from microtome.cohort import SporaDataset  # imported now: no part of opening

    names = sorted(entry.name for entry in folder.iterdir())
    before = peak_memory()
    began, cpu = time.perf_counter(), cpu_seconds()
    dataset = SporaDataset(names, datasets_dir=folder, tile_size=_TILE, seed=1, **rule)
    cpu, wall = cpu_seconds() - cpu, time.perf_counter() - began
    length = len(dataset)
    starts = np.random.default_rng(0).integers(0, max(1, length - BATCH), _DRAWS)
    drawn = time.perf_counter()
    drawn_cpu = cpu_seconds()
    checksum = 0
    for start in starts.tolist():
        draws = dataset.draw(start, min(start + BATCH, length))
        checksum += int(draws.row.sum())
    return {
        "rows": length,
        "cpu": cpu,
        "wall": wall,
        "draw_cpu": (cpu_seconds() - drawn_cpu) / _DRAWS,
        "draw_wall": (time.perf_counter() - drawn) / _DRAWS,
        "before": before,
        "peak": peak_memory(),
        "checksum": checksum,
    }


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), json.loads(sys.argv[2]))))
