"""Gets hold of the compiled call that reads chunks, when enough is read that it pays."""

from __future__ import annotations

import logging
import threading
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["TURNED_ROWS", "Compiled", "Compiler"]

_log = logging.getLogger(__name__)

TURNED_ROWS = 16
"""Rows that are turned together: as many float32 as a line of the processor's cache has."""

# Bytes that are decoded by a loop before it pays to import Numba.
_WORTH = 1 << 26


class Compiled(NamedTuple):
    """The compiled call, and the addresses of what it calls."""

    kernel: Any
    calls: NDArray[np.int64]


class Compiler:
    """Gets hold of the compiled call, beside whoever reads without it meanwhile.

    Loading it takes half a second, and compiling it, once for an installation, some seconds.
    """

    def __init__(self) -> None:
        self.seen = 0
        self._lock = threading.Lock()
        self._begun: threading.Thread | None = None
        self._found: Compiled | None = None

    def after(self, decoded: int) -> Compiled | None:
        """Return the call once it is there; `decoded` bytes more are read now."""
        if self._found is None and self._begun is None:
            self.seen += decoded
            if self.seen > _WORTH:
                self._begin()
        return self._found

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
            if find_spec("numba") is None:
                return
            calls: Any = import_module("microtome.storage._compiled_calls")
            found = calls.libraries()
            if found is None:
                return
            chunks: Any = import_module("microtome.storage._compiled_chunks")
        except Exception as error:  # noqa: BLE001 - whatever Numba cannot do here is done without
            _log.warning("reads go on without compiled code, which Numba could not make: %s", error)
            return
        self._found = Compiled(chunks.read_chunks, np.asarray(found, np.int64))
