"""Threads share an array, spawned processes get their own, forked ones are told off."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import textwrap
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from operator import methodcaller

import numpy as np
import pytest

from microtome.storage import Layout, create_array, open_array

BOX = ((0, 20), (0, 30))


@pytest.fixture
def stored(tmp_path):
    values = np.arange(600, dtype=np.uint16).reshape(20, 30)
    array = create_array(
        tmp_path / "a", shape=(20, 30), dtype="u2", layout=Layout((4, 4), (8, 8)), axes="yx"
    )
    array.write(BOX, values)
    return array, values


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    # A process of its own: pytest's is not one to fork.
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


FORK = """
    import os, signal, sys
    from microtome.errors import ModeError
    from microtome.storage import Layout, create_array, open_array

    used, other, how = sys.argv[1:]
    box = ((0, 20), (0, 30))
    array = open_array(used)
    if how == "read":
        array.read(box)
    elif how == "shape":
        array.shape
    elif how == "create":
        create_array(other + "-new", shape=(2, 2), dtype="u1", layout=Layout((2, 2), None), axes="yx")
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        sys.exit(os.waitstatus_to_exitcode(status) % 256)
    signal.alarm(30)
    for attempt in (
        lambda: array.read(box),
        lambda: array.shape,
        lambda: open_array(other).read(box),
        lambda: create_array(other + "-2", shape=(2, 2), dtype="u1", layout=Layout((2, 2), None), axes="yx"),
    ):
        try:
            attempt()
        except ModeError as error:
            print("refused:", error)
        else:
            print("done")
    sys.stdout.flush()
    os._exit(7)
"""


@pytest.mark.parametrize("how", ["read", "create"])
def test_a_child_forked_from_a_process_that_used_the_engine_is_told_so(stored, tmp_path, how):
    array, values = stored
    create_array(
        tmp_path / "b", shape=(20, 30), dtype="u2", layout=Layout((4, 4), None), axes="yx"
    ).write(BOX, values)
    ran = run(FORK, array.path, tmp_path / "b", how)
    assert ran.returncode == 7, ran.stderr  # neither aborted nor hung
    lines = ran.stdout.splitlines()
    # What an array's metadata say is read without the engine.
    assert [line.split(":")[0] for line in lines] == ["refused", "done", "refused", "refused"]
    assert all("'spawn' or 'forkserver'" in line for line in lines if line != "done")
    assert str(tmp_path / "b") in lines[2]
    assert not (tmp_path / "b-2").exists()


@pytest.mark.parametrize("how", ["nothing", "shape"])
def test_a_child_forked_before_the_engine_was_used_may_use_it(stored, tmp_path, how):
    array, values = stored
    create_array(
        tmp_path / "b", shape=(20, 30), dtype="u2", layout=Layout((4, 4), None), axes="yx"
    ).write(BOX, values)
    ran = run(FORK, array.path, tmp_path / "b", how)
    assert ran.returncode == 7, ran.stderr
    assert ran.stdout.splitlines() == ["done"] * 4


@pytest.mark.slow
def test_a_spawned_process_opens_a_pickled_array_anew(stored):
    array, values = stored
    assert array.read(BOX).sum() == values.sum()  # in use here, and pickled while it is
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        # A methodcaller, because a function of this module could not be imported over there.
        read = pool.submit(methodcaller("read", BOX), array).result()
    np.testing.assert_array_equal(read, values)


def test_threads_that_open_one_array_at_once(stored):
    array, values = stored

    def touch(handle):
        return handle.dtype, int(handle.read(BOX).sum())

    with ThreadPoolExecutor(8) as pool:
        for _ in range(30):
            shared = open_array(array.path)
            results = list(pool.map(touch, [shared] * 8))
            assert set(results) == {(np.dtype("u2"), int(values.sum()))}
