"""`info`: what an image or a cohort is, the same for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from microtome.cohort import CohortInfo, ImageInfo, info, ingest, mask, stats, tile
from microtome.errors import FormatError, NotFoundError
from microtome.sources import image_names


def test_a_slide(shared_data: Path) -> None:
    found = info(shared_data / "wsi/cmu-1-small-region.svs")
    assert isinstance(found, ImageInfo)
    assert (found.axes, found.dtype, found.kind) == ("cyx", "uint8", "intensity")
    assert found.mpp_source == "metadata"
    assert found.channel_names == ("red", "green", "blue")
    (level,) = found.levels
    assert level.shape == (3, 2967, 2220)
    assert level.mpp == (0.499, 0.499)
    assert level.shards is None
    text = str(found)
    assert "0.499 um/px (from metadata)" in text
    assert "3x2967x2220" in text


def test_an_image_that_states_nothing(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((30, 40), np.float32))
    found = info(tmp_path / "a.tif")
    assert isinstance(found, ImageInfo)
    assert found.mpp_source is None
    assert found.levels[0].mpp is None
    assert found.channel_names is None
    assert "not stated: give --mpp" in str(found)


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.zeros((30, 40), np.uint8),
        resolution=(20000, 10000),
        resolutionunit=3,
    )
    assert "1 x 0.5 (y, x) um/px (from tag)" in str(info(tmp_path / "a.tif"))


def test_an_image_of_a_cohort(tmp_path: Path) -> None:
    pixels = np.zeros((600, 500, 3), np.uint8)
    image = ingest(
        pixels, axes="yxc", mpp=0.5, resolution=0.5, cohort=tmp_path, tissue_id="t", modality="he"
    )
    found = info(image.uri)
    assert isinstance(found, ImageInfo)
    assert [level.shape for level in found.levels] == [
        (3, 600, 500),
        (3, 300, 250),
        (3, 150, 125),
        (3, 75, 63),
    ]
    assert [level.mpp for level in found.levels] == [(0.5 * 2**i,) * 2 for i in range(4)]
    assert found.mpp_source == "user"
    assert found.levels[0].chunks == (1, 128, 128)
    assert found.levels[0].shards == (3, 640, 512)
    for index in range(4):
        assert f"level {index}" in str(found)


def test_a_cohort(imc: Any, tree: Any) -> None:
    root, _ = imc
    rgb = np.random.default_rng(0).integers(0, 256, (140, 171, 3), dtype=np.uint8)
    ingest(rgb, axes="yxc", mpp=1.0, cohort=root, tissue_id="a", modality="he", patient_id="p")
    table = tile(root, tile_size=48, method="grid")
    stats(root)
    before = tree(root)
    found = info(root)
    assert isinstance(found, CohortInfo)
    assert found.root == str(root)
    assert [(row["tissue_id"], row["modality"], row["split"]) for row in found.tissues] == [
        ("a", "imc", "train"),
        ("b", "imc", "train"),
        ("c", "imc", "test"),
        ("a", "he", None),
    ]
    assert found.resolutions == ("1_0mpp",)
    assert found.tilings == (
        {
            "resolution": "1_0mpp",
            "strategy": "grid",
            "size": "48",
            "tissues": 3,
            "tiles": len(table),
        },
    )
    assert found.standardizations == ("imc/1_0mpp/standardization/quantile_clipping/uq_0.99_image",)
    assert found.predictions == ()
    text = str(found)
    assert "cohort of 3 tissues, 4 images at 1_0mpp" in text
    assert f"grid 48 px at 1_0mpp: {len(table)} tiles on 3 tissues" in text
    assert "source 1 um/px (from user), split test" in text
    assert json.loads(json.dumps(found.as_dict()))["tissues"][3]["patient_id"] == "p"
    assert tree(root) == before


def test_a_cohort_that_has_just_begun(tmp_path: Path) -> None:
    from microtome.cohort import CohortLayout

    CohortLayout.open_or_create(tmp_path)
    found = info(tmp_path)
    assert isinstance(found, CohortInfo)
    assert found.tissues == ()
    assert "cohort of 0 tissues, 0 images at no resolution" in str(found)


def test_predictions_are_listed(he: Any) -> None:
    root, _ = he
    for name in ("t1.ome.zarr", ".t2.ome.zarr.partial-0"):
        (root / "predictions/0_5mpp/demo" / name).mkdir(parents=True)
    found = info(root)
    assert isinstance(found, CohortInfo)
    assert found.predictions == ("predictions/0_5mpp/demo/t1.ome.zarr",)


def test_nothing_and_something_else(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        info(tmp_path / "missing")
    with pytest.raises(FormatError):
        info(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(FormatError):
        info(tmp_path / "a.txt")


def test_a_mask_is_an_image_of_labels(he: Any) -> None:
    root, _ = he
    mask(root)
    found = info(root / "segmentations/0_5mpp/tissue_masks/t1.ome.zarr")
    assert isinstance(found, ImageInfo)
    assert found.kind == "labels"


def test_tiles_at_a_coarser_resolution_are_told(imc: Any) -> None:
    root, _ = imc
    tile(root, tile_size=24, method="grid", resolution=2, tolerance=0.9)
    (found,) = info(root).tilings  # type: ignore[union-attr]
    assert (found["resolution"], found["strategy"], found["size"]) == ("2_0mpp", "grid", "24")
    assert found["tiles"] > 8


def test_a_file_of_several_images_lists_them(tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    for name in ("one", "two"):
        tifffile.imwrite(tmp_path / "img" / f"{name}.tiff", np.zeros((2, 16, 20), np.float32))
    (tmp_path / "panel.csv").write_text("channel,name,keep\nIr191,DNA,1\nEr170,CD3,1\n")
    found = info(tmp_path)
    assert found.as_dict() == {"uri": str(tmp_path), "images": ("one", "two")}
    assert str(found) == f"{tmp_path}: 2 images; of one more with --image (image=)\n  one\n  two"
    assert info(tmp_path, image="two").levels[0].shape[-2:] == (16, 20)


def test_other_pictures_of_a_file_are_listed(shared_data: Path) -> None:
    path = shared_data / "wsi/cmu-1-small-region.svs"
    found = info(path)
    assert isinstance(found, ImageInfo)
    assert found.associated_images == image_names(path)[1:] != ()
    assert f"with it     {', '.join(found.associated_images)}; of one more" in str(found)
    other = info(path, image=found.associated_images[0])
    assert isinstance(other, ImageInfo)
    assert other.associated_images == ()
    assert "with it" not in str(other)
