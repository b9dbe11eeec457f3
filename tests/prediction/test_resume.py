"""A run that is killed: the same call goes on, does no finished shard again, and ends the same."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from microtome.errors import BusyError, ExistsError, InvalidInputError
from microtome.image import MultiscaleImage
from microtome.prediction import predict
from microtome.prediction._workplace import Workplace
from microtome.sources import open_image
from microtome.tiling import plan_tiles

SHAPE, SIDE = (2500, 1030), 512
# More than 32 channels, so that shards are 512 pixels wide and there are many.
CHANNELS = 33

RUN = """
import sys, time
import numpy as np
from microtome.prediction import predict
from microtome.sources import open_image

log = open(sys.argv[2], "a")

def model(batch):
    time.sleep(0.002)
    log.write("call\\n")
    log.flush()
    return np.repeat(batch, 33, axis=1)

print("begun", flush=True)
predict(model, open_image(sys.argv[1]), sys.argv[3], tile_size=96, overlap=16, batch_size=1)
"""


def files_of(image):
    """All that is stored of an image, its attributes without what tells of run and model."""
    root = Path(image)
    found = {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }
    document = json.loads(found.pop("zarr.json"))
    record = document["attributes"]["microtome"]["prediction"]
    assert all(record.pop(key) for key in ("run", "settings", "model"))
    return found, document


def noted(folder):
    done = folder / ".p.predicting" / "done"
    lines = done.read_text().splitlines() if done.exists() else []
    return {tuple(map(int, line.split())) for line in lines}


def tiles_left(done):
    """How many tiles have a share of a shard that is not noted."""
    plan = plan_tiles(SHAPE, 96, 16)
    first = plan.stitch // SIDE
    last = (plan.stitch + plan.crop_size - 1) // SIDE
    left = 0
    for low, high in zip(first.tolist(), last.tolist(), strict=True):
        units = {(0, y, x) for y in range(low[0], high[0] + 1) for x in range(low[1], high[1] + 1)}
        left += not units <= done
    return left


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
def test_ten_kills_at_random_moments_change_nothing(stored, tmp_path):
    image = stored(shape=(1, *SHAPE))
    folder, log = tmp_path / "results", tmp_path / "log"
    folder.mkdir()
    whole = predict(
        lambda batch: np.repeat(batch, CHANNELS, axis=1),
        image,
        tmp_path / "undisturbed" / "p",
        tile_size=96,
        overlap=16,
        batch_size=1,
    )
    command = [sys.executable, "-c", RUN, image.uri, str(log), str(folder / "p")]
    moments = random.Random(5)
    for _ in range(10):
        left = tiles_left(noted(folder))
        log.write_text("")
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            calls = moments.randrange(1, 80)
            while process.poll() is None and log.read_text().count("\n") < calls:
                time.sleep(0.002)
            time.sleep(moments.uniform(0, 0.02))
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL, "it came to its end before it was killed"
        # Nothing half-done opens, and no tile of finished shards alone went through the model.
        assert not MultiscaleImage.exists(folder / "p")
        assert not any(MultiscaleImage.exists(path) for path in folder.iterdir())
        assert len(log.read_text().splitlines()) <= left
    done = noted(folder)
    assert done, "it was killed before the first shard each time; give it longer"
    log.write_text("")
    subprocess.run(command, check=True, capture_output=True)
    assert len(log.read_text().splitlines()) == tiles_left(done) < tiles_left(set())
    assert [path.name for path in folder.iterdir()] == ["p"]
    assert files_of(folder / "p") == files_of(whole.uri)


# The device's, not the model's: what a model holds decides which run may go on.
CALLS = {}
FAILS_AT = {}


class Failing:
    """Fails at its n-th call, as a full device does."""

    def __init__(self, at):
        FAILS_AT[id(self)], CALLS[id(self)] = at, 0

    @property
    def calls(self):
        return CALLS[id(self)]

    def __call__(self, batch):
        CALLS[id(self)] += 1
        if CALLS[id(self)] == FAILS_AT[id(self)]:
            raise RuntimeError("out of memory")
        return np.repeat(batch, CHANNELS, axis=1)


def failed(image, out, **options):
    model = Failing(150)
    with pytest.raises(RuntimeError):
        predict(model, image, out, **{"tile_size": 96, "overlap": 16, "batch_size": 1, **options})
    return model


@pytest.mark.parametrize("blend", ["crop", "linear", "gaussian", "none"])
def test_after_an_error_the_same_call_goes_on(stored, tmp_path, blend):
    image = stored(shape=(1, *SHAPE))
    options = {"tile_size": 96, "overlap": 16, "batch_size": 3, "blend": blend}
    whole = predict(Failing(0), image, tmp_path / "whole", **options)
    all_calls = -(-len(plan_tiles(SHAPE, 96, 16)) // 3)
    broken = Failing(75)
    with pytest.raises(RuntimeError, match="out of memory"):
        predict(broken, image, tmp_path / "p", **options)
    assert noted(tmp_path)
    again = Failing(0)
    made = predict(again, image, tmp_path / "p", **options)
    assert again.calls < all_calls
    for level in range(whole.level_count):
        np.testing.assert_array_equal(made.level(level)[...], whole.level(level)[...])


def test_batches_of_another_size_go_on(stored, tmp_path):
    image = stored(shape=(1, *SHAPE))
    whole = predict(Failing(0), image, tmp_path / "whole", tile_size=96, overlap=16, batch_size=2)
    failed(image, tmp_path / "p")
    again = Failing(0)
    made = predict(again, image, tmp_path / "p", tile_size=96, overlap=16, batch_size=4)
    assert again.calls < -(-len(plan_tiles(SHAPE, 96, 16)) // 4)
    np.testing.assert_array_equal(made["level0"][...], whole["level0"][...])
    # What is finished is the same prediction, too; formerly the size was noted.
    document = json.loads((tmp_path / "p" / "zarr.json").read_text())
    settings = document["attributes"]["microtome"]["prediction"]["settings"]
    assert "batch_size" not in settings
    settings["batch_size"] = 8
    (tmp_path / "p" / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(ExistsError, match="it is this prediction, finished"):
        predict(Failing(0), image, tmp_path / "p", tile_size=96, overlap=16, batch_size=1)


def test_other_settings_are_an_error_or_start_over(stored, tmp_path):
    image = stored(shape=(1, *SHAPE))
    failed(image, tmp_path / "p")
    with pytest.raises(ExistsError, match=r"blend: 'crop' then, 'linear' now.*resume=False"):
        failed(image, tmp_path / "p", blend="linear")
    assert noted(tmp_path)
    fresh = failed(image, tmp_path / "p", blend="linear", resume=False)
    assert fresh.calls == 150


def test_another_source_is_another_run(stored, tmp_path):
    image = stored(shape=(1, *SHAPE))
    failed(image, tmp_path / "p")
    with MultiscaleImage.open(image.uri, mode="w") as changed:
        changed["level0"][0, :5, :5] = np.zeros((5, 5), np.uint8)
    with pytest.raises(ExistsError, match="the image has changed since"):
        failed(MultiscaleImage.open(image.uri), tmp_path / "p")


def test_a_wrong_answer_is_not_gone_on_with(tmp_path):
    pixels = np.ones((1, *SHAPE), np.float32)
    pixels[0, -1, -1] = np.nan
    image = open_image(pixels, axes="cyx", mpp=1.0)
    with pytest.raises(InvalidInputError, match="NaN"):
        predict(lambda batch: batch.repeat(33, 1), image, tmp_path / "p", tile_size=96, overlap=16)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_died_while_tidying_up_is_finished(stored, tmp_path, monkeypatch):
    image = stored(shape=(1, 300, 200))

    def model(batch):
        return batch

    def died(self, *, keep):
        self._log.close()
        self._claim.release()

    monkeypatch.setattr(Workplace, "close", died)
    predict(model, image, tmp_path / "p", tile_size=64, overlap=8)
    assert noted(tmp_path)
    monkeypatch.undo()
    made = predict(model, image, tmp_path / "p", tile_size=64, overlap=8)
    np.testing.assert_array_equal(made["level0"][...], image["level0"][...])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "p"]
    with pytest.raises(ExistsError, match="choose another place"):
        predict(model, image, tmp_path / "p", tile_size=64, overlap=8)


def test_two_runs_do_not_write_to_one_place(stored, tmp_path):
    image = stored()

    def model(batch):
        with pytest.raises(BusyError, match="another process is predicting"):
            predict(lambda b: b, image, tmp_path / "p", tile_size=32, overlap=4)
        return batch

    predict(model, image, tmp_path / "p", tile_size=32, overlap=4)
