"""Run benchmarks: `python -m benchmarks [NAME ...] [--image PATH] [--rounds N] [--items N]`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from . import (
    batches,
    cohort_tiles,
    collate,
    image_tiles,
    ingest,
    label_stitching,
    patching,
    peers,
    prediction,
    pyramids,
    sampling,
    slides_in_place,
    spatial_reads,
    stats,
    tiles,
    tilings,
    training,
)
from .machine import describe_machine, load
from .options import Options
from .report import write_results

BENCHMARKS = {
    "batches": batches.tables,
    "cohort_tiles": cohort_tiles.tables,
    "collate": collate.tables,
    "image_tiles": image_tiles.tables,
    "ingest": ingest.tables,
    "label_stitching": label_stitching.tables,
    "patching": patching.tables,
    "peers": peers.tables,
    "prediction": prediction.tables,
    "pyramids": pyramids.tables,
    "sampling": sampling.tables,
    "slides_in_place": slides_in_place.tables,
    "spatial_reads": spatial_reads.tables,
    "stats": stats.tables,
    "tiles": tiles.tables,
    "tilings": tilings.tables,
    "training": training.tables,
}


def main() -> None:
    """Run the benchmarks that the command line names, all by default, and print their tables."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--image", type=Path, help="an OME-Zarr, or any file that microtome opens")
    parser.add_argument("--rounds", type=int, default=15, help="default: %(default)s")
    parser.add_argument("--items", type=int, default=128, help="in a round; default: %(default)s")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    asked = parser.parse_args()
    unknown = [name for name in asked.names if name not in BENCHMARKS]
    if unknown or min(asked.rounds, asked.items) < 1:
        parser.error(f"no benchmark {unknown}" if unknown else "rounds and items start at 1")

    for name in asked.names or BENCHMARKS:
        machine = {**describe_machine(), "load_before": load()}
        with tempfile.TemporaryDirectory(prefix="microtome-bench-") as work:
            options = Options(asked.image, asked.rounds, asked.items, Path(work), _tell)
            found = BENCHMARKS[name](options)
        machine["load_at_end"] = load()
        print(write_results(name, found, machine, asked.results))


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


# The worker processes of a loader import this module under another name.
if __name__ == "__main__":
    main()
