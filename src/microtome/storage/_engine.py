"""The array engine (TensorStore): one a process, not for forked children, its errors in our words."""

from __future__ import annotations

import os
import re
import threading
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

from ._options import StorageOptions

__all__ = ["ENGINE", "Engine", "engine_errors"]


class Engine:
    """The array engine of this process: its contexts, and which process its threads are in."""

    def __init__(self) -> None:
        self._pid: int | None = None
        self._lock = threading.Lock()
        self._base: ts.Context | None = None
        self._contexts: dict[StorageOptions, ts.Context] = {}

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

    def context(self, path: object, options: StorageOptions | None = None) -> ts.Context:
        """Return the context to open arrays with; from here on this process owns the engine.

        There is one for every distinct value of `options`: it holds their cache and their threads.
        """
        self.verify(path)
        self._pid = os.getpid()
        chosen = options or _USUAL
        # One thread at a time: two contexts of equal options would be two caches.
        with self._lock:
            if self._base is None:
                for name, value in _SILENCE.items():
                    os.environ.setdefault(name, value)
                self._base = ts.Context({"memory_key_value_store": {}})
            context = self._contexts.get(chosen)
            if context is None:
                # With a parent, so that what is in memory:// is there whatever the options.
                context = ts.Context(chosen.engine_context, self._base)
                self._contexts[chosen] = context
        return context


# Nothing decoded is kept: readers keep what they need, memory stays bounded.
_USUAL = StorageOptions()

# A server that takes a request and then says nothing would be waited for without end: after this
# many seconds the request has failed, and is repeated as any other. The engine asks its environment.
_SILENCE = {
    "TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS": "20",
    "TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES": "1",
}

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
    except (ValueError, OSError, NotImplementedError) as error:
        text = str(error)
        match = _STATUS.fullmatch(text)
        status, rest = (match[1], match[2]) if match else ("", text)
        reason = rest.split(" [", 1)[0].strip() or text
        if status == "NOT_FOUND":
            msg = f"{path}: {reason}"
            raise NotFoundError(msg) from error
        if "was ignored by server" in text:
            # Nothing is damaged: the server is none that parts of a file can be had of.
            msg = (
                f"{path}: the server answers requests for a part of a file with the whole of it "
                "(it ignores the header Range), so images cannot be read from it piece by piece; "
                "use a server that answers ranges, or copy the image here"
            )
            raise StorageError(msg) from error
        if status == "ALREADY_EXISTS":
            msg = f"{path} exists already"
            raise ExistsError(msg) from error
        # The status of a refusal by the operating system is a matter of taste: a file that grew
        # past the limit is "out of range", which otherwise means damaged data.
        if (status in _FORMAT or "ZIP" in reason) and "os_error_code=" not in text:
            msg = f"{path} is damaged or not an array that can be read: {reason}"
            raise FormatError(msg) from error
        msg = f"{path}: {reason}"
        raise StorageError(msg) from error
