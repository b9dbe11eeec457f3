"""A cohort of many images costs for each what a small one does: counted in steps, not in seconds.

`python -m benchmarks.reliability images` measures seconds and bytes.
"""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from microtome.cohort import HEImagingDataset, ingest_manifest, mask, tile, validate

REPOSITORY = Path(__file__).parents[2]
COUNTS = (50, 250)


@pytest.fixture(scope="module")
def manifest_of() -> Iterator[Callable[[Path, int], Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPOSITORY)
        yield importlib.import_module("benchmarks.reliability.images").write_small_images


class Steps:
    """Counts files that are opened, renamed and listed; one for the process, as hooks stay."""

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()
        self.on = False
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in {"open", "os.rename", "os.listdir", "os.scandir", "os.mkdir", "os.remove"}:
            self.found[event] += 1
            if event == "os.rename" and str(arguments[1]).endswith(".parquet"):
                self.found["table"] += 1

    def of(self, work: Callable[[], object]) -> Counter[str]:
        self.found = Counter()
        self.on = True
        try:
            work()
        finally:
            self.on = False
        return self.found


@pytest.fixture(scope="module")
def steps(
    manifest_of: Callable[[Path, int], Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[int, dict[str, Counter[str]]]:
    """What each verb does to cohorts of several sizes."""
    counter = Steps()
    found: dict[int, dict[str, Counter[str]]] = {}
    # The first time, modules are imported and caches filled.
    for count in (2, *COUNTS):
        folder = tmp_path_factory.mktemp(f"cohort{count}")
        manifest, cohort = manifest_of(folder / "sources", count), folder / "cohort"
        found[count] = {
            "ingest": counter.of(lambda m=manifest, c=cohort: ingest_manifest(m, c)),
            "ingest again": counter.of(lambda m=manifest, c=cohort: ingest_manifest(m, c)),
            "mask": counter.of(lambda c=cohort: mask(c)),
            "tile": counter.of(lambda c=cohort: tile(c, tile_size=32)),
            "validate": counter.of(lambda c=cohort: validate(c)),
            "open": counter.of(
                lambda c=cohort: HEImagingDataset("c", path=c, resolution=1.0, tile_size=32)
            ),
        }
    return found


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["ingest", "ingest again", "mask", "tile", "validate", "open"])
def test_steps_grow_with_the_images_and_no_faster(
    steps: dict[int, dict[str, Counter[str]]], verb: str
) -> None:
    small, large = (steps[count][verb] for count in COUNTS)
    for event in small | large:
        # What is done for each image once for each image would be five times as much for one.
        # Up to twice: beyond 256 files, those that are kept open are opened again.
        growth = COUNTS[1] / COUNTS[0]
        assert large[event] <= 2 * growth * small[event] + 20, (event, small[event], large[event])


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["ingest", "mask", "tile", "validate", "open"])
def test_tables_are_not_rewritten_for_each_image(
    steps: dict[int, dict[str, Counter[str]]], verb: str
) -> None:
    assert steps[COUNTS[-1]][verb]["table"] <= COUNTS[-1] / 5
    assert steps[COUNTS[-1]]["ingest again"]["table"] == 0
