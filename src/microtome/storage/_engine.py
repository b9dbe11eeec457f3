"""The array engine (TensorStore): one a process, not for forked children, its errors in our words."""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from contextlib import contextmanager

import tensorstore as ts

from microtome.errors import (
    ExistsError,
    FormatError,
    MicrotomeError,
    ModeError,
    NotFoundError,
    StorageError,
)

__all__ = ["ENGINE", "Engine", "engine_errors"]


class Engine:
    """The array engine of this process: its context, and which process its threads are in."""

    def __init__(self) -> None:
        self._pid: int | None = None
        self._context: ts.Context | None = None

    def verify(self, path: object) -> None:
        """Refuse to work in a child that was forked after the engine had started.

        Its threads are not there; the engine itself would abort the process, without a word of
        what to do instead.
        """
        if self._pid is not None and self._pid != os.getpid():
            msg = (
                f"{path}: the array engine was used in process {self._pid}, from which process "
                f"{os.getpid()} was forked, and does not survive that. Start workers with the "
                "'spawn' or 'forkserver' method, or use microtome.TileLoader, which needs none"
            )
            raise ModeError(msg)

    def context(self, path: object) -> ts.Context:
        """Return the context to open arrays with; from here on this process owns the engine."""
        self.verify(path)
        self._pid = os.getpid()
        if self._context is None:
            self._context = ts.Context(
                {
                    # Nothing decoded is kept: readers keep what they need, memory stays bounded.
                    "cache_pool": {"total_bytes_limit": 0},
                    "http_request_retries": _RETRIES,
                    "s3_request_retries": _RETRIES,
                }
            )
        return self._context


# The engine's own default goes on for ten minutes, which looks like hanging.
_RETRIES = {"max_retries": 6, "initial_delay": "100ms", "max_delay": "3s"}

ENGINE = Engine()

_STATUS = re.compile(r"([A-Z_]+): (.*)", re.DOTALL)
_FORMAT = frozenset({"DATA_LOSS", "FAILED_PRECONDITION", "INVALID_ARGUMENT", "OUT_OF_RANGE"})


@contextmanager
def engine_errors(path: object) -> Generator[None]:
    """Turn the engine's errors, all ValueErrors that begin with a status word, into ours."""
    try:
        yield
    except MicrotomeError:
        raise
    except (ValueError, OSError) as error:
        text = str(error)
        match = _STATUS.fullmatch(text)
        status, rest = (match[1], match[2]) if match else ("", text)
        reason = rest.split(" [", 1)[0].strip() or text
        if status == "NOT_FOUND":
            msg = f"{path}: {reason}"
            raise NotFoundError(msg) from error
        if status == "ALREADY_EXISTS":
            msg = f"{path} exists already"
            raise ExistsError(msg) from error
        # The status of a refusal by the operating system is a matter of taste: a file that grew
        # past the limit is "out of range", which otherwise means damaged data.
        if status in _FORMAT and "os_error_code=" not in text:
            msg = f"{path} is damaged or not an array that can be read: {reason}"
            raise FormatError(msg) from error
        msg = f"{path}: {reason}"
        raise StorageError(msg) from error
