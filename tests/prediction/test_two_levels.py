"""Predictions of standardized pixels where means of both levels are there: which they were of is noted."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import microtome as mt
from microtome.cohort import CohortLayout, ingest
from microtome.coordinates import Resolution
from microtome.errors import InvalidInputError
from microtome.prediction import predict_cohort

SHAPES = {"a": (90, 80), "b": (70, 101)}
NAME = "quantile_clipping/uq_0.99_image"
OPTIONS = {"name": "m", "tile_size": 64, "overlap": 16, "standardization": NAME}


def same(batch):
    return np.asarray(batch, np.float32)


def write_mask(root, tissue, inside):
    place = CohortLayout.open(root).tissue_mask(Resolution.parse(1.0), tissue)
    shutil.rmtree(place, ignore_errors=True)
    with mt.MultiscaleImage.create(
        place,
        type="uint8",
        level_shape=inside.shape,
        has_channel_axis=False,
        mpp=1.0,
        kind="labels",
    ) as made:
        made["level0"][...] = inside.astype(np.uint8)
        made.build_levels()


def ingest_into(root, tissue, seed):
    pixels = np.random.default_rng(seed).gamma(0.7, 60, (2, *SHAPES[tissue])).astype(np.uint16)
    place = {"cohort": root, "tissue_id": tissue, "modality": "imc", "mpp": 1, "resolution": 1}
    ingest(pixels, axes="cyx", channel_names=["CD3", "DNA"], overwrite=True, **place)


@pytest.fixture
def cohort(tmp_path):
    root = tmp_path / "study"
    for seed, (tissue, shape) in enumerate(SHAPES.items()):
        ingest_into(root, tissue, seed)
        write_mask(root, tissue, np.ones(shape, np.bool_))
    return root


def stats(root, level):
    mt.stats(root, modality="imc", quantile_level="image", stats_level=level, overwrite=True)


def stale(root, place="predictions/"):
    found = [each for each in mt.cohort.validate(root) if each.kind == "stale"]
    return [each for each in found if each.place.startswith(place)]


def change(root):
    inside = np.zeros(SHAPES["a"], np.bool_)
    inside[:30, :30] = True
    write_mask(root, "a", inside)


@pytest.mark.parametrize("level", ["image", "global"])
def test_the_level_is_noted_and_read(cohort, level):
    other = "image" if level == "global" else "global"
    stats(cohort, level)
    stats(cohort, other)
    with pytest.raises(InvalidInputError, match="both levels"):
        predict_cohort(same, cohort, **OPTIONS)
    paths = predict_cohort(same, cohort, stats_level=level, **OPTIONS)
    noted = mt.open_image(paths[0]).metadata["microtome"]["predicted_from"]
    assert noted["stats_level"] == level
    dataset = mt.MultiplexImagingDataset(
        "study", "imc", path=cohort, resolution=1.0, standardization=NAME, stats_level=level
    )
    np.testing.assert_array_equal(
        mt.open_image(paths[0]).level(0)[...],
        np.asarray(dataset.get_tissue("a", kind="complete").image),
    )
    assert stale(cohort) == []
    change(cohort)
    assert stale(cohort) == []
    stats(cohort, level)
    (found,) = stale(cohort)
    assert "predictions 'm' were made of other statistics of" in found.what


@pytest.mark.parametrize("level", ["image", "global"])
def test_the_only_level_there_is_noted_too(cohort, level):
    stats(cohort, level)
    paths = predict_cohort(same, cohort, **OPTIONS)
    assert mt.open_image(paths[0]).metadata["microtome"]["predicted_from"]["stats_level"] == level
    stats(cohort, "image" if level == "global" else "global")
    assert stale(cohort) == []
    change(cohort)
    stats(cohort, level)
    assert len(stale(cohort)) == 1


def test_of_an_earlier_one_that_notes_no_level_both_are_looked_at(cohort, monkeypatch):
    stats(cohort, "global")
    from microtome.prediction import _input

    monkeypatch.setattr(_input.CohortInput, "_level_of_means", lambda *_: None)
    paths = predict_cohort(same, cohort, **OPTIONS)
    assert "stats_level" not in mt.open_image(paths[0]).metadata["microtome"]["predicted_from"]
    stats(cohort, "image")
    assert stale(cohort) == []
    change(cohort)
    stats(cohort, "global")
    stats(cohort, "image")
    assert len(stale(cohort)) == 1


def test_the_advice_names_the_level_where_both_are_there(cohort):
    stats(cohort, "image")
    ingest_into(cohort, "a", 1)
    place = "imc/1_0mpp/standardization"
    (found,) = stale(cohort, place)
    assert "--stats-level" not in found.advice
    stats(cohort, "image")
    stats(cohort, "global")
    ingest_into(cohort, "a", 2)
    (found,) = stale(cohort, place)
    assert f"--method {NAME} --stats-level global`" in found.advice
