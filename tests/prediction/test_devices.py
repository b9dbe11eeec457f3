"""Several devices: copies of the model take turns, and the result is that of one, byte for byte."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

from microtome.errors import InvalidInputError
from microtome.jobs import process_pool
from microtome.prediction import TestTimeAugmentation, predict
from microtome.prediction._devices import in_turn

OPTIONS = {"tile_size": 32, "overlap": 8, "batch_size": 2}
CALLS = []


class Net(nn.Module):
    """Looks 2 pixels far, and notes which copy was called by which thread."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(3, 2, 5, padding=2)
        self.drop = nn.Dropout(0.5)

    def forward(self, batch):
        CALLS.append((id(self), threading.get_ident(), self.training))
        return self.drop(self.conv(batch))


@pytest.fixture(autouse=True)
def calls():
    CALLS.clear()
    return CALLS


def same(one, other):
    assert one.level_count == other.level_count
    for level in range(one.level_count):
        assert one.level(level)[...].tobytes() == other.level(level)[...].tobytes()


@pytest.mark.parametrize("blend", ["crop", "gaussian", "none"])
def test_batches_take_turns_and_give_what_one_device_gives(stored, tmp_path, calls, blend):
    image, model = stored(shape=(3, 170, 130)), Net().train()
    options = {**OPTIONS, "blend": blend}
    alone = predict(model, image, tmp_path / "alone", **options)
    total = len(calls)
    assert {name for name, *_ in calls} == {id(model)}
    calls.clear()
    made = predict(model, image, tmp_path / "both", devices=["cpu", "cpu"], **options)
    same(made, alone)
    counts = [[name for name, *_ in calls].count(one) for one in {name for name, *_ in calls}]
    # Two copies, neither of them the user's, which trains on.
    assert sorted(counts) == [total // 2, total - total // 2]
    assert id(model) not in {name for name, *_ in calls}
    assert len({thread for _, thread, _ in calls}) == 2
    assert not any(training for *_, training in calls)
    assert model.training


def test_images_are_spread_and_give_what_one_device_gives(stored, tmp_path, calls):
    images = {name: stored(name=name, seed=seed) for seed, name in enumerate("uvwxy")}
    alone = predict(Net(), images, tmp_path / "alone", **OPTIONS)
    calls.clear()
    told = []
    made = predict(
        Net(),
        images,
        tmp_path / "both",
        devices=["cpu", torch.device("cpu")],
        progress=lambda *call: told.append(call),
        **OPTIONS,
    )
    assert list(made) == list(images)
    for name in images:
        same(made[name], alone[name])
    assert len({name for name, *_ in calls}) == 2
    assert told == [("images", done, 5) for done in range(1, 6)]
    # What is there is kept, whatever the devices were.
    calls.clear()
    predict(Net(), images, tmp_path / "alone", devices=["cpu"], **OPTIONS)
    assert not calls


def test_a_model_that_makes_fewer_pixels_is_planned_again(stored, tmp_path):
    image, model = stored(), nn.AvgPool2d(4)
    alone = predict(model, image, tmp_path / "alone", **OPTIONS)
    same(predict(model, image, tmp_path / "both", devices=["cpu"] * 3, **OPTIONS), alone)


def test_augmentation_is_copied_with_its_model(stored, tmp_path, calls):
    image, model = stored(), TestTimeAugmentation(Net())
    alone = predict(model, image, tmp_path / "alone", **OPTIONS)
    calls.clear()
    same(predict(model, image, tmp_path / "both", devices=["cpu", "cpu"], **OPTIONS), alone)
    assert len({name for name, *_ in calls}) == 2


def test_after_an_error_any_devices_go_on(stored, tmp_path, calls):
    class Failing(Net):
        def forward(self, batch):
            if len(calls) >= limit:
                raise RuntimeError("out of memory")
            # More than 32 channels, so that shards are 512 pixels wide and there are several.
            return super().forward(batch).repeat(1, 17, 1, 1)

    image = stored(shape=(3, 1100, 100))
    limit = 1000
    whole = predict(Failing(), image, tmp_path / "whole", **OPTIONS)
    total = len(calls)
    calls.clear()
    limit = total * 3 // 4
    with pytest.raises(RuntimeError, match="out of memory") as caught:
        predict(Failing(), image, tmp_path / "p", devices=["cpu", "cpu"], **OPTIONS)
    assert "while predicting a batch from the tile at (row, col)" in str(caught.value)
    assert not [t.name for t in threading.enumerate() if t.name.startswith("microtome-device")]
    calls.clear()
    limit = 1000
    same(predict(Failing(), image, tmp_path / "p", **OPTIONS), whole)
    assert len(calls) < total


def test_what_cannot_be_spread_is_refused(stored, tmp_path):
    image = stored()
    for devices, message in (
        ([], r'devices must be a list of torch devices such as \["cuda:0", "cuda:1"\], got \[\]'),
        ("cpu", "devices must be a list"),
        (["nowhere"], "Net cannot be copied to the device 'nowhere'"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            predict(Net(), image, tmp_path / "p", devices=devices, **OPTIONS)
    with pytest.raises(InvalidInputError, match="devices are for torch modules"):
        predict(np.negative, image, tmp_path / "p", devices=["cpu"], **OPTIONS)
    with process_pool(1) as pool, pytest.raises(InvalidInputError, match="give one of them"):
        predict(Net(), [image], tmp_path / "p", devices=["cpu"], executor=pool, **OPTIONS)
    assert not (tmp_path / "p").exists()


# ------------------------------------------------------------------ turns


def test_results_come_in_order_and_at_most_two_wait_for_a_function():
    asked = []

    def items():
        for number in range(20):
            asked.append(number)
            yield number

    def slow(number):
        time.sleep(0.005)
        return number, "slow"

    def fast(number):
        return number, "fast"

    made = []
    for result in in_turn([slow, fast], items()):
        made.append(result)
        assert len(asked) - len(made) < 4
    assert made == [(number, ("slow", "fast")[number % 2]) for number in range(20)]


def test_closing_waits_for_what_is_under_way():
    begun, ended = [], []

    def work(number):
        begun.append(number)
        time.sleep(0.01)
        ended.append(number)
        return number

    results = in_turn([work, work], iter(range(100)))
    assert next(results) == 0
    results.close()
    assert len(begun) <= 4
    assert sorted(begun) == sorted(ended)
