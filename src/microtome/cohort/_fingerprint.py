"""What a source holds, as one number: the same bytes give the same hash wherever they lie."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from microtome.errors import InvalidInputError, NotFoundError

__all__ = ["fingerprint"]

_BLOCK = 1 << 22
# Of the many images of one file or directory each asks for the same: it would be read as often.
_KEPT: OrderedDict[bytes, str] = OrderedDict()
_MOST_KEPT = 64
# Clocks of file systems are coarse: what was changed just now may be changed again, and look the same.
_SETTLED_NS = 3 * 10**9
_GUARD = threading.Lock()


def fingerprint(source: Any, files: Sequence[Path] = ()) -> str:
    """Return the SHA-256 of a file, of a directory's files with their names, or of an array.

    Parameters
    ----------
    source
        A path, or anything numpy can view.
    files
        Of a path, the files that count. By default it itself, or all that lie in the directory.

    Raises
    ------
    InvalidInputError
        If it is an address.
    NotFoundError
        If the path is not there.
    """
    digest = hashlib.sha256()
    if not isinstance(source, str | os.PathLike):
        array = np.ascontiguousarray(source)
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.data)
        return digest.hexdigest()
    if "://" in os.fspath(source):
        msg = (
            f"{source} is not on this machine and cannot be ingested by its address; open it with "
            "open_image and ingest that"
        )
        raise InvalidInputError(msg)
    path = Path(os.path.abspath(source))  # noqa: PTH100 - links stay what they are
    counted = sorted(Path(os.path.abspath(file)) for file in files) or _parts(path)  # noqa: PTH100
    # One that is alone is what it holds, whatever its name.
    root = None if len(counted) == 1 and not path.is_dir() else _root(path, counted)
    before, changed = _state(path, counted)
    began = time.time_ns()
    with _GUARD:
        if before in _KEPT:
            _KEPT.move_to_end(before)
            return _KEPT[before]
    for part in counted:
        if root is not None:
            digest.update(part.relative_to(root).as_posix().encode() + b"\0")
        _add(digest, part)
    found = digest.hexdigest()
    if changed < began - _SETTLED_NS and _state(path, counted)[0] == before:
        with _GUARD:
            _KEPT[before] = found
            while len(_KEPT) > _MOST_KEPT:
                _KEPT.popitem(last=False)
    return found


def _parts(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        msg = f"{path} does not exist"
        raise NotFoundError(msg)
    return sorted(p for p in path.rglob("*") if p.is_file())


def _root(path: Path, files: Sequence[Path]) -> Path:
    """Return the directory from which files have their names."""
    if path.is_dir() and all(file.is_relative_to(path) for file in files):
        return path
    return Path(os.path.commonpath([file.parent for file in files]))


def _state(path: Path, files: Sequence[Path]) -> tuple[bytes, int]:
    """Return what tells files from those that have been changed since, and when they last were."""
    digest = hashlib.sha256(os.fsencode(path.absolute()))
    latest = 0
    for part in files:
        try:
            found = part.stat()
        except FileNotFoundError as error:
            msg = f"{part} does not exist"
            raise NotFoundError(msg) from error
        numbers = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        latest = max(latest, found.st_mtime_ns, found.st_ctime_ns)
        digest.update(f"\0{part}\0{numbers}".encode("utf-8", "surrogateescape"))
    return digest.digest(), latest


def _add(digest: Any, path: Path) -> None:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
