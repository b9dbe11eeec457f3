"""What a source holds, as one number: the same bytes give the same hash wherever they lie."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from microtome.errors import InvalidInputError, NotFoundError

__all__ = ["fingerprint"]

_BLOCK = 1 << 22


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
    if path.is_file():
        _add(digest, path)
    elif path.is_dir():
        for part in sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(part.relative_to(path).as_posix().encode() + b"\0")
            _add(digest, part)
    else:
        msg = f"{path} does not exist"
        raise NotFoundError(msg)
    return digest.hexdigest()


def _add(digest: Any, path: Path) -> None:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
