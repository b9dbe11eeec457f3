"""Run the long versions: ``python -m benchmarks.reliability kills|mutations|images``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path


def main() -> int:
    """Do what is asked and print a table in Markdown; the exit code says whether anything broke."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["kills"])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="these jobs or formats only")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        return _kills(asked, Path(directory))


def _kills(asked: argparse.Namespace, folder: Path) -> int:
    from .jobs import JOBS
    from .kills import Undisturbed, kill_at_random

    undisturbed = Undisturbed(folder / "undisturbed")
    broken: list[str] = []
    print(
        "| job | killed | done before | left half-way | wrong |\n|---|---|---|---|---|", flush=True
    )
    for name, job in JOBS.items():
        if asked.only and name not in asked.only:
            continue
        found = kill_at_random(undisturbed, job, asked.kills, asked.seed)
        broken += [f"{name}: {told}" for told in found.broken]
        row = (name, found.kills, found.late, found.halfway, len(found.broken))
        print(f"| {' | '.join(map(str, row))} |", flush=True)
    print("\n".join(broken))
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
