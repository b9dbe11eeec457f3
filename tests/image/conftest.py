"""Images in memory and on disk, small enough to be checked pixel by pixel."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from microtome.coordinates import Mpp
from microtome.image import Kind, Level, MemoryArray, MultiscaleImage
from microtome.storage import Layout


def in_memory(
    levels: np.ndarray | Sequence[np.ndarray],
    axes: str = "cyx",
    mpp: tuple[float, float] | None = (0.5, 0.5),
    factors: Sequence[tuple[float, float]] | None = None,
    kind: Kind = "intensity",
) -> MultiscaleImage:
    """An image of arrays; factors (y, x) of the levels are powers of two unless given."""
    arrays = [levels] if isinstance(levels, np.ndarray) else list(levels)
    steps = factors or [(2.0**k, 2.0**k) for k in range(len(arrays))]
    own = mpp or (1.0, 1.0)
    stack = [
        Level(
            f"level{k}",
            f"level{k}",
            MemoryArray(array),
            axes,
            (*[1.0] * (len(axes) - 2), own[0] * step[0], own[1] * step[1]),
            (0.0,) * len(axes),
        )
        for k, (array, step) in enumerate(zip(arrays, steps, strict=True))
    ]
    count = arrays[0].shape[axes.index("c")] if "c" in axes else 0
    return MultiscaleImage(
        stack,
        uri="array",
        channel_names=[f"C{i}" for i in range(count)] if "c" in axes else None,
        mpp=Mpp(*mpp, "user") if mpp else None,
        kind=kind,
    )


def fingerprint(folder: Path) -> dict[str, str]:
    """Every file below a folder, and what is in it."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "directory"
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture(name="in_memory", scope="session")
def in_memory_() -> Callable[..., MultiscaleImage]:
    return in_memory


@pytest.fixture(name="fingerprint", scope="session")
def fingerprint_() -> Callable[[Path], dict[str, str]]:
    return fingerprint


@pytest.fixture
def small_layout() -> Layout:
    """Chunks so small that a small image has several levels, chunks and shards."""
    return Layout((1, 8, 8), (3, 16, 16))


@pytest.fixture
def written(tmp_path, small_layout):
    """An image on disk with three levels, and the pixels of its finest."""
    pixels = np.random.default_rng(3).integers(0, 60000, (3, 29, 21)).astype(np.uint16)
    path = tmp_path / "written.ome.zarr"
    with MultiscaleImage.create(
        path,
        type="uint16",
        level_shape=pixels.shape,
        channel_names=["DNA", "CD3", "CD8"],
        mpp=0.5,
        layout=small_layout,
    ) as image:
        image["level0"][...] = pixels
        image.build_levels()
    return path, pixels
