"""What all runs share that a killed one may leave something to: one at a time, and the same settings."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from microtome.errors import BusyError, ExistsError
from microtome.storage import storage_errors

__all__ = ["Claim", "verify_settings"]


class Claim:
    """A place that one process predicts to; its lock file is gone when it is given up.

    Parameters
    ----------
    out
        Where the result will be.
    path
        What a killed run leaves there.

    Raises
    ------
    BusyError
        If another process is at work on the same result.
    StorageError
        If the disk refuses.
    """

    def __init__(self, out: Path, path: Path) -> None:
        with storage_errors(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            # Images are predicted by threads, too, and closed by another one after an error.
            self._lock = FileLock(path.with_name(f"{path.name}.lock"), thread_local=False)
            try:
                self._lock.acquire(timeout=0)
            except Timeout as error:
                msg = f"another process is predicting {out}; wait for it, or choose another place"
                raise BusyError(msg) from error

    def release(self) -> None:
        """Give it up."""
        # Removed while it is held: who waits for it sees that the file is gone, and makes another.
        with contextlib.suppress(OSError):
            Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()


def verify_settings(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse to go on with a run of other settings.

    Raises
    ------
    ExistsError
        If one of them differs; the message says which, and how.
    """
    other = sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))
    if other:
        told = "; ".join(
            f"{key}: {found.get(key)!r} then, {wanted.get(key)!r} now" for key in other
        )
        msg = (
            f"a run with other settings was left at {path} ({told}); go on with the same "
            "settings, or start over with resume=False"
        )
        raise ExistsError(msg)
