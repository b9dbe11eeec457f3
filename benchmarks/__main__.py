"""Run benchmarks: `python -m benchmarks [NAME ...] [--image PATH] [--rounds N] [--items N]`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from pathlib import Path

from . import (
    asked,
    batches,
    cohort_tiles,
    cold,
    collate,
    image_tiles,
    ingest,
    label_stitching,
    packed,
    patching,
    peers,
    prediction,
    pyramids,
    sampling,
    slide_batches,
    slides_in_place,
    spatial_reads,
    startup,
    stats,
    threads,
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
    "cold": cold.tables,
    "collate": collate.tables,
    "image_tiles": image_tiles.tables,
    "ingest": ingest.tables,
    "label_stitching": label_stitching.tables,
    "packed": packed.tables,
    "patching": patching.tables,
    "peers": peers.tables,
    "prediction": prediction.tables,
    "pyramids": pyramids.tables,
    "sampling": sampling.tables,
    "slide_batches": slide_batches.tables,
    "slides_in_place": slides_in_place.tables,
    "spatial_reads": spatial_reads.tables,
    "startup": startup.tables,
    "stats": stats.tables,
    "threads": threads.tables,
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
    parser.add_argument(
        "--data", type=Path, help="where images that several benchmarks share are made, and kept"
    )
    parser.add_argument(
        "--asked",
        action="store_true",
        help="all of which something is asked, and the page about it",
    )
    given = parser.parse_args()
    names = given.names or list(asked.BENCHMARKS if given.asked else BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown or min(given.rounds, given.items) < 1:
        parser.error(f"no benchmark {unknown}" if unknown else "rounds and items start at 1")

    with tempfile.TemporaryDirectory(prefix="microtome-bench-") as made:
        data = (given.data or Path(made)).resolve()
        data.mkdir(parents=True, exist_ok=True)
        for name in names:
            machine = {**describe_machine(), "load_before": load()}
            with (
                tempfile.TemporaryDirectory(prefix="microtome-bench-") as work,
                warnings.catch_warnings(),
            ):
                warnings.simplefilter("ignore")  # of peers, about each other
                options = Options(
                    given.image, given.rounds, given.items, Path(work).resolve(), _tell, data
                )
                found = BENCHMARKS[name](options)
            machine["load_at_end"] = load()
            print(write_results(name, found, machine, given.results))
    if set(names) & set(asked.BENCHMARKS):
        print(asked.write(given.results))


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


# The worker processes of a loader import this module under another name.
if __name__ == "__main__":
    main()
