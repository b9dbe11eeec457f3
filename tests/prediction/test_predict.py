"""`predict`: the identity gives back the level, a local model the whole image, a failure nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.coordinates import Mpp
from microtome.errors import (
    ExistsError,
    InvalidInputError,
    NoResolutionError,
    NotFoundError,
    OutOfRangeError,
    UnknownNameError,
)
from microtome.image import Level, MemoryArray, MultiscaleImage
from microtome.prediction import _order, predict
from microtome.prediction._space import ArrayTarget
from microtome.sources import open_image


def unchanged(batch):
    return batch


def box_sum(batch):
    """The sum of 5 x 5 pixels, zeros outside; exact in int64."""
    return scipy.ndimage.convolve(
        batch.astype(np.int64), np.ones((1, 1, 5, 5), np.int64), mode="constant"
    )


@st.composite
def tilings(draw):
    tile = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    return tile, (draw(st.integers(0, tile[0] - 1)), draw(st.integers(0, tile[1] - 1)))


# ------------------------------------------------------------------ the identity


@settings(max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 90), st.integers(1, 90)),
    tiling=tilings(),
    batch=st.integers(1, 9),
    dtype=st.sampled_from(["uint8", "uint16", "int32", "float32", "float64"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_identity_gives_back_the_level_byte_for_byte(shape, tiling, batch, dtype, seed):
    tile, overlap = tiling
    raw = np.random.default_rng(seed).integers(0, 256, (*shape, np.dtype(dtype).itemsize), np.uint8)
    pixels = raw.view(dtype)[..., 0]
    if np.dtype(dtype).kind == "f":
        pixels = np.nan_to_num(pixels)
    image = open_image(pixels, axes="cyx", mpp=0.5)
    with tempfile.TemporaryDirectory() as folder:
        made = predict(
            unchanged, image, Path(folder) / "p", tile_size=tile, overlap=overlap, batch_size=batch
        )
        assert made.dtype == pixels.dtype
        assert made["level0"][...].tobytes() == pixels.tobytes()


@settings(max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 200), st.integers(1, 200)),
    tiling=tilings(),
    block_bytes=st.sampled_from([1, 600, 10**9]),
)
def test_blocks_of_every_size_read_the_same_pixels(shape, tiling, block_bytes):
    tile, overlap = tiling
    pixels = np.random.default_rng(0).integers(0, 2**16, shape, np.uint16)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / "image"
        with MultiscaleImage.create(path, type="uint16", level_shape=shape, mpp=1.0) as image:
            image["level0"][...] = pixels
        patch.setattr(_order, "_BLOCKS", (64, 32, 16))
        patch.setattr(_order, "_BLOCK_BYTES", block_bytes)
        image = MultiscaleImage.open(path)
        made = predict(unchanged, image, Path(folder) / "p", tile_size=tile, overlap=overlap)
        np.testing.assert_array_equal(made["level0"][...], pixels)


def test_a_torch_module_sees_float32_and_its_identity_returns_the_values(stored, tmp_path):
    torch = pytest.importorskip("torch")
    image = stored(dtype="uint16")
    made = predict(torch.nn.Identity(), image, tmp_path / "p", tile_size=32, overlap=7)
    assert made.dtype == np.float32
    np.testing.assert_array_equal(made["level0"][...], image["level0"][...].astype(np.float32))


def test_an_image_without_channels_has_one(stored, tmp_path):
    image = stored(shape=(45, 33))
    made = predict(unchanged, image, tmp_path / "p", tile_size=16, overlap=3)
    assert made.axes == "cyx"
    np.testing.assert_array_equal(made["level0"][...], image["level0"][...][None])


# ------------------------------------------------------------------ a model that looks around


@settings(max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 80), st.integers(1, 80)),
    tile=st.integers(5, 40),
    overlap=st.integers(4, 39),
)
def test_enough_overlap_gives_what_the_whole_image_gives(shape, tile, overlap):
    overlap = min(overlap, tile - 1)
    pixels = np.random.default_rng(1).integers(0, 1000, shape, np.int32)
    image = open_image(pixels, axes="cyx", mpp=0.5)
    with tempfile.TemporaryDirectory() as folder:
        made = predict(box_sum, image, Path(folder) / "p", tile_size=tile, overlap=overlap)
        np.testing.assert_array_equal(made["level0"][...], box_sum(pixels[None])[0])


def test_too_little_overlap_does_not(tmp_path):
    pixels = np.random.default_rng(1).integers(1, 1000, (1, 60, 60), np.int32)
    image = open_image(pixels, axes="cyx", mpp=0.5)
    made = predict(box_sum, image, tmp_path / "p", tile_size=20, overlap=3)
    assert (made["level0"][...] != box_sum(pixels[None])[0]).any()


def test_a_model_may_answer_in_one_buffer_again_and_again(stored, tmp_path):
    image = stored()
    buffer = np.empty((1, 3, 16, 16), np.uint8)

    def model(batch):
        buffer[...] = batch
        return buffer

    made = predict(model, image, tmp_path / "p", tile_size=16, overlap=5, batch_size=1)
    np.testing.assert_array_equal(made["level0"][...], image["level0"][...])


# ------------------------------------------------------------------ where the answer lies


@pytest.mark.parametrize("level", [0, 1, -1])
def test_the_answer_lies_where_the_level_lies(tmp_path, level):
    with MultiscaleImage.create(
        tmp_path / "i",
        type="uint8",
        level_shape=(2, 531, 397),
        mpp=(0.3, 0.7),
        translation=(5.1, -3),
    ) as image:
        image["level0"][...] = (
            np.arange(2 * 531 * 397, dtype=np.uint32).reshape(2, 531, 397).astype(np.uint8)
        )
        image.build_levels()
    image = MultiscaleImage.open(tmp_path / "i")
    chosen = image.level(level)
    made = predict(unchanged, image, tmp_path / "p", level=level, tile_size=100, overlap=31)
    first = made.level(0)
    assert first.scale == chosen.scale
    assert first.translation == chosen.translation
    assert made.mpp == Mpp(*chosen.scale[-2:], image.mpp.source)
    np.testing.assert_array_equal(first[...], chosen[...])
    # Levels further down agree in space with the source's, which were made by the same rule.
    assert [made.level(i).translation for i in range(made.level_count)] == [
        pytest.approx(image.level(i).translation)
        for i in range(level % image.level_count, image.level_count)
    ]


def test_a_foreign_level_that_is_no_power_of_two_keeps_its_own_numbers(tmp_path):
    fine, coarse = np.zeros((1, 90, 60), np.uint8), np.ones((1, 30, 19), np.uint8)
    levels = [
        Level("a", "a", MemoryArray(fine), "cyx", (1.0, 0.25, 0.26), (0.0, 0.1, 0.2)),
        Level("b", "b", MemoryArray(coarse), "cyx", (1.0, 0.7512, 0.8199), (0.0, 0.3, 0.4)),
    ]
    image = MultiscaleImage(levels, uri="x", channel_names=["a"], mpp=Mpp(0.25, 0.26, "tag"))
    made = predict(unchanged, image, tmp_path / "p", level=1, tile_size=16, overlap=2)
    assert made.level(0).scale == (1.0, 0.7512, 0.8199)
    assert made.level(0).translation == (0.0, 0.3, 0.4)
    assert made.mpp.source == "tag"


def test_what_was_done_is_written_down(stored, tmp_path):
    image = stored()
    done = predict(
        unchanged,
        image,
        tmp_path / "p",
        tile_size=(32, 16),
        overlap=5,
        level=-1,
        metadata={"study": "x", "microtome": {"cohort": "c"}},
    ).metadata
    assert done["study"] == "x"
    assert done["microtome"]["cohort"] == "c"
    record = done["microtome"]["prediction"]
    assert record.pop("version")
    assert record.pop("run")
    assert record.pop("settings")
    assert record == {
        "source": image.uri,
        "level": 0,
        "tile_size": [32, 16],
        "overlap": [5, 5],
        "blend": "crop",
        "model": f"{__name__}.unchanged",
    }


def test_channels_in_and_names_out(stored, tmp_path):
    image = stored(channel_names=["CD3", "CD8", "DNA"])
    made = predict(
        unchanged,
        image,
        tmp_path / "p",
        tile_size=32,
        overlap=8,
        channels=["DNA", "CD3"],
        channel_names=["nucleus", "t"],
    )
    assert made.channel_names == ("nucleus", "t")
    np.testing.assert_array_equal(made["level0"][...], image["level0"][...][[2, 0]])


def test_a_model_may_name_its_channels(stored, tmp_path):
    class Named:
        channel_names = ("sum",)

        def __call__(self, batch):
            return batch.sum(1, keepdims=True, dtype=np.float32)

    made = predict(Named(), stored(), tmp_path / "p", tile_size=32, overlap=8)
    assert made.channel_names == ("sum",)
    assert made.metadata["microtome"]["prediction"]["model"].endswith("Named")


def test_preprocess_decides_what_the_model_sees(stored, tmp_path):
    image = stored()
    seen = set()

    def model(batch):
        seen.add(batch.dtype)
        return batch

    made = predict(
        model,
        image,
        tmp_path / "p",
        tile_size=32,
        overlap=8,
        preprocess=lambda batch: (batch / 255).astype(np.float32),
    )
    assert seen == {np.dtype(np.float32)}
    np.testing.assert_array_equal(
        made["level0"][...], (image["level0"][...] / 255).astype(np.float32)
    )


def test_booleans_are_stored_as_bytes(stored, tmp_path):
    image = stored()
    made = predict(lambda batch: batch > 99, image, tmp_path / "p", tile_size=32, overlap=8)
    assert made.dtype == np.uint8
    np.testing.assert_array_equal(made["level0"][...], image["level0"][...] > 99)


# ------------------------------------------------------------------ writing


def test_every_shard_is_written_once_and_whole(tmp_path, monkeypatch):
    pixels = np.random.default_rng(2).integers(0, 255, (2, 2500, 4200), np.uint8)
    image = open_image(pixels, axes="cyx", mpp=0.5)
    written = []
    put = ArrayTarget.put

    def counted(self, box, values):
        if self.array.path.name == "0":
            written.append(box)
        return put(self, box, values)

    monkeypatch.setattr(ArrayTarget, "put", counted)
    made = predict(unchanged, image, tmp_path / "p", tile_size=300, overlap=41, batch_size=7)
    np.testing.assert_array_equal(made["level0"][...], pixels)
    expected = {
        ((0, 2), (y, min(y + 2048, 2500)), (x, min(x + 2048, 4200)))
        for y in (0, 2048)
        for x in (0, 2048, 4096)
    }
    assert len(written) == len(expected)
    assert set(written) == expected


def test_progress_counts_tiles_and_then_the_pyramid(stored, tmp_path):
    calls = []
    predict(
        unchanged,
        stored(shape=(1, 300, 200)),
        tmp_path / "p",
        tile_size=64,
        overlap=8,
        batch_size=4,
        progress=lambda *call: calls.append(call),
    )
    # ceil((300 - 8) / 56) x ceil((200 - 8) / 56)
    tiles = [call for call in calls if call[0] == "predict"]
    assert tiles == [("predict", done, 24) for done in range(4, 25, 4)]
    assert [call[0] for call in calls[len(tiles) :]] == ["pyramid"] * (len(calls) - len(tiles))
    assert calls[-1] == ("pyramid", calls[-1][2], calls[-1][2])


# ------------------------------------------------------------------ failures


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("at", [1, 3])
def test_a_failure_leaves_nothing(stored, tmp_path, error, at):
    image = stored()
    calls = []

    def model(batch):
        calls.append(batch)
        if len(calls) == at:
            raise error("out of memory")
        return batch

    folder = tmp_path / "results"
    folder.mkdir()
    with pytest.raises(error) as raised:
        predict(model, image, folder / "p", tile_size=16, overlap=4, batch_size=2)
    assert list(folder.iterdir()) == []
    assert not [t for t in threading.enumerate() if t.name.startswith("microtome-read")]
    if error is RuntimeError:
        assert "while predicting a batch from the tile at (row, col)" in str(raised.value)


def test_a_failure_keeps_what_was_to_be_overwritten(stored, tmp_path):
    image = stored()
    before = predict(unchanged, image, tmp_path / "p", tile_size=32, overlap=4)["level0"][...]
    with pytest.raises(InvalidInputError):
        predict(
            lambda b: b[:, :, 1:], image, tmp_path / "p", tile_size=32, overlap=4, overwrite=True
        )
    np.testing.assert_array_equal(MultiscaleImage.open(tmp_path / "p")["level0"][...], before)
    with pytest.raises(ExistsError):
        predict(unchanged, image, tmp_path / "p", tile_size=32, overlap=4)
    after = predict(
        lambda b: 255 - b, image, tmp_path / "p", tile_size=32, overlap=4, overwrite=True
    )
    np.testing.assert_array_equal(after["level0"][...], 255 - before)
    assert [path.name for path in tmp_path.iterdir() if "p" in path.name] == ["p"]


KILLED = """
import os, signal, sys, time
import numpy as np
from microtome.prediction import predict
from microtome.sources import open_image

calls = []
def model(batch):
    calls.append(1)
    if len(calls) == 49:
        time.sleep(0.5)  # the shard that is complete is being written
        os.kill(os.getpid(), signal.SIGKILL)
    return batch

pixels = np.ones((1, 2300, 2300), np.uint8)
predict(model, open_image(pixels, axes="cyx", mpp=1.0), sys.argv[1], tile_size=256, overlap=16, batch_size=2)
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
def test_a_killed_run_leaves_nothing_that_opens_and_the_next_one_tidies_up(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "p")], capture_output=True, check=False
    )
    assert ran.returncode == -9, ran.stderr
    # A shard was written by then, so this is not a test of an empty folder.
    left = list(tmp_path.iterdir())
    assert [file for path in left for file in path.rglob("c/**/*") if file.is_file()]
    assert not any(MultiscaleImage.exists(path) for path in left)
    image = open_image(np.ones((1, 40, 40), np.uint8), axes="cyx", mpp=1.0)
    # It is told what was left, and what differs, before anything is thrown away.
    with pytest.raises(ExistsError, match=r"other settings was left.*overlap: .*resume=False"):
        predict(unchanged, image, tmp_path / "p", tile_size=32, overlap=4)
    predict(unchanged, image, tmp_path / "p", tile_size=32, overlap=4, resume=False)
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda b: b[..., 1:], r"return \(8, C, 32, 32\) for a batch of 8, got \(8, 3, 32, 31\)"),
        (lambda b: b[:-1], r"got \(7, 3, 32, 32\)"),
        (lambda b: b[0], r"got \(3, 32, 32\)"),
        (lambda b: b[:, :0], "returned no channel"),
        (lambda b: b.astype(complex), "complex128"),
        (lambda b: {"map": b}, r"got dict \(object\)"),
        (lambda b: (b, b[:, :1]), "one array"),
        (lambda b: None, "NoneType"),
        (lambda b: b[:, : 1 + len(b) % 2], "returned 2 channels of uint8 from .*before that 1 of"),
        (lambda b: b if len(b) == 8 else b.astype(float), "float64 from .*before that 3 of uint8"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused(stored, tmp_path, model, message):
    # 5 x 3 tiles: batches of 8 and 7.
    image = stored(shape=(3, 140, 80))
    with pytest.raises(InvalidInputError, match=message):
        predict(model, image, tmp_path / "p", tile_size=32, overlap=4)
    assert not (tmp_path / "p").exists()


def test_a_wrong_shape_names_the_tile(stored, tmp_path):
    image = stored()
    with pytest.raises(
        InvalidInputError, match=r"\(row, col\) \(0, 0\) of \(16, 16\) pixels in .*image"
    ):
        predict(lambda b: b[..., ::2], image, tmp_path / "p", tile_size=16, overlap=4)


def not_a_number_at(row, col):
    """A model that returns NaN for one pixel of the image, whose values say where they lie."""

    def model(batch):
        out = batch.astype(np.float32)
        out[batch == row * 100 + col] = np.nan
        return out

    return model


def test_nan_is_refused_by_place(tmp_path):
    pixels = np.arange(100 * 100, dtype=np.uint16).reshape(1, 100, 100)
    image = open_image(pixels, axes="cyx", mpp=1.0)
    model = not_a_number_at(75, 20)
    with pytest.raises(
        InvalidInputError, match=r"NaN for the tile at \(row, col\) \(60, 0\) .*1 of"
    ):
        predict(model, image, tmp_path / "p", tile_size=40, overlap=20)
    made = predict(model, image, tmp_path / "p", tile_size=40, overlap=20, allow_nan=True)
    assert np.argwhere(np.isnan(made["level0"][...])).tolist() == [[0, 75, 20]]


def test_nan_in_a_part_that_is_not_kept_does_not_matter(tmp_path):
    image = open_image(np.ones((1, 100, 100), np.float32), axes="cyx", mpp=1.0)

    def model(batch):
        out = batch.copy()
        # A zero-padded edge, of a tile that hangs over or lies inside, gives what it gives.
        out[..., -1, :] = np.nan
        return out

    with pytest.raises(InvalidInputError, match="NaN"):
        predict(model, image, tmp_path / "p", tile_size=50, overlap=20)
    small = open_image(np.ones((1, 30, 30), np.float32), axes="cyx", mpp=1.0)
    made = predict(model, small, tmp_path / "p", tile_size=50, overlap=20)
    assert (made["level0"][...] == 1).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"overlap": 64, "tile_size": 64}, InvalidInputError, "overlap"),
        ({"batch_size": 0}, InvalidInputError, "batch_size must be at least 1, got 0"),
        ({"channels": []}, InvalidInputError, "leaves none of the 3 channels"),
        ({"channels": ["CD3"]}, UnknownNameError, "CD3"),
        ({"level": 9}, OutOfRangeError, "no level 9"),
        ({"channel_names": ["a"]}, InvalidInputError, "1 channel names"),
    ],
)
def test_a_wrong_request_is_refused(stored, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        predict(unchanged, stored(), tmp_path / "p", **options)
    assert not (tmp_path / "p").exists()


def never(batch):
    raise AssertionError("the model ran although the request was wrong")


def test_something_that_is_there_is_refused_before_the_model_runs(stored, tmp_path):
    image = stored()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("mine")
    for name in ("file", "folder"):
        for overwrite in (False, True):
            with pytest.raises(ExistsError, match="no image"):
                predict(never, image, tmp_path / name, overwrite=overwrite)
    assert (tmp_path / "folder" / "thesis.txt").read_text() == "mine"
    with pytest.raises(InvalidInputError, match="the image that is predicted"):
        predict(never, image, image.uri, overwrite=True)


def test_an_image_that_cannot_be_predicted_is_refused(tmp_path):
    deep = open_image(np.zeros((1, 3, 20, 20), np.uint8), axes="czyx", mpp=1.0)
    with pytest.raises(InvalidInputError, match="tile_size"):
        predict(never, deep, tmp_path / "p", tile_size=(16, 16))
    nowhere = open_image(np.zeros((20, 20), np.uint8))
    with pytest.raises(NoResolutionError, match="mpp"):
        predict(never, nowhere, tmp_path / "p")
    with pytest.raises(NotFoundError, match=r"slide\.svs does not exist"):
        predict(never, "slide.svs", tmp_path / "p")
    fine = open_image(np.zeros((20, 20), np.uint8), mpp=1.0)
    for model in ("demo", None, dict):
        with pytest.raises(InvalidInputError, match="a model is"):
            predict(model, fine, tmp_path / "p")
    assert list(tmp_path.iterdir()) == []


def test_a_real_slide_goes_through(shared_data, tmp_path):
    image = open_image(shared_data / "wsi" / "cmu-1-small-region.svs")
    made = predict(unchanged, image, tmp_path / "p")
    np.testing.assert_array_equal(made["level0"][...], image.level(0)[...])
    assert made.level(0).scale[-2:] == image.level(0).scale[-2:]


def test_an_image_is_whatever_can_be_opened(tmp_path):
    import tifffile

    pixels = np.random.default_rng(5).integers(0, 255, (3, 97, 61), dtype=np.uint8)
    tifffile.imwrite(
        tmp_path / "a.tif",
        pixels,
        photometric="minisblack",
        planarconfig="separate",
        resolution=(20000, 20000),
        resolutionunit="CENTIMETER",
    )
    with predict(
        lambda batch: batch, tmp_path / "a.tif", tmp_path / "out.ome.zarr", tile_size=32, overlap=5
    ) as made:
        np.testing.assert_array_equal(made["level0"][...], pixels)
        assert made.require_mpp().x == 0.5
