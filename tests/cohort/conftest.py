"""Small cohorts whose every pixel is known."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from microtome.cohort import CohortLayout, ingest
from microtome.coordinates import Resolution
from microtome.image import MultiscaleImage

CHANNELS = ("CD3", "DNA", "Ki67")


def tree_of(directory: Path) -> dict[str, str]:
    """Every file under a directory with the hash of its content, and every empty directory."""
    return {
        entry.relative_to(directory).as_posix(): (
            hashlib.sha256(entry.read_bytes()).hexdigest() if entry.is_file() else "directory"
        )
        for entry in sorted(directory.rglob("*"))
    }


@pytest.fixture
def tree() -> Callable[[Path], dict[str, str]]:
    """What is on disk: compared before and after, nothing may have changed."""
    return tree_of


def slide_pixels(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """White glass with a purple disc of tissue in which every pixel differs, (Y, X, 3)."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(238, 250, (height, width, 3), dtype=np.uint8)
    y, x = np.mgrid[:height, :width]
    inside = ((y - height / 2) / (0.36 * height)) ** 2 + ((x - width / 2) / (0.4 * width)) ** 2 < 1
    tissue = np.array([150, 60, 140]) + rng.integers(-40, 40, (height, width, 3))
    pixels[inside] = tissue[inside]
    return pixels


def marker_pixels(height: int, width: int, channels: int, seed: int) -> NDArray[np.uint16]:
    """Skewed counts in every channel, (C, Y, X)."""
    rng = np.random.default_rng(seed)
    scale = np.arange(1, channels + 1)[:, None, None] * 60.0
    return rng.gamma(0.7, scale, (channels, height, width)).astype(np.uint16)


def write_mask(layout: CohortLayout, resolution: Resolution, tissue_id: str, mask: Any) -> None:
    """Store a tissue mask as labels, without any detection."""
    with MultiscaleImage.create(
        layout.tissue_mask(resolution, tissue_id),
        type=np.uint8,
        level_shape=mask.shape,
        has_channel_axis=False,
        mpp=resolution.mpp,
        kind="labels",
    ) as made:
        made.level(0)[...] = np.asarray(mask).astype(np.uint8)
        made.build_levels()


@pytest.fixture
def write() -> Callable[[Path, str, NDArray[np.bool_]], None]:
    """Store a mask at 1 um a pixel, replacing one that is there."""

    def store(root: Path, tissue_id: str, tissue: NDArray[np.bool_]) -> None:
        layout, resolution = CohortLayout.open(root), Resolution.parse(1.0)
        shutil.rmtree(layout.tissue_mask(resolution, tissue_id), ignore_errors=True)
        write_mask(layout, resolution, tissue_id, tissue)

    return store


Cohort = tuple[Path, dict[str, NDArray[Any]]]


@pytest.fixture(scope="session")
def he_template(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """What `he` is a copy of."""
    root = tmp_path_factory.mktemp("he") / "cohort"
    sources = {"t1": slide_pixels(301, 277, 1), "t2": slide_pixels(190, 333, 2)}
    for tissue_id, pixels in sources.items():
        ingest(
            pixels,
            axes="yxc",
            cohort=root,
            tissue_id=tissue_id,
            modality="he",
            mpp=0.5,
            resolution=0.5,
            patient_id=f"p-{tissue_id}",
            split="train" if tissue_id == "t1" else "test",
        )
    return root, {name: np.moveaxis(pixels, -1, 0) for name, pixels in sources.items()}


@pytest.fixture(scope="session")
def imc_template(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """What `imc` is a copy of."""
    root = tmp_path_factory.mktemp("imc") / "cohort"
    sizes = {"a": (140, 171), "b": (99, 130), "c": (120, 120)}
    sources: dict[str, NDArray[Any]] = {}
    for number, (tissue_id, size) in enumerate(sizes.items()):
        sources[tissue_id] = marker_pixels(*size, len(CHANNELS), number)
        ingest(
            sources[tissue_id],
            axes="cyx",
            cohort=root,
            tissue_id=tissue_id,
            modality="imc",
            mpp=1.0,
            channel_names=CHANNELS,
            split="test" if tissue_id == "c" else "train",
        )
        layout = CohortLayout.open(root)
        rng = np.random.default_rng(50 + number)
        write_mask(layout, Resolution.parse(1.0), tissue_id, rng.random(size) < 0.6)
    return root, sources


def copied(template: Cohort, place: Path) -> Cohort:
    shutil.copytree(template[0], place / "cohort")
    return place / "cohort", {name: pixels.copy() for name, pixels in template[1].items()}


@pytest.fixture
def he(he_template: Cohort, tmp_path: Path) -> Cohort:
    """A cohort of two H&E tissues of odd sizes at their own resolution, and their pixels."""
    return copied(he_template, tmp_path)


@pytest.fixture
def imc(imc_template: Cohort, tmp_path: Path) -> Cohort:
    """A cohort of three multiplex tissues with masks; the third lies in split "test"."""
    return copied(imc_template, tmp_path)
