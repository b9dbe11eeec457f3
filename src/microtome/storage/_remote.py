"""Stores that are not directories: S3, Google's, HTTP, a zip file, and memory.

A `Place` stands where a path stands. Reads that fail on the way are tried again with growing
pauses and end in an error that names the key.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, cast
from urllib.parse import urlsplit

import tensorstore as ts

from microtome.errors import InvalidInputError, ModeError, StorageError

from ._addresses import is_address, spelled
from ._credentials import stated_credentials
from ._disk_cache_environment import disk_cache_stated
from ._engine import ENGINE, engine_errors
from ._options import StorageOptions

__all__ = ["AtPlace", "Place", "StorageOptions", "place_of"]

_SCHEMES = ("file", "memory", "s3", "gs", "http", "https")
# Stores that cannot say what is in them.
_SILENT = frozenset({"http"})
_FAR = frozenset({"s3", "gcs", "http"})
_WRITABLE = frozenset({"memory", "s3"})
_ZIP = (".zip", ".ozx")
_FIRST_PAUSE = 0.1


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
        spec = self._stored
        spec["path"] = f"{spec.get('path', '')}{name.strip('/')}/"
        return type(self)(f"{self.uri.rstrip('/')}/{name}", json.dumps(spec), self.options)

    @property
    def spec(self) -> dict[str, Any]:
        """The engine's description of the store, with the credentials that this process has."""
        spec = self._stored
        if spec["driver"] == "s3" and "aws_credentials" not in spec:
            stated = stated_credentials()
            spec |= {} if stated is None else {"aws_credentials": stated}
        return spec

    @property
    def _stored(self) -> dict[str, Any]:
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

    def read_stamped(self, name: str) -> tuple[bytes | None, bytes]:
        """Return the bytes of a key, None where there is none, and what tells them from any others.

        The stamp is for `write_if`; errors as `read`.
        """
        with engine_errors(f"{self.uri}/{name}"):
            found = self._keys().read(name).result()
        return found.value if found.state == "value" else None, found.stamp.generation

    @property
    def is_writable(self) -> bool:
        """Whether such a store can be written: HTTP, Google's and zip files are read."""
        return self._stored["driver"] in _WRITABLE

    def verify_writable(self) -> None:
        """Refuse a store that is only read.

        Raises
        ------
        ModeError
            If it is one.
        """
        if not self.is_writable:
            msg = f"{self} can be read, not written: give an s3:// address, or write here and copy it there"
            raise ModeError(msg)

    @property
    def is_remote(self) -> bool:
        """Whether it is on another machine, as far as its address tells."""
        return self._stored["driver"] in _FAR

    @property
    def lists(self) -> bool:
        """Whether the store can say what is in it; web servers cannot."""
        return self._stored["driver"] not in _SILENT

    def names(self) -> list[str]:
        """Return the keys in this directory and below it, a thousand a request.

        Raises
        ------
        StorageError
            If the store cannot be reached or refuses.
        """
        with engine_errors(self.uri):
            return [name.decode() for name in self._keys().list().result()]

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

    def write_if(self, name: str, data: bytes, stamp: bytes) -> bytes | None:
        """Write the bytes of a key where it still holds what it held; errors as `write`.

        Parameters
        ----------
        name
            The key.
        data
            What it shall hold.
        stamp
            As `read_stamped` told it, also of a key that is not there.

        Returns
        -------
        The new stamp; None where the key holds something else, which stays.
        """
        written = self._patiently(name, data, stamp)
        if written:
            return written
        # The answer to a request that was done may be lost on the way, and the request repeated.
        found, now = self.read_stamped(name)
        return now if found == data else None

    def _patiently(self, name: str, data: bytes, stamp: bytes) -> bytes:
        """Write a key on a condition; the engine looks before, and does not look again if that fails."""
        pause = _FIRST_PAUSE
        for left in range(self.options.retries, -1, -1):
            try:
                with engine_errors(f"{self.uri}/{name}"):
                    keys = self._writable_keys()
                    return keys.write(name, data, if_equal=stamp).result().generation
            except StorageError as error:
                if isinstance(error.__cause__, NotImplementedError):
                    msg = (
                        f"{self.uri}/{name}: the store takes no writes on a condition (If-None-Match), "
                        "by which two writers are kept apart; write here and copy it there"
                    )
                    raise StorageError(msg) from error
                if not left or "PERMISSION_DENIED" in str(error.__cause__):
                    raise
            time.sleep(min(pause, self.options.longest_pause))
            pause *= 2
        raise AssertionError  # the last attempt returns or raises

    def begin_write(self, name: str, data: bytes | None) -> ts.Future[Any]:
        """Begin to write a key as `write`, or with None to remove it, and return what is waited for."""
        return self._writable_keys().write(name, data)

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
        if self._stored["driver"] not in _WRITABLE:
            msg = f"{self} can be read, not written; write a directory and copy it there"
            raise ModeError(msg)
        return self._keys()

    def _keys(self) -> ts.KvStore:
        return ts.KvStore.open(self.spec, context=ENGINE.context(self.uri, self.options)).result()

    def __str__(self) -> str:
        return self.uri


class AtPlace:
    """What lies at a place: it is given where a path is, and stands for the place."""

    __slots__ = ()

    @property
    def place(self) -> Place:
        """Where it is."""
        raise NotImplementedError


def place_of(
    uri: str | os.PathLike[str] | Place | AtPlace, options: StorageOptions | None = None
) -> Path | Place:
    """Return where something is: a path, or a place in a store.

    Parameters
    ----------
    uri
        A path, ``file://``, ``memory://``, ``s3://bucket/key``, ``gs://bucket/key``,
        ``http(s)://...``, or the path of a zip file (``.ozx``, RFC-9) that holds an image at its
        root.
    options
        How remote stores are reached.

    Raises
    ------
    InvalidInputError
        If the scheme is unknown, the address of a bucket names none, or the environment names a
        cache on disk that cannot be one.
    """
    if isinstance(uri, Place | AtPlace):
        return uri if isinstance(uri, Place) else uri.place
    if options is not None and not isinstance(options, StorageOptions):  # pyright: ignore[reportUnnecessaryIsInstance] - whatever the caller gave
        msg = f"a StorageOptions says how stores are reached, got {options!r}"
        raise InvalidInputError(msg)
    chosen = options or StorageOptions()
    text = spelled(uri)
    if not is_address(text):
        return _local(Path(text), chosen)
    scheme, _, rest = text.partition("://")
    if scheme not in _SCHEMES:
        msg = f"{text}: stores of {scheme!r} cannot be read; {', '.join(_SCHEMES)} can"
        raise InvalidInputError(msg)
    if scheme == "file":
        return _local(Path(rest), chosen)
    if scheme == "memory":
        spec: dict[str, Any] = {"driver": "memory", "path": f"{rest.strip('/')}/"}
    elif scheme == "s3":
        spec = _s3(text, chosen)
    elif scheme == "gs":
        spec = {"driver": "gcs", **_in_bucket(text)}
    else:
        base = text if text.endswith("/") else f"{text}/"
        spec = {"driver": "http", "base_url": base, "path": ""}
    place = Place(text, json.dumps(spec), chosen)
    if place.is_remote and chosen.disk_cache is None:
        stated = disk_cache_stated()
        if stated is not None:
            return Place(text, place.store, replace(chosen, disk_cache=stated))
    return place


def _local(path: Path, options: StorageOptions) -> Path | Place:
    if path.suffix in _ZIP and path.is_file():
        base = {"driver": "file", "path": str(path.resolve())}
        return Place(str(path), json.dumps({"driver": "zip", "base": base, "path": ""}), options)
    return path


def _s3(text: str, options: StorageOptions) -> dict[str, Any]:
    spec: dict[str, Any] = {"driver": "s3", **_in_bucket(text)}
    # The variables that Amazon's own tools look at, which the array engine does not.
    endpoint = options.endpoint or os.environ.get("AWS_ENDPOINT_URL_S3")
    endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        spec["endpoint"] = endpoint
    region = options.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region:
        spec["aws_region"] = region
    # By the name that GDAL's tools know.
    unsigned = os.environ.get("AWS_NO_SIGN_REQUEST", "").lower() in {"yes", "true", "1"}
    if options.credentials == "anonymous" or unsigned:
        spec["aws_credentials"] = {"type": "anonymous"}
    return spec


def _in_bucket(text: str) -> dict[str, str]:
    parts = urlsplit(text)
    if not parts.netloc:
        msg = f"{text}: an address of {parts.scheme.upper()} is {parts.scheme}://bucket/key"
        raise InvalidInputError(msg)
    key = parts.path.strip("/")
    return {"bucket": parts.netloc, "path": f"{key}/" if key else ""}
