"""Gets hold of compiled calls, when so much is read or written that it pays."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._blosc_frames import lz4

__all__ = ["TURNED_ROWS", "Compiled", "Compiler", "compiled_frames", "compiled_reads", "jit"]

_log = logging.getLogger(__name__)

TURNED_ROWS = 16
"""Rows that are turned together: as many float32 as a line of the processor's cache has."""

# Loading takes the time in which so many bytes are worked on without, and the first batches wait
# for whoever loads beside them.
_WORTH = 1 << 28
# Seconds that are waited for it, in all: enough to load it, not to compile it.
_PATIENCE = 1.5


class Compiled(NamedTuple):
    """A compiled call, and the addresses of what it calls."""

    kernel: Any
    calls: NDArray[np.int64]


class Compiler:
    """Gets hold of a compiled call, beside whoever works without it meanwhile.

    Loading it takes half a second, and compiling it, once for an installation, some seconds.

    Parameters
    ----------
    make
        Makes the call, by importing it; None where there is none. Not called without Numba.
    worth
        Bytes that are worked on without it before it pays to import Numba.
    """

    def __init__(self, make: Callable[[], Compiled | None], worth: int = _WORTH) -> None:
        self.seen = 0
        self._make, self._worth = make, worth
        self._lock = threading.Lock()
        self._begun: threading.Thread | None = None
        self._patience = _PATIENCE
        self._found: Compiled | None = None

    def after(self, size: int) -> Compiled | None:
        """Return the call once it is there; `size` bytes more are worked on now."""
        if self._found is None and self._begun is None:
            self.seen += size
            if self.seen > self._worth:
                self._begin()
        return self._found

    def soon(self) -> Compiled | None:
        """Return the call if it is being loaded and there in a moment, which is all that is waited for.

        Whoever goes on without it meanwhile takes several times as long, and holds up the loading.
        """
        begun = self._begun
        if begun is not None and self._found is None and self._patience > 0:
            asked = perf_counter()
            begun.join(self._patience)
            self._patience -= perf_counter() - asked
        return self._found

    def expect(self, size: int) -> None:
        """Begin to load the call, if so many bytes are going to be worked on."""
        if size > self._worth:
            self._begin()

    def load(self) -> Compiled | None:
        """Return the call, and wait until it is there; None where there is no Numba."""
        self._begin().join()
        return self._found

    def _begin(self) -> threading.Thread:
        with self._lock:
            if self._begun is None:
                self._begun = threading.Thread(target=self._work, name="microtome-compiler")
                self._begun.start()
            return self._begun

    def _work(self) -> None:
        try:
            if find_spec("numba") is not None:
                self._found = self._make()
        except Exception as error:  # noqa: BLE001 - whatever Numba cannot do here is done without
            _log.warning(
                "work goes on without compiled code, which Numba could not make: %s", error
            )


def jit(function: Any, signature: Any = None, **options: Any) -> Any:
    """Compile a function by Numba, to run outside Python's lock, and keep the code for other processes.

    Parameters
    ----------
    function
        What is compiled: now, where its signature is given, else when it is first called.
    signature
        Of Numba's types; or several.
    options
        Of `numba.njit`.
    """
    numba: Any = import_module("numba")
    given = () if signature is None else (signature,)
    try:
        return numba.njit(*given, nogil=True, cache=True, **options)(function)
    except RuntimeError:
        # No place to keep what was compiled: an installation that cannot be written, without a home.
        return numba.njit(*given, nogil=True, **options)(function)


def compiled_reads() -> Compiled | None:
    """Return the call that reads chunks."""
    calls: Any = import_module("microtome.storage._compiled_calls")
    found = calls.libraries()
    if found is None:
        return None
    chunks: Any = import_module("microtome.storage._compiled_chunks")
    return Compiled(chunks.read_chunks, np.asarray(found, np.int64))


def compiled_frames() -> Compiled | None:
    """Return the call that compresses rows of chunks."""
    calls: Any = import_module("microtome.storage._compiled_calls")
    found = lz4()
    if found is None or not calls.is_possible():
        return None
    frames: Any = import_module("microtome.storage._compiled_frames")
    return Compiled(frames.make_frames, np.asarray(found, np.int64))
