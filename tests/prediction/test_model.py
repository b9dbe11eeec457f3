"""What counts as a model, how it is run, and how it is found by name."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

from microtome.errors import DependencyError, InvalidInputError, NotFoundError, UnknownNameError
from microtome.prediction import load_model, predict
from microtome.prediction._model import model_name, running

MODULE = """
import numpy as np

class Net:
    def __call__(self, batch):
        return batch

class Greedy:
    def __init__(self, weights):
        self.weights = weights

def function(batch):
    return batch

class holder:
    inner = staticmethod(function)

number = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "own_models.py").write_text(MODULE)
    (tmp_path / "own_broken.py").write_text("import package_that_is_nowhere\n")
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("own_models", "own_broken", "own_package"):
        sys.modules.pop(name, None)


def test_a_class_is_instantiated_and_a_callable_is_used(module):
    assert type(load_model("own_models:Net")).__name__ == "Net"
    assert load_model("own_models:function")(5) == 5
    assert load_model("own_models:holder.inner")(5) == 5


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("resnet50", InvalidInputError, "'demo' or 'package.module:attribute', got 'resnet50'"),
        ("own_models:", InvalidInputError, "package.module:attribute"),
        (":Net", InvalidInputError, "package.module:attribute"),
        ("", InvalidInputError, "package.module:attribute"),
        ("weights.pt", InvalidInputError, "package.module:attribute"),
        ("no_such_module:Net", NotFoundError, "no module 'no_such_module'.*PYTHONPATH"),
        ("own_package.deeper:Net", NotFoundError, r"no module 'own_package\.deeper'"),
        ("own_broken:Net", DependencyError, "needs 'package_that_is_nowhere'"),
        ("own_models:Nat", UnknownNameError, "own_models has no 'Nat'"),
        ("own_models:holder.outer", UnknownNameError, r"has no 'holder\.outer'"),
        ("own_models:number", InvalidInputError, "3, which cannot be called"),
        ("own_models:Greedy", InvalidInputError, "without arguments .*weights"),
        ("own_models:holder", InvalidInputError, "cannot be called"),
    ],
)
def test_a_model_that_cannot_be_had_is_told(module, spec, error, message):
    with pytest.raises(error, match=message):
        load_model(spec)


def test_the_demo_model_says_what_it_needs_when_torch_is_missing():
    code = """
import sys
sys.modules["torch"] = None
from microtome.errors import DependencyError
from microtome.prediction import load_model, predict
try:
    load_model("demo")
except DependencyError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "the demo model needs torch; install microtome[torch]"


def test_the_room_loads_torch_only_for_a_model_of_torch():
    code = """
import json, sys, tempfile
import numpy as np
from microtome.prediction import predict
from microtome.sources import open_image
image = open_image(np.zeros((20, 20), np.uint8), mpp=1.0)
predict(lambda b: b, image, tempfile.mkdtemp() + "/p")
print(json.dumps("torch" in sys.modules))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) is False


def test_names_of_models():
    class Net:
        pass

    def function(batch, gain):
        return batch

    here = f"{__name__}.test_names_of_models.<locals>"
    assert model_name(Net()) == f"{here}.Net"
    assert model_name(function) == f"{here}.function"
    assert model_name(partial(function, gain=2)) == f"{here}.function"
    assert model_name(len) == "builtins.len"


def test_a_module_runs_in_evaluation_mode_and_is_put_back(stored, tmp_path):
    torch = pytest.importorskip("torch")
    seen = []

    class Spy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = torch.nn.Dropout(0.5)
            self.frozen = torch.nn.BatchNorm2d(3).eval()
            self.scale = torch.nn.Parameter(torch.tensor(2.0))

        def forward(self, batch):
            seen.append(
                (self.training, self.drop.training, batch.dtype, torch.is_inference_mode_enabled())
            )
            return self.drop(batch) * self.scale

    model = Spy()
    grads = []
    image = stored(dtype="uint16")
    made = predict(
        model,
        image,
        tmp_path / "p",
        tile_size=64,
        overlap=8,
        # Inference mode is the model's, not that of what the caller does between calls.
        progress=lambda *_: grads.append(torch.is_inference_mode_enabled()),
    )
    assert set(seen) == {(False, False, torch.float32, True)}
    assert set(grads) == {False}
    assert [m.training for m in (model, model.drop, model.frozen)] == [True, True, False]
    np.testing.assert_array_equal(made["level0"][...], image["level0"][...] * np.float32(2))

    with pytest.raises(InvalidInputError):
        predict(model, image, tmp_path / "q", preprocess=lambda b: torch.ones(1, 3, 7, 8))
    assert [m.training for m in (model, model.drop, model.frozen)] == [True, True, False]


def test_what_preprocess_returns_is_what_a_module_sees():
    torch = pytest.importorskip("torch")
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, batch):
            seen.append((batch.dtype, tuple(batch.shape)))
            return batch

    batch = np.ones((2, 3, 4, 5), np.uint8)
    for preprocess in (
        lambda b: torch.from_numpy(b).half(),
        lambda b: b.astype(np.float64),
        lambda b: b.transpose(0, 1, 3, 2),
    ):
        with running(Spy(), preprocess) as run:
            run(batch)
    assert seen == [
        (torch.float16, (2, 3, 4, 5)),
        (torch.float64, (2, 3, 4, 5)),
        (torch.uint8, (2, 3, 5, 4)),
    ]


def test_a_module_runs_where_its_parameters_are():
    torch = pytest.importorskip("torch")
    # The meta device computes nothing, and shows where things are on a machine without others.
    model = torch.nn.Conv2d(1, 1, 3, device="meta")
    with running(model) as run:
        answer = run(np.zeros((1, 1, 8, 8), np.uint16))
    assert answer.device.type == "meta"
    assert answer.shape == (1, 1, 6, 6)
