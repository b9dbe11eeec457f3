"""Run the long versions: ``python -m benchmarks.reliability kills|images|mutations``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def main() -> int:
    """Do what is asked and print a table in Markdown; the exit code says whether anything broke."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["kills", "images", "mutations"])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="these jobs, or kinds of files, only")
    parser.add_argument("--counts", type=int, nargs="*", default=[1000, 5000, 20_000])
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        does = {"kills": _kills, "images": _images, "mutations": _mutations}
        return does[asked.what](asked, Path(directory))


def _kills(asked: argparse.Namespace, folder: Path) -> int:
    from .jobs import JOBS
    from .kills import Undisturbed, kill_at_random

    undisturbed = Undisturbed(folder / "undisturbed")
    broken: list[str] = []
    _head("job", "killed", "done before", "left half-way", "wrong")
    for name, job in JOBS.items():
        if asked.only and name not in asked.only:
            continue
        found = kill_at_random(undisturbed, job, asked.kills, asked.seed)
        broken += [f"{name}: {told}" for told in found.broken]
        _row((name, found.kills, found.late, found.halfway, len(found.broken)))
    print("\n".join(broken))
    return bool(broken)


def _images(asked: argparse.Namespace, folder: Path) -> int:
    from .images import measure, rows

    measured = [measure(folder / str(count), count) for count in asked.counts]
    _head("for one image", *(f"{count:,} images" for count in asked.counts))
    for row in rows(measured):
        _row(row)
    return 0


def _mutations(asked: argparse.Namespace, folder: Path) -> int:
    from .mutations import TARGETS, mutate_at_random, write_cohort

    write_cohort(folder / "cohort")
    broken: list[str] = []
    _head("file", "mutations", "refused", "slowest", "memory grew by", "ended", "wrong")
    for name, target in TARGETS.items():
        if asked.only and name not in asked.only:
            continue
        found = mutate_at_random(folder / "cohort", target, asked.mutations, asked.seed)
        broken += [f"{name}: {told}" for told in found.broken]
        slowest, grown = f"{found.slowest:.2f} s", f"{found.grown >> 20} MiB"
        _row((name, found.mutations, found.refused, slowest, grown, found.ended, len(found.broken)))
    print("\n".join(broken))
    return bool(broken)


def _head(*names: str) -> None:
    _row(names)
    _row(["---"] * len(names))


def _row(values: Iterable[Any]) -> None:
    print(f"| {' | '.join(map(str, values))} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
