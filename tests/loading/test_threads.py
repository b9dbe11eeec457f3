"""However a loop is left, no thread of the loader is left behind."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
import weakref

import pytest

from microtome.loading import TileLoader


def own_threads():
    return [t for t in threading.enumerate() if t.name.startswith("microtome-loader")]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    assert own_threads() == []
    yield
    assert own_threads() == []


@pytest.fixture
def loader(source_of):
    source = source_of(200)
    source.before = lambda rows: threading.Event().wait(0.002)
    return TileLoader(source, 4, prefetch=4, threads=3)


def test_threads_are_seen_while_they_read(loader):
    # Without this the other tests could not fail.
    batches = iter(loader)
    assert own_threads() == []
    next(batches)
    assert len(own_threads()) == 3
    batches.close()


def test_the_end_of_an_epoch(loader):
    assert len(list(loader)) == 50
    assert own_threads() == []


def test_break(loader):
    for _ in loader:
        break
    assert own_threads() == []


def test_a_loop_that_is_left_begins_no_further_read(source_of):
    source = source_of(200)
    source.before = lambda rows: threading.Event().wait(0.05)
    for _ in TileLoader(source, 4, prefetch=20, threads=1):
        break
    assert len(source.asked) <= 3


def test_an_error_in_the_loop(loader):
    def train():
        for batch in loader:
            raise ZeroDivisionError(len(batch.data))

    with pytest.raises(ZeroDivisionError):
        train()
    assert own_threads() == []


def test_an_error_in_the_source(loader):
    def before(rows):
        if loader.batch_rows(5)[0] in rows:
            raise OSError("gone")

    loader.source.before = before
    with pytest.raises(OSError, match="gone"):
        list(loader)
    assert own_threads() == []


def test_an_iterator_that_is_dropped(loader):
    batches = iter(loader)
    next(batches)
    del batches
    assert own_threads() == []


def test_an_iterator_that_only_the_garbage_collector_finds(loader):
    cycle = {"batches": iter(loader)}
    cycle["itself"] = cycle
    next(cycle["batches"])
    del cycle
    gc.collect()
    assert own_threads() == []


def test_an_iterator_that_is_collected_in_one_of_its_own_threads(source_of):
    # The collector runs wherever memory is asked for, and a thread cannot wait for itself.
    source, dropped = source_of(200), threading.Event()
    loader = TileLoader(source, 4, prefetch=2, threads=1)

    def before(rows):
        if len(source.asked) > 2:
            dropped.wait()
            gc.collect()

    source.before = before
    cycle = {"batches": iter(loader)}
    cycle["itself"] = cycle
    gone = weakref.ref(cycle["batches"])
    gc.disable()
    try:
        next(cycle["batches"])
        threads = own_threads()
        del cycle
        dropped.set()
        for thread in threads:
            thread.join(10)
    finally:
        gc.enable()
    assert gone() is None


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="the system has no such signals")
def test_ctrl_c_while_waiting_for_a_batch(source_of):
    source = source_of(200)
    main = threading.main_thread().ident

    def before(rows):
        if len(source.asked) == 6:
            signal.pthread_kill(main, signal.SIGINT)
        threading.Event().wait(0.05)

    source.before = before
    with pytest.raises(KeyboardInterrupt):
        for _ in TileLoader(source, 4, prefetch=2, threads=2):
            pass
    assert own_threads() == []
    assert len(source.asked) < 20


SCRIPT = """
import sys, threading
import numpy as np
from microtome.loading import TileLoader
from microtome.regions import ImageRegionData

class Source:
    def __len__(self):
        return 10**9
    def read_batch(self, rows):
        n = len(rows)
        return ImageRegionData(np.zeros((n, 1, 2, 2), np.float32), ["array"] * n, [], [], [], [], {}, [])

batches = 0
try:
    for batch in TileLoader(Source(), 8, threads=4, prefetch=8, as_torch=False):
        batches += 1
        if batches == 100:
            print("reading", flush=True)
except KeyboardInterrupt:
    print("left", [t.name for t in threading.enumerate()], flush=True)
    sys.exit(130)
"""


def test_ctrl_c_in_a_program_ends_it(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout.readline() == "reading\n"
        program.send_signal(signal.SIGINT)
        out, err = program.communicate(timeout=60)
    assert (out, err) == ("left ['MainThread']\n", "")
    assert program.returncode == 130
