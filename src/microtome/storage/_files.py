"""Single files: replaced in one step, locked for one writer, and the disk's refusals in our words."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from microtome.errors import BusyError, ExistsError, MicrotomeError, StorageError

from ._addresses import verify_here

__all__ = ["locked", "replace_file", "storage_errors", "sync_directory", "verify_free"]

# EFBIG: a limit on the size of a file, which some quotas are.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_UNFIT = frozenset(
    {
        errno.EEXIST,
        errno.EIO,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOTDIR,
        errno.ENOTEMPTY,
    }
)


@contextmanager
def storage_errors(path: Path) -> Generator[None]:
    """Turn what the disk refuses into a `StorageError` that names the path."""
    try:
        yield
    except MicrotomeError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            msg = (
                f"no space left while writing {path} ({error.strerror}); free some and run it again"
            )
        elif error.errno in _DENIED:
            msg = f"not allowed to write {path}: {error.strerror}"
        elif error.errno in _UNFIT:
            msg = f"cannot write {path}: {error.strerror}"
        else:
            raise
        raise StorageError(msg) from error


@contextmanager
def replace_file(target: str | os.PathLike[str]) -> Generator[Path]:
    """Give a path to write to that becomes `target` when the block ends without an error."""
    final = Path(target)
    verify_here(final)
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
        sync_directory(final.parent)


def verify_free(path: Path, *, overwrite: bool) -> None:
    """Refuse to write a file where there is something, unless it is a file that may be replaced.

    Raises
    ------
    ExistsError
        If there is something at `path`, unless it is a file and `overwrite` is true.
    InvalidInputError
        If it is the address of a store.
    """
    verify_here(path)
    if path.exists() and not (overwrite and path.is_file()):
        hint = " or allow overwriting (--overwrite, overwrite=True)" if path.is_file() else ""
        msg = f"{path} exists already; choose another place{hint}"
        raise ExistsError(msg)


@contextmanager
def locked(path: str | os.PathLike[str], *, what: str, timeout: float = 60.0) -> Generator[None]:
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
        If another holds it for longer, in this process or in another.
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


def sync_directory(path: Path) -> None:
    """Make what was renamed in a directory outlive a loss of power, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
