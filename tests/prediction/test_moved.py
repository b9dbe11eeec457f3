"""A cohort that was moved or copied is the same one: its predictions are kept and gone on with."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

import microtome as mt
from microtome.cohort import ingest, mask, tile, validate
from microtome.errors import ExistsError, ModelError
from microtome.image import MultiscaleImage
from microtome.prediction import predict_cohort

OPTIONS = {"name": "m", "tile_size": 64, "overlap": 16}
CLIPPING = "quantile_clipping/uq_0.99_image"


class Model:
    def __call__(self, batch):
        return np.asarray(batch)[:, :1]

    def embed(self, batch):
        return np.asarray(batch, np.float32).mean((2, 3))


@pytest.fixture
def cohort(tmp_path):
    """Two slides with tiles, and two images of channels with statistics."""
    root = tmp_path / "first" / "study"
    rng = np.random.default_rng(0)
    place = {"cohort": root, "mpp": 1.0, "resolution": 1.0}
    for tissue in "ab":
        slide = rng.integers(0, 255, (90, 80, 3), np.uint8)
        ingest(slide, axes="yxc", tissue_id=tissue, modality="he", **place)
        counts = rng.gamma(0.7, 60, (2, 90, 80)).astype(np.uint16)
        names = {"channel_names": ["DNA", "CD3"]}
        ingest(counts, axes="cyx", tissue_id=tissue, modality="imc", **names, **place)
    mask(root, method="whole")
    tile(root, tile_size=32)
    mt.stats(root, modality="imc", quantile_level="image")
    return root


def predict_all(root, **more):
    made = predict_cohort(Model(), root, modality="he", **OPTIONS, **more)
    options = {**OPTIONS, "name": "channels", "standardization": CLIPPING}
    made += predict_cohort(Model(), root, modality="imc", **options, **more)
    assert {path.name for path in made} == {
        "a.ome.zarr",
        "b.ome.zarr",
        "32_tile_embeddings.parquet",
    }
    return made


def contents(root):
    return {
        path.relative_to(root): path.read_bytes()
        for path in (root / "predictions").rglob("*")
        if path.is_file()
    }


def moved(root, to):
    root.rename(to)


def copied(root, to):
    shutil.copytree(root, to)


def copied_without_times(root, to):
    shutil.copytree(root, to)
    for path in to.rglob("*"):
        os.utime(path, (1e9, 1e9))


@pytest.mark.parametrize("how", [moved, copied, copied_without_times])
def test_what_was_predicted_is_kept(cohort, tmp_path, how):
    predict_all(cohort)
    before = contents(cohort)
    to = tmp_path / "elsewhere"
    how(cohort, to)
    predict_all(to)
    assert contents(to) == before
    assert [found for found in validate(to) if found.kind == "stale"] == []
    # Another setting is told, and nothing of where it lies.
    with pytest.raises(ExistsError) as caught:
        predict_cohort(Model(), to, modality="he", **{**OPTIONS, "overlap": 8})
    said = str(caught.value)
    assert "(overlap: [16, 16] then, [8, 8] now)" in said
    assert "source" not in said


def test_another_image_in_its_place_is_told(cohort, tmp_path):
    predict_all(cohort)
    to = tmp_path / "elsewhere"
    moved(cohort, to)
    slide = np.zeros((90, 80, 3), np.uint8)
    place = {"cohort": to, "mpp": 1.0, "resolution": 1.0, "overwrite": True}
    ingest(slide, axes="yxc", tissue_id="a", modality="he", **place)
    with pytest.raises(ExistsError, match=r"^1 of 2 .* an image that was replaced since"):
        predict_cohort(Model(), to, modality="he", **OPTIONS)


@pytest.mark.parametrize("how", [None, moved, copied_without_times])
def test_an_image_that_was_changed_in_place_is_told(cohort, tmp_path, how):
    predict_all(cohort)
    root = cohort
    if how is not None:
        root = tmp_path / "elsewhere"
        how(cohort, root)
    with MultiscaleImage.open(root / "he/1_0mpp/images/a.ome.zarr", "w") as image:
        image["level0"][:, :40, :] = 7
    with pytest.raises(ExistsError, match=r"^1 of 2 .*a\.ome\.zarr exists already"):
        predict_cohort(Model(), root, modality="he", **OPTIONS)


def test_a_run_that_was_cut_short_is_gone_on_with(tmp_path):
    root, to = tmp_path / "first", tmp_path / "elsewhere"
    pixels = np.random.default_rng(0).integers(0, 255, (1, 2100, 4200), np.uint8)
    ingest(
        pixels, axes="cyx", channel_names=["x"], cohort=root, tissue_id="a", modality="imc", mpp=1.0
    )
    options = {"name": "m", "tile_size": 700, "overlap": 0, "batch_size": 1}
    Failing.calls, Failing.fails_at = 0, 14
    with pytest.raises(ModelError):
        predict_cohort(Failing(), root, **options)
    root.rename(to)
    Failing.calls, Failing.fails_at = 0, 99
    predict_cohort(Failing(), to, **options)
    assert 0 < Failing.calls < 18
    made = mt.open_image(to / "predictions/1_0mpp/m/a.ome.zarr")
    np.testing.assert_array_equal(made.level(0)[...], pixels)


class Failing:
    """Fails once, where nobody looks who asks whether it is another model."""

    __slots__ = ()
    calls = 0
    fails_at = 0

    def __call__(self, batch):
        Failing.calls += 1
        if Failing.calls == Failing.fails_at:
            raise RuntimeError("no more")
        return np.asarray(batch)
