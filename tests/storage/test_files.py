"""Files replaced in one step, and locks that the dead do not hold."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading

import pytest

from microtome.errors import BusyError, ExistsError, MicrotomeError, StorageError
from microtome.storage import locked, replace_file, storage_errors


def test_a_file_is_replaced_when_the_block_ends(tmp_path):
    target = tmp_path / "new" / "table.parquet"
    with replace_file(target) as temporary:
        temporary.write_text("one")
        assert temporary.parent == target.parent
        assert not target.exists()
    with replace_file(target) as temporary:
        temporary.write_text("two")
        assert target.read_text() == "one"
    assert target.read_text() == "two"
    assert [p.name for p in target.parent.iterdir()] == ["table.parquet"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_in_the_block_keeps_the_old_file(tmp_path, error):
    target = tmp_path / "a"
    target.write_text("old")

    def replace():
        with replace_file(target) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        replace()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_two_replacements_at_once_end_in_one_of_them(tmp_path):
    target = tmp_path / "a"
    with replace_file(target) as first, replace_file(target) as second:
        first.write_text("first")
        second.write_text("second")
    assert target.read_text() == "first"  # the outer block ends last
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_where_a_directory_should_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"), replace_file(tmp_path / "file" / "a"):
        pass


# ------------------------------------------------------------------ locks

HOLD = """
import sys, time
from microtome.storage import locked
with locked(sys.argv[1], what="the cohort"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "lock"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_another_process_waits_and_is_told_what_for(tmp_path, holder):
    with (
        pytest.raises(BusyError, match=r"holds the cohort \(.*lock\); waited 0.2 s"),
        locked(tmp_path / "lock", what="the cohort", timeout=0.2),
    ):
        pass


def test_a_dead_process_holds_nothing(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with locked(tmp_path / "lock", what="the cohort", timeout=5):
        pass


def test_a_lock_is_released_by_an_error(tmp_path):
    with pytest.raises(RuntimeError), locked(tmp_path / "sub" / "lock", what="it"):
        raise RuntimeError
    with locked(tmp_path / "sub" / "lock", what="it", timeout=0):
        pass


def test_two_threads_are_never_inside_together(tmp_path):
    inside, most = [], []

    def work():
        for _ in range(5):
            with locked(tmp_path / "lock", what="it"):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 20


def test_taking_a_lock_twice_is_busy_not_a_deadlock(tmp_path):
    with (
        locked(tmp_path / "lock", what="it"),
        pytest.raises(BusyError, match="waited 0 s"),
        locked(tmp_path / "lock", what="it", timeout=0),
    ):
        pass


# ------------------------------------------------------------------ the disk's refusals


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "no space left while writing here/a"),
        (errno.EDQUOT, "no space left while writing here/a"),
        (errno.EFBIG, "no space left while writing here/a"),
        (errno.EACCES, "not allowed to write here/a"),
        (errno.EROFS, "not allowed to write here/a"),
        (errno.ENOTDIR, "cannot write here/a"),
        (errno.EIO, "cannot write here/a"),
        (errno.ENOTEMPTY, "cannot write here/a"),
    ],
)
def test_a_refusal_names_the_path(code, words):
    with pytest.raises(StorageError, match=words) as caught, storage_errors("here/a"):
        raise OSError(code, os.strerror(code))
    assert os.strerror(code) in str(caught.value)
    assert caught.value.__cause__.errno == code


def test_other_errors_pass():
    with pytest.raises(FileNotFoundError) as caught, storage_errors("here"):
        raise FileNotFoundError(errno.ENOENT, "an input that is not there")
    assert not isinstance(caught.value, MicrotomeError)
    ours = ExistsError("ours")
    with pytest.raises(ExistsError) as caught, storage_errors("here"):
        raise ours
    assert caught.value is ours
