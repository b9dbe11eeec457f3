"""Stores that are not directories: S3, HTTP, a zip file, and memory.

A `Place` stands where a path stands. Reads that fail on the way are tried again with growing
pauses and end in an error that names the key.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast
from urllib.parse import urlsplit

import tensorstore as ts

from microtome.errors import InvalidInputError, ModeError

from ._engine import ENGINE, engine_errors
from ._options import StorageOptions

__all__ = ["Place", "StorageOptions", "place_of"]

_SCHEMES = ("file", "memory", "s3", "http", "https")
_WRITABLE = frozenset({"memory", "s3"})
_ZIP = (".zip", ".ozx")


@dataclass(frozen=True, slots=True)
class Place:
    """A directory in a store.

    Parameters
    ----------
    uri
        What the user typed, with the parts that were added by ``/``.
    store
        The engine's description of the store, as JSON text: a value that can be compared and sent
        to another process.
    options
        How the store is reached, and what is kept of it; what lies inside inherits them.
    """

    uri: str
    store: str
    options: StorageOptions = StorageOptions()  # noqa: RUF009 - frozen, so that one can be shared

    def __truediv__(self, name: str) -> Self:
        spec = self.spec
        spec["path"] = f"{spec.get('path', '')}{name.strip('/')}/"
        return type(self)(f"{self.uri.rstrip('/')}/{name}", json.dumps(spec), self.options)

    @property
    def spec(self) -> dict[str, Any]:
        """The engine's description of the store."""
        return cast("dict[str, Any]", json.loads(self.store))

    def read(self, name: str) -> bytes | None:
        """Return the bytes of a key, None where there is none.

        Raises
        ------
        StorageError
            If the store cannot be reached or refuses.
        """
        with engine_errors(f"{self.uri}/{name}"):
            found = self._keys().read(name).result()
        return found.value if found.state == "value" else None

    def write(self, name: str, data: bytes) -> None:
        """Write the bytes of a key, replacing what was there.

        Raises
        ------
        ModeError
            If such a store is only read: HTTP, and zip files.
        StorageError
            If the store cannot be reached or refuses.
        """
        with engine_errors(f"{self.uri}/{name}"):
            self._writable_keys().write(name, data).result()

    def remove(self, name: str) -> None:
        """Remove a key, if it is there; errors as `write`."""
        with engine_errors(f"{self.uri}/{name}"):
            # The engine's word for removing: writing nothing.
            self._writable_keys().write(name, None).result()

    def clear(self) -> None:
        """Remove every key in this directory and below it; errors as `write`."""
        with engine_errors(self.uri):
            self._writable_keys().delete_range(ts.KvStore.KeyRange()).result()

    def _writable_keys(self) -> ts.KvStore:
        if self.spec["driver"] not in _WRITABLE:
            msg = f"{self} can be read, not written; write a directory and copy it there"
            raise ModeError(msg)
        return self._keys()

    def _keys(self) -> ts.KvStore:
        return ts.KvStore.open(self.spec, context=ENGINE.context(self.uri, self.options)).result()

    def __str__(self) -> str:
        return self.uri


def place_of(
    uri: str | os.PathLike[str] | Place, options: StorageOptions | None = None
) -> Path | Place:
    """Return where something is: a path, or a place in a store.

    Parameters
    ----------
    uri
        A path, ``file://``, ``memory://``, ``s3://bucket/key``, ``http(s)://...``, or the path of a
        zip file (``.ozx``, RFC-9) that holds an image at its root.
    options
        How remote stores are reached.

    Raises
    ------
    InvalidInputError
        If the scheme is unknown, or an S3 address names no bucket.
    """
    if isinstance(uri, Place):
        return uri
    if options is not None and not isinstance(options, StorageOptions):  # pyright: ignore[reportUnnecessaryIsInstance] - whatever the caller gave
        msg = f"a StorageOptions says how stores are reached, got {options!r}"
        raise InvalidInputError(msg)
    chosen = options or StorageOptions()
    text = os.fspath(uri)
    scheme, _, rest = text.partition("://")
    if not rest or len(scheme) == 1:  # one letter is a drive
        return _local(Path(text), chosen)
    if scheme not in _SCHEMES:
        msg = f"{text}: stores of {scheme!r} cannot be read; {', '.join(_SCHEMES)} can"
        raise InvalidInputError(msg)
    if scheme == "file":
        return _local(Path(rest), chosen)
    if scheme == "memory":
        return Place(text, json.dumps({"driver": "memory", "path": f"{rest.strip('/')}/"}), chosen)
    if scheme == "s3":
        return Place(text, json.dumps(_s3(text, chosen)), chosen)
    base = text if text.endswith("/") else f"{text}/"
    return Place(text, json.dumps({"driver": "http", "base_url": base, "path": ""}), chosen)


def _local(path: Path, options: StorageOptions) -> Path | Place:
    if path.suffix in _ZIP and path.is_file():
        base = {"driver": "file", "path": str(path.resolve())}
        return Place(str(path), json.dumps({"driver": "zip", "base": base, "path": ""}), options)
    return path


def _s3(text: str, options: StorageOptions) -> dict[str, Any]:
    parts = urlsplit(text)
    if not parts.netloc:
        msg = f"{text}: an S3 address is s3://bucket/key"
        raise InvalidInputError(msg)
    key = parts.path.strip("/")
    spec: dict[str, Any] = {
        "driver": "s3",
        "bucket": parts.netloc,
        "path": f"{key}/" if key else "",
    }
    if options.endpoint is not None:
        spec["endpoint"] = options.endpoint
    if options.region is not None:
        spec["aws_region"] = options.region
    if options.credentials == "anonymous":
        spec["aws_credentials"] = {"type": "anonymous"}
    return spec
