"""What was made is kept while it fits, and made once however many ask for it at the same time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["Kept"]

_T = TypeVar("_T")


class Kept(Generic[_T]):
    """The values that were used last, bounded by their sizes together.

    Parameters
    ----------
    most
        Most that is kept, in the unit of `size`; a value beyond it is made and not kept.
    size
        Size of a value; 1 each by default.
    """

    def __init__(self, most: int, size: Callable[[_T], int] = lambda _: 1) -> None:
        self._most = most
        self._size = size
        self._held: OrderedDict[Hashable, _T] = OrderedDict()
        self._sum = 0
        self._lock = threading.Lock()
        self._making: dict[Hashable, threading.Lock] = {}

    @property
    def held(self) -> int:
        """Size of all that is kept."""
        return self._sum

    def get(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """Return the value of a key, made now where it is not kept.

        Parameters
        ----------
        key
            What is asked for.
        make
            Makes it; what it raises is raised, and nothing is kept.
        """
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                if key in self._held:  # another thread made it meanwhile
                    return self._held[key]
            try:
                value = make()
                self._keep(key, value)
            finally:
                with self._lock:
                    self._making.pop(key, None)
        return value

    def _keep(self, key: Hashable, value: _T) -> None:
        size = self._size(value)
        if size > self._most:
            return
        with self._lock:
            old = self._held.pop(key, None)
            self._sum += size - (0 if old is None else self._size(old))
            self._held[key] = value
            while self._sum > self._most:
                self._sum -= self._size(self._held.popitem(last=False)[1])
