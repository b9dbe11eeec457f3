"""A model that says which kind of images it is for is shown no others."""

from __future__ import annotations

import numpy as np
import pytest

from microtome.cohort import ingest
from microtome.errors import InvalidInputError
from microtome.prediction import TestTimeAugmentation, load_model, predict_cohort

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
