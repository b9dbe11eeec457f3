"""Several images over an executor: the same as here, and a worker that dies loses only its own."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from microtome.errors import WorkerError
from microtome.image import MultiscaleImage
from microtome.jobs import process_pool
from microtome.prediction import predict

OPTIONS = {"tile_size": 64, "overlap": 4}


class DiesOnce:
    """Kills its process where no file says that it did so before."""

    def __init__(self, note):
        self.note = note

    def __call__(self, batch):
        # Only the second image has a pixel of 200.
        if batch.max() == 200 and not Path(self.note).exists():
            Path(self.note).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return batch


def test_processes_predict_the_same(stored, tmp_path):
    images = {name: stored(name=name, seed=seed) for seed, name in enumerate("xy")}
    told = []
    with process_pool(2) as executor:
        made = predict(
            np.negative,
            images,
            tmp_path / "out",
            executor=executor,
            progress=lambda *call: told.append(call),
            **OPTIONS,
        )
    assert told == [("images", 1, 2), ("images", 2, 2)]
    for name, image in images.items():
        np.testing.assert_array_equal(made[name]["level0"][...], -image["level0"][...])


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
def test_a_worker_that_is_killed_loses_no_finished_image(tmp_path):
    images = {}
    for name, value in (("a", 100), ("b", 200)):
        path = tmp_path / "images" / f"{name}.ome.zarr"
        with MultiscaleImage.create(path, type="uint8", level_shape=(1, 90, 70), mpp=0.5) as image:
            image["level0"][...] = np.full((1, 90, 70), value, np.uint8)
        images[name] = path
    model, out = DiesOnce(str(tmp_path / "died")), tmp_path / "out"
    with process_pool(1) as executor, pytest.raises(WorkerError):
        predict(model, images, out, executor=executor, **OPTIONS)
    assert MultiscaleImage.exists(out / "a.ome.zarr")
    assert not MultiscaleImage.exists(out / "b.ome.zarr")
    first = (out / "a.ome.zarr" / "zarr.json").stat().st_mtime_ns
    with process_pool(1) as executor:
        made = predict(model, images, out, executor=executor, **OPTIONS)
    assert [int(made[name]["level0"][...].min()) for name in "ab"] == [100, 200]
    # What was done is kept, and nothing of the dead worker is left.
    assert (out / "a.ome.zarr" / "zarr.json").stat().st_mtime_ns == first
    assert sorted(path.name for path in out.iterdir()) == ["a.ome.zarr", "b.ome.zarr"]
