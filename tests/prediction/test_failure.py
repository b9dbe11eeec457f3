"""A model that fails on what it is shown: what it was, in our words, with its own in them."""

from __future__ import annotations

import traceback
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from microtome.cohort import HEImagingDataset, ingest, mask, tile
from microtome.errors import ExistsError, InvalidInputError, ModelError
from microtome.image import MultiscaleImage
from microtome.prediction import OnnxModel, embed_tiles, predict, predict_cohort, predict_instances

RNG = np.random.default_rng(0)
OPTIONS = {"tile_size": 64, "overlap": 16, "batch_size": 2}


class ThreeChannels:
    """A model of three channels, in NumPy."""

    def __call__(self, batch):
        if batch.shape[1] != 3:
            raise ValueError(f"three channels\n  wanted, {batch.shape[1]} given")
        return batch[:, :1]


def of_torch():
    torch = pytest.importorskip("torch")
    return torch.nn.Conv2d(3, 2, 3, padding=1)


@pytest.fixture
def image(stored):
    return stored(shape=(5, 90, 80))


def test_torch_is_quoted_and_what_it_was_shown_is_told(image, tmp_path):
    with pytest.raises(ModelError) as caught:
        predict(of_torch(), image, tmp_path / "p", **OPTIONS)
    said = str(caught.value)
    assert "Conv2d failed while predicting a batch from the tile at (row, col) (0, 0)" in said
    assert "2 tiles of 5 channels, (2, 5, 64, 64) uint8: RuntimeError: " in said
    assert "to have 3 channels, but got 5 channels instead" in said
    assert said.endswith("choose them with --channel (channels=)")
    assert str(image.uri) in said
    # torch's own is the cause, and who catches a RuntimeError as before catches this.
    assert type(caught.value.__cause__) is RuntimeError
    assert isinstance(caught.value, RuntimeError)
    assert not list(tmp_path.glob("*p*"))
    predict(of_torch(), image, tmp_path / "p", channels=[0, 2, 4], **OPTIONS)


def test_any_callable_is_told_of_on_one_line(image, tmp_path):
    for job in (predict, predict_instances):
        with pytest.raises(ModelError, match=r"ThreeChannels failed.*5 channels") as caught:
            job(ThreeChannels(), image, tmp_path / "p", **OPTIONS)
        assert "ValueError: three channels wanted, 5 given; if it" in str(caught.value)
        assert str(caught.value.__cause__) == "three channels\n  wanted, 5 given"


def test_what_comes_before_the_model_is_named(image, tmp_path):
    with pytest.raises(ModelError, match=r"ThreeChannels after numpy\.float32 failed"):
        predict(ThreeChannels(), image, tmp_path / "p", preprocess=np.float32, **OPTIONS)


def test_long_words_are_cut(image, tmp_path):
    def model(batch):
        raise RuntimeError("x" * 5000)

    with pytest.raises(ModelError, match=r"x{500,600}\.\.\.; ") as caught:
        predict(model, image, tmp_path / "p", **OPTIONS)
    assert len(str(caught.value)) < 1500


def test_of_memory_the_advice_is_another(image, tmp_path):
    def model(batch):
        raise MemoryError

    with pytest.raises(ModelError, match=r": MemoryError; take smaller tiles .*--batch-size"):
        predict(model, image, tmp_path / "p", **OPTIONS)


@pytest.mark.parametrize("error", [InvalidInputError("ours"), OSError("the device is gone")])
def test_errors_of_ours_and_of_the_machine_stay_what_they_are(image, tmp_path, error):
    def model(batch):
        raise error

    with pytest.raises(type(error)) as caught:
        predict(model, image, tmp_path / "p", **OPTIONS)
    assert caught.value is error
    assert "while predicting a batch from the tile at (row, col)" in error.__notes__[0]


def test_of_a_file_of_onnx_the_place_is_told_too(image, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper

    of = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, 3, 64, 64]) for n in "xy"]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", of[:1], of[1:])
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), tmp_path / "m.onnx")
    with pytest.raises(
        ModelError, match=r"takes \(any, 3, 64, 64\), .*got \(2, 5, 64, 64\)"
    ) as caught:
        predict(OnnxModel(tmp_path / "m.onnx"), image, tmp_path / "p", **OPTIONS)
    assert "while predicting a batch from the tile at" in str(caught.value)


# ------------------------------------------------------------------ over a cohort


def add(root, tissue, channels):
    pixels = RNG.integers(0, 255, (channels, 90, 80), dtype=np.uint8)
    names = [f"c{number}" for number in range(channels)]
    told = {"cohort": root, "tissue_id": tissue, "modality": "imc", "mpp": 1.0, "axes": "cyx"}
    ingest(pixels, channel_names=names, **told)


@pytest.fixture
def cohort(tmp_path):
    """Four tissues, of which two measured two channels more than the others."""
    root = tmp_path / "study"
    for tissue, channels in {"a": 5, "b": 3, "c": 5, "d": 3}.items():
        add(root, tissue, channels)
    return root


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("make", [of_torch, ThreeChannels])
def test_tissues_that_the_model_does_not_take_do_not_stop_the_others(cohort, make, threads):
    model = make()
    options = {"name": "m", "standardization": "stored", **OPTIONS}
    if threads:
        with ThreadPoolExecutor(threads) as executor, pytest.raises(ModelError) as caught:
            predict_cohort(model, cohort, executor=executor, **options)
    else:
        with pytest.raises(ModelError) as caught:
            predict_cohort(model, cohort, **options)
    said = str(caught.value)
    assert said.startswith("2 of 4 tissues are not predicted: a: ")
    assert "(2, 5, 64, 64) uint8" in said
    assert said.endswith("; and the model failed on c")
    assert type(caught.value.__cause__) in {RuntimeError, ValueError}
    assert "microtome" not in type(caught.value.__cause__).__module__
    made = cohort / "predictions/1_0mpp/m"
    assert sorted(path.name for path in made.iterdir()) == ["b.ome.zarr", "d.ome.zarr"]
    # With channels that all of them measured.
    predict_cohort(model, cohort, channels=["c0", "c1", "c2"], tissues=["a", "c"], **options)


def test_tissues_that_fail_and_tissues_that_are_there_are_both_told(cohort):
    options = {"name": "m", "standardization": "stored", **OPTIONS}
    predict_cohort(ThreeChannels(), cohort, tissues=["b"], **options)
    with pytest.raises(ModelError) as caught:
        predict_cohort(ThreeChannels(), cohort, **{**options, "overlap": 8})
    said = str(caught.value)
    assert said.startswith("3 of 4 tissues are not predicted: a: ")
    assert "b.ome.zarr exists already" in said
    assert "overlap: [16, 16] then, [8, 8] now" in said
    assert "--overwrite" in said
    assert MultiscaleImage.exists(cohort / "predictions/1_0mpp/m/d.ome.zarr")
    with pytest.raises(ExistsError):
        predict_cohort(ThreeChannels(), cohort, tissues=["b"], **{**options, "overlap": 8})


def test_vectors_too(tmp_path):
    root = tmp_path / "study"
    pixels = RNG.integers(0, 255, (90, 80, 3), dtype=np.uint8)
    ingest(pixels, cohort=root, tissue_id="a", modality="he", mpp=1.0, axes="yxc")
    mask(root, method="whole")
    tile(root, tile_size=32)

    class Model:
        def embed(self, batch):
            raise ValueError("no")

    tiles = HEImagingDataset("study", path=root, tile_size=32)
    with pytest.raises(
        ModelError, match=r"while embedding a batch from tile .* of tissue a"
    ) as caught:
        embed_tiles(Model(), tiles, tmp_path / "e.parquet")
    assert isinstance(caught.value.__cause__, ValueError)
    assert "ValueError: no" in "".join(traceback.format_exception(caught.value))
