"""A small slide, and the command line in this process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile

from microtome.cli import main


@pytest.fixture(autouse=True)
def logging_restored() -> Iterator[None]:
    """Undo what a run of the command line sets for the process it is in."""
    logger = logging.getLogger("microtome")
    before = logger.level, list(logger.handlers)
    yield
    logger.setLevel(before[0])
    logger.handlers[:] = before[1]


@dataclass(frozen=True)
class Outcome:
    """How a run of the command line ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run the command line here; whatever it prints, by whatever means, is caught."""

    def call(*arguments: object) -> Outcome:
        capfd.readouterr()
        code = main([str(a) for a in arguments])
        said = capfd.readouterr()
        return Outcome(code, said.out, said.err)

    return call


@pytest.fixture(scope="session")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An H&E-like TIFF of 0.5 um a pixel: white glass, a purple disc with darker nuclei."""
    rng = np.random.default_rng(15)
    height, width = 613, 541
    y, x = np.mgrid[:height, :width]
    pixels = rng.integers(240, 250, (height, width, 3)).astype(np.uint8)
    disc = ((y - 300) / 230) ** 2 + ((x - 270) / 200) ** 2 < 1
    pixels[disc] = np.array([205, 140, 190]) + rng.integers(-8, 8, (int(disc.sum()), 3))
    for cy, cx in rng.integers(0, 541, (400, 2)):
        nucleus = ((y - cy) ** 2 + (x - cx) ** 2 < 49) & disc
        pixels[nucleus] = np.array([95, 60, 140]) + rng.integers(-8, 8, (int(nucleus.sum()), 3))
    path = tmp_path_factory.mktemp("slide") / "slide.tif"
    tifffile.imwrite(
        path,
        pixels,
        photometric="rgb",
        tile=(128, 128),
        compression="zlib",
        resolution=(20000, 20000),
        resolutionunit="CENTIMETER",
    )
    return path


@pytest.fixture
def cohort(run: Run, slide: Path, tmp_path: Path) -> Path:
    """A cohort of that slide, at its own resolution."""
    root = tmp_path / "cohort"
    options = ("--cohort", root, "--tissue", "t", "--modality", "he", "--resolution", "0.5")
    assert run("ingest", slide, *options).code == 0
    return root
