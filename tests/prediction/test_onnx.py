"""`OnnxModel`: a file is a model, checked by what it states of itself."""

from __future__ import annotations

import pickle
import sys

import numpy as np
import pytest
import scipy.ndimage

from microtome.errors import (
    DependencyError,
    InvalidInputError,
    ModelError,
    NotFoundError,
    UnknownNameError,
)
from microtome.prediction import OnnxModel, load_model, predict
from microtome.sources import open_image

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

KERNEL = np.array([[1, 2, 0], [0, 3, -1], [2, 0, 1]], np.float32)


@pytest.fixture
def written(tmp_path):
    """Write a model: nodes over the input "x", with the shapes and types that are asked for."""

    def make(nodes, outputs, shape=("n", 1, "h", "w"), kind="FLOAT", constants=(), inputs=("x",)):
        helper, number = onnx.helper, onnx.TensorProto
        graph = helper.make_graph(
            [helper.make_node(op, i, o, **options) for op, i, o, options in nodes],
            "small",
            [helper.make_tensor_value_info(n, getattr(number, kind), shape) for n in inputs],
            [
                helper.make_tensor_value_info(n, getattr(number, t), [f"{n}{a}" for a in range(r)])
                for n, t, r in outputs
            ],
            [onnx.numpy_helper.from_array(array, name) for name, array in constants],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.checker.check_model(model)
        path = tmp_path / "model.onnx"
        onnx.save(model, path)
        return path

    return make


@pytest.fixture
def convolution(written):
    def make(shape=("n", 1, "h", "w")):
        node = ("Conv", ["x", "k"], ["y"], {"pads": [1, 1, 1, 1]})
        return written([node], [("y", "FLOAT", 4)], shape, constants=[("k", KERNEL[None, None])])

    return make


def test_a_file_is_a_model_for_predict_and_gives_the_whole_image(convolution, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 4000, (1, 61, 70), np.uint16)
    made = predict(
        load_model(str(convolution())),
        open_image(pixels, axes="cyx", mpp=0.5),
        tmp_path / "p",
        tile_size=(20, 32),
        overlap=4,
        batch_size=3,
    )
    whole = scipy.ndimage.correlate(pixels[0].astype(np.float32), KERNEL, mode="constant")
    np.testing.assert_allclose(made["level0"][...][0], whole, rtol=1e-6)
    name = made.metadata["microtome"]["prediction"]["model"]
    assert name.startswith("onnx:model.onnx:y (crc32 ")


@pytest.mark.parametrize("fixed", [1, 2, 4])
def test_a_model_of_a_fixed_number_of_tiles_is_run_on_pieces(convolution, fixed):
    batch = np.random.default_rng(1).random((5, 1, 8, 9), np.float32)
    free = OnnxModel(convolution())(batch)
    assert free.shape == batch.shape
    np.testing.assert_allclose(OnnxModel(convolution((fixed, 1, 8, 9)))(batch), free, rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "given"),
    [("FLOAT16", "uint8"), ("FLOAT", "uint16"), ("DOUBLE", "int32"), ("INT32", "uint16")],
)
def test_a_batch_is_cast_to_what_the_model_takes(written, kind, given):
    model = OnnxModel(written([("Identity", ["x"], ["y"], {})], [("y", kind, 4)], kind=kind))
    batch = np.arange(16).reshape(1, 1, 4, 4).astype(given)
    made = model(batch)
    assert made.dtype == onnx.helper.tensor_dtype_to_np_dtype(getattr(onnx.TensorProto, kind))
    assert np.array_equal(made, batch)


def test_a_cast_that_loses_what_there_is_is_refused(written):
    model = OnnxModel(written([("Identity", ["x"], ["y"], {})], [("y", "UINT8", 4)], kind="UINT8"))
    with pytest.raises(InvalidInputError, match="uint8, which does not hold every uint16"):
        model(np.zeros((1, 1, 4, 4), np.uint16))
    kind = "FLOAT16"
    model = OnnxModel(written([("Identity", ["x"], ["y"], {})], [("y", kind, 4)], kind=kind))
    with pytest.raises(InvalidInputError, match="float16, which ends before 65535"):
        model(np.full((1, 1, 4, 4), 65535, np.uint16))


@pytest.mark.parametrize("shape", [(1, 2, 8, 8), (1, 1, 8, 9), (1, 8, 8), (0, 1, 8, 8)])
def test_a_batch_of_another_shape_is_refused(convolution, shape):
    model = OnnxModel(convolution(("n", 1, 8, 8)))
    with pytest.raises(ModelError, match=r"takes \(any, 1, 8, 8\)"):
        model(np.zeros(shape, np.float32))


def test_outputs_are_chosen_by_name(written):
    nodes = [("Neg", ["x"], ["minus"], {}), ("Abs", ["x"], ["size"], {})]
    path = written(nodes, [("minus", "FLOAT", 4), ("size", "FLOAT", 4)])
    batch = np.full((1, 1, 2, 2), -3, np.float32)
    assert (OnnxModel(path, output="size", input="x")(batch) == 3).all()
    again = pickle.loads(pickle.dumps(OnnxModel(path, output="size")))
    assert (again(batch) == 3).all()
    with pytest.raises(InvalidInputError, match="minus"):
        OnnxModel(path)
    with pytest.raises(UnknownNameError, match="no output 'depth'"):
        OnnxModel(path, output="depth")
    with pytest.raises(UnknownNameError, match="no input 'depth'"):
        OnnxModel(path, output="size", input="depth")


def test_what_is_no_model_of_one_batch_is_refused(written, convolution, tmp_path):
    two = written([("Add", ["x", "z"], ["y"], {})], [("y", "FLOAT", 4)], inputs=("x", "z"))
    with pytest.raises(InvalidInputError, match="takes 2 inputs"):
        OnnxModel(two)
    text = written([("Identity", ["x"], ["y"], {})], [("y", "STRING", 4)], kind="STRING")
    with pytest.raises(InvalidInputError, match=r"tensor\(string\)"):
        OnnxModel(text)
    with pytest.raises(UnknownNameError, match="NoSuchProvider"):
        OnnxModel(convolution(), providers=["NoSuchProvider"])
    with pytest.raises(NotFoundError):
        load_model(str(tmp_path / "absent.onnx"))
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x08\x01broken")
    with pytest.raises(InvalidInputError, match="no ONNX model"):
        OnnxModel(broken)


def test_a_model_that_fails_says_on_what(written):
    # Rows and columns that do not multiply: the shapes are free, so only the run finds out.
    path = written([("MatMul", ["x", "x"], ["y"], {})], [("y", "FLOAT", 4)])
    with pytest.raises(ModelError, match=r"failed on a batch of \(1, 1, 2, 3\) float32"):
        OnnxModel(path)(np.zeros((1, 1, 2, 3), np.float32))


def test_without_onnxruntime_the_extra_is_named(convolution, monkeypatch):
    path = convolution()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DependencyError, match=r"microtome\[onnx\]"):
        OnnxModel(path)
