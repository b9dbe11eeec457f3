"""A source whose pixels are known without reading anything back, and a small cohort."""

from __future__ import annotations

import importlib
import threading
from pathlib import Path

import numpy as np
import pytest

from microtome.cohort import MultiplexImagingDataset, ingest, mask, tile
from microtome.regions import ImageRegionData


class ArraySource:
    """Tiles of an array in memory; row i holds the numbers that say so."""

    def __init__(self, count, shape=(2, 3, 4)):
        size = int(np.prod(shape))
        self.pixels = np.arange(count * size, dtype=np.float32).reshape(count, *shape)
        self.lock = threading.Lock()
        self.asked = []
        self.before = lambda rows: None

    def __len__(self):
        return len(self.pixels)

    def read_batch(self, rows):
        with self.lock:
            self.asked.append(rows)
        self.before(rows)
        count, (c, h, w) = len(rows), self.pixels.shape[1:]
        return ImageRegionData(
            data=self.pixels[rows],
            source=["array"] * count,
            data_shape=[(1,) * count, (c,) * count, (h,) * count, (w,) * count],
            dtype=["float32"] * count,
            axes=["CYX"] * count,
            original_data_shape=[(c,) * count, (h,) * count, (w,) * count],
            region_spec={
                "data_idx": np.asarray(rows),
                "sample_idx": np.zeros(count, np.int64),
                "coords": np.zeros((count, 2), np.int64),
                "patch_size": np.tile([h, w], (count, 1)),
            },
            additional_metadata=[{"tile_id": int(row)} for row in rows],
        )


@pytest.fixture
def source_of():
    return ArraySource


@pytest.fixture
def cohort(tmp_path):
    """Its root, and what opens it: two tissues in 96 tiles of 32 pixels."""
    root = tmp_path / "cohort"
    rng = np.random.default_rng(1)
    for tissue in "ab":
        pixels = rng.integers(0, 900, (2, 192, 256), dtype=np.uint16)
        ingest(
            pixels,
            axes="cyx",
            cohort=root,
            tissue_id=tissue,
            modality="imc",
            mpp=1.0,
            channel_names=["CD3", "DNA"],
        )
    mask(root, method="whole")
    tile(root, tile_size=32, method="grid", strategy="default", tolerance=0.1)

    def opened():
        return MultiplexImagingDataset(
            "c", "imc", path=root, tile_size=32, standardization="identity"
        )

    return root, opened


@pytest.fixture
def bench(monkeypatch):
    """The modules of the benchmarks, which are in the repository but in no package that installs."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    return lambda name: importlib.import_module(f"benchmarks.{name}")
