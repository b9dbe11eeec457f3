"""The page that sets asked beside measured, and what its benchmarks add to the measuring."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import microtome as mt


@pytest.fixture
def made(bench):
    """A benchmark of eight integers, competitors to be added."""
    return bench("harness").Benchmark(
        title="squares",
        item="number",
        draw=lambda rng, count: rng.integers(0, 1000, count),
        items=8,
        base="all",
        least_seconds=0,
    )


@pytest.fixture
def picture(tmp_path):
    """An image of 2 x 600 x 600, and the same pixels uncompressed."""
    pixels = np.random.default_rng(0).integers(0, 65_535, (2, 600, 600), np.uint16)
    path = tmp_path / "image.ome.zarr"
    with mt.MultiscaleImage.create(path, type="uint16", level_shape=pixels.shape, mpp=0.5) as image:
        image["level0"][...] = pixels
    np.save(tmp_path / "flat.npy", pixels)
    return path, tmp_path / "flat.npy"


def quiet(line):
    pass


def squaring(seen=None, change=lambda found: found):
    def setup():
        def read(items):
            if seen is not None:
                seen.append(len(items))
            yield change(items**2)

        yield read

    return setup


def test_a_slow_one_does_the_first_items_of_a_round(made):
    everything, few = [], []
    made.add("all", squaring(everything))
    made.add("slow", squaring(few), items=3)
    found = made.run(2, tell=quiet)
    assert everything == [8] * 4
    assert few == [3] * 3
    assert all(len(one.cpu) == 2 for one in found.measurements)


def test_a_slow_one_that_does_them_wrong_is_found(bench, made):
    made.add("all", squaring())
    made.add("slow", squaring(change=lambda found: found + 1), items=3)
    with pytest.raises(bench("harness").UnequalPixelsError, match="slow"):
        made.run(1, tell=quiet)


def test_fewer_items_may_be_checked_than_measured_after_a_round_that_does_not_count(made):
    seen = []
    made.checked = 2
    made.add("all", squaring(seen))
    assert len(made.run(1, tell=quiet).base_measurement.cpu) == 1
    assert seen == [2, 2, 8, 8]


def test_what_comes_before_is_done_before_each_turn_and_before_no_check(made):
    told = []
    made.before = lambda: told.append("before")
    made.add("all", squaring(change=lambda found: told.append("read") or found))
    made.run(2, tell=quiet)
    assert told == ["read", "read", "before", "read", "before", "read"]


@pytest.mark.parametrize("right", [True, False])
def test_an_order_of_its_own_is_checked_in_the_order_of_the_items(bench, made, right):
    harness = bench("harness")

    def reversed_order():
        order = (lambda items: np.arange(len(items))[::-1]) if right else lambda items: items % 1
        yield harness.OwnOrder(lambda items: [items[::-1] ** 2], order)

    made.add("all", squaring())
    made.add("own", reversed_order)
    if right:
        assert made.run(1, tell=quiet).measurements[1].name == "own"
    else:
        with pytest.raises(harness.UnequalPixelsError, match="own"):
            made.run(1, tell=quiet)


@pytest.mark.parametrize("order", ["sequential", "blocked", "random"])
def test_loaders_are_checked_whatever_their_order(bench, picture, order):
    readers, draws = bench("tile_readers"), bench("draws")
    task = readers.TileTask(*picture, 32, 8)
    items = draws.dense(600, 32)(np.random.default_rng(1), 100)
    (expected,) = readers.float_memmap(task)
    expected = np.concatenate([np.asarray(batch) for batch in expected(items)])
    loader = readers.float_microtome(task, order=order)
    read = next(loader)
    (found,) = read.checked(items)
    assert np.array_equal(found, expected)
    assert sum(len(batch) for batch in read(items)) == 100


def test_dense_tiles_cover_their_square_once_and_lie_inside(bench):
    draws = bench("draws")
    for cover in (draws.COVER, draws.CELLS):
        tiles = draws.dense(8192, 64, cover)(np.random.default_rng(0), 4096)
        assert tiles.shape == (4096, 2)
        assert tiles.min() >= 0
        assert (tiles + 64).max() <= 8192
        wide = (tiles + 64).max(0) - tiles.min(0)
        assert len(tiles) * 64**2 / wide.prod() == pytest.approx(cover, rel=0.1)
    assert draws.dense(100, 64)(np.random.default_rng(0), 4096).max() <= 36


@pytest.mark.interop
def test_a_peer_in_a_process_of_its_own_reads_the_same(bench, picture):
    outside, readers = bench("outside"), bench("tile_readers")
    task = readers.TileTask(*picture, 32, 8)
    items = np.random.default_rng(1).integers(0, 568, (20, 2))
    (expected,) = readers.float_memmap(task)
    expected = np.concatenate([np.asarray(batch) for batch in expected(items)])
    peer = outside.outside("zarr", Path(sys.executable), array=task.array(), side=32, batch=8)
    read = next(peer)
    (found,) = read.checked(items)
    assert np.array_equal(found, expected)
    assert list(read(items)) == []
    peer.close()


@pytest.mark.interop
def test_a_peer_that_fails_is_named(bench, tmp_path, capfd):
    outside = bench("outside")
    peer = outside.outside("zarr", Path(sys.executable), array=tmp_path, side=32, batch=8)
    with pytest.raises(outside.OutsideError, match="zarr"):
        next(peer)
    assert str(tmp_path) in capfd.readouterr().err


def test_who_is_not_installed_is_not_there(bench, tmp_path):
    outside = bench("outside")
    assert outside.has(Path(sys.executable), "json", "numpy")
    assert not outside.has(Path(sys.executable), "json", "no_such_module")
    assert not outside.has(tmp_path / "python", "json")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux drops and tells")
def test_dropped_files_are_in_no_cache(bench, tmp_path):
    cold = bench("cold")
    file = tmp_path / "file.npy"
    np.save(file, np.arange(1 << 20))
    # Mapped, and read through the mapping, as those are that the benchmark drops.
    mapped = np.load(file, mmap_mode="r")
    assert mapped[-1] == (1 << 20) - 1
    assert cold.resident(file) >= file.stat().st_size // 2
    try:
        cold.drop([file])
    except cold.StillCachedError:
        pytest.skip("the files of tests lie in memory here")
    assert cold.resident(file) <= file.stat().st_size // 100
    assert mapped.sum() == np.arange(1 << 20).sum()


# ------------------------------------------------------------------ the page


def written(row, cpu, wall=None, facts=None, peak=None):
    competitors = [
        {"name": name, "cpu_seconds": values, "wall_seconds": (wall or cpu)[name]}
        | ({"peak_bytes": peak} if peak else {})
        for name, values in cpu.items()
    ]
    table = {"title": row.table, "competitors": competitors, "facts": facts or {}}
    return {row.source: {"tables": [table]}}


@pytest.fixture
def row(bench):
    asked = bench("asked")
    return lambda kind, limit, others=("a", "b"): asked.Row(
        "what", "peers", "title", "ours", others, limit, kind
    )


def test_the_fastest_of_several_settings_counts_in_each_round(bench, row):
    times = row("times", 2.0)
    cpu = {"ours": [1.0, 1.0, 2.0], "a": [3.0, 9.0, 9.0], "b": [5.0, 4.0, 4.0]}
    found = bench("asked").measured(times, written(times, cpu))
    assert found.values == [3.0, 4.0, 2.0]
    assert (found.median, found.own, found.other) == (3.0, 1.0, 4.0)


def test_by_the_clock_processor_time_does_not_count(bench, row):
    clock = row("clock", 1.0, ("a",))
    wall = {"ours": [2.0], "a": [1.0]}
    found = bench("asked").measured(clock, written(clock, {"ours": [1.0], "a": [9.0]}, wall))
    assert found.values == [0.5]


def test_facts_and_memory_are_as_they_were_told(bench, row):
    asked = bench("asked")
    fact, memory = row("fact", 0.6, ()), row("memory", 1 << 30, ())
    told = written(fact, {"ours": [1.0]}, facts={"ours": 0.52}, peak=[5 << 20, 7 << 20])
    assert asked.measured(fact, told).values == [0.52]
    assert asked.measured(memory, told).values == [5 << 20, 7 << 20]


@pytest.mark.parametrize(
    "told",
    [
        lambda row: {},
        lambda row: written(row, {"a": [1.0]}),
        lambda row: written(row, {"ours": [1.0]}),
        lambda row: {row.source: {"tables": [{"title": "another", "competitors": []}]}},
    ],
    ids=["no benchmark", "not ours", "no other", "no table"],
)
def test_what_is_missing_was_not_measured(bench, row, told):
    times = row("times", 2.0)
    assert bench("asked").measured(times, told(times)) is None


def test_the_page_says_of_every_row_whether_it_was_met(bench, monkeypatch, row):
    asked = bench("asked")
    rows = [row("times", 2.0), row("times", 4.0), row("seconds", 1.0, ()), row("times", None)]
    missing = asked.Row("other", "cold", "title", "ours", ("a",), 1.0)
    monkeypatch.setattr(asked, "SECTIONS", {"Part": [*rows, missing]})
    monkeypatch.setattr(asked, "ROWS", [*rows, missing])
    told = written(rows[0], {"ours": [1.0, 1.0], "a": [3.0, 3.0]})
    lines = asked.summary(told).splitlines()
    met = [line.split(" | ")[3] for line in lines if line.startswith(("| what", "| other"))]
    assert met == ["yes", "no", "yes", "", "not measured"]
    assert any(line.startswith("**2 of 4 met**, 1 not, 1 not measured") for line in lines)
    assert "| what | &ge; 2 | 3 (3 to 3) | yes | 1000000, 3000000 |" in lines


def test_rows_are_of_benchmarks_that_are_registered(bench):
    asked, main = bench("asked"), bench("__main__")
    assert {row.source for row in asked.ROWS} == set(asked.BENCHMARKS)
    assert set(asked.BENCHMARKS) <= set(main.BENCHMARKS)


@pytest.mark.slow  # measures, of small images
@pytest.mark.interop
@pytest.mark.filterwarnings("ignore")  # of peers, about each other
@pytest.mark.parametrize("name", ["batches", "threads", "slide_batches"])
def test_every_row_finds_its_table_and_competitors(bench, monkeypatch, tmp_path, name):
    pictures, harness, asked = bench("pictures"), bench("harness"), bench("asked")
    for size, value in {"SIZE": 640, "PANEL_SIZE": 512, "PANEL": 6, "SLIDE": 1024}.items():
        monkeypatch.setattr(pictures, size, value)
    monkeypatch.setattr(bench("slide_batches"), "SLIDE", 1024)
    timed = harness._timed
    monkeypatch.setattr(harness, "_timed", lambda read, items, _: timed(read, items, 0.0))
    options = bench("options").Options(None, 1, 2, tmp_path, quiet)
    tables = bench(name).tables(options)
    bench("report").write_results(name, tables, {"processor": "x", "processors": 2}, tmp_path)
    told = asked.load(tmp_path)
    assert set(told) == {name}
    rows = [row for row in asked.ROWS if row.source == name]
    assert rows
    assert [row for row in rows if asked.measured(row, told) is None] == []
    page = asked.write(tmp_path)
    assert (tmp_path / "asked.md").read_text() == page
    assert json.loads((tmp_path / f"{name}.json").read_text())["tables"][0]["facts"] == {}
