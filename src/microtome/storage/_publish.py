"""Nothing half-written is ever opened: write beside, then rename.

A directory is built under a hidden name next to its target and renamed when it is complete. Its
root metadata, without which no reader takes it for an image, is kept under another name until
after that rename, so that a process killed at any moment leaves nothing that opens. What a dead
process left is recognized by its lock, which the operating system has released, and removed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from microtome.errors import BusyError, ExistsError, FormatError, NotFoundError, StorageError

__all__ = [
    "Draft",
    "is_group",
    "locked",
    "read_group",
    "replace_file",
    "storage_errors",
    "write_group",
]

_PENDING = "zarr.json.pending"
_LOCK = ".writer.lock"


class Draft:
    """A directory that is being written and is not there until `publish`.

    Parameters
    ----------
    target
        Where the directory will be.
    overwrite
        Whether an existing directory may be replaced.

    Raises
    ------
    ExistsError
        If the target holds something and `overwrite` is false.
    """

    def __init__(self, target: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        self.target = Path(target)
        self._overwrite = overwrite
        if not overwrite and is_group(self.target):
            msg = f"{self.target} exists already; choose another place or allow overwriting"
            raise ExistsError(msg)
        with storage_errors(self.target):
            self.target.parent.mkdir(parents=True, exist_ok=True)
            _sweep(self.target)
            self.path = self.target.parent / f"{_prefix(self.target)}{uuid.uuid4().hex[:12]}"
            self.path.mkdir()
            self._lock = FileLock(self.path / _LOCK)
            self._lock.acquire(timeout=0)

    def write_root(self, attributes: Mapping[str, Any]) -> None:
        """Write the root group's metadata; it takes effect with `publish`."""
        _write_json(self.path / _PENDING, _group_document(attributes))

    def publish(self) -> None:
        """Make the directory appear at its target, whole."""
        with storage_errors(self.target):
            self._lock.release()
            (self.path / _LOCK).unlink(missing_ok=True)
            replaced = None
            if self.target.exists():
                if is_group(self.target) and not self._overwrite:
                    self.discard()
                    msg = f"{self.target} was made by another process meanwhile"
                    raise ExistsError(msg)
                # Not in one step, but the gap shows no image rather than half of one.
                replaced = self.target.parent / f"{_aside(self.target)}{uuid.uuid4().hex[:12]}"
                self.target.rename(replaced)
            self.path.rename(self.target)
            pending = self.target / _PENDING
            if pending.exists():
                pending.replace(self.target / "zarr.json")
            _sync_directory(self.target)
            _sync_directory(self.target.parent)
            if replaced is not None:
                shutil.rmtree(replaced, ignore_errors=True)

    def discard(self) -> None:
        """Remove what was written."""
        self._lock.release()
        shutil.rmtree(self.path, ignore_errors=True)


def is_group(path: str | os.PathLike[str]) -> bool:
    """Whether a directory is a Zarr group, v2 or v3."""
    directory = Path(path)
    return (directory / "zarr.json").is_file() or (directory / ".zgroup").is_file()


def read_group(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the attributes of a Zarr group, v2 or v3.

    Raises
    ------
    NotFoundError
        If there is no group at the path.
    FormatError
        If its metadata is not JSON, or is an array's.
    """
    directory = Path(path)
    if not directory.exists():
        msg = f"{directory} does not exist"
        raise NotFoundError(msg)
    modern, old = directory / "zarr.json", directory / ".zgroup"
    if modern.is_file():
        document = _read_json(modern)
        if document.get("node_type") != "group":
            msg = f"{directory} is a Zarr {document.get('node_type')}, not a group"
            raise FormatError(msg)
        attributes = document.get("attributes", {})
    elif old.is_file():
        attributes = _read_json(directory / ".zattrs") if (directory / ".zattrs").is_file() else {}
    else:
        msg = f"{directory} is no Zarr group: it has neither zarr.json nor .zgroup"
        raise NotFoundError(msg)
    if not isinstance(attributes, dict):
        msg = f"{directory}: group attributes must be an object, got {type(attributes).__name__}"
        raise FormatError(msg)
    return attributes


def write_group(path: str | os.PathLike[str], attributes: Mapping[str, Any]) -> None:
    """Write a Zarr v3 group's metadata in one step, replacing what was there."""
    with storage_errors(Path(path)):
        Path(path).mkdir(parents=True, exist_ok=True)
        with replace_file(Path(path) / "zarr.json") as temporary:
            _write_json(temporary, _group_document(attributes))


@contextmanager
def replace_file(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a path to write to that becomes `target` when the block ends without an error."""
    final = Path(target)
    with storage_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = final.parent / f".{final.name}.{uuid.uuid4().hex[:12]}.partial"
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(final)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_directory(final.parent)


@contextmanager
def locked(path: str | os.PathLike[str], *, what: str, timeout: float = 60.0) -> Iterator[None]:
    """Hold a lock file: one writer at a time, and none left behind by a dead process.

    Parameters
    ----------
    path
        The lock file; it stays, only the operating system's lock on it counts.
    what
        What is held, for the message.
    timeout
        Seconds to wait.

    Raises
    ------
    BusyError
        If another process holds it for longer.
    """
    with storage_errors(Path(path)):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=timeout)
        except Timeout as error:
            msg = f"another process holds {what} ({path}); waited {timeout:g} s"
            raise BusyError(msg) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into a `StorageError` that names the path."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            msg = f"no space left while writing {path}; free some and run it again"
        elif error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            msg = f"not allowed to write {path}: {error.strerror}"
        elif error.errno in {errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EIO}:
            msg = f"cannot write {path}: {error.strerror}"
        else:
            raise
        raise StorageError(msg) from error


def _prefix(target: Path) -> str:
    return f".{target.name}.partial-"


def _aside(target: Path) -> str:
    return f".{target.name}.replaced-"


def _sweep(target: Path) -> None:
    """Remove drafts of the same target whose writers are dead."""
    for old in target.parent.glob(f"{_aside(target)}*"):
        # A writer died between moving the old one aside and the new one in: nothing is lost.
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(target)
    for left in target.parent.glob(f"{_prefix(target)}*"):
        if not (left / _LOCK).exists():
            continue  # its writer is about to take the lock
        lock = FileLock(left / _LOCK)
        with contextlib.suppress(Timeout, OSError):
            lock.acquire(timeout=0)
            shutil.rmtree(left, ignore_errors=True)
            lock.release()


def _group_document(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(document, file, indent=2, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        msg = f"{path} is not JSON: {error}"
        raise FormatError(msg) from error
    if not isinstance(document, dict):
        msg = f"{path} must hold a JSON object, got {type(document).__name__}"
        raise FormatError(msg)
    return document


def _sync_directory(path: Path) -> None:
    # Without it a rename can be lost with the power; not every file system allows it.
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
