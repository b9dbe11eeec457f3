"""A prediction as one OME-TIFF: the pixels of the OME-Zarr, whole or not at all, and gone on with."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from microtome.errors import BusyError, ExistsError, InvalidInputError
from microtome.image import MultiscaleImage
from microtome.prediction import _tiff, predict

OPTIONS = {"tile_size": 64, "overlap": 8}


def unchanged(batch):
    return batch


def names_in(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != "images")


@pytest.mark.parametrize("suffix", [".ome.tif", ".OME.TIFF"])
def test_the_file_holds_what_the_zarr_would(stored, tmp_path, suffix):
    image = stored(shape=(3, 1100, 700), dtype="uint16")
    zarr = predict(unchanged, image, tmp_path / "p.ome.zarr", tile_size=256, channel_names="abc")
    told = []
    made = predict(
        unchanged,
        image,
        tmp_path / f"p{suffix}",
        tile_size=256,
        channel_names="abc",
        progress=lambda what, done, total: told.append((what, done == total)),
    )
    assert made.uri == str(tmp_path / f"p{suffix}")
    # Read by another program than ours, and level by level.
    np.testing.assert_array_equal(tifffile.imread(made.uri), image["level0"][...])
    assert made.level_count == zarr.level_count > 1
    for level in range(zarr.level_count):
        np.testing.assert_array_equal(made.level(level)[...], zarr.level(level)[...])
    assert made.channel_names == ("a", "b", "c")
    assert (made.mpp.y, made.mpp.x, made.name) == (0.5, 0.5, "p")
    assert [what for what, last in told if last] == ["predict", "pyramid", "write"]
    assert names_in(tmp_path) == sorted(["p.ome.zarr", f"p{suffix}"])


class Failing:
    """Fails from its n-th call on."""

    calls = 0
    limit = 0

    def __call__(self, batch):
        type(self).calls += 1
        if type(self).calls > type(self).limit:
            raise RuntimeError("out of memory")
        return np.repeat(batch, 33, axis=1)  # so many that shards are small


@pytest.fixture
def counted():
    def model(limit=10**9):
        Failing.calls, Failing.limit = 0, limit
        return Failing()

    return model


def test_after_an_error_the_same_call_goes_on(stored, tmp_path, counted):
    image = stored(shape=(1, 1500, 300))
    options = {"tile_size": 96, "overlap": 16, "batch_size": 1}
    with pytest.raises(RuntimeError, match="out of memory"):
        predict(counted(45), image, tmp_path / "p.ome.tif", **options)
    assert names_in(tmp_path) == [".p.ome.tif.predicting"]
    with pytest.raises(ExistsError, match=r"overlap: .*resume=False"):
        predict(counted(), image, tmp_path / "p.ome.tif", **{**options, "overlap": 8})
    made = predict(counted(), image, tmp_path / "p.ome.tif", **options)
    again = Failing.calls
    whole = predict(counted(), image, tmp_path / "whole.ome.tif", **options)
    assert again < Failing.calls
    np.testing.assert_array_equal(made["level0"][...], whole["level0"][...])
    assert names_in(tmp_path) == ["p.ome.tif", "whole.ome.tif"]


def test_a_run_that_died_while_it_wrote_the_file_is_not_predicted_again(
    stored, tmp_path, monkeypatch, counted
):
    image = stored()

    def died(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(_tiff, "write_ome_tiff", died)
    with pytest.raises(KeyboardInterrupt):
        predict(counted(), image, tmp_path / "p.ome.tif", **OPTIONS)
    monkeypatch.undo()
    assert names_in(tmp_path) == [".p.ome.tif.predicting"]
    made = predict(counted(), image, tmp_path / "p.ome.tif", **OPTIONS)
    assert Failing.calls == 0
    np.testing.assert_array_equal(made["level0"][:3], np.repeat(image["level0"][...], 33, 0)[:3])
    assert names_in(tmp_path) == ["p.ome.tif"]


def test_a_run_that_died_while_tidying_up_is_finished(stored, tmp_path, monkeypatch, counted):
    image = stored()
    monkeypatch.setattr(_tiff.shutil, "rmtree", lambda *_, **__: None)
    predict(counted(), image, tmp_path / "p.ome.tif", **OPTIONS)
    monkeypatch.undo()
    assert names_in(tmp_path) == [".p.ome.tif.predicting", "p.ome.tif"]
    predict(counted(), image, tmp_path / "p.ome.tif", **OPTIONS)
    assert Failing.calls == 0
    assert names_in(tmp_path) == ["p.ome.tif"]
    with pytest.raises(ExistsError, match="choose another place or allow overwriting"):
        predict(counted(), image, tmp_path / "p.ome.tif", **OPTIONS)
    assert Failing.calls == 0
    predict(np.negative, image, tmp_path / "p.ome.tif", overwrite=True, **OPTIONS)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "p.ome.tif"), -image["level0"][...])


def test_two_runs_do_not_write_to_one_file(stored, tmp_path):
    image = stored()

    def model(batch):
        with pytest.raises(BusyError, match=r"another process is predicting .*p\.ome\.tif"):
            predict(unchanged, image, tmp_path / "p.ome.tif", **OPTIONS)
        return batch

    predict(model, image, tmp_path / "p.ome.tif", **OPTIONS)


def test_what_a_tiff_cannot_hold_is_refused_and_leaves_nothing(stored, tmp_path):
    image = stored()
    calls = []

    def doubtful(batch):
        calls.append(1)
        return batch.astype(np.int64)

    with pytest.raises(InvalidInputError, match="no name for int64, the type of what the model"):
        predict(doubtful, image, tmp_path / "p.ome.tif", batch_size=1, **OPTIONS)
    assert len(calls) == 1
    with pytest.raises(InvalidInputError, match=r"call it p\.ome\.tif"):
        predict(doubtful, image, tmp_path / "p.tif", **OPTIONS)
    with pytest.raises(InvalidInputError, match=r"no place for metadata=\['stain'\]"):
        predict(doubtful, image, tmp_path / "p.ome.tif", metadata={"stain": "HE"}, **OPTIONS)
    with pytest.raises(InvalidInputError, match="several images are predicted into a directory"):
        predict(doubtful, [image, image], tmp_path / "p.ome.tif", **OPTIONS)
    assert len(calls) == 1
    assert names_in(tmp_path) == []


def test_an_image_is_not_replaced_by_its_own_prediction(stored, tmp_path):
    source = predict(unchanged, stored(), tmp_path / "source.ome.tif", **OPTIONS)
    before = (tmp_path / "source.ome.tif").read_bytes()
    with pytest.raises(InvalidInputError, match="is the image that is predicted"):
        predict(np.negative, source.uri, source.uri, overwrite=True, **OPTIONS)
    assert (tmp_path / "source.ome.tif").read_bytes() == before
    assert not MultiscaleImage.exists(tmp_path / ".source.ome.tif.predicting")
