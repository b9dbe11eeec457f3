"""Requests that are under way: whoever wants what another has asked for waits for that one."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future
from typing import Any

__all__ = ["Flights", "flights_to"]


class _AbandonedError(Exception):
    """Who had asked was interrupted, and whoever waits has to ask."""


class Flights:
    """What is being fetched, by name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[Hashable, Future[Any]] = {}

    def bring(
        self,
        names: Iterable[Hashable],
        fetch: Callable[[list[Any], Callable[[Any, Any], None]], None],
    ) -> dict[Any, Any]:
        """Return what each name stands for, fetching what nobody fetches yet.

        Parameters
        ----------
        names
            What is wanted.
        fetch
            Is called with those names that are this caller's to fetch, and with a function that
            takes a name and what was found. What it raises is raised to all who wait for these names.
            While a name is being fetched nobody else does, so what is kept elsewhere has to be looked
            at in here, and to be written there before it is handed over.
        """
        found: dict[Any, Any] = {}
        left = list(names)
        while left:
            mine: list[Any] = []
            theirs: dict[Any, Future[Any]] = {}
            with self._lock:
                for name in left:
                    other = self._under_way.get(name)
                    if other is None:
                        mine.append(name)
                        self._under_way[name] = Future()
                    else:
                        theirs[name] = other
            if mine:
                # Before others are waited for: two who each wait for what the other has would never end.
                found |= self._fetched(mine, fetch)
            left = []
            for name, other in theirs.items():
                try:
                    found[name] = other.result()
                except _AbandonedError:
                    left.append(name)
        return found

    def _fetched(
        self,
        mine: list[Any],
        fetch: Callable[[list[Any], Callable[[Any, Any], None]], None],
    ) -> dict[Any, Any]:
        found: dict[Any, Any] = {}

        def hand_over(name: Any, value: Any) -> None:
            found[name] = value
            with self._lock:
                waiting = self._under_way.pop(name)
            waiting.set_result(value)

        failed: Exception = _AbandonedError()
        try:
            fetch(mine, hand_over)
        except Exception as error:
            failed = error
            raise
        finally:
            with self._lock:
                rest = [self._under_way.pop(name) for name in mine if name not in found]
            for waiting in rest:
                waiting.set_exception(failed)
        return found


_ALL: weakref.WeakValueDictionary[str, Flights] = weakref.WeakValueDictionary()
_MAKING = threading.Lock()


def flights_to(address: str) -> Flights:
    """Return the requests of all who fetch from an address, in this process."""
    with _MAKING:
        found = _ALL.get(address)
        if found is None:
            found = _ALL[address] = Flights()
        return found
