"""The hash of what a source holds: the same for the same bytes, and read once for many images."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import pytest

from microtome.cohort import _fingerprint
from microtome.cohort._fingerprint import fingerprint
from microtome.errors import NotFoundError


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files that were read, in order."""
    found: list[Path] = []
    add = _fingerprint._add

    def noted(digest: Any, path: Path) -> None:
        found.append(path)
        add(digest, path)

    monkeypatch.setattr(_fingerprint, "_add", noted)
    # Files of this test are new, and would not be taken for settled.
    monkeypatch.setattr(_fingerprint, "_SETTLED_NS", 0)
    time.sleep(0.05)
    return found


def test_it_is_the_sha256_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"bytes")
    assert fingerprint(path) == hashlib.sha256(b"bytes").hexdigest()
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "d/e/2").write_bytes(b"two")
    (tmp_path / "d/1").write_bytes(b"one")
    assert fingerprint(tmp_path / "d") == hashlib.sha256(b"1\0onee/2\0two").hexdigest()
    with pytest.raises(NotFoundError, match="does not exist"):
        fingerprint(tmp_path / "none")


def test_what_is_asked_for_again_is_read_once(tmp_path: Path, read: list[Path]) -> None:
    for number in range(5):
        (tmp_path / f"{number}.tiff").write_bytes(bytes([number]))
    time.sleep(0.05)
    first = fingerprint(tmp_path)
    assert len(read) == 5
    assert [fingerprint(tmp_path) for _ in range(4)] == [first] * 4
    assert len(read) == 5


def test_what_was_changed_is_read_again(tmp_path: Path, read: list[Path]) -> None:
    path = tmp_path / "d" / "a"
    path.parent.mkdir()
    path.write_bytes(b"1")
    time.sleep(0.05)
    seen = [fingerprint(path.parent)]
    assert fingerprint(path.parent) == seen[0]
    assert len(read) == 1
    stamp = path.stat()
    path.write_bytes(b"2")  # as long as before, and of the same time
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    seen.append(fingerprint(path.parent))
    path.rename(path.with_name("b"))
    seen.append(fingerprint(path.parent))
    (path.parent / "c").write_bytes(b"")
    seen.append(fingerprint(path.parent))
    (path.parent / "c").unlink()
    assert fingerprint(path.parent) == seen[2]
    assert len(set(seen)) == 4


def test_what_changes_while_it_is_read_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    monkeypatch.setattr(_fingerprint, "_SETTLED_NS", -(10**12))
    add = _fingerprint._add

    def changing(digest: Any, file: Path) -> None:
        add(digest, file)
        file.write_bytes(b"newer")

    monkeypatch.setattr(_fingerprint, "_add", changing)
    fingerprint(path)
    monkeypatch.setattr(_fingerprint, "_add", add)
    assert fingerprint(path) == hashlib.sha256(b"newer").hexdigest()


def test_what_was_changed_just_now_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for number in range(50):
        path.write_bytes(bytes([number]))
        assert fingerprint(path) == hashlib.sha256(bytes([number])).hexdigest()


def test_few_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_fingerprint, "_SETTLED_NS", -(10**12))
    for number in range(_fingerprint._MOST_KEPT + 5):
        (tmp_path / str(number)).write_bytes(bytes([number]))
        fingerprint(tmp_path / str(number))
    assert len(_fingerprint._KEPT) <= _fingerprint._MOST_KEPT
