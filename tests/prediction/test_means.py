"""What has no mean, and what is no number, is not stored as if it were one."""

from __future__ import annotations

import numpy as np
import pytest

from microtome.errors import ExistsError, InvalidInputError
from microtome.prediction import predict
from microtome.sources import open_image

TILES = {"tile_size": 40, "overlap": 20}


def image_of(dtype="uint8"):
    pixels = np.random.default_rng(0).integers(0, 250, (1, 100, 100)).astype(dtype)
    return open_image(pixels, axes="cyx", mpp=1.0)


class Classes:
    """A model that says class 1 of one tile and class 5 of the next."""

    def __init__(self, dtype):
        self.dtype, self.tiles = dtype, 0

    def __call__(self, batch):
        answer = np.empty(batch.shape, self.dtype)
        for tile in answer:
            tile[...] = 1 + 4 * (self.tiles % 2)
            self.tiles += 1
        return answer


@pytest.mark.parametrize("blend", ["linear", "gaussian"])
@pytest.mark.parametrize("dtype", ["int32", "int64", "uint16", "bool"])
def test_classes_are_not_averaged(tmp_path, dtype, blend):
    with pytest.raises(InvalidInputError, match=r"has no meaning; use blend='crop'"):
        predict(Classes(dtype), image_of(), tmp_path / "p", blend=blend, **TILES)
    assert not list(tmp_path.iterdir())
    made = predict(Classes(dtype), image_of(), tmp_path / "p", blend="crop", **TILES)
    assert set(np.unique(made["level0"][...])) == ({1} if dtype == "bool" else {1, 5})


@pytest.mark.parametrize("blend", ["linear", "gaussian"])
def test_pixels_of_the_images_own_dtype_are(tmp_path, blend):
    image = image_of("uint16")
    made = predict(lambda batch: batch, image, tmp_path / "p", blend=blend, **TILES)
    np.testing.assert_array_equal(made["level0"][...], image.level(0)[...])


@pytest.mark.parametrize("value", [np.inf, -np.inf])
@pytest.mark.parametrize("blend", ["crop", "linear"])
def test_infinity_is_refused_by_place(tmp_path, value, blend):
    pixels = np.arange(100 * 100, dtype=np.uint16).reshape(1, 100, 100)
    image = open_image(pixels, axes="cyx", mpp=1.0)

    def model(batch):
        return np.where(batch == 7520, value, batch).astype(np.float32)

    told = r"returned infinity for the tile at \(row, col\) \(60, 0\) .*1 of"
    with pytest.raises(InvalidInputError, match=told):
        predict(model, image, tmp_path / "p", blend="crop", **TILES)
    with pytest.raises(InvalidInputError, match=r"returned infinity for the tile"):
        predict(model, image, tmp_path / "p", blend=blend, **TILES)
    made = predict(model, image, tmp_path / "p", allow_nan=True, **TILES)
    assert np.argwhere(np.isinf(made["level0"][...])).tolist() == [[0, 75, 20]]


@pytest.mark.parametrize("name", ["p.png", "p.npy", "p.PNG", "p.h5"])
def test_a_name_of_another_format_is_refused(tmp_path, name):
    def fails(batch):
        pytest.fail("the model was run")

    with pytest.raises(InvalidInputError, match=rf"call it {name}\.ome\.zarr"):
        predict(fails, image_of(), tmp_path / name, **TILES)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["plain", "p.zarr", "p.ome.zarr", "p_v1.2"])
def test_other_names_are_images(tmp_path, name):
    made = predict(lambda batch: batch, image_of(), tmp_path / name, **TILES)
    assert made.uri == str(tmp_path / name)


def test_overwriting_is_not_offered_where_it_is_refused(tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "file").touch()
    for overwrite in (False, True):
        with pytest.raises(ExistsError, match=r"no image; choose another place$"):
            predict(lambda batch: batch, image_of(), tmp_path / "p", overwrite=overwrite, **TILES)
    predict(lambda batch: batch, image_of(), tmp_path / "q", **TILES)
    with pytest.raises(ExistsError, match="it again with --overwrite"):
        predict(lambda batch: batch, image_of(), tmp_path / "q", **TILES)


def test_rows_and_columns_are_scaled_alike(tmp_path):
    def model(batch):
        return batch.repeat(2, axis=2)

    with pytest.raises(InvalidInputError, match="may both be the same whole number of times"):
        predict(model, image_of(), tmp_path / "p", **TILES)


def test_the_default_overlap_is_told_of(tmp_path):
    with pytest.raises(InvalidInputError, match=r"got \(64, 64\) with tiles .*give overlap= less"):
        predict(lambda batch: batch, image_of(), tmp_path / "p", tile_size=64)
