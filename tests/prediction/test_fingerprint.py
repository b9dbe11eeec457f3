"""What a run is gone on with: the same pixels, and a model that computes the same."""

from __future__ import annotations

import inspect
from functools import partial

import numpy as np
import pytest

from microtome.prediction import TestTimeAugmentation
from microtome.prediction._fingerprint import model_fingerprint, sees_batches, source_fingerprint
from microtome.regions import _fingerprint
from microtome.sources import open_image


@pytest.mark.parametrize("band", [1, 100, 10**9])
def test_every_pixel_in_memory_counts(monkeypatch, band):
    monkeypatch.setattr(_fingerprint, "_BAND_BYTES", band)
    pixels = np.random.default_rng(0).integers(0, 9, (2, 3, 8, 7), np.uint16)

    def told(array):
        return source_fingerprint(open_image(array, axes="tcyx", mpp=1.0), 0)

    before = told(pixels)
    assert told(pixels.copy()) == before
    for place in ((0, 0, 0, 0), (1, 2, 7, 6), (0, 1, 3, 3)):
        changed = pixels.copy()
        changed[place] += 1
        assert told(changed) != before
    assert told(pixels.reshape(2, 3, 7, 8)) != before


def test_files_count_by_size_and_time(stored):
    image, other = stored(name="a"), stored(name="b", seed=1)
    before = source_fingerprint(image, 0)
    assert source_fingerprint(open_image(image.uri), 0) == before
    assert source_fingerprint(other, 0) != before


def test_a_function_counts_by_its_code():
    def one(batch):
        return batch + 1

    def again(batch):
        return batch + 1

    def two(batch):
        return batch + 2

    assert model_fingerprint(one) == model_fingerprint(again) != model_fingerprint(two)
    assert model_fingerprint(lambda b: [x + 1 for x in b]) != model_fingerprint(
        lambda b: [x + 2 for x in b]
    )


def test_a_module_counts_by_its_weights():
    torch = pytest.importorskip("torch")
    layer = torch.nn.Conv2d(1, 1, 3)
    before = model_fingerprint(layer)
    assert model_fingerprint(layer) == before
    with torch.no_grad():
        layer.bias += 1
    assert model_fingerprint(layer) != before


class Holding:
    """A callable object that holds what it computes with."""

    def __init__(self, **held):
        self.__dict__.update(held)

    def __call__(self, batch):
        return batch


def test_what_a_callable_holds_counts():
    torch = pytest.importorskip("torch")
    layer = torch.nn.Conv2d(1, 1, 3)
    weights = np.arange(6.0)

    def closed(factor):
        return lambda batch: batch * factor

    def told():
        return [
            model_fingerprint(model)
            for model in (
                Holding(weights=weights),
                Holding(deeper={"list": [Holding(layer=layer)]}),
                TestTimeAugmentation(layer),
                partial(Holding(), weights),
                closed(weights),
                Holding(bound=Holding(weights=weights).__call__),
                Holding(objects=np.array([weights, None], object)),
            )
        ]

    before = told()
    assert told() == before
    assert len(set(before)) == len(before)
    weights[3] += 1
    with torch.no_grad():
        layer.bias += 1
    assert not set(told()) & set(before)


def test_numbers_and_names_that_a_callable_holds_count():
    assert model_fingerprint(Holding(scale=2)) != model_fingerprint(Holding(scale=3))
    assert model_fingerprint(Holding(scale=2)) != model_fingerprint(Holding(other=2))
    assert model_fingerprint(Holding(of={"b", "a"})) == model_fingerprint(Holding(of={"a", "b"}))


def test_what_holds_itself_is_described():
    ring = Holding(scale=1)
    ring.me = ring
    other = Holding(scale=2)
    other.me = other
    assert model_fingerprint(ring) != model_fingerprint(other)


def test_slots_count():
    class Slotted:
        __slots__ = ("scale", "unset")

        def __init__(self, scale):
            self.scale = scale

        def __call__(self, batch):
            return batch * self.scale

    assert model_fingerprint(Slotted(1)) == model_fingerprint(Slotted(1))
    assert model_fingerprint(Slotted(1)) != model_fingerprint(Slotted(2))


def test_a_ufunc_counts_by_its_name():
    found = model_fingerprint(np.positive)
    assert found != model_fingerprint(np.negative)
    inspect.signature(np.positive)
    assert model_fingerprint(np.positive) == found


def test_which_models_see_their_batch():
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 3), torch.nn.BatchNorm2d(1))
    held = {"deep": [net]}

    def closing_over(batch):
        return held["deep"][0](batch)

    class Holding:
        def __init__(self):
            self.itself, self.net, self.weights = self, net, np.zeros(3)

        def __call__(self, batch):
            return self.net(batch)

    callables = [closing_over, Holding(), partial(closing_over), Holding().__call__, net.forward]
    # Run by us, a module is in evaluation mode, within the mean over its turns as well.
    for model in (net, TestTimeAugmentation(net), np.negative, len, None, lambda batch: batch):
        assert not sees_batches(model)
    for model in callables:
        assert sees_batches(model)
    assert sees_batches(TestTimeAugmentation(closing_over))
    net.eval()
    assert not any(map(sees_batches, callables))
    net[1].train()
    assert all(map(sees_batches, callables))
