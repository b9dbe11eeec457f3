"""What else is known about an image: attributes that are stored with it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

from microtome.errors import InvalidInputError, UnknownNameError
from microtome.storage import ImageStore

from ._attributes import RESERVED, as_json

__all__ = ["Metadata"]


class Metadata(MutableMapping[str, Any]):
    """The attributes of an image, by name; any JSON.

    A value is a copy: to change one, set it anew. Each change is stored at once, to whatever the
    attributes are at that moment, so that writers of different names lose nothing of each other's.
    What OME-Zarr and microtome keep there (``"ome"``, ``"microtome"``) can be read and not set.

    Parameters
    ----------
    values
        The attributes as they were read; or a function that reads them when one is asked for, which
        is what goes to another process in their place.
    store
        Returns where changes go; raises an error where the image is not open for writing.
    where
        Name of the image, for messages.
    """

    def __init__(
        self,
        values: Mapping[str, Any] | Callable[[], Mapping[str, Any]],
        store: Callable[[], ImageStore],
        *,
        where: str,
    ) -> None:
        self._load: Callable[[], Mapping[str, Any]] | None = None
        self._known: dict[str, Any] | None = None
        if isinstance(values, Metadata):
            # Those of another image that were not read yet stay so; known ones are never changed.
            self._load, self._known = values._load, values._known  # noqa: SLF001 - its own
        elif isinstance(values, Mapping):
            self._known = dict(values)
        else:
            self._load = values
        self._store = store
        self._where = where

    @property
    def _values(self) -> dict[str, Any]:
        if self._known is None:
            self._known = dict(self._load()) if self._load is not None else {}
        return self._known

    @_values.setter
    def _values(self, values: dict[str, Any]) -> None:
        self._load, self._known = None, values

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_known": self._known if self._load is None else None}

    def __getitem__(self, name: str) -> Any:
        try:
            return copy.deepcopy(self._values[name])
        except KeyError:
            msg = f"{self._where} has no attribute {name!r}, only {sorted(self._values)}"
            raise UnknownNameError(msg) from None

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __setitem__(self, name: str, value: Any) -> None:
        """Store an attribute.

        Raises
        ------
        ModeError
            If the image is closed or open for reading.
        InvalidInputError
            If the name is reserved, or the value is no JSON.
        """
        store = self._store()
        self._verify_name(name)
        stored = as_json(value, f"{self._where}: attribute {name!r}")
        with store.changing() as attributes:
            attributes[name] = stored
        self._values = attributes

    def __delitem__(self, name: str) -> None:
        store = self._store()
        self._verify_name(name)
        with store.changing() as attributes:
            there = name in attributes
            attributes.pop(name, None)
        self._values = attributes
        if not there:
            msg = f"{self._where} has no attribute {name!r}"
            raise UnknownNameError(msg)

    def clear(self) -> None:
        """Remove all attributes but those that cannot be set."""
        for name in [name for name in self if name not in RESERVED]:
            del self[name]

    def _verify_name(self, name: object) -> None:
        if not isinstance(name, str) or name in RESERVED:
            msg = (
                f"{self._where}: an attribute is named by a text, and not by "
                f"{', '.join(sorted(RESERVED))}, which the format and microtome keep; got {name!r}"
            )
            raise InvalidInputError(msg)

    def __repr__(self) -> str:
        return f"Metadata({ {k: v for k, v in self._values.items() if k not in RESERVED} })"
