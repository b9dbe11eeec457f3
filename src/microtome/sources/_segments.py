"""Decoded segments of files, kept as long as they fit: neighbouring windows share them.

A window of a slide touches up to four tiles where it lies between them, each of which is decoded
for up to four windows. What is kept is bounded for the whole process, however many files are open.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from typing import Any, Generic, Protocol, TypeVar

from numpy.typing import NDArray

__all__ = ["SEGMENTS", "Segments", "new_owner"]

_BYTES = 64 << 20

# One that is larger would push out everything else.
_LARGEST = 8

_Key = tuple[int, int, int]


class _Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


_Kept = TypeVar("_Kept", bound=_Sized)

_owners = itertools.count()


def new_owner() -> int:
    """Return a number that no other array of the process has."""
    return next(_owners)


class Segments(Generic[_Kept]):
    """The segments that were used last, or what is known of them.

    Parameters
    ----------
    most_bytes
        What they may take together.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._taken = 0
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()
        self._guard = threading.Lock()

    @property
    def taken(self) -> int:
        """Bytes that are kept."""
        return self._taken

    def get(self, key: _Key) -> _Kept | None:
        """Return a segment, None if it is not kept. It is shared, and not to be written."""
        with self._guard:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def keep(self, key: _Key, pixels: _Kept) -> None:
        """Keep a segment, and forget those used longest ago that no longer fit."""
        if pixels.nbytes * _LARGEST > self._most:
            return
        with self._guard:
            if key in self._kept:
                return
            self._kept[key] = pixels
            self._taken += pixels.nbytes
            while self._taken > self._most:
                _, gone = self._kept.popitem(last=False)
                self._taken -= gone.nbytes

    def forget(self, owner: int) -> None:
        """Forget the segments of an array that nobody has any more."""
        with self._guard:
            for key in [key for key in self._kept if key[0] == owner]:
                self._taken -= self._kept.pop(key).nbytes


SEGMENTS: Segments[NDArray[Any]] = Segments(_BYTES)
