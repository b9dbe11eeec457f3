"""Which files a block of code opens, whatever opens them: the system tells, where it is Linux."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["OpenedFiles"]

_OPEN, _IS_FOLDER = 0x20, 0x4000_0000
_HEADER = struct.Struct("iIII")


class OpenedFiles:
    """Counts the files below a folder that are opened while the block runs, each once.

    Parameters
    ----------
    folder
        Every folder in it is watched.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._watch = -1
        self.count: int | None = None
        """How many, when the block has ended; None where the system does not tell."""

    def __enter__(self) -> Self:
        if sys.platform == "linux":
            system = ctypes.CDLL(None, use_errno=True)
            self._watch = system.inotify_init1(os.O_NONBLOCK)
            for inside in (self._folder, *(p for p in self._folder.rglob("*") if p.is_dir())):
                system.inotify_add_watch(self._watch, os.fsencode(inside), _OPEN)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._watch < 0:
            return
        opened: set[tuple[int, bytes]] = set()
        with suppress(BlockingIOError):
            while events := os.read(self._watch, 1 << 16):
                at = 0
                while at < len(events):
                    folder, mask, _, length = _HEADER.unpack_from(events, at)
                    at += _HEADER.size
                    if not mask & _IS_FOLDER:
                        opened.add((folder, events[at : at + length]))
                    at += length
        os.close(self._watch)
        self.count = len(opened)
