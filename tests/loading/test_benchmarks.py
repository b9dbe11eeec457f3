"""The measuring itself: who does what when, what counts as processor time, what is compared."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

import microtome as mt


@pytest.fixture
def made(bench):
    """A benchmark of a few integers, competitors to be added."""
    return bench("harness").Benchmark(
        title="squares",
        item="number",
        draw=lambda rng, count: rng.integers(0, 1000, count),
        items=4,
        base="slow",
        least_seconds=0,
    )


def squaring(seen=None, change=lambda found: found, cost=lambda: None):
    def setup():
        def read(items):
            if seen is not None:
                seen.append(items.tolist())
            cost()
            yield change(items[:2] ** 2)
            yield change(items[2:] ** 2)

        yield read

    return setup


def quiet(line):
    pass


@pytest.fixture
def clock(bench, monkeypatch):
    """Processor time that passes only where a competitor spends it."""
    now = [0.0]

    def spend(seconds):
        now[0] += seconds

    monkeypatch.setattr(bench("harness"), "cpu_seconds", lambda: now[0])
    return spend


def test_all_do_the_same_items_in_turns_fresh_ones_each_round(made):
    turns = []
    one, two = [], []
    made.add("slow", squaring(one, cost=lambda: turns.append("slow")))
    made.add("fast", squaring(two, cost=lambda: turns.append("fast")))
    made.run(3, tell=quiet)
    # The base is asked once more in the check, for what the others are compared with.
    assert one[1:] == two
    assert one[0] == one[1]
    assert len({tuple(items) for items in two}) == 4
    assert turns == ["slow", "slow", "fast", *["slow", "fast"] * 3]


def test_figures_are_medians_of_ratios_within_a_round(made, clock):
    # Processor seconds of a round, those of the check first.
    slow, fast = iter([9, 9, 4, 8, 40]), iter([9, 1, 4, 4])
    made.add("slow", squaring(cost=lambda: clock(next(slow))))
    made.add("fast", squaring(cost=lambda: clock(next(fast))))
    table = made.run(3, tell=quiet)
    assert table.measurements[0].cpu == [1, 2, 10]
    assert table.measurements[1].cpu == [0.25, 1, 1]
    assert table.cpu_ratio("fast") == 0.25  # the median of 1/4, 1/2 and 1/10
    assert table.cpu_ratio("slow") == 1


def test_what_is_fast_is_measured_over_many_passes(made, clock):
    made.least_seconds, passes = 0.05, []
    made.add("slow", squaring(passes, cost=lambda: clock(2)))
    table = made.run(1, tell=quiet)
    assert len(passes) > 5
    assert passes[2:] == [passes[2]] * len(passes[2:])
    assert table.measurements[0].cpu == [0.5]  # 2 s a pass of 4 items


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found + (found > 10**5),
        lambda found: found.astype(np.int32),
        lambda found: found[:1],
    ],
    ids=["values", "type", "number"],
)
def test_who_gives_something_else_is_not_measured(made, bench, change):
    made.add("slow", squaring())
    made.add("wrong", squaring(change=change))
    with pytest.raises(bench("harness").UnequalPixelsError, match="wrong gives"):
        made.run(1, tell=quiet)


def test_a_buffer_that_is_used_again_is_compared_as_it_was(made):
    def setup():
        buffer = np.zeros(2, np.int64)

        def read(items):
            for half in (items[:2], items[2:]):
                buffer[...] = half**2
                yield buffer

        yield read

    made.add("slow", squaring())
    made.add("one buffer", setup)
    made.run(1, tell=quiet)


def test_competitors_clean_up(made):
    ended = []

    def setup():
        yield lambda items: [items**2]
        ended.append("fast")

    made.add("slow", squaring())
    made.add("fast", setup)
    made.run(1, tell=quiet)
    assert ended == ["fast"]


CHILD = """
import time
while time.process_time() < 0.5:
    pass
print("done", flush=True)
input()
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system has no /proc")
def test_the_time_of_a_child_counts_while_it_lives_and_once_when_it_has_ended(bench):
    used = bench("machine").cpu_seconds
    before = used()
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "done\n"
        alive = used() - before
        child.communicate("\n")
    after = used() - before
    assert 0.4 < alive < 1
    assert alive - 0.05 < after < alive + 0.4


def test_results_are_written_for_people_and_for_programs(made, bench, clock, tmp_path):
    made.notes.append("Numbers below 1000.")
    made.add("slow", squaring(cost=lambda: clock(4)))
    made.add("fast", squaring(cost=lambda: clock(1)))
    table = made.run(2, tell=quiet)
    text = bench("report").write_results("numbers", [table], {"processor": "P"}, tmp_path / "new")
    assert (tmp_path / "new" / "numbers.md").read_text() == text
    assert "Numbers below 1000. 2 rounds of 4 numbers." in text
    assert "| slow | 1000000 | 1.00 (1.00 to 1.00) |" in text
    assert "| fast | 250000 | 0.25 (0.25 to 0.25) |" in text
    found = json.loads((tmp_path / "new" / "numbers.json").read_text())
    assert found["machine"] == {"processor": "P"}
    (squares,) = found["tables"]
    assert squares["base"] == "slow"
    assert [c["name"] for c in squares["competitors"]] == ["slow", "fast"]
    assert squares["competitors"][1]["cpu_seconds"] == [0.25, 0.25]
    assert squares["competitors"][1]["cpu_times_base"] == 0.25


def test_what_takes_seconds_is_told_in_seconds_with_the_memory_it_took(bench, tmp_path):
    found = [
        bench("harness").Measurement(
            "ours", [2.0, 1.0, 1.5], [3.0, 3.0, 3.0], [1 << 20, 3 << 20, 0]
        ),
        bench("harness").Measurement("theirs", [4.0, 4.0, 3.0], [5.0, 5.0, 5.0], [9 << 20] * 3),
    ]
    table = bench("harness").Table("pyramids", "pyramid", 1, "ours", found, [], "By hand.")
    text = bench("report").write_results("pyramids", [table], {}, tmp_path)
    assert "By hand." in text
    assert "Competitors take turns" not in text
    assert "| | processor s a pyramid | times ours | wall s a pyramid | peak memory MiB |" in text
    assert "| ours | 1.50 | 1.00 (1.00 to 1.00) | 3.00 | 1 |" in text
    assert "| theirs | 4.00 | 2.00 (2.00 to 4.00) | 5.00 | 9 |" in text
    (told,) = json.loads((tmp_path / "pyramids.json").read_text())["tables"]
    assert told["competitors"][1]["peak_bytes"] == [9 << 20] * 3


@pytest.mark.slow  # each builder is a process, most of which import dask
def test_all_builders_build_all_levels(bench, tmp_path):
    path = tmp_path / "image.ome.zarr"
    with mt.MultiscaleImage.create(
        path, type="uint16", level_shape=(2, 512, 1024), mpp=0.5
    ) as image:
        image["level0"][...] = np.random.default_rng(0).integers(
            0, 65_535, (2, 512, 1024), np.uint16
        )
    stored = sorted((path / "0").rglob("*"))
    work = tmp_path / "work"
    work.mkdir()
    table = bench("pyramids").table_of(path, bench("options").Options(None, 1, 1, work, quiet))
    assert [m.name for m in table.measurements] == list(bench("pyramid_builders").BUILDERS)
    assert all(m.peak[0] > 1 << 20 for m in table.measurements)
    # Whoever builds, the image that was given stays as it is, and no copy of it is left.
    assert sorted((path / "0").rglob("*")) == stored
    assert len(list(path.iterdir())) == 2
    assert not list(work.iterdir())


def test_the_machine_is_described(bench):
    facts = bench("machine").describe_machine()
    assert facts["processor"]
    assert facts["processors"] >= 1
    assert {"python", "numpy", "tensorstore"} <= set(facts)


@pytest.mark.slow  # starts two worker processes, each of which imports torch
def test_all_readers_of_tiles_give_the_same(bench, tmp_path):
    with mt.MultiscaleImage.create(
        tmp_path / "image.ome.zarr", type="uint16", level_shape=(2, 300, 310), mpp=0.5
    ) as image:
        image["level0"][...] = np.random.default_rng(0).integers(
            0, 65_535, (2, 300, 310), np.uint16
        )
    options = bench("options").Options(None, 1, 6, tmp_path, quiet)
    tiles = bench("tiles")
    with mt.MultiscaleImage.open(tmp_path / "image.ome.zarr") as image:
        raw, floats = tiles.tables_of(image, options)
    assert [m.name for m in raw.measurements] == list(tiles.RAW)
    assert [m.name for m in floats.measurements] == list(tiles.FLOAT)


def test_an_image_that_has_no_such_tiles_is_refused(bench, tmp_path):
    image = mt.open_image(np.zeros((3, 100, 400), np.uint8), axes="cyx", mpp=0.5)
    options = bench("options").Options(None, 1, 6, tmp_path, quiet)
    with pytest.raises(SystemExit, match="tiles of 224 px need"):
        bench("tiles").tables_of(image, options)


@pytest.mark.parametrize("kind", ["file", "image"])
def test_the_image_to_measure_on_may_be_any(bench, tmp_path, kind):
    pixels = np.random.default_rng(0).integers(0, 255, (3, 70, 90), np.uint8)
    path = tmp_path / "given.ome.zarr"
    if kind == "file":
        path = tmp_path / "given.ome.tif"
        tifffile.imwrite(
            path,
            pixels,
            photometric="minisblack",
            metadata={"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5},
        )
    else:
        with mt.MultiscaleImage.create(
            path, type="uint8", level_shape=pixels.shape, mpp=1
        ) as image:
            image["level0"][...] = pixels
    with bench("images").real_image(path, tmp_path / "work") as image:
        assert np.array_equal(image.level(0)[...], pixels)
        assert mt.MultiscaleImage.exists(image.uri)
        flat = bench("images").copy_flat(image, tmp_path / "flat.npy")
        assert np.array_equal(np.load(flat), pixels)


@pytest.mark.interop
def test_all_readers_of_regions_give_the_same(bench, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 65_535, (2, 300, 310), np.uint16)
    path = tmp_path / "image.ome.zarr"
    with mt.MultiscaleImage.create(path, type="uint16", level_shape=pixels.shape, mpp=1) as image:
        image["level0"][...] = pixels
    options = bench("options").Options(None, 1, 5, tmp_path, quiet)
    table = bench("spatial_reads").table_of(path, options)
    names = [measurement.name for measurement in table.measurements]
    assert names[0] == "microtome.read_spatial_region"
    assert {"tensorstore by hand", "zarr-python"} < set(names)
    # In an environment without it, the table says who is not in it.
    missing = importlib.util.find_spec("tiledbsoma") is None
    assert missing == any("tiledbsoma is not installed" in note for note in table.notes)


@pytest.mark.interop
def test_all_who_open_images_find_the_same_shapes(bench, monkeypatch, tmp_path):
    pytest.importorskip("ngio", reason="needs the interop extra")
    openings = bench("openings")
    monkeypatch.setattr(openings, "_MANY", 3)
    monkeypatch.setattr(openings, "_LEVELS", (1, 3))
    tables = openings.opening_tables(bench("options").Options(None, 1, 2, tmp_path, quiet))
    for table, levels in zip(tables, (1, 3), strict=True):
        assert f"of {levels} level" in table.title
        if sys.platform == "linux":
            assert [m.name for m in table.measurements][:2] == [
                "microtome (1)",
                f"zarr-python ({levels + 1})",
            ]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which files are opened")
def test_files_that_are_opened_are_counted(bench, tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("one", "a/two", "a/b/three"):
        (tmp_path / name).write_text(name)
    with bench("opened_files").OpenedFiles(tmp_path) as opened:
        (tmp_path / "one").read_text()
        (tmp_path / "a" / "b" / "three").read_text()
        (tmp_path / "a" / "two").read_text()
        (tmp_path / "one").read_text()
        list(tmp_path.iterdir())
    assert opened.count == 3
