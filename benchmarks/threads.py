"""What a second thread brings the loader."""

from __future__ import annotations

from functools import partial

from microtome.loading import OrderKind

from .draws import dense
from .harness import Benchmark, Table
from .options import Options
from .pictures import multiplex
from .tile_readers import TileTask, float_microtome

__all__ = ["BLOCKED", "ONE", "RANDOM", "TWO", "tables"]

SIDE, BATCH = 224, 64
RANDOM = "Threads: random 224 px tiles as float32 batches of 64"
BLOCKED = "Threads: 224 px tiles in blocked order as float32 batches of 64"
ONE, TWO = "1 thread", "2 threads"


def tables(options: Options) -> list[Table]:
    """Measure one thread and two, in both orders."""
    picture = multiplex(options.shared)
    task = TileTask(picture.path, picture.flat, SIDE, BATCH)
    found: list[Table] = []
    orders: dict[str, OrderKind] = {RANDOM: "sequential", BLOCKED: "blocked"}
    for title, order in orders.items():
        bench = Benchmark(
            title,
            "tile",
            dense(picture.side, SIDE),
            10 * options.items,
            ONE,
            [
                (
                    f"{picture.about}. `TileLoader` at its defaults but for `threads`. Here the clock counts: on a "
                    "machine that has nothing else to do it says what a second thread brings."
                )
            ],
            checked=BATCH,
        )
        for name, threads in ((ONE, 1), (TWO, 2)):
            bench.add(name, partial(float_microtome, task, order=order, threads=threads))
        found.append(bench.run(options.rounds, tell=options.tell))
    return found
