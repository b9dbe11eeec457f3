"""How long the first batch takes, and how much memory a loader holds: each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

import microtome as mt

from .harness import Measurement, Table
from .machine import cpu_seconds
from .options import Options
from .pictures import ingested, multiplex

__all__ = ["FIRST", "LARGE", "MEMORY", "SMALL", "tables"]

SIDE, BATCH, ROWS = 224, 64, 1_000_000
FIRST = "The first batch of 64 tiles of 224 px, after the imports"
MEMORY = "Memory of a loader at work, over that of its process before"
SMALL, LARGE = "a table of 1,296 rows", f"a table of {ROWS:,} rows"
ORDERS = ("random", "blocked")
_HOW = (
    "Every figure is of a process of its own, one after the other. Processor time is user and system time "
    "with all threads. Figures are medians over the rounds. Less is better."
)


def tables(options: Options) -> list[Table]:
    """Measure the first batch over a small and a large table, and memory in both orders."""
    picture = multiplex(options.shared)
    cohort = options.work / "cohort"
    ingested(picture, cohort)
    mt.tile(cohort, tile_size=SIDE, method="grid", strategy="small")
    rng = np.random.default_rng(0)
    place = next((cohort / "tiling").glob(f"*/small/{SIDE}_tile_coordinates.parquet"))
    row, col = rng.integers(0, picture.side - SIDE + 1, (2, ROWS))
    large = mt.TileTable.from_columns(
        {"tissue_id": "t1", "row": row, "col": col},
        tile_size=SIDE,
        strategy="large",
        resolution=place.parts[-3],
    )
    target = place.parents[1] / "large" / place.name
    target.parent.mkdir()
    large.write(target)
    rounds = min(options.rounds, 7)
    return [_first(cohort, rounds, options), _memory(cohort, options)]


def _first(cohort: Path, rounds: int, options: Options) -> Table:
    names = {SMALL: "small", LARGE: "large"}
    found = {
        f"{order}, {name}": Measurement(f"{order}, {name}", [], [])
        for order in ORDERS
        for name in names
    }
    # What is compiled for a machine is kept for all processes to come: the first makes it, unmeasured.
    # It also tells what is imported on the way, here and there only when it is wanted.
    modules = {
        strategy: json.dumps(_alone("imports", cohort, strategy, "blocked"))
        for strategy in names.values()
    }
    for number in range(rounds):
        for order in ORDERS:
            for name, strategy in names.items():
                told = _alone("first", cohort, strategy, order, modules[strategy])
                measured = found[f"{order}, {name}"]
                measured.cpu.append(told["cpu"])
                measured.wall.append(told["wall"])
        options.tell(f"{FIRST}: round {number + 1} of {rounds}")
    notes = [
        (
            "microtome, torch and all that is imported on the way are imported, then the clock starts: a cohort's dataset is opened with its table, "
            "a loader is made, and gives a batch of 5 x 224 x 224 as float32 tensors. A process before has "
            "compiled what is compiled."
        )
    ]
    base = f"random, {SMALL}"
    return Table(FIRST, "batch", 1, base, list(found.values()), notes, _HOW)


def _memory(cohort: Path, options: Options) -> Table:
    found = {order: Measurement(order, [], []) for order in ORDERS}
    rounds = min(options.rounds, 3)
    modules = json.dumps(_alone("imports", cohort, "small", "blocked"))
    for number in range(rounds):
        for order in ORDERS:
            told = _alone("memory", cohort, "small", order, modules)
            found[order].cpu.append(told["cpu"])
            found[order].wall.append(told["wall"])
            found[order].peak.append(told["peak"] - told["before"])
        options.tell(f"{MEMORY}: round {number + 1} of {rounds}")
    notes = [
        (
            "The most that was resident and the process's own (RssAnon, looked at after every batch; pages of "
            "files are the system's, which takes them back) while three epochs of 1,296 tiles of 5 x 224 x 224 "
            "were read as float32 batches of 64, less what was after all imports; nothing is kept "
            "(`cache_bytes` 0), the loader has its defaults."
        )
    ]
    return Table(MEMORY, "run", 1, ORDERS[0], list(found.values()), notes, _HOW)


def _alone(what: str, *given: Any) -> Any:
    command = [sys.executable, "-m", "benchmarks.startup", what, *map(str, given)]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


# ------------------------------------------------------------------ in the process


def _loader(cohort: str, strategy: str, order: Any) -> mt.TileLoader:
    dataset = mt.MultiplexImagingDataset(
        "study",
        "codex",
        path=cohort,
        tile_size=SIDE,
        tile_strategy=strategy,
        standardization="identity",
    )
    return mt.TileLoader(dataset, BATCH, order=order, seed=0)


def first(cohort: str, strategy: str, order: str, modules: str = "[]") -> dict[str, float]:
    """Return what the first batch took once these modules are imported."""
    _import(modules)
    began, cpu = time.perf_counter(), cpu_seconds()
    # By a name: to drop it would be to wait for those who read the next batches.
    batches = iter(_loader(cohort, strategy, order))
    batch = next(batches)
    found = {"wall": time.perf_counter() - began, "cpu": cpu_seconds() - cpu}
    assert batch.data.shape == (BATCH, 5, SIDE, SIDE)
    return found


def _import(modules: str) -> None:
    for module in ("torch", *json.loads(modules)):
        # Some come only with others, which are on the list too.
        with suppress(ImportError):
            import_module(module)


def imports(cohort: str, strategy: str, order: str) -> list[str]:
    """Return the modules that are imported until the first batch is there."""
    import_module("torch")
    before = set(sys.modules)
    first(cohort, strategy, order)
    found = sorted(set(sys.modules) - before)
    # Not what others made of a module that has no file of its own.
    return [name for name in found if getattr(sys.modules[name], "__spec__", None) is not None]


def memory(cohort: str, strategy: str, order: str, modules: str = "[]") -> dict[str, float]:
    """Return what was resident before, and at most while three epochs were read."""
    _import(modules)
    before = peak = _own_memory()
    began, cpu = time.perf_counter(), cpu_seconds()
    loader = _loader(cohort, strategy, order)
    for epoch in range(3):
        loader.set_epoch(epoch)
        for batch in loader:
            assert batch.data[0, 0, 0, 0] >= 0
            peak = max(peak, _own_memory())
    return {
        "before": before,
        "peak": peak,
        "wall": time.perf_counter() - began,
        "cpu": cpu_seconds() - cpu,
    }


def _own_memory() -> int:
    """Return the bytes that are resident and this process's own: not pages of files, which are the system's."""
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    return 0


_ALONE: dict[str, Callable[..., Any]] = {"first": first, "imports": imports, "memory": memory}

if __name__ == "__main__":
    print(json.dumps(_ALONE[sys.argv[1]](*sys.argv[2:])))
