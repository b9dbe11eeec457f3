"""A model that says which kind of images it is for is shown no others."""

from __future__ import annotations

import numpy as np
import pytest

from microtome.cohort import ingest
from microtome.errors import InvalidInputError
from microtome.prediction import (
    TestTimeAugmentation,
    load_model,
    predict,
    predict_cohort,
    predict_instances,
)
from microtome.sources import open_image

pytest.importorskip("torch", reason="the extra `torch` is not installed")


@pytest.fixture
def cohort(tmp_path):
    """A slide, and three channels of fluorescence that could be taken for red, green and blue."""
    rng = np.random.default_rng(0)
    common = {"cohort": tmp_path / "c", "axes": "cyx", "mpp": 1.0, "resolution": 1.0}
    for tissue, modality, names in (
        ("slide", "he", None),
        ("vectra", "codex", ["DAPI", "FITC", "Cy3"]),
    ):
        pixels = rng.integers(1, 255, (3, 64, 64), np.uint8)
        ingest(pixels, tissue_id=tissue, modality=modality, channel_names=names, **common)
    return tmp_path / "c"


@pytest.mark.parametrize("turned", [False, True])
def test_the_demo_model_is_not_shown_fluorescence(cohort, turned):
    model = load_model("demo")
    asked = TestTimeAugmentation(model, 4) if turned else model
    with pytest.raises(InvalidInputError, match=r"is for H&E and IHC, and the images are codex"):
        predict_cohort(asked, cohort, name="demo", modality="codex")
    assert not (cohort / "predictions").exists()
    assert len(predict_cohort(asked, cohort, name="demo", modality="he", tile_size=128)) == 1


def test_a_model_that_says_nothing_takes_what_it_is_given(cohort):
    assert len(predict_cohort(np.abs, cohort, name="any", modality="codex")) == 1


def test_a_model_of_channels_is_not_shown_slides(cohort):
    class OfChannels:
        modality_kind = "multiplex"

        def __call__(self, batch):
            return batch

    with pytest.raises(InvalidInputError, match="is for multiplex images, and the images are he"):
        predict_cohort(OfChannels(), cohort, name="m", modality="he")
    assert len(predict_cohort(OfChannels(), cohort, name="m", modality="codex")) == 1


# ------------------------------------------------------------------ images by themselves


class OfSlides:
    modality_kind = "brightfield"

    def __call__(self, batch):
        return batch


class OfStains(OfSlides):
    modality_kind = "multiplex"


def one(names, dtype="uint8", channels=3):
    pixels = np.random.default_rng(0).integers(1, 255, (channels, 64, 64)).astype(dtype)
    return open_image(pixels, axes="cyx", mpp=1.0, channel_names=names)


def test_one_image_of_fluorescence_is_not_shown_either(tmp_path):
    image = one(["DAPI", "FITC", "Cy3"])
    for model in (load_model("demo"), OfSlides(), TestTimeAugmentation(OfSlides(), 4)):
        for given in (image, [image]):
            with pytest.raises(
                InvalidInputError, match=r"is for H&E and IHC, .* channels DAPI, FITC, Cy3 of array"
            ):
                predict(model, given, tmp_path / "p", tile_size=64, overlap=0)
    with pytest.raises(InvalidInputError, match="DAPI, FITC, Cy3"):
        predict_instances(OfSlides(), image, tmp_path / "i", tile_size=64, overlap=0)
    assert not list(tmp_path.iterdir())


def test_some_of_more_channels_are_looked_at(tmp_path):
    image = one(["red", "green", "blue", "DAPI"], channels=4)
    made = predict(OfSlides(), image, tmp_path / "p", channels=[0, 1, 2], tile_size=64, overlap=0)
    assert made.nchannels == 3
    with pytest.raises(InvalidInputError, match="channels green, blue, DAPI"):
        predict(OfSlides(), image, tmp_path / "q", channels=[1, 2, 3], tile_size=64, overlap=0)


@pytest.mark.parametrize(
    "names",
    [["R", "G", "B"], ["red", "green", "blue"], ["C:0", "C:1", "C:2"], ["channel 0", "1", "Ch2"]],
)
def test_colours_and_names_that_say_nothing_are_taken(tmp_path, names):
    made = predict(OfSlides(), one(names), tmp_path / "p", tile_size=64, overlap=0)
    assert made.nchannels == 3


def test_values_that_no_slide_has_are_told(tmp_path, caplog):
    predict(OfSlides(), one(["R", "G", "B"]), tmp_path / "p", tile_size=64, overlap=0)
    assert "0 to 255" not in caplog.text
    predict(OfSlides(), one(["R", "G", "B"], "uint16"), tmp_path / "q", tile_size=64, overlap=0)
    assert "values from 0 to 255, and array has uint16" in caplog.text


def test_a_slide_is_not_shown_to_a_model_of_channels(tmp_path):
    with pytest.raises(InvalidInputError, match="for multiplex images, and array is red, green"):
        predict(OfStains(), one(["R", "G", "B"]), tmp_path / "p", tile_size=64, overlap=0)
    image = one(["DAPI", "FITC", "Cy3"])
    assert predict(OfStains(), image, tmp_path / "p", tile_size=64, overlap=0).nchannels == 3
