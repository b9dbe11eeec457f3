"""`write_webdataset`: shards that WebDataset reads, in order, and that go on where they stopped."""

from __future__ import annotations

import gc
import io
import json
import tarfile
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from microtome.errors import ExistsError, FormatError, InvalidInputError, OutOfRangeError
from microtome.interop import write_webdataset
from microtome.prediction import CellCrops
from microtome.sources import open_image

SIZE = 8


def crops(count=10, seed=0):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 60000, (3, 64, 80), np.uint16)
    image = open_image(pixels, axes="cyx", mpp=0.5, channel_names=["a", "b", "c"])
    places = rng.uniform(2, 30, (count, 2))
    return CellCrops(
        image, places, [100 + n for n in range(count)], size=SIZE, tissue_id="t.1"
    ), pixels


def samples(paths):
    """Group files as WebDataset does: by their name up to the first dot, one after the other."""
    found = []
    for path in paths:
        with tarfile.open(path) as archive:
            for entry in archive:
                key, ending = entry.name.split(".", 1)
                if not found or found[-1][0] != key:
                    found.append((key, {}))
                assert ending not in found[-1][1]
                found[-1][1][ending] = archive.extractfile(entry).read()
    return found


def npy(content):
    return np.load(io.BytesIO(content), allow_pickle=False)


def test_every_tile_is_a_sample_in_order(tmp_path):
    tiles, pixels = crops()
    rows = [7, 1, 9, 0, 3]
    told = []
    paths = write_webdataset(
        tiles,
        tmp_path / "s",
        rows=rows,
        shard_size=2,
        batch_size=3,
        progress=lambda *what: told.append(what),
    )
    assert [path.name for path in paths] == [f"shard-{n:06d}.tar" for n in range(3)]
    assert told == [("write", n, 3) for n in range(4)]
    found = samples(paths)
    assert [key for key, _ in found] == [f"{n:09d}" for n in range(5)]
    padded = np.pad(pixels, ((0, 0), (SIZE, SIZE), (SIZE, SIZE)))
    for row, (_, files) in zip(rows, found, strict=True):
        facts = json.loads(files["json"])
        assert (facts["tissue_id"], facts["cell_id"]) == ("t.1", 100 + row)
        assert facts["channel_names"] == ["a", "b", "c"]
        top, left = facts["region_spec"]["coords"]
        assert [top, left] == tiles.starts[row].tolist()
        expected = padded[:, top + SIZE : top + 2 * SIZE, left + SIZE : left + 2 * SIZE]
        np.testing.assert_array_equal(npy(files["npy"]), expected)


def test_a_job_goes_on_where_it_stopped(tmp_path):
    tiles, _ = crops()
    whole = write_webdataset(tiles, tmp_path / "whole", shard_size=3)

    class Stops:
        def __init__(self, after):
            self.read = []
            self.after = after

        def __len__(self):
            return len(tiles)

        def read_batch(self, rows):
            if len(self.read) >= self.after:
                raise KeyboardInterrupt
            self.read.append(rows.tolist())
            return tiles.read_batch(rows)

    with pytest.raises(KeyboardInterrupt):
        write_webdataset(Stops(4), tmp_path / "s", shard_size=3, batch_size=2)
    left = sorted(path.name for path in (tmp_path / "s").iterdir())
    assert left == ["shard-000000.tar", "shards.json"]
    again = Stops(99)
    paths = write_webdataset(again, tmp_path / "s", shard_size=3, batch_size=2)
    # The first tile says whether it is the same job; of the first shard no other is read.
    assert again.read == [[0], [3, 4], [5], [6, 7], [8], [9]]
    for one, other in zip(paths, whole, strict=True):
        assert one.read_bytes() == other.read_bytes()
    last = Stops(99)
    write_webdataset(last, tmp_path / "s", shard_size=3)
    assert last.read == [[0]]


def test_shards_do_not_depend_on_who_writes_them(tmp_path):
    tiles, _ = crops()
    here = write_webdataset(tiles, tmp_path / "a", shard_size=2)
    with ThreadPoolExecutor(3) as pool:
        there = write_webdataset(tiles, tmp_path / "b", shard_size=2, executor=pool)
    for one, other in zip(here, there, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_pairs_lie_beside_each_other(tmp_path):
    tiles, _ = crops()

    class Pairs:
        def __len__(self):
            return len(tiles)

        def read_batch(self, rows):
            batch = tiles.read_batch(rows)
            return batch, batch._replace(data=batch.data[:, :1] + 1)

    (path,) = write_webdataset(Pairs(), tmp_path / "s")
    for _, files in samples([path]):
        assert sorted(files) == ["0.npy", "1.npy", "json"]
        np.testing.assert_array_equal(npy(files["0.npy"])[:1] + 1, npy(files["1.npy"]))


def test_shards_of_another_job_stay(tmp_path):
    tiles, _ = crops()
    write_webdataset(tiles, tmp_path / "s", shard_size=5)
    others, _ = crops(seed=1)
    for source, options, what in [
        (
            tiles,
            {"shard_size": 4},
            r"shard_size \(5 then, 4 now\); write them anew with --overwrite",
        ),
        (tiles, {"shard_size": 5, "rows": [0, 1]}, r"tiles \(10 then, 2 now\), which tiles"),
        (tiles, {"shard_size": 5, "rows": [0, *range(9, 0, -1)]}, "which tiles, or their order"),
        (others, {"shard_size": 5}, "the pixels of the first tile"),
    ]:
        with pytest.raises(ExistsError, match=f"differs in: {what}"):
            write_webdataset(source, tmp_path / "s", **options)
    (tmp_path / "s" / "shards.json").write_text("{")
    with pytest.raises(FormatError, match="damaged"):
        write_webdataset(tiles, tmp_path / "s", shard_size=5)
    (tmp_path / "s" / "shards.json").unlink()
    with pytest.raises(ExistsError, match="nothing that says"):
        write_webdataset(tiles, tmp_path / "s", shard_size=5)


def test_shards_of_another_job_are_written_anew_where_asked(tmp_path):
    tiles, _ = crops()
    write_webdataset(tiles, tmp_path / "s", shard_size=2)
    others, _ = crops(seed=1)
    paths = write_webdataset(others, tmp_path / "s", shard_size=5, overwrite=True)
    fresh = write_webdataset(others, tmp_path / "fresh", shard_size=5)
    names = sorted(path.name for path in (tmp_path / "s").iterdir())
    assert names == [*(path.name for path in paths), "shards.json"], "none of the five are left"
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in fresh]
    before = [path.stat().st_mtime_ns for path in paths]
    write_webdataset(others, tmp_path / "s", shard_size=5, overwrite=True)
    assert [path.stat().st_mtime_ns for path in paths] == before, "they are of this job"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rows": []}, InvalidInputError, "at least one"),
        ({"rows": [[1, 2]]}, InvalidInputError, "numbers of tiles"),
        ({"rows": [0.5]}, InvalidInputError, "numbers of tiles"),
        ({"rows": [3, 10]}, OutOfRangeError, "row 10 of 10"),
        ({"rows": [-1]}, OutOfRangeError, "row -1 of 10"),
        ({"shard_size": 0}, InvalidInputError, "at least 1"),
        ({"batch_size": 0}, InvalidInputError, "at least 1"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        write_webdataset(crops()[0], tmp_path / "s", **options)
    assert not (tmp_path / "s").exists()


def test_facts_that_json_has_no_word_for(tmp_path):
    tiles, _ = crops()

    class Strange:
        def __len__(self):
            return 1

        def read_batch(self, rows):
            batch = tiles.read_batch(rows)
            return batch._replace(additional_metadata=[{"what": SimpleNamespace()}])

    with pytest.raises(InvalidInputError, match="must be texts, numbers or lists"):
        write_webdataset(Strange(), tmp_path / "s")


@pytest.mark.interop
# It leaves the archives that it has read to the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_webdataset_itself_decodes_the_samples(tmp_path):
    wds = pytest.importorskip("webdataset", reason="`webdataset` is not installed")
    tiles, _ = crops()
    rows = [7, 1, 9, 0, 3]
    paths = write_webdataset(tiles, tmp_path / "s", rows=rows, shard_size=2)
    found = list(wds.WebDataset([str(path) for path in paths], shardshuffle=False).decode())
    expected = tiles.read_batch(np.asarray(rows)).data
    assert [sample["__key__"] for sample in found] == [f"{n:09d}" for n in range(5)]
    for sample, pixels in zip(found, expected, strict=True):
        np.testing.assert_array_equal(sample["npy"], pixels)
    assert [sample["json"]["cell_id"] for sample in found] == [100 + row for row in rows]
    gc.collect()
