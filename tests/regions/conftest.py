"""Images to cut windows out of: in memory by default, on disk where the engine matters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from microtome.image import Level, MemoryArray, MultiscaleImage
from microtome.storage import Layout


def in_memory(
    levels: np.ndarray | Sequence[np.ndarray], axes: str = "cyx", uri: str = "array"
) -> MultiscaleImage:
    arrays = [levels] if isinstance(levels, np.ndarray) else list(levels)
    stack = [
        Level(
            f"level{k}",
            f"level{k}",
            MemoryArray(array),
            axes,
            tuple(2.0**k if axis in "yx" else 1.0 for axis in axes),
            (0.0,) * len(axes),
        )
        for k, array in enumerate(arrays)
    ]
    count = arrays[0].shape[axes.index("c")] if "c" in axes else 0
    names = [f"C{i}" for i in range(count)] if "c" in axes else None
    return MultiscaleImage(stack, uri=uri, channel_names=names, mpp=None)


def on_disk(path: Path, pixels: np.ndarray, axes: str = "cyx", **options) -> MultiscaleImage:
    rank = len(axes)
    layout = Layout((1,) * (rank - 2) + (8, 8), (2,) * (rank - 2) + (16, 16))
    with MultiscaleImage.create(
        path,
        type=pixels.dtype,
        level_shape=pixels.shape,
        data_axis_order=axes,
        has_channel_axis="c" in axes,
        mpp=0.5,
        layout=layout,
        **options,
    ) as image:
        image["level0"][...] = pixels
        image.build_levels()
    return MultiscaleImage.open(path)


@pytest.fixture(name="in_memory", scope="session")
def in_memory_() -> Callable[..., MultiscaleImage]:
    return in_memory


@pytest.fixture(name="on_disk", scope="session")
def on_disk_() -> Callable[..., MultiscaleImage]:
    return on_disk
