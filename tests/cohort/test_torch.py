"""Datasets in torch's DataLoader: the same batches, small pickles, and a clear word about forks."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microtome.cohort import HEImagingDataset, MultiplexImagingDataset, ingest, mask, stats, tile
from microtome.regions import collate_regions

torch = pytest.importorskip("torch")


def prepared(he: Any) -> Path:
    root, _ = he
    mask(root)
    tile(root, tile_size=64, method="grid", strategy="default", tolerance=0.9)
    return root


def open_dataset(root: Path) -> HEImagingDataset:
    return HEImagingDataset("c", path=root, resolution=0.5, tile_size=64)


def test_batches_of_the_main_process(he: Any) -> None:
    dataset = open_dataset(prepared(he))
    loader = torch.utils.data.DataLoader(dataset, batch_size=5, collate_fn=collate_regions)
    seen = 0
    for batch in loader:
        expected = dataset.read_batch(np.arange(seen, seen + len(batch.data)))
        np.testing.assert_array_equal(batch.data, expected.data)
        np.testing.assert_array_equal(batch.region_spec["coords"], expected.region_spec["coords"])
        assert batch.source == expected.source
        assert batch.additional_metadata == expected.additional_metadata
        seen += len(batch.data)
    assert seen == len(dataset)


SPAWN = """
import sys
import numpy as np
import torch
from microtome.cohort import HEImagingDataset
from microtome.regions import collate_regions

if __name__ == "__main__":
    dataset = HEImagingDataset("c", path=sys.argv[1], resolution=0.5, tile_size=64)
    dataset[0]
    torch.multiprocessing.set_sharing_strategy("file_system")
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=4, num_workers=2, collate_fn=collate_regions,
        multiprocessing_context=sys.argv[2], timeout=60,
    )
    seen = 0
    for batch in loader:
        expected = dataset.read_batch(np.arange(seen, seen + len(batch.data)))
        assert np.array_equal(batch.data, expected.data)
        assert batch.additional_metadata == expected.additional_metadata
        seen += len(batch.data)
    assert seen == len(dataset) > 8
    print("read", seen)
"""


def run(tmp_path: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    # A file, since spawned workers import the main module.
    path = tmp_path / "script.py"
    path.write_text(script)
    return subprocess.run(
        [sys.executable, str(path), *arguments],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


@pytest.mark.slow
def test_workers_that_are_spawned(he: Any, tmp_path: Path) -> None:
    done = run(tmp_path, SPAWN, str(prepared(he)), "spawn")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("read ")


def test_workers_that_are_forked_after_use_are_told_what_to_do(he: Any, tmp_path: Path) -> None:
    done = run(tmp_path, SPAWN, str(prepared(he)), "fork")
    assert done.returncode == 1
    assert "ModeError" in done.stderr
    assert "'spawn' or 'forkserver'" in done.stderr
    assert "microtome.TileLoader" in done.stderr


def test_a_dataset_sent_elsewhere_is_small_and_works(he: Any) -> None:
    dataset = open_dataset(prepared(he))
    fresh = pickle.dumps(dataset)
    dataset.read_batch(np.arange(len(dataset)))
    used = pickle.dumps(dataset)
    # Paths and the table of tiles go along, no pixels and no open files.
    assert abs(len(used) - len(fresh)) < 500
    assert len(used) < 20_000
    again = pickle.loads(used)
    np.testing.assert_array_equal(again.read_batch([3, 1]).data, dataset.read_batch([3, 1]).data)
    assert again.get_tissue_ids().tolist() == dataset.get_tissue_ids().tolist()


def test_a_multiplex_dataset_sent_elsewhere(imc: Any) -> None:
    root, _ = imc
    tile(root, tile_size=48, method="grid", strategy="default", tolerance=0.9)
    stats(root)
    dataset = MultiplexImagingDataset(
        "c", "imc", path=root, standardization="quantile_clipping/uq_0.99_image", tile_size=48
    )
    dataset.read_batch([0])
    data = pickle.dumps(dataset)
    assert len(data) < 30_000
    np.testing.assert_array_equal(
        pickle.loads(data).read_batch([2, 5]).data, dataset.read_batch([2, 5]).data
    )


def test_size_grows_with_tiles_only(tmp_path: Path) -> None:
    pixels = np.full((1500, 1500, 3), 120, np.uint8)
    pixels[:, :, 1] = 40
    sizes: dict[int, tuple[int, int]] = {}
    ingest(
        pixels, axes="yxc", mpp=0.5, resolution=0.5, cohort=tmp_path, tissue_id="t", modality="he"
    )
    path = tmp_path / "segmentations/0_5mpp/tissue_masks/t.npz"
    path.parent.mkdir(parents=True)
    np.savez_compressed(path, mask=np.ones((1500, 1500), bool))
    for size in (500, 25):
        tile(tmp_path, tile_size=size, method="grid", strategy="default")
        dataset = HEImagingDataset("c", path=tmp_path, resolution=0.5, tile_size=size)
        dataset[0]
        sizes[size] = len(dataset), len(pickle.dumps(dataset))
    assert (sizes[500][0], sizes[25][0]) == (9, 3600)
    # A few numbers a tile: far less than the 1 875 bytes of its pixels.
    assert (sizes[25][1] - sizes[500][1]) / 3591 < 100
