"""What is kept on disk of remote stores: whole or not there, of its generation, within its bound."""

from __future__ import annotations

import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from microtome.errors import InvalidInputError, StorageError
from microtome.storage import DiskCache, StorageOptions
from microtome.storage._disk_cache import CachedParts

FILE = "remote-bytes.sqlite"
ROOM = 2**20


def kept(path: Path, limit: int = ROOM) -> CachedParts:
    return CachedParts(DiskCache(path, limit))


def test_what_is_no_cache_is_refused(tmp_path: Path) -> None:
    for path, limit in (
        ("", ROOM),
        (3, ROOM),
        (tmp_path, 5),
        (tmp_path, 2.0**30),
        (tmp_path, True),
    ):
        with pytest.raises(InvalidInputError, match="a cache on disk"):
            DiskCache(path, limit)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="disk_cache must be"):
        StorageOptions(disk_cache=str(tmp_path))  # type: ignore[arg-type]
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="file"):
        kept(tmp_path / "file" / "inside")


def test_a_cache_is_a_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cache = DiskCache("here", ROOM)
    assert cache == pickle.loads(pickle.dumps(cache)) == DiskCache(tmp_path / "here", ROOM)
    assert len({cache, DiskCache(tmp_path / "here", ROOM)}) == 1


def test_parts_are_those_of_their_file_and_generation(tmp_path: Path) -> None:
    parts = kept(tmp_path)
    assert parts.file("a") is None
    number = parts.put("a", b"1", {0: b"zero", 7: b""})
    assert number is not None
    parts.put("../../b", b"1", {0: b"another"})
    assert parts.file("a") == (number, b"1")
    assert parts.get(number, [0, 1, 7]) == {0: b"zero", 7: b""}
    assert {p.name for p in tmp_path.iterdir()} <= {FILE, f"{FILE}-wal", f"{FILE}-shm"}
    # Another process sees the same, and what replaced it.
    other = kept(tmp_path)
    assert other.get(number, [0]) == {0: b"zero"}
    newer = other.put("a", b"2", {0: b"new"})
    assert newer not in {None, number}
    assert parts.get(number, [0]) == {}
    assert parts.file("a") == (newer, b"2")
    parts.forget("a")
    assert other.file("a") is None


@settings(max_examples=20)
@example([(number % 6, 1500 * number % 40_000) for number in range(120)])
@example([(0, 3000)] * 120)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40_000)), max_size=120))
def test_it_stays_within_its_bound_and_never_says_what_was_not_put(
    tmp_path_factory: pytest.TempPathFactory, puts: list[tuple[int, int]]
) -> None:
    directory = tmp_path_factory.mktemp("cache")
    parts = kept(directory)
    wanted: dict[tuple[int, int], bytes] = {}
    for number, (file, size) in enumerate(puts):
        data = number.to_bytes(4, "little") * (size // 4 + 1)
        wanted[file, number] = data
        parts.put(f"file{file}", b"g", {number: data})
        assert (
            sum(p.stat().st_size for p in directory.iterdir() if "shm" not in p.name) <= ROOM * 1.1
        )
    for (file, number), data in wanted.items():
        found = parts.file(f"file{file}")
        assert found is None or parts.get(found[0], [number]).get(number, data) == data


def test_what_was_used_last_stays(tmp_path: Path) -> None:
    parts = kept(tmp_path)
    first = parts.put("first", b"g", {0: b"1" * 50_000})
    assert first is not None
    for number in range(60):
        assert parts.get(first, [0]), number
        time.sleep(0.002)
        parts.put("others", b"g", {number: bytes(20_000)})
    others = parts.file("others")
    assert others is not None
    left = parts.get(others[0], range(60))
    assert 10 < len(left) < 60, "everything fitted, or nothing did"
    assert 59 in left
    assert 0 not in left


def test_a_smaller_bound_shrinks_it(tmp_path: Path) -> None:
    parts = kept(tmp_path, 16 * ROOM)
    parts.put("a", b"g", {n: os.urandom(50_000) for n in range(100)})
    smaller = kept(tmp_path, 2 * ROOM)
    assert smaller.file("a") is not None
    assert (tmp_path / FILE).stat().st_size <= 2 * ROOM


def test_damage_is_not_served(tmp_path: Path) -> None:
    parts = kept(tmp_path)
    number = parts.put("a", b"g", {0: b"right", 1: b"also right"})
    assert number is not None
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("UPDATE bodies SET data = ? WHERE data = ?", (b"wrong", b"right"))
    assert parts.get(number, [0, 1]) == {1: b"also right"}
    # And is put again.
    assert parts.put("a", b"g", {0: b"right"}) == number
    assert parts.get(number, [0]) == {0: b"right"}


@pytest.mark.parametrize("damage", ["text", "zeros", "cut", "middle"])
def test_a_damaged_file_is_begun_anew(tmp_path: Path, damage: str) -> None:
    first = kept(tmp_path)
    first.put("a", b"g", {n: os.urandom(30_000) for n in range(10)})
    assert first._connection is not None
    first._connection.close()
    file = tmp_path / FILE
    data = bytearray(file.read_bytes())
    if damage == "text":
        data = bytearray(b"this is no database" * 100)
    elif damage == "zeros":
        data[: len(data) // 2] = bytes(len(data) // 2)
    elif damage == "cut":
        del data[len(data) // 2 :]
    else:
        data[4096 : len(data) // 2] = os.urandom(len(data) // 2 - 4096)
    file.write_bytes(data)
    parts = kept(tmp_path)
    found = parts.file("a")
    assert found is None or len(parts.get(found[0], range(10))) < 10
    number = parts.put("b", b"g", {0: b"right"})
    number = number or parts.put("b", b"g", {0: b"right"})
    assert number is not None
    assert parts.get(number, [0]) == {0: b"right"}


def test_a_disk_that_refuses_does_not_fail_a_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parts = kept(tmp_path)
    parts.put("a", b"g", {0: b"right"})
    assert parts._connection is not None
    parts._connection.execute("PRAGMA query_only = 1")
    assert parts.put("b", b"g", {0: b"right"}) is None
    assert parts.put("c", b"g", {0: b"right"}) is None
    assert parts.file("a") is not None
    assert len(caplog.records) == 1
    assert "read without being kept" in caplog.text


WRITER = """
import os, sys
from microtome.storage import DiskCache
from microtome.storage._disk_cache import CachedParts
parts = CachedParts(DiskCache(sys.argv[1], 4 * 2**20))
number = 0
while True:
    file = number % 7
    parts.put(f"f{file}", b"g", {number % 97: bytes([file]) * (1000 * (number % 97) + 1)})
    number += 1
    print(number, flush=True)
"""


def test_processes_that_are_killed_leave_what_is_whole(tmp_path: Path) -> None:
    running = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    for process in running:
        assert process.stdout is not None
        for _ in range(120):
            process.stdout.readline()
    for process in running:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    parts = kept(tmp_path, 4 * ROOM)
    count = 0
    for file in range(7):
        found = parts.file(f"f{file}")
        assert found is not None
        for part, data in parts.get(found[0], range(97)).items():
            assert data == bytes([file]) * (1000 * part + 1)
            count += 1
    assert count > 20
