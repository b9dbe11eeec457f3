"""`bench`: what it measures, of what, and what it advises."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tifffile
import zarr

from microtome.cohort import CohortLayout, ingest
from microtome.errors import (
    InvalidInputError,
    NotFoundError,
    UnknownNameError,
)
from microtome.loading import (
    bench,
)
from microtome.loading._bench import BenchRow, _setting
from microtome.storage import DiskCache, StorageOptions

SIZE = 32


def test_bench_of_an_image_in_large_chunks_advises_others(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 900, (1, 700, 700), np.uint16)
    path = tmp_path / "image.ome.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.create_array("0", data=pixels, chunks=(1, 700, 700))
    axes = [{"name": "c", "type": "channel"}] + [{"name": n, "type": "space"} for n in "yx"]
    scale = [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [
            {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
        ],
    }
    report = bench(path, tile_size=64, batch_size=16, seconds=0.4)
    assert report.chunks == (1, 700, 700)
    # There is but one chunk to touch.
    assert report.amplification == pytest.approx((700 / 64) ** 2)
    (told,) = [text for text in report.advice if "microtome.pack" in text]
    assert (
        f"touches {(127 / 64) ** 2:.1f} times its pixels instead of {(700 / 64) ** 2:.1f}" in told
    )
    assert any("no shards" in text for text in report.advice)
    assert {row.order for row in report.rows} == {"random", "blocked"}
    assert all(row.tiles_per_second > 0 for row in report.rows)
    assert report.best in report.rows
    assert "blocked" in str(report)
    assert str(report).count("\n* ") == len(report.advice)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            {("random", 1): 500, ("random", 8): 300, ("blocked", 1): 200, ("blocked", 8): 400},
            ("order='random', threads=1: 1.2 times", "the best in blocks, with threads=8"),
        ),
        (
            {("random", 1): 50, ("random", 8): 300, ("blocked", 1): 200, ("blocked", 8): 900},
            ("order='blocked', threads=8: 3.0 times", "uniform order, with threads=8"),
        ),
        # In blocks it is the fastest on one thread, which says nothing of the other order's threads.
        (
            {("random", 1): 50, ("random", 8): 300, ("blocked", 1): 330, ("blocked", 8): 310},
            ("order='blocked', threads=1: 1.1 times", "threads=8; so little that order='random'"),
        ),
    ],
)
def test_bench_advises_the_fastest_of_its_rows(rows, said):
    made = [BenchRow(order, threads, speed, speed, 1.0) for (order, threads), speed in rows.items()]
    text = _setting(made)
    assert all(words in text for words in said)
    best = max(made, key=lambda row: row.tiles_per_second)
    assert text.startswith(f"load with order={best.order!r}, threads={best.threads}: ")


def test_bench_of_a_cohort(cohort):
    root, _ = cohort
    report = bench(root, tile_size=SIZE, batch_size=16, seconds=0.2)
    assert (report.images, report.dtype, report.axes) == (2, "uint16", "CYX")
    assert not any("large for tiles" in text for text in report.advice) or report.amplification > 6
    assert not any("measured" in text for text in report.advice)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A cohort of three small IMC images, two H&E ones, and one that is as small as they are."""
    root = tmp_path_factory.mktemp("mixed") / "cohort"
    rng = np.random.default_rng(0)
    for number, side in enumerate((48, 50, 52)):
        pixels = rng.integers(0, 900, (2, side, side), dtype=np.uint16)
        given = {"modality": "imc", "channel_names": ["a", "b"], "axes": "cyx", "mpp": 1.0}
        ingest(pixels, cohort=root, tissue_id=f"t{number}", **given)
    for number, side in enumerate((160, 150, 40)):
        pixels = rng.integers(0, 255, (3, side, side + 5), dtype=np.uint8)
        ingest(pixels, cohort=root, tissue_id=f"t{number}", modality="he", axes="cyx", mpp=1.0)
    return root


def test_bench_reads_images_of_one_modality_that_have_room_for_a_tile(mixed):
    options = {"batch_size": 4, "seconds": 0.2}
    small = bench(mixed, tile_size=44, **options)
    assert (small.images, small.dtype) == (3, "uint16")
    assert "measured 3 of 6 images, those of imc" in small.advice[0]
    assert "modality= (--modality) measures he" in small.advice[0]
    assert bench(mixed, tile_size=32, modality="he", **options).images == 3
    large = bench(mixed, tile_size=100, **options)
    assert (large.images, large.dtype) == (2, "uint8")
    assert large.amplification <= 4 * 128**2 / 100**2
    with pytest.raises(
        InvalidInputError,
        match=r"tile of 224 pixels: the largest of he is 160 x 165, the largest of imc is 52 x 52; give",
    ):
        bench(mixed)
    with pytest.raises(UnknownNameError, match="no images of 'codex'; there are he, imc"):
        bench(mixed, modality="codex")
    with pytest.raises(InvalidInputError, match="is a cohort; choose by modality="):
        bench(mixed, image="t0")


def test_bench_of_a_cohort_and_an_image_in_a_store(mixed, s3_holding, tmp_path, monkeypatch):
    monkeypatch.delenv("MICROTOME_DISK_CACHE", raising=False)
    with s3_holding(mixed, "bench-of-cohorts", "all/mixed") as address:
        where = StorageOptions(endpoint=f"http://{address}", region="us-east-1")
        reach = {"storage_options": where}
        options = {"tile_size": 32, "batch_size": 4, "seconds": 0.2, **reach}
        found = bench("s3://bench-of-cohorts/all/mixed", modality="he", **options)
        assert (found.images, found.dtype) == (3, "uint8")
        one = "s3://bench-of-cohorts/all/mixed/imc/1_0mpp/images/t1.ome.zarr"
        assert (bench(one, **options).images, bench(one, **options).dtype) == (1, "uint16")
        assert found.path == "s3://bench-of-cohorts/all/mixed"
        assert any("every epoch fetches their bytes again" in text for text in found.advice)
        kept = replace(where, disk_cache=DiskCache(tmp_path / "cache", 1 << 24))
        again = bench(one, **{**options, "storage_options": kept})
        assert any("a first epoch waits for the store" in text for text in again.advice)


def test_bench_of_a_file_with_several_images(tmp_path):
    path = tmp_path / "two.ome.tif"
    pixels = np.random.default_rng(0).integers(0, 900, (96, 96), np.uint16)
    with tifffile.TiffWriter(path, ome=True) as file:
        for name in ("one", "two"):
            told = {"Name": name, "PhysicalSizeX": 1.0, "PhysicalSizeY": 1.0, "axes": "YX"}
            file.write(pixels, metadata=told, tile=(32, 32))
    options = {"tile_size": 32, "batch_size": 4, "seconds": 0.2}
    assert bench(path, image="two", **options).images == 1
    with pytest.raises(UnknownNameError, match="three"):
        bench(path, image="three", **options)
    with pytest.raises(InvalidInputError, match="is one image; leave it out"):
        bench(path, modality="he", **options)


def test_bench_of_one_file_does_not_speak_of_shards(tmp_path):
    path = tmp_path / "image.tif"
    pixels = np.random.default_rng(0).integers(0, 900, (512, 512), np.uint16)
    tifffile.imwrite(path, pixels, tile=(256, 256), resolution=(1e4, 1e4), resolutionunit=3)
    report = bench(path, tile_size=64, batch_size=16, seconds=0.2)
    assert (report.chunks, report.shards) == ((256, 256), None)
    assert not any("shards" in text for text in report.advice)
    assert any("ingested into a cohort and rewritten" in text for text in report.advice)


def test_bench_says_which_images_of_a_cohort_it_measured(tmp_path):
    rng = np.random.default_rng(0)
    for name, channels, size in (("a", 1, 150), ("b", 2, 200)):
        ingest(
            rng.integers(0, 900, (channels, size, size), np.uint16),
            axes="cyx",
            mpp=1.0,
            cohort=tmp_path / "cohort",
            tissue_id=name,
            modality="imc",
            channel_names=[f"m{i}" for i in range(channels)],
        )
    report = bench(tmp_path / "cohort", tile_size=64, batch_size=8, seconds=0.2)
    assert report.images == 1
    words = "measured 1 of 2 images, those of imc with axes cyx, 2 channels and uint16"
    assert any(words in text for text in report.advice)


def test_bench_refuses_what_cannot_be_measured(cohort, tmp_path):
    root, _ = cohort
    with pytest.raises(
        InvalidInputError,
        match=r"room for a tile of 500 pixels: the largest of imc is 192 x 256.*\(--size\)",
    ):
        bench(root, tile_size=500)
    with pytest.raises(InvalidInputError, match="must be above 0"):
        bench(root, seconds=0)
    CohortLayout.open_or_create(tmp_path / "empty")
    (tmp_path / "empty" / "metadata").mkdir(exist_ok=True)
    with pytest.raises(NotFoundError, match="has no images"):
        bench(tmp_path / "empty")
