"""A loader in use for very long: whether memory or handles grow.

Run alone, not as a benchmark beside others: ``python -m benchmarks.soak --batches 200000``. Tiles of
a small cohort are read again and again, epoch after epoch, in blocked order with two threads; after
every tenth of the batches memory and open handles are written down.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import threading
from pathlib import Path
from time import perf_counter

import numpy as np

import microtome as mt


def cohort(directory: Path) -> mt.MultiplexImagingDataset:
    """Return the tiles of a small cohort."""
    rng = np.random.default_rng(0)
    for number in range(4):
        mt.ingest(
            rng.poisson(20, (2, 512, 512)).astype(np.uint16),
            axes="cyx",
            cohort=directory,
            tissue_id=f"t{number}",
            modality="imc",
            mpp=1.0,
            channel_names=["CD3", "DNA"],
        )
    mt.mask(directory, method="whole")
    mt.tile(directory, tile_size=32, method="grid", strategy="default", tolerance=0.1)
    return mt.MultiplexImagingDataset(
        "soak", "imc", path=directory, tile_size=32, standardization="identity"
    )


def resident() -> float:
    """Return the memory of this process, in MiB."""
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    """Read, and print a line for every tenth."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--batches", type=int, default=200_000)
    count = parser.parse_args().batches
    with tempfile.TemporaryDirectory() as directory:
        dataset = cohort(Path(directory) / "cohort")
        loader = mt.TileLoader(dataset, 8, order="blocked", seed=0, threads=2, as_torch=False)
        done = epoch = 0
        began = perf_counter()
        sys.stdout.write(
            "| batches | seconds | resident MiB | handles | threads | objects |\n|---|---|---|---|---|---|\n"
        )
        while done < count:
            loader.set_epoch(epoch)
            epoch += 1
            for _ in loader:
                done += 1
                if done % (count // 10) == 0:
                    gc.collect()
                    handles = len(list(Path("/proc/self/fd").iterdir()))
                    sys.stdout.write(
                        f"| {done} | {perf_counter() - began:.0f} | {resident():.1f} | {handles} | "
                        f"{threading.active_count()} | {len(gc.get_objects())} |\n"
                    )
                    sys.stdout.flush()
                if done == count:
                    break
        sys.stdout.write(f"{loader.stats()}\n")


if __name__ == "__main__":
    main()
