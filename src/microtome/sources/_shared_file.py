"""One open file for any number of threads: bytes are read at a place, without a position to share."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from microtome.errors import FormatError, InvalidInputError, NotFoundError, StorageError

__all__ = ["SharedFile"]

# What is read of less is asked for without a look at how much there is.
_LARGE, _FAR = 1 << 20, 1 << 62


class SharedFile:
    """A file that is opened when it is first read, and closed when nobody has it any more.

    Parameters
    ----------
    path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._number: int | None = None
        self._guard = threading.Lock()

    @contextmanager
    def reading(self) -> Generator[int]:
        """Give the descriptor, for `os.pread`; what the disk refuses meanwhile is a `StorageError`."""
        try:
            yield self._descriptor()
        except FileNotFoundError as error:
            msg = f"{self.path} does not exist any more"
            raise NotFoundError(msg) from error
        except OSError as error:
            msg = f"{self.path} cannot be read: {error.strerror}"
            raise StorageError(msg) from error

    def read(self, start: int, size: int) -> bytes:
        """Read bytes.

        Parameters
        ----------
        start, size
            Where they begin, and how many.

        Raises
        ------
        FormatError
            If the file ends before them.
        StorageError
            If the disk refuses.
        """
        with self.reading() as number:
            # Of what a damaged file claims, neither memory nor a number that the system has none for.
            if (size > _LARGE or start >= _FAR) and start + size > os.fstat(number).st_size:
                msg = f"{self.path} is cut short: {size} bytes at {start} are not all there"
                raise FormatError(msg)
            found = os.pread(number, size, start)
            while len(found) < size:  # one call returns at most 2 GiB
                more = os.pread(number, size - len(found), start + len(found))
                if not more:
                    break
                found += more
        if len(found) < size:
            msg = f"{self.path} is cut short: {size} bytes at {start} are not all there"
            raise FormatError(msg)
        return found

    def _descriptor(self) -> int:
        with self._guard:
            if self._number is None:
                self._number = os.open(self.path, os.O_RDONLY)
            return self._number

    def __del__(self) -> None:
        if getattr(self, "_number", None) is not None:
            os.close(self._number)  # type: ignore[arg-type]

    def __reduce__(self) -> tuple[Any, ...]:
        msg = f"{self.path}: open the file in the other process instead of sending it there"
        raise InvalidInputError(msg)
