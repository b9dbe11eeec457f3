"""Images in stores that are no directories: read anywhere, written in memory."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

from numpy.typing import DTypeLike

from microtome.errors import ExistsError, ModeError

from ._array import StoredArray
from ._cached_array import open_array_at
from ._documents import Hierarchy, group_document, read_hierarchy
from ._layout import Layout
from ._making import create_array, open_array
from ._remote import Place

__all__ = ["PlaceStore"]

_ROOT = "zarr.json"
# Of this process, as its memory is: changes of two images at once are rare and short.
_CHANGING = threading.RLock()


class PlaceStore:
    """An image in a store: S3, HTTP, a zip file, or this process's memory.

    Only memory can be written: elsewhere nothing keeps two writers apart, or half an image from
    being seen.

    Parameters
    ----------
    place
        The group.
    writable
        Whether anything may be changed.

    Raises
    ------
    ModeError
        If it cannot be written, and is to be.
    """

    def __init__(self, place: Place, *, writable: bool = False) -> None:
        if writable and place.spec["driver"] != "memory":
            msg = f"{place} can be read, not written; write a directory and copy it there"
            raise ModeError(msg)
        self._place = place
        self.writable = writable
        # What was found when it was opened to be read: one request, whatever is in the group.
        self._found: Hierarchy | None = None
        # Of an image that is begun: its metadata, without which nobody takes it for one.
        self._begun: dict[str, Any] | None = None
        self._pending: set[str] = set()
        self._arrays: list[StoredArray] = []

    @classmethod
    def begin(cls, place: Place, *, overwrite: bool = False) -> PlaceStore:
        """Begin a new image; see `begin_store`."""
        store = cls(place, writable=True)
        if place.read(_ROOT) is not None:
            if not overwrite:
                msg = f"{place} exists already; choose another place or allow overwriting"
                raise ExistsError(msg)
            place.clear()
        store._begun = {}
        return store

    @property
    def uri(self) -> str:
        """The address."""
        return str(self._place)

    def attributes(self) -> dict[str, Any]:
        """Return the attributes: as they are now, or, of a store to read, as they were found."""
        if self._begun is not None:
            return copy.deepcopy(self._begun)
        if self._found is None or self.writable:
            self._found = read_hierarchy(self._place)
        return self._found.attributes

    @contextmanager
    def changing(
        self, *, adding: Sequence[str] = (), removing: Sequence[str] = ()
    ) -> Generator[dict[str, Any]]:
        """Give the attributes to be changed in place; see `ImageStore.changing`."""
        if not self.writable:
            msg = f"{self._place} is open for reading"
            raise ModeError(msg)
        with _CHANGING:
            attributes = self.attributes()
            yield attributes
            if self._begun is None:
                self._write_root(attributes)
            else:
                self._begun = attributes
            self._pending.difference_update(adding)
            for path in removing:
                self._remove(path)

    def open_array(self, path: str) -> StoredArray:
        """Open an array of the group."""
        if not self.writable:
            found = self._found or Hierarchy({}, {})
            return open_array_at(
                self._place / path,
                document=found.arrays.pop(path, None),
                absent=found.absent.pop(path, None),
            )
        array = open_array(self._place / path, writable=True)
        self._arrays.append(array)
        return array

    def create_array(
        self, path: str, *, shape: Sequence[int], dtype: DTypeLike, layout: Layout, axes: str
    ) -> StoredArray:
        """Create an array; no metadata name it yet."""
        array = create_array(self._place / path, shape=shape, dtype=dtype, layout=layout, axes=axes)
        self._pending.add(path)
        self._arrays.append(array)
        return array

    def holds(self, path: str) -> bool:
        """Whether there is an array at a path inside the group."""
        return (self._place / path).read(_ROOT) is not None

    def settle(self, path: str) -> str:
        """Return where an array is: this process alone writes into its memory."""
        return path

    def forget(self, path: str) -> None:
        """Drop an array that was created, if it is no part of the group yet."""
        if path in self._pending:
            self._remove(path)

    def close(self) -> None:
        """Make an image that was begun appear."""
        if self._begun is not None:
            self._write_root(self._begun)
            self._begun = None
        self._close_arrays()
        for path in tuple(self._pending):
            self._remove(path)

    def discard(self) -> None:
        """Drop what does not appear yet."""
        self._close_arrays()
        if self._begun is not None:
            self._place.clear()
        for path in tuple(self._pending):
            self._remove(path)

    def _write_root(self, attributes: dict[str, Any]) -> None:
        document = group_document(attributes)
        self._place.write(_ROOT, json.dumps(document, allow_nan=False).encode())

    def _close_arrays(self) -> None:
        if self.writable:
            while self._arrays:
                self._arrays.pop().close()

    def _remove(self, path: str) -> None:
        self._pending.discard(path)
        for array in self._arrays:
            if array.path == self._place / path:
                array.close()
        (self._place / path).clear()
