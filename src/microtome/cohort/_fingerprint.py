"""What a source holds, as one number: the same bytes give the same hash wherever they lie."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import OrderedDict
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


def fingerprint(source: Any) -> str:
    """Return the SHA-256 of a file, of a directory's files with their names, or of an array.

    Parameters
    ----------
    source
        A path, or anything numpy can view.

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
    path = Path(source)
    before, changed = _state(path)
    began = time.time_ns()
    with _GUARD:
        if before in _KEPT:
            _KEPT.move_to_end(before)
            return _KEPT[before]
    if path.is_file():
        _add(digest, path)
    else:
        for part in _parts(path):
            digest.update(part.relative_to(path).as_posix().encode() + b"\0")
            _add(digest, part)
    found = digest.hexdigest()
    if changed < began - _SETTLED_NS and _state(path)[0] == before:
        with _GUARD:
            _KEPT[before] = found
            while len(_KEPT) > _MOST_KEPT:
                _KEPT.popitem(last=False)
    return found


def _parts(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file())


def _state(path: Path) -> tuple[bytes, int]:
    """Return what tells a file or directory from one that has been changed since, and when it last was."""
    if not path.is_file() and not path.is_dir():
        msg = f"{path} does not exist"
        raise NotFoundError(msg)
    digest = hashlib.sha256(os.fsencode(path.absolute()))
    latest = 0
    for part in [path] if path.is_file() else _parts(path):
        found = part.stat()
        numbers = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        latest = max(latest, found.st_mtime_ns, found.st_ctime_ns)
        digest.update(f"\0{part}\0{numbers}".encode("utf-8", "surrogateescape"))
    return digest.digest(), latest


def _add(digest: Any, path: Path) -> None:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
