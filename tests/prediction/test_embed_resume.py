"""`embed_tiles` that is killed: the same call goes on, and ends with the same bytes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest

from microtome.errors import BusyError, ExistsError, InvalidInputError
from microtome.normalization import fit_normalization
from microtome.prediction import _embed, _embed_parts, embed_tiles
from microtome.prediction._embed_parts import Parts
from microtome.regions import Windows, read_regions, region_batch
from microtome.sources import open_image

RUN = """
import sys, time
import numpy as np
from microtome.prediction import CellCrops, _embed, _embed_parts, embed_tiles
from microtome.sources import open_image

_embed_parts.BLOCK, _embed._GROUP = 16, 64
log = open(sys.argv[1], "a")

def model(batch):
    time.sleep(float(sys.argv[3]))
    log.write("call\\n" * len(batch))
    log.flush()
    return batch.astype(np.float32).mean((2, 3))

pixels = np.random.default_rng(0).integers(0, 60_000, (3, 90, 70)).astype(np.uint16)
places = np.random.default_rng(1).uniform(0, 30, (211, 2))
crops = CellCrops(open_image(pixels, axes="cyx", mpp=0.5), places, size=9, tissue_id="t")
print("begun", flush=True)
embed_tiles(model, crops, sys.argv[2], batch_size=int(sys.argv[4]))
"""


def command(log, out, seconds=0.003, batch_size=5):
    return [sys.executable, "-c", RUN, str(log), str(out), str(seconds), str(batch_size)]


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
def test_kills_at_random_moments_change_nothing(tmp_path):
    folder, log = tmp_path / "results", tmp_path / "log"
    subprocess.run(command(log, tmp_path / "whole.parquet", 0), check=True, capture_output=True)
    assert len(log.read_text().splitlines()) == 211
    moments = random.Random(3)
    done = 0
    for kill in range(6):
        log.write_text("")
        with subprocess.Popen(
            command(log, folder / "v.parquet", batch_size=1 + kill), stdout=subprocess.PIPE
        ) as process:
            process.stdout.readline()
            calls = moments.randrange(1, 45)
            while process.poll() is None and log.read_text().count("\n") < calls:
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL, "it came to its end before it was killed"
        assert not (folder / "v.parquet").exists()
        # What was finished was not done again.
        assert len(log.read_text().splitlines()) <= 211 - done
        done = 16 * len(list(folder.glob(".v.parquet.embedding/*.arrow")))
    assert 0 < done < 211
    log.write_text("")
    subprocess.run(command(log, folder / "v.parquet"), check=True, capture_output=True)
    assert len(log.read_text().splitlines()) == 211 - done
    assert [path.name for path in folder.iterdir()] == ["v.parquet"]
    assert (folder / "v.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


class Tiles:
    """Tiles of an image in memory that stops giving them at one."""

    def __init__(self, count=50, seed=0, fails_at=None):
        self.pixels = np.random.default_rng(seed).integers(0, 255, (2, 60, 50), np.uint8)
        self.image = open_image(self.pixels, axes="cyx", mpp=0.5)
        self.starts = np.random.default_rng(1).integers(0, 40, (count, 2))
        self.fails_at = fails_at
        self.read = []

    def __len__(self):
        return len(self.starts)

    def read_batch(self, rows):
        if self.fails_at in rows:
            raise OSError("the disk is gone")
        self.read += rows.tolist()
        windows = Windows.of(0, self.starts[rows], 8)
        data = read_regions([self.image], windows)
        facts = [{"tissue_id": "t", "tile_id": int(row)} for row in rows]
        return region_batch([self.image], windows, data, metadata=facts)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(_embed_parts, "BLOCK", 10)
    monkeypatch.setattr(_embed, "_GROUP", 20)


def mean(batch):
    return np.asarray(batch, np.float32).mean((2, 3))


def peak(batch):
    return np.asarray(batch, np.float32).max((2, 3))


def left(out, *, tiles=None, model=mean, **options):
    with pytest.raises(OSError, match="the disk is gone"):
        embed_tiles(model, tiles or Tiles(fails_at=33), out, **options)
    return out.parent / f".{out.name}.embedding"


def test_another_size_of_batch_goes_on(tmp_path):
    whole = embed_tiles(mean, Tiles(), tmp_path / "whole.parquet", batch_size=50)
    out = tmp_path / "v.parquet"
    folder = left(out, batch_size=7)
    assert sorted(path.name for path in folder.iterdir()) == [
        "0.arrow",
        "1.arrow",
        "2.arrow",
        "journal.json",
    ]
    tiles, told = Tiles(), []
    embed_tiles(mean, tiles, out, batch_size=3, progress=lambda *now: told.append(now))
    # Eight of each finished block are looked at.
    assert sorted(tiles.read) == sorted(
        [*range(30, 50), *(10 * n + at for n in range(3) for at in _embed_parts.sampled_rows(10))]
    )
    assert told[0] == ("embed", 33, 50)
    assert told[-1] == ("embed", 50, 50)
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v.parquet", "whole.parquet"]


def test_a_model_that_looks_at_its_batch_goes_on_with_the_same_only(tmp_path):
    torch = pytest.importorskip("torch")
    norm = torch.nn.BatchNorm2d(2, momentum=0.0)

    def model(batch):
        with torch.inference_mode():
            return norm(torch.from_numpy(batch).float()).mean((2, 3))

    out = tmp_path / "v.parquet"
    left(out, model=model, batch_size=7)
    with pytest.raises(ExistsError, match="batch_size: 7 then, 3 now"):
        embed_tiles(model, Tiles(), out, batch_size=3)
    norm.eval()
    left(tmp_path / "w.parquet", model=model, batch_size=7)
    embed_tiles(model, Tiles(), tmp_path / "w.parquet", batch_size=3)


@pytest.mark.parametrize(
    ("tiles", "options", "told"),
    [
        (Tiles(count=49), {}, "tiles: 50 then, 49 now"),
        (Tiles(), {"model": peak}, r"model: '.*\.mean' then, '.*\.peak' now"),
        (Tiles(), {"preprocess": np.negative}, "preprocess: None then, 'numpy.negative' now"),
        (Tiles(seed=1), {}, "block 0: the pixels of its tiles are others"),
    ],
)
def test_what_is_of_something_else_is_refused_and_stays(tmp_path, tiles, options, told):
    out = tmp_path / "v.parquet"
    folder = left(out)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    model = options.pop("model", mean)
    with pytest.raises(ExistsError, match=told):
        embed_tiles(model, tiles, out, **options)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    embed_tiles(model, tiles, out, resume=False, **options)
    embed_tiles(model, tiles, tmp_path / "whole.parquet", **options)
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_tiles_that_lie_elsewhere_are_others(tmp_path):
    out = tmp_path / "v.parquet"
    left(out)
    moved = Tiles()
    moved.starts[25] += 1
    with pytest.raises(ExistsError, match=r"block 2: its tiles are others: .* then, .* now"):
        embed_tiles(mean, moved, out)


def test_normalizations_of_other_numbers_are_told_apart(tmp_path):
    first, second = (
        fit_normalization("mean_std", [Tiles(seed=seed).image]).normalize for seed in (0, 1)
    )
    out = tmp_path / "v.parquet"
    left(out, preprocess=first)
    with pytest.raises(ExistsError, match="preprocess: other weights, numbers or code"):
        embed_tiles(mean, Tiles(), out, preprocess=second)
    embed_tiles(mean, Tiles(), out, preprocess=first)
    vectors = np.array(pq.read_table(out)["embedding"].to_pylist())
    crops = np.stack([Tiles().pixels[:, y : y + 8, x : x + 8] for y, x in Tiles().starts])
    whole = Tiles().pixels.reshape(2, -1)
    expected = (crops.mean((2, 3)) - whole.mean(1)) / (whole.std(1) + 1e-6)
    np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-5)


def test_a_wrong_answer_keeps_nothing(tmp_path):
    asked = []

    def model(batch):
        asked.append(0)
        return mean(batch) if len(asked) < 4 else batch

    with pytest.raises(InvalidInputError, match="a vector a tile"):
        embed_tiles(model, Tiles(), tmp_path / "v.parquet", batch_size=10)
    assert list(tmp_path.iterdir()) == []


def test_one_process_at_a_time(tmp_path):
    out = tmp_path / "v.parquet"
    held = Parts(out, {}, resume=True)
    with pytest.raises(BusyError, match=r"v\.parquet"):
        embed_tiles(mean, Tiles(), out)
    held.close(keep=False)
    embed_tiles(mean, Tiles(), out)


def test_a_damaged_journal_is_started_over(tmp_path):
    out = tmp_path / "v.parquet"
    folder = left(out)
    (folder / "journal.json").write_text("{")
    tiles = Tiles()
    embed_tiles(mean, tiles, out)
    assert tiles.read == list(range(50))
