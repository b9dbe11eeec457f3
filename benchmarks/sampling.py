"""Opening a `SporaDataset` and drawing from it, over tables of tiles of very different lengths."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .harness import Measurement, Table
from .options import Options
from .sampling_cohorts import BATCH, write_cohorts

__all__ = ["tables", "tables_of"]

_COHORTS = 100
_SIZES = (10**4, 10**6, 10**8)
# Without indexes 10^8 tiles would be read into 3 GB: this many, which shows what they save.
_READ = 10**6
_ROUNDS = 5  # at most: a round opens everything in processes of their own
_DRAWS = 200

_HOW = (
    "Processor time is user and system time of the process with all its threads; it counts, since "
    "wall time also measures who else is at work on the machine. Every measurement has a process of "
    "its own, whose imports are not counted as time but are as memory; the files are in the page "
    "cache. Competitors take turns. Figures are medians over the rounds; a ratio is the median of the "
    "ratios within a round, in brackets the least and the most. Less is better."
)
_DRAWN = (
    f"A batch is {BATCH} tiles: which cohort's, which row of its table, computed from seed, epoch and "
    "position; nothing is read. Batches stand at random places of an epoch."
)


@dataclass(frozen=True, slots=True)
class _Case:
    name: str
    tiles: int
    indexed: bool
    rule: dict[str, Any]


def tables(options: Options) -> list[Table]:
    """Measure tables of 10^4 to 10^8 tiles in 100 cohorts."""
    return tables_of(_COHORTS, _SIZES, _READ, options)


def tables_of(cohorts: int, sizes: tuple[int, ...], read: int, options: Options) -> list[Table]:
    """Measure tables of some numbers of tiles, and one that is read without indexes."""
    cases = [_Case(f"{_told(size)} tiles", size, indexed=True, rule={}) for size in sizes]
    largest = cases[-1]
    cases += [
        _Case(
            f"{largest.name}, alpha 0.5, at most 100 tiles a patient",
            largest.tiles,
            indexed=True,
            rule={"alpha": 0.5, "patient_quota": 100},
        ),
        _Case(
            f"{largest.name}, with replacement",
            largest.tiles,
            indexed=True,
            rule={"replacement": True},
        ),
        _Case(f"{_told(read)} tiles without indexes", read, indexed=False, rule={}),
    ]
    places: dict[tuple[int, bool], Path] = {}
    for case in cases:
        if (case.tiles, case.indexed) not in places:
            place = options.work / f"{case.tiles}{'' if case.indexed else '-plain'}"
            write_cohorts(place, cohorts, case.tiles, indexed=case.indexed)
            places[case.tiles, case.indexed] = place
            options.tell(f"{case.name}: written")
    opened = {case.name: Measurement(case.name, [], [], []) for case in cases}
    drawn = {case.name: Measurement(case.name, [], []) for case in cases}
    told: dict[str, Any] = {}
    for number in range(1, min(options.rounds, _ROUNDS) + 1):
        for case in cases:
            figures = _measured(places[case.tiles, case.indexed], case.rule)
            opened[case.name].cpu.append(figures["cpu"])
            opened[case.name].wall.append(figures["wall"])
            opened[case.name].peak.append(int(figures["peak"]))
            drawn[case.name].cpu.append(figures["draw_cpu"])
            drawn[case.name].wall.append(figures["draw_wall"])
            told = figures
            options.tell(f"{case.name}: {figures['wall']:.2f} s, round {number}")
    for place in places.values():
        shutil.rmtree(place)
    note = (
        f"{cohorts} cohorts, each with at most 1000 tissues of a third as many patients. Memory is "
        f"that of the whole process: {told['before'] / (1 << 20):.0f} MiB of it are the libraries."
    )
    base = cases[0].name
    return [
        Table(
            f"Opening a SporaDataset of {cohorts} cohorts",
            "opening",
            1,
            base,
            list(opened.values()),
            [note],
            _HOW,
        ),
        Table(
            f"Drawing a batch of {BATCH} tiles",
            "draw",
            _DRAWS,
            base,
            list(drawn.values()),
            [_DRAWN],
            _HOW,
        ),
    ]


def _told(count: int) -> str:
    return f"{count:,}"


def _measured(folder: Path, rule: dict[str, Any]) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.sampling_cohorts", str(folder), json.dumps(rule)]
    ended = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
    )
    return json.loads(ended.stdout.splitlines()[-1])
