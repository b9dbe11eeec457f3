"""An address is no path: nothing is written into a directory called ``s3:``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import microtome as mt
from microtome.errors import InvalidInputError, ModeError
from microtome.export import write_ome_tiff
from microtome.prediction import Stitcher, embed_tiles, predict, predict_cohort
from microtome.storage import Draft, replace_file, verify_free, verify_here
from microtome.tiling import plan_tiles

ADDRESSES = ["s3://bucket/a", "gs://bucket/a", "https://host/a", Path("s3://bucket/a")]


@pytest.mark.parametrize("address", ADDRESSES, ids=str)
def test_an_address_is_refused_where_something_is_written(tmp_path, monkeypatch, address):
    monkeypatch.chdir(tmp_path)

    def through_file():
        with replace_file(address) as temporary:
            temporary.touch()

    ways = [
        lambda: verify_here(address),
        lambda: verify_free(Path(address), overwrite=True),
        lambda: Draft(address),
        through_file,
    ]
    for way in ways:
        with pytest.raises(InvalidInputError, match=r"(bucket|host)/a is an address, and this is"):
            way()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["a", "a/b", "C:/a", "s3", "s3/a", "a:b"])
def test_paths_are_not(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    verify_here(path)


def test_who_has_a_directory_called_so_means_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("s3:").mkdir()
    verify_here(Path("s3:/a"))


def test_what_cannot_be_written_there_is_refused_before_the_model_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels = np.zeros((3, 90, 90), np.uint8)
    image = mt.open_image(pixels, axes="cyx", mpp=1.0)
    mt.ingest(
        pixels, axes="cyx", cohort="study", tissue_id="a", modality="he", mpp=1.0, resolution=1.0
    )

    def model(batch):
        pytest.fail("the model was run")

    def stitched(to):
        with Stitcher(to, image, plan_tiles((90, 90), 64, 8)):
            pass

    ways = [
        lambda to: predict(model, image, to, tile_size=64, overlap=8),
        lambda to: predict(model, [image], to, tile_size=64, overlap=8),
        lambda to: predict_cohort(model, "study", name="m", out=to),
        lambda to: embed_tiles(model, [0], to),
    ]
    for way in ways:
        for address in ("gs://bucket/out", "https://example.org/out"):
            with pytest.raises(ModeError, match="can be read, not written: give an s3:// address"):
                way(address)
    files = [
        lambda to: predict(model, image, f"{to}.ome.tif", tile_size=64, overlap=8),
        lambda to: write_ome_tiff(image, f"{to}.ome.tif"),
        stitched,
    ]
    for way in files:
        with pytest.raises(InvalidInputError, match="written to a disk here"):
            way("s3://bucket/out")
    assert [path.name for path in tmp_path.iterdir()] == ["study"]
