"""What cannot be done is told before the first tile is predicted, and what is done already, of which settings."""

from __future__ import annotations

import numpy as np
import pytest

from microtome.errors import ExistsError, InvalidInputError, NoResolutionError, NotFoundError
from microtome.image import MultiscaleImage
from microtome.normalization import fit_normalization
from microtome.prediction import predict
from microtome.sources import open_image

TILES = {"tile_size": 32, "overlap": 4}


class Counting:
    """A model that returns what it gets, and counts the batches."""

    def __init__(self):
        self.batches = 0

    def __call__(self, batch):
        self.batches += 1
        return batch


def fails(batch):
    pytest.fail("the model was run")


@pytest.mark.parametrize("several", [list, lambda images: dict(zip("abcd", images, strict=True))])
def test_images_that_are_not_there_are_all_told_of_before_the_first_is_predicted(
    stored, tmp_path, several
):
    damaged = tmp_path / "damaged.ome.zarr"
    damaged.mkdir()
    images = [stored(), tmp_path / "x.ome.zarr", damaged, tmp_path / "y.tiff"]
    with pytest.raises(NotFoundError) as caught:
        predict(fails, several(images), tmp_path / "out", **TILES)
    told = str(caught.value)
    assert told.startswith("3 of 4 images cannot be predicted, and none was: ")
    for path in images[1:]:
        assert str(path) in told
    assert not (tmp_path / "out").exists()


def test_of_many_images_that_are_not_there_five_are_named(stored, tmp_path):
    images = [stored(), *(tmp_path / f"{number}.tiff" for number in range(9))]
    with pytest.raises(NotFoundError, match=r"^9 of 10 .*4\.tiff does not exist; and 4 more$"):
        predict(fails, images, tmp_path / "out", **TILES)


def test_an_image_without_a_pixel_size_among_others_is_told_of_first(stored, tmp_path):
    images = {"good": stored(), "bad": open_image(np.zeros((3, 40, 40), np.uint8), axes="cyx")}
    with pytest.raises(NoResolutionError, match=r"^1 of 2 images cannot be predicted.*: bad: "):
        predict(fails, images, tmp_path / "out", **TILES)
    with pytest.raises(InvalidInputError, match=r"overlap"):
        predict(fails, {"good": images["good"]}, tmp_path / "out", tile_size=16, overlap=16)
    assert not (tmp_path / "out").exists()


def test_an_image_that_is_opened_already_stays_open(stored, tmp_path):
    image = stored()
    predict(Counting(), [image], tmp_path / "out", **TILES)
    assert image.read(0, (0, 4), (0, 4)).shape == (3, 4, 4)


def test_a_normalization_is_no_function_but_has_one(stored, tmp_path):
    image = stored()
    normalization = fit_normalization("mean_std", [image])
    with pytest.raises(InvalidInputError, match=r"preprocess=normalization\.normalize$"):
        predict(fails, image, tmp_path / "p", preprocess=normalization, **TILES)
    with pytest.raises(InvalidInputError, match=r"postprocess=normalization\.denormalize$"):
        predict(fails, image, tmp_path / "p", postprocess=normalization, **TILES)
    with pytest.raises(InvalidInputError, match=r"postprocess must be a function .* got str"):
        predict(fails, image, tmp_path / "p", postprocess="softmax", **TILES)
    made = predict(
        lambda batch: batch,
        image,
        tmp_path / "p",
        preprocess=normalization.normalize,
        postprocess=normalization.denormalize,
        **TILES,
    )
    np.testing.assert_allclose(made.level(0)[...], image.level(0)[...], atol=1e-3)


@pytest.mark.parametrize("channels", [None, [0]])
def test_a_normalization_of_other_channels_is_refused_before_the_model_runs(
    stored, tmp_path, channels
):
    normalization = fit_normalization("mean_std", [stored((2, 40, 40), name="two")])
    image = stored()
    with pytest.raises(
        InvalidInputError, match=r"normalization of other channels than .*image\.ome"
    ):
        predict(
            fails,
            image,
            tmp_path / "p",
            preprocess=normalization.normalize,
            channels=channels,
            **TILES,
        )
    two = predict(
        Counting(),
        image,
        tmp_path / "p",
        preprocess=normalization.normalize,
        channels=[0, 2],
        **TILES,
    )
    assert two.nchannels == 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"tile_size": 16}, r"tile_size: \[32, 32\] then, \[16, 16\] now"),
        ({"overlap": 6}, r"overlap: \[4, 4\] then, \[6, 6\] now"),
        ({"blend": "linear"}, "blend: 'crop' then, 'linear' now"),
        ({"channels": [1]}, r"channels: \[0, 1, 2\] then, \[1\] now"),
        ({"preprocess": np.negative}, "preprocess: None then, "),
    ],
)
def test_a_finished_prediction_of_other_settings_says_which(stored, tmp_path, change, told):
    image, out = stored(), tmp_path / "p"
    predict(np.positive, image, out, **TILES)
    before = (out / "zarr.json").read_bytes()
    with pytest.raises(
        ExistsError,
        match=rf"{out} .*other settings \({told}.*replace it with --overwrite \(overwrite=True\)$",
    ) as caught:
        predict(np.positive, image, out, **{**TILES, **change})
    # Only what differs: `x: then, now`, once each.
    assert str(caught.value).count(" then, ") == 1
    assert (out / "zarr.json").read_bytes() == before
    predict(np.positive, image, out, **{**TILES, **change}, overwrite=True)
    assert (out / "zarr.json").read_bytes() != before


def test_a_finished_prediction_of_the_same_settings_says_so(stored, tmp_path):
    image, out = stored(), tmp_path / "p"
    predict(np.positive, image, out, **TILES)
    with pytest.raises(ExistsError, match="it is this prediction, finished; open it"):
        predict(np.positive, image, out, **TILES)
    # Of another image, or changed pixels.
    with pytest.raises(ExistsError, match="source: "):
        predict(np.positive, stored(name="other", seed=1), out, **TILES)


def test_of_several_what_is_finished_with_other_settings_is_no_result(stored, tmp_path):
    images = {"a": stored(name="a"), "b": stored(name="b")}
    out = tmp_path / "out"
    predict(np.positive, images, out, **TILES)
    note = out / "a.ome.zarr" / "zarr.json"
    first = note.stat().st_mtime_ns
    predict(np.positive, images, out, **TILES)
    assert note.stat().st_mtime_ns == first
    with pytest.raises(ExistsError, match=r"a\.ome\.zarr .*other settings \(tile_size: "):
        predict(np.positive, images, out, tile_size=16, overlap=4)


def test_an_image_that_is_no_prediction_is_refused_as_before(stored, tmp_path):
    image = stored()
    with pytest.raises(ExistsError, match="exists already and is an image"):
        predict(fails, image, stored(name="other").uri, **TILES)
    assert MultiscaleImage.exists(image.uri)
    opened = open_image(image.uri)
    assert opened.nchannels == 3


def test_what_a_killed_writer_left_but_for_its_last_step_is_in_nobodys_way(stored, tmp_path):
    out, image = tmp_path / "out.ome.zarr", stored()
    predict(Counting(), image, out, **TILES)
    whole = MultiscaleImage.open(out).level(0)[...]
    (out / "zarr.json").rename(out / "zarr.json.pending")
    predict(Counting(), image, out, **TILES)
    np.testing.assert_array_equal(MultiscaleImage.open(out).level(0)[...], whole)
    assert not (out / "zarr.json.pending").exists()
