"""`predict_instances`: the objects of the whole image, on disk, whatever the tiles and interruptions."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from typing import ClassVar

import numpy as np
import pytest
import scipy.ndimage
import skimage.feature
import skimage.measure
import skimage.segmentation
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.errors import BusyError, ExistsError, InvalidInputError, ModeError
from microtome.image import MultiscaleImage, halve_labels
from microtome.prediction import (
    InstanceStitcher,
    _instances_spool,
    iter_tile_batches,
    predict_instances,
    stitch_instances,
)
from microtome.prediction._instances_spool import InstanceWorkplace, Spool
from microtome.sources import open_image
from microtome.storage import Layout
from microtome.tiling import plan_tiles


def blobs(shape, seed=0, density=0.4, smooth=2):
    noise = scipy.ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), smooth)
    return (noise <= np.quantile(noise, density)).astype(np.uint8)


def connected(batch):
    """Connected pixels of the first channel of each tile."""
    return np.stack([skimage.measure.label(tile[0], connectivity=1) for tile in batch])


def image_of(pixels, mpp=0.5):
    return open_image(
        np.asarray(pixels)[None], axes="cyx" if np.ndim(pixels) == 2 else "czyx", mpp=mpp
    )


def level(image, index=0):
    return image.level(index)[...]


# ------------------------------------------------------------------ the same as on the whole


@settings(max_examples=20)
@given(
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    tile=st.tuples(st.integers(12, 48), st.integers(12, 48)),
    density=st.sampled_from([0.2, 0.5, 0.6]),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_connected_pixels_are_those_of_the_whole_image(
    tmp_path_factory, shape, tile, density, seed, data
):
    overlap = tuple(data.draw(st.integers(1, size - 6)) for size in tile)
    pixels = blobs(shape, seed, density, smooth=1)
    out = tmp_path_factory.mktemp("labels") / "cells"
    plan = plan_tiles(shape, tile, overlap)
    image = image_of(pixels)
    # Chunks of 16 in shards of 32: many shards, which tiles cross in every way.
    layout = Layout((16, 16), (32, 32), "labels")
    batches = [
        batch._replace(data=connected(batch.data))
        for batch in iter_tile_batches(image, plan, batch_size=3)
    ]
    random.Random(seed).shuffle(batches)
    with InstanceStitcher(out, image, plan, min_share=1e-9, layout=layout) as stitcher:
        for batch in batches:
            stitcher.add(batch)
        made = stitcher.finish()
    whole = skimage.measure.label(pixels, connectivity=1)  # numbered in raster order, too
    np.testing.assert_array_equal(level(made), whole)
    np.testing.assert_array_equal(level(made), stitch_instances(batches, min_share=1e-9))


@pytest.mark.parametrize("tile", [(3, 20, 24), (8, 16, 16), (1, 30, 30)])
def test_objects_of_planes_are_joined_along_all_axes(tmp_path, tile):
    pixels = blobs((7, 60, 50), smooth=1)
    overlap = tuple(min(4, size - 1) for size in tile)
    made = predict_instances(
        connected, image_of(pixels), tmp_path / "o", tile_size=tile, overlap=overlap, min_share=1e-9
    )
    assert made.axes == "zyx"
    if tile[0] > 1:
        whole = skimage.measure.label(pixels, connectivity=1)
    else:
        # Tiles of one plane share none: objects are those of each plane.
        planes = [skimage.measure.label(plane, connectivity=1) for plane in pixels]
        tops = np.cumsum([0, *(plane.max() for plane in planes)])
        whole = np.stack([np.where(p, p + top, 0) for p, top in zip(planes, tops, strict=False)])
    np.testing.assert_array_equal(level(made), whole)


def test_every_time_point_has_objects_of_its_own(tmp_path):
    pixels = np.stack([blobs((50, 60), seed) for seed in range(3)])
    image = open_image(pixels[:, None], axes="tcyx", mpp=0.5)
    made = predict_instances(
        connected, image, tmp_path / "o", tile_size=32, overlap=8, min_share=1e-9
    )
    top = 0
    for found, frame in zip(level(made), pixels, strict=True):
        whole = skimage.measure.label(frame, connectivity=1)
        np.testing.assert_array_equal(found, np.where(whole, whole + top, 0))
        top += whole.max()


def test_what_tiles_make_of_half_an_object_joins_nothing(tmp_path):
    # A model that calls all one object which it sees within 4 pixels of a tile's border.
    truth = np.kron(np.arange(1, 65).reshape(8, 8), np.ones((12, 12), np.int64)).astype(np.uint16)

    def short_sighted(batch):
        found = batch[:, 0].copy()
        inner = np.zeros(found.shape[1:], bool)
        inner[4:-4, 4:-4] = True
        found[:, ~inner] = 999
        return found

    # What is kept is 8 pixels off every border inside, and of the image's own border 4 are lost.
    made = predict_instances(
        short_sighted, image_of(truth), tmp_path / "o", tile_size=40, overlap=17
    )
    inner = level(made)[4:-4, 4:-4]
    assert len(np.unique(inner)) == 64
    pairs = np.unique(np.stack([inner.ravel(), truth[4:-4, 4:-4].ravel()]), axis=1)
    assert pairs.shape[1] == 64


def watershed(pixels):
    """Nuclei from their own brightness: which one a pixel is in, depends on some pixels around it."""
    smooth = scipy.ndimage.gaussian_filter(pixels.astype(np.float64), 2, truncate=2)
    peaks = (scipy.ndimage.maximum_filter(smooth, 7) == smooth) & (smooth > 1.2)
    markers, _ = scipy.ndimage.label(peaks, np.ones((3, 3)))
    return skimage.segmentation.watershed(-smooth, markers, mask=smooth > 1).astype(np.int32)


def in_raster_order(labels):
    """Number labels by their first pixels, in the slow way."""
    names = dict.fromkeys(labels.ravel().tolist())
    names.pop(0)
    table = np.zeros(labels.max() + 1, np.int64)
    table[list(names)] = np.arange(1, len(names) + 1)
    return table[labels]


@pytest.mark.parametrize("tile", [128, 256, 333])
def test_a_watershed_of_real_nuclei_is_that_of_the_whole_image(shared_data, tmp_path, tile):
    (path,) = (shared_data / "mibi").glob("fov8_RowNumber0*.tiff")
    image = open_image(path)
    nuclei = image.channel_names.index("HH3 (89)")
    whole = watershed(image.level(0).array.read(((nuclei, nuclei + 1), (0, 1024), (0, 1024)))[0])
    places = scipy.ndimage.find_objects(whole)
    largest = max(side.stop - side.start for place in places for side in place)
    assert whole.max() > 900
    made = predict_instances(
        lambda batch: np.stack([watershed(tile[0]) for tile in batch]),
        image,
        tmp_path / "nuclei",
        channels=["HH3 (89)"],
        tile_size=tile,
        overlap=largest + 1,
    )
    np.testing.assert_array_equal(level(made), in_raster_order(whole))
    assert made.mpp == image.mpp


# ------------------------------------------------------------------ what is written


def test_labels_say_what_they_are_and_have_a_pyramid_of_labels(stored, tmp_path):
    image = stored(shape=(2, 600, 500), mpp=(0.25, 0.5), translation=(3.0, 4.0))

    def model(batch):
        return connected(batch > 100)[:, None].astype(np.int64)

    out = tmp_path / "cells.ome.zarr"
    told = []
    made = predict_instances(
        model,
        image,
        out,
        tile_size=128,
        overlap=32,
        metadata={"study": "s"},
        progress=lambda *what: told.append(what),
    )
    assert (made.kind, made.axes, made.dtype) == ("labels", "yx", np.uint32)
    assert (made.mpp.y, made.mpp.x) == (0.25, 0.5)
    assert made.level(0).translation == (3.0, 4.0)
    assert made.level_count == 3
    np.testing.assert_array_equal(level(made, 1), halve_labels(level(made)))
    record = made.metadata["microtome"]["prediction"]
    assert record["source"] == image.uri
    assert (record["tile_size"], record["overlap"]) == ([128, 128], [32, 32])
    assert made.metadata["study"] == "s"
    stages = dict.fromkeys(stage for stage, _, _ in told)
    assert list(stages) == ["predict", "stitch", "pyramid"]
    tiles = [(done, total) for stage, done, total in told if stage == "predict"]
    assert tiles[-1] == (len(plan_tiles((600, 500), 128, 32)),) * 2
    # Nothing is left beside it.
    assert [path.name for path in tmp_path.iterdir() if path.name != "images"] == [out.name]


def test_labels_of_an_image_are_listed_in_it(stored, tmp_path):
    image = stored(shape=(1, 90, 80))
    before = open_image(image.uri).level(0)[...]
    for name in ("cells", "nuclei"):
        predict_instances(
            lambda batch: connected(batch > 100),
            image,
            f"{image.uri}/labels/{name}",
            tile_size=32,
            overlap=8,
        )
    again = predict_instances(
        lambda batch: connected(batch > 200),
        image,
        f"{image.uri}/labels/cells",
        tile_size=32,
        overlap=8,
        overwrite=True,
    )
    group = zarr.open_group(image.uri, mode="r")["labels"]
    assert group.attrs["ome"] == {"version": "0.5", "labels": ["nuclei", "cells"]}
    assert set(group.group_keys()) == {"cells", "nuclei"}  # a file that is none would be a warning
    np.testing.assert_array_equal(group["cells/0"][...], level(again))
    np.testing.assert_array_equal(open_image(image.uri).level(0)[...], before)
    import ngio

    label = ngio.open_ome_zarr_container(image.uri, mode="r").get_label("cells")
    np.testing.assert_array_equal(label.get_as_numpy(), level(again))


def test_tiles_without_tissue_are_background(stored, tmp_path):
    image = stored(shape=(1, 120, 200))
    mask = np.zeros((120, 200), bool)
    mask[:, :90] = True
    calls = []

    def model(batch):
        calls.extend(batch)
        return np.ones(batch[:, 0].shape, np.int32)

    made = predict_instances(model, image, tmp_path / "o", tile_size=40, overlap=10, mask=mask)
    plan = plan_tiles((120, 200), 40, 10)
    # Tiles that keep a column of tissue.
    kept = int((plan.stitch[:, 1] < 90).sum())
    assert 0 < len(calls) == kept < len(plan)
    edge = int((plan.stitch + plan.crop_size)[plan.stitch[:, 1] < 90, 1].max())
    expected = np.zeros((120, 200), np.uint32)
    expected[:, :edge] = 1
    np.testing.assert_array_equal(level(made), expected)
    assert made.metadata["microtome"]["prediction"]["skipped_tiles"] == len(plan) - kept


# ------------------------------------------------------------------ interruptions

RUN = """
import sys, time
import numpy as np, scipy.ndimage
from microtome.prediction import predict_instances
from microtome.sources import open_image

log = open(sys.argv[2], "a")

def model(batch):
    time.sleep(0.005)
    log.write("call\\n")
    log.flush()
    return np.stack([scipy.ndimage.label(tile[0] > 100)[0] for tile in batch])

print("begun", flush=True)
predict_instances(model, open_image(sys.argv[1]), sys.argv[3], tile_size=96, overlap=16, batch_size=2)
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
def test_kills_at_random_moments_change_nothing(stored, tmp_path):
    image = stored(shape=(1, 700, 640))
    folder, log = tmp_path / "results", tmp_path / "log"
    folder.mkdir()
    whole = predict_instances(
        lambda batch: connected(batch > 100),
        image,
        tmp_path / "w",
        tile_size=96,
        overlap=16,
        batch_size=2,
    )
    tiles = len(plan_tiles((700, 640), 96, 16))
    command = [sys.executable, "-c", RUN, image.uri, str(log), str(folder / "p")]
    moments = random.Random(5)
    calls = 0
    for _ in range(2):
        log.write_text("")
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            until = moments.randrange(2, 8)
            while process.poll() is None and log.read_text().count("\n") < until:
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL, "it came to its end before it was killed"
        calls += log.read_text().count("\n")
        assert not any(MultiscaleImage.exists(path) for path in folder.iterdir())
    log.write_text("")
    subprocess.run(command, check=True, capture_output=True)
    calls += log.read_text().count("\n")
    # Of every kill, no more is done twice than the batch that was under way.
    assert -(-tiles // 2) <= calls <= -(-tiles // 2) + 2
    assert [path.name for path in folder.iterdir()] == ["p"]
    made = MultiscaleImage.open(folder / "p")
    for index in range(whole.level_count):
        np.testing.assert_array_equal(level(made, index), level(whole, index))


class FailsAt:
    """A model that fails at a call; which one is not its own, so that a run is gone on with."""

    calls: ClassVar[list[int]] = []
    at: ClassVar[int] = 0

    def __call__(self, batch):
        FailsAt.calls.append(len(batch))
        if len(FailsAt.calls) == FailsAt.at:
            raise OSError("the device is gone")
        return connected(batch > 100)


def segment(image, out, **options):
    FailsAt.calls, FailsAt.at = [], options.pop("fails_at", 0)
    options = {"tile_size": 32, "overlap": 8, "batch_size": 1, **options}
    return predict_instances(FailsAt(), image, out, **options)


def test_a_run_goes_on_with_what_was_done(stored, tmp_path):
    image = stored(shape=(1, 90, 80))
    out = tmp_path / "o"
    whole = segment(image, tmp_path / "w")
    total = len(FailsAt.calls)
    with pytest.raises(OSError, match="gone") as caught:
        segment(image, out, fails_at=5)
    assert "while segmenting a batch from the tile at" in caught.value.__notes__[0]
    left = tmp_path / ".o.instances"
    assert left.exists()
    with pytest.raises(ExistsError, match=r"other settings .*overlap: \[8, 8\] then, \[6, 6\] now"):
        segment(image, out, overlap=6)
    # The last record was cut short: its tile is done again.
    left.write_bytes(left.read_bytes()[:-3])
    made = segment(image, out)
    assert len(FailsAt.calls) == total - 3
    np.testing.assert_array_equal(level(made), level(whole))
    assert not left.exists()
    with pytest.raises(OSError, match="gone"):
        segment(image, tmp_path / "again", fails_at=5)
    segment(image, tmp_path / "again", resume=False)
    assert len(FailsAt.calls) == total


def test_a_damaged_record_is_done_again(tmp_path):
    place = InstanceWorkplace(tmp_path / "o", {}, resume=True)
    facts = np.array([0, 0, 0, 0, 0, 4, 5, 0, 0, 4, 5, 3])
    pieces = [np.full((4, 5), number, np.uint16) for number in (1, 2, 3)]
    for piece in pieces:
        place.spool.append(facts, piece)
    with pytest.raises(BusyError, match="another process"):
        InstanceWorkplace(tmp_path / "o", {}, resume=True)
    place.close(keep=True)
    file = tmp_path / ".o.instances"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    again = InstanceWorkplace(tmp_path / "o", {}, resume=True)
    assert len(again.found) == len(again.spool) == 2
    again.spool.append(facts, pieces[2])
    for number, piece in enumerate(pieces):
        np.testing.assert_array_equal(again.spool.labels(number), piece)
    again.close(keep=False)
    assert not list(tmp_path.iterdir())
    # What is no file of ours is begun anew.
    file.write_text("something else")
    other = InstanceWorkplace(tmp_path / "o", {}, resume=True)
    assert not other.found
    other.close(keep=True)
    assert not list(tmp_path.iterdir())


def test_a_run_that_was_killed_while_tidying_up_has_come_to_its_end(stored, tmp_path, monkeypatch):
    image = stored(shape=(1, 60, 60))

    def killed(self, *, keep):
        self.spool.close()
        self._claim.release()

    monkeypatch.setattr(InstanceWorkplace, "close", killed)
    made = segment(image, tmp_path / "o")
    monkeypatch.undo()
    again = segment(image, tmp_path / "o")
    assert not FailsAt.calls
    np.testing.assert_array_equal(level(again), level(made))
    assert [path.name for path in tmp_path.iterdir() if path.name != "images"] == ["o"]


def test_memory_holds_some_tiles_and_the_file_the_others(tmp_path, monkeypatch):
    pieces = [np.full((30, 40), number, np.uint16) for number in range(20)]
    monkeypatch.setattr(_instances_spool, "_CACHE_BYTES", 3 * pieces[0].nbytes)
    spool = Spool.temporary(tmp_path / "o")
    for piece in pieces:
        spool.append(np.array([0, 0, 0, 0, 0, 30, 40, 0, 0, 30, 40, 20]), piece)
    for number in np.random.default_rng(0).integers(0, 20, 200).tolist():
        np.testing.assert_array_equal(spool.labels(number), pieces[number])
        assert len(spool._decoded) <= 3
    spool.close()
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------ what is refused


def test_what_is_no_labels_of_the_image_is_refused(stored, tmp_path):
    image = stored(shape=(2, 90, 80))
    for answer, told in (
        (lambda batch: batch, r"integers \(B, Y, X\) or \(B, 1, Y, X\).* got \(1, 2, 32, 32\)"),
        (lambda batch: batch[:, 0].astype(np.float32), "float32"),
        (lambda batch: connected(batch).astype(np.int64) - 5, r"got -5 from the tile at"),
    ):
        with pytest.raises(InvalidInputError, match=told):
            predict_instances(answer, image, tmp_path / "o", tile_size=32, overlap=8, batch_size=1)
        # A wrong answer is not gone on with.
        assert [path.name for path in tmp_path.iterdir()] == ["images"]
    with pytest.raises(InvalidInputError, match="overlap must be smaller"):
        segment(image, tmp_path / "o", overlap=32)
    with pytest.raises(InvalidInputError, match="min_share"):
        segment(image, tmp_path / "o", min_share=1.5)
    with pytest.raises(InvalidInputError, match="is the image that is predicted"):
        segment(image, image.uri, overwrite=True)
    segment(image, tmp_path / "o")
    with pytest.raises(ExistsError, match="exists already"):
        segment(image, tmp_path / "o")


def test_a_stitcher_wants_every_tile_once(stored, tmp_path):
    image = stored(shape=(1, 90, 80))
    plan = plan_tiles((90, 80), 32, 8)
    batches = [
        batch._replace(data=connected(batch.data > 100))
        for batch in iter_tile_batches(image, plan, batch_size=5)
    ]
    with InstanceStitcher(tmp_path / "o", image, plan) as stitcher:
        for batch in batches[1:]:
            stitcher.add(batch)
        assert stitcher.tiles_done == len(plan) - 5
        with pytest.raises(InvalidInputError, match="came before"):
            stitcher.add(batches[1])
        with pytest.raises(InvalidInputError, match="stitching needs every one"):
            stitcher.finish()
        with pytest.raises(ModeError, match="finished or discarded"):
            stitcher.add(batches[0])
    with InstanceStitcher(tmp_path / "o", image, plan) as stitcher:
        elsewhere = batches[0]._replace(source=["elsewhere"] * 5)
        stitcher.add(batches[1])
        with pytest.raises(InvalidInputError, match="is not of"):
            stitcher.add(elsewhere)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
