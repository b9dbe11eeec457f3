"""Tables and documents of a cohort with bytes changed: an error of ours, or a value, and nothing else."""

from __future__ import annotations

import contextlib
import os
import random
from pathlib import Path

import numpy as np
import pytest

from microtome.cohort import (
    CohortLayout,
    HEImagingDataset,
    MultiplexImagingDataset,
    ingest,
    mask,
    read_tissues,
    stats,
    tile,
    validate,
)
from microtome.errors import MicrotomeError

MUTATIONS = int(os.environ.get("MICROTOME_MUTATIONS", "40"))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cohort")
    rng = np.random.default_rng(0)
    for tissue in "ab":
        slide = rng.integers(236, 250, (3, 200, 200), dtype=np.uint8)
        colour = np.array([150, 60, 140])[:, None, None]
        slide[:, 40:160, 40:160] = colour + rng.integers(-40, 40, (3, 120, 120))
        counts = rng.integers(0, 900, (2, 200, 200), dtype=np.uint16)
        for kind, pixels, names in (("he", slide, None), ("codex", counts, ["A", "B"])):
            ingest(
                pixels,
                axes="cyx",
                mpp=1.0,
                channel_names=names,
                cohort=root,
                tissue_id=tissue,
                modality=kind,
            )
    mask(root)
    assert len(tile(root, tile_size=64))
    stats(root)
    return root


def use(cohort: Path) -> int:
    """Do what people do with a cohort; returns how much of it was refused."""
    refused = 4
    with contextlib.suppress(MicrotomeError):
        read_tissues(CohortLayout.open(cohort))
        refused -= 1
    with contextlib.suppress(MicrotomeError):
        HEImagingDataset("c", path=cohort, resolution=1.0, tile_size=64).get_tile("a", 0)
        refused -= 1
    with contextlib.suppress(MicrotomeError):
        MultiplexImagingDataset(
            "c",
            path=cohort,
            modality="codex",
            resolution=1.0,
            tile_size=64,
            standardization="quantile_clipping/uq_0.99_image",
        ).get_tile("a", 0)
        refused -= 1
    with contextlib.suppress(MicrotomeError):
        validate(cohort)
        refused -= 1
    return refused


def test_bytes_changed_in_tables_and_documents(cohort: Path) -> None:
    files = [
        path
        for path in sorted(cohort.rglob("*"))
        if path.suffix in {".parquet", ".json"} and path.is_file() and path.parent.name != "0"
    ]
    assert len(files) > 12
    assert use(cohort) == 0
    moments = random.Random(1)
    refused = 0
    for _ in range(MUTATIONS):
        path = moments.choice(files)
        whole = path.read_bytes()
        data = bytearray(whole)
        for _ in range(moments.randrange(1, 4)):
            # Parquet says at its end what is in it.
            reach = len(data) if moments.random() < 0.5 else min(400, len(data))
            data[len(data) - 1 - moments.randrange(reach)] = moments.randrange(256)
        if moments.random() < 0.2:
            del data[moments.randrange(len(data)) :]
        path.write_bytes(data)
        try:
            refused += use(cohort)
        finally:
            path.write_bytes(whole)
    assert refused >= MUTATIONS / 8, "hardly anything was hit"
    assert use(cohort) == 0
