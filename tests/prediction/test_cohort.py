"""A cohort's predictions: those that are there are of the same images, models and settings, or told."""

from __future__ import annotations

import logging
import re

import numpy as np
import pytest

from microtome.cohort import ingest, validate
from microtome.errors import ExistsError, InvalidInputError
from microtome.image import MultiscaleImage
from microtome.prediction import predict_cohort

RNG = np.random.default_rng(0)
OPTIONS = {"name": "m", "tile_size": 64, "overlap": 16}


def add(root, tissue, modality="he", shape=(90, 80, 3), **options):
    pixels = RNG.integers(0, 255, shape, dtype=np.uint8)
    axes = "yxc" if modality == "he" else "cyx"
    place = {"cohort": root, "tissue_id": tissue, "modality": modality, "mpp": 1.0}
    ingest(pixels, axes=axes, resolution=1.0, **place, **options)


@pytest.fixture
def cohort(tmp_path):
    root = tmp_path / "study"
    for tissue in "ab":
        add(root, tissue)
    return root


def written(paths):
    return {path.name: path.stat().st_mtime_ns for path in paths}


def test_again_only_what_is_missing_is_made(cohort):
    before = written(predict_cohort(np.positive, cohort, **OPTIONS))
    assert written(predict_cohort(np.positive, cohort, **OPTIONS)) == before
    add(cohort, "c")
    after = written(predict_cohort(np.positive, cohort, **OPTIONS))
    assert after.keys() - before.keys() == {"c.ome.zarr"}
    assert before.items() <= after.items()


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        pytest.param(np.negative, {}, "model", id="model"),
        pytest.param(np.positive, {"overlap": 8}, "overlap", id="settings"),
    ],
)
def test_a_prediction_with_other_settings_is_told(cohort, model, options, words):
    paths = predict_cohort(np.positive, cohort, **OPTIONS)
    with pytest.raises(ExistsError, match=words):
        predict_cohort(model, cohort, **{**OPTIONS, **options})
    pixels = MultiscaleImage.open(paths[0])["level0"][...]
    # Asked for, it takes their place.
    predict_cohort(np.invert, cohort, overwrite=True, **OPTIONS)
    np.testing.assert_array_equal(MultiscaleImage.open(paths[0])["level0"][...], ~pixels)


def test_a_prediction_of_another_image_is_told(cohort):
    predict_cohort(np.positive, cohort, **OPTIONS)
    add(cohort, "a", overwrite=True)
    with pytest.raises(ExistsError, match=r"a\.ome\.zarr"):
        predict_cohort(np.positive, cohort, **OPTIONS)
    predict_cohort(np.positive, cohort, tissues=["b"], **OPTIONS)


def test_one_that_is_refused_does_not_stop_the_others(cohort):
    paths = predict_cohort(np.positive, cohort, tissues=["a"], **OPTIONS)
    kept = MultiscaleImage.open(paths[0])["level0"][...]
    add(cohort, "a", overwrite=True)
    with pytest.raises(
        ExistsError, match=r"^1 of 2 tissues are not predicted: .*a\.ome\.zarr.*--overwrite"
    ):
        predict_cohort(np.positive, cohort, **OPTIONS)
    np.testing.assert_array_equal(MultiscaleImage.open(paths[0])["level0"][...], kept)
    assert MultiscaleImage.exists(paths[0].with_name("b.ome.zarr"))


def test_of_a_replaced_image_that_is_said_and_which_option_makes_it_again(cohort):
    paths = predict_cohort(np.positive, cohort, **OPTIONS)
    add(cohort, "a", overwrite=True)
    with pytest.raises(ExistsError) as caught:
        predict_cohort(np.positive, cohort, **OPTIONS)
    said = str(caught.value)
    assert "a.ome.zarr exists already and was made of an image that was replaced since" in said
    assert "settings" not in said
    assert "--overwrite" in said
    with pytest.raises(
        ExistsError, match=r"that was replaced since, and with other settings \(overlap"
    ):
        predict_cohort(np.positive, cohort, tissues=["a"], **{**OPTIONS, "overlap": 8})
    predict_cohort(np.positive, cohort, tissues=["a"], overwrite=True, **OPTIONS)
    assert predict_cohort(np.positive, cohort, **OPTIONS) == paths


def test_of_an_image_whose_pixels_were_changed_no_checksum_is_shown(cohort):
    predict_cohort(np.positive, cohort, **OPTIONS)
    with MultiscaleImage.open(cohort / "he/1_0mpp/images/a.ome.zarr", "w") as image:
        image["level0"][...] = 7
    with pytest.raises(ExistsError, match=r"\(the image has changed since, or its files") as caught:
        predict_cohort(np.positive, cohort, **OPTIONS)
    assert re.search("[0-9a-f]{32}", str(caught.value)) is None


def test_other_names_of_channels_are_other_settings(cohort):
    names = ["red", "green", "blue"]
    paths = predict_cohort(np.positive, cohort, channel_names=names, **OPTIONS)
    before = written(paths)
    for given in ({"channel_names": names}, {"channel_names": tuple(names)}, {}):
        assert written(predict_cohort(np.positive, cohort, **given, **OPTIONS)) == before
    with pytest.raises(
        ExistsError, match=r"channel_names: \['red', .* then, \['x', 'y', 'z'\] now"
    ):
        predict_cohort(np.positive, cohort, channel_names=["x", "y", "z"], **OPTIONS)
    assert written(paths) == before


def test_only_what_is_kept_is_said_to_be_there(cohort, caplog):
    caplog.set_level(logging.INFO, "microtome")
    predict_cohort(np.positive, cohort, **OPTIONS)
    assert "is there already" not in caplog.text
    add(cohort, "a", overwrite=True)
    caplog.clear()
    with pytest.raises(ExistsError):
        predict_cohort(np.positive, cohort, **OPTIONS)
    (said,) = (text for text in caplog.messages if text.endswith("is there already"))
    assert "b.ome.zarr" in said
    caplog.clear()
    with pytest.raises(ExistsError):
        predict_cohort(np.positive, cohort, **{**OPTIONS, "overlap": 8})
    assert "is there already" not in caplog.text


@pytest.mark.parametrize("overwrite", [False, True])
def test_progress_counts_the_tissues_of_the_cohort(cohort, overwrite):
    told = []
    options = {**OPTIONS, "overwrite": overwrite, "progress": lambda *call: told.append(call)}
    for _ in range(2):
        predict_cohort(np.positive, cohort, **options)
        assert [call for call in told if call[0] == "images"] == [
            ("images", 1, 2),
            ("images", 2, 2),
        ]
        told.clear()


def test_what_cannot_be_done_for_any_names_all(cohort):
    with pytest.raises(
        InvalidInputError, match=r"^2 of 2 .* predicted: a: .*overlap.*; b: "
    ) as caught:
        predict_cohort(np.positive, cohort, **{**OPTIONS, "overlap": 64})
    assert "1 of 1" not in str(caught.value)
    assert "a: a: " not in str(caught.value)


def test_a_prediction_that_outlived_its_image_is_told(cohort):
    def stale():
        return [each for each in validate(cohort) if each.kind == "stale"]

    mine = {"metadata": {"study": 7, "microtome": {"more": 1}}}
    paths = predict_cohort(np.positive, cohort, **OPTIONS, **mine)
    said = MultiscaleImage.open(paths[0]).metadata
    assert (said["study"], said["microtome"]["more"]) == (7, 1)
    assert stale() == []
    add(cohort, "a", overwrite=True)
    (found,) = stale()
    assert found.place == "predictions/1_0mpp/m"
    assert "predictions 'm' were made of another image of a, which" in found.what
    predict_cohort(np.positive, cohort, tissues=["a"], overwrite=True, **OPTIONS)
    assert stale() == []


def test_kinds_of_images_do_not_mix(cohort):
    add(cohort, "m", "imc", (2, 70, 60), channel_names=["x", "y"])
    with pytest.raises(InvalidInputError, match="imaged as he, imc, which no model takes alike"):
        predict_cohort(np.positive, cohort, **OPTIONS)
    names = [path.name for path in predict_cohort(np.positive, cohort, modality="imc", **OPTIONS)]
    assert names == ["m.ome.zarr"]
